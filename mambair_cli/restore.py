"""The restorer: image in, image out; the choice of model and device, and what to do about memory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from mambair_cli import catalog, hub
from mambair_cli.catalog import Model, Task
from mambair_cli.checkpoint import load_network
from mambair_cli.engine import Engine, OnTiles, Precision
from mambair_cli.errors import DownloadError, MemoryLimitError, ModelError, UsageError
from mambair_cli.images import from_float, join_luma, split_luma, to_float
from mambair_cli.tiling import Plan, plan_tiles

if TYPE_CHECKING:
    from mambair_cli.model import NetworkInfo

TILE_SIDE = 128  # pixels of the input
OVERLAP = 16  # measured: benchmarks/README.md
TILES_AT_ONCE = {"cpu": 4, "cuda": 16, "mps": 4}
SMALLEST_TILE = 32


@dataclass(frozen=True)
class ChosenModel:
    """A checkpoint on this machine, and how it was come by.

    Attributes:
        name: In the catalogue, or the name of the file.
        path: Of the checkpoint.
        notice: What the user should know about the choice, if anything.
    """

    name: str
    path: Path
    notice: str | None = None


@dataclass(frozen=True)
class Report:
    """How an image was computed.

    Attributes:
        plan: The tiles.
        batch: Tiles computed at once.
        shrunk: Whether the device's memory forced smaller tiles or batches than planned.
    """

    plan: Plan
    batch: int
    shrunk: bool


class Restorer:
    """Restores images with one model on one device.

    Args:
        task: "upscale", "denoise" or "dejpeg".
        scale: Output pixels per input pixel and side; 1 for denoise and dejpeg.
        level: Noise sigma of 255, or JPEG quality; None where it is unknown.
        model: Name in the catalogue, or "auto".
        weights: A checkpoint to use in place of a model of the catalogue.
        device: "auto", or a device as torch names it.
        precision: "fp32"; "fp16" for products and convolutions; "auto" is fp16 on CUDA.
        tile: Side of a tile in pixels of the input; by default 128.
        overlap: Pixels that neighbouring tiles share at least; by default 16.
        seed: Of the noise that MambaIRv2 draws; None for none.
        offline: Use only what is on this machine.
        quiet: Show no progress of downloads.
        notify: Given a sentence where the user should know of something; by default nobody is.

    Attributes:
        model: The chosen checkpoint.
        info: What its network is.
        device: Where it computes.

    Raises:
        ModelError: Where no model can be had, or the one that was named does not fit the task.
        UsageError: For a device or tile that cannot be.
    """

    def __init__(
        self,
        task: Task = "upscale",
        scale: int | None = None,
        level: float | None = None,
        model: str = "auto",
        weights: str | Path | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        tile: int | None = None,
        overlap: int | None = None,
        seed: int | None = 0,
        offline: bool = False,
        quiet: bool = False,
        notify: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.device = choose_device(device)
        self.tile, self.overlap = check_tile(tile, overlap)
        self.seed = seed
        self.model = choose_model(task, scale, level, model, weights, self.device.type, offline, quiet)
        if self.model.notice:
            notify(self.model.notice)
        net = load_network(self.model.path)
        check_fit(net.info, task, scale, self.model)
        self.info = net.info
        self._engine = Engine(net, self.device, precision)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Restore an image; see ``restore``."""
        return self.restore(image)[0]

    def restore(self, image: np.ndarray, on_tiles: OnTiles | None = None) -> tuple[np.ndarray, Report]:
        """Restore an image, in smaller tiles where memory does not hold the planned ones.

        Args:
            image: (h, w) or (h, w, c), uint8, uint16 or float32 in [0, 1]; c is 1 gray, 2 gray and alpha,
                3 RGB, 4 RGB and alpha.
            on_tiles: Told of progress.

        Returns:
            The restored image, of the same kind and ``scale`` times the size, and how it was computed.

        Raises:
            MemoryLimitError: Where the device does not hold even the smallest tile.
            UsageError: Where the network cannot restore such an image.
        """
        if image.ndim == 2:
            restored, report = self.restore(image[:, :, None], on_tiles)
            return restored[:, :, 0], report
        if image.ndim != 3 or not 1 <= image.shape[2] <= 4:
            raise ValueError(f"an image is (h, w) or (h, w, c) with c from 1 to 4, not {image.shape}")
        colors = image.shape[2] - (image.shape[2] % 2 == 0)
        restored, report = self._restore_colors(image[:, :, :colors], on_tiles)
        if colors < image.shape[2]:
            restored = np.concatenate([restored, self._restore_alpha(image[:, :, colors:])], axis=2)
        return restored, report

    def plan(self, height: int, width: int) -> Plan:
        """Place tiles on an image of that size."""
        return plan_tiles(height, width, self.tile, self.overlap)

    def _restore_alpha(self, alpha: np.ndarray) -> np.ndarray:
        """Enlarge alpha like a gray image of its own; noise and JPEG artefacts it has none."""
        scale = self.info.scale
        if scale == 1:
            return alpha
        if (alpha == alpha[0, 0]).all():
            return np.full((alpha.shape[0] * scale, alpha.shape[1] * scale, 1), alpha[0, 0])
        return self._restore_colors(alpha, None)[0]

    def _restore_colors(self, image: np.ndarray, on_tiles: OnTiles | None) -> tuple[np.ndarray, Report]:
        """Restore a gray or RGB image, shrinking batch and tile until they fit."""
        height, width, _ = image.shape
        tile, overlap, shrunk = self.tile, self.overlap, False
        batch = TILES_AT_ONCE.get(self.device.type, 1)
        while True:
            plan = plan_tiles(height, width, tile, overlap)
            try:
                return self._attempt(image, plan, batch, on_tiles), Report(plan, batch, shrunk)
            except (torch.OutOfMemoryError, MemoryError) as error:
                shrunk = True
                batch = min(batch, len(plan))
                if batch > 1:
                    batch //= 2
                elif min(tile, max(height, width)) // 2 >= SMALLEST_TILE:
                    tile = min(tile, max(height, width)) // 2
                    overlap = min(overlap, tile // 2)
                else:
                    raise MemoryLimitError(
                        f"out of memory on {self.device} even with one tile of {plan.tile_width}×"
                        f"{plan.tile_height}; free some, or use --device cpu"
                    ) from error
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _attempt(self, image: np.ndarray, plan: Plan, batch: int, on_tiles: OnTiles | None) -> np.ndarray:
        """Restore a gray or RGB image by the given tiles, whatever the network's own channels."""
        x = to_float(image)
        channels, scale = image.shape[2], self.info.scale
        chroma = None
        if channels == 1 and self.info.channels == 3:
            x = x.repeat(3, axis=2)
        elif channels == 3 and self.info.channels == 1:
            if scale > 1:
                raise UsageError(f"{self.model.name} enlarges gray images alone; choose a colour model")
            x, chroma = split_luma(x)
        result = np.empty((plan.height * scale, plan.width * scale, channels), image.dtype)
        top = 0
        for rows in self._engine.restore_rows(x, plan, batch, self.seed, on_tiles):
            bottom = top + len(rows)
            if chroma is not None:
                rows = join_luma(rows, chroma[top:bottom])
            elif channels < rows.shape[2]:
                rows = rows.mean(axis=2, keepdims=True)
            result[top:bottom] = from_float(rows, image.dtype)
            top = bottom
        return result


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
        raise UsageError(f"no such device: {name}; use auto, cpu, cuda, cuda:1 or mps") from error
    return device


def check_tile(tile: int | None, overlap: int | None) -> tuple[int, int]:
    """Fill in what was left out of tile and overlap, and refuse what cannot be."""
    tile = TILE_SIDE if tile is None else tile
    overlap = min(OVERLAP, tile // 2) if overlap is None else overlap
    if tile < 1 or not 0 <= overlap < tile:
        raise UsageError(f"the overlap must be at least 0 and less than the tile: {overlap} of {tile}")
    return tile, overlap


def name_model(task: Task, scale: int | None, level: float | None, model: str, device_kind: str) -> Model:
    """Settle which entry of the catalogue does the job, by its name or, for "auto", by the job."""
    if model != "auto":
        return catalog.find_model(model)
    return catalog.choose_model(task, default_scale(task) if scale is None else scale, level, device_kind)


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

    A file or a model that was named is used or is an error. "auto" takes the best official one for the
    device, and where that cannot be had, the one that ships inside the package.

    Raises:
        ModelError: Where there is none.
    """
    if weights is not None:
        if model != "auto":
            raise UsageError(f"--model {model} and --weights {weights} exclude each other; give one")
        return ChosenModel(Path(weights).name, Path(weights))
    best = name_model(task, scale, level, model, device_kind)
    try:
        return ChosenModel(best.name, hub.fetch(best, offline=offline, quiet=quiet))
    except hub.WrongFileError:  # somebody damaged or exchanged it: not to be passed over
        raise
    except DownloadError as error:
        shipped = catalog.bundled_model(task, best.scale)
        if model != "auto" or shipped is None or hub.cached(shipped) is None:
            raise
        return ChosenModel(shipped.name, hub.fetch(shipped), _explain_fallback(best, shipped, error))


def default_scale(task: Task) -> int:
    """Return the scale of a task that was asked for without one."""
    return 4 if task == "upscale" else 1


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
    cost = f", about {sum(losses) / len(losses):.1f} dB less" if losses else ""
    reason = cast(str, error.args[0]).split(";")[0]
    return (
        f"using the small built-in model {shipped.name}{cost}, since {best.name} is not to be had: {reason}"
    )
