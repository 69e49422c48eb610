"""The restorer: image in, image out, tile by tile, and what to do about memory."""

import threading
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike

from mambair_cli.checkpoints.catalog import REAL, Task
from mambair_cli.checkpoints.load import load_network
from mambair_cli.checkpoints.select import check_fit, choose_model
from mambair_cli.errors import MemoryLimitError, UsageError
from mambair_cli.images import bleed, from_float, join_luma, split_luma, to_float
from mambair_cli.restore.devices import choose_device
from mambair_cli.restore.engine import Engine, OnTiles, TileComputer, blend_rows
from mambair_cli.restore.masks import enlarge_mask
from mambair_cli.restore.row_window import Converted, ReadRows, Window
from mambair_cli.restore.settings import Precision, RestoreSettings
from mambair_cli.restore.strength import REACH, check_strength, enlarge, mix
from mambair_cli.restore.tile_cost import choose_batch
from mambair_cli.restore.tile_size import choose_tiles
from mambair_cli.restore.tiling import Plan, Report, plan_tiles

SMALLEST_TILE = 32  # pixels

# Pixels up to which small images of one size are computed together, and how many at most. It follows from
# their size alone: how many there happen to be must not move a bit, and the shape of a batch does. Not on a
# CPU: there the place in a batch does, too, and several workers do better.
PIXELS_TOGETHER = {"cuda": 256**2}
MOST_TOGETHER = {"cuda": 16}


