"""Cut an image into equal overlapping tiles and blend the results into finished rows; knows no network."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mambair_cli.inspection.need import Need
from mambair_cli.restore.output_buffers import HostBuffers, OutputBuffers
from mambair_cli.system.geometry import Wrap, wraps_x, wraps_y

SMALLEST_TILE = 32  # pixels; where memory is full, tiles become no smaller


@dataclass(frozen=True)
class Plan:
    """Where the tiles of an image lie; all sizes in pixels of the input.

    ``tops`` and ``lefts`` rise from 0, and there is a tile at each pair of them: iterating gives every
    ``(top, left)`` row by row. ``overlap`` is what was asked for; neighbours share at least that much.

    Where edges of the image meet, by ``wrap``, the tiles lie on the image and what surrounds it: half a tile
    of the other end at each of these edges. ``height`` and ``width`` are those of both together. The first
    tile and the last one then have the same pixels, and the edge is in the middle of them.
    """

    height: int
    width: int
    tile_height: int
    tile_width: int
    overlap: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    wrap: Wrap = "none"

    def __len__(self) -> int:
        """Count the tiles."""
        return len(self.tops) * len(self.lefts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Visit the tiles' top left corners in the order in which they are computed and blended."""
        return ((top, left) for top in self.tops for left in self.lefts)

    def __str__(self) -> str:
        """Describe the plan in one line, width before height."""
        height, width = self.image_size
        if not len(self):
            return f"{width}×{height} without the network"
        return (
            f"{width}×{height}: {len(self.lefts)}×{len(self.tops)} tiles "
            f"of {self.tile_width}×{self.tile_height}, overlap {self.shared}"
        )

    @property
    def shared(self) -> int:
        """Pixels that neighbours share at least; 0 where the only tile has no neighbours."""
        return self.overlap if len(self) > 1 else 0

    @property
    def redundancy(self) -> float:
        """Pixels computed per pixel of the image: 1.0 where nothing is computed twice."""
        height, width = self.image_size
        return len(self) * self.tile_height * self.tile_width / (height * width)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image without what surrounds it."""
        height = self.height - self.tile_height if wraps_y(self.wrap) else self.height
        return height, self.width - self.tile_width if wraps_x(self.wrap) else self.width

    @property
    def image_corner(self) -> tuple[int, int]:
        """Row and column of the image's first pixel."""
        top = self.tile_height // 2 if wraps_y(self.wrap) else 0
        return top, self.tile_width // 2 if wraps_x(self.wrap) else 0

    def place_in_image(self, corner: tuple[int, int]) -> tuple[int, int]:
        """Return row and column in the image of a tile's first pixel."""
        (top, left), (height, width) = self.image_corner, self.image_size
        return (corner[0] - top) % height, (corner[1] - left) % width


@dataclass(frozen=True)
class Report:
    """How an image was computed.

    Attributes:
        plan: The tiles.
        batch: Number of tiles computed at once.
        shrunk: Whether the device's memory forced smaller tiles or batches than planned.
        model: Name of the model, where a look at the image chose it; None for the restorer's own.
        scale: Output pixels per input pixel and side of that model.
        need: What was seen of the image, and what it needs; None where nobody looked.
    """

    plan: Plan
    batch: int
    shrunk: bool
    model: str | None = None
    scale: int | None = None
    need: Need | None = None


