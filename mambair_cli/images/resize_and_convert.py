"""What happens to a picture's rows on their way into a file: reduction, conversion of colours, rounding."""

from typing import Any

import numpy as np
import pyvips

from mambair_cli.images.background import Colour, convert_colour, is_gray
from mambair_cli.images.picture import BAND_FORMATS, INTERPRETATIONS, Header

_MOST_BY_KERNEL = 300  # times that libvips' kernels reduce at once
_WHITE_16 = 65535
_AVIF_STEPS, _AVIF_SHIFT = 4095, 16  # 12 bits, which libvips takes from the upper ones of 16


def samples_wanted(
    header: Header, size: tuple[int, int], to_srgb: bool, background: Colour | None = None
) -> str:
    """Name the dtype that rows are to come in, such that they are rounded once."""
    if size != (header.width, header.height):
        return "float32"
    return "uint16" if to_srgb or background is not None else header.dtype


def finish(
    image: Any,
    header: Header,
    size: tuple[int, int],
    to_srgb: bool,
    format: str,
    background: Colour | None = None,
    masks: int = 0,
) -> Any:
    """Make of the rows that come what the header says.

    Args:
        image: For libvips, of the dtype of :func:`samples_wanted`.
        header: Of the file.
        size: Width and height of the frames that come.
        to_srgb: Whether to convert from the header's profile to sRGB.
        format: Of the file.
        background: To be seen through what is transparent, which nothing is any more then.
        masks: Samples that come after colours and alpha, and are no part of the picture.
    """
    image, others = (image[: image.bands - masks], image[image.bands - masks :]) if masks else (image, None)
    image = _finish_picture(image, header, size, to_srgb, background)
    if format == "avif" and header.dtype == "uint16":
        image = ((image * (_AVIF_STEPS / 65535)).rint() * _AVIF_SHIFT).cast("ushort")
    bands = image.bands - (image.bands % 2 == 0)
    if others is not None:
        image = image.bandjoin(_finish_masks(others, header, size))
    return image.copy(interpretation=INTERPRETATIONS[bands, header.dtype])


def _finish_picture(
    image: Any, header: Header, size: tuple[int, int], to_srgb: bool, background: Colour | None
) -> Any:
    """Do so with colours and alpha."""
    dtype = "uint16" if to_srgb or background is not None else header.dtype
    if size != (header.width, header.height):
        image = _reduce(image, header, size)
        image = _round(image, dtype)
    if to_srgb:
        image = _convert(image, header, "uint16" if background is not None else header.dtype)
    if background is not None:
        image = _flatten(image, background, None if to_srgb else header.icc, header.dtype)
    return image


def _finish_masks(masks: Any, header: Header, size: tuple[int, int]) -> Any:
    """Do so with samples that are shares of something, not light."""
    if size != (header.width, header.height):
        masks = _clip(_resize(masks, header, size))
    elif masks.format != BAND_FORMATS[header.dtype]:  # with colours that are converted
        masks = masks / 65535
    else:
        return masks
    return _round(masks, header.dtype)


def _resize(image: Any, header: Header, size: tuple[int, int]) -> Any:
    """Reduce frames, which lie one below the other, by Lanczos' kernel of three lobes."""
    width, height = size
    factors = width / header.width, height / header.height
    gap = 0 if max(factors) <= _MOST_BY_KERNEL else 2  # beyond, by averages first
    frames = [image.crop(0, height * frame, width, height) for frame in range(header.frames)]
    frames = [
        frame.resize(header.width / width, vscale=header.height / height, kernel="lanczos3", gap=gap)
        for frame in frames
    ]
    return frames[0] if len(frames) == 1 else pyvips.Image.arrayjoin(frames, across=1)


def _reduce(image: Any, header: Header, size: tuple[int, int]) -> Any:
    """Reduce floats by Lanczos' kernel of three lobes, in light as it adds up, weighted by alpha.

    Profiles differ in their curves; sRGB's is near enough to all of them for this, and what is taken off
    with it is put on with it.
    """
    alpha = image[image.bands - 1] if image.bands % 2 == 0 else None
    colours = image if alpha is None else image[: image.bands - 1]
    light = (colours <= 0.04045).ifthenelse(colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    if alpha is not None:
        light = (light * alpha).bandjoin(alpha)
    light = _resize(light, header, size)
    if alpha is not None:
        alpha = _clip(light[light.bands - 1])
        light = (alpha > 0).ifthenelse(light[: light.bands - 1] / alpha, 0)
    light = _clip(light)
    colours = _encode_srgb(light)
    return colours if alpha is None else colours.bandjoin(alpha)


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
    """Lay 16-bit samples with alpha before a colour; gray becomes RGB where that is none of its own."""
    colours, share = image[: image.bands - 1], image[image.bands - 1] / _WHITE_16
    samples = convert_colour(background, icc)
    if colours.bands == 1 and not is_gray(background):
        colours = colours.bandjoin([colours, colours])
    behind = [sample * _WHITE_16 for sample in samples[: colours.bands]]
    return _round((colours * share + (1 - share) * behind) / _WHITE_16, dtype)


def _convert(image: Any, header: Header, dtype: str) -> Any:
    """Convert 16-bit samples from the header's profile to sRGB of a depth; gray stays gray.

    By way of XYZ, in floats: from 16 bits to 16 bits littleCMS interpolates in a coarse table, and saturated
    colours would be off by up to 19 of 255.
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
