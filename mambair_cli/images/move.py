"""What becomes of the pixels of a picture that is turned upright or enlarged."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Move(NamedTuple):
    """What became of the pixels of a picture.

    Attributes:
        orientation: EXIF's orientation of the picture before, by which it was turned upright: 1 to 8.
        before: Width and height before, of the rows as they were stored.
        after: Width and height after.
    """

    orientation: int
    before: tuple[int, int]
    after: tuple[int, int]

    @property
    def is_none(self) -> bool:
        """Whether everything is where it was."""
        return self.orientation == 1 and self.before == self.after

    @property
    def is_transposed(self) -> bool:
        """Whether width and height have changed places."""
        return self.orientation >= 5

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Move a point, whose coordinates are shares of width and height."""
        if self.is_transposed:
            x, y = y, x
        if self.orientation in (2, 3, 6, 7):
            x = 1 - x
        if self.orientation in (3, 4, 7, 8):
            y = 1 - y
        return x, y

    def size(self, width: float, height: float) -> tuple[float, float]:
        """Return what a width and a height in pixels become."""
        across, down = (height, width) if self.is_transposed else (width, height)
        old_across, old_down = self.before[::-1] if self.is_transposed else self.before
        return across * self.after[0] / old_across, down * self.after[1] / old_down

    def vector(self, x: float, y: float) -> tuple[float, float]:
        """Move a vector in pixels, to the right and down."""
        x, y = self.size(x, y)
        return -x if self.orientation in (2, 3, 6, 7) else x, -y if self.orientation in (3, 4, 7, 8) else y

    def subject(self, numbers: Sequence[int]) -> list[int]:
        """Move EXIF's place of a subject: its middle, and its diameter or width and height, in pixels."""
        x, y, *size = numbers
        across, down = self.point(x / self.before[0], y / self.before[1])
        middle = across * self.after[0], down * self.after[1]
        if len(size) == 1:
            size = [math.sqrt(math.prod(self.size(size[0], size[0])))]
        elif size:
            size = self.size(*size)
        return [max(0, round(number)) for number in (*middle, *size)]


def to_upright(size: tuple[int, int], orientation: int) -> Move:
    """Return the move of a picture that was turned upright; its size is that after it."""
    width, height = size
    return Move(orientation, (height, width) if orientation >= 5 else size, size)
