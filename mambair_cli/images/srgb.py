"""Read image files as 8-bit sRGB or gray, whatever depth and profile they have."""

import dataclasses
from pathlib import Path

import numpy as np

from mambair_cli.errors import ImageError
from mambair_cli.images.decoding import open_picture
from mambair_cli.images.libvips import LibvipsError, explained
from mambair_cli.images.picture import Header
from mambair_cli.images.resize_and_convert import InputFrames, resize_and_convert
from mambair_cli.images.row_reader import corrupt_error, wrap
from mambair_cli.images.samples import from_float, split_luma, to_float
from mambair_cli.system.files import show


def read_srgb(path: Path, bands: int) -> np.ndarray:
    """Read an image file upright, with its colours converted to sRGB by its profile.

    Alpha is left out; only the first of several pages or frames is read.

    Args:
        path: A file of any readable format.
        bands: 3 for colour, 1 for gray (the luma of colours).

    Returns:
        (h, w, bands) uint8.

    Raises:
        ImageError: The file cannot be read, or part of it is damaged.
    """
    with open_picture(path) as reader:
        header = reader.header
        pixels = reader.read(0, header.height)[..., : header.bands]
        if reader.is_damaged:
            raise ImageError(
                f"cannot read {show(path)}: {reader.warnings[-1]}; try another copy, or leave it out"
            )
        if header.icc is not None:
            pixels = _convert(pixels, header, path)
    if header.bands == 1:
        pixels = pixels.repeat(bands, axis=2)
    elif bands == 1:
        pixels = split_luma(to_float(pixels))[0]
    return np.ascontiguousarray(from_float(to_float(pixels), np.uint8))


def _convert(pixels: np.ndarray, header: Header, path: Path) -> np.ndarray:
    """Convert pixels from the header's profile to sRGB."""
    plain = dataclasses.replace(header, has_alpha=False, masks=(), frames=1)
    frames = InputFrames(header.width, header.height)
    try:
        with explained():
            image = wrap(from_float(to_float(pixels), np.uint16), header.bands)
            converted = resize_and_convert(image, plain, frames, True, "png").numpy()
    except LibvipsError as error:
        raise corrupt_error(show(path), header.format, str(error)) from error
    return converted.reshape(pixels.shape)
