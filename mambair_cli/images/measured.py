"""Measures in pixels, or in pixels per length, by which programs tell the geometry of a camera.

They are scaled and turned with the picture, so that the field of view stays what it is.
"""

import math
import re
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

from mambair_cli.images.move import Move
from mambair_cli.images.picture import Metadata
from mambair_cli.images.tiff import RATIONAL, locate_value
from mambair_cli.images.tiff_directories import (
    EXIF,
    MALFORMED,
    Directory,
    ExifEntry,
    Layout,
    read_directory,
    read_header,
    read_number,
)
from mambair_cli.images.tiff_resolution import make_rational, read_rational
from mambair_cli.images.xml_tags import NUMBER, field_of
from mambair_cli.system.wording import enumerate_names

_FOCAL_PLANE = {0xA20E: "FocalPlaneXResolution", 0xA20F: "FocalPlaneYResolution"}  # in EXIF


class _Measures(NamedTuple):
    """Two measures of XMP, along the width and the height.

    Attributes:
        names: Names of the two.
        is_place: Whether they are a place, from the left and from the top; otherwise they are lengths in
            pixels, or pixels per length.
        is_whole: Whether they are whole numbers.
        turns: Whether they may be turned with the picture.
    """

    names: tuple[bytes, bytes]
    is_place: bool = False
    is_whole: bool = False
    turns: bool = True


_MEASURES = (
    _Measures((b"exif:FocalPlaneXResolution", b"exif:FocalPlaneYResolution")),
    _Measures((b"drone-dji:CalibratedOpticalCenterX", b"drone-dji:CalibratedOpticalCenterY"), is_place=True),
    *(
        _Measures((b"GPano:" + across, b"GPano:" + down), is_whole=True, turns=False)
        for across, down in (
            (b"FullPanoWidthPixels", b"FullPanoHeightPixels"),
            (b"CroppedAreaImageWidthPixels", b"CroppedAreaImageHeightPixels"),
            (b"CroppedAreaLeftPixels", b"CroppedAreaTopPixels"),
            (b"LargestValidInteriorRectLeft", b"LargestValidInteriorRectTop"),
            (b"LargestValidInteriorRectWidth", b"LargestValidInteriorRectHeight"),
        )
    ),
)
_LENGTHS = (b"drone-dji:CalibratedFocalLength",)
# A date; in pixels, two focal lengths and where the optical centre lies from the middle; and five terms of
# the distortion, without a unit: k1, k2, p1, p2 and k3, as in OpenCV.
_DEWARP = b"drone-dji:DewarpData"
_DEWARP_VALUE = rb"[^;\"'<>]{0,40};%b(?:,%b){8}" % (NUMBER, NUMBER)
# In pixels, and in forms that are not converted: polynomials and matrices.
_UNMOVED = (
    *(b"drone-dji:" + name for name in (b"CalibratedHMatrix", b"DewarpHMatrix", b"VignettingData")),
    *(b"Camera:Fisheye" + name for name in (b"AffineMatrix", b"AffineSymmetric")),
    *(b"Camera:Vignetting" + name for name in (b"Center", b"Polynomial", b"Polynomial2D")),
)
_VALUE = rb"%b(?:/%b)?" % (NUMBER, NUMBER)


def move_exif_measures(exif: bytes, move: Move) -> bytes:
    """Scale and turn the resolution of the focal plane in an EXIF block; its other bytes stay."""
    if move.is_none:
        return exif
    head = b"Exif\0\0" if exif.startswith(b"Exif\0\0") else b""
    block = bytearray(exif[len(head) :])
    try:
        layout, photo = _read_focal_plane(block)
        x, y = (_find_rational(photo, tag, layout) for tag in _FOCAL_PLANE)
        for tag, moved in zip(_FOCAL_PLANE, _move_pair(x, y, move), strict=True):
            if moved is not None:
                at = locate_value(block, photo[tag], layout)
                struct.pack_into(f"{layout.order}2I", block, at, *make_rational(moved))
    except MALFORMED:
        return exif
    return head + bytes(block)


def move_xmp_measures(xmp: bytes, move: Move) -> bytes:
    """Scale and turn the measures that an XMP packet tells; those that cannot be moved stay."""
    if move.is_none:
        return xmp
    for measures in _MEASURES:
        if move.orientation > 1 and not measures.turns:
            continue
        x, y = (_read_value(xmp, name) for name in measures.names)
        pair = _move_place(x, y, move) if measures.is_place else _move_pair(x, y, move)
        for name, moved in zip(measures.names, pair, strict=True):
            if moved is not None:
                xmp = _write_value(xmp, name, moved, measures.is_whole)
    for name in _LENGTHS:
        length = _read_value(xmp, name)
        if length is not None:
            xmp = _write_value(xmp, name, length * math.sqrt(math.prod(move.size(1, 1))))
    if _DEWARP in xmp:
        xmp = re.sub(
            field_of(_DEWARP, _DEWARP_VALUE), lambda found: found[1] + _move_lens(found[2], move), xmp
        )
    return xmp


def find_unmoved(metadata: Metadata, move: Move) -> tuple[str, ...]:
    """Return the names of measures that cannot be moved."""
    if move.is_none:
        return ()
    return *_find_unmoved_exif(metadata.exif or b"", move), *_find_unmoved_xmp(metadata.xmp or b"", move)


