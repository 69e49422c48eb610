"""Read the pages of TIFF files: which of them are pictures, and what their samples mean."""

import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from mambair_cli.images.tiff_directories import (
    BYTE,
    LONG,
    LONG8,
    MALFORMED,
    ORIENTATION,
    SHORT,
    Buffer,
    Directory,
    DirectoryRoom,
    ExifEntry,
    Layout,
    find_places,
    read_directory,
    read_header,
    unpack,
)

RESOLUTIONS, RESOLUTION_UNIT = (0x011A, 0x011B), 0x0128
RATIONAL = 5  # TIFF's number of the type
_SUBFILE, _OLD_SUBFILE = 0x00FE, 0x00FF
_WIDTH, _HEIGHT = 0x0100, 0x0101
BITS, _COMPRESSION, PHOTOMETRIC, _SAMPLES, _PLANES = 0x0102, 0x0103, 0x0106, 0x0115, 0x011C
PROFILE = 0x8773
_SUB_DIRECTORIES, EXTRA_SAMPLES, SAMPLE_FORMAT, _DNG_VERSION = 0x014A, 0x0152, 0x0153, 0xC612
_REDUCED, _MASK = 1, 4  # bits of a subfile's type
_OLD_REDUCED = 2
INK_SET, SEPARATED, CMYK = 0x014C, 5, 1
_INCH = 2
_UNSIGNED, FLOAT = 1, 3
_DIRECTORY, _DIRECTORY8 = 13, 18  # types of offsets of directories
_UNDEVELOPED = (32803, 34892)  # photometric interpretations of cameras' samples: CFA, linear raw

_LONGEST_VALUE = 4096  # bytes; longer values, such as offsets of strips, are not read

# Tags that change what the samples mean, and that libvips passes over: range of inks, indices in place of
# colours, range of colours, slices of a volume in a page and in a tile.
DOT_RANGE, INDEXED, BLACK_WHITE, DEPTH, TILE_DEPTH = 336, 346, 532, 32997, 32998
PLANES_OF_STACK = 33629  # of MetaMorph: has a value for each plane
_MEANINGS = (BITS, SAMPLE_FORMAT, DOT_RANGE, INDEXED, BLACK_WHITE, DEPTH, TILE_DEPTH)
_STRIP_HEIGHT, _TILE = 278, (322, 323)


