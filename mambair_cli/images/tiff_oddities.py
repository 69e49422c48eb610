"""Kinds of TIFF pages that are not read as pictures, in words: what each is, and what would work."""

from typing import NamedTuple

from mambair_cli.images.tiff import (
    BITS,
    BLACK_WHITE,
    CMYK,
    DEPTH,
    DOT_RANGE,
    FLOAT,
    INDEXED,
    PLANES_OF_STACK,
    SAMPLE_FORMAT,
    SEPARATED,
    TILE_DEPTH,
    Page,
)
from mambair_cli.images.tiff_samples import sort_samples

_COMPLEX_INTEGER, _COMPLEX = 5, 6  # formats of samples
_WHITE, _RGB = 0, 2  # photometric interpretations
_CONVERT = "convert it to gray or RGB of 8 or 16 bits, uncompressed or by deflate"
_SPLIT = "save each as a page of its own"

# Photometric interpretations that libvips does not read, or not as colours.
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

# Compressions that every build of libvips supports, and names of others: none, CCITT, LZW, JPEG, deflate,
# PackBits.
_USUAL_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32771, 32773, 32946)
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


class Oddity(NamedTuple):
    """Why a page is not read as a picture, in words that follow "a TIFF file"; and what would work."""

    what: str
    remedy: str = _CONVERT


def find_oddity(page: Page) -> Oddity | None:
    """Say why a page is not read as a picture; None if no reason is known."""
    if page.photometric in _COLOURS:
        return Oddity(_COLOURS[page.photometric])
    if page.photometric == SEPARATED and (page.samples_per_pixel < 4 or page.ink_set != CMYK):
        return Oddity("of inks that are not CMYK")
    if page.sample_format in (_COMPLEX_INTEGER, _COMPLEX):
        return Oddity("of complex numbers")
    kind = "floats" if page.sample_format == FLOAT else "integers"
    usual = (32, 64) if page.sample_format == FLOAT else (1, 2, 4, 8, 16)
    if page.bits not in usual:
        return Oddity(f"of {kind} of {page.bits} bits")
    return _find_changed_meaning(page) or _find_planes(page)


def name_compression(page: Page) -> Oddity | None:
    """Name the compression of a page if some builds of libvips do not support it; else None."""
    if page.compression in _USUAL_COMPRESSIONS:
        return None
    return Oddity(f"compressed by {_COMPRESSIONS.get(page.compression, f'method {page.compression}')}")


def _find_changed_meaning(page: Page) -> Oddity | None:
    """Look for tags by which samples are no usual ones, and which libvips passes over."""
    meanings = page.meanings
    if any(len(set(meanings.get(tag, ()))) > 1 for tag in (BITS, SAMPLE_FORMAT)):
        return Oddity("of samples that differ in depth or kind")
    slices = max(*meanings.get(DEPTH, ()), *meanings.get(TILE_DEPTH, ()), 1, 1)
    if slices > 1:
        return Oddity(f"of a volume, {slices:.0f} slices in one page", _SPLIT)
    planes = max(*meanings.get(PLANES_OF_STACK, ()), 1, 1)
    if planes > 1:
        return Oddity(f"of MetaMorph, {planes:.0f} pictures in one page", _SPLIT)
    if any(meanings.get(INDEXED, ())):
        return Oddity("of indices into a palette")
    white = 2**page.bits - 1
    ink = meanings.get(DOT_RANGE, ())
    # A range of 8 bits is also found in files of 16 bits.
    if page.photometric == SEPARATED and not (set(ink[::2]) <= {0} and set(ink[1::2]) <= {255, white}):
        return Oddity("of inks whose range is not the usual one (DotRange)")
    bounds = meanings.get(BLACK_WHITE, ())
    if page.photometric == _RGB and not (set(bounds[::2]) <= {0} and set(bounds[1::2]) <= {255, white}):
        return Oddity("of colours whose black and white are not the usual ones (ReferenceBlackWhite)")
    return None


def _find_planes(page: Page) -> Oddity | None:
    """Look for samples in planes of their own that libvips does not read, or mixes up."""
    count = page.samples_per_pixel
    if page.planes != 2 or count < 2:
        return None
    if page.photometric in (_WHITE, 1):
        if sort_samples(1, count - 1, page.extra).has_alpha:
            return Oddity("of gray and alpha in separate planes", "save them interleaved")
        return Oddity(f"of {count} gray planes in one page", _SPLIT)
    if page.tile and not page.is_float64:  # tifffile reads them
        remedy = "save its samples interleaved, as by tiffcp -p contig"
        return Oddity("of separate planes in tiles", remedy)
    return None
