"""Resolutions: pixels per inch or per a unit without a name; what formats hold of them; enlargement."""

from dataclasses import replace
from fractions import Fraction
from typing import Any, overload

from mambair_cli.images.description import names_unit, restate_description, tells_size_of_pixels
from mambair_cli.images.formats import FORMATS, MOST_DPI, say_which_have
from mambair_cli.images.jpeg import read_jfif_density
from mambair_cli.images.picture import Header, Metadata
from mambair_cli.images.png_chunks import PngFacts
from mambair_cli.images.tiff import Page
from mambair_cli.images.tiff_resolution import (
    read_exif_resolution,
    scale_exif_resolution,
    set_exif_resolution,
)
from mambair_cli.images.xmp import scale_xmp_resolution

Pair = tuple[float, float]

_MOST_PRINTED = 10_000  # pixels per inch; finer ones are the size of what is seen, not of a print
_UNITS_PER_INCH = {2: 1.0, 3: 2.54}  # by the number that TIFF and EXIF give the unit
_JFIF_UNITS_PER_INCH = {1: 1.0, 2: 2.54}
_UNKNOWN = (72, 72)  # pixels per inch in EXIF that tell nothing, as its standard says
_PRECISION = 10**6
_ROUNDING = 0.02  # JFIF holds whole numbers


def find_tiff_resolution(page: Page, exif: bytes | None) -> tuple[Pair | None, Pair | None]:
    """Return the resolution of a page, upright: pixels per inch, or else per a unit without a name.

    One pixel per unit means nothing, except where ImageJ's description names the unit.
    """
    if page.resolution is None:
        return None, None
    x, y, unit = page.resolution
    x, y = turn((x, y), page.orientation)
    if unit in _UNITS_PER_INCH:
        return find_sensible_dpi(_to_inches(x, y, _UNITS_PER_INCH[unit])), None
    return None, None if (x, y) == (1, 1) and not names_unit(exif) else (x, y)


@overload
def turn(pair: Pair, orientation: int) -> Pair: ...
@overload
def turn(pair: None, orientation: int) -> None: ...
def turn(pair: Pair | None, orientation: int) -> Pair | None:
    """Return a resolution of an image as stored, upright: EXIF's orientations from 5 on change its sides."""
    return (pair[1], pair[0]) if pair is not None and orientation >= 5 else pair


def add_resolution(
    metadata: Metadata, format: str, data: Any, png: PngFacts | None = None, orientation: int = 1
) -> Metadata:
    """Return the metadata of a picture that is no TIFF file with its resolution, upright.

    What a file says outside its EXIF counts first, as in PNG and JPEG.

    Args:
        metadata: Metadata with the picture's EXIF and, where its decoder tells it, its resolution.
        format: Format of the file.
        data: Bytes of the file.
        png: Facts about a PNG file.
        orientation: Orientation of the picture as stored, 1 to 8.
    """
    dpi, density = metadata.dpi, None
    if png is not None and format == "png":
        dpi, density = png.dpi, png.density
    elif format == "jpeg" and (stated := read_jfif_density(data)) is not None:
        x, y, unit = stated
        dpi = _to_inches(x, y, _JFIF_UNITS_PER_INCH.get(unit))
        density = (x, y) if unit == 0 else None
    if density is not None and density[0] != density[1]:
        return replace(metadata, dpi=None, density=turn(density, orientation))
    dpi = find_sensible_dpi(dpi) or _find_exif_dpi(metadata.exif)
    return replace(metadata, dpi=turn(dpi, orientation), density=None)


def _find_exif_dpi(exif: bytes | None) -> Pair | None:
    """Return the pixels per inch that an EXIF block tells."""
    x, y, unit = (exif and read_exif_resolution(exif)) or (0, 0, 0)
    return find_sensible_dpi(_to_inches(x, y, _UNITS_PER_INCH.get(unit)))


def _to_inches(x: float, y: float, per_inch: float | None) -> Pair | None:
    """Return a resolution per inch; None for one in a unit of unknown length."""
    return None if per_inch is None else (x * per_inch, y * per_inch)


def find_sensible_dpi(dpi: Pair | None) -> Pair | None:
    """Round a resolution, since files store it in other units; return None for an impossible one."""
    x, y = (round(side, 2) for side in dpi or (0, 0))
    return (x, y) if 0 < x < MOST_DPI and 0 < y < MOST_DPI else None


