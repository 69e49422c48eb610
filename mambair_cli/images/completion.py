"""Complete the files that libvips writes: EXIF that it would rewrite, and resolutions that it makes up."""

import struct
import zlib

from mambair_cli.images.metadata import Buffer

_PNG_HEADER_BYTES = 33  # signature and IHDR
_METRES_PER_INCH = 0.0254
_DESCRIPTION, _PLACE = 0x010E, b"a place for EXIF "


def complete_jpeg(data: bytes, exif: bytes | None, dpi: tuple[float, float] | None) -> bytes:
    """Give the beginning of a JPEG file a JFIF header, which libvips leaves out with EXIF, and EXIF."""
    body = data[2:]
    if body.startswith(b"\xff\xe0"):
        body = body[2 + int.from_bytes(body[2:4], "big") :]
    x, y = (min(max(round(side), 1), 65535) for side in dpi or (1, 1))
    jfif = b"\xff\xe0" + struct.pack(">H5s2BBHHxx", 16, b"JFIF", 1, 1, 1 if dpi else 0, x, y)
    segment = b"\xff\xe1" + struct.pack(">H6s", len(exif) + 8, b"Exif") + exif if exif else b""
    return data[:2] + jfif + segment + body


def complete_png(data: bytes, exif: bytes | None, dpi: tuple[float, float] | None) -> bytes:
    """Add an EXIF chunk to the beginning of a PNG file and take out a resolution that libvips makes up."""
    if dpi is None and (at := _find_png_chunk(data, b"pHYs")):
        data = data[:at] + data[at + 21 :]
    if not exif:
        return data
    chunk = b"eXIf" + exif
    chunk = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return data[:_PNG_HEADER_BYTES] + chunk + data[_PNG_HEADER_BYTES:]


def read_png_dpi(data: Buffer) -> tuple[float, float] | None:
    """Give the pixels per inch that a PNG file tells; libvips would take EXIF's, or invent some."""
    at = _find_png_chunk(data, b"pHYs")
    if at is None:
        return None
    x, y, unit = struct.unpack_from(">IIB", data, at + 8)
    return (x * _METRES_PER_INCH, y * _METRES_PER_INCH) if unit == 1 and x and y else None


def count_apng_frames(data: Buffer) -> int:
    """Count the frames of a PNG file; more than one makes it an animated PNG."""
    at = _find_png_chunk(data, b"acTL")
    return 1 if at is None else int.from_bytes(data[at + 8 : at + 12], "big")


def read_png_colours(data: Buffer) -> tuple[int, int] | None:
    """Give the numbers of H.273 for primaries and curve that a PNG file tells, if it does."""
    at = _find_png_chunk(data, b"cICP")
    if at is None or at + 10 > len(data):
        return None
    return data[at + 8], data[at + 9]


def has_png_pixels(data: bytes) -> bool:
    """Tell whether the beginning of a PNG file reaches as far as its pixels."""
    return _find_png_chunk(data, b"IDAT") is not None


def _find_png_chunk(data: Buffer, kind: bytes) -> int | None:
    """Tell where the chunk of a kind begins, if there is one before the pixels."""
    at = _PNG_HEADER_BYTES
    while data[at + 4 : at + 8] not in (kind, b"IDAT", b""):
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return at if data[at + 4 : at + 8] == kind else None


def complete_webp(data: bytes, exif: bytes, width: int, height: int, has_alpha: bool) -> bytes:
    """Add an EXIF chunk to a WebP file, and the header of the extended format if it has none."""
    chunks = data[12:]
    if chunks.startswith(b"VP8X"):
        chunks = chunks[:8] + bytes([chunks[8] | 0x08]) + chunks[9:]
    else:
        flags = 0x08 | (0x10 if has_alpha else 0)
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        chunks = b"VP8X" + struct.pack("<IB3x", 10, flags) + size + chunks
    chunks += b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\0" * (len(exif) % 2)
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def hold_exif_place(exif: bytes) -> bytes:
    """Make an EXIF block in whose place :func:`complete_avif` can put another."""
    text = _PLACE * (len(exif) // len(_PLACE) + 1) + b"\0"
    head = struct.pack(">2sHIHHHIII", b"MM", 42, 8, 1, _DESCRIPTION, 2, len(text), 26, 0)
    return head + text


def complete_avif(data: bytes, exif: bytes) -> bytes:
    """Put an EXIF block in place of what libvips made of :func:`hold_exif_place`."""
    text = data.find(_PLACE)
    start = max(data.rfind(b"MM\0*", 0, text), data.rfind(b"II*\0", 0, text))
    if text < 0 or start < 0:
        raise ValueError("the place held for EXIF is gone")
    end = text + len(_PLACE) * (len(exif) // len(_PLACE) + 1)
    return data[:start] + exif.ljust(end - start, b"\0") + data[end:]
