"""Decode the formats that the usual builds of libvips do not read; such images are held in memory whole."""

import re
import struct
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mambair_cli.errors import ImageError, ShortageError
from mambair_cli.images.avif_frames import read_avif_frames
from mambair_cli.images.dds import read_dds
from mambair_cli.images.file_profile import find_exr_profile
from mambair_cli.images.float64_tiff import read_float64_tiff
from mambair_cli.images.icons import read_icon
from mambair_cli.images.iso_boxes import find_box
from mambair_cli.images.lazy_image import LazyImage
from mambair_cli.images.picture import Metadata
from mambair_cli.images.samples import encode_srgb, fit_range, widen
from mambair_cli.images.targa import read_targa
from mambair_cli.images.temporary import explain_unkept, find_temporary_folder
from mambair_cli.images.trailing_images import name_read_image, several_images_error
from mambair_cli.system.wording import show

_METRES_PER_INCH = 0.0254
_RESOLUTION_BYTES = 10  # of a box of JP2 files

# Errors of Pillow, libavif, OpenEXR and numpy for corrupt files.
_CORRUPT = (
    *(OSError, SyntaxError, ValueError, KeyError, IndexError, EOFError),
    *(ArithmeticError, RuntimeError, struct.error),
)


class BrokenImageError(Exception):
    """The data is no image of its format; the message is the reason, in one line."""


def read_header(format: str, data: bytes, name: str) -> LazyImage:
    """Read the header of a file.

    Args:
        format: "bmp", "tga", "dds", "pcx", "ppm", "jpeg2000", "heic", "exr", "ico", "tiff" of 64-bit floats,
            or animated "avif".
        data: Bytes of the file.
        name: Name of the file, for errors.

    Raises:
        BrokenImageError: The data is corrupt.
        ImageError: Part of the picture would be lost, or a package is missing.
        ShortageError: The temporary folder has no room for the file.
    """
    readers = {
        "bmp": _bmp,
        "tga": read_targa,
        "dds": read_dds,
        "pcx": _pcx,
        "ppm": _netpbm,
        "jpeg2000": _jpeg2000,
        "heic": _heic,
        "exr": _exr,
        "ico": read_icon,
        "tiff": read_float64_tiff,
        "avif": read_avif_frames,
    }
    try:
        image = readers[format](data, name)
    except ModuleNotFoundError as error:
        raise ImageError(
            f"cannot read {name}: {format} needs the package {error.name}; "
            f"pip install 'mambair-cli[{format}]' brings it"
        ) from error
    except _CORRUPT as error:
        raise BrokenImageError(show(str(error).strip())) from error

    def load() -> np.ndarray:
        try:
            height, width, count = image.shape
            return image.load().reshape(height * image.frames, width, count)
        except _CORRUPT as error:
            raise BrokenImageError(show(str(error).strip())) from error

    return replace(image, load=load)


_BMP_HEAD_BYTES, _BMP5_BYTES = 14, 124  # before the header of the image, and that header


def _bmp(data: bytes, name: str) -> LazyImage:
    from PIL.BmpImagePlugin import BmpImageFile  # Image.open would warn about sizes that are allowed here

    image = BmpImageFile(BytesIO(data))
    mode = {"1": "L", "L": "L", "RGBA": "RGBA"}.get(image.mode, "RGB")
    shape = (image.height, image.width, len(mode))
    icc, metadata = _find_bmp_profile(data), Metadata(dpi=image.info.get("dpi"))
    return LazyImage(shape, "uint8", lambda: np.array(image.convert(mode)), icc=icc, metadata=metadata)


def _find_bmp_profile(data: bytes) -> bytes | None:
    """Return the profile that is embedded in a BMP file of version 5, which Pillow does not read."""
    (length,) = struct.unpack_from("<I", data, _BMP_HEAD_BYTES)
    if length < _BMP5_BYTES or data[_BMP_HEAD_BYTES + 56 :][:4] != b"DEBM":
        return None
    start, size = struct.unpack_from("<II", data, _BMP_HEAD_BYTES + 112)
    return data[_BMP_HEAD_BYTES + start :][:size] or None


_PCX_HEADER_BYTES, _PCX_RUN = 128, 63  # the longest run, in bytes


def _pcx(data: bytes, name: str) -> LazyImage:
    """Read Paintbrush files: black and white, 16 or 256 colours, gray or RGB."""
    from PIL.PcxImagePlugin import PcxImageFile  # Image.open would warn about sizes that are allowed here

    version, bits, planes = data[1], data[3], data[65]
    left, top, right, bottom = struct.unpack_from("<4H", data, 4)
    (line,) = struct.unpack_from("<H", data, 66)
    plain = ((right - left + 1) * bits + 7) // 8
    kinds = {(1, 1): (0, 2, 3, 5), (1, 4): (2, 5), (8, 1): (5,), (8, 3): (5,)}
    if version not in kinds.get((bits, planes), ()) or line not in (plain, plain + plain % 2):
        raise ImageError(
            f"cannot read {name}: PCX of version {version} with planes of {bits} bits ({planes} in all) "
            f"and lines of {line} bytes is not read; convert it to PNG first"
        )
    needed = (bottom - top + 1) * planes * line * 2 / _PCX_RUN  # a run has two bytes
    if len(data) - _PCX_HEADER_BYTES < needed:  # before memory is taken for them
        raise ValueError(f"it ends after {len(data)} of at least {_PCX_HEADER_BYTES + int(needed)} bytes")
    image = PcxImageFile(BytesIO(data))
    mode = "L" if image.mode in ("1", "L") else "RGB"
    shape, dpi = (image.height, image.width, len(mode)), image.info["dpi"]
    # Unequal numbers are the sizes of a screen, as many programs wrote them.
    dpi = dpi if dpi[0] == dpi[1] else None
    return LazyImage(shape, "uint8", lambda: np.array(image.convert(mode)), metadata=Metadata(dpi=dpi))


