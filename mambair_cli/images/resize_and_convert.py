"""Reduce a picture, convert its colours and round its samples, on the way into a file."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mambair_cli.images.background import Colour, convert_colour, is_gray
from mambair_cli.images.libvips import pyvips
from mambair_cli.images.picture import BAND_FORMATS, INTERPRETATIONS, Header, InputFrames
from mambair_cli.images.plain_alpha import PlainAlpha
from mambair_cli.system.geometry import Wrap, wraps_x, wraps_y

_MOST_BY_KERNEL = 300  # largest factor by which a kernel of libvips reduces in one step
_REACH = 4  # pixels of the result on which one depends, to each side
_WHITE_16 = 65535


def choose_input_dtype(
    header: Header, frames: InputFrames, to_srgb: bool, background: Colour | None = None
) -> str:
    """Return the dtype that input rows should have so that samples are rounded only once."""
    if not frames.fit(header):
        return "float32"
    return "uint16" if to_srgb or background is not None else header.dtype


def resize_and_convert(
    image: Any,
    header: Header,
    frames: InputFrames,
    to_srgb: bool,
    background: Colour | None = None,
    masks: int = 0,
    plain: PlainAlpha | None = None,
) -> Any:
    """Bring an image to the size, colours and depth of its file.

    Args:
        image: Image of libvips, of the dtype of :func:`choose_input_dtype`; of one frame if it is to be
            reduced.
        header: Header of the file.
        frames: The frames as they come.
        to_srgb: Whether to convert from the header's profile to sRGB.
        background: Colour behind transparent pixels; the result then has no alpha.
        masks: Number of samples after colours and alpha, which are no part of the picture.
        plain: What was noted of alpha, where there is some and the image is to be reduced.
    """
    if not frames.fit(header):
        image = _reduce(image, header, frames, masks, plain)
    image, others = (image[: image.bands - masks], image[image.bands - masks :]) if masks else (image, None)
    if image.format in ("float", "double"):
        image = _round(image, "uint16" if to_srgb or background is not None else header.dtype)
        others = None if others is None else _round(others, header.dtype)
    elif others is not None and others.format != BAND_FORMATS[header.dtype]:  # they have that of the colours
        others = _round(others / _WHITE_16, header.dtype)
    image = _convert_picture(image, header, to_srgb, background)
    bands = image.bands - (image.bands % 2 == 0)
    if others is not None:
        image = image.bandjoin(others)
    return image.copy(interpretation=INTERPRETATIONS[bands, header.dtype])


class FrameReducer:
    """Reduces frames that come by rows, one after another.

    In one image of all frames, libvips would ask for rows of several at once, and each comes once.

    Args:
        header: Header of the result.
        frames: The frames as they come.
        samples: Number of samples of a pixel.
    """

    def __init__(self, header: Header, frames: InputFrames, samples: int) -> None:
        self._header, self._frames = header, frames
        self._frame = np.empty((frames.height, frames.width, samples), np.float32)
        self._rows = 0

    def forget(self) -> None:
        """Start again."""
        self._rows = 0

    def take(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Take the next rows, floats in [0, 1], and yield each frame that they complete, reduced."""
        while len(rows):
            room = self._frame[self._rows :]
            count = min(len(room), len(rows))
            room[:count] = rows[:count]
            self._rows, rows = (self._rows + count) % len(self._frame), rows[count:]
            if not self._rows:
                header = self._header
                size, masks = (header.height, header.width), len(header.masks)
                yield reduce_samples(self._frame, *size, self._frames.wrap, masks, header.dtype)


def reduce_samples(
    samples: np.ndarray,
    height: int,
    width: int,
    wrap: Wrap = "none",
    masks: int = 0,
    dtype: str = "float32",
) -> np.ndarray:
    """Reduce an image as one is reduced on the way into a file.

    Args:
        samples: (h, w, c) float32 in [0, 1]: 1 or 3 colours, alpha if there is some, and masks.
        height: Height of the result, in pixels.
        width: Width of the result, in pixels.
        wrap: Directions in which its edges meet.
        masks: Number of masks.
        dtype: Type of the samples that the result will have: less than half a step of alpha is nothing.

    Returns:
        (height, width, c) float32 in [0, 1].
    """
    count = samples.shape[2]
    has_alpha = (count - masks) % 2 == 0
    header = Header(width, height, count - masks - has_alpha, dtype, has_alpha=has_alpha)
    frames = InputFrames(samples.shape[1], samples.shape[0], wrap)
    plain = PlainAlpha(header, frames) if has_alpha else None
    if plain is not None:
        plain.note(0, samples[..., header.bands])
    image = pyvips.Image.new_from_array(samples)
    reduced = _reduce(image, header, frames, masks, plain).cast("float").numpy()
    return reduced.reshape(height, width, count)


