"""Decode the formats that libvips' usual builds do not read; these are small enough to be held whole."""

import re
import struct
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mambair_cli.errors import ImageError
from mambair_cli.images.files import show
from mambair_cli.images.samples import encode_srgb, widen

CheckSize = Any
"""Called with width and height, before anything is decoded; refuses what is too large."""

# What Pillow, OpenEXR and numpy raise for broken files.
_BROKEN = (OSError, SyntaxError, ValueError, KeyError, IndexError, EOFError, OverflowError, struct.error)


class BrokenImageError(Exception):
    """The data is no image of its format; the message is the reason, in one line."""


@dataclass(frozen=True)
class Decoded:
    """Samples (h, w, 1 to 4), and what the file says beside them."""

    samples: np.ndarray
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


def decode(format: str, data: Any, name: str, check_size: CheckSize) -> Decoded:
    """Decode a file of one of the formats "bmp", "ppm", "jpeg2000", "heic" and "exr".

    Args:
        format: One of these.
        data: What the file holds, in anything that has a buffer.
        name: Of the file, for errors.
        check_size: As above.

    Raises:
        BrokenImageError: The data is broken.
        ImageError: Part of the picture would be lost, or a package is missing.
    """
    decoders = {"bmp": _bmp, "ppm": _netpbm, "jpeg2000": _jpeg2000, "heic": _heic, "exr": _exr}
    try:
        return decoders[format](bytes(data), name, check_size)
    except ModuleNotFoundError as error:
        extra = format
        raise ImageError(
            f"cannot read {name}: {format} needs the package {error.name}; "
            f"pip install 'mambair-cli[{extra}]' brings it"
        ) from error
    except _BROKEN as error:
        raise BrokenImageError(show(str(error))) from error


def _bmp(data: bytes, name: str, check_size: CheckSize) -> Decoded:
    from PIL.BmpImagePlugin import BmpImageFile  # Image.open would warn of sizes that are welcome here

    with BmpImageFile(BytesIO(data)) as image:
        check_size(image.width, image.height)
        mode = {"1": "L", "L": "L", "RGBA": "RGBA"}.get(image.mode, "RGB")
        samples = np.array(image.convert(mode))
        dpi = image.info.get("dpi")
    return Decoded(samples[..., None] if mode == "L" else samples, dpi=dpi)


_NUMBER = rb"(?:\s|#[^\n\r]*[\n\r])*(\d+)"


