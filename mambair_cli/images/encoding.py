"""Write pictures to image files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyvips

from mambair_cli.errors import ImageError
from mambair_cli.images.files import enumerate_names, open_atomic, show
from mambair_cli.images.libvips import LibvipsError, explained
from mambair_cli.images.metadata import (
    complete_jpeg,
    complete_png,
    complete_tiff,
    complete_webp,
    restate_exif,
)
from mambair_cli.images.picture import BAND_FORMATS, INTERPRETATIONS, Picture
from mambair_cli.images.samples import from_float, to_float

DEFAULT_QUALITY = 95

_NO_DPI = (72, 72)  # what libvips, too, takes for granted where a file does not tell
_MM_PER_INCH = 25.4
_BIGTIFF_BYTES = 3 * 2**30  # offsets end at 4 GiB; the rest is for alpha and what does not compress


@dataclass(frozen=True)
class _Container:
    """What a format has room for, and how libvips is to write it."""

    suffixes: tuple[str, ...]
    dtypes: tuple[str, ...]  # deepest last
    options: Mapping[str, Any]
    has_alpha: bool = True
    longest_side: int | None = None  # pixels
    longest_block: int | None = None  # bytes of EXIF or of XMP


_WRITABLE = MappingProxyType(
    {
        # Filters: without them, photographs take three times the room.
        "png": _Container((".png",), ("uint8", "uint16"), {"compression": 6, "filter": "all"}),
        "jpeg": _Container(
            (".jpg", ".jpeg", ".jpe", ".jfif"),
            ("uint8",),
            {"subsample_mode": "off"},
            has_alpha=False,
            longest_side=65500,
            longest_block=65502,
        ),
        # Exact: colours under transparent pixels are kept, too.
        "webp": _Container(
            (".webp",), ("uint8",), {"exact": True, "smart_subsample": True}, longest_side=16383
        ),
        "tiff": _Container(
            (".tif", ".tiff"), ("uint8", "uint16", "float32"), {"compression": "deflate", "resunit": "inch"}
        ),
    }
)
WRITABLE_SUFFIXES = MappingProxyType({format: held.suffixes for format, held in _WRITABLE.items()})


def format_of(path: Path) -> str:
    """Name the format that a file name asks for.

    Raises:
        ImageError: The suffix names none that can be written.
    """
    for format, container in _WRITABLE.items():
        if path.suffix.lower() in container.suffixes:
            return format
    suffix = f"the suffix {show(path.suffix)}" if path.suffix else "a name without a suffix"
    raise ImageError(
        f"cannot write {show(path)}: {suffix} asks for no format known here; "
        f"{enumerate_names(_WRITABLE)} can be written"
    )


def encode_picture(picture: Picture, format: str, quality: int | None = None) -> bytes:
    """Encode a picture as a file of the given format, metadata included.

    Samples deeper than the format holds are rounded to its deepest. Alpha is left out where it is opaque
    throughout and the format has none. Gray stays gray, except in WebP, which has only RGB.

    Args:
        picture: What to encode.
        format: ``"png"``, ``"jpeg"`` (never subsampled), ``"webp"`` or ``"tiff"`` (deflate).
        quality: 1 to 100 for JPEG and WebP, 95 if None; 100 is lossless for WebP. Others ignore it.

    Raises:
        ImageError: The format cannot be written, or has no room for the picture's size, alpha or metadata.
    """
    return _encode(picture, format, quality, f"the image as {format}")


def write_picture(
    picture: Picture,
    target: Path,
    *,
    overwrite: bool = False,
    format: str | None = None,
    quality: int | None = None,
) -> None:
    """Write a picture to a file, whole or not at all, as :func:`encode_picture` and :func:`open_atomic` do.

    Args:
        picture: What to write.
        target: The file; its suffix names the format.
        overwrite: Replace the file if there is one.
        format: For a name whose suffix names none.
        quality: As for :func:`encode_picture`.

    Raises:
        ImageError: The picture does not fit the format, the format not the suffix, or the file cannot be
            written.
    """
    if format is None or any(target.suffix.lower() in suffixes for suffixes in WRITABLE_SUFFIXES.values()):
        asked = format_of(target)
        if format not in (None, asked):
            raise ImageError(
                f"cannot write {show(target)} as {format}: its name asks for {asked}; change one"
            )
        format = asked
    with open_atomic(target, overwrite=overwrite) as file:
        file.write(_encode(picture, format, quality, show(target)))


def _encode(picture: Picture, format: str, quality: int | None, name: str) -> bytes:
    if format not in _WRITABLE:
        raise ImageError(f"cannot write {name}: no such format; {enumerate_names(_WRITABLE)} can be written")
    quality = DEFAULT_QUALITY if quality is None else quality
    if not 1 <= quality <= 100:
        raise ImageError(f"cannot write {name}: the quality is {quality}; 1 to 100 works")
    container = _WRITABLE[format]
    _check_room(picture, format, container, name)
    alpha = picture.alpha if container.has_alpha else None
    dtype = picture.pixels.dtype.name
    dtype = dtype if dtype in container.dtypes else container.dtypes[-1]

    image = _to_vips(picture.pixels, dtype)
    if alpha is not None:
        image = image.bandjoin(_to_vips(alpha[..., None], dtype))
    x, y = picture.dpi or _NO_DPI
    image = image.copy(xres=x / _MM_PER_INCH, yres=y / _MM_PER_INCH)
    iptc = picture.iptc if format == "jpeg" else None
    for field, block in (("icc-profile-data", picture.icc), ("xmp-data", picture.xmp), ("iptc-data", iptc)):
        if block:
            image.set_type(pyvips.GValue.blob_type, field, block)

    kept = pyvips.enums.ForeignKeep.ICC | pyvips.enums.ForeignKeep.XMP | pyvips.enums.ForeignKeep.IPTC
    options = {"keep": kept, **container.options}
    if format == "jpeg" or (format == "webp" and quality < 100):
        options["Q"] = quality
    elif format == "webp":
        options["lossless"] = True
    elif format == "tiff":
        options["predictor"] = "float" if dtype == "float32" else "horizontal"
        options["bigtiff"] = picture.pixels.nbytes > _BIGTIFF_BYTES
    try:
        with explained():
            data: bytes = pyvips.Operation.call(f"{format}save_buffer", image, **options)
    except LibvipsError as error:
        raise ImageError(f"cannot write {name}: {error}; another format may work") from error

    height, width = picture.pixels.shape[:2]
    exif = restate_exif(picture.exif, width, height) if picture.exif else None
    if format == "jpeg":
        return complete_jpeg(data, exif, picture.dpi)
    if format == "png":
        return complete_png(data, exif, picture.dpi)
    if exif and format == "webp":
        return complete_webp(data, exif, width, height, has_alpha=alpha is not None)
    return complete_tiff(data, exif) if exif else data


def _check_room(picture: Picture, format: str, container: _Container, name: str) -> None:
    """Refuse to write what the format would cut."""
    height, width = picture.pixels.shape[:2]
    if container.longest_side and max(height, width) > container.longest_side:
        raise ImageError(
            f"cannot write {name}: {format} has room for {container.longest_side} pixels a side, "
            f"not {width}×{height}; png and tiff hold it"
        )
    for kind, block in (("EXIF", picture.exif), ("XMP", picture.xmp)):
        if block and container.longest_block and len(block) > container.longest_block:
            raise ImageError(
                f"cannot write {name}: {format} has room for {container.longest_block} bytes of {kind}, "
                f"not {len(block)}; png, webp and tiff hold it"
            )
    if format == "webp" and picture.icc and picture.icc[16:20] == b"GRAY":
        raise ImageError(
            f"cannot write {name}: webp has no gray, nor room for its profile; png, jpeg and tiff keep it"
        )
    if picture.alpha is not None and not container.has_alpha:
        opaque = 1 if picture.alpha.dtype == np.float32 else np.iinfo(picture.alpha.dtype).max
        if picture.alpha.min() < opaque:
            raise ImageError(
                f"cannot write {name}: {format} has no room for transparency; png, webp and tiff keep it"
            )


def _to_vips(samples: np.ndarray, dtype: str) -> Any:
    """Wrap (h, w, bands) samples as a libvips image, rounded where they are deeper than ``dtype``."""
    if samples.dtype != dtype:
        samples = from_float(to_float(samples), dtype)
    height, width, bands = samples.shape
    memory = np.ascontiguousarray(samples).data.cast("B")
    image = pyvips.Image.new_from_memory(memory, width, height, bands, BAND_FORMATS[dtype])
    return image.copy(interpretation=INTERPRETATIONS[bands, dtype])
