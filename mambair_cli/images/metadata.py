"""Read and update EXIF, which is otherwise copied byte for byte, and IPTC.

EXIF is a piece of TIFF: a header and directories of tagged values; the image's directory points to others.
libvips would rewrite it with libexif, move maker notes and invent tags and a resolution, and write none to
TIFF files. So libvips gets no EXIF, and the finished files are patched.
"""

import struct
from contextlib import suppress
from dataclasses import dataclass, replace
from mmap import mmap

import numpy as np

_ORIENTATION = 0x0112
_DESCRIPTION = 0x010E
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_THUMBNAIL, _THUMBNAIL_BYTES = 0x0201, 0x0202
_PADDING = 4  # bytes behind a thumbnail
_EXIF, _GPS, _INTEROPERABILITY = 0x8769, 0x8825, 0xA005  # pointers to further directories

# Tags in a TIFF file's main directory that describe the picture, not how its samples are stored: description,
# make, model, software, date, artist, host, ratings, copyright, IPTC, titles and comments of Windows.
_DESCRIPTIVE = frozenset(
    {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298, 0x83BB}
    | set(range(0x9C9B, 0x9CA0))
)

_IPTC, _PHOTOSHOP, _IPTC_RESOURCE = 0x83BB, b"Photoshop 3.0\0", 0x0404

_TEXT, _SHORT, _LONG, _BYTES, _LONG8 = 2, 3, 4, 7, 16
# Bytes swapped together and bytes of one value, by type; a rational is two numbers.
_SIZES = {
    **dict.fromkeys((1, 2, 6, 7), (1, 1)),
    **dict.fromkeys((3, 8), (2, 2)),
    **dict.fromkeys((4, 9, 11, 13), (4, 4)),
    **dict.fromkeys((5, 10), (4, 8)),
    **dict.fromkeys((12, 16, 17, 18), (8, 8)),
}
_MOST_ENTRIES = 65535  # TIFF's limit; BigTIFF has none, but needs no more
MALFORMED = (struct.error, ValueError, KeyError, IndexError, OverflowError)


@dataclass(frozen=True)
class ExifEntry:
    """One tag of a directory."""

    kind: int  # TIFF's number of the type
    count: int
    value: bytes  # in the byte order of its block
    at: int = 0  # where the entry lies


Directory = dict[int, ExifEntry]
Buffer = bytes | bytearray | mmap


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


def restate_exif(exif: bytes, width: int, height: int) -> bytes | None:
    """Change a block so that it describes an upright picture of a size; its other bytes stay.

    The orientation becomes 1, and the sizes become the given ones. The thumbnail, which shows the old
    picture, is unlinked, and cut off if it lies at the end.

    Returns:
        The block without the ``Exif`` marker; None if it is corrupt: its unknown orientation might rotate
        the picture a second time.
    """
    block = bytearray(exif.removeprefix(b"Exif\0\0"))
    try:
        layout, first = read_header(block)
        main, end = read_directory(block, layout, first)
        _cut_thumbnail(block, layout, end)
        updates = [(main, _ORIENTATION, _SHORT, 1)]
        photo = _read_parts(block, layout, main).get(_EXIF, {})
        updates += [(photo, _PIXEL_WIDTH, _LONG, width), (photo, _PIXEL_HEIGHT, _LONG, height)]
        for directory, tag, kind, value in updates:
            if tag in directory:
                field = struct.pack(layout.order + ("H" if kind == _SHORT else "I"), value)
                struct.pack_into(layout.entry, block, directory[tag].at, tag, kind, 1, field)
        struct.pack_into(layout.offset, block, end, 0)
    except MALFORMED:
        return None
    return bytes(block)


def _cut_thumbnail(block: bytearray, layout: Layout, end: int) -> None:
    """Cut the thumbnail off a block that ends with it.

    Args:
        block: EXIF block.
        layout: Layout of its numbers.
        end: Where the offset of the thumbnail's directory is stored.
    """
    with suppress(*MALFORMED):
        (at,) = struct.unpack_from(layout.offset, block, end)
        directory, behind = read_directory(block, layout, at)
        start, length = (read_number(directory[tag], layout) for tag in (_THUMBNAIL, _THUMBNAIL_BYTES))
        if behind + 4 <= start < len(block) <= start + length + _PADDING:
            del block[start:]


