"""Pictures as a browser shows them: 8-bit sRGB, upright, not too large, in the page itself."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from mmap import mmap
from pathlib import Path

import numpy as np
from PIL import Image

from mambair_cli.errors import ImageError, UsageError
from mambair_cli.images.decoding import MAX_PIXELS, open_picture
from mambair_cli.images.formats import FORMATS
from mambair_cli.images.libvips import LibvipsError, explained
from mambair_cli.images.picture import Header, InputFrames, ReadRows
from mambair_cli.images.resize_and_convert import resize_and_convert
from mambair_cli.images.row_reader import corrupt_error, wrap
from mambair_cli.images.samples import from_float, to_float
from mambair_cli.system.geometry import Region

MOST_PIXELS = 17_000_000  # of a picture in a page; larger ones are reduced
BAND_PIXELS = 2**20  # that are converted at a time: samples take several times the room of what is shown
LONGEST_SIDE = FORMATS["webp"].longest_side or 2**31  # pixels


@dataclass(frozen=True, eq=False)
class ScreenPicture:
    """A picture for the screen.

    Attributes:
        name: What people call it: what made it, or the name of its file.
        pixels: (h, w, 3) RGB or (h, w, 4) with straight alpha, uint8, sRGB.
        size: Width and height of the picture itself; ``pixels`` may be smaller.
        notes: What was done to show it, in a few words each.
        damage: Sentences about what is damaged in its file.
        frames: Number of pages or frames of its file, of which this is the first.
    """

    name: str
    pixels: np.ndarray
    size: tuple[int, int]
    notes: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()
    frames: int = 1


def tell_pictures(pictures: Sequence[ScreenPicture]) -> tuple[str, ...]:
    """Say what is damaged in the files of compared pictures, and which pages or frames are not shown."""
    warnings = []
    for picture in pictures:
        more = (f"the first of {picture.frames} pages or frames is shown",) if picture.frames > 1 else ()
        if about := (*picture.damage, *more):
            warnings.append(f"{picture.name}: {'; '.join(about)}")
    if len({picture.frames for picture in pictures}) > 1:
        numbers = ", ".join(f"{picture.name} has {picture.frames}" for picture in pictures)
        warnings.append(f"the numbers of pages or frames differ: {numbers}")
    return tuple(warnings)


def read_for_screen(
    file: Path | bytes | mmap,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    whole: bool = False,
    check: Callable[[], None] = lambda: None,
) -> ScreenPicture:
    """Read a picture from a file for the screen; of several frames, the first one.

    What is too large for the screen is reduced while it is read.

    Args:
        file: A file of any readable format, or its bytes.
        name: What people call it; its file's name by default.
        max_pixels: Largest number of pixels to read.
        whole: Whether to keep all pixels, however many, since a part of them will be shown.
        check: Called between bands of rows; its error ends the reading.

    Raises:
        ImageError: The file cannot be read.
    """
    name = name or (file.name if isinstance(file, Path) else "picture")
    with open_picture(file, max_pixels=max_pixels, damaged=True) as reader:
        header = reader.header
        # To twice the size at least; the rest by a better filter.
        step = 1 if whole else max(int(0.5 / _share_for_screen(header.width, header.height)), 1)
        pixels, notes = _read_reduced(header, reader.read, name, step, check)
    if header.frames > 1:
        notes.append(f"the first of {header.frames} pages or frames")
    notes += reader.warnings
    shown = fit_to_screen(name, pixels, tuple(notes), whole, (header.width, header.height))
    return replace(shown, damage=tuple(reader.warnings), frames=header.frames)


def _read_reduced(
    header: Header, read: ReadRows, name: str, step: int, check: Callable[[], None]
) -> tuple[np.ndarray, list[str]]:
    """Read a picture as :func:`convert_for_screen` does, each square of ``step`` pixels as their mean."""
    pixels, notes = np.empty(0, np.uint8), []
    rows = max(BAND_PIXELS // header.width // step, 1) * step
    for top in range(0, header.height, rows):
        check()
        band, notes = convert_for_screen(read(top, min(top + rows, header.height)), header, name)
        if step > 1:
            gray = band.shape[2] == 1
            band = np.asarray(Image.fromarray(band[..., 0] if gray else band).reduce(step))
            band = band[..., None] if gray else band
        if top == 0:
            pixels = np.empty((-(-header.height // step), *band.shape[1:]), np.uint8)
        pixels[top // step : top // step + len(band)] = band
    return pixels, notes


def _share_for_screen(width: int, height: int) -> float:
    """Return the factor by which a picture of that size is reduced; from 1 on it is not."""
    return min((MOST_PIXELS / (height * width)) ** 0.5, LONGEST_SIDE / max(height, width))


def fit_to_screen(
    name: str,
    pixels: np.ndarray,
    notes: tuple[str, ...] = (),
    whole: bool = False,
    size: tuple[int, int] | None = None,
) -> ScreenPicture:
    """Make a picture for the screen of pixels, reduced where they, or those of a side, are too many.

    Args:
        name: What people call it.
        pixels: (h, w, 1, 3 or 4) uint8, sRGB.
        notes: What was done to it so far.
        whole: Whether to keep all pixels, however many, since a part of them will be shown.
        size: Width and height of the picture, where pixels are fewer.
    """
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    width, height = size or (pixels.shape[1], pixels.shape[0])
    share = _share_for_screen(width, height)
    if share < 1 and not whole:
        shown = max(round(width * share), 1), max(round(height * share), 1)
        pixels = np.asarray(Image.fromarray(pixels).resize(shown, Image.Resampling.LANCZOS))
        notes = (*notes, f"reduced from {width}×{height}; --region shows a part in full")
    return ScreenPicture(name, pixels, (width, height), notes)


def convert_for_screen(samples: np.ndarray, header: Header, name: str) -> tuple[np.ndarray, list[str]]:
    """Convert samples to 8-bit sRGB.

    Args:
        samples: (h, w, c) of any dtype that ``to_float`` takes: colours, alpha and masks; the latter are
            left out.
        header: What they are; its size does not count.
        name: Name of the file, for the error.

    Returns:
        The pixels, (h, w, 1, 3 or 4) uint8, and what that took, in a few words each.

    Raises:
        ImageError: The profile is corrupt.
    """
    notes: list[str] = []
    colours = samples[..., : header.bands]
    if header.dtype != "uint8":
        notes.append("from 16 bits" if header.dtype == "uint16" else "from floating point")
    if header.icc is not None:
        colours = _convert_to_srgb(colours, header, name)
        notes.append("converted to sRGB by its profile")
    pixels = from_float(to_float(colours), np.uint8)
    if header.has_alpha:
        alpha = from_float(to_float(samples[..., header.bands : header.bands + 1]), np.uint8)
        pixels = np.concatenate([pixels.repeat(4 - pixels.shape[2], axis=2)[..., :3], alpha], axis=2)
    return np.ascontiguousarray(pixels), notes


def _convert_to_srgb(colours: np.ndarray, header: Header, name: str) -> np.ndarray:
    """Convert colours by the header's profile, (h, w, 1 or 3)."""
    height, width = colours.shape[:2]
    plain = Header(width, height, header.bands, "uint16", icc=header.icc)
    try:
        with explained():
            image = wrap(from_float(to_float(colours), np.uint16), header.bands)
            converted = resize_and_convert(image, plain, InputFrames(width, height), True).numpy()
    except LibvipsError as error:
        raise corrupt_error(name, header.format, str(error)) from error
    return converted.reshape(colours.shape)


