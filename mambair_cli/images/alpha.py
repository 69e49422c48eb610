"""Give transparent pixels the colours around them, so that hidden colours do not show at edges."""

import numpy as np

from mambair_cli.images.samples import to_float


def is_opaque(alpha: np.ndarray) -> bool:
    """Tell whether nothing shines through: alpha of uint8, uint16 or float32, of any shape."""
    return bool((to_float(alpha) >= 1).all())


def bleed(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Fill the pixels of alpha 0 with the nearest visible colours.

    The image is halved, weighted by alpha, until every pixel has a colour; each transparent pixel takes its
    colour from the finest size that has one.

    Args:
        colours: (h, w, c) float32.
        alpha: (h, w, 1) float32 in [0, 1].

    Returns:
        (h, w, c) float32; unchanged where alpha is above 0.

    Source: the push-pull filling of Gortler et al., The Lumigraph (1996), section 3.4.
    """
    hidden = alpha <= 0
    if not hidden.any():
        return colours
    if hidden.all():
        return np.zeros_like(colours)
    height, width, _ = colours.shape
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    weighted = _sum_quads(np.pad(colours * alpha, padding))
    weight = _sum_quads(np.pad(alpha, padding))
    halved = np.divide(weighted, weight, out=np.zeros_like(weighted), where=weight > 0)
    filled = bleed(halved, np.minimum(weight, 1))
    return np.where(hidden, filled.repeat(2, axis=0).repeat(2, axis=1)[:height, :width], colours)


def _sum_quads(image: np.ndarray) -> np.ndarray:
    """Sum blocks of 2×2 pixels, (2h, 2w, c) -> (h, w, c)."""
    return image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]
