"""The restorer: image in, image out; the choice of model and device, and what to do about memory."""

from collections.abc import Callable, Iterator
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
from mambair_cli.images import bleed, from_float, join_luma, split_luma, to_float
from mambair_cli.tiling import Plan, blend_tiles, plan_tiles
from mambair_cli.window import Converted, ReadRows, Window

if TYPE_CHECKING:
    from mambair_cli.model import NetworkInfo

TILE_SIDE = {"cpu": 256, "cuda": 160, "mps": 128}  # pixels of the input; measured: benchmarks/README.md
WHOLE_SIDE = {"cuda": 256}  # up to which an image is a single tile: faster there than several smaller ones
OVERLAP = 16  # measured: benchmarks/README.md
TILES_AT_ONCE = {"cpu": 1, "cuda": 24, "mps": 4}
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


@dataclass(frozen=True)
class Band:
    """Finished rows of a result.

    Attributes:
        top: Number of the first one.
        rows: (n, s·w, c) float32 in [0, 1], alpha last.
        report: How they were computed.
    """

    top: int
    rows: np.ndarray
    report: Report


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
        tile: Side of a tile in pixels of the input; by default 256; on CUDA 160,
            or 256 where the image is no larger.
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
        self.tile, self.overlap = check_tile(tile, overlap, self.device.type)
        self._whole_side = WHOLE_SIDE.get(self.device.type, 0) if tile is None else 0
        self.seed, self.precision = seed, precision
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
        height, width, samples = image.shape
        result = np.empty((height * self.info.scale, width * self.info.scale, samples), image.dtype)
        report = None
        for band in self.restore_rows(lambda top, bottom: image[top:bottom], image.shape, on_tiles):
            result[band.top : band.top + len(band.rows)] = from_float(band.rows, image.dtype)
            report = band.report
        if report is None:
            raise ValueError(f"an image has at least one pixel, not {image.shape}")
        return result, report

    def restore_rows(
        self, read: ReadRows, shape: tuple[int, ...], on_tiles: OnTiles | None = None
    ) -> Iterator[Band]:
        """Restore an image that is read row after row, and yield the rows of the result as they are done.

        Where memory turns out too small, tiles become smaller and all begins anew: the next band is the top
        one again. What is held is the rows that a row of tiles covers, of the image and of the result.

        Args:
            read: Reads rows of uint8, uint16 or float32 in [0, 1], alpha last; asked for them in order, but
                for when it begins anew.
            shape: Of the image: (h, w, c), c as for :meth:`restore`.
            on_tiles: Told of progress.

        Raises:
            MemoryLimitError: Where the device does not hold even the smallest tile.
            UsageError: Where the network cannot restore such an image.
        """
        height, width, samples = shape
        if samples > 2 and self.info.channels == 1 and self.info.scale > 1:
            raise UsageError(f"{self.model.name} enlarges gray images alone; choose a colour model")
        tile, overlap, shrunk = self._side(height, width), self.overlap, False
        batch = TILES_AT_ONCE.get(self.device.type, 1)
        while True:
            plan = plan_tiles(height, width, tile, overlap)
            report = Report(plan, batch, shrunk)
            try:
                yield from self._attempt(Window(read, height), samples, report, on_tiles)
                return
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

    def plan(self, height: int, width: int) -> Plan:
        """Place tiles on an image of that size."""
        return plan_tiles(height, width, self._side(height, width), self.overlap)

    def _side(self, height: int, width: int) -> int:
        return self._whole_side if max(height, width) <= self._whole_side else self.tile

    def _attempt(
        self, window: Window, samples: int, report: Report, on_tiles: OnTiles | None
    ) -> Iterator[Band]:
        """Restore an image by the given tiles, whatever the network's own channels."""
        colors, scale = samples - (samples % 2 == 0), self.info.scale
        by_luma = colors == 3 and self.info.channels == 1

        def prepare(tile: np.ndarray) -> np.ndarray:
            tile = _visible_colors(tile, colors)
            if by_luma:
                return split_luma(tile)[0]
            return tile.repeat(self.info.channels // colors, axis=2)

        pixels = Converted(window, prepare)
        bands = self._engine.restore_rows(pixels, report.plan, report.batch, self.seed, on_tiles)
        alphas = self._restore_alpha(window, report) if samples > colors else None
        top = 0
        for rows in bands:
            bottom = top + len(rows)
            if by_luma:
                shown = _visible_colors(window[top:bottom, :], colors)
                rows = join_luma(rows, split_luma(shown)[1])
            elif colors < rows.shape[2]:
                rows = rows.mean(axis=2, keepdims=True)
            if alphas is not None:
                rows = np.concatenate([rows, next(alphas)], axis=2)
            yield Band(top, np.clip(rows, 0, 1, out=rows), report)
            window.release(bottom // scale)
            top = bottom

    def _restore_alpha(self, window: Window, report: Report) -> Iterator[np.ndarray]:
        """Enlarge alpha like a gray image of its own; noise and JPEG artefacts it has none.

        Yields:
            As many rows as bands of colours have, (n, s·w, 1).
        """
        plan, scale = report.plan, self.info.scale
        alpha = Converted(window, lambda tile: to_float(tile[..., -1:]))
        if scale == 1:
            yield from blend_tiles(
                plan,
                (alpha[top : top + plan.tile_height, left : left + plan.tile_width] for top, left in plan),
                1,
            )
            return
        pixels = Converted(alpha, lambda tile: tile.repeat(self.info.channels, axis=2))

        def restore_tiles() -> Iterator[np.ndarray]:
            for top in plan.tops:
                tiles = {
                    left: alpha[top : top + plan.tile_height, left : left + plan.tile_width]
                    for left in plan.lefts
                }
                varied = [(top, left) for left, tile in tiles.items() if tile.min() < tile.max()]
                restored = self._engine.restore_tiles(pixels, plan, varied, report.batch, self.seed)
                for left, tile in tiles.items():
                    if (top, left) in varied:
                        yield next(restored).mean(axis=2, keepdims=True)
                    else:
                        yield (
                            tile[:1, :1]
                            .repeat(scale * plan.tile_height, 0)
                            .repeat(scale * plan.tile_width, 1)
                        )

        yield from blend_tiles(plan, restore_tiles(), scale)


def _visible_colors(tile: np.ndarray, colors: int) -> np.ndarray:
    """Return the colours of samples, as floats, and where alpha is 0 those around it."""
    pixels = to_float(tile[..., :colors])
    return pixels if tile.shape[2] == colors else bleed(pixels, to_float(tile[..., colors:]))


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
    for device in devices:
        choose_device(device)
    return devices


def check_tile(tile: int | None, overlap: int | None, device_kind: str) -> tuple[int, int]:
    """Fill in what was left out of tile and overlap, and refuse what cannot be."""
    tile = TILE_SIDE.get(device_kind, TILE_SIDE["cpu"]) if tile is None else tile
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
