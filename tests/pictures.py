"""Small pictures, their files as another library, Pillow, writes and reads them, and as this package does."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from PIL import Image

from mambair_cli.images import Picture, encode_picture


def noise(*shape: int, dtype: DTypeLike = np.uint8, seed: int = 0) -> np.ndarray:
    """Return random samples over their whole range, the same at every call; of floats that is 0 to 1."""
    generator, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype.kind == "f":
        return generator.random(shape).astype(dtype)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def smooth_colours(height: int = 48, width: int = 64) -> np.ndarray:
    """Return slopes of colours that are not too strong, over some rows of gray, (h, w, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    rgb = np.stack([0.2 + 0.6 * x, 0.3 + 0.5 * y, 0.7 - 0.4 * x * y], axis=2)
    rgb[-8:] = x[-8:, :, None]
    return (rgb * 255).round().astype(np.uint8)


def make_picture(height: int = 5, width: int = 7, bands: int = 3, dtype: DTypeLike = np.uint8) -> Picture:
    """Return a picture of noise, without metadata."""
    return Picture(noise(height, width, bands, dtype=dtype))


PNG = encode_picture(make_picture(40, 30), "png")
JPEG = encode_picture(make_picture(40, 30), "jpeg")


def encode(
    array: np.ndarray,
    format: str = "png",
    mode: str | None = None,
    exif: bytes | None = None,
    **options: Any,
) -> bytes:
    """Return a file of pixels as Pillow writes it.

    Args:
        array: Pixels, (h, w), (h, w, 1) or (h, w, bands).
        format: Pillow's name of the format.
        mode: Pillow's name of the bands that the file is to have, if others than the array's.
        exif: Block of EXIF, without the name in front.
        options: Pillow's for the format.
    """
    if exif:
        options["exif"] = b"Exif\0\0" + exif
    image, file = _to_image(array), io.BytesIO()
    (image.convert(mode) if mode else image).save(file, format, **options)
    return file.getvalue()


def save_photo(
    path: str | Path, size: tuple[int, int] = (12, 9), mode: str = "RGB", seed: int = 0
) -> np.ndarray:
    """Save noise as a file, in a folder that need not exist; return its pixels, (h, w, bands).

    Args:
        path: File, whose suffix names the format.
        size: Width and height.
        mode: Pillow's name of the bands: L, LA, RGB or RGBA.
        seed: Random seed of the noise.
    """
    path, (width, height) = Path(path), size
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise(height, width, len(Image.new(mode, (1, 1)).getbands()), seed=seed)
    _to_image(pixels).save(path)
    return pixels


def load_image(path: str | Path) -> Image.Image:
    """Open a file with Pillow, and read all of it."""
    with Image.open(path) as image:
        image.load()
        return image


def _to_image(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array.squeeze(-1) if array.shape[-1:] == (1,) else array)