def find_iptc(exif: bytes | None) -> bytes | None:
    """Return the IPTC in an EXIF or TIFF block, wrapped in a Photoshop block as in JPEG files."""
    try:
        layout, first = read_header(exif or b"")
        main, _ = read_directory(exif or b"", layout, first)
        records = main[_IPTC].value
    except MALFORMED:
        return None
    head = _PHOTOSHOP + b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(records))
    return head + records + bytes(len(records) % 2)


def add_iptc(exif: bytes | None, iptc: bytes) -> bytes | None:
    """Add the IPTC of a JPEG file to an EXIF block, where other formats store it."""
    try:
        records = _unwrap_iptc(iptc)
        block = bytearray(exif or struct.pack(">2sHIHI", b"MM", 42, 8, 0, 0))
        layout, first = read_header(block)
        main, end = read_directory(block, layout, first)
        (following,) = struct.unpack_from(layout.offset, block, end)
    except MALFORMED:
        return exif
    main[_IPTC] = ExifEntry(_BYTES, len(records), records)
    at = _append_directory(block, layout, main, 0, following)
    struct.pack_into(layout.offset, block, layout.first, at)
    return bytes(block)


def _unwrap_iptc(iptc: bytes) -> bytes:
    """Return the IPTC among the resources of a Photoshop block."""
    at = len(_PHOTOSHOP)
    while iptc[at : at + 4] == b"8BIM":
        (kind,) = struct.unpack_from(">H", iptc, at + 4)
        at += 6 + (iptc[at + 6] // 2 + 1) * 2  # past a name, whose length comes first, to an even offset
        (length,) = struct.unpack_from(">I", iptc, at)
        if kind == _IPTC_RESOURCE:
            return iptc[at + 4 : at + 4 + length]
        at += 4 + length + length % 2
    raise ValueError("no IPTC")


def extract_exif(tiff: Buffer) -> bytes | None:
    """Collect the tags that describe a TIFF file's picture in an EXIF block; None if there are none."""
    try:
        return _pack(*_read_descriptions(tiff))
    except MALFORMED:
        return None


def find_description(exif: bytes | None) -> bytes:
    """Return the description in an EXIF block, without white space around it; empty where there is none."""
    try:
        _, main, _ = _read_descriptions(exif or b"")
    except MALFORMED:
        return b""
    return main[_DESCRIPTION].value.strip(b"\0 \t\r\n") if _DESCRIPTION in main else b""


def change_description(exif: bytes, text: bytes | None) -> bytes | None:
    """Replace or remove the description in a block, which then has only tags that describe the picture.

    Args:
        exif: EXIF block from its byte order mark on.
        text: New description; None to remove it.

    Returns:
        The new block; None if nothing is in it.
    """
    layout, main, parts = _read_descriptions(exif)
    main.pop(_DESCRIPTION, None)
    if text is not None:
        main[_DESCRIPTION] = ExifEntry(_TEXT, len(text) + 1, text + b"\0")
    return _pack(layout, main, parts)


def _pack(layout: Layout, main: Directory, parts: dict[int, Directory]) -> bytes | None:
    """Write directories as an EXIF block; None if there are none."""
    if not main and not parts:
        return None
    small = replace(layout, big=False)
    head = struct.pack(f"{layout.order}2sH", b"II" if layout.order == "<" else b"MM", 42)
    block = bytearray()
    first = _append_directories(block, small, main, parts, start=8)
    return head + struct.pack(small.offset, first) + bytes(block)


def add_exif_directories(data: Buffer, exif: bytes) -> tuple[bytes, bytes]:
    """Add the tags of an EXIF block to a TIFF file: new directories at its end replace the first one.

    Returns:
        The new header, and the bytes to append.
    """
    layout, first = read_header(data)
    main, end = read_directory(data, layout, first)
    (following,) = struct.unpack_from(layout.offset, data, end)
    source, extra, parts = _read_descriptions(exif)
    main = _reorder(extra, source.order, layout.order) | main
    parts = {tag: _reorder(part, source.order, layout.order) for tag, part in parts.items()}
    head, tail = bytearray(data[: layout.first]), bytearray()
    head += struct.pack(layout.offset, _append_directories(tail, layout, main, parts, len(data), following))
    return bytes(head), bytes(tail)


def read_header(block: Buffer) -> tuple[Layout, int]:
    """Return a block's layout and the offset of its first directory.

    Raises:
        One of ``MALFORMED``: The block has no header.
    """
    order = {b"II": "<", b"MM": ">"}[bytes(block[:2])]
    layout = Layout(order, struct.unpack_from(f"{order}H", block, 2)[0] == 43)
    return layout, struct.unpack_from(layout.offset, block, layout.first)[0]


def read_directory(
    block: Buffer, layout: Layout, at: int, longest: int | None = None
) -> tuple[Directory, int]:
    """Read the directory at an offset, without entries that make no sense.

    Args:
        block: Bytes with the directory.
        layout: Layout of their numbers.
        at: Offset of the directory.
        longest: Largest size of a value that is read, in bytes; None for all.

    Returns:
        The entries, and the place of the next directory's offset.

    Raises:
        One of ``MALFORMED``: There is no directory.
    """
    (number,) = struct.unpack_from(layout.count, block, at)
    if number > _MOST_ENTRIES:
        raise ValueError(f"{number} entries in a directory")
    length = struct.calcsize(layout.entry)
    start = at + struct.calcsize(layout.count)
    end = start + number * length
    entries: Directory = {}
    room = len(block)  # values do not overlap: those of a hostile file must not sum up to terabytes
    for at in range(start, end, length):
        tag, kind, count, field = struct.unpack_from(layout.entry, block, at)
        size = count * _SIZES.get(kind, (0, 0))[1]
        if size > len(field):
            (value_at,) = struct.unpack_from(layout.offset, field)
        else:
            value_at = at + length - struct.calcsize(layout.offset)
        if 0 < size <= min(room, len(block) - value_at, room if longest is None else longest):
            room -= size
            entries[tag] = ExifEntry(kind, count, bytes(block[value_at : value_at + size]), at)
    return entries, end


def read_number(entry: ExifEntry, layout: Layout) -> int:
    """Return the value of an entry that holds one integer."""
    return struct.unpack(layout.order + {2: "H", 4: "I", 8: "Q"}[len(entry.value)], entry.value)[0]


def _read_descriptions(block: Buffer) -> tuple[Layout, Directory, dict[int, Directory]]:
    """Read the descriptive entries of the first directory, and the directories that it points to."""
    layout, first = read_header(block)
    main, _ = read_directory(block, layout, first)
    parts = _read_parts(block, layout, main)
    return layout, {tag: entry for tag, entry in main.items() if tag in _DESCRIPTIVE}, parts


def _read_parts(block: Buffer, layout: Layout, main: Directory) -> dict[int, Directory]:
    """Read the directories that ``main`` points to, by the pointer's tag; leave out broken ones."""
    parts = {}
    for tag in (_EXIF, _GPS):
        with suppress(*MALFORMED):
            parts[tag], _ = read_directory(block, layout, read_number(main[tag], layout))
            parts[tag].pop(_INTEROPERABILITY, None)  # its target is not copied
    return parts


def _reorder(directory: Directory, source: str, target: str) -> Directory:
    """Convert values from one byte order to another."""
    if source == target:
        return directory
    reordered = {}
    for tag, entry in directory.items():
        unit, _ = _SIZES[entry.kind]
        value = np.frombuffer(entry.value, f"u{unit}").byteswap().tobytes()
        reordered[tag] = replace(entry, value=value)
    return reordered


def _append_directories(
    block: bytearray,
    layout: Layout,
    main: Directory,
    parts: dict[int, Directory],
    start: int = 0,
    following: int = 0,
) -> int:
    """Append a file's first directory, and the directories that it points to.

    Args:
        block: Bytes to append to.
        layout: Layout of its numbers.
        main: The first directory.
        parts: Other directories, by the tag of the pointer to each.
        start: Offset of the block in its file.
        following: Offset of the file's next directory; 0 for none.

    Returns:
        Offset of the first directory.
    """
    main = dict(main)
    for tag, part in parts.items():
        at = _append_directory(block, layout, part, start, 0)
        main[tag] = ExifEntry(_LONG8 if layout.big else _LONG, 1, struct.pack(layout.offset, at))
    return _append_directory(block, layout, main, start, following)


def _append_directory(
    block: bytearray, layout: Layout, directory: Directory, start: int, following: int
) -> int:
    """Append one directory and the values too long for its entries, and return its offset."""
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
