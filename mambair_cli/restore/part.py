"""A part of an image, restored without the rest, by one or more strengths."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mambair_cli.images.stretch import Stretch
from mambair_cli.restore.engine import OnTiles
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.strength import REACH, enlarge_samples, mix
from mambair_cli.restore.tiling import Report
from mambair_cli.system.geometry import Region


@dataclass(frozen=True)
class Context:
    """A part of an image, and the larger part that a network sees.

    Attributes:
        part: The part, in pixels of the image.
        seen: That part and the pixels around it, as far as the image has them.
    """

    part: Region
    seen: Region


def add_context(part: Region, height: int, width: int, restorer: Restorer) -> Context:
    """Add to a part of an image what a tile of it would share with its neighbours.

    Args:
        part: A part of the image.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
        restorer: The restorer, whose tiles overlap.
    """
    more = max(restorer.tiles.overlap, REACH)
    left, top = max(0, part.left - more), max(0, part.top - more)
    right = min(width, part.left + part.width + more)
    bottom = min(height, part.top + part.height + more)
    return Context(part, Region(left, top, right - left, bottom - top))


def restore_part(
    restorer: Restorer,
    samples: np.ndarray,
    context: Context,
    strengths: Sequence[float],
    on_tiles: OnTiles | None = None,
    stretch: Stretch | None = None,
) -> tuple[list[np.ndarray], Report]:
    """Restore a part of an image, by one run of the network.

    Args:
        restorer: The restorer, of strength 1.
        samples: Samples of what the network sees, (h, w, c), uint8, uint16 or float32 in [0, 1]: 1 or 3
            colours, and alpha if there is one.
        context: Where the part lies in them.
        strengths: Shares of the network's result, 0 to 1.
        on_tiles: Called with the progress.
        stretch: How the whole image is stretched for the network; None to leave it.

    Returns:
        The part for each strength, (s·h, s·w, c) float32, not clipped, and how it was computed.

    Raises:
        MemoryLimitError: The device does not hold even the smallest tile.
        UsageError: The network cannot restore such an image.
    """
    if restorer.own.strength != 1:
        raise ValueError(f"the strengths are arguments; the restorer's is {restorer.own.strength}")
    rows: list[np.ndarray] = []
    report: Report | None = None
    restoration = restorer.open_rows(
        lambda top, bottom: samples[top:bottom], samples.shape, on_tiles, None, stretch=stretch
    )
    for band in restoration.rows():
        rows = [*(rows if band.top else []), band.rows]  # the first band comes again with smaller tiles
        report = band.report
    assert report is not None
    part, seen, scale = context.part, context.seen, restorer.info.scale
    top, left = scale * (part.top - seen.top), scale * (part.left - seen.left)
    cut = slice(top, top + scale * part.height), slice(left, left + scale * part.width)
    restored = np.concatenate(rows)[cut]
    if min(strengths) == 1:
        return [restored] * len(strengths), report
    given = enlarge_samples(samples, scale, samples.shape[2])[cut]
    return [mix(restored, given, strength) for strength in strengths], report
