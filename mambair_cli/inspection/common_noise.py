"""How much of a picture's noise its three channels have in common."""

from collections.abc import Sequence

import numpy as np

BLOCK = 16  # side of the blocks that are compared, in pixels
# Share of the blocks that are quieter than the one that tells, since most may hold coloured lines, as in a
# map, and the share of the variance of pure noise that it has.
QUIET, QUIET_VARIANCE = 0.2, 0.863
GAIN = 6  # of two second differences, by which the deviation of white noise grows
PAIRS = ((0, 1), (1, 2), (0, 2))


def measure_common(windows: Sequence[np.ndarray], sigma: float) -> float:
    """Return the share of the noise's variance that all channels have in common.

    What channels have in common, noise as well as most of the detail, cancels in their differences, and what
    each has of its own adds up there. In a gray picture nothing is left.

    Args:
        windows: Parts of a picture, (h, w, 3) float32, 0 to 255, of 18 pixels or more along a side.
        sigma: Standard deviation of the noise, the mean of the channels, more than 0.

    Returns:
        0 to 1.
    """
    variances = []
    for first, second in PAIRS:
        blocks = [_measure_blocks(window[..., first] - window[..., second]) for window in windows]
        variances.append(np.quantile(np.concatenate(blocks), QUIET) / QUIET_VARIANCE)
    own = float(np.mean(variances)) / 2  # of a channel
    return min(1.0, max(0.0, 1 - own / sigma**2))


def _measure_blocks(samples: np.ndarray) -> np.ndarray:
    """Return the variance of white noise in each block of (h, w) samples, as if they held nothing else."""
    bends = np.diff(np.diff(samples, 2, axis=0), 2, axis=1) / GAIN
    height, width = (side // BLOCK * BLOCK for side in bends.shape)
    blocks = bends[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return (blocks**2).mean(axis=(1, 3)).ravel()
