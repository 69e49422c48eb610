"""Descriptions in TIFF files that programs read: OME-XML, ImageJ's lines, and the shape that tifffile notes.

They tell of pages, their sizes and the size of a pixel. In a result they must tell of the result.
"""

import json
import math
import re
from typing import Any, NamedTuple

from mambair_cli.images.metadata import change_description, find_description
from mambair_cli.images.ome import Resized, UnreadableError, find_misfit, restate_ome
from mambair_cli.images.picture import Header

OME, IMAGEJ, SHAPE = "OME-XML", "ImageJ description", "shape note"
PAGES_LEFT_OUT = "pages are left out"  # a reason why a description does not fit

# ImageJ's keys: the range that is shown and what samples stand for, which depend on the type of samples.
_OF_SAMPLES = re.compile(rb"^(?:min|max|cf|c\d|vunit)=.*\n?", re.MULTILINE)
_ORIGIN = re.compile(rb"^([xy])origin=(-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)", re.MULTILINE)  # in pixels
_COUNT = re.compile(rb"^images=(\d{1,18})\b", re.MULTILINE)
_UNIT = re.compile(rb"^unit=(.*)$", re.MULTILINE)
_BLANK = b"\0 \t\r\n"
_MOST_AXES = 32  # NumPy's, once
_NO_UNITS = (b"", b"pixel", b"pixels")


class PageLayout(NamedTuple):
    """The pages of a file, as its description should tell of them.

    Attributes:
        width: Width of each, in pixels.
        height: Height of each, in pixels.
        samples: Samples per pixel.
        pages: Number of pages.
        are_samples_kept: Whether a pixel of the picture has the same samples.
        has_gaps: Whether pages before others are left out.
    """

    width: int
    height: int
    samples: int
    pages: int
    are_samples_kept: bool = True
    has_gaps: bool = False


def identify_description(exif: bytes | None) -> tuple[str | None, bytes]:
    """Return the kind of the description in an EXIF block, None for words for people, and the description."""
    text = find_description(exif)
    return _identify(text), text


def is_bare_shape(text: bytes) -> bool:
    """Tell whether a description is a note by tifffile of nothing but the shape of the samples."""
    text = text.strip(_BLANK)
    return _identify(text) == SHAPE and set(_read_shape(text)) == {"shape"}


def _identify(text: bytes) -> str | None:
    if text.startswith(b"ImageJ="):
        return IMAGEJ
    if text.startswith(b"{") and b'"shape":' in text:
        return SHAPE
    return OME if text.endswith(b"OME>") else None


def count_pictures(text: bytes, layout: PageLayout) -> int:
    """Return the number of pictures that ImageJ's or tifffile's description tells; 1 where it tells none.

    Args:
        text: The description.
        layout: Its page, by whose size a shape is divided.
    """
    text = text.strip(_BLANK)
    kind = _identify(text)
    if kind == IMAGEJ:
        count = _COUNT.search(text)
        return int(count[1]) if count else 1
    shape = _read_shape(text).get("shape") if kind == SHAPE else None
    if not isinstance(shape, list) or not all(isinstance(length, int) for length in shape[:_MOST_AXES]):
        return 1
    return math.prod(shape[:_MOST_AXES]) // max(1, layout.width * layout.height * layout.samples)


def tells_size_of_pixels(exif: bytes | None) -> bool:
    """Tell whether a file's pixels have a size in the world: the file is one of ImageJ or OME."""
    return identify_description(exif)[0] in (OME, IMAGEJ)


def names_unit(exif: bytes | None) -> bool:
    """Tell whether ImageJ's description names the unit of a resolution."""
    kind, text = identify_description(exif)
    found = _UNIT.search(text) if kind == IMAGEJ else None
    return found is not None and found[1].strip() not in _NO_UNITS


