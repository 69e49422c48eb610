"""Tell a clean drawing from one that was saved as JPEG: by how flat it is close to its edges.

JPEG leaves ringing in every block that has an edge. A drawing of flat colours that was never compressed is
flat right up to its edges, whatever else the estimator takes for traces of compression.
"""

from collections.abc import Sequence

import numpy as np

EDGE = 24.0  # least difference of neighbours in luma at an edge, in steps of 8 bits
NEAR, FAR = 3, 6  # pixels: resizing touches what is nearer, and a block of JPEG reaches farther
FLAT = 1.0  # largest difference of neighbours in a flat area, in steps of 8 bits


def measure_flatness(windows: Sequence[np.ndarray]) -> float:
    """Return the share of the pixels between 3 and 6 pixels from an edge that are as their neighbours.

    Args:
        windows: Parts of a picture, (h, w, 3) float32, 0 to 255.

    Returns:
        0 to 1; 0 where there is no edge.
    """
    flat = near = 0
    for window in windows:
        luma = window.mean(axis=2)
        edges = _differ(luma, EDGE)
        ring = _widen(edges, FAR) & ~_widen(edges, NEAR)
        changes = np.zeros(luma.shape, bool)
        changes[:, 1:] |= (np.abs(np.diff(window, axis=1)) > FLAT).any(axis=2)
        changes[1:] |= (np.abs(np.diff(window, axis=0)) > FLAT).any(axis=2)
        near += int(ring.sum())
        flat += int((ring & ~changes).sum())
    return flat / near if near else 0.0


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
