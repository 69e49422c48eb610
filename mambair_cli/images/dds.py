"""Read DirectDraw Surfaces (DDS), the textures of games: the first mip level, blocks (BC) with Pillow."""

import struct
from typing import NamedTuple

import numpy as np

from mambair_cli.errors import ImageError
from mambair_cli.images.lazy_image import LazyImage
from mambair_cli.images.samples import divide_by_alpha

_HEADER_BYTES, _DX10_BYTES = 128, 20
_LUMINANCE, _RGB, _FOURCC, _ALPHA = 0x20000, 0x40, 0x4, 0x1  # flags of the pixel format
_CUBE, _VOLUME = 0x200, 0x200000  # of the surface
_DX10_VOLUME, _DX10_CUBE = 4, 0x4
_DX10_PREMULTIPLIED, _DX10_OPAQUE = 2, 3
_BC1_BLOCK_BYTES, _BLOCK_BYTES, _BLOCK_SIDE = 8, 16, 4


class _Blocks(NamedTuple):
    """How blocks of 4×4 pixels are decoded: Pillow's number and name for them, and the mode of the result."""

    number: int
    name: str
    mode: str

    @property
    def bytes(self) -> int:
        """Size of a block."""
        return _BC1_BLOCK_BYTES if self.name in ("BC1", "BC4") else _BLOCK_BYTES


class _Pixels(NamedTuple):
    """How pixels that are not compressed are stored: their bits, and masks of gray or RGB and of alpha."""

    bits: int
    masks: tuple[int, ...]


