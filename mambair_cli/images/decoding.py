"""Read image files: row after row, or into pictures.

libvips does most of the decoding. It is handed open files, never a file name: in names it would take
``[...]`` for options, and its cache of results could answer for a file that has changed since. Which of its
loaders runs is decided here, by the first bytes; left to itself it would also render SVG and parse CSV.
"""

import mmap
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips

from mambair_cli.errors import ImageError
from mambair_cli.images import foreign
from mambair_cli.images.completion import count_apng_frames, read_png_colours, read_png_dpi
from mambair_cli.images.files import explain_unreadable, show
from mambair_cli.images.jpeg import find_start, mend
from mambair_cli.images.libvips import LibvipsError, explained
from mambair_cli.images.metadata import (
    extract_exif,
    find_iptc,
    has_gray_planes,
    is_camera_raw,
    restate_exif,
    restate_xmp,
)
from mambair_cli.images.picture import BAND_FORMATS, INTERPRETATIONS, Header, Picture
from mambair_cli.images.reader import Loaded, Reader, broken, wrap
from mambair_cli.images.signatures import SIGNATURE_BYTES, identify

MAX_PIXELS = 2**30

_LOADERS = {"png": "png", "jpeg": "jpeg", "webp": "webp", "tiff": "tiff", "gif": "gif", "avif": "heif"}
_FRAMED = ("gif", "webp", "tiff")
_HELD = ("webp", "avif")
_MM_PER_INCH = 25.4
_MOST_DPI = 1e6
_DISPLAY_P3, _BT2020, _HDR_CURVES = 12, 9, (16, 18)  # H.273's numbers; PQ and HLG
_ROWS_AT_ONCE = 256


@contextmanager
def open_picture(
    source: Path | bytes | mmap.mmap, *, max_pixels: int = MAX_PIXELS, damaged: bool = False
) -> Iterator[Reader]:
    """Open an image file of any readable format, whatever its name says.

    EXIF orientation is applied and CMYK is brought to sRGB through its profile; nothing else is converted.

    Args:
        source: A file, or what one holds, to be kept as long as it is read.
        max_pixels: Larger images are refused before anything is decoded; frames count.
        damaged: Whether to read what is there of a file of which a part is missing, too.

    Raises:
        ImageError: The file cannot be read, or part of it would be lost or made up.
    """
    if not isinstance(source, Path):
        reader = _open(_Data("the image", source), max_pixels, damaged)
        yield reader
        reader.close()
        return
    name = show(source)
    try:
        with source.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):  # a pipe can be read once
                data = file.read()
            else:
                identify(file.read(SIGNATURE_BYTES), name)  # an empty file cannot be mapped
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise explain_unreadable(source, error) from error
    if isinstance(data, bytes):
        with open_picture(data, max_pixels=max_pixels, damaged=damaged) as reader:
            yield reader
        return
    with data:
        reader = _open(_Data(name, data, lambda: _reopen(source, status)), max_pixels, damaged)
    yield reader
    reader.close()


@contextmanager
def _reopen(path: Path, status: os.stat_result) -> Iterator[BinaryIO]:
    """Open a file once more, if it is still the one it was."""
    try:
        with path.open("rb") as file:
            now = os.fstat(file.fileno())
            same = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
            if any(getattr(now, key) != getattr(status, key) for key in same):
                raise ImageError(f"cannot read {show(path)}: it changes while it is read; try again")
            yield file
    except OSError as error:
        raise explain_unreadable(path, error) from error


def read_picture(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, damaged: bool = False) -> Picture:
    """Read an image file as a whole, as :func:`open_picture` does.

    Raises:
        ImageError: As there, and for more pages or frames than one.
    """
    with open_picture(source, max_pixels=max_pixels, damaged=damaged) as reader:
        header = reader.header
        if header.frames > 1:
            name = "the image" if isinstance(source, bytes) else show(source)
            raise ImageError(
                f"cannot read {name}: it holds {header.frames} pages or frames; split it into single images"
            )
        samples = np.empty((header.height, header.width, header.samples), header.dtype)
        for top in range(0, header.height, _ROWS_AT_ONCE):
            bottom = min(top + _ROWS_AT_ONCE, header.height)
            samples[top:bottom] = reader.read(top, bottom)
    return Picture(
        pixels=np.ascontiguousarray(samples[..., : header.bands]),
        alpha=np.ascontiguousarray(samples[..., header.bands]) if header.has_alpha else None,
        format=header.format,
        icc=header.icc,
        exif=header.exif,
        xmp=header.xmp,
        iptc=header.iptc,
        dpi=header.dpi,
        warnings=tuple(reader.warnings),
    )


