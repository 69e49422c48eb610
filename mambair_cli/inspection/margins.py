"""Quiet parts of a picture, such as the black frame of a scan, which tell nothing of what they hold."""

from collections.abc import Sequence

import numpy as np

FLAT = 2  # largest difference within a row of one level, in steps of 8 bits
NEARLY_FLAT = 12  # the same for black and white, which scanners give a little noise
BLACK, WHITE = 24, 231
_SIDE = 8  # pixels of a block that is quiet or not


def measure_quiet(windows: Sequence[np.ndarray]) -> float:
    """Return the share of windows that has a single level, or is black or white with little noise.

    Args:
        windows: Parts of a picture, (h, w, 3) float32 each, 0 to 255.
    """
    quiet = []
    for window in windows:
        height, width = (side // _SIDE for side in window.shape[:2])
        whole = window[: height * _SIDE, : width * _SIDE].reshape(height, _SIDE, width * _SIDE, 3)
        least, most = (  # one axis after the other, which is five times as fast
            bound(bound(whole, axis=1).reshape(height, width, _SIDE, 3), axis=2) for bound in (np.min, np.max)
        )
        quiet.append(_have_one_level(least, most).ravel())
    return float(np.concatenate(quiet).mean())


def trim_margins(window: np.ndarray, smallest: int, step: int) -> np.ndarray:
    """Return a window without the rows and columns of one level along its sides; frames may lie in frames.

    Args:
        window: Part of a picture, (h, w, 3) float32, 0 to 255.
        smallest: Least side of what is left, in pixels; with less, nothing is cut off.
        step: What is left begins at a multiple of so many rows and columns.
    """
    bounds = [(0, side) for side in window.shape[:2]]
    axis, unchanged = 0, 0
    while unchanged < 2:  # neither rows nor columns
        first, end = bounds[axis]
        (top, bottom), (left, right) = bounds
        loud = np.flatnonzero(~_are_quiet(window[top:bottom, left:right], 1 - axis))
        if not len(loud):
            return window
        bounds[axis] = first + int(loud[0]), first + int(loud[-1]) + 1
        unchanged = unchanged + 1 if bounds[axis] == (first, end) else 0
        axis = 1 - axis
    (top, bottom), (left, right) = ((-(-first // step) * step, end) for first, end in bounds)
    trimmed = window[top:bottom, left:right]
    return trimmed if min(trimmed.shape[:2]) >= smallest else window


def _are_quiet(window: np.ndarray, along: int) -> np.ndarray:
    """Tell of each row, or column, whether it has a single level; ``along`` is its axis."""
    return _have_one_level(window.min(axis=along), window.max(axis=along))


def _have_one_level(least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Tell of areas, by the least and the most of each channel, (..., 3), whether each has a single level."""
    spread = (most - least).max(axis=-1)
    is_end = (most.max(axis=-1) <= BLACK) | (least.min(axis=-1) >= WHITE)
    return (spread <= FLAT) | ((spread <= NEARLY_FLAT) & is_end)
