"""Tell with which quality a JPEG file was saved, from its quantisation tables."""

import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image


def estimate_jpeg_quality(source: Path | bytes) -> int | None:
    """Return the quality, in libjpeg's sense, whose table is nearest to the file's own for light.

    Only the header is read. Cameras have tables of their own; the nearest quality says how coarse they are.

    Args:
        source: A file, or what one holds.

    Returns:
        1 to 100; None where it is no JPEG file, or cannot be read.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
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
