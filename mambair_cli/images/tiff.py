"""Read the pages of TIFF files: which of them are pictures, and what their samples mean."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from mambair_cli.images.tiff_directories import (
    MALFORMED,
    Buffer,
    Directory,
    ExifEntry,
    Layout,
    find_places,
    read_directory,
    read_header,
    read_number,
)

RESOLUTIONS, RESOLUTION_UNIT = (0x011A, 0x011B), 0x0128
RATIONAL = 5  # TIFF's number of the type
_SUBFILE, _OLD_SUBFILE, _ORIENTATION = 0x00FE, 0x00FF, 0x0112
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES = 0x0102, 0x0103, 0x0106, 0x0115, 0x011C
_PROFILE = 0x8773
_SUB_DIRECTORIES, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _DNG_VERSION = 0x014A, 0x0152, 0x0153, 0xC612
_REDUCED, _MASK = 1, 4  # bits of a subfile's type
_OLD_REDUCED = 2
_INK_SET, _SEPARATED, _CMYK = 0x014C, 5, 1
_ALPHAS = (1, 2)  # kinds of extra samples: premultiplied and straight alpha
_INCH = 2
_UNSIGNED, _FLOAT, _COMPLEX_INTEGER, _COMPLEX = 1, 3, 5, 6

_LONGEST_VALUE = 4096  # bytes; longer values, such as offsets of strips, are not read
_MOST_ENTRIES = 2**21  # of all pages: a hostile file may have any number

# Photometric interpretations that libvips does not read, or not as colours, in words for messages.
_COLOURS = {
    4: "that is a transparency mask",
    8: "of kind CIELAB",
    9: "of kind CIELAB (ICC)",
    10: "of kind CIELAB (ITU)",
    32803: "of a camera, not developed (CFA)",
    32844: "of kind LogL",
    32845: "of kind LogLuv",
    34892: "of a camera, not developed (linear raw)",
    51177: "that is a depth map",
}


# Compressions that some builds of libvips do not support.
_COMPRESSIONS = {
    6: "old JPEG",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "JPEG of cameras",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}


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

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture of its own."""
        return not (self.is_reduced or self.is_mask)

    @property
    def is_float64(self) -> bool:
        """Whether its samples are 64-bit floats, which libvips does not read."""
        return self.bits == 64 and self.sample_format == _FLOAT

    @property
    def oddity(self) -> str | None:
        """Why it is not read as a picture, in words; None if no reason is known."""
        if self.photometric in _COLOURS:
            return _COLOURS[self.photometric]
        if self.photometric == _SEPARATED and (self.samples_per_pixel < 4 or self.ink_set != _CMYK):
            return "of inks that are not CMYK"
        if self.sample_format in (_COMPLEX_INTEGER, _COMPLEX):
            return "of complex numbers"
        kind = "floats" if self.sample_format == _FLOAT else "integers"
        usual = (32, 64) if self.sample_format == _FLOAT else (1, 2, 4, 8, 16)
        return None if self.bits in usual else f"of {kind} of {self.bits} bits"


@dataclass(frozen=True)
class ChosenPages:
    """The pages of a file that are pictures of their own.

    Attributes:
        numbers: Numbers of these pages, from 0.
        remarks: Sentences about the others, which are left out.
    """

    numbers: tuple[int, ...]
    remarks: tuple[str, ...]


def name_compression(page: Page) -> str | None:
    """Name the compression of a page if some builds of libvips do not support it; else None."""
    return _COMPRESSIONS.get(page.compression)


def choose_pages(pages: Sequence[Page]) -> ChosenPages:
    """Choose the pages that are pictures, or all if there are only smaller copies and masks."""
    numbers = tuple(number for number, page in enumerate(pages) if page.is_picture)
    if not numbers:
        return ChosenPages(tuple(range(len(pages))), ())
    masks = sum(page.is_mask for page in pages)
    reduced = len(pages) - len(numbers) - masks
    remarks = []
    for count, what in ((reduced, "is a smaller copy"), (masks, "is a mask")):
        if count:
            each = "a page that" if count == 1 else f"{count} pages each of which"
            remarks.append(f"{each} {what} left out")
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


@dataclass(frozen=True)
class Samples:
    """What the samples of a pixel mean.

    Attributes:
        order: Numbers of the samples, sorted to colours, alpha, masks.
        has_alpha: Whether there is alpha.
        masks: Kinds of the masks.
    """

    order: tuple[int, ...]
    has_alpha: bool
    masks: tuple[int, ...]