_BETWEEN_NUMBERS = rb"(?:\s|#[^\n\r]*[\n\r])"
_NUMBER = _BETWEEN_NUMBERS + rb"+(\d+)"


def _netpbm(data: bytes, name: str) -> LazyImage:
    """Read PBM, PGM and PPM, text and binary, of 8 and 16 bits; Pillow would reduce PPM to 8."""
    kind = int(data[1:2])
    is_bitmap, bands = kind in (1, 4), 3 if kind in (3, 6) else 1
    head = re.match(rb"P[1-6]" + _NUMBER * (2 if is_bitmap else 3) + _BETWEEN_NUMBERS, data)
    if head is None:
        raise ValueError("its header has no sizes")
    width, height, white = (int(number) for number in (*head.groups(), 1)[:3])
    if not (width and height and 1 <= white <= 65535):
        raise ValueError(f"its header says {width}×{height} pixels up to {white}")
    dtype = np.uint8 if white < 256 else np.uint16
    line = -(-width // 8) if kind == 4 else width * bands
    if _has_more_netpbm(kind, data, head.end(), height * line, white):
        raise several_images_error(name)

    def load() -> np.ndarray:
        total = width * height * bands
        samples = _netpbm_samples(kind, data[head.end() :], total, width, is_deep=white > 255)
        if samples.size != total:
            raise ValueError(f"it ends after {samples.size} of {total} samples")
        if samples.max() > white:
            raise ValueError(f"a sample is larger than its white, {white}")
        if is_bitmap:
            samples = 1 - samples  # 1 is ink
        full = np.iinfo(dtype).max
        if white != full:
            samples = (samples.astype(np.uint32) * full + white // 2) // white
        return samples.astype(dtype)

    return LazyImage((height, width, bands), np.dtype(dtype).name, load)


def _has_more_netpbm(kind: int, data: bytes, start: int, count: int, white: int) -> bool:
    """Tell whether another image follows the first.

    Args:
        kind: Number of the first image's format, 1 to 6.
        data: Bytes of the file.
        start: Offset of the first image's samples.
        count: Number of its samples, or of their bytes where they are bits.
        white: Largest sample.
    """
    if kind < 4:
        return re.search(rb"\sP[1-6]\s", data[start:]) is not None
    end = start + count * (2 if white > 255 else 1)
    return re.match(rb"\s{0,2}P[1-6]\s", data[end : end + 8]) is not None


def _netpbm_samples(kind: int, body: bytes, total: int, row: int, is_deep: bool) -> np.ndarray:
    """Return the samples behind a header, fewer where some are missing."""
    if kind < 4:
        numbers = re.findall(rb"[01]" if kind == 1 else rb"\d+", re.sub(rb"#[^\n\r]*", b"", body))[:total]
        if max(map(len, numbers), default=0) > 5:  # above 65535; int() of a very long one takes forever
            raise ValueError("a sample is larger than any white")
        return np.array(numbers, dtype="S5").astype(np.uint32)
    if kind > 4:
        dtype = np.dtype(">u2" if is_deep else np.uint8)
        return np.frombuffer(body, dtype, min(total, len(body) // dtype.itemsize))
    line = (row + 7) // 8
    lines = min(total // row, len(body) // line)
    bits = np.frombuffer(body, np.uint8, lines * line).reshape(lines, line)
    return np.unpackbits(bits, axis=1)[:, :row].astype(np.uint32)


def _jpeg2000(data: bytes, name: str) -> LazyImage:
    from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

    start = data.index(b"\xff\x4f\xff\x51")
    (bands,) = struct.unpack_from(">H", data, start + 40)
    depth = max(((depth & 0x7F) + 1 for depth in data[start + 42 : start + 42 + 3 * bands : 3]), default=8)
    if bands > 1 and depth > 8:
        raise ImageError(
            f"cannot read {name}: JPEG 2000 in colour is read with 8 bits, not {depth}; "
            "convert it to TIFF first"
        )
    image = Jpeg2KImageFile(BytesIO(data))
    if image.mode not in ("L", "LA", "RGB", "RGBA", "I;16"):
        raise ImageError(f"cannot read {name}: it is of the kind {image.mode}; convert it to TIFF first")
    is_deep = image.mode == "I;16"

    def load() -> np.ndarray:
        samples = np.array(image)
        return widen(samples, depth, shifted=False) if is_deep and depth < 16 else samples

    shape = (image.height, image.width, 1 if is_deep else len(image.mode))
    dtype = "uint16" if is_deep else "uint8"
    metadata = Metadata(dpi=_find_jp2_resolution(data[:start]))
    return LazyImage(shape, dtype, load, icc=_find_jp2_profile(data[:start]), metadata=metadata)


def _find_jp2_resolution(boxes: bytes) -> tuple[float, float] | None:
    """Return the pixels per inch of a JP2 file; None where it has none. Pillow knows no negative exponents.

    Source: ISO/IEC 15444-1, I.5.3.7.
    """
    for kind in (b"resc", b"resd"):  # of the capture, and to be shown by
        box = find_box(boxes, (b"jp2h", b"res ", kind), 0, len(boxes))
        if box is not None and box.end - box.start >= _RESOLUTION_BYTES:
            y, below_y, x, below_x, exponent_y, exponent_x = struct.unpack_from(">HHHHbb", boxes, box.start)
            sides = ((x, below_x, exponent_x), (y, below_y, exponent_y))
            if below_x and below_y:
                across, down = (a / b * 10.0**exponent * _METRES_PER_INCH for a, b, exponent in sides)
                return across, down
    return None


def _find_jp2_profile(boxes: bytes) -> bytes | None:
    """Return the ICC profile of a JP2 file, which Pillow does not read."""
    at = boxes.find(b"colr")
    if at < 4 or boxes[at + 4 : at + 5] != b"\x02":  # 1: a colour space by its number
        return None
    (length,) = struct.unpack_from(">I", boxes, at - 4)
    return boxes[at + 7 : at - 4 + length] or None


def _heic(data: bytes, name: str) -> LazyImage:
    import pillow_heif

    try:
        file = pillow_heif.open_heif(data, convert_hdr_to_8bit=False)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    bits = file.info.get("bit_depth", 8)
    first, count = file.primary_index, len(file)
    is_deep = file.mode.endswith(";16")

    def load() -> np.ndarray:
        try:
            samples = np.asarray(file)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        return widen(samples, bits) if is_deep else samples

    width, height = file.size  # upright: the library rotates images itself
    return LazyImage(
        (height, width, len(file.mode.removesuffix(";16"))),
        "uint16" if is_deep else "uint8",
        load,
        icc=file.info.get("icc_profile"),
        metadata=Metadata(exif=file.info.get("exif"), xmp=file.info.get("xmp")),
        warnings=(name_read_image(first + 1, count),) if count > 1 else (),
    )


def _exr(data: bytes, name: str) -> LazyImage:
    """Read OpenEXR, and convert its linear light to samples by sRGB's curve."""
    head = _open_exr(data, name, header_only=True)
    channels = {channel.name for channel in head.header()["channels"]}
    names = next((names for names in ("RGBA", "RGB", "YA", "Y") if set(names) == channels), None)
    if names is None or len(head.parts) > 1:
        raise ImageError(
            f"cannot read {name}: its channels are {', '.join(sorted(channels))}; "
            "RGB or Y, with or without A, work"
        )
    header, warnings = head.header(), []
    width, height = _measure(header["dataWindow"])
    if np.any(np.asarray(header["dataWindow"]) != np.asarray(header["displayWindow"])):
        whole = "×".join(map(str, _measure(header["displayWindow"])))
        warnings.append(f"its pixels, {width}×{height} (dataWindow), are read, not its frame of {whole}")
    icc = find_exr_profile(header.get("chromaticities"), names[0] == "Y", warnings)

    def load() -> np.ndarray:
        pixels = {key: channel.pixels for key, channel in _open_exr(data, name).channels().items()}
        samples = np.stack([pixels[key] for key in names], axis=2).astype(np.float32)
        samples, reason = fit_range(samples)
        if reason:
            raise ImageError(f"cannot read {name}: {reason}")
        if not names.endswith("A"):
            return encode_srgb(samples)
        colours, alpha = samples[..., :-1], samples[..., -1:]  # premultiplied, in OpenEXR
        colours = np.divide(colours, alpha, out=np.zeros_like(colours), where=alpha > 0)
        return np.concatenate([encode_srgb(np.minimum(colours, 1)), alpha], axis=2)

    return LazyImage((height, width, len(names)), "float32", load, icc=icc, warnings=tuple(warnings))


def _measure(window: Any) -> tuple[int, int]:
    """Return width and height of a window, which is given by two of its corners."""
    low, high = (np.asarray(corner, np.int64) for corner in window)
    width, height = high - low + 1
    return int(width), int(height)


def _open_exr(data: bytes, name: str, header_only: bool = False) -> Any:
    """Open OpenEXR data from a temporary file, since the library reads only files."""
    import OpenEXR

    place = find_temporary_folder()
    with ExitStack() as stack:
        try:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place)), "image.exr")
            path.write_bytes(data)
        except OSError as error:
            raise ShortageError(f"cannot read {name}: {explain_unkept(place, error, len(data))}") from error
        try:
            return OpenEXR.File(str(path), header_only=header_only, separate_channels=True)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
