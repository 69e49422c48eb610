"""Patch the files that libvips writes: add EXIF and texts unchanged, and take out invented resolutions."""

import struct
from collections.abc import Sequence

from mambair_cli.images.picture import COMMENT, Metadata, Text
from mambair_cli.images.png_chunks import write_chunk, write_text
from mambair_cli.images.tiff_directories import DESCRIPTION, Buffer

_PNG_HEADER_BYTES = 33  # signature and IHDR
_INCH, _CENTIMETRE, _CM_PER_INCH = 1, 2, 2.54  # JFIF's numbers of the units
_MOST_JFIF = 65535  # pixels per unit
_PLACE = b"a place for EXIF "
_BEFORE_AVIF_EXIF = 10  # bytes of an item: where the block begins, and "Exif"


def complete_jpeg(data: bytes, metadata: Metadata) -> bytes:
    """Add a JFIF header (which libvips omits with EXIF), EXIF and texts to the start of a JPEG file.

    Args:
        data: The file, or its first bytes.
        metadata: Metadata of the file; a density is of whole numbers.
    """
    body = data[2:]
    if body.startswith(b"\xff\xe0"):
        body = body[2 + int.from_bytes(body[2:4], "big") :]
    exif, density = metadata.exif, metadata.density or (1, 1)
    unit, x, y = _choose_jfif_density(metadata.dpi) if metadata.dpi else (0, *map(round, density))
    jfif = b"\xff\xe0" + struct.pack(">H5s2BBHHxx", 16, b"JFIF", 1, 1, unit, x, y)
    segment = b"\xff\xe1" + struct.pack(">H6s", len(exif) + 8, b"Exif") + exif if exif else b""
    comments = map(write_comment, metadata.texts)
    segment += b"".join(b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment for comment in comments)
    return data[:2] + jfif + segment + body


def _choose_jfif_density(dpi: tuple[float, float]) -> tuple[int, int, int]:
    """Return the number of a unit, and whole pixels per unit across and down, nearest to a resolution.

    Per inch, unless whole pixels per centimetre, as some files have them, are nearer.
    """
    choices = []
    for unit, length in ((_INCH, 1.0), (_CENTIMETRE, _CM_PER_INCH)):
        x, y = (min(max(round(side / length), 1), _MOST_JFIF) for side in dpi)
        error = max(abs(whole * length / side - 1) for whole, side in zip((x, y), dpi, strict=True))
        choices.append((round(error, 9), unit, x, y))
    return min(choices)[1:]


def complete_png(data: bytes, metadata: Metadata) -> bytes:
    """Add EXIF and texts to the start of a PNG file; take out a resolution that libvips has invented.

    The arguments are those of :func:`complete_jpeg`; ``data`` must include the start of the pixels.
    """
    if metadata.dpi is None and (at := _find_png_chunk(data, b"pHYs")):
        data = data[:at] + data[at + 21 :]
    density = metadata.density
    chunks = write_chunk(b"pHYs", struct.pack(">IIB", *map(int, density), 0)) if density else b""
    chunks += write_chunk(b"eXIf", metadata.exif) if metadata.exif else b""
    chunks += b"".join(map(write_text, metadata.texts))
    return data[:_PNG_HEADER_BYTES] + chunks + data[_PNG_HEADER_BYTES:]


def complete_gif(data: bytes, texts: Sequence[Text]) -> bytes:
    """Add texts to a GIF file, behind the global colour table."""
    at = 13 + (3 * 2 ** ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    blocks = b""
    for comment in map(write_comment, texts):
        pieces = (comment[start : start + 255] for start in range(0, len(comment), 255))
        blocks += b"!\xfe" + b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"
    return data[:at] + blocks + data[at:]


def write_comment(text: Text) -> bytes:
    """Write a text for formats without keywords."""
    return (text.text if text.keyword == COMMENT else f"{text.keyword}: {text.text}").encode()


def has_png_pixels(data: bytes) -> bool:
    """Tell whether the start of a PNG file includes the start of its pixels."""
    return _find_png_chunk(data, b"IDAT") is not None


def _find_png_chunk(data: Buffer, kind: bytes) -> int | None:
    """Return the offset of a chunk of a kind, if there is one before the pixels."""
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


def make_exif_placeholder(exif: bytes) -> bytes:
    """Make an EXIF block that :func:`complete_avif` can replace by another."""
    text = _PLACE * (len(exif) // len(_PLACE) + 1) + b"\0"
    head = struct.pack(">2sHIHHHIII", b"MM", 42, 8, 1, DESCRIPTION, 2, len(text), 26, 0)
    return head + text


def complete_avif(data: bytes, exif: bytes) -> bytes:
    """Replace the placeholder of :func:`make_exif_placeholder` in a file of libvips by an EXIF block.

    Raises:
        ValueError: The file has no placeholder.
    """
    text = data.find(_PLACE)
    start = max(data.rfind(b"MM\0*", 0, text), data.rfind(b"II*\0", 0, text))
    if text < 0 or start < 0:
        raise ValueError("the placeholder for EXIF is missing")
    end = text + len(_PLACE) * (len(exif) // len(_PLACE) + 1)
    changed = bytearray(data[:start] + exif.ljust(end - start, b"\0") + data[end:])
    # By the length of its place EXIF would grow from copy to copy, so libheif's table gets the right one.
    item = start - _BEFORE_AVIF_EXIF
    at = data.find(struct.pack(">IHI", item, 1, 0), 0, item)  # offset of the item, and of its only part
    if at >= 0:
        struct.pack_into(">I", changed, at + 10, _BEFORE_AVIF_EXIF + len(exif))
    return bytes(changed)
