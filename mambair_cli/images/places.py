"""Places in a picture that its metadata name, such as faces: moved as its pixels are."""

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import replace

from mambair_cli.images.measured import find_unmoved, move_exif_measures, move_xmp_measures
from mambair_cli.images.metadata import restate_exif
from mambair_cli.images.move import Move
from mambair_cli.images.picture import Metadata
from mambair_cli.images.row_reader import leave_out
from mambair_cli.images.tiff_directories import (
    EXIF,
    MALFORMED,
    ORIENTATION,
    Layout,
    read_directory,
    read_header,
    read_number,
)
from mambair_cli.images.xml_tags import NUMBER, edit_outermost, field_of, find_outermost
from mambair_cli.images.xmp import drop_lost_parts, restate_xmp, to_utf8

_SUBJECTS = frozenset({0x9214, 0xA214})  # area and location, in pixels
_LARGEST = 65535  # number in EXIF that tells a place
_INLINE_BYTES = 4

_AREA, _DIMENSIONS = (b"mwg-rs:Area",), (b"mwg-rs:AppliedToDimensions",)
_BOUNDARY = (b"Iptc4xmpExt:RegionBoundary",)
_PARTS = (b"rbX", b"rbY", b"rbW", b"rbH", b"rbRx")
_UNIT = re.compile(field_of(b"Iptc4xmpExt:rbUnit", rb"pixel|relative"))
_SUBJECT = (b"exif:SubjectArea", b"exif:SubjectLocation")
_RECTANGLE = re.compile(field_of(b"MPReg:Rectangle", rb"%b(?:\s*,\s*%b){3}" % (NUMBER, NUMBER)))
_ITEM = re.compile(rb"(<rdf:li\s*>\s*)(\d{1,10})(?=\s*<)")


def find_orientation(exif: bytes | None) -> int:
    """Return the orientation in an EXIF block; 1 where there is none."""
    try:
        block = (exif or b"").removeprefix(b"Exif\0\0")
        layout, first = read_header(block)
        main, _ = read_directory(block, layout, first, wanted={ORIENTATION})
        orientation = read_number(main[ORIENTATION], layout)
    except MALFORMED:
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def restate_upright(metadata: Metadata, move: Move, warnings: list[str]) -> tuple[Metadata, tuple[str, ...]]:
    """Change EXIF and XMP so that they describe a single picture that was turned upright.

    Args:
        metadata: Metadata of the picture as it is stored.
        move: What became of the pixels.
        warnings: Sentences about the file, to which those about what is left out are added.

    Returns:
        The metadata, and the names of measures that still tell of the picture as it is stored.
    """
    stored = replace(metadata, xmp=metadata.xmp and to_utf8(metadata.xmp))
    exif = restate_exif(_move_exif(stored.exif, move), *move.after) if stored.exif else None
    if stored.exif and exif is None:
        warnings.append("its EXIF cannot be read and is left out")
    xmp = restate_upright_xmp(stored.xmp, move, warnings)
    return replace(stored, exif=exif, xmp=xmp), find_unmoved(stored, move)


def restate_upright_xmp(xmp: bytes | None, move: Move, warnings: list[str]) -> bytes | None:
    """Change XMP so that it describes a single picture that was turned upright; see ``restate_upright``."""
    if not xmp:
        return None
    restated, lost = drop_lost_parts(restate_xmp(_move_xmp(to_utf8(xmp), move), *move.after))
    warnings += [leave_out(part) for part in lost]
    return restated


def move_metadata(metadata: Metadata, move: Move) -> Metadata:
    """Move the places and the measures that EXIF and XMP tell."""
    exif, xmp = metadata.exif, metadata.xmp
    return replace(metadata, exif=exif and _move_exif(exif, move), xmp=xmp and _move_xmp(xmp, move))


def _move_exif(exif: bytes, move: Move) -> bytes:
    return move_exif_measures(move_exif_places(exif, move), move)


def _move_xmp(xmp: bytes, move: Move) -> bytes:
    return move_xmp_measures(move_xmp_places(xmp, move), move)


def move_exif_places(exif: bytes, move: Move) -> bytes:
    """Move the place of the subject in an EXIF block; one that has no room for it is removed."""
    head = b"Exif\0\0" if exif.startswith(b"Exif\0\0") else b""
    block = bytearray(exif[len(head) :])
    if move.is_none:
        return exif
    try:
        layout, first = read_header(block)
        main, _ = read_directory(block, layout, first, wanted={EXIF})
        at = read_number(main[EXIF], layout)
        photo, end = read_directory(block, layout, at, wanted=_SUBJECTS)
        for entry in sorted(photo.values(), key=lambda entry: -entry.at):
            form = f"{layout.order}{len(entry.value) // 2}H"
            moved = move.subject(struct.unpack(form, entry.value))
            place = entry.at + struct.calcsize(layout.entry) - struct.calcsize(layout.offset)
            if max(moved) > _LARGEST:
                _remove_entry(block, layout, at, entry.at, end)
                continue
            if len(entry.value) > _INLINE_BYTES:
                (place,) = struct.unpack_from(layout.offset, block, place)
            struct.pack_into(form, block, place, *moved)
    except (*MALFORMED, TypeError, ZeroDivisionError):  # of another number of numbers, too
        return exif
    return head + bytes(block)


