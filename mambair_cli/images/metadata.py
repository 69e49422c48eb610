"""Read and update EXIF, which is otherwise copied byte for byte, and IPTC.

EXIF is a piece of TIFF: a header and directories of tagged values; the image's directory points to others.
libvips would rewrite it with libexif, move maker notes and invent tags and a resolution, and write none to
TIFF files. So libvips gets no EXIF, and the finished files are patched.
"""

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from mambair_cli.images.photoshop import (
    Resource,
    find_iptc_in,
    find_iptc_records,
    read_resources,
    wrap_iptc,
)
from mambair_cli.images.tiff_directories import (
    BYTE,
    BYTES,
    DESCRIPTION,
    EMPTY_EXIF,
    EXIF,
    GPS,
    LONG,
    LONG8,
    MALFORMED,
    ORIENTATION,
    PHOTOSHOP,
    SHORT,
    TEXT,
    XMP,
    Buffer,
    Directory,
    ExifEntry,
    Layout,
    append_directory,
    read_directory,
    read_header,
    read_number,
    reorder,
    set_entries,
    unpack,
)

_WIDTH, _HEIGHT = 0x0100, 0x0101
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_THUMBNAIL, _THUMBNAIL_BYTES = 0x0201, 0x0202
_PADDING = 4  # bytes behind a thumbnail
_COLOUR_SPACE, _SRGB = 0xA001, 1
_INDEX, _DCF_ADOBE_RGB = 0x0001, b"R03"  # of interoperability
_INTEROPERABILITY = 0xA005  # pointer to a further directory

# Tags in a TIFF file's main directory that describe the picture, not how its samples are stored: names of the
# document and the page, description, make, model, place on the page, number of the page, software, date,
# artist, host, printer, ratings, name of the image, copyright, IPTC, titles and comments of Windows.
DESCRIPTIVE = frozenset(
    {0x010D, 0x010E, 0x010F, 0x0110, 0x011D, 0x011E, 0x011F, 0x0129, 0x0131, 0x0132, 0x013B, 0x013C, 0x0151}
    | {0x4746, 0x4749, 0x800D, 0x8298, 0x83BB}
    | set(range(0x9C9B, 0x9CA0))
)
_PAGE_NUMBER = 0x0129

_IPTC = 0x83BB


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
        updates = [(main, ORIENTATION, SHORT, 1), (main, _WIDTH, LONG, width), (main, _HEIGHT, LONG, height)]
        photo = _read_parts(block, layout, main).get(EXIF, {})
        updates += [(photo, _PIXEL_WIDTH, LONG, width), (photo, _PIXEL_HEIGHT, LONG, height)]
        for directory, tag, kind, value in updates:
            if tag in directory:
                field = struct.pack(layout.order + ("H" if kind == SHORT else "I"), value)
                struct.pack_into(layout.entry, block, directory[tag].at, tag, kind, 1, field)
        struct.pack_into(layout.offset, block, end, 0)
        _read_descriptions(block)  # where directories overlap, a change of one may have broken another
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


def is_marked_adobe_rgb(block: Buffer, first: int | None = None) -> bool:
    """Tell whether EXIF marks the colours of a picture as Adobe RGB, as cameras do that embed no profile.

    Args:
        block: EXIF block, or a TIFF file.
        first: Offset of the directory of the picture; by default it is the first one.

    Source: DCF (CIPA DC-009), option files.
    """
    block = block.removeprefix(b"Exif\0\0") if isinstance(block, bytes) else block
    try:
        layout, at = read_header(block)
        at = at if first is None else first
        for tag in (EXIF, _INTEROPERABILITY):
            directory, _ = read_directory(block, layout, at, wanted={EXIF, _INTEROPERABILITY, _COLOUR_SPACE})
            if _COLOUR_SPACE in directory and read_number(directory[_COLOUR_SPACE], layout) == _SRGB:
                return False
            at = read_number(directory[tag], layout)
        marks, _ = read_directory(block, layout, at, wanted={_INDEX})
        return marks[_INDEX].value.rstrip(b"\0 ") == _DCF_ADOBE_RGB
    except MALFORMED:
        return False


def find_iptc(exif: bytes | None) -> bytes | None:
    """Return the IPTC in an EXIF or TIFF block, wrapped in a Photoshop block as in JPEG files."""
    try:
        layout, first = read_header(exif or b"")
        main, _ = read_directory(exif or b"", layout, first)
        records = main[_IPTC].value
    except MALFORMED:
        return None
    return wrap_iptc(records)


def add_iptc(exif: bytes | None, iptc: bytes) -> bytes | None:
    """Add the IPTC of a JPEG file to an EXIF block, where other formats store it, unless it is there."""
    block = exif or EMPTY_EXIF
    records = find_iptc_in(iptc)
    if records is None:
        return exif
    try:
        layout, first = read_header(block)
        main, _ = read_directory(block, layout, first, wanted={_IPTC})
        if _IPTC in main and main[_IPTC].value == records:
            return exif
        return set_entries(block, {_IPTC: ExifEntry(BYTES, len(records), records)})
    except MALFORMED:
        return exif


def extract_exif(tiff: Buffer, at: int) -> bytes | None:
    """Collect the tags that describe a page of a TIFF file in an EXIF block; None if there are none.

    IPTC that is among Photoshop's resources alone becomes one of them.

    Args:
        tiff: The file.
        at: Offset of the page's directory.
    """
    try:
        layout, main, parts = _read_descriptions(tiff, at)
        records = None if _IPTC in main else find_iptc_records(read_tiff_resources(tiff, at))
        if records:
            main[_IPTC] = ExifEntry(BYTES, len(records), records)
        return _pack(layout, main, parts)
    except MALFORMED:
        return None