def shrink(plan: Plan, batch: int) -> tuple[Plan, int] | None:
    """Return less work at a time for a device whose memory is full: a smaller batch, else smaller tiles.

    Args:
        plan: Tiles now.
        batch: Number of them at once.

    Returns:
        Tiles and batch; None where none are smaller.
    """
    if batch > 1:
        return plan, -(-batch // 2)
    longest = max(plan.tile_height, plan.tile_width)
    if longest <= SMALLEST_TILE:
        return None
    side = max(longest, 2 * SMALLEST_TILE) // 2
    return plan_tiles(*plan.image_size, side, min(plan.overlap, side // 2), plan.wrap), batch


def plan_nothing(height: int, width: int) -> Plan:
    """Return a plan without tiles, for an image that needs no network."""
    return Plan(height, width, 0, 0, 0, (), ())


def plan_tiles(
    height: int, width: int, tile: int | tuple[int, int], overlap: int, wrap: Wrap = "none"
) -> Plan:
    """Place the fewest tiles of one size that cover an image exactly, as small as possible.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        tile: Largest side of a tile in pixels, or its largest height and width. If the image is smaller,
            the tile's side is the image's.
        overlap: Smallest number of pixels that neighbours share; what is left over is spread evenly.
        wrap: Directions in which the edges of the image meet.

    Raises:
        ValueError: A size is not positive, or the overlap is negative or leaves no room to advance.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image to tile needs at least one pixel, not {width}×{height}")
    sides = (tile, tile) if isinstance(tile, int) else tile
    if not 0 <= overlap < min(sides):
        raise ValueError(f"the overlap must be at least 0 and less than the tile: {overlap} of {min(sides)}")
    tile_height, tops = (_place_around if wraps_y(wrap) else _place)(height, sides[0], overlap)
    tile_width, lefts = (_place_around if wraps_x(wrap) else _place)(width, sides[1], overlap)
    height, width = tops[-1] + tile_height, lefts[-1] + tile_width
    return Plan(height, width, tile_height, tile_width, overlap, tops, lefts, wrap)


def _place(length: int, tile: int, overlap: int) -> tuple[int, tuple[int, ...]]:
    """Place tiles along one axis, the first at 0, the last ending at ``length``; return side and starts."""
    if length <= tile:
        return length, (0,)
    steps = -(-(length - tile) // (tile - overlap))
    side = -(-(length + steps * overlap) // (steps + 1))  # the least that covers it all
    slack = length - side
    return side, tuple(slack * step // steps for step in range(steps + 1))


def _place_around(length: int, tile: int, overlap: int) -> tuple[int, tuple[int, ...]]:
    """Place tiles along one axis whose ends meet, the first and the last one on both ends."""
    overlap = min(overlap, length)
    steps = -(-length // (tile - overlap))
    side = -(-length // steps) + overlap
    return side, tuple(length * step // steps for step in range(steps + 1))


def ramp(length: int) -> np.ndarray:
    """Return weights of the ``length`` pixels that a tile shares with a neighbour, from its rim inwards.

    A raised cosine sampled at the pixels' centres::

        ramp[i] = sin(pi / 2 * (i + 1/2) / length) ** 2

    A tile's outermost pixels lack context on one side and are its worst ones. This curve leaves the rim with
    zero slope, so that they have little weight (0.0006 for the first of 32, where a straight line gives
    0.016). It meets the tile's inside without an edge, and adds up to one with its own mirror image. It is
    positive everywhere, so the weights at a pixel can always be normalised.

    Returns:
        (length,) float64, rising, in (0, 1).
    """
    return np.sin(np.pi / 2 * (np.arange(length) + 0.5) / length) ** 2


def axis_weights(starts: Sequence[int], side: int) -> np.ndarray:
    """Return weights of every tile's pixels along one axis; they sum to one at each pixel of the image.

    A side falls by :func:`ramp` over what it shares with its neighbour. The outer sides of the first and
    the last tile do not: they are the image's own border. A pixel of a single tile has weight 1 exactly.

    Args:
        starts: First pixel of each tile, rising, each less than ``side`` from the next.
        side: Length of every tile.

    Returns:
        (len(starts), side) float32.
    """
    weights = np.ones((len(starts), side))
    for index, (start, following) in enumerate(pairwise(starts)):
        shared = start + side - following
        if shared:
            rise = ramp(shared)
            weights[index, -shared:] *= rise[::-1]
            weights[index + 1, :shared] *= rise
    total = np.zeros(starts[-1] + side)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + side] += weight
    for start, weight in zip(starts, weights, strict=True):
        weight /= total[start : start + side]
    return weights.astype(np.float32)


_HOST = HostBuffers()


def blend_tiles(
    plan: Plan, tiles: Iterable[Any], scale: int, buffers: OutputBuffers = _HOST
) -> Iterator[Any]:
    """Blend computed tiles into bands of finished rows.

    At each pixel the weights of :func:`axis_weights` sum to one: nothing is divided afterwards, and tiles
    that agree leave no trace. Rows are handed over as soon as no later tile touches them, so that what is
    held is one row of tiles at most, and one weighted tile while it is added.

    Args:
        plan: Where the tiles lie in the input.
        tiles: (scale * tile_height, scale * tile_width, c) float32 each, in the plan's order.
        scale: Pixels of the output per pixel of the input along each axis.
        buffers: Buffers that the tiles are in; the bands are in them, too.

    Yields:
        (n, scale * width, c) float32, from top to bottom, scale * height rows altogether; the receiver's
        to keep.

    Raises:
        ValueError: A tile has another shape, or there are fewer or more tiles than the plan has.
    """
    if scale < 1:
        raise ValueError(f"the scale must be 1 or more: {scale}")
    tile_height, tile_width = scale * plan.tile_height, scale * plan.tile_width
    tops = [scale * top for top in plan.tops]
    lefts = [scale * left for left in plan.lefts]
    height, width = scale * plan.height, scale * plan.width
    row_weights = buffers.put(axis_weights(tops, tile_height))
    column_weights: Any = ()  # when the number of channels is known

    # Bands end where a row of tiles begins or ends: so every row of tiles covers its bands as a whole, and
    # they come into being and go one by one, without a copy.
    edges = sorted({edge for top in tops for edge in (top, top + tile_height)})
    ahead = deque(pairwise(edges))
    unfinished: deque[_Band] = deque()
    tiles = iter(tiles)
    channels = 0  # until the first tile says
    taken = 0
    for row, (top, following_top) in enumerate(pairwise([*tops, height])):
        for column, left in enumerate(lefts):
            tile = next(tiles, None)
            if tile is None:
                raise ValueError(f"too few tiles: {taken} came, the plan has {len(plan)}")
            if not channels and tile.ndim == 3:
                channels = tile.shape[2]
                column_weights = buffers.put(axis_weights(lefts, tile_width).repeat(channels, axis=1))
            if tile.shape != (tile_height, tile_width, channels):
                wanted = f"({tile_height}, {tile_width}, {channels or 'c'})"
                raise ValueError(f"tile {taken} has the shape {tile.shape}, the plan needs {wanted}")
            taken += 1
            while ahead and ahead[0][1] <= top + tile_height:
                start, stop = ahead.popleft()
                unfinished.append(_Band(start, buffers.zeros((stop - start, width * channels))))
            _add_tile(unfinished, tile, top, left, row_weights[row], column_weights[column])
            del tile  # not to be held while the next one is computed
        if taken == len(plan) and next(tiles, None) is not None:
            raise ValueError(f"too many tiles: {taken + 1} or more came, the plan has {len(plan)}")
        while unfinished and unfinished[0].start < following_top:
            yield unfinished.popleft().values.reshape(-1, width, channels)


@dataclass
class _Band:
    """Consecutive rows of the output that are still being summed.

    Width and channels lie in one axis: numpy is several times faster on it than on an axis of three.
    """

    start: int
    values: Any


def _add_tile(
    bands: Iterable[_Band],
    tile: Any,
    top: int,
    left: int,
    row_weights: Any,
    column_weights: Any,
) -> None:
    """Add a weighted tile to the bands that it covers, which are all of them."""
    height, width, channels = tile.shape
    weighted = tile.reshape(height, width * channels) * row_weights[:, None]
    weighted *= column_weights
    columns = slice(left * channels, (left + width) * channels)
    for band in bands:
        start = band.start - top
        band.values[:, columns] += weighted[start : start + len(band.values)]