@dataclass(frozen=True)
class _Data:
    """What a file holds.

    Attributes:
        name: Of the file, for errors.
        bytes: What it holds; of a file on the disk, as long as its header is read.
        reopen: Opens that file once more; None for what is in memory anyway.
    """

    name: str
    bytes: Any
    reopen: Callable[[], AbstractContextManager[BinaryIO]] | None = None

    def source(self) -> Any:
        """Return a source for libvips, a new one at each call."""
        if self.reopen is None:
            return pyvips.Source.new_from_memory(memoryview(self.bytes))
        with self.reopen() as file:
            return pyvips.Source.new_from_descriptor(file.fileno())  # which keeps a copy of it

    def read(self) -> Any:
        """Return all of it."""
        if self.reopen is None:
            return self.bytes
        with self.reopen() as file:
            return file.read()


def _open(data: _Data, max_pixels: int, damaged: bool) -> Reader:
    format = identify(data.bytes[:SIGNATURE_BYTES], data.name)
    if format not in _LOADERS:
        return _open_foreign(data, format, max_pixels)
    if format == "tiff" and is_camera_raw(data.bytes):
        raise ImageError(f"cannot read {data.name}: it is a camera's raw file; develop it to TIFF first")
    if format == "tiff" and has_gray_planes(data.bytes):
        raise ImageError(
            f"cannot read {data.name}: gray and alpha lie in planes of their own; save it with them together"
        )
    if format == "png" and (frames := count_apng_frames(data.bytes)) > 1:
        raise ImageError(
            f"cannot read {data.name}: it is an animated PNG of {frames} frames; convert it to WebP first"
        )
    try:
        with explained():
            return _open_with_vips(data, format, max_pixels, damaged)
    except LibvipsError as error:
        raise broken(data.name, format, str(error)) from error


def _open_with_vips(data: _Data, format: str, max_pixels: int, damaged: bool) -> Reader:
    """Read the header of what libvips decodes."""

    def load(source: Any = None, fail_on: str = "error", **options: Any) -> Any:
        # Gray rows where a file was cut short are no image, unless they are asked for.
        source = data.source() if source is None else source
        return pyvips.Operation.call(f"{_LOADERS[format]}load_source", source, fail_on=fail_on, **options)

    options: dict[str, Any] = {"access": "sequential"}
    start = find_start(data.bytes) if format == "jpeg" else 0
    image = load(pyvips.Source.new_from_memory(data.read()[start:]) if start else None, **options)
    frames = (_field(image, "n-pages") or 1) if format in _FRAMED else 1
    _check_size(image.width, image.height * frames, max_pixels, data.name)
    orientation = _field(image, "orientation") or 1
    if frames > 1:
        if orientation != 1:
            raise ImageError(
                f"cannot read {data.name}: its {frames} pages are turned; split it into single images"
            )
        options["n"] = -1
        try:
            image = load(**options)
        except pyvips.Error as error:
            raise ImageError(
                f"cannot read {data.name}: its {frames} pages differ in size or kind; "
                "split it into single images"
            ) from error
    elif orientation > 2:
        options["access"] = "random"
    bands = _count_colours(image, data.name)
    dpi = _read_dpi(image, format, data.bytes)
    if dpi and orientation >= 5:
        dpi = dpi[1], dpi[0]
    exif = extract_exif(data.bytes) if format == "tiff" else _field(image, "exif-data")
    xmp = _field(image, "xmp-data")
    bits = _field(image, "bits-per-sample") if format == "avif" and image.format == "ushort" else 16

    mended = cache(lambda: mend(data.read()))  # asked for when rows are

    def prepare(lenient: bool) -> Loaded:
        if format != "jpeg":
            loaded = Loaded(load(fail_on="none" if lenient else "error", **options), forgives=damaged)
        else:
            jpeg = mended()
            source = pyvips.Source.new_from_memory(jpeg.data)
            longer = load(source, "none" if lenient else "warning", **options)
            fault = "its last scans are missing" if jpeg.lacks_scans and not jpeg.has_end else None
            loaded = Loaded(longer, damaged or jpeg.has_end, jpeg.warnings, fault)
        decoded = loaded.image
        if orientation > 2:
            decoded = decoded.crop(0, 0, image.width, image.height)
        if image.interpretation == "cmyk":
            decoded = _to_srgb(decoded)
        return replace(loaded, image=_turn_upright(decoded, orientation))

    shown = _to_srgb(load(**options)) if image.interpretation == "cmyk" else image
    width, height = image.width, image.height // frames
    if orientation >= 5:
        width, height = height, width
    exif = restate_exif(exif, width, height) if exif else None
    delays = _field(image, "delay") if frames > 1 else None
    header = Header(
        width=width,
        height=height,
        bands=bands,
        dtype={vips: name for name, vips in BAND_FORMATS.items()}[shown.format],
        has_alpha=shown.bands > bands,
        format=format,
        frames=frames,
        delays=tuple(delays[:frames]) if delays else None,
        loop=_field(image, "loop") or 0,
        icc=_find_profile(data, format, _field(shown, "icc-profile-data")),
        exif=exif,
        xmp=restate_xmp(xmp, width, height) if xmp else None,
        iptc=_field(image, "iptc-data") if format == "jpeg" else find_iptc(exif),
        dpi=dpi,
    )
    is_whole = format in _HELD or bool(_field(image, "interlaced"))
    return Reader(
        header,
        prepare,
        data.name,
        bits,
        is_whole=is_whole,
        is_turned=orientation > 2,
    )