def _convert_picture(image: Any, header: Header, to_srgb: bool, background: Colour | None) -> Any:
    """Convert colours and alpha."""
    if to_srgb:
        image = _convert(image, header, "uint16" if background is not None else header.dtype)
    if background is not None:
        image = _flatten(image, background, None if to_srgb else header.icc, header.dtype)
    return image


def _resize(image: Any, header: Header, frames: InputFrames) -> Any:
    """Reduce a frame by the Lanczos kernel of three lobes."""
    width, height, wrap = frames
    factors = width / header.width, height / header.height
    gap = 0 if max(factors) <= _MOST_BY_KERNEL else 2  # beyond it, averages first
    if wraps_y(wrap):
        image = image.copy_memory()  # the last rows are needed first
    across = _around(width, header.width) if wraps_x(wrap) else (0, 0)
    down = _around(height, header.height) if wraps_y(wrap) else (0, 0)
    if wrap != "none":
        whole = width + 2 * across[0], height + 2 * down[0]
        image = image.embed(across[0], down[0], *whole, extend="repeat")
    image = image.resize(header.width / width, vscale=header.height / height, kernel="lanczos3", gap=gap)
    return image.crop(across[1], down[1], header.width, header.height)


def _around(length: int, reduced: int) -> tuple[int, int]:
    """Return how much of the other end to put at each end of an axis, and what becomes of it.

    It is the least that is enough for the kernel, and whose reduced length is a whole number, too.
    """
    whole = math.gcd(length, reduced)
    step = length // whole
    steps = math.ceil(_REACH * max(1, length / reduced) / step)
    return steps * step, steps * (reduced // whole)


def _reduce(image: Any, header: Header, frames: InputFrames, masks: int, plain: PlainAlpha | None) -> Any:
    """Reduce floats by the Lanczos kernel of three lobes: colours in linear light, weighted by alpha.

    Profiles have different curves; sRGB's is close enough to all of them here, since it is applied both ways.
    All samples are reduced in one operation: two of them would ask for rows that come once.

    Args:
        image: Colours, alpha if ``plain`` is there, and masks, which are shares, not light.
        header: Header of the result.
        frames: The frames.
        masks: Number of masks.
        plain: What was noted of alpha.
    """
    count = image.bands - masks - (plain is not None)
    colours, others = image[:count], image[count:] if count < image.bands else None
    light = (colours <= 0.04045).ifthenelse(colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    if plain is not None:
        light = light * image[count]
    reduced = _resize(light if others is None else light.bandjoin(others), header, frames)
    light = reduced[:count]
    if others is None:
        return _encode_srgb(_clip(light))
    others = _clip(reduced[count:])
    if plain is not None:
        light = (others[0] > 0).ifthenelse(light / others[0], 0)
        alpha = plain.keep(others[0])
        others = alpha.bandjoin(others[1:]) if masks else alpha
    return _encode_srgb(_clip(light)).bandjoin(others)


def _encode_srgb(light: Any) -> Any:
    """Map linear light in [0, 1] to samples in [0, 1] by sRGB's curve."""
    return (light <= 0.0031308).ifthenelse(light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _clip(image: Any) -> Any:
    return image.clamp(min=0, max=1)


def _round(image: Any, dtype: str) -> Any:
    """Round floats in [0, 1] to samples of a dtype."""
    if dtype == "float32":
        return image.cast("float")
    return (image * float(np.iinfo(dtype).max)).rint().cast(BAND_FORMATS[dtype])


def _flatten(image: Any, background: Colour, icc: bytes | None, dtype: str) -> Any:
    """Put a colour behind 16-bit samples with alpha; gray becomes RGB if the colour is not gray."""
    colours, share = image[: image.bands - 1], image[image.bands - 1] / _WHITE_16
    samples = convert_colour(background, icc)
    if colours.bands == 1 and not is_gray(background):
        colours = colours.bandjoin([colours, colours])
    behind = [sample * _WHITE_16 for sample in samples[: colours.bands]]
    return _round((colours * share + (1 - share) * behind) / _WHITE_16, dtype)


def _convert(image: Any, header: Header, dtype: str) -> Any:
    """Convert 16-bit samples from the header's profile to sRGB of a dtype; gray stays gray.

    It goes through XYZ in floats: from 16 bits to 16 bits littleCMS interpolates in a coarse table, with
    errors of up to 19 of 255 in saturated colours.
    """
    alpha = image[image.bands - 1] if image.bands % 2 == 0 else None
    colours = (image if alpha is None else image[: image.bands - 1]).copy()
    colours.set_type(pyvips.GValue.blob_type, "icc-profile-data", header.icc)
    xyz = colours.icc_import(embedded=True, intent="relative", black_point_compensation=True, pcs="xyz")
    colours = _encode_srgb(_clip(xyz.colourspace("scrgb")))
    if header.bands == 1:
        colours = colours[1]
    colours = _round(colours, dtype)
    return colours if alpha is None else colours.bandjoin(_round(alpha / _WHITE_16, dtype))
