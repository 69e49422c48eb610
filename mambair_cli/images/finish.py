"""What happens to a picture's rows on their way into a file: reduction, conversion of colours, rounding."""

from typing import Any

import numpy as np
import pyvips

from mambair_cli.images.picture import BAND_FORMATS, INTERPRETATIONS, Header

_WHITE_16 = 65535
_AVIF_STEPS, _AVIF_SHIFT = 4095, 16  # 12 bits, which libvips takes from the upper ones of 16


def samples_wanted(header: Header, size: tuple[int, int], to_srgb: bool) -> str:
    """Name the dtype that rows are to come in, such that they are rounded once."""
    if size != (header.width, header.height):
        return "float32"
    return "uint16" if to_srgb else header.dtype


def finish(image: Any, header: Header, size: tuple[int, int], to_srgb: bool, format: str) -> Any:
    """Make of the rows that come what the header says.

    Args:
        image: For libvips, of the dtype of :func:`samples_wanted`.
        header: Of the file.
        size: Width and height of the frames that come.
        to_srgb: Whether to convert from the header's profile to sRGB.
        format: Of the file.
    """
    if size != (header.width, header.height):
        image = _reduce(image, header, size)
        image = _round(image, "uint16" if to_srgb else header.dtype)
    if to_srgb:
        image = _convert(image, header)
    if format == "avif" and header.dtype == "uint16":
        image = ((image * (_AVIF_STEPS / 65535)).rint() * _AVIF_SHIFT).cast("ushort")
    bands = image.bands - (image.bands % 2 == 0)
    return image.copy(interpretation=INTERPRETATIONS[bands, header.dtype])


def _reduce(image: Any, header: Header, size: tuple[int, int]) -> Any:
    """Reduce floats by Lanczos' kernel of three lobes, in light as it adds up, weighted by alpha.

    Profiles differ in their curves; sRGB's is near enough to all of them for this, and what is taken off
    with it is put on with it.
    """
    width, height = size
    alpha = image[image.bands - 1] if image.bands % 2 == 0 else None
    colours = image if alpha is None else image[: image.bands - 1]
    light = (colours <= 0.04045).ifthenelse(colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    if alpha is not None:
        light = (light * alpha).bandjoin(alpha)
    frames = [light.crop(0, height * frame, width, height) for frame in range(header.frames)]
    frames = [
        frame.resize(header.width / width, vscale=header.height / height, kernel="lanczos3", gap=0)
        for frame in frames
    ]
    light = frames[0] if len(frames) == 1 else pyvips.Image.arrayjoin(frames, across=1)
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


def _convert(image: Any, header: Header) -> Any:
    """Convert 16-bit samples from the header's profile to sRGB of its depth; gray stays gray.

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
    colours = _round(colours, header.dtype)
    return colours if alpha is None else colours.bandjoin(_round(alpha / _WHITE_16, header.dtype))
