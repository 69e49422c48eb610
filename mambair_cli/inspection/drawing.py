"""Tell a clean drawing from one that was saved as JPEG, or is noisy.

JPEG leaves ringing in every block that has an edge, and noise is everywhere. A drawing of flat colours and
gradients that was never compressed is smooth right up to its edges. Where text or patterns are so dense that
nothing is smooth, some of their parts come again, equal to the last bit; of noise none does. Both hold
whatever the estimator takes for traces of compression or for noise.
"""

from collections.abc import Sequence

import numpy as np

EDGE = 24.0  # least difference of neighbours in luma at an edge, in steps of 8 bits
NEAR, FAR = 2, 5  # pixels: resizing touches what is nearer, and a block of JPEG reaches farther
SMOOTH = 1.0  # largest second difference in a smooth area, in steps of 8 bits: a gradient's steps are rounded
PATCH = 4  # side of a part that may come again: in a picture enlarged twice it has still nine free pixels
BLACK, WHITE = 0, 255  # where noise is cut off, so that parts of noise can be equal


def measure_smoothness(windows: Sequence[np.ndarray]) -> float:
    """Return the share of the pixels between 2 and 5 pixels from an edge that are as those beside them.

    Those of a gradient are, too: what counts is the second difference.

    Args:
        windows: Parts of a picture, (h, w, 3) float32, 0 to 255.

    Returns:
        0 to 1; 0 where there is no edge.
    """
    smooth = near = 0
    for window in windows:
        edges = _differ(window.mean(axis=2), EDGE)
        ring = _widen(edges, FAR) & ~_widen(edges, NEAR)
        bends = np.zeros(ring.shape, bool)
        bends[:, 1:-1] |= (np.abs(np.diff(window, 2, axis=1)) > SMOOTH).any(axis=2)
        bends[1:-1] |= (np.abs(np.diff(window, 2, axis=0)) > SMOOTH).any(axis=2)
        near += int(ring.sum())
        smooth += int((ring & ~bends).sum())
    return smooth / near if near else 0.0


def measure_repetition(windows: Sequence[np.ndarray]) -> float:
    """Return the share of the 4×4 parts with an edge that come again in their window, equal to the last bit.

    Args:
        windows: Parts of a picture, (h, w, 3) float32, 0 to 255.

    Returns:
        0 to 1; 0 where there is no edge. Parts with black or white pixels do not count.
    """
    again = total = 0
    for window in windows:
        samples = np.rint(window).astype(np.uint64)
        luma = samples.sum(axis=2).astype(np.int64)
        is_free = (samples.min(axis=2) > BLACK) & (samples.max(axis=2) < WHITE)
        colour = samples @ np.array([1 << 16, 1 << 8, 1], np.uint64)
        shape = [max(length - PATCH + 1, 0) for length in luma.shape]
        key, counts = np.zeros(shape, np.uint64), np.ones(shape, bool)
        lowest, highest = np.full(shape, 3 * WHITE), np.zeros(shape, np.int64)
        factors = np.random.default_rng(0).integers(1, 1 << 63, (PATCH, PATCH), np.uint64) | np.uint64(1)
        for y, x in np.ndindex(PATCH, PATCH):
            part = np.s_[y : y + shape[0], x : x + shape[1]]
            key += colour[part] * factors[y, x]  # modulo 2^64: equal parts have equal keys
            lowest, highest = np.minimum(lowest, luma[part]), np.maximum(highest, luma[part])
            counts &= is_free[part]
        counts &= highest - lowest >= 3 * EDGE
        _, frequencies = np.unique(key[counts], return_counts=True)
        again += int(frequencies[frequencies > 1].sum())
        total += int(frequencies.sum())
    return again / total if total else 0.0


def _differ(luma: np.ndarray, least: float) -> np.ndarray:
    """Mark the pixels on both sides of each edge."""
    marks = np.zeros(luma.shape, bool)
    for axis in (0, 1):
        steps = np.abs(np.diff(luma, axis=axis)) >= least
        before, after = (np.s_[:-1], np.s_[1:]) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
        marks[before] |= steps
        marks[after] |= steps
    return marks


def _widen(marks: np.ndarray, reach: int) -> np.ndarray:
    """Mark the squares of a reach around marked pixels."""
    for axis in (0, 1):
        padded = np.pad(marks, [(reach, reach) if each == axis else (0, 0) for each in (0, 1)])
        views = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=axis)
        marks = np.asarray(views.any(axis=-1))
    return marks