def read_tiff_resources(tiff: Buffer, at: int) -> list[Resource]:
    """Read Photoshop's resources of a page of a TIFF file.

    Args:
        tiff: The file.
        at: Offset of the page's directory.
    """
    with suppress(*MALFORMED):
        layout, _ = read_header(tiff)
        main, _ = read_directory(tiff, layout, at, wanted={PHOTOSHOP})
        return read_resources([main[PHOTOSHOP].value])
    return []


def extract_page_notes(tiff: Buffer, at: int, number: int, longest: int) -> tuple[bytes | None, bytes | None]:
    """Collect the tags that describe a page of a TIFF file, but for those in further directories, and XMP.

    The number of the page is among them only if it is not the usual one, which libvips writes.

    Args:
        tiff: The file.
        at: Offset of the page's directory.
        number: Number of the page, from 0.
        longest: Largest size of a value that is read, in bytes.

    Returns:
        An EXIF block and an XMP packet; None for what there is not.
    """
    layout, _ = read_header(tiff)
    main, _ = read_directory(tiff, layout, at, longest, DESCRIPTIVE | {XMP})
    xmp = main.pop(XMP, None)
    if _PAGE_NUMBER in main and main[_PAGE_NUMBER].value[:2] == struct.pack(f"{layout.order}H", number):
        del main[_PAGE_NUMBER]
    return _pack(layout, main, {}), xmp and xmp.value


def find_description(exif: bytes | None) -> bytes:
    """Return the description in an EXIF block, without white space around it; empty where there is none."""
    try:
        _, main, _ = _read_descriptions(exif or b"")
    except MALFORMED:
        return b""
    return main[DESCRIPTION].value.strip(b"\0 \t\r\n") if DESCRIPTION in main else b""


def change_description(exif: bytes, text: bytes | None) -> bytes | None:
    """Replace or remove the description in a block, which then has only tags that describe the picture.

    Args:
        exif: EXIF block from its byte order mark on.
        text: New description; None to remove it.

    Returns:
        The new block; None if nothing is in it.
    """
    layout, main, parts = _read_descriptions(exif)
    main.pop(DESCRIPTION, None)
    if text is not None:
        main[DESCRIPTION] = ExifEntry(TEXT, len(text) + 1, text + b"\0")
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


def add_exif_directories(
    data: Buffer, exif: bytes | None, others: Sequence[tuple[bytes | None, bytes | None]] = ()
) -> tuple[bytes, bytes]:
    """Add the tags of EXIF blocks to the pages of a TIFF file: new directories at its end replace theirs.

    Args:
        data: The file.
        exif: EXIF block of the first page; None for none.
        others: EXIF block and XMP packet of each page after it; None for none.

    Returns:
        The new header, and the bytes to append.
    """
    layout, at = read_header(data)
    pages = []
    for number, (block, xmp) in enumerate([(exif, None), *others]):
        main, end = read_directory(data, layout, at)
        if number:
            main.pop(XMP, None)  # libvips gives all pages that of the first
        if xmp:
            main[XMP] = ExifEntry(BYTE, len(xmp), xmp)
        pages.append(_merge(main, layout, block))
        (at,) = unpack(layout.offset, data, end)
        if not at:
            break
    head, tail = bytearray(data[: layout.first]), bytearray()
    for main, parts in reversed(pages):  # since each tells where the next one lies
        at = _append_directories(tail, layout, main, parts, len(data), at)
    return bytes(head + struct.pack(layout.offset, at)), bytes(tail)


def _merge(main: Directory, layout: Layout, exif: bytes | None) -> tuple[Directory, dict[int, Directory]]:
    """Add the tags of an EXIF block to a page's directory, and return it and those that it points to."""
    if exif is None:
        return main, {}
    source, extra, parts = _read_descriptions(exif)
    extra = reorder(extra, source.order, layout.order)
    merged = extra | main | {tag: entry for tag, entry in extra.items() if tag == _PAGE_NUMBER}
    return merged, {tag: reorder(part, source.order, layout.order) for tag, part in parts.items()}


def _read_descriptions(
    block: Buffer, at: int | None = None
) -> tuple[Layout, Directory, dict[int, Directory]]:
    """Read the descriptive entries of a directory, by default the first, and the directories it points to."""
    layout, first = read_header(block)
    main, _ = read_directory(block, layout, first if at is None else at)
    parts = _read_parts(block, layout, main)
    return layout, {tag: entry for tag, entry in main.items() if tag in DESCRIPTIVE}, parts


def _read_parts(block: Buffer, layout: Layout, main: Directory) -> dict[int, Directory]:
    """Read the directories that ``main`` points to, by the pointer's tag; leave out broken ones."""
    parts = {}
    for tag in (EXIF, GPS):
        with suppress(*MALFORMED):
            parts[tag], _ = read_directory(block, layout, read_number(main[tag], layout))
            parts[tag].pop(_INTEROPERABILITY, None)  # its target is not copied
    return parts


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
        at = append_directory(block, layout, part, start, 0)
        main[tag] = ExifEntry(LONG8 if layout.big else LONG, 1, struct.pack(layout.offset, at))
    return append_directory(block, layout, main, start, following)
