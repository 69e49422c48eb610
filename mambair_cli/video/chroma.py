"""Chroma of fewer samples than luma: enlarged and reduced by a cubic filter, at the right place.

The place of a chroma sample (its siting) is counted in luma samples from the first of the block that it
colours: 0 is on that luma sample, and (factor - 1) / 2 in the middle of the block.
"""

from functools import lru_cache

import numpy as np

SITINGS = ("left", "centre", "topleft")
_REACH = 4  # chroma samples on each side that the inverse looks at
_ENDS = 12  # of them near both ends, more than an end is felt


def place(siting: str, factors: tuple[int, int]) -> tuple[float, float]:
    """Return where chroma samples lie, vertically and horizontally, in luma samples.

    Args:
        siting: "left" (MPEG-2 and newer), "centre" (JPEG, MPEG-1) or "topleft" (UHD discs).
        factors: Luma samples for each chroma sample, vertically and horizontally.
    """
    middle = tuple((factor - 1) / 2 for factor in factors)
    return (0 if siting == "topleft" else middle[0], middle[1] if siting == "centre" else 0)


def enlarge(plane: np.ndarray, factors: tuple[int, int], siting: str, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a chroma plane to the size of luma.

    Args:
        plane: Chroma (h, w), float32.
        factors: Luma samples for each chroma sample, vertically and horizontally.
        siting: See :func:`place`.
        size: Height and width of luma.
    """
    for axis, (factor, offset, length) in enumerate(zip(factors, place(siting, factors), size, strict=True)):
        if factor > 1:
            plane = _enlarge_axis(plane, axis, factor, offset, length)
    return plane


def reduce(plane: np.ndarray, factors: tuple[int, int], siting: str, *, inverts: bool = False) -> np.ndarray:
    """Reduce a plane of the size of luma to that of chroma, rounded up.

    A cubic filter, which rings little at edges as sharp as those of luma, softens a plane that was enlarged
    before, a little more each time. For such a plane there is the inverse of :func:`enlarge`.

    Args:
        plane: Chroma (h, w) of the size of luma, float32.
        factors: Luma samples for each chroma sample, vertically and horizontally.
        siting: See :func:`place`.
        inverts: Whether the plane was enlarged by :func:`enlarge`: then its result is the plane before, to
            about 1/10000 of the range.
    """
    for axis, (factor, offset) in enumerate(zip(factors, place(siting, factors), strict=True)):
        if factor > 1:
            plane = (_invert_axis if inverts else _reduce_axis)(plane, axis, factor, offset)
    return plane


def _cubic(distances: np.ndarray) -> np.ndarray:
    """Return Catmull-Rom's weights at some distances."""
    x = np.abs(distances)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _pad(plane: np.ndarray, axis: int, before: int, after: int) -> np.ndarray:
    return np.pad(plane, [(before, after) if each == axis else (0, 0) for each in (0, 1)], mode="edge")


def _take(plane: np.ndarray, axis: int, part: slice) -> np.ndarray:
    return plane[part] if axis == 0 else plane[:, part]


def _enlarge_axis(plane: np.ndarray, axis: int, factor: int, offset: float, length: int) -> np.ndarray:
    count, margin = plane.shape[axis], 2
    padded = _pad(plane, axis, margin, margin)
    shape = list(plane.shape)
    shape[axis] = count * factor
    result = np.empty(shape, np.float32)
    for phase in range(factor):
        position = (phase - offset) / factor
        first = int(np.floor(position)) - 1
        taps = range(first, first + 4)
        weights = _cubic(position - np.array(taps)).astype(np.float32)
        total = np.zeros(plane.shape, np.float32)
        for tap, weight in zip(taps, weights, strict=True):
            if weight:
                total += weight * _take(padded, axis, slice(margin + tap, margin + tap + count))
        _take(result, axis, slice(phase, None, factor))[...] = total
    return _take(result, axis, slice(0, length))


@lru_cache(maxsize=32)
def _inverse(count: int, factor: int, offset: float, length: int) -> np.ndarray:
    """Return the weights (count, length) that invert the enlargement of a few samples.

    Each row is the smallest one, by the sum of squares, among those of a few samples around its own.
    """
    enlarging = _enlarge_axis(np.eye(count, dtype=np.float32), 0, factor, offset, length).astype(np.float64)
    weights = np.zeros((count, length))
    for row in range(count):
        near = slice(max(0, (row - _REACH) * factor), (row + _REACH + 1) * factor)
        weights[row, near] = np.linalg.pinv(enlarging[near], rcond=0.01)[row]
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _invert_axis(plane: np.ndarray, axis: int, factor: int, offset: float) -> np.ndarray:
    """Undo :func:`_enlarge_axis`: by a filter, and near both ends by weights of their own."""
    length = plane.shape[axis]
    count = -(-length // factor)
    few = min(count, 2 * _ENDS)
    part = length - (count - few) * factor  # luma samples of so few, the last ones
    weights = _inverse(few, factor, offset, part)
    lines = plane if axis == 0 else plane.T
    result = np.empty((count, plane.shape[1]) if axis == 0 else (plane.shape[0], count), np.float32)
    out = result if axis == 0 else result.T
    if few == count:
        out[...] = weights @ lines
        return result
    out[:_ENDS] = weights[:_ENDS] @ lines[:part]
    out[-_ENDS:] = weights[-_ENDS:] @ lines[-part:]
    middle, first = count - 2 * _ENDS, (_ENDS - _REACH) * factor
    total = _take(result, axis, slice(_ENDS, count - _ENDS))
    total[...] = 0
    term = np.empty_like(total)
    for tap in range(first, (_ENDS + _REACH + 1) * factor):
        samples = _take(plane, axis, slice(tap, tap + (middle - 1) * factor + 1, factor))
        total += np.multiply(samples, weights[_ENDS, tap], out=term)
    return result


def _reduce_axis(plane: np.ndarray, axis: int, factor: int, offset: float) -> np.ndarray:
    length = plane.shape[axis]
    count = -(-length // factor)
    margin = 2 * factor
    padded = _pad(plane, axis, margin, margin + count * factor - length)
    taps = np.arange(-margin, margin + factor)
    weights = _cubic((taps - offset) / factor)
    weights = (weights / weights.sum()).astype(np.float32)
    shape = list(plane.shape)
    shape[axis] = count
    total = np.zeros(shape, np.float32)
    for tap, weight in zip(taps, weights, strict=True):
        if weight:
            total += weight * _take(padded, axis, slice(margin + tap, margin + tap + count * factor, factor))
    return total
