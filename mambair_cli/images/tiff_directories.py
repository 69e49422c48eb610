"""The directories of TIFF files and of EXIF blocks: tagged values, in either byte order."""

import struct
from collections.abc import Container
from dataclasses import dataclass, replace
from mmap import mmap
from typing import Any

import numpy as np

from mambair_cli.images.file_bytes import FileBytes

# Tags that several modules read, and the pointers of a directory to others.
DESCRIPTION, ORIENTATION, XMP = 0x010E, 0x0112, 0x02BC
EXIF, GPS = 0x8769, 0x8825
PHOTOSHOP = 0x8649  # its resources
BYTE, TEXT, SHORT, LONG, BYTES, LONG8 = 1, 2, 3, 4, 7, 16  # TIFF's numbers of types
# Bytes swapped together and bytes of one value, by type; a rational is two numbers.
_SIZES = {
    **dict.fromkeys((1, 2, 6, 7), (1, 1)),
    **dict.fromkeys((3, 8), (2, 2)),
    **dict.fromkeys((4, 9, 11, 13), (4, 4)),
    **dict.fromkeys((5, 10), (4, 8)),
    **dict.fromkeys((12, 16, 17, 18), (8, 8)),
}
_MOST_ENTRIES = 4096  # in a directory, as in libtiff
_ENTRY_BYTES = 12  # of BigTIFF more
_MOST_ENTRIES_IN_ALL = 2**21
_MOST_OVERLAP = 4  # times that a byte may be part of a directory or a value: some programs share values
EMPTY_EXIF = struct.pack(">2sHIHI", b"MM", 42, 8, 0, 0)  # a block without tags
MALFORMED = (struct.error, ValueError, KeyError, IndexError, OverflowError)


@dataclass(frozen=True)
class ExifEntry:
    """One tag of a directory."""

    kind: int  # TIFF's number of the type
    count: int
    value: bytes  # in the byte order of its block
    at: int = 0  # where the entry lies


Directory = dict[int, ExifEntry]
Buffer = bytes | bytearray | mmap | FileBytes


@dataclass(frozen=True)
class Layout:
    """How a block stores its numbers."""

    order: str  # struct's < or >
    big: bool  # BigTIFF: counts and offsets of 8 bytes

    @property
    def offset(self) -> str:
        """Format of an offset, for struct."""
        return self.order + ("Q" if self.big else "I")

    @property
    def count(self) -> str:
        """Format of the number of entries in a directory."""
        return self.order + ("Q" if self.big else "H")

    @property
    def entry(self) -> str:
        """Format of an entry: tag, type, count, and the value or its offset."""
        return self.order + ("HHQ8s" if self.big else "HHI4s")

    @property
    def first(self) -> int:
        """Place in the header of the first directory's offset."""
        return 8 if self.big else 4


class DirectoryRoom:
    """How many directories of a file may be read: those of a hostile one overlap, and would take for ever.

    Args:
        data: The file.
    """

    def __init__(self, data: Buffer) -> None:
        self._entries = _MOST_ENTRIES_IN_ALL
        self._bytes = _MOST_OVERLAP * len(data)

    @property
    def is_left(self) -> bool:
        """Whether another one may be read."""
        return self._entries > 0 and self._bytes > 0

    def take(self, length: int = 0, directory: Directory | None = None) -> None:
        """Count a directory; without arguments one that may turn out to be none.

        Args:
            length: Its length, in bytes.
            directory: Its entries that make sense.
        """
        self._entries -= 1 + length // _ENTRY_BYTES
        self._bytes -= length + sum(len(entry.value) for entry in (directory or {}).values())


def unpack(form: str, block: Buffer, at: int) -> tuple[Any, ...]:
    """Return the numbers at an offset, as struct does.

    Raises:
        struct.error: They lie behind the end.
    """
    return struct.unpack(form, block[at : at + struct.calcsize(form)])


def read_header(block: Buffer) -> tuple[Layout, int]:
    """Return a block's layout and the offset of its first directory.

    Raises:
        One of ``MALFORMED``: The block has no header.
    """
    order = {b"II": "<", b"MM": ">"}[bytes(block[:2])]
    layout = Layout(order, unpack(f"{order}H", block, 2)[0] == 43)
    return layout, unpack(layout.offset, block, layout.first)[0]


def read_directory(
    block: Buffer,
    layout: Layout,
    at: int,
    longest: int | None = None,
    wanted: Container[int] | None = None,
) -> tuple[Directory, int]:
    """Read the directory at an offset, without entries that make no sense.

    The first entry of a repeated tag counts, as in libtiff.

    Args:
        block: Bytes with the directory.
        layout: Layout of their numbers.
        at: Offset of the directory.
        longest: Largest size of a value that is read, in bytes; None for all.
        wanted: Tags that are read; None for all.

    Returns:
        The entries, and the place of the next directory's offset.

    Raises:
        One of ``MALFORMED``: There is no directory.
    """
    spans, end = _find_values(block, layout, at)
    entries: Directory = {}
    room = len(block)  # values do not overlap: those of a hostile file must not sum up to terabytes
    for at, (tag, kind, count, value_at, size) in spans:
        if tag in entries or (wanted is not None and tag not in wanted):
            continue
        if 0 < size <= min(room, len(block) - value_at, room if longest is None else longest):
            room -= size
            entries[tag] = ExifEntry(kind, count, bytes(block[value_at : value_at + size]), at)
    return entries, end


