"""Read the markers of a JPEG file, and repair what would hide damage from libvips.

libjpeg reports only the first fault, even a harmless one. libvips checks for faults before it decodes the
next eight rows, and so misses those in the last ones. So harmless faults are taken out of the data that
libvips reads, and extra rows follow the last ones, decoded only for that check.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mambair_cli.images.photoshop import MARK
from mambair_cli.images.row_reader import NO_END, leave_out
from mambair_cli.images.xmp import VIDEO

START, END = b"\xff\xd8", b"\xff\xd9"
SCAN = 0xDA
_FILL = 0xFF  # may stand before a marker, any number of times

# The last 0xFF of a run, and what follows: a search for whole runs would try each byte of a run anew.
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_MARKER_IN_SCAN = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # restarts are part of a scan
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})  # kinds of markers
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL_FRAMES = (0xC0, 0xC1)  # Huffman-coded and sequential
_PROGRESSIVE_FRAMES = (0xC2, 0xC6, 0xCA, 0xCE)
_WHOLE_SPECTRUM = bytes([0, 63, 0])  # parameters of a scan that is not progressive
_BLOCK = 8  # rows of a block; libvips also decodes so many at a time
_MOST_ROWS = 65500  # limit of libjpeg
_COMMENT, _APP0, _APP13 = 0xFE, 0xE0, 0xED
_JFIF_BYTES = 12  # up to the densities
_VIDEO = re.compile(rb"^.{4}ftyp|MotionPhoto_Data", re.DOTALL)  # appended by phones
_TRAILER_BYTES = 64
_ALL_BITS = 15  # more than a scan ever leaves out
_MOST_SEGMENTS = 2**14  # read at most: a hostile file may hold any number, of two bytes each
_LONGEST_JUNK = 8  # bytes before the start of the image


@dataclass(frozen=True)
class Segment:
    """A marker of a file.

    Attributes:
        kind: Number of the marker.
        start: Offset of the marker.
        at: Offset of its content, which follows its length.
        end: Offset behind its content.
        stray: Number of bytes before it that belong to no segment.
    """

    kind: int
    start: int
    at: int
    end: int
    stray: int = 0


@dataclass(frozen=True)
class MendedJpeg:
    """A JPEG file repaired for libvips.

    Attributes:
        data: Bytes of the file.
        has_end: Whether its end is marked. If not, rows are missing where libvips reports a fault.
        lacks_scans: Whether detail of all rows is missing.
        warnings: Sentences about what was repaired, and about missing scans.
    """

    data: bytes
    has_end: bool
    lacks_scans: bool
    warnings: tuple[str, ...]


def find_start(data: Any) -> int:
    """Return the offset of the image: some programs put a line end or a UTF-8 mark before it."""
    return max(bytes(data[: _LONGEST_JUNK + len(START)]).find(START), 0)


def read_segments(data: Any, start: int = 0) -> Iterator[Segment]:
    """Yield the segments of a file up to its end, or to where it is truncated; data of scans is skipped.

    If there are more than any program writes, only the first are read.

    Args:
        data: Bytes, in memory or of a file.
        start: Offset of the image.
    """
    at, is_scan = start + len(START), False
    for _ in range(_MOST_SEGMENTS):
        found = (_MARKER_IN_SCAN if is_scan else _MARKER).search(data, at)
        if found is None:
            return
        kind, behind = found[1][0], found.end()
        begin = found.start()
        while begin > at and data[begin - 1] == _FILL:
            begin -= 1
        stray = 0 if is_scan else begin - at
        if kind in _WITHOUT_LENGTH:
            yield Segment(kind, begin, behind, behind, stray)
            if kind == END[1]:
                return
            at, is_scan = behind, False
            continue
        at = behind + int.from_bytes(data[behind : behind + 2], "big")
        if not behind + 2 <= at <= len(data):
            return
        yield Segment(kind, begin, behind + 2, at, stray)
        is_scan = kind == SCAN


def mend(data: Any) -> MendedJpeg:
    """Repair the faults of a file that would hide others.

    Args:
        data: Bytes, in memory or of a file.
    """
    start = find_start(data)
    frame, edits, end = _look_through(data, start)
    if frame is not None:
        edits += frame.add_rows()
    warnings = []
    if start:
        warnings.append(f"{_count_bytes(start)} before its start were skipped")
    stray = sum(edit.end - edit.start for edit in edits if not edit.by) - start
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


def find_end(data: Any) -> int:
    """Return the offset of the mark of a file's end; -1 where it is missing.

    Args:
        data: Bytes, in memory or of a file.
    """
    return _look_through(data, find_start(data))[2]


def _look_through(data: Any, start: int) -> "tuple[_Frame | None, list[_Edit], int]":
    """Return the frame header, the repairs up to the last scan, and the offset of the mark of the end.

    The only scan of a file is searched for that mark itself, since damaged data may look like other markers.
    Where there are several, what stands between them may hold the same bytes.
    """
    edits = [_Edit(0, start)]
    frame: _Frame | None = None
    scan_end: int | None = None
    for segment in read_segments(data, start):
        edits.append(_Edit(segment.start - segment.stray, segment.start))
        body = bytes(data[segment.at : segment.end])
        if segment.kind in _FRAMES and frame is None:
            frame = _Frame(segment.kind, segment.at, body)
        elif segment.kind == SCAN and frame is not None:
            edits += frame.take_scan(segment.at, body)
            scan_end = segment.end
            if frame.is_sequential:  # there is only this scan
                break
        elif segment.kind == END[1] and scan_end is not None:
            return frame, edits, segment.end - len(END)
    return frame, edits, -1 if scan_end is None else data.find(END, scan_end)


def read_comments(data: Any) -> list[bytes]:
    """Read the comments before the first scan."""
    comments: list[bytes] = []
    for segment in read_segments(data, find_start(data)):
        if segment.kind == SCAN:
            break
        if segment.kind == _COMMENT:
            comments.append(bytes(data[segment.at : segment.end]))
    return comments


def read_photoshop_blocks(data: Any) -> list[bytes]:
    """Read the blocks of Photoshop before the first scan, without their marks."""
    blocks: list[bytes] = []
    for segment in read_segments(data, find_start(data)):
        if segment.kind == SCAN:
            break
        body = bytes(data[segment.at : segment.end]) if segment.kind == _APP13 else b""
        if body.startswith(MARK):
            blocks.append(body[len(MARK) :])
    return blocks


def read_jfif_density(data: Any) -> tuple[float, float, int] | None:
    """Read how densely a file has pixels across and down, and per what.

    Returns:
        Pixels per unit across and down, and the number of the unit: 0 for none, where only the ratio counts,
        1 for inches, 2 for centimetres. None where the file does not tell it.
    """
    for segment in read_segments(data, find_start(data)):
        if segment.kind == SCAN:
            break
        body = bytes(data[segment.at : segment.end]) if segment.kind == _APP0 else b""
        if body.startswith(b"JFIF\0") and len(body) >= _JFIF_BYTES:
            unit, x, y = struct.unpack_from(">BHH", body, 7)
            return (float(x), float(y), unit) if x and y else None
    return None


@dataclass(frozen=True)
class _Edit:
    """Bytes of a file to replace by others, or by nothing."""

    start: int
    end: int
    by: bytes = b""


class _Frame:
    """The frame header of a file, and which coefficients of the picture the scans have had so far.

    Args:
        kind: Number of its marker.
        at: Offset of its content.
        body: Its content.

    Attributes:
        scans: Number of scans so far.
        is_sequential: Whether the first scan holds the whole picture, from top to bottom.
    """

    def __init__(self, kind: int, at: int, body: bytes) -> None:
        self.scans = 0
        self._kind, self._at = kind, at
        self._height = int.from_bytes(body[1:3], "big")
        fields = [body[6 + 3 * index : 9 + 3 * index] for index in range(body[5] if len(body) > 5 else 0)]
        self._rows = {
            part[0]: part[1] & 15 for part in fields if len(part) == 3
        }  # rows of blocks, by component
        self._bits_left = {component: [_ALL_BITS] * 64 for component in self._rows}
        self.is_sequential = True

    @property
    def is_complete(self) -> bool:
        """Whether the scans had every bit of every coefficient."""
        return not any(any(left) for left in self._bits_left.values())

    def take_scan(self, at: int, body: bytes) -> list[_Edit]:
        """Note what a scan holds, and repair its parameters."""
        self.scans += 1
        count = body[0] if body else 0
        components, limits = body[1 : 1 + 2 * count : 2], body[1 + 2 * count :][:3]
        if len(limits) < 3:
            return []
        self.is_sequential &= self._kind in _SEQUENTIAL_FRAMES and len(components) == len(self._rows)
        first, last, low = limits[0], limits[1], limits[2] & 15
        if self._kind not in _PROGRESSIVE_FRAMES:
            first, last, low = 0, 63, 0
        for component in components:
            if component in self._bits_left and first <= last < 64:
                self._bits_left[component][first : last + 1] = [low] * (last + 1 - first)
        if self._kind in _SEQUENTIAL_FRAMES and limits != _WHOLE_SPECTRUM:  # as some phones write
            place = at + 1 + 2 * count
            return [_Edit(place, place + 3, _WHOLE_SPECTRUM)]
        return []

    def add_rows(self) -> list[_Edit]:
        """Extend the picture by rows that the real ones do not depend on.

        They lie in the last row of blocks that are coded together; if that is one block high, below it.
        """
        if not self.is_sequential or not self._rows or not self._height:
            return []
        together = 1 if len(self._rows) == 1 else max(self._rows.values())
        rows = _BLOCK * max(together, 1)
        height = -(-self._height // rows) * rows + (_BLOCK if together == 1 else 0)
        edits = [_Edit(self._at + 1, self._at + 3, struct.pack(">H", height))] if height <= _MOST_ROWS else []
        if len(self._rows) == 1:  # the sampling of one component has no meaning, but libjpeg uses it
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
