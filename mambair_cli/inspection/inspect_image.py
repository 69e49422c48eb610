"""What an image in a file is, and what it needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mambair_cli.errors import ImageError
from mambair_cli.images import Header, Reader, choose_format, find_losses, fit_header, open_picture
from mambair_cli.images.icc_profile import describe_profile
from mambair_cli.images.jpeg_quality import read_jpeg_quality
from mambair_cli.images.provenance import read_note
from mambair_cli.images.source import Source
from mambair_cli.images.stretch import Stretch, read_stretch
from mambair_cli.inspection.look import Look
from mambair_cli.inspection.need import Need, describe_need, find_need
from mambair_cli.inspection.picture import look_at_rows

_ROWS_AT_ONCE = 256
_BITS = {"uint8": 8, "uint16": 16, "float32": 32}


@dataclass(frozen=True)
class Inspection:
    """What an image is and what it needs.

    Attributes:
        source: The image.
        size: Size of its file, in bytes; None where it is unknown, as of a pipe.
        header: Header of the image.
        profile: Name of its colour profile; None without a profile.
        need: What was seen of it, and what it needs.
        warnings: Sentences about what is damaged in its file, or would be left out.
    """

    source: Source
    size: int | None
    header: Header
    profile: str | None
    need: Need
    warnings: tuple[str, ...]

    @property
    def bits(self) -> int:
        """Bits of a sample."""
        return _BITS[self.header.dtype]

    @property
    def is_float(self) -> bool:
        """Whether samples are floats."""
        return self.header.dtype == "float32"


def inspect_image(source: Source, max_pixels: int, check: Callable[[], None] = lambda: None) -> Inspection:
    """Inspect an image; all of it is decoded, so that damage is found.

    Args:
        source: The image.
        max_pixels: Largest number of pixels that is read.
        check: Called now and then; its error ends the inspection.

    Raises:
        ImageError: It cannot be read.
    """
    held = source.hold()
    file = held.path or held.data or b""
    with open_picture(file, max_pixels=max_pixels) as reader:
        header = reader.header
        look = _look(reader, read_stretch(reader), check)
        warnings = (*reader.warnings, *_foresee_losses(header))
    return Inspection(
        source=source,
        size=_find_size(held),
        header=header,
        profile=None if header.icc is None else describe_profile(header.icc) or "unnamed",
        need=find_need(look, read_jpeg_quality(file)),
        warnings=warnings,
    )


def _foresee_losses(header: Header) -> list[str]:
    """Say what a result of the same format lacks, or of PNG where that one is not written."""
    format = choose_format(header.format)
    try:
        return find_losses(header, fit_header(header, format, "the result"), format)
    except ImageError:  # a result needs another format or size, and the run will say so
        return []


def _look(reader: Reader, stretch: Stretch | None, check: Callable[[], None]) -> Look | None:
    """Look at the pixels of an image, of several frames at those of the first, and decode the rest."""
    header, is_at = reader.header, 0

    def read_to(end: int) -> None:  # what is passed over is not decoded where it lies in tiles of its own
        nonlocal is_at
        for top in range(is_at, end, _ROWS_AT_ONCE):
            check()
            reader.read(top, min(top + _ROWS_AT_ONCE, end))
        is_at = max(is_at, end)

    def read(top: int, bottom: int) -> np.ndarray:
        nonlocal is_at
        read_to(top)
        check()
        is_at = max(is_at, bottom)
        return reader.read(top, bottom)

    look = look_at_rows(header, read, stretch)
    read_to(header.height * header.frames)
    return look


def _find_size(source: Source) -> int | None:
    if source.path is None:
        return len(source.data or b"")
    try:
        return source.path.stat().st_size or None
    except OSError:  # it is gone since
        return None


def describe_inspection(inspection: Inspection) -> dict[str, Any]:
    """Return an inspection in types that JSON has; what is unknown is None."""
    header, need = inspection.header, inspection.need
    return {
        "input": str(inspection.source),
        "format": header.format,
        "bytes": inspection.size,
        "width": header.width,
        "height": header.height,
        "frames": header.frames,
        "bits": inspection.bits,
        "float": inspection.is_float,
        "channels": header.bands,
        "alpha": header.has_alpha,
        "profile": inspection.profile,
        "note": read_note(header.metadata.xmp),
        **describe_need(need),
        "upscale": "clean" if need.kind == "clean" else "real",
        "denoise": "white" if need.kind == "white" else "real",
        "warnings": list(inspection.warnings),
    }
