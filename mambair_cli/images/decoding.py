"""Read image files into pictures.

libvips does the decoding. It is handed bytes, never a file name: in names it would take ``[...]`` for
options, and its cache of results could answer for a file that has changed since. Which of its loaders runs
is decided here, by the first bytes; left to itself it would also render SVG and parse CSV.
"""

import re
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyvips

from mambair_cli.errors import ImageError
from mambair_cli.images.files import enumerate_names, explain_unreadable, show
from mambair_cli.images.libvips import LibvipsError, explained
from mambair_cli.images.metadata import extract_exif, is_camera_raw, read_png_dpi, restate_exif
from mambair_cli.images.picture import BAND_FORMATS, INTERPRETATIONS, Picture

MAX_PIXELS = 2**30
READABLE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".gif", ".avif", ".bmp"}
)

_READABLE = {
    "png": rb"\x89PNG\r\n\x1a\n",
    "jpeg": rb"\xff\xd8\xff",
    "webp": rb"RIFF....WEBP",
    "tiff": rb"II[*+]\0|MM\0[*+]",
    "gif": rb"GIF8[79]a",
    "avif": rb"....ftyp(avi[fs]|mi[af]1|msf1)",
    "bmp": rb"BM",
}
_UNREADABLE = {
    "HEIC": rb"....ftyphe",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "PPM, PGM or PBM": rb"P[1-7]\s",
    "OpenEXR": rb"v/1\x01",
    "Photoshop": rb"8BPS",
    "PDF": rb"%PDF",
}
_SIGNATURE_BYTES = 16
_MM_PER_INCH = 25.4
_MOST_DPI = 1e6


