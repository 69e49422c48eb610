"""Read Targa files (TGA), with Pillow; their start has no mark, so their name or a mark at the end tells."""

import struct
from typing import Any, NamedTuple

import numpy as np

from mambair_cli.images.lazy_image import LazyImage
from mambair_cli.images.samples import divide_by_alpha

SUFFIXES = (".tga", ".icb", ".vda", ".vst")

_HEADER = struct.Struct("<BBBHHB4xHHBB")
_END_MARK = b"TRUEVISION-XFILE.\0"  # of files since 1989
_FOOTER_BYTES = 26
_KIND_OF_ALPHA_AT = 494  # in the extension area
_PALETTE, _COLOUR, _GRAY, _PACKED = 1, 2, 3, 8
_PALETTE_DEPTHS = (16, 24, 32)
_MOST_IN_PACKET = 128  # pixels that a packet of compressed ones stands for
_MOST_BITS_IN_LINE = 2**30  # for Pillow, which counts them in 32 bits
# Pillow's names for pixels, and for how they are stored, by kind and depth.
_RAW_MODES = {
    (_COLOUR, 16): ("RGBA", "BGRA;15"),
    (_COLOUR, 24): ("RGB", "BGR"),
    (_COLOUR, 32): ("RGBA", "BGRA"),
    (_GRAY, 1): ("1", "1"),
    (_GRAY, 8): ("L", "L"),
    (_GRAY, 16): ("LA", "LA"),
    (_PALETTE, 8): ("L", "L"),
}
_NO_ALPHA = (0, 1)  # kinds of alpha in the extension area: none; undefined, to be ignored
_PREMULTIPLIED = 4


class _Header(NamedTuple):
    """What the start of a file says; sizes in pixels, depths in bits."""

    name_bytes: int
    has_palette: bool
    kind: int
    is_packed: bool
    palette_first: int
    palette_length: int
    palette_depth: int
    width: int
    height: int
    depth: int
    alpha_bits: int
    is_right_to_left: bool
    is_top_down: bool


def is_targa(data: Any, name: str) -> bool:
    """Tell whether a file whose first bytes are of no other format is a Targa file.

    Args:
        data: Bytes, in memory or of a file.
        name: Name of the file.
    """
    is_named = name.lower().endswith(SUFFIXES) or bytes(data[-len(_END_MARK) :]) == _END_MARK
    return is_named and _read_header(data) is not None


def _read_header(data: Any) -> _Header | None:
    """Read the first 18 bytes; None where they are those of no Targa file that is read."""
    if len(data) < _HEADER.size:
        return None
    name_bytes, has_palette, kind, first, length, palette_depth, width, height, depth, flags = _HEADER.unpack(
        bytes(data[: _HEADER.size])
    )
    header = _Header(
        name_bytes,
        has_palette == 1,
        kind & ~_PACKED,
        bool(kind & _PACKED),
        first,
        length,
        palette_depth,
        width,
        height,
        depth,
        alpha_bits=flags & 0x0F,
        is_right_to_left=bool(flags & 0x10),
        is_top_down=bool(flags & 0x20),
    )
    is_sound = (
        has_palette in (0, 1)
        and flags & 0xC0 == 0  # interleaved lines, which no program writes
        and width > 0 < height
        and (header.kind, depth) in _RAW_MODES
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
    header = _read_header(data)
    if header is None:
        raise ValueError("its header is not complete")
    kind_of_alpha = _find_kind_of_alpha(data)
    palette_start = _HEADER.size + header.name_bytes
    start = palette_start + (header.palette_length * header.palette_depth // 8 if header.has_palette else 0)
    _check_length(header, len(data) - start)
    may_have_alpha = kind_of_alpha is None or kind_of_alpha not in _NO_ALPHA
    warnings = []
    if header.kind == _GRAY:
        mode = "LA" if header.depth == 16 and may_have_alpha else "L"
    elif header.kind == _PALETTE:
        has_alpha = header.palette_depth == 32 and may_have_alpha and any(data[palette_start + 3 : start : 4])
        mode = "RGBA" if has_alpha else "RGB"
    else:
        has_alpha = header.depth != 24 and header.alpha_bits > 0 and may_have_alpha
        mode = "RGBA" if has_alpha else "RGB"
        if header.depth == 32 and not has_alpha and _may_have_alpha(header, data[start:]):
            warnings.append("its header says that its fourth channel is no transparency; it is left out")

    def load() -> np.ndarray:
        samples = _decode(header, data[start:])
        if header.kind == _PALETTE:
            palette = _read_palette(header, data[palette_start:start])
            numbers = samples[..., 0].astype(np.uint32) - np.uint32(header.palette_first)
            samples = palette[numbers]  # one that is no colour's is an IndexError, also one below the first
        samples = samples[..., : len(mode)]
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


def _decode(header: _Header, body: bytes) -> np.ndarray:
    """Return pixels as (h, w, c) uint8, rows from the top; those of palettes are numbers of colours.

    Raises:
        ValueError: Some are missing.
    """
    from PIL import Image

    mode, raw_mode = _RAW_MODES[header.kind, header.depth]
    height, width = header.height, header.width
    size, decoder, more = (width, height), "raw", ()
    if header.is_packed:
        decoder, more = "tga_rle", (1, header.depth)
        if width * height * header.depth <= _MOST_BITS_IN_LINE:  # Pillow lets no run go on in the next line
            size = (width * height, 1)
    image = Image.frombytes(mode, size, body, decoder, raw_mode, *more)
    samples = np.array(image.convert("L") if mode == "1" else image).reshape(height, width, -1)
    samples = samples if header.is_top_down else samples[::-1]
    return samples[:, ::-1] if header.is_right_to_left else samples


def _read_palette(header: _Header, data: bytes) -> np.ndarray:
    """Return the colours of a palette, (n, c) uint8."""
    from PIL import Image

    mode, raw_mode = _RAW_MODES[_COLOUR, header.palette_depth]
    return np.array(Image.frombytes(mode, (header.palette_length, 1), data, "raw", raw_mode))[0]


def _may_have_alpha(header: _Header, body: bytes) -> bool:
    """Tell whether fourth channels differ; of compressed files nobody knows before they are decoded."""
    if header.is_packed:
        return True
    fourths = np.frombuffer(body, np.uint8, 4 * header.width * header.height)[3::4]
    return bool(fourths.min() != fourths.max())
