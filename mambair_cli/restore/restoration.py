"""One image on its way through a network: begun, then taken row by row."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import DTypeLike

from mambair_cli.errors import MemoryLimitError
from mambair_cli.images import from_float
from mambair_cli.images.picture import ReadRows
from mambair_cli.images.stretch import Stretch
from mambair_cli.restore.channels import from_channels, to_channels
from mambair_cli.restore.engine import OnTiles, blend_rows
from mambair_cli.restore.masks import NEAR, enlarge_mask, hold_masks
from mambair_cli.restore.row_window import Converted, Surrounded, Window
from mambair_cli.restore.small_images import count_together, restore_together
from mambair_cli.restore.strength import REACH, enlarge_samples, mix
from mambair_cli.restore.tiling import Plan, Report, shrink
from mambair_cli.system.memory import is_out_of_memory, release_memory_of

if TYPE_CHECKING:
    from mambair_cli.restore.restorer import Restorer


@dataclass(frozen=True)
class Band:
    """Finished rows of a result.

    Attributes:
        top: Number of the first row.
        rows: (n, s·w, c), alpha last, of the dtype that was asked for.
        report: How they were computed.
    """

    top: int
    rows: np.ndarray
    report: Report


class Restoration:
    """One image, which is begun, then taken row by row.

    Between :meth:`begin` and the first of :meth:`rows`, a GPU computes while the caller begins another image.
    Where memory turns out too small, batches and then tiles become smaller, and the image starts again: the
    next band is the top one. Memory holds the rows of a row of tiles, of the image and of the result.

    Args:
        restorer: The restorer, with the network.
        read: Reads rows of uint8, uint16 or float32 in [0, 1], alpha last; called for them in order (where
            upper and lower edge meet, for the last ones before all), and for the first ones again when the
            image starts again.
        shape: Shape of the image, (h, w, c): c as for ``Restorer.restore``, and the masks.
        on_tiles: Called with the progress.
        dtype: Type of the result's samples: uint8, uint16 or float32; values are rounded once. None for
            float32 that is not clipped.
        masks: Number of samples after colours and alpha, each enlarged like alpha.
        stretch: How the image is stretched for the network; the result is stretched back. None to leave it.
    """

    def __init__(
        self,
        restorer: "Restorer",
        read: ReadRows,
        shape: tuple[int, ...],
        on_tiles: OnTiles | None,
        dtype: DTypeLike | None,
        masks: int,
        stretch: Stretch | None = None,
    ) -> None:
        self._height, self._width, self._samples = shape
        visible = self._samples - masks
        self._colours = visible - (visible % 2 == 0)
        self._restorer, self._on_tiles, self._stretch = restorer, on_tiles, stretch
        self._read = read if stretch is None else lambda *rows: stretch.apply(read(*rows), self._colours)
        self._dtype, self._masks = None if dtype is None else np.dtype(dtype), masks
        self._plan = restorer.plan(self._height, self._width)
        self._batch = restorer.loaded.choose_batch(self._plan)
        self._is_small = count_together(restorer, shape, masks) > 1  # computed in a batch of whole images
        self._shrunk = False
        self._bands: Iterator[Band] | None = None

    def begin(self) -> None:
        """Give the device its first tiles, without waiting for them.

        Raises:
            MemoryLimitError: The device does not hold even the smallest tile.
        """
        while self._bands is None:
            try:
                self._bands = self._begin_small() if self._is_small else self._begin_tiles()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(error)

    def rows(self) -> Iterator[Band]:
        """Yield the rows of the result as they are done; begin, if that is not done yet.

        Raises:
            MemoryLimitError: The device does not hold even the smallest tile.
        """
        while True:
            self.begin()
            try:
                yield from self._bands or ()
                return
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._bands = None
                self._shrink(error)

    def _shrink(self, error: BaseException) -> None:
        """Choose a smaller batch, or smaller tiles.

        Raises:
            MemoryLimitError: There are none.
        """
        self._shrunk = True
        release_memory_of(error)
        if self._is_small:
            self._is_small = False
            return
        plan, device = self._plan, self._restorer.device
        smaller = shrink(plan, self._batch)
        if smaller is None:
            remedy = "free some" if device.type == "cpu" else "free some, or use --device cpu"
            raise MemoryLimitError(
                f"out of memory on {device} even with one tile of {plan.tile_width}×{plan.tile_height}; "
                f"{remedy}"
            ) from error
        self._plan, self._batch = smaller
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def _begin_small(self) -> Iterator[Band]:
        """Begin a small image in a batch of whole images, which has only this one."""
        dtype = self._dtype if self._stretch is None else None
        collect = restore_together(self._restorer, [self._read(0, self._height)], dtype)

        def bands() -> Iterator[Band]:
            restored, report = collect()
            yield Band(0, restored[0] if self._stretch is None else self._convert(restored[0]), report)
            if self._on_tiles:
                self._on_tiles(1, 1)

        return bands()

    def _begin_tiles(self) -> Iterator[Band]:
        """Begin an image by the tiles planned now."""
        restorer = self._restorer
        plan = self._plan
        report = Report(plan, self._batch, self._shrunk)
        read = self._read if plan.wrap == "none" else Surrounded(self._read, plan)
        window = Window(read, plan.height)
        visible, colors, channels = self._samples - self._masks, self._colours, restorer.info.channels
        pixels = Converted(window, lambda tile: to_channels(tile[..., :visible], colors, channels))
        blended = blend_rows(restorer.computer, pixels, plan, report.batch, restorer.own.seed, self._on_tiles)
        others = [
            enlarge_mask(restorer.computer, channels, window, report, sample, restorer.own.seed)
            for sample in range(colors, self._samples)
        ]

        reach = REACH if restorer.own.strength < 1 else NEAR if others else 0

        def bands() -> Iterator[Band]:
            top = 0
            for rows in blended:
                bottom = top + len(rows)
                yield Band(top, self._finish(rows, window, others, top, bottom), report)
                window.release(max(0, bottom // restorer.info.scale - reach))
                top = bottom

        return bands() if plan.wrap == "none" else _cut_out(bands(), plan, restorer.info.scale)

    def _finish(
        self, rows: Any, window: Window, others: list[Iterator[np.ndarray]], top: int, bottom: int
    ) -> np.ndarray:
        """Make samples of blended rows: colours, alpha and masks, and the share of the input.

        Args:
            rows: Rows of the result, in the computer's buffers.
            window: Window on the input.
            others: Rows of alpha and of each mask, (n, s·w, 1) float32.
            top: Number of the first row of the result.
            bottom: Number of the row after the last one.
        """
        restorer = self._restorer
        buffers, channels, strength = restorer.computer.buffers, restorer.info.channels, restorer.own.strength
        visible, colors = self._samples - self._masks, self._colours
        is_finished = colors == channels and not others and strength == 1  # but for the rounding
        if is_finished and self._stretch is None and self._dtype is not None:
            return buffers.fetch_samples(rows, self._dtype)
        rows = buffers.fetch(rows)
        is_by_luma = colors == 3 and channels == 1  # then the scale is 1
        given = window[top:bottom, :][..., :visible] if is_by_luma else rows
        rows = from_channels(rows, given, colors, channels)
        if others:
            rows = np.concatenate([rows, *map(next, others)], axis=2)
        if strength < 1:
            rows = mix(rows, self._enlarge(window, top, bottom, visible), strength)
        if others and (scale := restorer.info.scale) > 1:
            rows[..., colors:] = hold_masks(rows[..., colors:], window, top, self._plan.height, scale)
        return self._convert(rows)

    def _convert(self, rows: np.ndarray) -> np.ndarray:
        """Convert a result, (n, s·w, c) float32, to the samples that were asked for."""
        rows = rows if self._stretch is None else self._stretch.undo(rows, self._colours)
        return rows if self._dtype is None else from_float(rows, self._dtype)

    def _enlarge(self, window: Window, top: int, bottom: int, visible: int) -> np.ndarray:
        """Enlarge the input without the network to rows of a result, (bottom - top, s·w, samples) float32.

        Args:
            window: Window on the input.
            top: Number of the first row of the result.
            bottom: Number of the row after the last one.
            visible: Number of samples that are colours and alpha.
        """
        scale = self._restorer.info.scale
        first = max(0, top // scale - REACH)
        given = window[first : min(self._plan.height, -(-bottom // scale) + REACH), :]
        enlarged = enlarge_samples(given, scale, visible)
        return enlarged[top - first * scale : bottom - first * scale]


def _cut_out(bands: Iterator[Band], plan: Plan, scale: int) -> Iterator[Band]:
    """Yield the rows of an image without what surrounds it."""
    (first, left), (height, width) = plan.image_corner, plan.image_size
    columns = slice(scale * left, scale * (left + width))
    for band in bands:
        top = band.top - scale * first
        rows = band.rows[max(0, -top) : max(0, scale * height - top), columns]
        if len(rows):
            yield Band(max(0, top), np.ascontiguousarray(rows), band.report)
