"""Estimate the quality that a JPEG file was saved with, from its quantisation tables."""

import io
from functools import cache
from mmap import mmap
from pathlib import Path

import numpy as np
from PIL import Image

from mambair_cli.images.jpeg import SCAN, START, find_start, read_segments

_HEADER_BYTES = 2**22  # more than the profiles and previews before the tables take
_TABLES, _STEPS = 0xDB, 64


def read_jpeg_quality(source: Path | bytes | mmap) -> int | None:
    """Return the libjpeg quality whose table for luma is nearest to that of a JPEG file.

    Only the header is read. Cameras use their own tables; the nearest quality says how coarse these are.

    Args:
        source: A file, or the bytes of one; a pipe is not read, since it can be read only once.

    Returns:
        1 to 100; None where it is no JPEG file, or cannot be read, which is reported when the image is read.
    """
    try:
        own = _find_table(_read_start(source) if isinstance(source, Path) else source[:_HEADER_BYTES])
    except (OSError, ValueError):
        return None
    if own is None:
        return None
    known = _tables()
    # Steps are compared by their ratio: 1 to 2 is as far as 50 to 100.
    apart = np.abs(np.log(known) - np.log(np.maximum(own, 1))).mean(1)
    return int(np.flatnonzero(apart == apart.min())[-1]) + 1


def _read_start(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES)


def _find_table(data: bytes) -> np.ndarray | None:
    """Return the quantisation table for luma, (64,), in the order of the file; None where there is none.

    Source: ITU-T T.81, B.2.4.1.
    """
    start = find_start(data)
    if not data.startswith(START, start):
        return None
    tables: dict[int, bytes] = {}
    for segment in read_segments(data, start):
        if segment.kind == SCAN:
            break
        at = segment.at
        while segment.kind == _TABLES and at < segment.end:
            end = at + 1 + _STEPS * (2 if data[at] >> 4 else 1)
            tables[data[at] & 15] = data[at + 1 : min(end, segment.end)]
            at = end
    table = tables[min(tables)] if tables else b""
    if len(table) not in (_STEPS, 2 * _STEPS):
        return None
    return np.frombuffer(table, np.uint8 if len(table) == _STEPS else ">u2").astype(np.float64)


@cache
def _tables() -> np.ndarray:
    """Return libjpeg's table for luma at each quality from 1 to 100, (100, 64)."""
    tables = []
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
        tables.append(_find_table(file.getvalue()))
    return np.asarray(tables, dtype=np.float64)
