"""Write the shape of pixels into Matroska files: FFmpeg writes it, but PyAV cannot tell it to.

The file is written with a longer name of the video track. Its place is then used for the size at which
players show the track, so that nothing else moves.
"""

import math
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

# Names of elements in Matroska's specification.
_SEGMENT, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_NAME, _VOID, _CRC, _CLUSTER = 0x536E, 0xEC, 0xBF, 0x1F43B675
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
_PIXELS, _RATIO = 0, 3
_MOST_HEADER_BYTES = 64 * 2**20  # fonts and covers may come before the tracks

RESERVED = " (room for the size at which it is shown)"
"""What is added to the name of a video track to keep room."""


def write_shape(path: Path, size: tuple[int, int], pixel_aspect: Fraction) -> bool:
    """Write the shape of pixels of the video track whose name ends with ``RESERVED``, which is taken away.

    Args:
        path: Matroska or WebM file.
        size: Width and height of a frame, in pixels.
        pixel_aspect: Width of a pixel divided by its height.

    Returns:
        Whether there is such a track.
    """
    with path.open("r+b") as file:
        data = file.read(_MOST_HEADER_BYTES)
        for start, end in _find_tracks(data):
            tracks = _write_into_tracks(data[start:end], size, pixel_aspect)
            if tracks is not None:
                file.seek(start)
                file.write(tracks)
                return True
    return False


def _read_number(data: bytes, at: int, keeps_marker: bool) -> tuple[int, int]:
    """Return a number of variable length and its end."""
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big")
    return value if keeps_marker else value & ((1 << 7 * length) - 1), at + length


def _elements(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield elements: identifier, start of the element, start and end of its content."""
    while start < end:
        identifier, at = _read_number(data, start, True)
        length, content = _read_number(data, at, False)
        yield identifier, start, content, content + length
        start = content + length


def _element(identifier: int, content: bytes, length_bytes: int = 0) -> bytes:
    """Return an element with its content; its length takes as few bytes as possible, or a fixed number."""
    needed = length_bytes or next(n for n in range(1, 9) if len(content) < (1 << 7 * n) - 1)
    length = (len(content) | 1 << 7 * needed).to_bytes(needed, "big")
    return identifier.to_bytes((identifier.bit_length() + 7) // 8, "big") + length + content


def _find_tracks(data: bytes) -> Iterator[tuple[int, int]]:
    for identifier, _, content, _ in _elements(data, 0, len(data)):
        if identifier == _SEGMENT:
            for inner, _, start, end in _elements(data, content, len(data)):
                if inner == _CLUSTER:
                    return
                if inner == _TRACKS:
                    yield start, end
            return


def _write_into_tracks(tracks: bytes, size: tuple[int, int], pixel_aspect: Fraction) -> bytes | None:
    """Return the content of the element of all tracks, of the same length, or None if there is no room."""
    parts, checksum, is_found = [], None, False
    for identifier, start, content, end in _elements(tracks, 0, len(tracks)):
        part = tracks[start:end]
        if identifier == _CRC:
            checksum = part
            continue
        changed = _write_into_track(tracks[content:end], size, pixel_aspect) if identifier == _TRACK else None
        if changed is not None:
            part, is_found = tracks[start:content] + changed, True
        parts.append(part)
    if not is_found:
        return None
    rest = b"".join(parts)
    if checksum is not None:
        rest = _element(_CRC, zlib.crc32(rest).to_bytes(4, "little")) + rest
    return rest


def _write_into_track(track: bytes, size: tuple[int, int], pixel_aspect: Fraction) -> bytes | None:
    reserved = RESERVED.encode()
    parts, is_found = [], False
    for identifier, start, content, end in _elements(track, 0, len(track)):
        part = track[start:end]
        if identifier == _NAME and part.endswith(reserved):
            is_found = True
            name = track[content:end].removesuffix(reserved)
            part = _element(_NAME, name) if name else b""
        elif identifier == _VIDEO:
            part = _element(_VIDEO, track[content:end] + _display_size(size, pixel_aspect))
        parts.append(part)
    changed = b"".join(parts)
    room = len(track) - len(changed) - 2
    if not is_found or room < 0:
        return None
    return changed + _element(_VOID, bytes(room), 1)


def _display_size(size: tuple[int, int], pixel_aspect: Fraction) -> bytes:
    """Return the elements of the size in pixels if it is a whole number, else of the ratio of the sides."""
    width, height, unit = size[0] * pixel_aspect, size[1], _PIXELS
    if width.denominator > 1:
        shape = width / height
        width, height, unit = Fraction(shape.numerator), shape.denominator, _RATIO
    numbers = ((_DISPLAY_WIDTH, int(width)), (_DISPLAY_HEIGHT, height), (_DISPLAY_UNIT, unit))
    return b"".join(
        _element(identifier, number.to_bytes(max(1, math.ceil(number.bit_length() / 8)), "big"))
        for identifier, number in numbers
    )
