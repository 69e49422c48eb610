"""Which model does a job, on which device, in tiles of which size."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import torch

from mambair_cli.checkpoints import catalog, hub
from mambair_cli.checkpoints.catalog import AUTO, REAL, Model, Task, default_scale, is_named
from mambair_cli.errors import DownloadError, ModelError, UsageError
from mambair_cli.networks import MambaIRConfig
from mambair_cli.restore.tile_cost import SIDES, VALUES_AT_ONCE, digest_costs, fit_tiles
from mambair_cli.restore.tiling import Plan, plan_tiles

if TYPE_CHECKING:
    from mambair_cli.networks import Config, NetworkInfo

TILE_SIDE = {"cpu": 256, "cuda": 136, "mps": 128}  # pixels of the input; measured: benchmarks/README.md
WINDOWED_TILE_SIDE = {"cuda": 192}  # of MambaIRv2, which computes whole windows of 16 pixels
WHOLE_SIDE = {"cuda": 256}  # up to which an image is a single tile: faster there than several smaller ones
OVERLAP = 16  # measured: benchmarks/README.md


class TileSettings(NamedTuple):
    """Into what images are cut, in pixels.

    Attributes:
        side: The largest of a tile.
        overlap: What neighbours share at least.
        whole: Side of an image up to which it is a single tile.
        fitted: The network to whose time on a GPU tiles are fitted; None for tiles as square as can be.
    """

    side: int
    overlap: int
    whole: int
    fitted: MambaIRConfig | None = None

    @property
    def computing(self) -> dict[str, int | str | None]:
        """Return what pixels depend on of all that."""
        fit = None if self.fitted is None else digest_costs()
        return {"tile": self.side, "overlap": self.overlap, "whole": self.whole, "fit": fit}

    def plan(self, height: int, width: int) -> Plan:
        """Place tiles on an image of that size."""
        if max(height, width) <= self.whole:
            return plan_tiles(height, width, self.whole, self.overlap)
        if self.fitted is not None:
            return fit_tiles(height, width, self.overlap, self.fitted)
        return plan_tiles(height, width, self.side, self.overlap)


@dataclass(frozen=True)
class ChosenModel:
    """A checkpoint on this machine, and how it was come by.

    Attributes:
        name: In the catalogue, or the name of the file.
        path: Of the checkpoint.
        notice: What the user should know about the choice, if anything.
        sha256: Of the file, if it was found out on the way.
        is_fallback: Whether it stands in for a better one that could not be had.
    """

    name: str
    path: Path
    notice: str | None = None
    sha256: str | None = None
    is_fallback: bool = False

    def tell(self, offline: bool) -> str | None:
        """Return the notice for a user, who has asked for a stand-in by asking to stay offline."""
        return None if offline and self.is_fallback else self.notice


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first of CUDA, MPS and the CPU that is there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise UsageError(f"no such device: {name}; this machine has {', '.join(there)}") from error
    return device


def choose_devices(names: str | None, workers: int | None) -> list[str]:
    """Return the device of each of several workers; none where one process does it all.

    Args:
        names: Devices with commas between, or "all" that CUDA has.
        workers: Processes on the CPU.

    Raises:
        UsageError: There is no such device, or the two exclude each other.
    """
    if names is None:
        return ["cpu"] * (workers or 0)
    if workers is not None:
        raise UsageError(f"--devices {names} and --workers {workers} exclude each other; give one")
    devices = [name.strip() for name in names.split(",")]
    if names == "all":
        devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if not devices:
        raise UsageError("no such device: all; there is no GPU, but --workers shares the CPU out")
    if len({choose_device(device).type for device in devices}) > 1:
        raise UsageError(f"devices of different kinds give different bits: {names}; name those of one kind")
    return devices


def choose_tiles(
    tile: int | None,
    overlap: int | None,
    device_kind: str,
    architecture: str | None = None,
    config: "Config | None" = None,
) -> TileSettings:
    """Fill in what was left out of tile and overlap.

    Args:
        tile: Largest side, in pixels.
        overlap: Pixels that neighbours share at least.
        device_kind: As torch names it.
        architecture: Of the network; None where it is not known yet, and any default may turn out right.
        config: Of the network, likewise.

    Raises:
        UsageError: They cannot be.
    """
    may_fit = tile is None and device_kind in VALUES_AT_ONCE
    fitted = config if may_fit and isinstance(config, MambaIRConfig) else None
    whole = WHOLE_SIDE.get(device_kind, 0) if tile is None else 0
    if tile is None:
        tile = TILE_SIDE.get(device_kind, TILE_SIDE["cpu"])
        if architecture is not None and architecture.lower() == "mambairv2":
            tile = WINDOWED_TILE_SIDE.get(device_kind, tile)
        if fitted is not None or (may_fit and architecture is None):
            tile = max(SIDES)
    overlap = min(OVERLAP, tile // 2) if overlap is None else overlap
    if tile < 1 or not 0 <= overlap < tile:
        raise UsageError(f"the overlap must be at least 0 and less than the tile: {overlap} of {tile}")
    return TileSettings(tile, overlap, whole, fitted)


def name_model(task: Task, scale: int | None, level: float | None, model: str, device_kind: str) -> Model:
    """Settle which entry of the catalogue does the job: by its name, or by a word such as "auto"."""
    if is_named(model):
        return catalog.find_model(model)
    scale = default_scale(task) if scale is None else scale
    return catalog.choose_model(task, scale, level, device_kind, model == REAL)


def choose_model(
    task: Task,
    scale: int | None,
    level: float | None,
    model: str,
    weights: str | Path | None,
    device_kind: str,
    offline: bool,
    quiet: bool = False,
) -> ChosenModel:
    """Settle which checkpoint does the job, and have it on this machine.

    A file or a model that was named is used or is an error. "clean" takes the best official one for the
    device, and where that cannot be had, the one that ships inside the package; so does "real", for pictures
    that are noisy, compressed or blurred. "auto" is "clean" here, where no picture is seen.

    Raises:
        ModelError: Where there is none.
    """
    if weights is not None:
        if model != AUTO:
            raise UsageError(f"--model {model} and --weights {weights} exclude each other; give one")
        return ChosenModel(Path(weights).name, Path(weights))
    best = name_model(task, scale, level, model, device_kind)
    try:
        fetched = hub.fetch(best, offline=offline, quiet=quiet)
        return ChosenModel(best.name, fetched.path, fetched.notice, fetched.verification.sha256)
    except hub.WrongFileError:  # somebody damaged or exchanged it: not to be passed over
        raise
    except DownloadError as error:
        shipped = catalog.bundled_model(task, best.scale, best.is_real)
        if is_named(model) or shipped is None or hub.cached(shipped) is None:
            raise
        fetched, notice = hub.fetch(shipped), _explain_fallback(best, shipped, error)
        return ChosenModel(shipped.name, fetched.path, notice, fetched.verification.sha256, True)


def check_fit(info: "NetworkInfo", task: Task, scale: int | None, model: ChosenModel) -> None:
    """Refuse a network that does not do the task."""
    does = f"{model.name} ({info.architecture}) does {info.task} ×{info.scale}"
    if info.scale == 1:
        does = f"{model.name} ({info.architecture}) does {info.task}, at the same size"
    fits = info.task == task or (info.task == "restore" and task != "upscale")
    if not fits:
        raise ModelError(f"the model does not fit the task: {does}; {task} was asked for")
    if task == "upscale" and scale is not None and scale != info.scale:
        raise ModelError(f"the model does not fit the scale: {does}; ×{scale} was asked for")


def _explain_fallback(best: Model, shipped: Model, error: DownloadError) -> str:
    losses = [best.psnr[name] - shipped.psnr[name] for name in shipped.psnr if name in best.psnr]
    cost = f" (about {sum(losses) / len(losses):.1f} dB less)" if losses else ""
    reason = cast(str, error.args[0]).split(";")[0].split(": ")[0]  # `mambair doctor` has the rest
    return f"using the built-in model {shipped.name}{cost}: {reason}"
