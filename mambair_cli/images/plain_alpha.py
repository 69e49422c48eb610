"""Where alpha is empty or full all around a pixel of a reduced picture, noted as the rows come."""

from typing import Any

import numpy as np
import pyvips

from mambair_cli.images.picture import Header, InputFrames
from mambair_cli.system.values import wraps_x, wraps_y


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
        # 255 where alpha is more than empty, and where it is less than full.
        self._seen = np.zeros((header.height, header.width, 2), np.uint8)
        self._rows = _find_windows(frames.height, header.height)
        self._columns = _find_windows(frames.width, header.width)

    def note(self, top: int, alpha: np.ndarray) -> None:
        """Note rows.

        Args:
            top: Number of the first row.
            alpha: (n, width) floats in [0, 1].
        """
        width, height, wrap = self._frames
        for kind, rows in enumerate((alpha > self._least, alpha < 1 - self._least)):
            across = _look_in(self._columns, rows.T, 0, width, wraps_x(wrap))
            down = _look_in(self._rows, across.T, top, height, wraps_y(wrap))
            self._seen[..., kind] |= down.astype(np.uint8) * 255

    def forget(self) -> None:
        """Start again."""
        self._seen[:] = 0

    def keep(self, reduced: Any) -> Any:
        """Return reduced alpha, an image of libvips, which is as before where it was plain all around."""
        height, width, kinds = self._seen.shape
        seen = pyvips.Image.new_from_memory(self._seen.data, width, height, kinds, "uchar")
        return (seen[0] > 0).ifthenelse((seen[1] > 0).ifthenelse(reduced, 1), 0)


def _find_windows(length: int, reduced: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where what is around each sample of a result begins and ends.

    Where nothing is reduced, libvips reads no neighbours.
    """
    halves, around = 2 * np.arange(reduced), int(length != reduced)
    return (halves - around) * length // (2 * reduced), -(-(halves + 2 + around) * length // (2 * reduced))


def _look_in(
    windows: tuple[np.ndarray, np.ndarray], samples: np.ndarray, top: int, length: int, wraps: bool
) -> np.ndarray:
    """Tell in which windows there is anything.

    Args:
        windows: Begins and ends of n windows.
        samples: (rows, w) booleans.
        top: Number of the first row.
        length: Number of all rows.
        wraps: Whether the ends of the axis meet.

    Returns:
        (n, w) booleans.
    """
    counts = np.zeros((len(samples) + 1, samples.shape[1]), np.int32)
    np.cumsum(samples, axis=0, out=counts[1:])
    found = np.zeros((len(windows[0]), samples.shape[1]), bool)
    for turn in (-length, 0, length) if wraps else (0,):
        starts, stops = ((edge + turn - top).clip(0, len(samples)) for edge in windows)
        found |= counts[stops] > counts[starts]
    return found
