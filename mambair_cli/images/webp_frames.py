"""Keep the pages and the times of frames in WebP files, since libwebp merges neighbours that are equal."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

_FILE_BYTES, _HEAD_BYTES = 12, 8  # of the file's head, and of a chunk's
_DURATION = slice(12, 15)  # in such a chunk
_MOST_MS = 2**24 - 1
_PAGE_MS = 100  # how long viewers show a page
_BLANK, _ENDLESS = 0xFFFFFFFF, 0  # the background's colour, and how often an animation is shown
_IS_ANIMATED, _HAS_XMP, _HAS_ALPHA, _HAS_ICC = 0x02, 0x04, 0x10, 0x20  # flags of the file
_REPLACES = 2  # a flag of a frame: what was shown before does not shine through
_PIXELS = (b"ALPH", b"VP8 ", b"VP8L")

STAND_IN_MS = 20
"""How long libwebp is asked to show each frame, before :func:`restate_delays`; it changes times below 11."""


def join_pages(
    pages: Iterable[bytes], size: tuple[int, int], has_alpha: bool, icc: bytes | None, xmp: bytes | None
) -> bytes:
    """Make one WebP file of the files of single pages, all of one size.

    Args:
        pages: The files, none of them animated; of these, only the pixels are taken.
        size: Width and height of each page, in pixels.
        has_alpha: Whether they have alpha.
        icc: Colour profile of all.
        xmp: XMP packet.

    Source: WebP Container Specification, "Extended File Format".
    """
    present = ((_HAS_ALPHA, has_alpha), (_HAS_ICC, icc), (_HAS_XMP, xmp))
    flags = _IS_ANIMATED + sum(flag for flag, is_set in present if is_set)
    sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
    head = bytes(6) + sides + _PAGE_MS.to_bytes(3, "little") + bytes([_REPLACES])
    frames: list[bytes] = []
    for page in pages:
        chunks = _find_chunks(page)
        pixels = b"".join(_write_chunk(kind, page[at:end]) for at, kind, end in chunks if kind in _PIXELS)
        frames.append(_write_chunk(b"ANMF", head + pixels))
    parts = [
        _write_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides),
        _write_chunk(b"ICCP", icc) if icc else b"",
        _write_chunk(b"ANIM", struct.pack("<IH", _BLANK, _ENDLESS)),
        *frames,
        _write_chunk(b"XMP ", xmp) if xmp else b"",
    ]
    return b"".join([b"RIFF", struct.pack("<I", sum(map(len, parts)) + 4), b"WEBP", *parts])


def restate_delays(data: bytes, delays: Sequence[int]) -> bytes:
    """Give the frames of an animation their own durations; one for which several were merged has their sum.

    Args:
        data: The file, for whose frames libwebp was given ``STAND_IN_MS``; a still picture stays as it is.
        delays: Duration of each frame before they were merged, in milliseconds.
    """
    changed, left = bytearray(data), iter(delays)
    for at, kind, _ in _find_chunks(data):
        if kind == b"ANMF":
            place = slice(at + _DURATION.start, at + _DURATION.stop)
            merged = int.from_bytes(data[place], "little") // STAND_IN_MS
            changed[place] = min(sum(islice(left, merged)), _MOST_MS).to_bytes(3, "little")
    return bytes(changed)


def _find_chunks(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield where the content of each chunk begins, its kind, and where the content ends."""
    at = _FILE_BYTES
    while at + _HEAD_BYTES <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        at += _HEAD_BYTES
        yield at, kind, at + length
        at += length + length % 2


def _write_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
