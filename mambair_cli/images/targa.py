"""Read Targa files (TGA), with Pillow; their start has no mark, so their name or a mark at the end tells."""

import struct
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from mambair_cli.images.lazy_image import LazyImage
from mambair_cli.images.samples import divide_by_alpha

SUFFIXES = (".tga", ".icb", ".vda", ".vst")

_HEADER = struct.Struct("<BBB2xHB4xHHBB")
_END_MARK = b"TRUEVISION-XFILE.\0"  # of files since 1989
_FOOTER_BYTES = 26
_KIND_AT = 2
_KIND_OF_ALPHA_AT = 494  # in the extension area
_PALETTE, _COLOUR, _GRAY, _PACKED = 1, 2, 3, 8
_DEPTHS = {_PALETTE: (8,), _COLOUR: (16, 24, 32), _GRAY: (1, 8, 16)}
_PALETTE_DEPTHS = (16, 24, 32)
_MOST_IN_PACKET = 128  # pixels that a packet of compressed ones stands for
_NO_ALPHA = (0, 1)  # kinds of alpha in the extension area: none; undefined, to be ignored
_PREMULTIPLIED = 4


class _Header(NamedTuple):
    """What the start of a file says; sizes in pixels, depths in bits."""

    name_bytes: int
    has_palette: bool
    kind: int
    is_packed: bool
    palette_length: int
    palette_depth: int
    width: int
    height: int
    depth: int
    alpha_bits: int


def is_targa(data: Any, name: str) -> bool:
    """Tell whether a file whose first bytes are of no other format is a Targa file.

    Args:
        data: Bytes, or a mapped file.
        name: Name of the file.
    """
    is_named = name.lower().endswith(SUFFIXES) or bytes(data[-len(_END_MARK) :]) == _END_MARK
    return is_named and _read_header(data) is not None


def _read_header(data: Any) -> _Header | None:
    """Read the first 18 bytes; None where they are those of no Targa file that is read."""
    if len(data) < _HEADER.size:
        return None
    name_bytes, has_palette, kind, length, palette_depth, width, height, depth, flags = _HEADER.unpack_from(
        bytes(data[: _HEADER.size])
    )
    header = _Header(
        name_bytes,
        has_palette == 1,
        kind & ~_PACKED,
        bool(kind & _PACKED),
        length,
        palette_depth,
        width,
        height,
        depth,
        alpha_bits=flags & 0x0F,
    )
    is_sound = (
        has_palette in (0, 1)
        and flags & 0xC0 == 0  # interleaved lines, which no program writes
        and width > 0 < height
        and depth in _DEPTHS.get(header.kind, ())
        and header.alpha_bits <= 8
        and (header.palette_depth in _PALETTE_DEPTHS if header.has_palette else header.kind != _PALETTE)
        and (header.kind, header.alpha_bits != 8, depth) != (_GRAY, True, 16)
        and not (depth == 1 and header.is_packed)
    )
    return header if is_sound else None


def read_targa(data: bytes, name: str) -> LazyImage:
    """Read the header of a file that :func:`is_targa` has found to be one.

    Args:
        data: Bytes of the file.
        name: Name of the file, for errors.

    Raises:
        ValueError, struct.error and others: It is corrupt.
    """
    from PIL.TgaImagePlugin import TgaImageFile  # Image.open would warn about sizes that are allowed here

    header = _read_header(data)
    if header is None:
        raise ValueError("its header is not complete")
    kind_of_alpha = _find_kind_of_alpha(data)
    start = _HEADER.size + header.name_bytes
    if header.has_palette:
        start += header.palette_length * header.palette_depth // 8
    _check_length(header, len(data) - start)
    is_told = kind_of_alpha is None or kind_of_alpha not in _NO_ALPHA
    warnings = []
    if header.kind == _GRAY:
        mode = "LA" if header.depth == 16 and is_told else "L"
    elif header.kind == _PALETTE:
        mode = "RGBA" if header.palette_depth == 32 and is_told else "RGB"
    else:
        has_alpha = header.depth != 24 and header.alpha_bits > 0 and is_told
        mode = "RGBA" if has_alpha else "RGB"
        if header.depth == 32 and not has_alpha and _may_have_alpha(header, data[start:]):
            warnings.append("its header says that its fourth channel is no transparency; it is left out")

    def load() -> np.ndarray:
        body = _unpack(header, data[start:]) if header.is_packed else data[start:]
        plain = data[:_KIND_AT] + bytes([header.kind]) + data[_KIND_AT + 1 : start]
        samples = np.array(TgaImageFile(BytesIO(plain + body)).convert(mode))
        if header.depth == 16 and mode == "RGBA":  # Pillow takes the bit for transparent
            samples[..., 3] = 255 - samples[..., 3]
        return divide_by_alpha(samples) if kind_of_alpha == _PREMULTIPLIED and mode[-1] == "A" else samples

    return LazyImage((header.height, header.width, len(mode)), "uint8", load, warnings=tuple(warnings))


def _find_kind_of_alpha(data: bytes) -> int | None:
    """Return what the extension area says of the alpha channel; None where there is no such area."""
    if not data.endswith(_END_MARK):
        return None
    (area,) = struct.unpack_from("<I", data, len(data) - _FOOTER_BYTES)
    at = area + _KIND_OF_ALPHA_AT
    return data[at] if area and at < len(data) - _FOOTER_BYTES else None


def _check_length(header: _Header, length: int) -> None:
    """Refuse a file that cannot hold so many pixels, before memory is taken for them.

    Raises:
        ValueError: Part of it is missing.
    """
    pixel = header.depth / 8
    pixels = header.width * header.height
    needed = pixels / _MOST_IN_PACKET * (1 + pixel) if header.is_packed else pixels * pixel
    if length < needed:
        raise ValueError(f"it ends after {max(length, 0)} of at least {int(needed)} bytes of pixels")


def _unpack(header: _Header, body: bytes) -> bytes:
    """Return pixels that were compressed; Pillow refuses packets that go on in the next line.

    Raises:
        ValueError: Some are missing.
    """
    pixel = header.depth // 8
    total = header.width * header.height * pixel
    pixels, at = bytearray(), 0
    while len(pixels) < total and at < len(body):
        count, at = (body[at] & 0x7F) + 1, at + 1
        if body[at - 1] & 0x80:
            pixels += body[at : at + pixel] * count
            at += pixel
        else:
            pixels += body[at : at + count * pixel]
            at += count * pixel
    if len(pixels) < total:
        raise ValueError(f"it ends after {len(pixels) // pixel} of {total // pixel} pixels")
    return bytes(pixels[:total])


def _may_have_alpha(header: _Header, body: bytes) -> bool:
    """Tell whether fourth channels differ; of compressed files nobody knows before they are decoded."""
    if header.is_packed:
        return True
    fourths = np.frombuffer(body, np.uint8, 4 * header.width * header.height)[3::4]
    return bool(fourths.min() != fourths.max())