def sort_samples(colours: int, extra: int, kinds: tuple[int, ...] | None) -> Samples:
    """Return what the samples of a pixel mean.

    Args:
        colours: Number of colour samples.
        extra: Number of samples after them.
        kinds: Kinds of these samples, from the file. If the file lists none, a single sample is alpha.
    """
    if kinds is None or len(kinds) != extra:
        kinds = (_ALPHAS[-1],) if extra == 1 else (0,) * extra
    alpha = next((number for number, kind in enumerate(kinds) if kind in _ALPHAS), None)
    others = [number for number in range(extra) if number != alpha]
    order = [*range(colours), *(() if alpha is None else (colours + alpha,))]
    order += [colours + number for number in others]
    return Samples(tuple(order), alpha is not None, tuple(kinds[number] for number in others))


def read_pages(data: Buffer) -> list[Page]:
    """Read the pages of a file in their order; a corrupt file has none."""
    pages: list[Page] = []
    with suppress(*MALFORMED):
        layout, _ = read_header(data)
        for at, directory in _walk(data):
            places = find_places(data, layout, at)
            page = _describe(directory, layout)
            pages.append(replace(page, profile=places.get(_PROFILE), at=at, tags=frozenset(places)))
    return pages


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


def is_camera_raw(data: Buffer) -> bool:
    """Tell whether a TIFF file is a camera's raw file: its first image is a preview or not developed."""
    try:
        layout, first = read_header(data)
        tags, _ = read_directory(data, layout, first)
        is_preview = _describe(tags, layout).is_reduced
        has_more = _SUB_DIRECTORIES not in tags and any(page.is_picture for page in read_pages(data))
        return (is_preview and not has_more) or _DNG_VERSION in tags or data[8:10] == b"CR"
    except MALFORMED:
        return False  # libvips will refuse it


def has_gray_planes(data: Buffer) -> bool:
    """Tell whether a TIFF file holds gray and alpha in separate planes, which libvips mixes up."""
    try:
        layout, first = read_header(data)
        tags, _ = read_directory(data, layout, first)
        planes, samples, kind = (read_number(tags[tag], layout) for tag in (_PLANES, _SAMPLES, _PHOTOMETRIC))
        return planes == 2 and samples > 1 and kind < 2
    except MALFORMED:
        return False


def restate_extra_samples(data: Buffer, kinds: tuple[int, ...]) -> list[tuple[int, bytes]]:
    """Return the changes, offset and bytes, that set the kinds of the extra samples on each page."""
    layout, _ = read_header(data)
    changes = []
    for directory in walk_directories(data):
        entry = directory.get(_EXTRA_SAMPLES)
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
    entries = 0
    while at and at not in seen and entries < _MOST_ENTRIES:
        seen.add(at)
        try:
            directory, end = read_directory(data, layout, at, _LONGEST_VALUE)
            entries += len(directory)
            (following,) = struct.unpack_from(layout.offset, data, end)
        except MALFORMED:
            return
        yield at, directory
        at = following


def _describe(directory: Directory, layout: Layout) -> Page:
    def numbers(tag: int, default: int) -> tuple[int, ...]:
        entry = directory.get(tag)
        if entry is None or entry.kind not in (3, 4, 16):
            return (default,)
        size = len(entry.value) // entry.count
        return tuple(int(number) for number in np.frombuffer(entry.value, f"{layout.order}u{size}"))

    subfile = numbers(_SUBFILE, 0)[0]
    return Page(
        is_reduced=bool(subfile & _REDUCED) or numbers(_OLD_SUBFILE, 0)[0] == _OLD_REDUCED,
        is_mask=bool(subfile & _MASK),
        extra=numbers(_EXTRA_SAMPLES, 0) if _EXTRA_SAMPLES in directory else None,
        compression=numbers(_COMPRESSION, 1)[0],
        photometric=numbers(_PHOTOMETRIC, 1)[0],
        bits=numbers(_BITS, 1)[0],
        sample_format=numbers(_SAMPLE_FORMAT, _UNSIGNED)[0],
        samples_per_pixel=numbers(_SAMPLES, 1)[0],
        ink_set=numbers(_INK_SET, _CMYK)[0],
        orientation=numbers(_ORIENTATION, 1)[0],
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
    return at if len(entry.value) <= room else struct.unpack_from(layout.offset, data, at)[0]