def _remove_entry(block: bytearray, layout: Layout, directory: int, at: int, end: int) -> None:
    """Remove an entry of a directory: those behind it move up, and nothing else moves."""
    length = struct.calcsize(layout.entry)
    rest = end + struct.calcsize(layout.offset)
    block[at:rest] = block[at + length : rest] + bytes(length)
    (number,) = struct.unpack_from(layout.count, block, directory)
    struct.pack_into(layout.count, block, directory, number - 1)


def move_xmp_places(xmp: bytes, move: Move) -> bytes:
    """Move the places that an XMP packet names: regions and the subject."""
    if move.is_none:
        return xmp
    xmp = _move_regions(xmp, move)
    xmp = edit_outermost(xmp, _BOUNDARY, lambda element: _move_boundary(element, move))
    xmp = _RECTANGLE.sub(lambda found: found[1] + _move_rectangle(found[2], move), xmp)
    xmp = edit_outermost(xmp, _SUBJECT, lambda element: _move_subject(element, move))
    return xmp


def _move_regions(xmp: bytes, move: Move) -> bytes:
    """Move the regions of the Metadata Working Group: shares of a size that stands there, too.

    That size tells programs that have written them for the upright picture.
    """
    found = find_outermost(xmp, _DIMENSIONS)
    sides = _read(xmp[found[0].start : found[0].end], b"stDim:", b"wh") if found else None
    if sides and move.is_transposed and _is_wide(*sides) == _is_wide(*move.after) != _is_wide(*move.before):
        move = Move(1, move.after, move.after)

    def move_area(area: bytes) -> bytes:
        middle, size = _read(area, b"stArea:", b"xy"), _read(area, b"stArea:", b"wh")
        if middle:
            area = _write(area, b"stArea:", b"xy", move.point(*middle))
        if size:
            area = _write(area, b"stArea:", b"wh", size[::-1] if move.is_transposed else size)
        return area

    def move_dimensions(text: bytes) -> bytes:
        sides = _read(text, b"stDim:", b"wh")
        return _write(text, b"stDim:", b"wh", tuple(map(round, move.size(*sides)))) if sides else text

    return edit_outermost(edit_outermost(xmp, _AREA, move_area), _DIMENSIONS, move_dimensions)


def _move_boundary(element: bytes, move: Move) -> bytes:
    """Move the boundary of a region of IPTC: a rectangle, a circle or a polygon, in pixels or in shares."""
    unit = _UNIT.search(element)
    numbers = {name: [float(found[2]) for found in _part(name).finditer(element)] for name in _PARTS}
    columns, rows, widths, heights, radii = numbers.values()
    if unit is None or not columns or len(columns) != len(rows):
        return element
    (across, down), after = (move.before, move.after) if unit[2] == b"pixel" else ((1, 1), (1, 1))
    points = [move.point(x / across, y / down) for x, y in zip(columns, rows, strict=True)]
    if len(points) == len(widths) == len(heights) == 1:  # its first corner becomes another one
        corner = move.point((columns[0] + widths[0]) / across, (rows[0] + heights[0]) / down)
        sides = [sorted(side) for side in zip(points[0], corner, strict=True)]
        points = [(sides[0][0], sides[1][0])]
        widths, heights = ([(high - low) * length] for (low, high), length in zip(sides, after, strict=True))
    if unit[2] == b"pixel":
        radii = [math.sqrt(math.prod(move.size(radius, radius))) for radius in radii]
    elif move.is_transposed:  # shares of the width
        radii = [radius * move.before[0] / move.before[1] for radius in radii]
    columns, rows = [x * after[0] for x, _ in points], [y * after[1] for _, y in points]
    for name, moved in zip(_PARTS, (columns, rows, widths, heights, radii), strict=True):
        rest = iter(moved)
        element = _part(name).sub(lambda found, rest=rest: found[1] + b"%.7g" % next(rest), element)
    return element


def _part(name: bytes) -> re.Pattern[bytes]:
    return re.compile(field_of(b"Iptc4xmpExt:" + name))


def _is_wide(width: float, height: float) -> bool:
    return width > height


def _move_rectangle(text: bytes, move: Move) -> bytes:
    """Move a rectangle of Microsoft's: left, top, width and height as shares."""
    x, y, width, height = map(float, text.split(b","))
    corners = (move.point(x, y), move.point(x + width, y + height))
    (left, right), (top, bottom) = (sorted(side) for side in zip(*corners, strict=True))
    return b", ".join(b"%.6g" % number for number in (left, top, right - left, bottom - top))


def _move_subject(element: bytes, move: Move) -> bytes:
    """Move the numbers in a list of XMP that EXIF has, too."""
    numbers = [int(found[2]) for found in _ITEM.finditer(element)]
    if not 2 <= len(numbers) <= 4:
        return element
    moved = iter(move.subject(numbers))
    return _ITEM.sub(lambda found: found[1] + b"%d" % next(moved), element)


def _read(text: bytes, prefix: bytes, names: bytes) -> tuple[float, float] | None:
    """Read two numbers, whose names have a letter each."""
    first, second = (re.search(field_of(prefix + bytes([name])), text) for name in names)
    return (float(first[2]), float(second[2])) if first and second else None


def _write(text: bytes, prefix: bytes, names: bytes, numbers: Sequence[float]) -> bytes:
    """Replace these numbers."""
    for name, number in zip(names, numbers, strict=True):
        written = (f"{number:d}" if isinstance(number, int) else f"{number:.6g}").encode()
        text = re.sub(field_of(prefix + bytes([name])), lambda found, new=written: found[1] + new, text)
    return text
