"""How much of a picture's noise its three channels have in common."""

from collections.abc import Sequence

import numpy as np

BLOCK = 16  # side of the blocks that are compared, in pixels
QUIET = 0.1  # share of the blocks that tell: those of the least variance, which hold the least detail
GAIN = 6  # of two second differences, by which the deviation of white noise grows
PAIRS = ((0, 1), (1, 2), (0, 2))
LEAST = 0.01  # variance


def measure_common(windows: Sequence[np.ndarray]) -> float:
    """Return the share of the noise's variance that all channels have in common.

    What channels have in common, noise as well as most of the detail, cancels in their differences, and what
    each has of its own adds up there. In a gray picture nothing is left.

    Args:
        windows: Parts of a noisy picture, (h, w, 3) float32, 0 to 255, of 18 pixels or more along a side.

    Returns:
        0 to 1.
    """
    whole = _sum_blocks([[window[..., i] for window in windows] for i in range(3)]) / 3
    own = (
        _sum_blocks([[x[..., i] - x[..., j] for x in windows] for i, j in PAIRS]) / 6
    )  # a difference has two
    quiet = np.argsort(whole)[: max(1, int(QUIET * whole.size))]
    return float(np.clip(1 - own[quiet].mean() / max(whole[quiet].mean(), LEAST), 0, 1))


def _sum_blocks(groups: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Return the variance of white noise in each block of (h, w) samples, summed over groups of them."""
    return np.sum([np.concatenate([_measure_blocks(each) for each in group]) for group in groups], axis=0)


def _measure_blocks(samples: np.ndarray) -> np.ndarray:
    """Return the variance of white noise in each block of (h, w) samples, as if they held nothing else."""
    bends = np.diff(np.diff(samples, 2, axis=0), 2, axis=1) / GAIN
    height, width = (side // BLOCK * BLOCK for side in bends.shape)
    blocks = bends[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return (blocks**2).mean(axis=(1, 3)).ravel()
