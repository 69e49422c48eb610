"""Parts of a picture, and which of its edges meet."""

import re
from typing import Literal, NamedTuple

from mambair_cli.errors import UsageError

Wrap = Literal["none", "x", "y", "both"]
"""Directions in which the edges of a picture meet: x for left and right, y for top and bottom."""


def wraps_x(wrap: Wrap) -> bool:
    """Tell whether what leaves a picture at the right comes back at the left."""
    return wrap in ("x", "both")


def wraps_y(wrap: Wrap) -> bool:
    """Tell whether what leaves a picture at the bottom comes back at the top."""
    return wrap in ("y", "both")


class Region(NamedTuple):
    """A part of a picture.

    Attributes:
        left: Its first column.
        top: Its first row.
        width: Its width, in pixels.
        height: Its height, in pixels.
    """

    left: int
    top: int
    width: int
    height: int

    def __str__(self) -> str:
        """Write it as people do."""
        return ",".join(map(str, self))


def read_region(text: str, name: str) -> Region:
    """Read a part of a picture: left column, top row, width and height, in pixels.

    Args:
        text: Four whole numbers, separated by commas.
        name: Name of the option or parameter, for the error.

    Raises:
        UsageError: It is no such text, or the part is empty.
    """
    found = re.fullmatch(r"\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*", text)
    region = Region(*map(int, found.groups())) if found else None
    if region is None or not region.width or not region.height:
        raise UsageError(
            f"{name} is {text or 'empty'}; it must be the left column, the top row, the width and the height "
            "in pixels, such as 120,80,256,256"
        )
    return region
