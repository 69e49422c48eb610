"""The rows of an image that tiles are cut from, read when they are needed and then dropped."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from mambair_cli.images.picture import ReadRows
from mambair_cli.restore.tiling import Plan


class Pixels(Protocol):
    """What tiles are cut from, by ``pixels[top:bottom, left:right]``: an array, or something like it."""

    def __getitem__(self, key: tuple[slice, slice], /) -> np.ndarray:
        """Cut out a tile, (h, w, c)."""
        ...


class Window:
    """A part of an image, over its whole width, that moves down as tiles are cut.

    Args:
        read: Reads rows; called for each row once, from the top (but for what :class:`Surrounded` asks of an
            image: its last rows, which lie above it, come first and once more at their place).
        height: Number of rows of the image.
    """

    def __init__(self, read: ReadRows, height: int) -> None:
        self._read = read
        self._height = height
        self._top = 0
        self._rows: np.ndarray | None = None

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        """Cut out a tile, or rows, which must not be released."""
        rows, columns = key
        top, bottom, _ = rows.indices(self._height)
        if top < self._top:
            raise ValueError(f"row {top} was released: what is left begins at {self._top}")
        end = self._top + (0 if self._rows is None else len(self._rows))
        if bottom > end:
            new = self._read(end, bottom)
            self._rows = new if self._rows is None else np.concatenate([self._rows, new])
        if self._rows is None:
            raise ValueError("no rows were asked for")
        return self._rows[top - self._top : bottom - self._top, columns]

    def release(self, top: int) -> None:
        """Drop the rows above ``top``."""
        if self._rows is not None and top > self._top:
            self._rows = self._rows[top - self._top :].copy()  # a view would hold all of them
            self._top = top


class Surrounded:
    """An image with what surrounds it, where its edges meet: read row by row like the image itself.

    Args:
        read: Reads rows of the image.
        plan: Tiles of the image and its surroundings.
    """

    def __init__(self, read: ReadRows, plan: Plan) -> None:
        self._read = read
        self._plan = plan
        self._above: np.ndarray | None = None  # the last rows, which come first
        self._below: list[np.ndarray] = []  # the first rows, which come once more

    def __call__(self, top: int, bottom: int) -> np.ndarray:
        """Read rows, (bottom - top, w, c); from the top, each once."""
        plan, (first, left), (height, _) = self._plan, self._plan.image_corner, self._plan.image_size
        last = plan.height - first - height  # number of rows below
        if self._above is None and first:
            self._above = self._read(height - first, height)
        pieces = []
        if top < first and self._above is not None:
            pieces.append(self._above[top : min(bottom, first)])
        inside = max(top, first) - first, min(bottom, first + height) - first
        if inside[0] < inside[1]:
            rows = self._read(*inside)
            pieces.append(rows)
            if inside[0] < last:
                self._below.append(rows[: last - inside[0]].copy())
        if bottom > first + height:
            begin = max(top - first - height, 0)
            pieces.append(np.concatenate(self._below)[begin : bottom - first - height])
        rows = np.concatenate(pieces)
        if plan.width == rows.shape[1]:
            return rows
        return np.take(rows, np.arange(-left, plan.width - left), axis=1, mode="wrap")


class Converted:
    """An image of which each tile is converted when it is cut out."""

    def __init__(self, pixels: Pixels, convert: Callable[[np.ndarray], np.ndarray]) -> None:
        self._pixels = pixels
        self._convert = convert

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        """Cut out a tile and convert it."""
        return self._convert(self._pixels[key])
