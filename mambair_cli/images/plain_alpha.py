"""Where alpha is empty or full all around a pixel of a reduced picture, noted as the rows come."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mambair_cli.images.libvips import pyvips
from mambair_cli.images.picture import Header, InputFrames
from mambair_cli.system.geometry import wraps_x, wraps_y

_PRESENT, _LACKING = 4, 8  # bits: alpha is more than empty, and less than full; added to alpha, both show


class PlainAlpha:
    """Keeps the plain parts of alpha plain, which the lobes of a kernel would change by some hundredths.

    Around is where a pixel of the result and the nearer half of its neighbours come from. The kernel reaches
    further, so all is noted once libvips has the rows for a pixel.

    Args:
        header: Header of the result, of one frame.
        frames: The frame before it is reduced.
    """

    def __init__(self, header: Header, frames: InputFrames) -> None:
        self._frames = frames
        self._least = 0.5 / (255 if header.dtype == "uint8" else 65535)  # less than that is nothing
        self._seen = np.zeros((header.height, header.width), np.uint8)  # bits of what is around
        self._rows = _find_windows(frames.height, header.height)
        self._columns = _find_windows(frames.width, header.width)

    def note(self, top: int, alpha: np.ndarray) -> None:
        """Note rows.

        Args:
            top: Number of the first row.
            alpha: (n, width) floats in [0, 1].
        """
        width, height, wrap = self._frames
        for bit, rows in ((_PRESENT, alpha > self._least), (_LACKING, alpha < 1 - self._least)):
            across = np.zeros((len(self._seen[0]), len(rows)), bool)
            for part, found in _look_in(self._columns, rows.T, 0, width, wraps_x(wrap)):
                across[part] |= found
            for part, found in _look_in(self._rows, across.T, top, height, wraps_y(wrap)):
                self._seen[part] |= found * np.uint8(bit)

    def forget(self) -> None:
        """Start again."""
        self._seen[:] = 0

    def keep(self, reduced: Any) -> Any:
        """Return reduced alpha, an image of libvips, which is as before where it was plain all around."""
        height, width = self._seen.shape
        seen = pyvips.Image.new_from_memory(self._seen.data, width, height, 1, "uchar")
        # The sum makes libvips have the rows of a region before it reads what was noted of them.
        marked = reduced + seen
        is_full, is_empty = ((marked >= mark) & (marked < mark + 2) for mark in (_PRESENT, _LACKING))
        return is_full.ifthenelse(1, is_empty.ifthenelse(0, reduced))


def _find_windows(length: int, reduced: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where what is around each sample of a result begins and ends.

    Where nothing is reduced, libvips reads no neighbours.
    """
    halves, around = 2 * np.arange(reduced), int(length != reduced)
    return (halves - around) * length // (2 * reduced), -(-(halves + 2 + around) * length // (2 * reduced))


def _look_in(
    windows: tuple[np.ndarray, np.ndarray], samples: np.ndarray, top: int, length: int, wraps: bool
) -> Iterator[tuple[slice, np.ndarray]]:
    """Tell in which windows there is anything; only those that the rows reach are looked at.

    Args:
        windows: Begins and ends of windows, both in order.
        samples: (rows, w) booleans.
        top: Number of the first row.
        length: Number of all rows.
        wraps: Whether the ends of the axis meet.

    Yields:
        Some of the windows, n of them, and (n, w) booleans.
    """
    counts = np.zeros((len(samples) + 1, samples.shape[1]), np.int32)
    np.cumsum(samples, axis=0, out=counts[1:])
    for turn in (-length, 0, length) if wraps else (0,):
        starts, stops = (edge + turn - top for edge in windows)
        part = slice(np.searchsorted(stops, 0, "right"), np.searchsorted(starts, len(samples)))
        first, last = (edge[part].clip(0, len(samples)) for edge in (starts, stops))
        yield part, counts[last] > counts[first]
