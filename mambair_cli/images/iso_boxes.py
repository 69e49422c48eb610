"""Read the boxes of AVIF and HEIC files (ISO base media file format), and find colours and extras in them."""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

_MOST_BOXES = 65536  # read at most: a hostile file may hold any number
_VISUAL_ENTRY_BYTES = 78  # before the boxes of a track's description
_TRACK_PATH = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_EXTRAS = {b"gainmap": "gain map", b"auxid:2": "depth map", b"auxiliary:depth": "depth map"}
_MALFORMED = (struct.error, IndexError, KeyError)


class Box(NamedTuple):
    """A box: its kind, and where its content begins and ends."""

    kind: bytes
    start: int
    end: int


def read_boxes(data: Any, start: int, end: int) -> Iterator[Box]:
    """Yield boxes in a row; a box that exceeds its bounds ends them.

    Args:
        data: Bytes, in memory or of a file.
        start: Offset of the first box.
        end: Offset behind the last one.

    Source: ISO/IEC 14496-12, 4.2.
    """
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        length, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if length == 1 and start + 16 <= end:
            (length,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        elif length == 0:
            length = end - start
        if length < head or start + length > end:
            return
        yield Box(kind, start + head, start + length)
        start += length


def find_box(data: Any, path: tuple[bytes, ...], start: int, end: int) -> Box | None:
    """Find the first box at a path of kinds, each inside the one before; None if there is none."""
    for box in read_boxes(data, start, end):
        if box.kind == path[0]:
            inner = box.start + (4 if box.kind == b"meta" else 0)  # a version and flags
            found = box if len(path) == 1 else find_box(data, path[1:], inner, box.end)
            if found is not None:
                return found
    return None


def read_colour_numbers(data: Any) -> tuple[int, int] | None:
    """Return H.273's numbers for the primaries and the curve of a file's main image, if it has them.

    Args:
        data: Bytes of an AVIF or HEIC file.

    Source: ISO/IEC 23008-12, 6.5.5 and 9.3; ISO/IEC 14496-12, 12.1.5.
    """
    try:
        colours = [*_colours_of_item(data), *_colours_of_track(data)]
    except _MALFORMED:
        return None
    return next(iter(colours), None)


def find_extras(data: Any) -> list[str]:
    """Name what an AVIF or HEIC file holds except its image and a result would lose.

    Source: ISO/IEC 23008-12, 6.5.8; ISO/IEC 21496-1; for the video, Google's Motion Photo format 1.0.
    """
    extras: dict[str, None] = {}
    try:
        properties = find_box(data, (b"meta", b"iprp", b"ipco"), 0, len(data))
        for box in read_boxes(data, properties.start, properties.end) if properties else ():
            if box.kind == b"auxC":
                kind = bytes(data[box.start + 4 : box.end]).lower()
                extras.update({what: None for mark, what in _EXTRAS.items() if mark in kind})
        kinds = [box.kind for box in read_boxes(data, 0, len(data))]
        if b"mpvd" in kinds or kinds.count(b"ftyp") > 1:  # its own box, or another file behind this one
            extras["video"] = None
    except _MALFORMED:
        pass
    return list(extras)


def _colours_of_item(data: Any) -> Iterator[tuple[int, int]]:
    """Yield the colour numbers of the main image, or of the images that it is assembled from."""
    item = _main_item(data)
    if item is None:
        return
    places = [find_box(data, (b"meta", b"iprp", kind), 0, len(data)) for kind in (b"ipco", b"ipma")]
    if places[0] is None or places[1] is None:
        return
    properties = list(read_boxes(data, places[0].start, places[0].end))
    associated = _read_associations(data, places[1])
    for number in dict.fromkeys((item, *_parts_of(data, item))):  # a hostile file may name one many times
        for index in associated.get(number, ()):
            if 0 < index <= len(properties):
                yield from _numbers_of(data, properties[index - 1])


def _colours_of_track(data: Any) -> Iterator[tuple[int, int]]:
    """Yield the colour numbers of an image sequence."""
    description = find_box(data, _TRACK_PATH, 0, len(data))
    if description is not None:
        for entry in read_boxes(data, description.start + 8, description.end):
            for box in read_boxes(data, entry.start + _VISUAL_ENTRY_BYTES, entry.end):
                yield from _numbers_of(data, box)


def find_in_track(data: Any, kind: bytes) -> Box | None:
    """Find a box in the description of a file's image sequence; None if there is none."""
    try:
        description = find_box(data, _TRACK_PATH, 0, len(data))
        for entry in read_boxes(data, description.start + 8, description.end) if description else ():
            for box in read_boxes(data, entry.start + _VISUAL_ENTRY_BYTES, entry.end):
                if box.kind == kind:
                    return box
    except _MALFORMED:
        pass
    return None


def _numbers_of(data: Any, box: Box) -> Iterator[tuple[int, int]]:
    if box.kind == b"colr" and data[box.start : box.start + 4] == b"nclx":
        yield struct.unpack_from(">HH", data, box.start + 4)


def _main_item(data: Any) -> int | None:
    box = find_box(data, (b"meta", b"pitm"), 0, len(data))
    if box is None:
        return None
    return struct.unpack_from(">I" if data[box.start] else ">H", data, box.start + 4)[0]


def _read_associations(data: Any, box: Box) -> dict[int, list[int]]:
    """Read the properties of each item, as indices into the list of all properties."""
    version, flags = data[box.start], int.from_bytes(data[box.start + 1 : box.start + 4], "big")
    (count,) = struct.unpack_from(">I", data, box.start + 4)
    at, associated = box.start + 8, {}
    for _ in range(min(count, _MOST_BOXES)):
        item, number = struct.unpack_from(">IB" if version else ">HB", data, at)
        at += 5 if version else 3
        wide = flags & 1
        indices = struct.unpack_from(f">{number}{'H' if wide else 'B'}", data, at)
        at += number * (2 if wide else 1)
        associated[item] = [index & (0x7FFF if wide else 0x7F) for index in indices]
    return associated


def _parts_of(data: Any, item: int) -> tuple[int, ...]:
    """Return the items that an item is assembled from."""
    box = find_box(data, (b"meta", b"iref"), 0, len(data))
    if box is None:
        return ()
    sort = "I" if data[box.start] else "H"
    for reference in read_boxes(data, box.start + 4, box.end):
        source, count = struct.unpack_from(f">{sort}H", data, reference.start)
        if reference.kind == b"dimg" and source == item:
            return struct.unpack_from(f">{count}{sort}", data, reference.start + struct.calcsize(f">{sort}H"))
    return ()