def _find_profile(data: _Data, format: str, icc: bytes | None) -> bytes | None:
    """Return the profile of a file, or one for what PNG, AVIF and HEIC say of their colours by numbers.

    Source: ITU-T H.273, tables 2 and 3.
    """
    numbers = None
    if format == "png":
        numbers = read_png_colours(data.bytes)
    elif format in ("avif", "heic") and icc is None:
        at = data.bytes.find(b"colrnclx")
        if 0 <= at <= len(data.bytes) - 12:
            numbers = struct.unpack(">HH", data.bytes[at + 8 : at + 12])
    if numbers is None:
        return icc
    primaries, transfer = numbers
    if transfer in _HDR_CURVES or primaries == _BT2020:
        raise ImageError(
            f"cannot read {data.name}: its colours are those of HDR (primaries {primaries}, curve {transfer})"
            "; convert it to sRGB or Display P3 first"
        )
    return pyvips.Operation.call("profile_load", "p3") if primaries == _DISPLAY_P3 else icc


def _open_foreign(data: _Data, format: str, max_pixels: int) -> Reader:
    """Read the header of what libvips does not decode."""
    try:
        image = foreign.read_header(format, bytes(data.bytes), data.name)
    except foreign.BrokenImageError as error:
        raise broken(data.name, format, str(error)) from error
    height, width, count = image.shape
    _check_size(width, height, max_pixels, data.name)

    def load(lenient: bool) -> Loaded:
        try:
            return Loaded(wrap(image.load()))
        except foreign.BrokenImageError as error:
            raise broken(data.name, format, str(error)) from error

    bands = count - (count % 2 == 0)
    header = Header(
        width=width,
        height=height,
        bands=bands,
        dtype=image.dtype,
        has_alpha=count > bands,
        format=format,
        icc=_find_profile(data, format, image.icc),
        exif=restate_exif(image.exif, width, height) if image.exif else None,
        xmp=restate_xmp(image.xmp, width, height) if image.xmp else None,
        dpi=_sensible_dpi(image.dpi),
    )
    return Reader(header, load, data.name, is_whole=True, warnings=image.warnings)


def _check_size(width: int, height: int, max_pixels: int, name: str) -> None:
    """Refuse an image by its header, before it fills the memory."""
    if width * height > max_pixels:
        raise ImageError(
            f"cannot read {name}: it has {width}×{height} pixels, more than {max_pixels}; "
            "cut it into parts, or allow more with --max-pixels"
        )


def _count_colours(image: Any, name: str) -> int:
    """Count the bands that the picture will have besides alpha, or refuse what is no such picture."""
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


def _turn_upright(image: Any, orientation: int) -> Any:
    """Apply an EXIF orientation, 1 to 8."""
    if orientation in (5, 7):
        image = image.rot90().fliphor()
    elif orientation in (6, 8):
        image = image.rot90() if orientation == 6 else image.rot270()
    elif orientation in (3, 4):
        image = image.rot180() if orientation == 3 else image.flipver()
    elif orientation == 2:
        image = image.fliphor()
    return image.rot180() if orientation == 7 else image


def _read_dpi(image: Any, format: str, data: Any) -> tuple[float, float] | None:
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
