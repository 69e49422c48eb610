"""Set and scale the resolutions that TIFF files and EXIF blocks hold as fractions."""

import struct
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction

from mambair_cli.images.tiff import RATIONAL, RESOLUTION_UNIT, RESOLUTIONS, locate_value, walk_directories
from mambair_cli.images.tiff_directories import (
    EMPTY_EXIF,
    MALFORMED,
    SHORT,
    Buffer,
    ExifEntry,
    read_directory,
    read_header,
    read_number,
    set_entries,
)

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
                fraction = struct.pack(f"{layout.order}2I", *make_rational(value))
                changes.append((locate_value(data, directory[tag], layout), fraction))
        if RESOLUTION_UNIT in directory:
            unit = struct.pack(f"{layout.order}H", _INCH if dpi else _NO_UNIT)
            changes.append((locate_value(data, directory[RESOLUTION_UNIT], layout), unit))
    return changes


def read_exif_resolution(exif: bytes) -> tuple[float, float, int] | None:
    """Return the resolution that an EXIF block tells.

    Args:
        exif: EXIF block from its byte order mark on.

    Returns:
        Pixels per unit across and down, and the number of the unit: 2 for inches, which is what counts where
        the block has none, 3 for centimetres. None where it tells no resolution.
    """
    try:
        layout, first = read_header(exif)
        main, _ = read_directory(exif, layout, first)
        entries = [main[tag] for tag in RESOLUTIONS]
        x, y = (above / below for above, below in (read_rational(each, layout.order) for each in entries))
        unit = read_number(main[RESOLUTION_UNIT], layout) if RESOLUTION_UNIT in main else _INCH
    except (*MALFORMED, ZeroDivisionError):
        return None
    return x, y, unit


def set_exif_resolution(exif: bytes | None, dpi: Pair) -> bytes | None:
    """Set the resolution in an EXIF block, in pixels per inch; the block's other tags stay.

    Args:
        exif: EXIF block from its byte order mark on; None for a new one.
        dpi: Pixels per inch, across and down.

    Returns:
        The block, as it was where it is malformed.
    """
    block = exif or EMPTY_EXIF
    try:
        layout, _ = read_header(block)
        entries = {
            tag: ExifEntry(RATIONAL, 1, struct.pack(f"{layout.order}2I", *make_rational(value)))
            for tag, value in zip(RESOLUTIONS, dpi, strict=True)
        }
        entries[RESOLUTION_UNIT] = ExifEntry(SHORT, 1, struct.pack(f"{layout.order}H", _INCH))
        return set_entries(block, entries)
    except MALFORMED:
        return exif


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
                numerator, denominator = read_rational(main[tag], layout.order)
                scaled = make_rational(numerator / denominator * factor)
                struct.pack_into(f"{layout.order}2I", block, locate_value(block, main[tag], layout), *scaled)
    return bytes(block)


def read_rational(entry: ExifEntry, order: str) -> tuple[int, int]:
    """Return numerator and denominator of an entry that holds one fraction."""
    if entry.kind != RATIONAL:
        raise ValueError(f"a resolution of type {entry.kind}")
    return struct.unpack(f"{order}2I", entry.value)


def make_rational(value: float) -> tuple[int, int]:
    """Return a number from 0 on as numerator and denominator of 32 bits."""
    if 0 < value < 1:
        numerator, denominator = make_rational(1 / value)
        return denominator, numerator
    value = min(value, _MOST)
    fraction = Fraction(value).limit_denominator(min(_PRECISION, int(_MOST / max(value, 1))))
    return min(fraction.numerator, _MOST), fraction.denominator