def describe_unmoved(names: Iterable[str]) -> list[str]:
    """Say which measures do not fit a result, each once: a sentence, or nothing."""
    known = dict.fromkeys(names)
    return (
        [f"in its metadata, measures that do not fit the result: {enumerate_names(known)}"] if known else []
    )


def _read_focal_plane(block: bytes | bytearray) -> tuple[Layout, Directory]:
    layout, first = read_header(block)
    main, _ = read_directory(block, layout, first, wanted={EXIF})
    if EXIF not in main:
        return layout, {}
    return layout, read_directory(block, layout, read_number(main[EXIF], layout), wanted=_FOCAL_PLANE)[0]


def _find_rational(directory: Directory, tag: int, layout: Layout) -> float | None:
    """Read a fraction; None where there is none, or it is undefined."""
    entry = directory.get(tag)
    if entry is None or not _is_fraction(entry):
        return None
    numerator, denominator = read_rational(entry, layout.order)
    return numerator / denominator if denominator else None


def _is_fraction(entry: ExifEntry) -> bool:
    return entry.kind == RATIONAL and entry.count == 1


def _find_unmoved_exif(exif: bytes, move: Move) -> Iterator[str]:
    try:
        layout, photo = _read_focal_plane(exif.removeprefix(b"Exif\0\0"))
        given = [tag for tag in photo if _find_rational(photo, tag, layout) is not None]
    except MALFORMED:
        return
    is_whole = len(given) == 2 or not move.is_transposed
    for tag, entry in photo.items():
        if not _is_fraction(entry) or (tag in given and not is_whole):
            yield _FOCAL_PLANE[tag]


def _find_unmoved_xmp(xmp: bytes, move: Move) -> Iterator[str]:
    """Yield the names of measures in a packet that are not moved."""
    for measures in _MEASURES:
        given = [name for name in measures.names if _tells(xmp, name)]
        is_turned = measures.is_place and move.orientation > 1
        moves = measures.turns or move.orientation == 1
        moves &= len(given) == 2 or not (move.is_transposed or is_turned)
        yield from (name.decode() for name in given if not moves or _read_value(xmp, name) is None)
    yield from (name.decode() for name in _LENGTHS if _tells(xmp, name) and _read_value(xmp, name) is None)
    if _tells(xmp, _DEWARP) and not re.search(field_of(_DEWARP, _DEWARP_VALUE), xmp):
        yield _DEWARP.decode()
    yield from (name.decode() for name in _UNMOVED if _tells(xmp, name))


def _tells(xmp: bytes, name: bytes) -> bool:
    """Tell whether a packet has a property that is not empty."""
    return name in xmp and re.search(field_of(name, rb"[^\s\"'<]"), xmp) is not None


def _move_pair(x: float | None, y: float | None, move: Move) -> tuple[float | None, float | None]:
    """Move two lengths in pixels, or pixels per length; one alone only where the sides stay."""
    if move.is_transposed and (x is None or y is None):
        return None, None
    across, down = move.size(x or 0, y or 0)
    return None if x is None else across, None if y is None else down


def _move_place(x: float | None, y: float | None, move: Move) -> tuple[float | None, float | None]:
    """Move a place in pixels from the left and the top; one number alone only where nothing is turned."""
    if move.orientation == 1:
        return _move_pair(x, y, move)
    if x is None or y is None:
        return None, None
    across, down = move.point(x / move.before[0], y / move.before[1])
    return across * move.after[0], down * move.after[1]


def _read_value(xmp: bytes, name: bytes) -> float | None:
    """Read a number or a fraction; None where there is none."""
    found = re.search(field_of(name, _VALUE), xmp) if name in xmp else None
    if found is None:
        return None
    numerator, _, denominator = found[2].partition(b"/")
    below = float(denominator or 1)
    return float(numerator) / below if below else None


def _write_value(xmp: bytes, name: bytes, number: float, is_whole: bool = False) -> bytes:
    """Write a number in the place of one, a fraction in that of a fraction."""

    def write(found: re.Match[bytes]) -> bytes:
        if is_whole:
            return found[1] + b"%d" % round(number)
        if b"/" not in found[2]:
            return found[1] + b"%.10g" % number
        fraction = Fraction(number).limit_denominator(10**6)
        return found[1] + b"%d/%d" % (fraction.numerator, fraction.denominator)

    return re.sub(field_of(name, _VALUE), write, xmp)


def _move_lens(data: bytes, move: Move) -> bytes:
    """Scale and turn DJI's data for a lens; see ``_DEWARP``."""
    date, _, text = data.partition(b";")
    parts = text.split(b",")
    focal_x, focal_y, centre_x, centre_y, _, _, p1, p2, _ = map(float, parts)
    moved = (*move.size(focal_x, focal_y), *move.vector(centre_x, centre_y))
    parts[:4] = (b"%.10g" % number for number in moved)
    if move.orientation > 1:
        turn = move._replace(before=(1, 1), after=(1, 1))  # p2 and p1 are a vector without a unit
        parts[7], parts[6] = (b"%.10g" % number for number in turn.vector(p2, p1))
    return date + b";" + b",".join(parts)
