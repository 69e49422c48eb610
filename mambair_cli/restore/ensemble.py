"""Self-ensemble: the mean of a network's results for the eight turned and mirrored forms of each tile.

Source: Timofte et al., Seven ways to improve example-based single image super resolution, 2016; the papers
mark results by it with "+".
"""

from typing import Any, NamedTuple

import numpy as np

from mambair_cli.restore.engine import TileComputer

SYMMETRIES = 8  # an image can be turned by four angles, and mirrored
_FLIPPED_ROWS, _FLIPPED_COLUMNS, _TRANSPOSED = 1, 2, 4  # bits of a form
_SEED_STEP = 0x9E3779B97F4A7C15  # between the seeds of two forms, so that their noise has nothing in common
_SEEDS = 2**63


class _Begun(NamedTuple):
    """A batch of which the first form is under way."""

    tiles: np.ndarray
    corners: list[tuple[int, int]]
    seed: int | None
    first: Any


class EnsembleComputer:
    """Computes each batch of tiles eight times, by another computer, and averages in float32.

    Args:
        computer: What computes a form.

    Attributes:
        scale: Output pixels per input pixel and side.
        ahead: Number of batches that may be under way while another is collected.
        buffers: Where results are blended.
    """

    def __init__(self, computer: TileComputer) -> None:
        self._computer = computer
        self.scale, self.ahead, self.buffers = computer.scale, computer.ahead, computer.buffers

    def split(self, count: int, most: int) -> list[tuple[int, int]]:
        """Cut tiles into batches, as the other computer does."""
        return self._computer.split(count, most)

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return memory for tiles, as the other computer does."""
        return self._computer.allocate(shape)

    def launch(self, tiles: np.ndarray, corners: list[tuple[int, int]], seed: int | None) -> _Begun:
        """Begin the first form of a batch of tiles, (b, h, w, c)."""
        return _Begun(tiles, corners, seed, self._computer.launch(tiles, corners, seed))

    def collect(self, launched: _Begun) -> Any:
        """Compute the other forms, and return the mean of all, (b, s·h, s·w, c)."""
        tiles, corners, seed, form = launched
        total = None
        for number in range(SYMMETRIES):
            following = None
            if number + 1 < SYMMETRIES:  # before the last one is awaited: the device is never idle
                following = self._begin(tiles, corners, seed, number + 1)
            rows = turn_back(self._computer.collect(form), number)
            total = rows / SYMMETRIES if total is None else total + rows / SYMMETRIES
            form = following
        return total

    def _begin(self, tiles: np.ndarray, corners: list[tuple[int, int]], seed: int | None, form: int) -> Any:
        turned = turn(tiles, form)
        memory = self._computer.allocate(turned.shape)
        memory[...] = turned
        own_seed = None if seed is None else (seed + form * _SEED_STEP) % _SEEDS
        return self._computer.launch(memory, corners, own_seed)


def turn(tiles: np.ndarray, form: int) -> np.ndarray:
    """Turn and mirror images, (b, h, w, c).

    Args:
        tiles: The images.
        form: Number of the form, 0 (as they are) to 7.
    """
    turned = tiles.swapaxes(1, 2) if form & _TRANSPOSED else tiles
    return np.flip(turned, _flipped_axes(form))


def turn_back(rows: Any, form: int) -> Any:
    """Undo :func:`turn` in results, an array or a tensor."""
    axes = _flipped_axes(form)
    flipped = np.flip(rows, axes) if isinstance(rows, np.ndarray) else rows.flip(axes)
    return flipped.swapaxes(1, 2) if form & _TRANSPOSED else flipped


def _flipped_axes(form: int) -> tuple[int, ...]:
    return tuple(axis for bit, axis in ((_FLIPPED_ROWS, 1), (_FLIPPED_COLUMNS, 2)) if form & bit)
