"""Set and scale the resolutions that TIFF files and EXIF blocks hold as fractions."""

import struct
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction

from mambair_cli.images.tiff import RATIONAL, RESOLUTION_UNIT, RESOLUTIONS, locate_value, walk_directories
from mambair_cli.images.tiff_directories import MALFORMED, Buffer, read_directory, read_header

_NO_UNIT, _INCH = 1, 2
_MOST = 2**32 - 1  # of a numerator or denominator
_PRECISION = 10**6

Pair = tuple[float, float]


def restate_tiff_resolution(
    data: Buffer, resolutions: Sequence[tuple[Pair | None, Pair | None]]
) -> list[tuple[int, bytes]]:
    """Return the changes, offset and bytes, that give the pages of a file their resolutions.

    Without one it is one pixel per a unit without a name, which tells nothing.

    Args:
        data: The file, whose pages have resolutions and units.
        resolutions: Pixels per inch, horizontal and vertical, and where these are None, pixels per a unit
            without a name; for each page, or for the first ones: the others get that of the first.
    """
    layout, _ = read_header(data)
    changes = []
    for number, directory in enumerate(walk_directories(data)):
        dpi, density = resolutions[number if number < len(resolutions) else 0]
        for tag, value in zip(RESOLUTIONS, dpi or density or (1, 1), strict=True):
            if tag in directory and directory[tag].kind == RATIONAL:
                fraction = struct.pack(f"{layout.order}2I", *_make_rational(value))
                changes.append((locate_value(data, directory[tag], layout), fraction))
        if RESOLUTION_UNIT in directory:
            unit = struct.pack(f"{layout.order}H", _INCH if dpi else _NO_UNIT)
            changes.append((locate_value(data, directory[RESOLUTION_UNIT], layout), unit))
    return changes


def scale_exif_resolution(exif: bytes, factors: tuple[float, float]) -> bytes:
    """Multiply the resolution in an EXIF block; the block's other bytes stay.

    Args:
        exif: EXIF block from its byte order mark on.
        factors: Factors across and down.
    """
    block = bytearray(exif)
    with suppress(*MALFORMED, ZeroDivisionError):
        layout, first = read_header(block)
        main, _ = read_directory(block, layout, first)
        for tag, factor in zip(RESOLUTIONS, factors, strict=True):
            if tag in main and main[tag].kind == RATIONAL:
                numerator, denominator = struct.unpack(f"{layout.order}2I", main[tag].value)
                scaled = _make_rational(numerator / denominator * factor)
                struct.pack_into(f"{layout.order}2I", block, locate_value(block, main[tag], layout), *scaled)
    return bytes(block)


def _make_rational(value: float) -> tuple[int, int]:
    """Return a number from 0 on as numerator and denominator of 32 bits."""
    if 0 < value < 1:
        numerator, denominator = _make_rational(1 / value)
        return denominator, numerator
    value = min(value, _MOST)
    fraction = Fraction(value).limit_denominator(min(_PRECISION, int(_MOST / max(value, 1))))
    return min(fraction.numerator, _MOST), fraction.denominator
