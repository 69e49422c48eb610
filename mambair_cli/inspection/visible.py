"""The parts of a picture that can be seen: colours under transparent pixels tell nothing of it."""

import numpy as np

from mambair_cli.inspection.features import BLOCK, MOST_WINDOWS, SMALLEST

# Alpha below which colours count as hidden: they were rounded to few steps, if they mean anything.
HIDDEN = 0.05
_LEAST = SMALLEST // BLOCK  # blocks along a side of a part


def cut_visible(window: np.ndarray, alpha: np.ndarray) -> list[np.ndarray]:
    """Return the largest rectangles of a window in which nothing is hidden.

    Each is at least as large as the smallest picture that says enough, and begins at a multiple of 8 pixels.

    Args:
        window: Part of a picture, (h, w, c).
        alpha: Its alpha, (h, w), 0 to 1.

    Returns:
        Views of the window, the largest first; the window itself where all of it can be seen.
    """
    if alpha.min() >= HIDDEN:
        return [window]
    rows, columns = (side // BLOCK for side in alpha.shape)
    whole = alpha[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    is_visible = whole.min(axis=(1, 3)) >= HIDDEN
    parts: list[np.ndarray] = []
    while len(parts) < MOST_WINDOWS and (place := _find_largest(is_visible)) is not None:
        top, bottom, left, right = place
        is_visible[top:bottom, left:right] = False
        parts.append(window[top * BLOCK : bottom * BLOCK, left * BLOCK : right * BLOCK])
    return parts


def _find_largest(marks: np.ndarray) -> tuple[int, int, int, int] | None:
    """Return the first and last row and column, each last one excluded, of the largest marked rectangle."""
    most, place = 0, None
    heights = np.zeros(marks.shape[1], int)  # of the marked columns that end in a row
    for bottom, row in enumerate(marks, start=1):
        heights = (heights + 1) * row
        begun: list[tuple[int, int]] = []  # first columns and heights of rectangles that may go on
        for column, height in enumerate([*heights.tolist(), 0]):
            left = column
            while begun and begun[-1][1] >= height:
                left, tall = begun.pop()
                wide = column - left
                if min(tall, wide) >= _LEAST and tall * wide > most:
                    most, place = tall * wide, (bottom - tall, bottom, left, column)
            begun.append((left, height))
    return place
