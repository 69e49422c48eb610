"""Quiet margins of a picture, such as the black frame of a scan, which tell nothing of what they hold."""

import numpy as np

FLAT = 2  # largest difference within a row of one level, in steps of 8 bits
NEARLY_FLAT = 12  # the same for black and white, which scanners give a little noise
BLACK, WHITE = 24, 231


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
    least, most = window.min(axis=along), window.max(axis=along)
    spread = (most - least).max(axis=1)
    is_end = (most.max(axis=1) <= BLACK) | (least.min(axis=1) >= WHITE)
    return (spread <= FLAT) | ((spread <= NEARLY_FLAT) & is_end)
