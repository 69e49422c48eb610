"""Tell with which quality a JPEG file was saved, from its quantisation tables."""

import io
from functools import cache
from mmap import mmap
from pathlib import Path

import numpy as np
from PIL import Image

CLEAN_QUALITY = 90  # from which on the traces of compression are not enlarged visibly
_HEADER_BYTES = 2**22  # more than profiles and previews ahead of the tables take
_FIRST_BYTES = b"\xff\xd8\xff"


def is_compressed(source: Path | bytes | mmap) -> bool:
    """Tell whether this is a JPEG file whose compression shows: of a quality below 90.

    Args:
        source: A file, or what one holds; a pipe is left alone, since it can be read once.
    """
    if isinstance(source, Path):
        try:
            if not source.is_file():
                return False
            with source.open("rb") as file:
                first = file.read(len(_FIRST_BYTES))
        except (OSError, ValueError):  # whoever reads the image says why
            return False
    else:
        first = source[: len(_FIRST_BYTES)]
    quality = estimate_jpeg_quality(source) if first == _FIRST_BYTES else None
    return quality is not None and quality < CLEAN_QUALITY


def estimate_jpeg_quality(source: Path | bytes | mmap) -> int | None:
    """Return the quality, in libjpeg's sense, whose table is nearest to the file's own for light.

    Only the header is read. Cameras have tables of their own; the nearest quality says how coarse they are.

    Args:
        source: A file, or what one holds.

    Returns:
        1 to 100; None where it is no JPEG file, or cannot be read.
    """
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source[:_HEADER_BYTES])) as image:
            tables = _tables_of(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    if not tables:
        return None
    own = np.asarray(tables[min(tables)], dtype=np.float64)
    if own.shape != (64,):
        return None
    known = _tables()
    # Steps count by their ratio: from 1 to 2 is as far as from 50 to 100.
    apart = np.abs(np.log(known) - np.log(np.maximum(own, 1))).mean(1)
    return int(np.flatnonzero(apart == apart.min())[-1]) + 1


def _tables_of(image: Image.Image) -> dict[int, list[int]]:
    """Return the tables of an image that was opened; none where it is no JPEG."""
    return getattr(image, "quantization", None) or {}


@cache
def _tables() -> np.ndarray:
    """Return libjpeg's table for light at each quality from 1 to 100, (100, 64)."""
    tables = []
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            tables.append(next(iter(_tables_of(image).values())))
    return np.asarray(tables, dtype=np.float64)
