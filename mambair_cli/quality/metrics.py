"""Measure PSNR and SSIM between an image and its ground truth, as BasicSR and the papers do."""

import math

import numpy as np

PEAK = 255.0
SSIM_WINDOW = 11  # pixels
SSIM_SIGMA = 1.5  # pixels
SSIM_C1 = (0.01 * PEAK) ** 2
SSIM_C2 = (0.03 * PEAK) ** 2
LUMA_WEIGHTS = (65.481, 128.553, 24.966)  # of red, green and blue in Y of BT.601


def psnr(a: np.ndarray, b: np.ndarray, *, border: int = 0, luma: bool = False, bits: int = 8) -> float:
    """Compute the peak signal-to-noise ratio of two images.

    On the scale of 8 bits::

        psnr = 10 * log10(255² / mean((a - b)²))

    Args:
        a: (h, w) or (h, w, c), uint8 or floating point in [0, 1]; floating point is clipped and rounded
            first.
        b: The same; the order of the two does not matter, and their types may differ.
        border: Pixels cut off at each side; ``scale`` for super-resolution.
        luma: Whether to compare :func:`luma` of colour images; gray images are compared as they are.
        bits: Bits to which floating point is rounded: 8 in the papers, 16 for deeper images.

    Returns:
        Decibels; infinite for equal images.

    Raises:
        ValueError: The shapes or types are not allowed, or the border leaves nothing.
    """
    a, b = _comparable(a, b, border, luma, bits, smallest=1)
    error = np.mean((a - b) ** 2)
    return 10 * math.log10(PEAK**2 / error) if error else math.inf


def choose_bits(truth: np.ndarray) -> int:
    """Return the bits at which results are compared: 8, as in the papers, or 16 where the truth is deeper."""
    return 8 if truth.dtype == np.uint8 else 16


def ssim(a: np.ndarray, b: np.ndarray, *, border: int = 0, luma: bool = False, bits: int = 8) -> float:
    """Compute the mean structural similarity of two images.

    Under a Gaussian window of 11×11 pixels and standard deviation 1.5, with means μ and covariances σ::

        ssim = (2 * μa * μb + C1) * (2 * σab + C2) / ((μa² + μb² + C1) * (σa² + σb² + C2))

    averaged over all positions of the window inside the image, and over the channels.

    Args:
        a: See :func:`psnr`.
        b: See :func:`psnr`.
        border: Pixels cut off at each side, before the window is applied.
        luma: See :func:`psnr`.
        bits: See :func:`psnr`.

    Returns:
        -1 to 1; exactly 1 for equal images.

    Raises:
        ValueError: The shapes or types are not allowed, or the border leaves less than the window.

    Source: Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.
    """
    a, b = _comparable(a, b, border, luma, bits, smallest=SSIM_WINDOW)
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    covariance = _window_mean(a * b) - mean_a * mean_b
    # In this order, numerator and denominator are equal to the last bit for equal images.
    variances = (_window_mean(a * a) - mean_a * mean_a) + (_window_mean(b * b) - mean_b * mean_b)
    similarity = (2 * (mean_a * mean_b) + SSIM_C1) * (2 * covariance + SSIM_C2)
    similarity /= (mean_a * mean_a + mean_b * mean_b + SSIM_C1) * (variances + SSIM_C2)
    return float(similarity.mean())


def luma(rgb: np.ndarray, bits: int = 8) -> np.ndarray:
    """Compute the Y channel of BT.601, black at 16 and white at 235, not rounded.

    From 8-bit red, green and blue::

        Y = 16 + (65.481 * R + 128.553 * G + 24.966 * B) / 255

    Args:
        rgb: (h, w, 3), uint8 or floating point in [0, 1], which is clipped and rounded first.
        bits: Bits to which floating point is rounded.

    Returns:
        (h, w) float64.

    Raises:
        ValueError: The image has another shape or type.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"luma is for images of (h, w, 3), not {rgb.shape}")
    return 16 + _to_steps(rgb, bits) @ np.array(LUMA_WEIGHTS) / PEAK


def _comparable(
    a: np.ndarray, b: np.ndarray, border: int, to_luma: bool, bits: int, smallest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Convert two images to float64 in 8-bit steps, cropped, and to luma if asked."""
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise ValueError(
            f"images to compare have one shape, (h, w) or (h, w, c), not {a.shape} and {b.shape}"
        )
    height, width = a.shape[:2]
    if border < 0 or min(height, width) - 2 * border < smallest:
        raise ValueError(
            f"a border of {border} leaves too little of {a.shape}: {smallest}×{smallest} pixels must remain"
        )
    inside = np.s_[border : height - border, border : width - border]
    convert = luma if to_luma and a.shape[2:] == (3,) else _to_steps
    return convert(a[inside], bits), convert(b[inside], bits)


def _to_steps(image: np.ndarray, bits: int) -> np.ndarray:
    """Round to so many bits, as a file would; return float64 in steps of 8 bits."""
    if image.dtype == np.uint8:
        return image.astype(np.float64)
    if image.dtype.kind != "f":
        raise ValueError(f"images to compare are uint8 or floating point in [0, 1], not {image.dtype}")
    most = 2**bits - 1
    return np.rint(image.astype(np.float64).clip(0, 1) * most) * (PEAK / most)


def _window_mean(values: np.ndarray) -> np.ndarray:
    """Average under the Gaussian window where it fits; height and width shrink by its size minus 1."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    window = np.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    window /= window.sum()
    for axis in (0, 1):
        values = np.lib.stride_tricks.sliding_window_view(values, SSIM_WINDOW, axis=axis) @ window
    return values
