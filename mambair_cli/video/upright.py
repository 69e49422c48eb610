"""Frames as players show them: turned and mirrored by the nine numbers of a clip's display matrix."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from mambair_cli.video.facts import ClipFacts


class UprightFrames:
    """Turns the frames of one clip upright, for results that cannot tell players to do so.

    Args:
        facts: What the clip is. Other turns than by quarters are left out; see ``is_possible``.

    Attributes:
        is_needed: Whether frames are turned or mirrored.
        is_possible: Whether players do no more than that.
    """

    def __init__(self, facts: ClipFacts) -> None:
        to_x, to_y, is_turned = _read_matrix(facts.display_matrix)
        self.is_possible = bool(to_x and to_y)
        self._swaps = self.is_possible and is_turned
        self._flips = tuple(axis for axis, sign in ((0, to_y), (1, to_x)) if self.is_possible and sign < 0)
        self.is_needed = self._swaps or bool(self._flips)

    def turn(self, pixels: np.ndarray) -> np.ndarray:
        """Return a frame (h, w, c) as it is shown."""
        return np.flip(pixels.swapaxes(0, 1) if self._swaps else pixels, self._flips)

    def turn_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the width and height, or height and width, of a frame as it is shown."""
        return (size[1], size[0]) if self._swaps else size

    def turn_aspect(self, aspect: Fraction) -> Fraction:
        """Return the shape of pixels as they are shown."""
        return 1 / aspect if self._swaps else aspect


def _read_matrix(matrix: Sequence[int] | None) -> tuple[int, int, bool]:
    """Return the signs by which columns and rows run, and whether they change places.

    The new column is ``a * column + c * row``, and the new row ``b * column + d * row``. A sign is 0 where
    both count, as in turns that are not by quarters.
    """
    if matrix is None:
        return 1, 1, False
    a, b, _, c, d = matrix[:5]
    if a and d and not (b or c):
        return a, d, False
    if b and c and not (a or d):
        return c, b, True
    return 0, 0, False