@dataclass(frozen=True)
class Band:
    """Finished rows of a result.

    Attributes:
        top: Number of the first one.
        rows: (n, s·w, c), alpha last, of the dtype that was asked for.
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
        model: Name in the catalogue; "auto"; or "real", for noisy, compressed or blurred pictures: it may
            enlarge further than ``scale``, ``info.scale`` times.
        weights: A checkpoint to use in place of a model of the catalogue.
        device: "auto", or a device as torch names it.
        precision: "fp32"; "fp16" for products and convolutions; "auto" is fp16 on CUDA.
        tile: Largest side of a tile in pixels of the input; by default 256, and on CUDA, where an image is
            larger than that, what suits it with MambaIR, 192 with MambaIRv2, and 136 with a U-Net.
        overlap: Pixels that neighbouring tiles share at least; by default 16.
        seed: Of the noise that MambaIRv2 draws; None for none.
        offline: Use only what is on this machine.
        quiet: Show no progress of downloads.
        notify: Given a sentence where the user should know of something; by default nobody is.
        strength: Share of what the network does, 0 to 1; the rest is the input, enlarged by Lanczos' kernel.
        bare: Whether results are the network's own, as the papers measure them; by default they are held to
            their input where that is smooth, see ``limits``.

    Attributes:
        model: The chosen checkpoint.
        net: Its network.
        info: What that is.
        tiles: Into which images are cut.
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
        strength: float = 1.0,
        bare: bool = False,
    ) -> None:
        check_strength(strength)
        self.strength = strength
        self.device = choose_device(device)
        choose_tiles(tile, overlap, self.device.type)  # what cannot be is said before anything is fetched
        self.seed = seed
        self.precision: Precision = precision
        self.bare = bare
        self.model = choose_model(task, scale, level, model, weights, self.device.type, offline, quiet)
        if notice := self.model.tell(offline):
            notify(notice)
        net = load_network(self.model.path)
        check_fit(net.info, task, None if model == REAL else scale, self.model)
        self.info = net.info
        self.tiles = choose_tiles(tile, overlap, self.device.type, net.info.architecture, net.info.config)
        self.net = net
        self._computer: TileComputer | None = None
        self._making = threading.Lock()
        self._shares: dict[tuple[int, ...], bool] = {}  # whether images of a shape leave each other alone

    @classmethod
    def from_settings(
        cls, settings: RestoreSettings, notify: Callable[[str], None] = lambda sentence: None
    ) -> "Restorer":
        """Make a restorer from a record of its arguments."""
        return cls(**vars(settings), notify=notify)

    @property
    def computer(self) -> TileComputer:
        """What has the network; it goes to its device when it is first asked for, by whichever thread."""
        with self._making:
            if self._computer is None:
                self._computer = Engine(self.net, self.device, self.precision, self.bare)
            return self._computer

    def by(self, computer: TileComputer) -> "Restorer":
        """Return a restorer that leaves the tiles to another computer of the same network."""
        other = copy(self)
        other._computer = computer
        return other

    def with_tiles(
        self, tile: int | None, overlap: int | None, seed: int | None, strength: float = 1.0
    ) -> "Restorer":
        """Return a restorer by the same network on the same device, with tiles, seed and strength of its own.

        Args:
            tile: As for the class, like the next two.
            overlap: Pixels.
            seed: Of the noise.
            strength: Share of what the network does.
        """
        other = self.by(self.computer)
        other.tiles = choose_tiles(tile, overlap, self.device.type, self.info.architecture, self.info.config)
        other.seed = seed
        other.strength = strength
        return other

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
        for band in self.restore_rows(
            lambda top, bottom: image[top:bottom], image.shape, on_tiles, image.dtype
        ):
            if band is not None:
                result[band.top : band.top + len(band.rows)] = band.rows
                report = band.report
        if report is None:
            raise ValueError(f"an image has at least one pixel, not {image.shape}")
        return result, report

    def restore_rows(
        self,
        read: ReadRows,
        shape: tuple[int, ...],
        on_tiles: OnTiles | None = None,
        dtype: DTypeLike = np.float32,
        masks: int = 0,
    ) -> Iterator[Band | None]:
        """Restore an image that is read row after row, and yield the rows of the result as they are done.

        Where memory turns out too small, tiles become smaller and all begins anew: the next band is the top
        one again. What is held is the rows that a row of tiles covers, of the image and of the result.

        Args:
            read: Reads rows of uint8, uint16 or float32 in [0, 1], alpha last; asked for them in order, but
                for when it begins anew.
            shape: Of the image: (h, w, c), c as for :meth:`restore`, and the masks.
            on_tiles: Told of progress.
            dtype: Of the rows: uint8, uint16 or float32; they are rounded once.
            masks: Samples that come after colours and alpha, each enlarged like alpha.

        Yields:
            None as soon as a GPU has something to do, such that another image can be begun with; then rows.

        Raises:
            MemoryLimitError: Where the device does not hold even the smallest tile.
            UsageError: Where the network cannot restore such an image.
        """
        height, width, samples = shape
        dtype = np.dtype(dtype)
        self._check_samples(samples - masks)
        plan, shrunk = self.plan(height, width), False
        if self.count_together(shape, masks) > 1:
            try:
                collect = self.restore_together([read(0, height)], dtype)
                yield None
                restored, report = collect()
                yield Band(0, restored[0], report)
                if on_tiles:
                    on_tiles(1, 1)
                return
            except (torch.OutOfMemoryError, MemoryError):
                shrunk = True
        batch = self.choose_batch(plan)
        while True:
            report = Report(plan, batch, shrunk)
            try:
                yield from self._attempt(Window(read, height), samples, masks, report, on_tiles, dtype)
                return
            except (torch.OutOfMemoryError, MemoryError) as error:
                shrunk = True
                if batch > 1:
                    batch = -(-batch // 2)
                elif max(plan.tile_height, plan.tile_width) > SMALLEST_TILE:
                    side = max(plan.tile_height, plan.tile_width, 2 * SMALLEST_TILE) // 2
                    plan = plan_tiles(height, width, side, min(plan.overlap, side // 2))
                else:
                    remedy = "free some" if self.device.type == "cpu" else "free some, or use --device cpu"
                    raise MemoryLimitError(
                        f"out of memory on {self.device} even with one tile of {plan.tile_width}×"
                        f"{plan.tile_height}; {remedy}"
                    ) from error
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def plan(self, height: int, width: int) -> Plan:
        """Place tiles on an image of that size."""
        return self.tiles.plan(height, width)

    def choose_batch(self, plan: Plan) -> int:
        """Say how many of an image's tiles are computed at once."""
        return choose_batch(plan, self.info.config, self.device.type)

    def count_together(self, shape: tuple[int, ...], masks: int = 0) -> int:
        """Say how many images of a shape (h, w, c) are computed at once; 1 where it is no small one."""
        height, width, samples = shape
        has_more = masks > 0 or samples % 2 == 0  # masks, or alpha
        if has_more or max(height, width) > max(self.tiles.side, self.tiles.whole):
            return 1
        kind = self.device.type
        return max(1, min(MOST_TOGETHER.get(kind, 1), PIXELS_TOGETHER.get(kind, 0) // (height * width)))

    def restore_together(
        self, images: Sequence[np.ndarray], dtype: DTypeLike = np.float32
    ) -> Callable[[], tuple[list[np.ndarray], Report]]:
        """Begin to restore small images of one shape in one batch, which is filled up where they are too few.

        Where the device lets an image's place in the batch move a bit, each is done for itself.

        Args:
            images: As many as :meth:`count_together` says, or fewer; (h, w, 1 or 3), of any dtype that
                :meth:`restore` takes.
            dtype: Of the results, as for :meth:`restore_rows`.

        Returns:
            What waits for them and returns them, (s·h, s·w, c) each, and how they were computed.

        Raises:
            torch.OutOfMemoryError: The device does not hold them at once.
            UsageError: Where the network cannot restore such images.
        """
        shape = images[0].shape
        self._check_samples(shape[2])
        compute = self._compute_together(images)

        def collect() -> tuple[list[np.ndarray], Report]:
            restored = compute()
            if len(images) > 1:
                if shape not in self._shares:
                    alone = self._compute_together(images[-1:])()[0]
                    self._shares[shape] = np.array_equal(alone, restored[-1])
                if not self._shares[shape]:  # what an image becomes must not depend on its neighbours
                    restored = [self._compute_together([image])()[0] for image in images]
            finished = []
            for rows, image in zip(restored, images, strict=True):
                rows = self._complete(rows, image, shape[2])
                if self.strength < 1:
                    rows = mix(rows, enlarge(to_float(image), self.info.scale), self.strength)
                finished.append(from_float(rows, dtype))
            plan = plan_tiles(shape[0], shape[1], max(shape[:2]), 0)
            return finished, Report(plan, self.count_together(shape), False)

        return collect

    def _compute_together(self, images: Sequence[np.ndarray]) -> Callable[[], list[np.ndarray]]:
        """Begin with a batch, filled up with its last image."""
        batch = self.count_together(images[0].shape)
        filled = [*images, *[images[-1]] * (batch - len(images))]
        prepared = [self._prepare(image, images[0].shape[2]) for image in filled]
        tiles = np.stack(prepared, out=self.computer.bench.room((batch, *prepared[0].shape)))
        launched = self.computer.launch(tiles, [(0, 0)] * batch, self.seed)

        def collect() -> list[np.ndarray]:
            with self.computer.bench.at_work():
                restored = self.computer.collect(launched)[: len(images)]
            return [self.computer.bench.fetch(rows, None) for rows in restored]

        return collect

    def _check_samples(self, samples: int) -> None:
        if samples > 2 and self.info.channels == 1 and self.info.scale > 1:
            raise UsageError(f"{self.model.name} enlarges gray images alone; choose a colour model")

    def _prepare(self, tile: np.ndarray, colors: int) -> np.ndarray:
        """Make of samples what the network takes, (h, w, channels) floats."""
        tile = _visible_colors(tile, colors)
        if colors == 3 and self.info.channels == 1:
            return split_luma(tile)[0]
        return tile.repeat(self.info.channels // colors, axis=2)

    def _complete(self, rows: np.ndarray, samples: np.ndarray, colors: int) -> np.ndarray:
        """Make colours of what the network gave and of the samples it was given, (n, w, colors) floats."""
        if colors == 3 and self.info.channels == 1:
            return join_luma(rows, split_luma(_visible_colors(samples, colors))[1])
        return rows.mean(axis=2, keepdims=True) if colors < rows.shape[2] else rows

    def _attempt(
        self,
        window: Window,
        samples: int,
        masks: int,
        report: Report,
        on_tiles: OnTiles | None,
        dtype: np.dtype,
    ) -> Iterator[Band | None]:
        """Restore an image by the given tiles, whatever the network's own channels."""
        visible, scale = samples - masks, self.info.scale
        colors = visible - (visible % 2 == 0)
        pixels = Converted(window, lambda tile: self._prepare(tile[..., :visible], colors))
        bands = blend_rows(self.computer, pixels, report.plan, report.batch, self.seed, on_tiles)
        fetch = self.computer.bench.fetch
        others = [
            enlarge_mask(self.computer, self.info.channels, window, report, sample, self.seed)
            for sample in range(colors, samples)
        ]
        yield None
        top = 0
        for rows in bands:
            bottom = top + len(rows)
            is_whole = colors == self.info.channels and not others and self.strength == 1
            if is_whole:  # nothing is left to do but to round
                rows = fetch(rows, dtype)
            else:
                by_luma = colors == 3 and self.info.channels == 1  # then the scale is 1
                rows = fetch(rows, None)
                given = window[top:bottom, :][..., :visible] if by_luma else rows
                rows = self._complete(rows, given, colors)
                if others:
                    rows = np.concatenate([rows, *map(next, others)], axis=2)
                if self.strength < 1:
                    rows = mix(rows, self._enlarge(window, top, bottom, visible, report.plan), self.strength)
                rows = from_float(rows, dtype)
            yield Band(top, rows, report)
            window.release(max(0, bottom // scale - (0 if self.strength == 1 else REACH)))
            top = bottom

    def _enlarge(self, window: Window, top: int, bottom: int, visible: int, plan: Plan) -> np.ndarray:
        """Enlarge the input without the network to rows of a result, (bottom - top, s·w, samples) floats.

        Args:
            window: On the input.
            top: First row of the result.
            bottom: The one after its last.
            visible: Samples that are colours and alpha.
            plan: Of the input's size.
        """
        scale = self.info.scale
        first = max(0, top // scale - REACH)
        given = to_float(window[first : min(plan.height, -(-bottom // scale) + REACH), :])
        if visible % 2 == 0 and scale > 1:  # what nobody sees must not come into sight
            colors = visible - 1
            given = np.concatenate(
                [_visible_colors(given[..., :visible], colors), given[..., colors:]], axis=2
            )
        return enlarge(given, scale)[top - first * scale : bottom - first * scale]


def _visible_colors(tile: np.ndarray, colors: int) -> np.ndarray:
    """Return the colours of samples, as floats, and where alpha is 0 those around it."""
    pixels = to_float(tile[..., :colors])
    return pixels if tile.shape[2] == colors else bleed(pixels, to_float(tile[..., colors:]))
