"""Estimate the quality that a JPEG file was saved with, from its quantisation tables."""

import io
from functools import cache
from mmap import mmap
from pathlib import Path

import numpy as np
from PIL import Image

_HEADER_BYTES = 2**22  # more than the profiles and previews before the tables take
_FIRST_BYTES = b"\xff\xd8\xff"


def read_jpeg_quality(source: Path | bytes | mmap) -> int | None:
    """Return the quality of a JPEG file, as :func:`estimate_jpeg_quality` does; None for any other file.

    Args:
        source: A file, or the bytes of one; a pipe is not read, since it can be read only once.
    """
    if isinstance(source, Path):
        try:
            if not source.is_file():
                return None
            with source.open("rb") as file:
                first = file.read(len(_FIRST_BYTES))
        except (OSError, ValueError):  # reported when the image is read
            return None
    else:
        first = source[: len(_FIRST_BYTES)]
    return estimate_jpeg_quality(source) if first == _FIRST_BYTES else None


def estimate_jpeg_quality(source: Path | bytes | mmap) -> int | None:
    """Return the libjpeg quality whose table for luma is nearest to the file's.

    Only the header is read. Cameras use their own tables; the nearest quality says how coarse these are.

    Args:
        source: A file, or the bytes of one.

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
    # Steps are compared by their ratio: 1 to 2 is as far as 50 to 100.
    apart = np.abs(np.log(known) - np.log(np.maximum(own, 1))).mean(1)
    return int(np.flatnonzero(apart == apart.min())[-1]) + 1


def _tables_of(image: Image.Image) -> dict[int, list[int]]:
    """Return the tables of an open image; an empty dict where it is no JPEG."""
    return getattr(image, "quantization", None) or {}


@cache
def _tables() -> np.ndarray:
    """Return libjpeg's table for luma at each quality from 1 to 100, (100, 64)."""
    tables = []
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            tables.append(next(iter(_tables_of(image).values())))
    return np.asarray(tables, dtype=np.float64)