_BC1, _BC2, _BC3 = _Blocks(1, "BC1", "RGBA"), _Blocks(2, "BC2", "RGBA"), _Blocks(3, "BC3", "RGBA")
_BC4, _BC5, _BC5S = _Blocks(4, "BC4", "L"), _Blocks(5, "BC5", "RGB"), _Blocks(5, "BC5S", "RGB")
_BC7 = _Blocks(7, "BC7", "RGBA")
_FOURCCS = {
    **{b"DXT1": _BC1, b"DXT2": _BC2, b"DXT3": _BC2, b"DXT4": _BC3, b"DXT5": _BC3},
    **{b"ATI1": _BC4, b"BC4U": _BC4, b"ATI2": _BC5, b"BC5U": _BC5, b"BC5S": _BC5S},
}
_PREMULTIPLIED = (b"DXT2", b"DXT4")
_RGBA8 = _Pixels(32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000))
_BGRA8 = _Pixels(32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000))
# Numbers of DXGI_FORMAT: typeless, plain, and with sRGB's curve, which all pictures here have.
_DXGI: dict[int, _Blocks | _Pixels] = {
    **dict.fromkeys((70, 71, 72), _BC1),
    **dict.fromkeys((73, 74, 75), _BC2),
    **dict.fromkeys((76, 77, 78), _BC3),
    **dict.fromkeys((79, 80), _BC4),
    **dict.fromkeys((82, 83), _BC5),
    84: _BC5S,
    **dict.fromkeys((97, 98, 99), _BC7),
    **dict.fromkeys((27, 28, 29), _RGBA8),
    **dict.fromkeys((87, 90, 91), _BGRA8),
    **dict.fromkeys((88, 92, 93), _Pixels(32, _BGRA8.masks[:3])),
    **dict.fromkeys((60, 61), _Pixels(8, (0xFF,))),
    85: _Pixels(16, (0xF800, 0x7E0, 0x1F)),
    86: _Pixels(16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
    115: _Pixels(16, (0xF00, 0xF0, 0xF, 0xF000)),
}
_HDR = (94, 95, 96)  # BC6H


class _Surface(NamedTuple):
    """What the header says: size in pixels, number of mip levels, and how pixels are stored from where on."""

    width: int
    height: int
    levels: int
    layout: _Blocks | _Pixels
    start: int
    is_premultiplied: bool
    is_opaque: bool


def read_dds(data: bytes, name: str) -> LazyImage:
    """Read the header of a file.

    Args:
        data: Bytes of the file.
        name: Name of the file, for errors.

    Raises:
        ValueError, struct.error: It is corrupt.
        ImageError: It is no single picture, or of a kind that is not read.
    """
    surface = _read_header(data, name)
    width, height, layout = surface.width, surface.height, surface.layout
    if isinstance(layout, _Blocks):
        length = -(-width // _BLOCK_SIDE) * -(-height // _BLOCK_SIDE) * layout.bytes
    else:
        length = width * height * layout.bits // 8
    body = data[surface.start : surface.start + length]
    if not length or len(body) < length:
        raise ValueError(f"it ends after {len(body)} of {length} bytes of {width}×{height} pixels")
    if isinstance(layout, _Blocks):
        has_alpha = layout.mode == "RGBA" and not (layout is _BC1 and _is_bc1_opaque(body))
        colours = 1 if layout.mode == "L" else 3
    else:
        has_alpha = len(layout.masks) in (2, 4)
        colours = len(layout.masks) - has_alpha
    has_alpha = has_alpha and not surface.is_opaque
    bands = colours + has_alpha

    def load() -> np.ndarray:
        if isinstance(layout, _Blocks):
            samples = _read_blocks(body, layout, width, height)
        else:
            samples = _read_pixels(body, layout, width, height)
        samples = samples[..., :bands]
        return divide_by_alpha(samples) if has_alpha and surface.is_premultiplied else samples

    first = f"only the first of its {surface.levels} mip levels is read; " if surface.levels > 1 else ""
    remark = f"{first}the result is no DDS file: make one of it with a texture tool"
    return LazyImage((height, width, bands), "uint8", load, warnings=(remark,))


def _read_header(data: bytes, name: str) -> _Surface:
    if struct.unpack_from("<I", data, 4) != (124,) or len(data) < _HEADER_BYTES:
        raise ValueError("its header is not complete")
    height, width = struct.unpack_from("<II", data, 12)
    (levels,) = struct.unpack_from("<I", data, 28)
    flags, fourcc, bits, *masks = struct.unpack_from("<I4s5I", data, 80)
    (caps,) = struct.unpack_from("<I", data, 112)
    start = _HEADER_BYTES
    is_premultiplied, is_opaque = fourcc in _PREMULTIPLIED, False
    is_single = not caps & (_CUBE | _VOLUME)
    if flags & _FOURCC and fourcc == b"DX10":
        number, dimension, kind, count, alpha = struct.unpack_from("<5I", data, start)
        start += _DX10_BYTES
        is_single = is_single and dimension != _DX10_VOLUME and not kind & _DX10_CUBE and count <= 1
        is_premultiplied, is_opaque = alpha & 7 == _DX10_PREMULTIPLIED, alpha & 7 == _DX10_OPAQUE
        layout = _DXGI.get(number)
        kind_name = "BC6H (HDR)" if number in _HDR else f"DXGI format {number}"
    elif flags & _FOURCC:
        layout, kind_name = _FOURCCS.get(fourcc), _name_fourcc(fourcc)
    else:
        layout, kind_name = _find_pixels(flags, bits, masks), f"{bits} bits a pixel with flags {flags:#x}"
    if not is_single:
        raise ImageError(
            f"cannot read {name}: it holds several pictures (a cube map, volume or array); "
            "split it into files first, with a texture tool"
        )
    if layout is None:
        raise ImageError(
            f"cannot read {name}: DDS of {kind_name} is not read; "
            "convert it to PNG first, with a texture tool"
        )
    return _Surface(width, height, levels, layout, start, is_premultiplied, is_opaque)


def _name_fourcc(fourcc: bytes) -> str:
    """Name a kind of samples by its four letters, or by the number of Direct3D that may stand there."""
    text = fourcc.decode("ascii", "replace")
    return f"kind {text!r}" if text.isprintable() else f"D3D format {int.from_bytes(fourcc, 'little')}"


def _find_pixels(flags: int, bits: int, masks: list[int]) -> _Pixels | None:
    """Return how pixels that are not compressed are stored; None where that is not read."""
    if not flags & (_LUMINANCE | _RGB) or bits not in (8, 16, 24, 32):
        return None
    colours = masks[:1] if flags & _LUMINANCE else masks[:3]
    alpha = masks[3:4] if flags & _ALPHA and masks[3] else []
    used = (*colours, *alpha)
    if any(not 0 < mask < 1 << bits or (mask >> _find_shift(mask)).bit_length() > 8 for mask in used):
        return None
    return _Pixels(bits, used)


def _find_shift(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _is_bc1_opaque(body: bytes) -> bool:
    """Tell whether no block says of a pixel that it is transparent: the fourth colour of a block of three."""
    blocks = np.frombuffer(body, np.dtype([("ends", "<u2", 2), ("colours", "<u4")]))
    has_three = blocks["ends"][:, 0] <= blocks["ends"][:, 1]
    fourths = blocks["colours"] & (blocks["colours"] >> 1) & 0x55555555
    return not bool(np.any(has_three & (fourths != 0)))


def _read_blocks(body: bytes, layout: _Blocks, width: int, height: int) -> np.ndarray:
    from PIL import Image

    image = Image.frombytes(layout.mode, (width, height), body, "bcn", layout.number, layout.name)
    return np.array(image).reshape(height, width, -1)


def _read_pixels(body: bytes, layout: _Pixels, width: int, height: int) -> np.ndarray:
    parts = np.frombuffer(body, np.uint8).reshape(height, width, layout.bits // 8)
    values = np.zeros((height, width), np.uint32)
    for number in range(layout.bits // 8):
        values |= parts[..., number].astype(np.uint32) << (8 * number)
    channels = []
    for mask in layout.masks:
        white = mask >> _find_shift(mask)
        value = (values & mask) >> _find_shift(mask)
        channels.append(((value * 255 + white // 2) // white).astype(np.uint8))
    return np.stack(channels, axis=-1)
