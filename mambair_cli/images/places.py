"""Places in a picture that its metadata name, such as faces: moved as its pixels are."""

import math
import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from mambair_cli.images.metadata import restate_exif
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
from mambair_cli.images.xml_tags import edit_outermost, find_outermost
from mambair_cli.images.xmp import drop_lost_parts, restate_xmp

_SUBJECTS = frozenset({0x9214, 0xA214})  # area and location, in pixels
_LARGEST = 65535  # number in EXIF that tells a place
_INLINE_BYTES = 4

# Those in XMP; limits keep hostile packets from taking hours, and numbers finite.
_NUMBER = rb"[-+]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][-+]?\d{1,2})?(?![\w.])"
_AREA, _DIMENSIONS = (b"mwg-rs:Area",), (b"mwg-rs:AppliedToDimensions",)
_SUBJECT = (b"exif:SubjectArea", b"exif:SubjectLocation")
_RECTANGLE = re.compile(
    rb"(MPReg:Rectangle(?:\s*=\s*[\"']|\s*>\s*))(%b(?:\s*,\s*%b){3})" % (_NUMBER, _NUMBER)
)
_ITEM = re.compile(rb"(<rdf:li\s*>\s*)(\d{1,10})(?=\s*<)")
_PANORAMA = (  # sizes and offsets across, and down
    rb"GPano:(?:FullPanoWidth|CroppedAreaImageWidth|CroppedAreaLeft)Pixels|"
    rb"GPano:LargestValidInteriorRect(?:Left|Width)",
    rb"GPano:(?:FullPanoHeight|CroppedAreaImageHeight|CroppedAreaTop)Pixels|"
    rb"GPano:LargestValidInteriorRect(?:Top|Height)",
)


class Move(NamedTuple):
    """What became of the pixels of a picture.

    Attributes:
        orientation: EXIF's orientation of the picture before, by which it was turned upright: 1 to 8.
        before: Width and height before, of the rows as they were stored.
        after: Width and height after.
    """

    orientation: int
    before: tuple[int, int]
    after: tuple[int, int]

    @property
    def is_none(self) -> bool:
        """Whether everything is where it was."""
        return self.orientation == 1 and self.before == self.after

    @property
    def is_transposed(self) -> bool:
        """Whether width and height have changed places."""
        return self.orientation >= 5

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Move a point, whose coordinates are shares of width and height."""
        if self.is_transposed:
            x, y = y, x
        if self.orientation in (2, 3, 6, 7):
            x = 1 - x
        if self.orientation in (3, 4, 7, 8):
            y = 1 - y
        return x, y

    def size(self, width: float, height: float) -> tuple[float, float]:
        """Return what a width and a height in pixels become."""
        across, down = (height, width) if self.is_transposed else (width, height)
        old_across, old_down = self.before[::-1] if self.is_transposed else self.before
        return across * self.after[0] / old_across, down * self.after[1] / old_down

    def subject(self, numbers: Sequence[int]) -> list[int]:
        """Move EXIF's place of a subject: its middle, and its diameter or width and height, in pixels."""
        x, y, *size = numbers
        across, down = self.point(x / self.before[0], y / self.before[1])
        middle = across * self.after[0], down * self.after[1]
        if len(size) == 1:
            size = [math.sqrt(math.prod(self.size(size[0], size[0])))]
        elif size:
            size = self.size(*size)
        return [max(0, round(number)) for number in (*middle, *size)]


def to_upright(size: tuple[int, int], orientation: int) -> Move:
    """Return the move of a picture that was turned upright; its size is that after it."""
    width, height = size
    return Move(orientation, (height, width) if orientation >= 5 else size, size)


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


def restate_upright_exif(exif: bytes | None, move: Move, warnings: list[str]) -> bytes | None:
    """Change EXIF so that it describes a picture that was turned upright.

    Args:
        exif: EXIF block; None for none.
        move: What became of the pixels.
        warnings: Sentences about the file, to which one is added where the block cannot be read.
    """
    restated = restate_exif(move_exif_places(exif, move), *move.after) if exif else None
    if exif and restated is None:
        warnings.append("its EXIF cannot be read and is left out")
    return restated


def restate_upright_xmp(xmp: bytes | None, move: Move, warnings: list[str]) -> bytes | None:
    """Change XMP so that it describes a single picture that was turned upright; see the same for EXIF."""
    if not xmp:
        return None
    restated, lost = drop_lost_parts(restate_xmp(move_xmp_places(xmp, move), *move.after))
    warnings += [leave_out(part) for part in lost]
    return restated


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
    """Move the places that an XMP packet names: regions, the subject, and the part of a panorama."""
    if move.is_none:
        return xmp
    xmp = _move_regions(xmp, move)
    xmp = _RECTANGLE.sub(lambda found: found[1] + _move_rectangle(found[2], move), xmp)
    xmp = edit_outermost(xmp, _SUBJECT, lambda element: _move_subject(element, move))
    if move.orientation == 1:
        for names, old, new in zip(_PANORAMA, move.before, move.after, strict=True):
            pattern = rb"((?:%b)(?:\s*=\s*[\"']|\s*>\s*))(%b)" % (names, _NUMBER)
            xmp = re.sub(
                pattern, lambda found, f=new / old: found[1] + b"%d" % round(float(found[2]) * f), xmp
            )
    return xmp


def _move_regions(xmp: bytes, move: Move) -> bytes:
    """Move the regions of the Metadata Working Group: shares of a size that is told, too.

    That size tells programs that have written them for the upright picture.
    """
    told = find_outermost(xmp, _DIMENSIONS)
    sides = _read(xmp[told[0].start : told[0].end], b"stDim:", b"wh") if told else None
    if sides and move.is_transposed and _is_wide(*sides) == _is_wide(*move.after) != _is_wide(*move.before):
        move = Move(1, move.after, move.after)

    def move_area(area: bytes) -> bytes:
        middle, size = _read(area, b"stArea:", b"xy"), _read(area, b"stArea:", b"wh")
        if middle:
            area = _write(area, b"stArea:", b"xy", move.point(*middle))
        if size:
            area = _write(area, b"stArea:", b"wh", size[::-1] if move.is_transposed else size)
        return area

    def move_dimensions(told: bytes) -> bytes:
        sides = _read(told, b"stDim:", b"wh")
        return _write(told, b"stDim:", b"wh", tuple(map(round, move.size(*sides)))) if sides else told

    return edit_outermost(edit_outermost(xmp, _AREA, move_area), _DIMENSIONS, move_dimensions)


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


def _field(name: bytes) -> bytes:
    """Return a pattern for a number that is an attribute or an element."""
    return rb"(%b(?:\s*=\s*[\"']|\s*>\s*))(%b)" % (name, _NUMBER)


def _read(text: bytes, prefix: bytes, names: bytes) -> tuple[float, float] | None:
    """Read two numbers, whose names have a letter each."""
    first, second = (re.search(_field(prefix + bytes([name])), text) for name in names)
    return (float(first[2]), float(second[2])) if first and second else None


def _write(text: bytes, prefix: bytes, names: bytes, numbers: Sequence[float]) -> bytes:
    """Replace these numbers."""
    for name, number in zip(names, numbers, strict=True):
        written = (f"{number:d}" if isinstance(number, int) else f"{number:.6g}").encode()
        text = re.sub(_field(prefix + bytes([name])), lambda found, new=written: found[1] + new, text)
    return text
