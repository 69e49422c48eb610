"""Look through the markers of a JPEG file, and mend what would hide damage from libvips.

libjpeg tells of the first trouble only, be it harmless. libvips looks for trouble before it decodes eight
more rows, and so sees none in the last ones. Hence harmless trouble is taken out of what libvips reads, and
the last rows are followed by others that are decoded for this reason alone.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mambair_cli.images.row_reader import NO_END, leave_out
from mambair_cli.images.xmp import VIDEO

START, END = b"\xff\xd8", b"\xff\xd9"
SCAN = 0xDA

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_MARKER_IN_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)  # restarts are part of a scan
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PLAIN_FRAMES = (0xC0, 0xC1)  # Huffman-coded and sequential
_PROGRESSIVE_FRAMES = (0xC2, 0xC6, 0xCA, 0xCE)
_WHOLE_SPECTRUM = bytes([0, 63, 0])  # what a scan holds that is not progressive
_BLOCK = 8  # rows of a block, which are also those that libvips decodes at a time
_MOST_ROWS = 65500  # that libjpeg takes
_COMMENT = 0xFE
_VIDEO = re.compile(rb"^.{4}ftyp|MotionPhoto_Data", re.DOTALL)  # that phones append
_TRAILER_BYTES = 64
_ALL_BITS = 15  # more than are ever left out of a scan
_LONGEST_JUNK = 8  # bytes before a file's beginning


@dataclass(frozen=True)
class Segment:
    """A marker of a file.

    Attributes:
        kind: Its number.
        start: Where it stands.
        at: Where what belongs to it begins, behind its length.
        end: Where that ends.
        stray: Bytes before it that belong to nothing.
    """

    kind: int
    start: int
    at: int
    end: int
    stray: int = 0


@dataclass(frozen=True)
class MendedJpeg:
    """A JPEG file as libvips is to read it.

    Attributes:
        data: Of the file.
        has_end: Whether its end is marked. If not, rows are missing where libvips meets trouble.
        lacks_scans: Whether detail of all rows is missing.
        warnings: Sentences about what was mended, and about scans that are missing.
    """

    data: bytes
    has_end: bool
    lacks_scans: bool
    warnings: tuple[str, ...]


def find_start(data: Any) -> int:
    """Tell where a JPEG file begins: some programs put a line's end or a mark of UTF-8 before it."""
    return max(bytes(data[: _LONGEST_JUNK + len(START)]).find(START), 0)


def read_segments(data: Any, start: int = 0) -> Iterator[Segment]:
    """Yield the markers of a file, up to its end or to where it is cut short; what scans hold is skipped.

    Args:
        data: Bytes, or a file that is mapped.
        start: Where it begins.
    """
    at, is_scan = start + len(START), False
    while (found := (_MARKER_IN_SCAN if is_scan else _MARKER).search(data, at)) is not None:
        kind, behind = found[1][0], found.end()
        stray = 0 if is_scan else found.start() - at
        if kind in _ALONE:
            yield Segment(kind, found.start(), behind, behind, stray)
            if kind == END[1]:
                return
            at, is_scan = behind, False
            continue
        at = behind + int.from_bytes(data[behind : behind + 2], "big")
        if not behind + 2 <= at <= len(data):
            return
        yield Segment(kind, found.start(), behind + 2, at, stray)
        is_scan = kind == SCAN


def mend(data: Any) -> MendedJpeg:
    """Look through a file, and mend what would hide other trouble.

    Args:
        data: Bytes, or a file that is mapped.
    """
    start = find_start(data)
    edits = [_Edit(0, start)]
    frame: _Frame | None = None
    end = -1
    for segment in read_segments(data, start):
        edits.append(_Edit(segment.start - segment.stray, segment.start))
        body = bytes(data[segment.at : segment.end])
        if segment.kind in _FRAMES and frame is None:
            frame = _Frame(segment.kind, segment.at, body)
        elif segment.kind == SCAN and frame is not None:
            edits += frame.take_scan(segment.at, body)
            # Looked for as such: what a scan holds may be damaged, and look like other markers.
            end = data.find(END, segment.end) if end < 0 else end
            if frame.is_sequential:  # there is but this scan
                break
    if frame is not None:
        edits += frame.add_rows()
    warnings = []
    if start:
        warnings.append(f"{_count_bytes(start)} before its beginning were skipped")
    stray = sum(edit.end - edit.start for edit in edits[1:] if not edit.by)
    if stray:
        warnings.append(f"{_count_bytes(stray)} between its headers were skipped")
    if end < 0:
        warnings.append(NO_END)
    elif _VIDEO.search(data[end + len(END) : end + _TRAILER_BYTES]):
        warnings.append(leave_out(VIDEO))
    lacks_scans = frame is not None and frame.scans > 0 and not frame.is_complete
    if lacks_scans:
        warnings.append("scans are missing, and with them detail")
    mended = _apply(data[: len(data) if end < 0 else end], edits) + END
    return MendedJpeg(mended, end >= 0, lacks_scans, tuple(warnings))


