"""Read the colours that TIFF files give by numbers: white, primary colours, and the curve of the samples."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mambair_cli.images.icc_profile import GAMMA_RANGE, SRGB, Chromaticity, Primaries, are_near
from mambair_cli.images.samples import encode_srgb
from mambair_cli.images.tiff import RATIONAL, Page
from mambair_cli.images.tiff_directories import (
    SHORT,
    Buffer,
    Directory,
    ExifEntry,
    read_directory,
    read_header,
)

_CURVES, _WHITE, _PRIMARIES = 301, 318, 319
_NAMES = {_CURVES: "TransferFunction", _WHITE: "WhitePoint", _PRIMARIES: "PrimaryChromaticities"}

_USUAL_GAMMA = 2.2  # where a file has no curve, as TIFF 6.0 says
_LONGEST = 3 * 2 * 2**16  # bytes: three curves of samples of 16 bits
_FULL = 65535  # of a curve's value
_NEAR = 0.005  # of full light; sRGB's curve and the power of 2.2 differ by more


class TiffColours(NamedTuple):
    """The colours of samples.

    Attributes:
        primaries: Chromaticities of white and the primary colours.
        gamma: Power that maps samples to light; None for sRGB's curve.
    """

    primaries: Primaries
    gamma: float | None


def name_colour_tags(pages: Sequence[Page]) -> list[str]:
    """Name the tags of pages that give their colours by numbers."""
    return [name for tag, name in _NAMES.items() if any(tag in page.tags for page in pages)]


def read_tiff_colours(data: Buffer, pages: Sequence[Page], is_gray: bool) -> TiffColours:
    """Read the colours that pages give by numbers; what they do not tell is as usual.

    Args:
        data: The file.
        pages: The pages, at least one.
        is_gray: Whether they are gray, so that the curve alone counts.

    Raises:
        One of ``MALFORMED``: The numbers make no sense, are too few, or differ between the pages.
    """
    wanted = {_CURVES} if is_gray else set(_NAMES)
    layout, _ = read_header(data)
    first: Directory = {}
    room = len(data)  # values do not overlap: those of a hostile file must not sum up to terabytes
    for number, page in enumerate(pages):
        found, _ = read_directory(data, layout, page.at, min(room, _LONGEST), wanted)
        first = first if number else found
        room -= sum(len(entry.value) for entry in found.values())
        if found.keys() != page.tags & wanted or _values_of(found) != _values_of(first):
            raise ValueError("they differ, or are too long")
    white, points = [SRGB.white], [SRGB.red, SRGB.green, SRGB.blue]
    if _WHITE in first:
        white = _read_points(first[_WHITE], layout.order)
    if _PRIMARIES in first:
        points = _read_points(first[_PRIMARIES], layout.order)
    elif not are_near((*white, *points), (SRGB.white, *points)):
        raise ValueError("another white without primary colours")
    (middle,), (red, green, blue) = white, points
    curves = first.get(_CURVES)
    gamma = _USUAL_GAMMA if curves is None else _fit_curve(curves, layout.order, pages[0].bits)
    return TiffColours(Primaries(middle, red, green, blue), gamma)


def _values_of(directory: Directory) -> dict[int, tuple[int, bytes]]:
    return {tag: (entry.kind, entry.value) for tag, entry in directory.items()}


def _read_points(entry: ExifEntry, order: str) -> list[Chromaticity]:
    """Return chromaticities, x and y each."""
    if entry.kind != RATIONAL:
        raise ValueError("no fractions")
    parts = np.frombuffer(entry.value, f"{order}u4").reshape(-1, 2, 2).astype(float)
    if not parts[..., 1].all():
        raise ValueError("a fraction of nothing")
    return [(float(x), float(y)) for x, y in parts[..., 0] / parts[..., 1]]


def _fit_curve(entry: ExifEntry, order: str, bits: int) -> float | None:
    """Return the power that tables of light by sample are near to; None where that is sRGB's curve.

    Args:
        entry: One table, or one for each of three colours.
        order: Byte order of the file.
        bits: Bits of a sample.
    """
    length = 1 << bits
    if entry.kind != SHORT or entry.count not in (length, 3 * length):
        raise ValueError("no table for its samples")
    light = np.frombuffer(entry.value, f"{order}u2").reshape(-1, length) / _FULL
    samples = np.linspace(0, 1, length)
    if np.abs(encode_srgb(light) - samples).max() <= _NEAR:
        return None
    middle = float(light[0, length // 2])
    gamma = math.log(middle) / math.log(samples[length // 2]) if bits > 1 and middle > 0 else 0.0
    low, high = GAMMA_RANGE
    if not low <= gamma <= high or np.abs(light - samples**gamma).max() > _NEAR:
        raise ValueError("neither a power nor sRGB's curve")
    return gamma