def read_picture(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read an image file: PNG, JPEG, WebP, TIFF, AVIF, GIF or BMP, whatever its name says.

    EXIF orientation is applied and CMYK is brought to sRGB through its profile; nothing else is converted.

    Args:
        source: A file, or what one holds.
        max_pixels: Larger images are refused before anything is decoded.

    Raises:
        ImageError: The file cannot be read, or part of it would be lost or made up.
    """
    if isinstance(source, bytes):
        name, data = "the image", source
        format = _identify(data, name)
    else:
        name = show(source)
        try:
            with source.open("rb") as file:
                head = file.read(_SIGNATURE_BYTES)
                format = _identify(head, name)  # before a film of 8 GB is read whole
                data = head + file.read()
        except OSError as error:
            raise explain_unreadable(source, error) from error
    if format == "bmp":
        return _read_bmp(data, name, max_pixels)
    if format == "tiff" and is_camera_raw(data):
        raise ImageError(f"cannot read {name}: it is a camera's raw file; develop it to TIFF first")
    return _read_with_vips(data, format, name, max_pixels)


def _identify(head: bytes, name: str) -> str:
    """Tell a file's format by its first bytes."""
    if not head:
        raise ImageError(f"cannot read {name}: it is empty; try another copy of it")
    for format, pattern in _READABLE.items():
        if re.match(pattern, head, re.DOTALL):
            return format
    for kind, pattern in _UNREADABLE.items():
        if re.match(pattern, head, re.DOTALL):
            raise ImageError(f"cannot read {name}: it is a {kind} file; convert it to PNG or TIFF first")
    raise ImageError(
        f"cannot read {name}: it is no image of a known kind; {enumerate_names(_READABLE)} can be read"
    )


def _read_with_vips(data: bytes, format: str, name: str, max_pixels: int) -> Picture:
    """Decode what libvips reads."""
    loader = "heif" if format == "avif" else format
    try:
        with explained():
            image = pyvips.Operation.call(
                f"{loader}load_source",
                pyvips.Source.new_from_memory(data),
                access="sequential",
                fail_on="error",  # gray rows where a file was cut short are no image
            )
            _check_size(image.width, image.height, max_pixels, name)
            bands = _count_colours(image, format, name)
            if image.interpretation == "cmyk":
                image = _to_srgb(image)
            samples = image.numpy().reshape(image.height, image.width, image.bands)
    except LibvipsError as error:
        raise _broken(name, format, str(error)) from error
    if samples.dtype == np.float32:
        _check_range(samples, name)
    elif samples.dtype == np.uint16 and format == "avif":
        samples = _widen(samples, image.get("bits-per-sample"))

    orientation = _field(image, "orientation") or 1
    samples = _turn_upright(samples, orientation)
    dpi = _read_dpi(image, format, data)
    if dpi and orientation >= 5:
        dpi = dpi[1], dpi[0]
    height, width = samples.shape[:2]
    exif = extract_exif(data) if format == "tiff" else _field(image, "exif-data")
    xmp = _field(image, "xmp-data")
    return Picture(
        pixels=np.ascontiguousarray(samples[..., :bands]),
        alpha=np.ascontiguousarray(samples[..., bands]) if samples.shape[2] > bands else None,
        format=format,
        icc=_field(image, "icc-profile-data"),
        exif=restate_exif(exif, width, height) if exif else None,
        xmp=re.sub(rb"(tiff:Orientation(?:\s*=\s*[\"']|>))[2-8]", rb"\g<1>1", xmp) if xmp else None,
        iptc=_field(image, "iptc-data") if format == "jpeg" else None,
        dpi=dpi,
    )


def _read_bmp(data: bytes, name: str, max_pixels: int) -> Picture:
    """Decode BMP, which the usual builds of libvips do not read."""
    from PIL.BmpImagePlugin import BmpImageFile  # Image.open would warn of sizes that are welcome here

    try:
        with BmpImageFile(BytesIO(data)) as image:
            _check_size(image.width, image.height, max_pixels, name)
            mode = {"1": "L", "L": "L", "RGBA": "RGBA"}.get(image.mode, "RGB")
            samples = np.array(image.convert(mode))
            dpi = _sensible_dpi(image.info.get("dpi"))
    except (OSError, SyntaxError, ValueError, KeyError, IndexError, struct.error) as error:
        raise _broken(name, "bmp", show(str(error))) from error
    samples = samples[..., None] if mode == "L" else samples
    return Picture(
        pixels=np.ascontiguousarray(samples[..., :3]),
        alpha=np.ascontiguousarray(samples[..., 3]) if mode == "RGBA" else None,
        format="bmp",
        dpi=dpi,
    )


def _check_size(width: int, height: int, max_pixels: int, name: str) -> None:
    """Refuse an image by its header, before it fills the memory."""
    if width * height > max_pixels:
        raise ImageError(
            f"cannot read {name}: it has {width}×{height} pixels, more than {max_pixels}; cut it into parts"
        )


def _count_colours(image: Any, format: str, name: str) -> int:
    """Count the bands that the picture will have besides alpha, or refuse what is no such picture."""
    pages = 1 if format == "avif" else _field(image, "n-pages") or 1
    if pages > 1:
        raise ImageError(f"cannot read {name}: it holds {pages} pages or frames; split it into single images")
    if image.format not in BAND_FORMATS.values():
        raise ImageError(
            f"cannot read {name}: its samples are of type {image.format}; "
            "convert them to 8 or 16 bits without a sign, or to 32-bit floats from 0 to 1"
        )
    if image.interpretation == "cmyk" and image.bands == 4 and image.format != "float":
        return 3
    for (bands, _), interpretation in INTERPRETATIONS.items():
        if image.interpretation == interpretation and image.bands in (bands, bands + 1):
            return bands
    raise ImageError(
        f"cannot read {name}: it has {image.bands} bands of kind {image.interpretation}; "
        "convert it to gray or RGB, with or without alpha"
    )


def _to_srgb(cmyk: Any) -> Any:
    """Convert by the embedded profile, or a usual one where there is none."""
    return cmyk.icc_transform(
        "srgb",
        embedded=True,
        input_profile="cmyk",
        intent="relative",
        black_point_compensation=True,
        depth=16 if cmyk.format == "ushort" else 8,
    )


def _check_range(samples: np.ndarray, name: str) -> None:
    """Refuse floats that are no fractions of white: to clip them unasked would lose what they mean."""
    low, high = float(samples.min()), float(samples.max())
    if not (low >= 0 and high <= 1):  # NaN, too, comes out of min() and max()
        raise ImageError(
            f"cannot read {name}: its floats lie between {low:g} and {high:g}; scale them to 0 to 1 first"
        )


def _widen(samples: np.ndarray, bits: int) -> np.ndarray:
    """Stretch samples of 10 or 12 bits, which libvips shifts up to 16, such that white is 65535."""
    white = 2**bits - 1
    return (((samples >> (16 - bits)).astype(np.uint32) * 65535 + white // 2) // white).astype(np.uint16)


def _turn_upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples


def _read_dpi(image: Any, format: str, data: bytes) -> tuple[float, float] | None:
    """Find out the resolution, where a file tells one."""
    if format == "png":
        return _sensible_dpi(read_png_dpi(data))
    if _field(image, "resolution-unit"):
        return _sensible_dpi((image.xres * _MM_PER_INCH, image.yres * _MM_PER_INCH))
    return None


def _sensible_dpi(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    """Round a resolution, as files keep it in other units, and take nonsense for none."""
    x, y = (round(side, 2) for side in dpi or (0, 0))
    return (x, y) if 0 < x < _MOST_DPI and 0 < y < _MOST_DPI else None


def _field(image: Any, name: str) -> Any:
    """Get a field of a libvips image, or None."""
    return image.get(name) if image.get_typeof(name) else None


def _broken(name: str, format: str, reason: str) -> ImageError:
    return ImageError(
        f"cannot read {name}: its {format} data is broken, cut short or of a rare kind ({reason}); "
        "try another copy, or save it as PNG in an image editor"
    )