def show_region(pictures: Sequence[ScreenPicture], region: Region) -> list[ScreenPicture]:
    """Cut the same part out of pictures of different sizes; its borders fall on pixels of the smallest one.

    Args:
        pictures: Pictures of one shape.
        region: The part, in pixels of the largest one.

    Raises:
        UsageError: It leaves the pictures.
    """
    widths, heights = ([picture.pixels.shape[axis] for picture in pictures] for axis in (1, 0))
    if region.left + region.width > max(widths) or region.top + region.height > max(heights):
        largest = pictures[widths.index(max(widths))]
        raise UsageError(
            f"the region {region} leaves the picture {largest.name}: it has {max(widths)}×{max(heights)} "
            "pixels"
        )
    cuts = []
    for start, length, sides in ((region.top, region.height, heights), (region.left, region.width, widths)):
        step = max(sides) / min(sides)
        first, end = math.floor(start / step), min(min(sides), math.ceil((start + length) / step))
        cuts.append([slice(*(round(edge * side / min(sides)) for edge in (first, end))) for side in sides])
    return [
        replace(
            fit_to_screen(picture.name, np.ascontiguousarray(picture.pixels[rows, columns]), picture.notes),
            damage=picture.damage,
            frames=picture.frames,
        )
        for picture, rows, columns in zip(pictures, *cuts, strict=True)
    ]


def enlarge(picture: ScreenPicture, width: int, height: int, name: str) -> ScreenPicture:
    """Enlarge a picture by bicubic interpolation.

    Args:
        picture: The picture.
        width: Width of the result, in pixels.
        height: Height of the result, in pixels.
        name: Name of the result.
    """
    image = Image.fromarray(picture.pixels).resize((width, height), Image.Resampling.BICUBIC)
    return ScreenPicture(name, np.asarray(image), (width, height), ("enlarged by bicubic interpolation",))


def to_address(pixels: np.ndarray, thumbnail: int | None = None) -> str:
    """Write a picture as an address that holds it: lossless WebP, or a small lossy one.

    Args:
        pixels: (h, w, 3 or 4) uint8.
        thumbnail: Longest side of a small picture, in pixels; None for the picture itself.

    Raises:
        ImageError: The picture cannot be encoded.
    """
    return "data:image/webp;base64," + base64.b64encode(encode_for_screen(pixels, thumbnail)).decode()


def encode_for_screen(pixels: np.ndarray, thumbnail: int | None = None) -> bytes:
    """Encode a picture as WebP; arguments and errors as for :func:`to_address`."""
    image, file = Image.fromarray(pixels), io.BytesIO()
    try:
        if thumbnail is not None:
            image.thumbnail((thumbnail, thumbnail))
            image.save(file, "WEBP", quality=80)
        else:
            image.save(file, "WEBP", lossless=True, quality=0, method=0, exact=True)
    except (OSError, ValueError) as error:
        height, width = pixels.shape[:2]
        raise ImageError(
            f"cannot show a picture of {width}×{height} pixels: {error}; smaller ones can be shown"
        ) from error
    return file.getvalue()
