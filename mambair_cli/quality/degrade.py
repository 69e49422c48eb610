"""Degrade ground truth as in the papers: bicubic resizing, noise and JPEG compression."""

import io
import math

import numpy as np
from PIL import Image

from mambair_cli.errors import ImageError
from mambair_cli.images.formats import FORMATS

CUBIC_RADIUS = 2  # pixels of the coarser grid, input or output
MOST_BYTES = 4  # of whole numbers that double precision holds


def imresize(image: np.ndarray, scale: float) -> np.ndarray:
    """Resize an image as MATLAB's ``imresize(image, scale, 'bicubic')`` does, to the bit.

    Along each axis, with pixel centres at whole numbers from 1::

        out[i] = sum_j w[j] * in[j] / sum_j w[j]
        w[j] = k(s * (i / scale + (1 - 1 / scale) / 2 - j)),  s = min(scale, 1)

    ``k`` is the cubic convolution kernel with a = -1/2; stretched by ``1 / s`` where the image shrinks, it
    removes what the coarser grid cannot show (antialiasing). Beyond its border the image is mirrored. The
    vertical axis comes first, as in MATLAB for equal scales, and whole numbers are rounded after each axis:
    the published test images have that order and that rounding. With a scale above 1 this is the bicubic
    baseline.

    Args:
        image: (h, w) or (h, w, c), uint8, uint16 or uint32, or floating point of any range.
        scale: Size of the result divided by the size of the image.

    Returns:
        (ceil(scale * h), ceil(scale * w)), with c if the image has it, of the image's type. Floating point
        is neither rounded nor clipped; sums are in double precision.

    Raises:
        ValueError: The image has another shape or type, or the scale is not positive.

    Source: Keys, Cubic convolution interpolation for digital image processing, 1981; the conventions are
        those that reproduce the published files.
    """
    if image.ndim not in (2, 3):
        raise ValueError(f"an image to resize is (h, w) or (h, w, c), not {image.shape}")
    is_whole = image.dtype.kind == "u"
    if image.dtype.kind != "f" and not (is_whole and image.dtype.itemsize <= MOST_BYTES):
        raise ValueError(f"an image to resize is uint8, uint16, uint32 or floating point, not {image.dtype}")
    if not scale > 0:
        raise ValueError(f"the scale must be positive: {scale}")
    resized = image
    for axis in (0, 1):
        resized = _resize_axis(resized, axis, scale)
        if is_whole:
            # Halves go up: MATLAB rounds them away from zero, and what is below zero is cut.
            resized = np.floor(resized + 0.5).clip(0, np.iinfo(image.dtype).max).astype(image.dtype)
    return resized.astype(image.dtype)


def _resize_axis(image: np.ndarray, axis: int, scale: float) -> np.ndarray:
    """Resize along one axis; the result is float64."""
    pixels, weights = _taps(image.shape[axis], scale)
    along_axis = [1] * image.ndim
    along_axis[axis] = -1
    shape = list(image.shape)
    shape[axis] = len(pixels)
    resized = np.zeros(shape)
    for pixel, weight in zip(pixels.T, weights.T, strict=True):
        resized += weight.reshape(along_axis) * image.take(pixel, axis=axis)
    return resized


def _taps(length: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the source pixels of each pixel of a resized line, and their weights.

    Returns:
        Indices into the line and weights that sum to one, both (ceil(scale * length), taps).
    """
    stretch = max(1 / scale, 1)
    centres = np.arange(1, math.ceil(scale * length) + 1) / scale + 0.5 * (1 - 1 / scale)
    first = np.floor(centres - CUBIC_RADIUS * stretch).astype(np.int64)
    positions = first[:, None] + np.arange(math.ceil(2 * CUBIC_RADIUS * stretch) + 2)
    weights = _cubic((centres[:, None] - positions) / stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    return mirrored[(positions - 1) % (2 * length)], weights


def _cubic(x: np.ndarray) -> np.ndarray:
    """Evaluate the cubic convolution kernel with a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= CUBIC_RADIUS, far, 0))


def modcrop(image: np.ndarray, scale: int) -> np.ndarray:
    """Crop at the right and the bottom, so that both sides are multiples of ``scale``."""
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def add_noise(image: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    """Add white Gaussian noise, the same for every image of one shape.

    It is the noise of ``numpy.random.seed(seed)`` and ``numpy.random.normal``, which numpy promises never to
    change. The global generator is not used.

    Args:
        image: Any shape, floating point in [0, 1].
        sigma: Standard deviation, in 8-bit steps of 1/255.
        seed: Random seed; the papers use 0 for each image.

    Returns:
        The image's shape, float32, not clipped.

    Raises:
        ValueError: The image is not floating point, or sigma is negative.
    """
    if image.dtype.kind != "f":
        raise ValueError(f"an image to add noise to is floating point in [0, 1], not {image.dtype}")
    if not sigma >= 0:
        raise ValueError(f"sigma must not be negative: {sigma}")
    noise = np.random.RandomState(seed).normal(0, sigma / 255, image.shape)
    return (image + noise).astype(np.float32)


def compress_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Encode an image with Pillow's JPEG encoder and decode it, colour with the usual 4:2:0 subsampling.

    Args:
        image: (h, w), (h, w, 1) or (h, w, 3) uint8.
        quality: Quality of libjpeg, 1 to 100.

    Returns:
        The image's shape, uint8.

    Raises:
        ValueError: The image has another shape or type, or the quality is out of range.
        ImageError: JPEG has no room for its size.
    """
    gray = image.ndim == 2 or image.shape[2:] == (1,)
    if image.dtype != np.uint8 or not (gray or image.shape[2:] == (3,)):
        raise ValueError(
            f"an image to compress is (h, w), (h, w, 1) or (h, w, 3) uint8, not {image.shape} {image.dtype}"
        )
    if not 1 <= quality <= 100:
        raise ValueError(f"the JPEG quality must be 1 to 100: {quality}")
    check_sides(image, "jpeg")
    file = io.BytesIO()
    Image.fromarray(image.reshape(image.shape[:2]) if gray else image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file)).reshape(image.shape)


def check_sides(image: np.ndarray, format: str) -> None:
    """Refuse an image, (h, w) or (h, w, c), with a side for which a format has no room.

    Raises:
        ImageError: It is one.
    """
    (height, width), longest = image.shape[:2], FORMATS[format].longest_side
    if longest is not None and max(height, width) > longest:
        raise ImageError(
            f"{format} has room for {longest} pixels a side, not {width}×{height}; cut it into parts"
        )
