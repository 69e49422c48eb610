"""What cutting an image into tiles changes: along the tiles' borders, and elsewhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from mambair_cli.errors import MambairError
from mambair_cli.images import to_float
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.tiling import Plan

WHOLE_SIDE = 512  # pixels of the input; the middle of larger images is measured, if tiles are not larger
REACH = 4  # pixels of the input beyond what two tiles share that are still near a border
RUN = 16  # pixels of the result along a border over which a step is averaged: detail cancels out, edges stay

# Where tiles leave no seam, the change near their borders is 0.7 to 1.3 times that elsewhere; without overlap
# it is 1.6 to 7 times as large (docs/models.md). Half a step of 8 bits is lost when a result is rounded.
MOST_RATIO = 1.5
INVISIBLE = 0.5

FRAME, TITLE_HEIGHT, TEXT_SIZE = 12, 26, 15  # pixels


@dataclass(frozen=True)
class Energy:
    """A sum of squares, and how many values are in it."""

    total: float = 0.0
    count: int = 0

    @classmethod
    def of(cls, values: np.ndarray) -> "Energy":
        """Return the energy of values."""
        return cls(float(np.square(values, dtype=np.float64).sum()), values.size)

    def __add__(self, other: "Energy") -> "Energy":
        return Energy(self.total + other.total, self.count + other.count)

    @property
    def rms(self) -> float:
        """Root mean square; 0 without values."""
        return math.sqrt(self.total / self.count) if self.count else 0.0


@dataclass(frozen=True)
class Seams:
    """What tiling changes, in one image or several, in steps of 8 bits (1/255).

    An edge is the difference that tiling adds between two neighbours across a border of tiles, averaged over
    a run along the border: it is what the eye sees as a line.

    Attributes:
        near: Change near the borders of tiles.
        elsewhere: Change of all other pixels.
        near_edges: Edges near the borders.
        other_edges: Edges elsewhere.
    """

    near: Energy = Energy()
    elsewhere: Energy = Energy()
    near_edges: Energy = Energy()
    other_edges: Energy = Energy()

    def __add__(self, other: "Seams") -> "Seams":
        return Seams(
            self.near + other.near,
            self.elsewhere + other.elsewhere,
            self.near_edges + other.near_edges,
            self.other_edges + other.other_edges,
        )

    @property
    def ratio(self) -> float:
        """How many times as large the change is near borders."""
        return _divide(self.near.rms, self.elsewhere.rms)

    @property
    def edge_ratio(self) -> float:
        """How many times as large the edges are near borders."""
        return _divide(self.near_edges.rms, self.other_edges.rms)

    @property
    def passes(self) -> bool:
        """Whether nobody will see where tiles meet."""
        return self.near.rms <= INVISIBLE or max(self.ratio, self.edge_ratio) <= MOST_RATIO


@dataclass(frozen=True)
class TiledImage:
    """An image that was restored in tiles and whole.

    Attributes:
        change: What tiling changes, (h, w, c) float32, in steps of 8 bits.
        plan: The tiles, in pixels of the input.
        scale: Output pixels per input pixel and side.
    """

    change: np.ndarray
    plan: Plan
    scale: int


def restore_both(restorer: Restorer, image: np.ndarray) -> TiledImage | None:
    """Restore an image, or the middle of a large one, in the restorer's tiles and in one.

    Args:
        restorer: With its tiles; it looks at no picture.
        image: (h, w, c), of any kind that the restorer takes; transparency is left out.

    Returns:
        Both results; None if the image is a single tile.

    Raises:
        MambairError: Memory does not hold the whole image.
    """
    side = max(WHOLE_SIDE, 2 * restorer.tiles.side)
    top, left = (max(0, length - side) // 2 for length in image.shape[:2])
    colours = image.shape[2] - (image.shape[2] % 2 == 0)
    pixels = to_float(image[top : top + side, left : left + side, :colours])
    height, width = pixels.shape[:2]
    if len(restorer.plan(height, width)) == 1:
        return None
    in_one = restorer.with_settings(replace(restorer.own, tile=max(height, width), overlap=0))
    whole, report = in_one.restore(pixels, any_range=True)
    if len(report.plan) > 1:
        raise MambairError(
            f"memory does not hold {width}×{height} pixels in one tile; "
            "give smaller images or another --device"
        )
    tiled, report = restorer.restore(pixels, any_range=True)
    return TiledImage((tiled - whole) * 255, report.plan, restorer.info.scale)


def measure_seams(image: TiledImage) -> Seams:
    """Measure what tiling changed in an image."""
    plan, change = image.plan, image.change
    rows = _near_borders(plan.tops, plan.tile_height, plan.height).repeat(image.scale)
    columns = _near_borders(plan.lefts, plan.tile_width, plan.width).repeat(image.scale)
    near = rows[:, None] | columns
    seams = Seams(Energy.of(change[near]), Energy.of(change[~near]))
    for across, is_near in ((change, columns), (change.transpose(1, 0, 2), rows)):
        steps = average_steps(across)
        inside = is_near[1:] & is_near[:-1]
        near_edges, other_edges = Energy.of(steps[:, inside]), Energy.of(steps[:, ~inside])
        seams += Seams(near_edges=near_edges, other_edges=other_edges)
    return seams


def average_steps(change: np.ndarray) -> np.ndarray:
    """Return the steps from each column to the next, averaged over runs of rows.

    Args:
        change: (h, w, c).

    Returns:
        (runs, w - 1, c).
    """
    length = min(RUN, len(change))
    runs = len(change) // length
    return np.diff(change[: runs * length].reshape(runs, length, *change.shape[1:]).mean(axis=1), axis=1)


def draw_seams(image: TiledImage, title: str) -> Image.Image:
    """Draw what tiling changed, amplified, on gray; marks in the frame show where tiles begin and end.

    Args:
        image: From ``restore_both``.
        title: One line, in ASCII; how much the change is amplified is added.
    """
    change, scale, plan = image.change.mean(axis=2), image.scale, image.plan
    strong = max(float(np.quantile(np.abs(change), 0.999)), 1e-3)
    gain = 2 ** min(10, max(0, math.floor(math.log2(127 / strong))))
    picture = Image.fromarray(np.rint(128 + change * gain).clip(0, 255).astype(np.uint8))
    width, height = picture.size
    top = FRAME + TITLE_HEIGHT
    text = f"{title}, {gain} times amplified"
    length = math.ceil(ImageDraw.Draw(picture).textlength(text, font_size=TEXT_SIZE))
    sheet = Image.new("RGB", (max(width, length) + 2 * FRAME, height + top + FRAME), "white")
    sheet.paste(picture, (FRAME, top))
    draw = ImageDraw.Draw(sheet)
    draw.text((FRAME, 8), text, fill="black", font_size=TEXT_SIZE)
    for edge in _edges(plan.lefts, plan.tile_width):
        x = FRAME + edge * scale
        draw.line((x, top - FRAME + 2, x, top - 2), fill="red", width=2)
        draw.line((x, top + height + 1, x, top + height + FRAME - 3), fill="red", width=2)
    for edge in _edges(plan.tops, plan.tile_height):
        y = top + edge * scale
        draw.line((1, y, FRAME - 3, y), fill="red", width=2)
        draw.line((FRAME + width + 1, y, FRAME + width + FRAME - 3, y), fill="red", width=2)
    return sheet


def _edges(starts: Sequence[int], side: int) -> list[int]:
    """Return where tiles begin and end along one axis, but for the ends of the image."""
    return sorted({edge for start, following in pairwise(starts) for edge in (following, start + side)})


def _near_borders(starts: Sequence[int], side: int, length: int) -> np.ndarray:
    """Tell which pixels along one axis two tiles share, or are near to those, (length,) bool."""
    near = np.zeros(length, bool)
    for start, following in pairwise(starts):
        near[max(0, following - REACH) : start + side + REACH] = True
    return near


def _divide(a: float, b: float) -> float:
    """Divide; nothing by nothing is 1, since neither is larger."""
    return a / b if b else (math.inf if a else 1.0)
