"""Resolutions: pixels per inch or per a unit without a name; what formats hold of them; enlargement."""

from dataclasses import replace
from fractions import Fraction
from typing import Any, overload

from mambair_cli.images.description import names_unit, restate_description, tells_size_of_pixels
from mambair_cli.images.jpeg import read_jfif_density
from mambair_cli.images.picture import Header, PageNotes
from mambair_cli.images.png_chunks import PngFacts
from mambair_cli.images.tiff import Page
from mambair_cli.images.tiff_resolution import scale_exif_resolution
from mambair_cli.images.xmp import scale_xmp_resolution

Pair = tuple[float, float]

_MOST_DPI = 1e9  # a tenth of an atom's width
_MOST_PRINTED = 10_000  # pixels per inch; finer ones are the size of what is seen, not of a print
_UNITS_PER_INCH = {2: 1.0, 3: 2.54}  # by TIFF's number of the unit
_PRECISION = 10**6
# Most pixels per inch (of PNG: that libvips writes), and largest number of a ratio; formats that are missing
# have room for neither.
_ROOM = {"tiff": (_MOST_DPI, 0), "png": (2.5e7, 2**31 - 1), "jpeg": (65535, 65535)}


def find_tiff_resolution(page: Page, exif: bytes | None) -> tuple[Pair | None, Pair | None]:
    """Return the resolution of a page, upright: pixels per inch, or else per a unit without a name.

    One pixel per unit means nothing, except where ImageJ's description names the unit.
    """
    if page.resolution is None:
        return None, None
    x, y, unit = page.resolution
    x, y = turn((x, y), page.orientation)
    if unit in _UNITS_PER_INCH:
        return find_sensible_dpi((x * _UNITS_PER_INCH[unit], y * _UNITS_PER_INCH[unit])), None
    return None, None if (x, y) == (1, 1) and not names_unit(exif) else (x, y)


@overload
def turn(pair: Pair, orientation: int) -> Pair: ...
@overload
def turn(pair: None, orientation: int) -> None: ...
def turn(pair: Pair | None, orientation: int) -> Pair | None:
    """Return a resolution of an image as stored, upright: EXIF's orientations from 5 on change its sides."""
    return (pair[1], pair[0]) if pair is not None and orientation >= 5 else pair


def find_aspect(data: Any, format: str, png: PngFacts) -> Pair | None:
    """Return how densely a PNG or JPEG file has pixels across and down, where it tells only their ratio."""
    density = png.density if format == "png" else read_jfif_density(data) if format == "jpeg" else None
    return density if density is not None and density[0] != density[1] else None


def find_sensible_dpi(dpi: Pair | None) -> Pair | None:
    """Round a resolution, since files store it in other units; return None for an impossible one."""
    x, y = (round(side, 2) for side in dpi or (0, 0))
    return (x, y) if 0 < x < _MOST_DPI and 0 < y < _MOST_DPI else None


def carry_measures(source: Header, result: Header) -> Header:
    """Return a result's header with descriptions of the result, and its resolution.

    Pixels per inch are those to print by, and stay. Where pixels have a size in the world, the resolution
    grows with the picture: in files of ImageJ and OME, TIFF files whose unit has no name, and beyond every
    printer's resolution.

    Args:
        source: Header of the picture that the result is made from.
        result: The result's, with its size and depth.
    """
    restated = replace(result, exif=restate_description(result.exif, source, result))
    factors = result.width / source.width, result.height / source.height
    if factors == (1, 1) or not _is_measured(source):
        return restated
    dpi, density = _scale_all((restated.dpi, restated.density), factors)
    exif = scale_exif_resolution(restated.exif, factors) if restated.exif else None
    pages = tuple(
        PageNotes(page.exif, _scale_xmp(page.xmp, factors), *_scale_all((page.dpi, page.density), factors))
        for page in result.pages
    )
    xmp = _scale_xmp(restated.xmp, factors)
    return replace(restated, dpi=dpi, density=density, exif=exif, xmp=xmp, pages=pages)


def fit_resolution(header: Header, format: str) -> Header:
    """Leave out a resolution that a format has no room for; of a density without a unit only TIFF has all."""
    most, most_parts = _ROOM.get(format, (0, 0))
    dpi = header.dpi
    if dpi is not None and (max(dpi) > most or (format == "jpeg" and min(dpi) < 0.5)):
        dpi = None
    density = header.density
    if density is not None and format != "tiff":
        ratio = make_ratio(density, most_parts) if most_parts else (1, 1)
        density = None if ratio[0] == ratio[1] else (float(ratio[0]), float(ratio[1]))
    return replace(header, dpi=dpi, density=density)


def describe_lost_resolution(source: Header, result: Header, format: str) -> str | None:
    """Say that a format has no room for a resolution that is measured, or of pixels that are not square."""
    told = source.dpi or source.density
    if told is None or result.dpi or result.density or not (told[0] != told[1] or _is_measured(source)):
        return None
    x, y = told
    unit = "per inch" if source.dpi else "per unit"
    return f"{format} has no room for its resolution, {x:g}×{y:g} pixels {unit}; tiff has"


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
    is_unnamed = header.format == "tiff" and header.density is not None
    is_fine = header.dpi is not None and max(header.dpi) > _MOST_PRINTED
    return is_unnamed or is_fine or tells_size_of_pixels(header.exif)


def _scale_all(pairs: tuple[Pair | None, Pair | None], factors: Pair) -> tuple[Pair | None, Pair | None]:
    """Multiply resolutions, where there are some."""
    first, second = (pair and (pair[0] * factors[0], pair[1] * factors[1]) for pair in pairs)
    return first, second


def _scale_xmp(xmp: bytes | None, factors: Pair) -> bytes | None:
    return scale_xmp_resolution(xmp, factors) if xmp else None
