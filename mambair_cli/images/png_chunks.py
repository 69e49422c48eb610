"""Read the chunks of PNG files: texts (also behind the pixels), resolution and colours; write texts."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mambair_cli.images.picture import Text

_SIGNATURE_BYTES = 8
_METRES_PER_INCH = 0.0254
_MOST_TEXT = 2**24  # bytes of a text when decompressed
_MOST_TEXTS = 2**26  # the same of all texts that are compressed
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"XML:com.adobe.xmp"  # read as XMP, not as a text
_SINGLE = (b"pHYs", b"acTL", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")  # chunks kept whole


class Chunk(NamedTuple):
    """A chunk: its kind, and where its content begins and ends."""

    kind: bytes
    start: int
    end: int


@dataclass(frozen=True)
class PngFacts:
    """What a PNG file holds except its pixels.

    Attributes:
        chunks: Content of the chunks that occur once, by kind.
        texts: Texts in the order of the file.
        has_end: Whether its end is marked.
        damaged_texts: Number of texts that cannot be decompressed.
    """

    chunks: dict[bytes, bytes] = field(default_factory=dict)
    texts: tuple[Text, ...] = ()
    has_end: bool = True
    damaged_texts: int = 0

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Pixels per inch; libvips would take those of EXIF, or invent some."""
        found = self._find_density(is_metric=True)
        return None if found is None else (found[0] * _METRES_PER_INCH, found[1] * _METRES_PER_INCH)

    @property
    def density(self) -> tuple[float, float] | None:
        """Pixels per unit across and down, where the unit is unknown and only their ratio counts."""
        return self._find_density(is_metric=False)

    def _find_density(self, is_metric: bool) -> tuple[float, float] | None:
        """Return the pixels per metre, or per unknown unit; None where the file does not tell that."""
        body = self.chunks.get(b"pHYs", b"")
        if len(body) < 9:
            return None
        x, y, unit = struct.unpack_from(">IIB", body)
        return (float(x), float(y)) if unit == int(is_metric) and x and y else None

    @property
    def frames(self) -> int:
        """Number of frames; an animated PNG has more than one."""
        return int.from_bytes(self.chunks.get(b"acTL", b"\0\0\0\1")[:4], "big")


def read_chunks(data: Any) -> Iterator[Chunk]:
    """Yield the complete chunks of a file.

    Args:
        data: Bytes, in memory or of a file.
    """
    at = _SIGNATURE_BYTES
    while at + 12 <= len(data):
        start = at + 8
        end = start + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        yield Chunk(bytes(data[at + 4 : start]), start, end)
        at = end + 4


def read_png_facts(data: Any) -> PngFacts:
    """Read what a PNG file holds except its pixels."""
    chunks: dict[bytes, bytes] = {}
    texts: list[Text] = []
    has_end, damaged, room = False, 0, _TextRoom(_MOST_TEXTS)
    for kind, start, end in read_chunks(data):
        if kind in _SINGLE:
            chunks.setdefault(kind, bytes(data[start:end]))
        elif kind in _TEXTS:
            body = bytes(data[start:end])
            is_xmp = body.startswith(_XMP + b"\0")
            try:
                text = _read_text(kind, body, _TextRoom(_MOST_TEXT) if is_xmp else room)
            except _TooLongError:
                damaged += not is_xmp  # which libvips reads, however long
            except (ValueError, IndexError, zlib.error):
                damaged += 1
            else:
                texts += [] if is_xmp else [text]
        elif kind == b"IEND":
            has_end = True
            break
    return PngFacts(chunks, tuple(texts), has_end, damaged)


class _TooLongError(ValueError):
    """A text grows too large when decompressed."""


@dataclass
class _TextRoom:
    """How much may still be decompressed, in bytes."""

    left: int


def _read_text(kind: bytes, body: bytes, room: _TextRoom) -> Text:
    """Read a text chunk.

    Args:
        kind: Its kind.
        body: Its content.
        room: Room for what is decompressed.

    Raises:
        ValueError, IndexError, zlib.error: The chunk is corrupt.
    """
    keyword, rest = _split(body)
    name = keyword.decode("latin-1")
    if kind == b"tEXt":
        return Text(name, rest.decode("latin-1"))
    if kind == b"zTXt":
        return Text(name, _decompress(rest[1:], room).decode("latin-1"))
    is_packed = rest[0]
    language, rest = _split(rest[2:])
    translated, rest = _split(rest)
    text = (_decompress(rest, room) if is_packed else rest).decode()
    return Text(name, text, language.decode("ascii"), translated.decode())


def write_text(text: Text) -> bytes:
    """Write a text as a chunk: tEXt if that can hold it, else iTXt."""
    keyword = text.keyword.encode("latin-1", "replace")
    try:
        if text.language or text.translated:
            raise ValueError("tEXt has no room for these")
        kind, body = b"tEXt", keyword + b"\0" + text.text.encode("latin-1")
    except ValueError:
        head = keyword + b"\0\0\0" + text.language.encode("ascii", "replace") + b"\0"
        kind, body = b"iTXt", head + text.translated.encode() + b"\0" + text.text.encode()
    return write_chunk(kind, body)


def write_chunk(kind: bytes, body: bytes) -> bytes:
    """Write a chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _split(data: bytes) -> tuple[bytes, bytes]:
    before, found, behind = data.partition(b"\0")
    if not found:
        raise ValueError("a text has no end")
    return before, behind


def _decompress(data: bytes, room: _TextRoom) -> bytes:
    """Decompress a text, and refuse one that grows too large."""
    most = min(_MOST_TEXT, room.left)
    unpacked = zlib.decompressobj().decompress(data, most + 1)
    room.left = max(0, room.left - len(unpacked))
    if len(unpacked) > most:
        raise _TooLongError("a text is too long")
    return unpacked
