"""The strength of a restoration: a mix of the network's result and the input, which keeps grain."""

from functools import cache

import numpy as np

from mambair_cli.images import to_float
from mambair_cli.restore.channels import visible_colors

REACH = 3  # pixels of the input to each side that an enlarged pixel depends on


def mix(restored: np.ndarray, given: np.ndarray, strength: float) -> np.ndarray:
    """Return ``strength * restored + (1 - strength) * given``; at 1 and 0, exactly one of the two.

    Args:
        restored: Any shape, float32.
        given: The same shape, float32.
        strength: 0 to 1.
    """
    if strength in (0, 1):
        return restored if strength else given
    share = np.float32(strength)
    return restored * share + given * (1 - share)


def enlarge(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge an image, or some of its rows, by the Lanczos kernel of three lobes.

    With ``k(x) = sinc(x) * sinc(x / 3)`` within three pixels::

        y[i] = sum_j k((i + 1/2) / scale - 1/2 - j) * x[j]

    normalised to a sum of one; beyond the border the image is mirrored.

    Args:
        pixels: (h, w, c) float32.
        scale: Output pixels per input pixel and side.

    Returns:
        (s·h, s·w, c) float32, not clipped; the pixels themselves where the scale is 1.
    """
    if scale == 1:
        return pixels
    for axis in (0, 1):
        pixels = _enlarge_axis(pixels, scale, axis)
    return pixels


def enlarge_samples(samples: np.ndarray, scale: int, visible: int) -> np.ndarray:
    """Enlarge samples of a file, see :func:`enlarge`; where they are transparent, by the colours around.

    Args:
        samples: (h, w, c): colours, alpha and masks, of any dtype that ``to_float`` takes.
        scale: Output pixels per input pixel and side.
        visible: Number of samples that are colours and alpha.
    """
    given = to_float(samples)
    if visible % 2 == 0 and scale > 1:  # hidden colours must not come into sight
        colors = visible - 1
        given = np.concatenate([visible_colors(given[..., :visible], colors), given[..., colors:]], axis=2)
    return enlarge(given, scale)


def _enlarge_axis(pixels: np.ndarray, scale: int, axis: int) -> np.ndarray:
    length = pixels.shape[axis]
    edges = [(0, 0)] * 3
    edges[axis] = (REACH, REACH)
    padded = np.pad(pixels, edges, mode="symmetric")
    shape = list(pixels.shape)
    shape.insert(axis + 1, scale)
    result = np.zeros(shape, np.float32)
    for phase, weights in enumerate(_weights(scale)):
        place = result[:, phase] if axis == 0 else result[:, :, phase]
        for tap, weight in enumerate(weights):
            part = padded[tap : tap + length] if axis == 0 else padded[:, tap : tap + length]
            place += weight * part
    shape[axis : axis + 2] = [length * scale]
    return result.reshape(shape)


@cache
def _weights(scale: int) -> np.ndarray:
    """Return the weights of input pixels in each output pixel of one, (scale, 2 * REACH + 1) float32."""
    offset = (np.arange(scale) + 0.5) / scale - 0.5
    distance = offset[:, None] - np.arange(-REACH, REACH + 1)
    kernel = np.sinc(distance) * np.sinc(distance / REACH) * (np.abs(distance) < REACH)
    return (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)
