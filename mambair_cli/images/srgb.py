"""Read image files to learn from: their first page, as it is or as sRGB or gray."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mambair_cli.errors import ImageError
from mambair_cli.images.alpha import is_opaque
from mambair_cli.images.decoding import open_picture
from mambair_cli.images.libvips import LibvipsError, explained
from mambair_cli.images.picture import Header, InputFrames
from mambair_cli.images.resize_and_convert import resize_and_convert
from mambair_cli.images.row_reader import corrupt_error, wrap
from mambair_cli.images.samples import from_float, is_gray, split_luma, to_float
from mambair_cli.system.wording import show

_STEP = 1 / 255  # by which the conversion of a profile may tint a gray picture


@dataclass(frozen=True, eq=False)
class FirstPage:
    """The first page or frame of an image file, upright and without alpha.

    Attributes:
        path: The file.
        pixels: Pixels as the file has them, (h, w, 1 or 3), uint8, uint16 or float32 in [0, 1].
        header: Header of the file.
        is_transparent: Whether there was alpha that is not opaque everywhere.
    """

    path: Path
    pixels: np.ndarray
    header: Header
    is_transparent: bool = False

    def to_srgb(self, bands: int) -> np.ndarray:
        """Convert the colours to sRGB by the file's profile.

        What is gray stays gray.

        Args:
            bands: 3 for colour, 1 for gray (the luma of colours).

        Returns:
            (h, w, bands), uint8, or uint16 where the file has more than 8 bits.

        Raises:
            ImageError: The colours cannot be converted.
        """
        pixels, dtype = self.pixels, np.uint8 if self.pixels.dtype == np.uint8 else np.uint16
        if self.header.icc is not None:
            pixels = self._convert()
            if is_gray(self.pixels) and np.ptp(to_float(pixels), axis=2).max() < 1.5 * _STEP:
                pixels = pixels[..., pixels.shape[2] // 2, None].repeat(pixels.shape[2], axis=2)
        if pixels.shape[2] == 1:
            pixels = pixels.repeat(bands, axis=2)
        elif bands == 1:
            pixels = split_luma(to_float(pixels))[0]
        return np.ascontiguousarray(from_float(to_float(pixels), dtype))

    def _convert(self) -> np.ndarray:
        """Return the pixels converted from the header's profile to sRGB."""
        header = self.header
        plain = dataclasses.replace(header, has_alpha=False, masks=(), frames=1)
        frames = InputFrames(header.width, header.height)
        try:
            with explained():
                image = wrap(from_float(to_float(self.pixels), np.uint16), header.bands)
                converted = resize_and_convert(image, plain, frames, True).numpy()
        except LibvipsError as error:
            raise corrupt_error(show(self.path), header.format, str(error)) from error
        return converted.reshape(self.pixels.shape)


def read_first_page(path: Path) -> FirstPage:
    """Read the first page or frame of an image file of any readable format.

    Raises:
        ImageError: The file cannot be read, or part of it is damaged.
    """
    with open_picture(path) as reader:
        header = reader.header
        samples = reader.read(0, header.height)
        if reader.is_damaged:
            raise ImageError(
                f"cannot read {show(path)}: {reader.warnings[-1]}; try another copy, or leave it out"
            )
    is_transparent = header.has_alpha and not is_opaque(samples[..., header.bands])
    return FirstPage(path, samples[..., : header.bands], header, is_transparent)