def find_places(
    block: Buffer, layout: Layout, at: int
) -> tuple[dict[int, tuple[int, int]], list[tuple[int, int, int]]]:
    """Find where the values of a directory lie, however long they are.

    Args:
        block: Bytes with the directory.
        layout: Layout of their numbers.
        at: Offset of the directory.

    Returns:
        Offset and size in bytes of each value, by tag; and tag, offset and size of each whose tag came
        before.

    Raises:
        One of ``MALFORMED``: There is no directory.
    """
    spans, _ = _find_values(block, layout, at)
    places: dict[int, tuple[int, int]] = {}
    repeated = []
    for _, (tag, _, _, start, size) in spans:
        if 0 < size <= len(block) - start:
            if tag in places:
                repeated.append((tag, start, size))
            else:
                places[tag] = start, size
    return places, repeated


def _find_values(
    block: Buffer, layout: Layout, at: int
) -> tuple[list[tuple[int, tuple[int, int, int, int, int]]], int]:
    """Return a directory's entries, and the place of the next directory's offset.

    An entry is its offset, and its tag, type, count, and the offset and size of its value, which may lie
    outside the block; the size of an unknown type is 0.
    """
    (number,) = unpack(layout.count, block, at)
    if number > _MOST_ENTRIES:
        raise ValueError(f"{number} entries in a directory")
    length = struct.calcsize(layout.entry)
    start = at + struct.calcsize(layout.count)
    end = start + number * length
    spans, table = [], block[start:end]
    for at in range(start, end, length):
        tag, kind, count, field = struct.unpack_from(layout.entry, table, at - start)
        size = count * _SIZES.get(kind, (0, 0))[1]
        if size > len(field):
            (value_at,) = struct.unpack_from(layout.offset, field)
        else:
            value_at = at + length - struct.calcsize(layout.offset)
        spans.append((at, (tag, kind, count, value_at, size)))
    return spans, end


def read_number(entry: ExifEntry, layout: Layout) -> int:
    """Return the value of an entry that holds one integer."""
    return struct.unpack(layout.order + {2: "H", 4: "I", 8: "Q"}[len(entry.value)], entry.value)[0]


def reorder(directory: Directory, source: str, target: str) -> Directory:
    """Convert values from one byte order to another."""
    if source == target:
        return directory
    reordered = {}
    for tag, entry in directory.items():
        unit, _ = _SIZES[entry.kind]
        value = np.frombuffer(entry.value, f"u{unit}").byteswap().tobytes()
        reordered[tag] = replace(entry, value=value)
    return reordered


def append_directory(
    block: bytearray, layout: Layout, directory: Directory, start: int, following: int
) -> int:
    """Append one directory and the values too long for its entries, and return its offset.

    Args:
        block: Bytes to append to.
        layout: Layout of its numbers.
        directory: The directory.
        start: Offset of the block in its file.
        following: Offset of the file's next directory; 0 for none.
    """
    block.extend(bytes((start + len(block)) % 2))  # directories and values lie at even offsets
    at = start + len(block)
    offset_bytes = struct.calcsize(layout.offset)
    head = struct.pack(layout.count, len(directory))
    values_start = at + len(head) + len(directory) * struct.calcsize(layout.entry) + offset_bytes
    values = bytearray()
    for tag in sorted(directory):
        entry = directory[tag]
        field = entry.value
        if len(field) > offset_bytes:
            field = struct.pack(layout.offset, values_start + len(values))
            values += entry.value + bytes(len(entry.value) % 2)
        head += struct.pack(layout.entry, tag, entry.kind, entry.count, field)
    block.extend(head + struct.pack(layout.offset, following) + values)
    return at


def set_entries(block: bytes | bytearray, entries: Directory) -> bytes:
    """Return an EXIF block with entries set in its first directory; see :func:`append_directory`.

    The directory is written anew at the end and points to the values that it had. All other bytes stay, since
    maker notes rely on their places.

    Args:
        block: EXIF block.
        entries: The entries to set, with values in the block's byte order.

    Raises:
        One of ``MALFORMED``: The block has no directory.
    """
    layout, first = read_header(block)
    main, end = read_directory(block, layout, first)
    (following,) = unpack(layout.offset, block, end)
    length = struct.calcsize(layout.offset)
    kept = {}
    for tag, entry in main.items():
        at = entry.at + struct.calcsize(layout.entry) - length
        kept[tag] = replace(entry, value=bytes(block[at : at + length]))  # the value, or where it lies
    changed = bytearray(block)
    at = append_directory(changed, layout, kept | entries, 0, following)
    struct.pack_into(layout.offset, changed, layout.first, at)
    return bytes(changed)