def _netpbm(data: bytes, name: str, check_size: CheckSize) -> Decoded:
    """Decode PBM, PGM and PPM, as text and binary, of 8 and 16 bits (Pillow would cut PPM to 8)."""
    kind = int(data[1:2])
    is_bitmap, is_text, bands = kind in (1, 4), kind < 4, 3 if kind in (3, 6) else 1
    count = 2 if is_bitmap else 3
    head = re.match(rb"P[1-6]" + _NUMBER * count + rb"(?:\s|#[^\n\r]*[\n\r])", data)
    if head is None:
        raise ValueError("its header has no sizes")
    width, height = int(head[1]), int(head[2])
    white = 1 if is_bitmap else int(head[3])
    check_size(width, height)
    if not (width and height and 1 <= white <= 65535):
        raise ValueError(f"its header tells {width}×{height} pixels up to {white}")
    total = width * height * bands
    body = data[head.end() :]
    if is_text:
        body = re.sub(rb"#[^\n\r]*", b"", body)
        numbers = re.findall(rb"[01]" if is_bitmap else rb"\d+", body)[:total]
        if max(map(len, numbers), default=0) > 5:  # beyond 65535; int() of a long one takes for ever
            raise ValueError(f"a sample is larger than its white, {white}")
        samples = np.array(numbers, dtype="S5").astype(np.uint32)
    elif is_bitmap:
        row = (width + 7) // 8
        bits = np.frombuffer(body, np.uint8, min(row * height, len(body)))
        bits = bits[: len(bits) // row * row].reshape(-1, row)
        samples = np.unpackbits(bits, axis=1)[:, :width].astype(np.uint32)
    else:
        dtype = np.dtype(np.uint8 if white < 256 else ">u2")
        samples = np.frombuffer(body, dtype, min(total, len(body) // dtype.itemsize))
    if samples.size != total:
        raise ValueError(f"it ends after {samples.size} of {total} samples")
    if samples.max() > white:
        raise ValueError(f"a sample is larger than its white, {white}")
    if is_bitmap:
        samples = 1 - samples  # 1 is ink
    dtype = np.uint8 if white < 256 else np.uint16
    full = np.iinfo(dtype).max
    if white != full:
        samples = (samples.astype(np.uint32) * full + white // 2) // white
    return Decoded(samples.astype(dtype).reshape(height, width, bands))


def _jpeg2000(data: bytes, name: str, check_size: CheckSize) -> Decoded:
    from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

    start = data.index(b"\xff\x4f\xff\x51")
    (bands,) = struct.unpack_from(">H", data, start + 40)
    depths = {(depth & 0x7F) + 1 for depth in data[start + 42 : start + 42 + 3 * bands : 3]}
    if bands > 1 and max(depths, default=8) > 8:
        raise ImageError(
            f"cannot read {name}: JPEG 2000 in colour is read with 8 bits, not {max(depths)}; "
            "convert it to TIFF first"
        )
    with Jpeg2KImageFile(BytesIO(data)) as image:
        check_size(image.width, image.height)
        if image.mode not in ("L", "LA", "RGB", "RGBA", "I;16"):
            raise ImageError(f"cannot read {name}: it is of the kind {image.mode}; convert it to TIFF first")
        samples = np.array(image)
    if samples.dtype == np.uint16 and max(depths) < 16:
        samples = widen(samples, max(depths), shifted=False)
    return Decoded(samples.reshape(*samples.shape[:2], -1), icc=_find_jp2_profile(data[:start]))


def _find_jp2_profile(boxes: bytes) -> bytes | None:
    """Find the ICC profile of a JP2 file, which Pillow leaves where it is."""
    at = boxes.find(b"colr")
    if at < 4 or boxes[at + 4 : at + 5] != b"\x02":  # 1: a colour space by its number
        return None
    (length,) = struct.unpack_from(">I", boxes, at - 4)
    return boxes[at + 7 : at - 4 + length] or None


def _heic(data: bytes, name: str, check_size: CheckSize) -> Decoded:
    import pillow_heif

    try:
        file = pillow_heif.open_heif(data, convert_hdr_to_8bit=False)
        check_size(*file.size)  # upright: the library turns pictures itself
        samples = np.asarray(file)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    bits = file.info.get("bit_depth", 8)
    if samples.dtype == np.uint16:
        samples = widen(samples, bits)
    return Decoded(
        samples.reshape(*samples.shape[:2], -1),
        icc=file.info.get("icc_profile"),
        exif=file.info.get("exif"),
        xmp=file.info.get("xmp"),
    )


def _exr(data: bytes, name: str, check_size: CheckSize) -> Decoded:
    """Decode OpenEXR, whose samples are linear light, to those of a display: sRGB's curve."""
    import OpenEXR

    with tempfile.TemporaryDirectory() as folder:  # it reads files alone
        path = Path(folder, "image.exr")
        path.write_bytes(data)
        try:
            head = OpenEXR.File(str(path), header_only=True, separate_channels=True)
            low, high = (np.asarray(corner, np.int64) for corner in head.header()["dataWindow"])
            check_size(*(int(side) for side in high - low + 1))
            file = OpenEXR.File(str(path), separate_channels=True)
            channels = {key: channel.pixels for key, channel in file.channels().items()}
        except RuntimeError as error:
            raise ValueError(str(error)) from error
    names = next((names for names in ("RGBA", "RGB", "YA", "Y") if set(names) == set(channels)), None)
    if names is None or len(file.parts) > 1:
        raise ImageError(
            f"cannot read {name}: its channels are {', '.join(channels)}; RGB or Y, with or without A, work"
        )
    samples = np.stack([channels[key] for key in names], axis=2).astype(np.float32)
    low, high = float(samples.min()), float(samples.max())
    if not (low >= 0 and high <= 1):
        raise ImageError(
            f"cannot read {name}: its floats lie between {low:g} and {high:g}; scale them to 0 to 1 first"
        )
    if names.endswith("A"):  # OpenEXR's colours are premultiplied
        colours, alpha = samples[..., :-1], samples[..., -1:]
        colours = np.divide(colours, alpha, out=np.zeros_like(colours), where=alpha > 0)
        return Decoded(np.concatenate([encode_srgb(np.minimum(colours, 1)), alpha], axis=2))
    return Decoded(encode_srgb(samples))