@dataclass(frozen=True)
class Page:
    """A directory of the file's chain.

    Attributes:
        is_reduced: Whether it is a smaller copy of another page, such as a thumbnail.
        is_mask: Whether it is the transparency mask of another page.
        extra: Kinds of the samples after the colours, as TIFF numbers them; None where the file has no list.
        compression: TIFF's number of the compression.
        photometric: TIFF's number for the meaning of the samples.
        bits: Bits per sample.
        sample_format: TIFF's number of the type: unsigned, signed, floating or complex.
        samples_per_pixel: Number of samples of a pixel.
        ink_set: 1 for CMYK, where samples are inks.
        orientation: 1 to 8, as EXIF numbers them.
        resolution: Pixels per unit across and down, as stored, and TIFF's number of the unit: 1 for none, 2
            for inches, 3 for centimetres. None where the file has no resolution.
        profile: Offset and size of its colour profile; None where it has none.
        at: Offset of the directory.
        tags: Its tags.
        width: Width in pixels, as stored.
        height: Height in pixels, as stored.
        planes: 2 where each sample of the pixels has a plane of its own, else 1.
        tile: Width and height of its tiles; None where it is stored in strips.
        strip_height: Rows of a strip.
        meanings: Values of the tags that change what the samples mean, where it has such tags.
        repeated: Tag and value, up to some length, of each entry whose tag came before.
        inner: Pages in its SubIFDs, at any depth.
        lost: Number of SubIFDs that cannot be read.
    """

    is_reduced: bool
    is_mask: bool
    extra: tuple[int, ...] | None
    compression: int
    photometric: int
    bits: int
    sample_format: int
    samples_per_pixel: int
    ink_set: int
    orientation: int = 1
    resolution: tuple[float, float, int] | None = None
    profile: tuple[int, int] | None = None
    at: int = 0
    tags: frozenset[int] = frozenset()
    width: int = 0
    height: int = 0
    planes: int = 1
    tile: tuple[int, int] | None = None
    strip_height: int = 0
    meanings: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    repeated: tuple[tuple[int, bytes], ...] = ()
    inner: tuple["Page", ...] = ()
    lost: int = 0

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture of its own."""
        return not (self.is_reduced or self.is_mask)

    @property
    def area(self) -> int:
        """Number of its pixels."""
        return self.width * self.height

    @property
    def is_float(self) -> bool:
        """Whether its samples are floats."""
        return self.sample_format == FLOAT

    @property
    def is_float64(self) -> bool:
        """Whether its samples are 64-bit floats, which libvips does not read."""
        return self.bits == 64 and self.is_float


@dataclass(frozen=True)
class ChosenPages:
    """The pages of a file that are pictures of their own.

    Attributes:
        numbers: Numbers of these pages, from 0.
        remarks: Sentences about the others, which are left out.
    """

    numbers: tuple[int, ...]
    remarks: tuple[str, ...]


def choose_pages(pages: Sequence[Page]) -> ChosenPages:
    """Choose the pages that are pictures, or all if there are only smaller copies and masks."""
    numbers = tuple(number for number, page in enumerate(pages) if page.is_picture)
    numbers = numbers or tuple(range(len(pages)))
    chosen = set(numbers)
    others = [page for number, page in enumerate(pages) if number not in chosen]
    others += [inner for page in pages for inner in page.inner]
    masks = sum(page.is_mask for page in others)
    remarks = []
    for count, one, several in (
        (len(others) - masks, "a smaller copy of another one", "smaller copies of another one"),
        (masks, "a mask", "masks"),
    ):
        if count:
            what = f"a page that is {one}" if count == 1 else f"{count} pages that are {several}"
            remarks.append(f"left out: {what}")
    if lost := sum(page.lost for page in pages):
        remarks.append(f"left out: {lost} SubIFD{'s' * (lost > 1)} that cannot be read")
    return ChosenPages(numbers, tuple(remarks))


def split_runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Split page numbers in their order into runs without a gap: the first number and the length of each."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and sum(runs[-1]) == number:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((number, 1))
    return runs


def read_pages(data: Buffer) -> list[Page]:
    """Read the pages of a file in their order; a corrupt file has none."""
    pages: list[Page] = []
    room_for_texts = len(data)  # values do not overlap: those of a hostile file must not sum up to terabytes
    with suppress(*MALFORMED):
        layout, _ = read_header(data)
        for at, directory in _walk(data):
            places, repeated = find_places(data, layout, at)
            page = replace(_describe(directory, layout), at=at, tags=frozenset(places))
            if PLANES_OF_STACK in places:  # each value is a rational
                page = replace(
                    page, meanings={**page.meanings, PLANES_OF_STACK: (places[PLANES_OF_STACK][1] // 8,)}
                )
            texts = []
            for tag, start, size in repeated:
                text = bytes(data[start : start + min(size, _LONGEST_VALUE, room_for_texts)])
                room_for_texts -= len(text)
                texts.append((tag, text))
            pages.append(replace(page, profile=places.get(PROFILE), repeated=tuple(texts)))
        seen = {page.at for page in pages}  # all of the chain first: none of it is in another page
        room = DirectoryRoom(data)
        for number, page in enumerate(pages):
            if _SUB_DIRECTORIES in page.tags:
                inner, lost = _read_inner(data, layout, page, seen, room)
                pages[number] = replace(page, inner=tuple(inner), lost=lost)
    return pages


def _read_inner(
    data: Buffer, layout: Layout, page: Page, seen: set[int], room: DirectoryRoom
) -> tuple[list[Page], int]:
    """Read the pages in the SubIFDs of a page, in theirs, and in the chains that begin at them.

    Args:
        data: The file.
        layout: Layout of its numbers.
        page: The page.
        seen: Offsets of the directories that were read, to which more are added.
        room: How many directories may be read, of which some are taken.

    Returns:
        The pages, and the number of SubIFDs that cannot be read.
    """
    inner: list[Page] = []
    directory, _ = read_directory(data, layout, page.at, _LONGEST_VALUE)
    offsets = _find_inner(directory, layout)
    lost = 0 if offsets else 1
    while offsets and room.is_left:
        at = offsets.popleft()
        room.take()
        if not at or at in seen:
            continue
        seen.add(at)
        try:
            directory, end = read_directory(data, layout, at, _LONGEST_VALUE)
            room.take(end - at, directory)
            (following,) = unpack(layout.offset, data, end)
            if not {_WIDTH, _HEIGHT} <= directory.keys():
                raise ValueError("no page")
        except MALFORMED:
            lost += 1
            continue
        offsets += [*_find_inner(directory, layout), following]
        found = replace(_describe(directory, layout), at=at)
        if found.is_reduced and page.is_picture and found.area > page.area:
            found = replace(found, is_reduced=False)  # whatever it says of itself
        inner.append(found)
    return inner, lost


def _find_inner(directory: Directory, layout: Layout) -> deque[int]:
    """Return the offsets of the SubIFDs of a directory."""
    entry = directory.get(_SUB_DIRECTORIES)
    if entry is None or entry.kind not in (LONG, LONG8, _DIRECTORY, _DIRECTORY8):
        return deque()
    return deque(np.frombuffer(entry.value, f"{layout.order}u{len(entry.value) // entry.count}").tolist())


def have_same_profile(data: Buffer, pages: Sequence[Page]) -> bool:
    """Tell whether pages have the same colour profile, or none has any.

    Args:
        data: Their file.
        pages: The pages, at least one.
    """
    places = {page.profile for page in pages}
    if len(places) == 1:
        return True
    found = [place for place in places if place is not None]
    sizes = [size for _, size in found]
    # Profiles that sum up to more than their file overlap; comparing many of them could take for ever.
    if len(found) < len(places) or len(set(sizes)) > 1 or sum(sizes) > len(data):
        return False
    same = data[found[0][0] : sum(found[0])]
    return all(data[at : at + size] == same for at, size in found)


def is_camera_raw(data: Buffer, pages: Sequence[Page]) -> bool:
    """Tell whether a TIFF file is a camera's raw file: its first image is a preview or not developed.

    Args:
        data: The file.
        pages: Its pages.
    """
    if not pages:
        return False  # libvips will refuse it
    first, *others = pages
    inner = [page for page in first.inner if page.is_picture]
    is_undeveloped = any(page.photometric in _UNDEVELOPED for page in inner)
    has_more = bool(inner) or (_SUB_DIRECTORIES not in first.tags and any(page.is_picture for page in others))
    is_preview = first.is_reduced and (is_undeveloped or not has_more)
    return is_preview or _DNG_VERSION in first.tags or data[8:10] == b"CR"


def restate_extra_samples(data: Buffer, kinds: tuple[int, ...]) -> list[tuple[int, bytes]]:
    """Return the changes, offset and bytes, that set the kinds of the extra samples on each page."""
    layout, _ = read_header(data)
    changes = []
    for directory in walk_directories(data):
        entry = directory.get(EXTRA_SAMPLES)
        if entry is not None and entry.count == len(kinds):
            value = struct.pack(f"{layout.order}{len(kinds)}H", *kinds)
            changes.append((locate_value(data, entry, layout), value))
    return changes


def walk_directories(data: Buffer) -> Iterator[Directory]:
    """Yield the chain of directories; a corrupt or repeated one ends it."""
    for _, directory in _walk(data):
        yield directory


def _walk(data: Buffer) -> Iterator[tuple[int, Directory]]:
    """Yield the chain of directories, and before each its offset."""
    layout, at = read_header(data)
    seen: set[int] = set()
    room = DirectoryRoom(data)
    while at and at not in seen and room.is_left:
        seen.add(at)
        try:
            directory, end = read_directory(data, layout, at, _LONGEST_VALUE)
            room.take(end - at, directory)
            (following,) = unpack(layout.offset, data, end)
        except MALFORMED:
            return
        yield at, directory
        at = following


def _describe(directory: Directory, layout: Layout) -> Page:
    def numbers(tag: int, default: int) -> tuple[int, ...]:
        entry = directory.get(tag)
        if entry is None or entry.kind not in (BYTE, SHORT, LONG, LONG8):
            return (default,)
        size = len(entry.value) // entry.count
        return tuple(int(number) for number in np.frombuffer(entry.value, f"{layout.order}u{size}"))

    def measure(tag: int) -> tuple[float, ...]:
        entry = directory[tag]
        if entry.kind != RATIONAL:
            return numbers(tag, 0)
        pairs = np.frombuffer(entry.value, f"{layout.order}u4").reshape(-1, 2).tolist()
        return tuple(above / below if below else 0.0 for above, below in pairs)

    subfile, height = numbers(_SUBFILE, 0)[0], numbers(_HEIGHT, 0)[0]
    tile = numbers(_TILE[0], 0)[0], numbers(_TILE[1], 0)[0]
    return Page(
        is_reduced=bool(subfile & _REDUCED) or numbers(_OLD_SUBFILE, 0)[0] == _OLD_REDUCED,
        is_mask=bool(subfile & _MASK),
        extra=numbers(EXTRA_SAMPLES, 0) if EXTRA_SAMPLES in directory else None,
        compression=numbers(_COMPRESSION, 1)[0],
        photometric=numbers(PHOTOMETRIC, 1)[0],
        bits=numbers(BITS, 1)[0],
        sample_format=numbers(SAMPLE_FORMAT, _UNSIGNED)[0],
        samples_per_pixel=numbers(_SAMPLES, 1)[0],
        ink_set=numbers(INK_SET, CMYK)[0],
        orientation=numbers(ORIENTATION, 1)[0],
        width=numbers(_WIDTH, 0)[0],
        height=height,
        planes=numbers(_PLANES, 1)[0],
        tile=tile if all(tile) else None,
        strip_height=numbers(_STRIP_HEIGHT, 0)[0] or height,
        meanings={tag: measure(tag) for tag in _MEANINGS if tag in directory},
        resolution=_read_resolution(directory, layout, numbers(RESOLUTION_UNIT, _INCH)[0]),
    )


def _read_resolution(directory: Directory, layout: Layout, unit: int) -> tuple[float, float, int] | None:
    """Return pixels per unit across and down, and the unit; None where a number is missing or 0."""
    entries = [directory[tag] for tag in RESOLUTIONS if tag in directory]
    if len(entries) < 2 or any(entry.kind != RATIONAL for entry in entries):
        return None
    x, y = (struct.unpack_from(f"{layout.order}2I", entry.value) for entry in entries)
    return (x[0] / x[1], y[0] / y[1], unit) if all((*x, *y)) else None


def locate_value(data: Buffer, entry: ExifEntry, layout: Layout) -> int:
    """Return the offset of an entry's value."""
    room = struct.calcsize(layout.offset)
    at = entry.at + struct.calcsize(layout.entry) - room
    return at if len(entry.value) <= room else unpack(layout.offset, data, at)[0]