def carry_measures(source: Header, result: Header) -> Header:
    """Return a result's header with descriptions of the result, and its resolution.

    Pixels per inch are those to print by, and stay. Where pixels have a size in the world, the resolution
    grows with the picture: in files of ImageJ and OME, TIFF files whose unit has no name, and beyond every
    printer's resolution.

    Args:
        source: Header of the picture that the result is made from.
        result: The result's, with its size and depth.
    """
    metadata = replace(result.metadata, exif=restate_description(source, result))
    factors = result.width / source.width, result.height / source.height
    if factors == (1, 1) or not _is_measured(source):
        return replace(result, metadata=metadata)
    pages = tuple(_scale(page, factors) for page in result.pages)
    return replace(result, metadata=_scale(metadata, factors), pages=pages)


def fit_resolution(metadata: Metadata, format: str) -> Metadata:
    """Leave out a resolution that a format has no room for; of a density without a unit only TIFF has all.

    Where a format has room for it in EXIF alone, EXIF tells it.
    """
    row = FORMATS[format]
    least, most = row.dpi
    dpi, density, exif = metadata.dpi, metadata.density, metadata.exif
    if dpi is not None and not (row.resolution and least <= min(dpi) <= max(dpi) <= most):
        dpi = None
    if density is not None and row.resolution != "tags":
        ratio = make_ratio(density, row.most_ratio) if row.most_ratio else (1, 1)
        density = None if ratio[0] == ratio[1] else (float(ratio[0]), float(ratio[1]))
    if row.resolution == "exif" and dpi is not None and _find_exif_dpi(exif) != find_sensible_dpi(dpi):
        exif = set_exif_resolution(exif, dpi)
    return replace(metadata, dpi=dpi, density=density, exif=exif)


def describe_lost_resolution(source: Header, result: Header, format: str) -> str | None:
    """Say that a format has no room for a resolution that is measured, or of pixels that are not square.

    Or for a second one: EXIF's, where PNG and JPEG files also have one of their own.
    """
    before, after = source.metadata, result.metadata
    in_exif = _find_exif_dpi(before.exif)
    has_one = FORMATS[format].resolution != "own"
    if has_one and before.dpi and after.dpi and in_exif and _differ(before.dpi, in_exif):
        (x, y), (u, v) = before.dpi, in_exif
        return f"left out: the resolution of its EXIF, {u:g}×{v:g} pixels per inch; {x:g}×{y:g} stays"
    stated = before.dpi or before.density
    if stated is None or after.dpi or after.density or not (stated[0] != stated[1] or _is_measured(source)):
        return None
    x, y = stated
    unit = "per inch" if before.dpi else "per unit"
    have = say_which_have(lambda row: row.resolution == "tags")
    return f"{format} has no room for its resolution, {x:g}×{y:g} pixels {unit}; {have}"


def _differ(dpi: Pair, in_exif: Pair) -> bool:
    """Tell whether EXIF has another resolution than the rest of its file, beyond rounding."""
    sides = zip(sorted(dpi), sorted(in_exif), strict=True)  # those of EXIF are not turned upright
    return in_exif != _UNKNOWN and any(abs(one / other - 1) > _ROUNDING for one, other in sides)


def make_ratio(density: Pair, most: int) -> tuple[int, int]:
    """Return whole numbers of the ratio of a density, itself if it is made of such, none above ``most``."""
    x, y = density
    if x == int(x) and y == int(y) and max(density) <= most:
        return int(x), int(y)
    smaller = Fraction(min(density) / max(density)).limit_denominator(min(most, _PRECISION))
    low, high = max(smaller.numerator, 1), smaller.denominator
    return (low, high) if x < y else (high, low)


def _is_measured(header: Header) -> bool:
    """Tell whether a picture's pixels have a size in the world."""
    metadata = header.metadata
    is_unnamed = header.format == "tiff" and metadata.density is not None
    is_fine = metadata.dpi is not None and max(metadata.dpi) > _MOST_PRINTED
    return is_unnamed or is_fine or tells_size_of_pixels(metadata.exif)


def _scale(metadata: Metadata, factors: Pair) -> Metadata:
    """Multiply resolutions, where there are some."""
    pairs = metadata.dpi, metadata.density
    dpi, density = (pair and (pair[0] * factors[0], pair[1] * factors[1]) for pair in pairs)
    exif = scale_exif_resolution(metadata.exif, factors) if metadata.exif else None
    xmp = scale_xmp_resolution(metadata.xmp, factors) if metadata.xmp else None
    return replace(metadata, exif=exif, xmp=xmp, dpi=dpi, density=density)