def read_comments(data: Any) -> list[bytes]:
    """Read the comments before the first scan."""
    comments: list[bytes] = []
    for segment in read_segments(data, find_start(data)):
        if segment.kind == SCAN:
            break
        if segment.kind == _COMMENT:
            comments.append(bytes(data[segment.at : segment.end]))
    return comments


@dataclass(frozen=True)
class _Edit:
    """Bytes of a file that are to be others, or none."""

    start: int
    end: int
    by: bytes = b""


class _Frame:
    """What a file says of its picture, and which coefficients of it came.

    Args:
        kind: Number of its marker.
        at: Where what it says lies.
        body: What it says.

    Attributes:
        scans: How many came.
        is_sequential: Whether the first of them holds all of the picture, from the top to the bottom.
    """

    def __init__(self, kind: int, at: int, body: bytes) -> None:
        self.scans = 0
        self._kind, self._at = kind, at
        self._height = int.from_bytes(body[1:3], "big")
        fields = [body[6 + 3 * index : 9 + 3 * index] for index in range(body[5] if len(body) > 5 else 0)]
        self._rows = {part[0]: part[1] & 15 for part in fields if len(part) == 3}  # of blocks, together
        self._bits_left = {component: [_ALL_BITS] * 64 for component in self._rows}
        self.is_sequential = True

    @property
    def is_complete(self) -> bool:
        """Whether every bit of every coefficient was in some scan."""
        return not any(any(left) for left in self._bits_left.values())

    def take_scan(self, at: int, body: bytes) -> list[_Edit]:
        """Note what a scan holds, and mend what it says of that."""
        self.scans += 1
        count = body[0] if body else 0
        components, limits = body[1 : 1 + 2 * count : 2], body[1 + 2 * count :][:3]
        if len(limits) < 3:
            return []
        self.is_sequential &= self._kind in _PLAIN_FRAMES and len(components) == len(self._rows)
        first, last, low = limits[0], limits[1], limits[2] & 15
        if self._kind not in _PROGRESSIVE_FRAMES:
            first, last, low = 0, 63, 0
        for component in components:
            if component in self._bits_left and first <= last < 64:
                self._bits_left[component][first : last + 1] = [low] * (last + 1 - first)
        if self._kind in _PLAIN_FRAMES and limits != _WHOLE_SPECTRUM:  # as some phones write
            place = at + 1 + 2 * count
            return [_Edit(place, place + 3, _WHOLE_SPECTRUM)]
        return []

    def add_rows(self) -> list[_Edit]:
        """Have the picture end later than it does, by rows of which those that count do not depend.

        They lie in the last row of blocks that are coded together; where that is one of single blocks, below.
        """
        if not self.is_sequential or not self._rows or not self._height:
            return []
        together = 1 if len(self._rows) == 1 else max(self._rows.values())
        rows = _BLOCK * max(together, 1)
        height = -(-self._height // rows) * rows + (_BLOCK if together == 1 else 0)
        edits = [_Edit(self._at + 1, self._at + 3, struct.pack(">H", height))] if height <= _MOST_ROWS else []
        if len(self._rows) == 1:  # its sampling means nothing, but libjpeg would go by it
            edits.append(_Edit(self._at + 7, self._at + 8, b"\x11"))
        return edits


def _apply(data: Any, edits: list[_Edit]) -> bytes:
    pieces, at = [], 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        pieces += [data[at : edit.start], edit.by]
        at = edit.end
    return b"".join([*pieces, data[at:]])


def _count_bytes(count: int) -> str:
    return "1 byte" if count == 1 else f"{count} bytes"
