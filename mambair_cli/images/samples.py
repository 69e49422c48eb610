"""Convert samples between the integers of files and floats in [0, 1], and colours to luma and chroma."""

import numpy as np
from numpy.typing import DTypeLike

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R BT.601)
_RED, _, _BLUE = LUMA
_GREEN = 1 - _RED - _BLUE

ROUNDING = 0.5 / 65535  # past 0 or 1: half a step of 16 bits, which no file of integers shows


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Convert samples to float32, the largest value to 1; floats stay as they are.

    Args:
        pixels: uint8, uint16, or float32 in [0, 1]; any shape.

    Returns:
        The same shape, float32 in [0, 1].
    """
    if pixels.dtype == np.float32:
        return pixels
    return np.divide(pixels, _white(pixels.dtype), dtype=np.float32)


def fit_range(samples: np.ndarray, place: str = "") -> tuple[np.ndarray, str | None]:
    """Clip floats that rounding has moved past 0 or 1; refuse others, of which clipping would lose something.

    Args:
        samples: Floats, any shape.
        place: Words for where in the image they are, such as " in rows 9 to 16".

    Returns:
        The samples in [0, 1], and None; or the samples as they are, and a sentence that says why.
    """
    low, high = float(samples.min()), float(samples.max())
    if low >= 0 and high <= 1:  # NaN, too, comes out of min() and max()
        return samples, None
    if reason := explain_not_finite(samples, place):
        return samples, reason
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return samples.clip(0, 1), None
    return samples, (
        f"its floats{place} lie between {low:g} and {high:g}; scale them to 0 to 1 first, or clip them"
    )


def explain_not_finite(samples: np.ndarray, place: str = "") -> str | None:
    """Say that floats are infinite or no numbers; None if all are finite. Arguments as of ``fit_range``."""
    lost = samples.size - np.count_nonzero(np.isfinite(samples))
    if not lost:
        return None
    are, them = ("is", "it by a number") if lost == 1 else ("are", "them by numbers")
    return f"{lost} of {samples.size} samples{place} {are} not finite; replace {them} from 0 to 1 first"


def from_float(array: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Clip floats to [0, 1] and round them to the nearest sample, halves to the even one.

    Inverts :func:`to_float` for every uint8 and uint16 value.

    Args:
        array: Floats, any shape.
        dtype: uint8, uint16 or float32; float32 is only clipped.

    Returns:
        The same shape, of that dtype.

    Raises:
        ValueError: The array holds NaN or an infinity, or the dtype is not one of these.
    """
    if not np.isfinite(array).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(array))} of {array.size} samples are not finite")
    clipped = np.clip(array, 0, 1)
    if np.dtype(dtype) == np.float32:
        return clipped.astype(np.float32)
    clipped *= clipped.dtype.type(_white(dtype))
    return np.rint(clipped, out=clipped).astype(dtype)


def widen(samples: np.ndarray, bits: int, shifted: bool = True) -> np.ndarray:
    """Scale samples of fewer than 16 bits so that white is 65535.

    Args:
        samples: Samples, uint16.
        bits: Number of significant bits.
        shifted: Whether these are the upper bits.
    """
    white = 2**bits - 1
    wide = (samples >> (16 - bits) if shifted else samples).astype(np.uint32)
    return ((wide * 65535 + white // 2) // white).astype(np.uint16)


def divide_by_alpha(samples: np.ndarray) -> np.ndarray:
    """Divide colours that were multiplied by alpha: (h, w, c) uint8, alpha last, of the same shape after."""
    alpha = samples[..., -1:].astype(np.uint32)
    colours = (samples[..., :-1] * np.uint32(255) + alpha // 2) // np.maximum(alpha, 1)
    return np.concatenate([np.minimum(colours, 255).astype(np.uint8), samples[..., -1:]], axis=2)


def encode_srgb(light: np.ndarray) -> np.ndarray:
    """Map linear light in [0, 1] to samples in [0, 1] by sRGB's curve.

    Source: IEC 61966-2-1.
    """
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)


def is_gray(pixels: np.ndarray) -> bool:
    """Tell whether a picture is gray, however it is stored: all channels are equal, or there is only one.

    Args:
        pixels: (h, w, 1 or 3), of any dtype.
    """
    return bool((pixels == pixels[..., :1]).all())


def split_luma(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split colours into luma and chroma as JPEG does: BT.601 weights, full range.

    With ``y = 0.299 r + 0.587 g + 0.114 b``::

        cb = (b - y) / 1.772        cr = (r - y) / 1.402

    Args:
        rgb: (h, w, 3) floats in [0, 1].

    Returns:
        Luma (h, w, 1) in [0, 1] and chroma (h, w, 2), cb and cr, in [-0.5, 0.5]: 0 is gray, where JPEG
        stores 128. Both of the dtype of ``rgb``.

    Source: ITU-T T.871 (JFIF), section 7.
    """
    red, green, blue = rgb[..., 0:1], rgb[..., 1:2], rgb[..., 2:3]
    y = _RED * red + _GREEN * green + _BLUE * blue
    cb = (blue - y) / (2 * (1 - _BLUE))
    cr = (red - y) / (2 * (1 - _RED))
    return y, np.concatenate([cb, cr], axis=-1)


def join_luma(y: np.ndarray, cbcr: np.ndarray) -> np.ndarray:
    """Join luma (h, w, 1) and chroma (h, w, 2) to RGB; inverts :func:`split_luma`. Nothing is clipped.

    Returns:
        (h, w, 3), of the dtype of the two.
    """
    red = y + 2 * (1 - _RED) * cbcr[..., 1:2]
    blue = y + 2 * (1 - _BLUE) * cbcr[..., 0:1]
    green = (y - _RED * red - _BLUE * blue) / _GREEN
    return np.concatenate([red, green, blue], axis=-1)


def _white(dtype: DTypeLike) -> int:
    """Return the largest sample of an integer type."""
    for samples in (np.uint8, np.uint16):
        if np.dtype(dtype) == samples:
            return np.iinfo(samples).max
    raise ValueError(f"samples are uint8, uint16 or float32, not {np.dtype(dtype)}")