def fit_description(exif: bytes | None, layout: PageLayout) -> tuple[bytes | None, str | None]:
    """Remove a description that does not fit the pages of its file: it could not be that of a result.

    Args:
        exif: EXIF block with the description.
        layout: The pages.

    Returns:
        The block, and a sentence about what is removed; None if there is nothing to say.
    """
    kind, text = identify_description(exif)
    if exif is None or kind is None:
        return exif, None
    misfit = PAGES_LEFT_OUT if layout.has_gaps else None
    if not layout.are_samples_kept and kind != IMAGEJ:
        misfit = "the channels change"
    misfit = misfit or _find_misfit(kind, text, layout)
    if misfit is None:
        return exif, None
    has_more = kind != SHAPE or set(_read_shape(text)) - {"shape"}
    return change_description(exif, None), explain_misfit(kind, misfit) if has_more else None


def explain_misfit(kind: str, misfit: str) -> str:
    """Say that a description of a kind is left out, and why."""
    return f"its {kind} does not fit and is left out: {misfit}"


def restate_description(source: Header, result: Header) -> bytes | None:
    """Return a result's EXIF with a description, which fits its file, that describes the result.

    Args:
        source: Header of the file.
        result: Header of the result, with the EXIF.
    """
    exif = result.metadata.exif
    kind, text = identify_description(exif)
    if exif is None or kind is None:
        return exif
    resized = Resized(
        result.width / source.width,
        result.height / source.height,
        result.width,
        result.height,
        result.samples_per_pixel,
        result.dtype,
        result.dtype != source.dtype,
    )
    if kind == OME:
        try:
            restated = restate_ome(text, resized)
        except UnreadableError:
            return change_description(exif, None)
    elif kind == IMAGEJ:
        restated = _restate_imagej(text, resized)
    else:
        before = PageLayout(source.width, source.height, source.samples_per_pixel, source.frames)
        restated = _restate_shape(text, before, resized)
    return exif if restated == text else change_description(exif, restated)


def _find_misfit(kind: str, text: bytes, layout: PageLayout) -> str | None:
    """Say why a description does not fit the pages of its file."""
    if kind == OME:
        return find_misfit(text, layout.width, layout.height, layout.samples, layout.pages)
    if kind == IMAGEJ:
        count = _COUNT.search(text)
        count = int(count[1]) if count else 1
        return None if count == layout.pages else f"it tells of {count} pages, not {layout.pages}"
    return None if _split_shape(_read_shape(text), layout) else "it tells of another shape"


def _restate_imagej(text: bytes, result: Resized) -> bytes:
    factors = {b"x": result.across, b"y": result.down}

    def move(found: re.Match[bytes]) -> bytes:
        return b"%borigin=%b" % (found[1], f"{float(found[2]) * factors[found[1]]:.15g}".encode())

    text = _OF_SAMPLES.sub(b"", text) if result.has_new_dtype else text
    return text if (result.across, result.down) == (1, 1) else _ORIGIN.sub(move, text)


def _read_shape(text: bytes) -> dict[str, Any]:
    """Read tifffile's note; an unreadable one is empty."""
    try:
        note = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _split_shape(note: dict[str, Any], layout: PageLayout) -> tuple[list[int], list[int]] | None:
    """Split a shape into the lengths before height and width, and those after; None if it does not fit."""
    shape = note.get("shape")
    if not isinstance(shape, list) or len(shape) > _MOST_AXES:
        return None
    if not all(isinstance(length, int) for length in shape):
        return None
    page = [layout.height, layout.width]
    tails = [[layout.samples]] if layout.samples > 1 else [[1] * count for count in range(len(shape))]
    for tail in tails:
        lead = shape[: max(0, len(shape) - len(tail) - 2)]
        if shape == [*lead, *page, *tail] and math.prod(lead) == layout.pages:
            return lead, tail
    return None


def _restate_shape(text: bytes, before: PageLayout, result: Resized) -> bytes:
    note = _read_shape(text)
    parts = _split_shape(note, before)
    if parts is None:
        return text
    lead, tail = parts
    tail = [result.samples] if before.samples > 1 else tail
    note["shape"] = [*lead, result.height, result.width, *tail]
    return json.dumps(note).encode()
