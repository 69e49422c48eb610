"""Tell a clean drawing from one that was saved as JPEG or enlarged, and small text from noise.

JPEG leaves ringing in every block that has an edge; a drawing of flat colours and gradients that was never
compressed is smooth right up to its edges. Enlarging makes edges wide; those of a drawing that never was
take a pixel or none, however few they are. And small text looks like noise, but some of its parts come again,
equal to the last bit, all over the picture; parts of noise do not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

EDGE = 24.0  # least difference of neighbours in luma at an edge, in steps of 8 bits
NEAR, FAR = 2, 5  # pixels: resizing touches what is nearer, and a block of JPEG reaches farther
SMOOTH = 1.0  # largest second difference in a smooth area, in steps of 8 bits: a gradient's steps are rounded
LEVEL = 1.0  # largest difference of neighbours next to an edge that is no part of it, in steps of 8 bits
LEAST_EDGES = 16  # that are enough to tell how wide edges are
MOST_REPEATED = 16  # times that pixels may have been repeated
PART = 4  # side of a part that may come again, in pixels: too large for noise to be equal by chance
BLACK, WHITE = 0, 255  # where noise is cut off, so that parts of it can be equal
CELLS = 8  # cells of a window along a side, each of which is judged for itself
LEAST_PARTS, LEAST_CELLS = 16, 8  # parts with edges in a cell, and such cells, that are enough to judge


def measure_smoothness(windows: Sequence[np.ndarray]) -> float:
    """Return the share of the pixels 3 to 5 pixels from an edge that are as their neighbours.

    Those of a gradient are, too: what counts is the second difference. Edges are those in luma; an eighth of
    a window along each side is left out: there may be a frame, which tells nothing of what it holds. Where
    there is no such edge, those in a colour and at the sides count.

    Args:
        windows: Parts of a picture, (h, w, 3) float32, 0 to 255.

    Returns:
        0 to 1; 0 where there is no edge.
    """
    lumas = [window.mean(axis=2, keepdims=True) for window in windows]
    smooth, near = np.sum(list(map(_count_smooth, windows, lumas, map(_inside, windows))), axis=0)
    if not near:
        smooth, near = np.sum([_count_smooth(window, window, np.s_[:]) for window in windows], axis=0)
    return float(smooth / near) if near else 0.0


def measure_sharpness(windows: Sequence[np.ndarray]) -> float:
    """Return the share of edges with at most one pixel between the levels to both sides.

    Args:
        windows: Parts of a picture, (h, w, 3) float32, 0 to 255.

    Returns:
        0 to 1; 0 where there are few edges, and where all lie on a fine grid, as after pixels were repeated.
    """
    sharp = count = 0
    steps = [0, 0]  # greatest common divisors of the distances of edges, in both directions
    for window in windows:
        for axis, lines in enumerate((window, window.swapaxes(0, 1))):
            places, widths = _find_edges(lines)
            steps[axis] = int(np.gcd.reduce(np.append(np.diff(np.unique(places)), steps[axis])))
            count += len(widths)
            sharp += int((widths <= 2).sum())
    found = [step for step in steps if step]  # one place of edges, or none, tells nothing
    is_repeated = bool(found) and all(1 < step <= MOST_REPEATED for step in found)
    return sharp / count if count >= LEAST_EDGES and not is_repeated else 0.0


def _count_smooth(window: np.ndarray, levels: np.ndarray, part: Any) -> tuple[int, int]:
    """Count in a part of a window the smooth pixels near edges of levels, (h, w, c), and all near edges."""
    edges = _differ(levels, EDGE)
    ring = _widen(edges, FAR) & ~_widen(edges, NEAR)
    bends = np.zeros(ring.shape, bool)
    bends[:, 1:-1] |= (np.abs(np.diff(window, 2, axis=1)) > SMOOTH).any(axis=2)
    bends[1:-1] |= (np.abs(np.diff(window, 2, axis=0)) > SMOOTH).any(axis=2)
    return int((ring & ~bends)[part].sum()), int(ring[part].sum())


def _find_edges(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where edges of a window begin in its rows, and the numbers of steps that they take.

    An edge is a run of pixels that differ from those before them; it has a level to both sides.
    """
    moving = (np.abs(np.diff(lines, axis=1)) > LEVEL).any(axis=2)
    moving = np.pad(moving, ((0, 0), (1, 1))).ravel()
    changes = np.flatnonzero(moving[1:] != moving[:-1]) + 1
    begins, widths = changes[0::2], changes[1::2] - changes[0::2]
    rows, places = np.divmod(begins, lines.shape[1] + 1)
    places -= 1
    ends = places + widths
    sizes = np.abs(lines[rows, ends] - lines[rows, places]).max(axis=1, initial=0)
    is_whole = (places > 0) & (ends < lines.shape[1] - 1) & (sizes >= EDGE)
    return places[is_whole], widths[is_whole]


def measure_repetition(windows: Sequence[np.ndarray]) -> float:
    """Return the share of cells in which some, but not most, 4×4 parts with an edge come again in the window.

    A part counts if it has no black or white pixels, and differs from those one pixel further: a straight
    line comes again all along itself. Where most parts come again, a picture was laid side by side.

    Args:
        windows: Parts of a picture, (h, w, 3) float32, 0 to 255, of 11 pixels or more along a side.

    Returns:
        0 to 1, of all cells that have edges; 0 if these are few.
    """
    cells, repeating = 0, 0
    for window in windows:
        keys, count = _key_parts(window)
        _, place, frequency = np.unique(keys[count], return_inverse=True, return_counts=True)
        comes_again = np.zeros(keys.shape, bool)
        comes_again[count] = frequency[place] > 1
        parts, repeated = _sum_cells(count), _sum_cells(comes_again)
        is_judged = parts >= LEAST_PARTS
        cells += int(is_judged.sum())
        repeating += int((is_judged & (repeated > 0) & (repeated < parts / 2)).sum())
    return repeating / cells if cells >= LEAST_CELLS else 0.0


def _inside(window: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of a window that are no part of its margin."""
    rows, columns = (slice(length // CELLS, length - length // CELLS) for length in window.shape[:2])
    return rows, columns


def _key_parts(window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for each part of a window, equal for equal parts, and whether the part counts."""
    samples = np.rint(window).astype(np.uint64)
    luma = samples.sum(axis=2).astype(np.int64)
    is_cut_off = (samples.min(axis=2) <= BLACK) | (samples.max(axis=2) >= WHITE)
    colours = samples @ np.array([1 << 16, 1 << 8, 1], np.uint64)
    shape = [length - PART + 1 for length in luma.shape]
    keys, counts = np.zeros(shape, np.uint64), np.ones(shape, bool)
    lowest, highest = np.full(shape, 3 * WHITE), np.zeros(shape, np.int64)
    factors = np.random.default_rng(0).integers(1, 1 << 63, (PART, PART), np.uint64) | np.uint64(1)
    for y, x in np.ndindex(PART, PART):
        pixels = np.s_[y : y + shape[0], x : x + shape[1]]
        keys += colours[pixels] * factors[y, x]  # modulo 2^64
        lowest, highest = np.minimum(lowest, luma[pixels]), np.maximum(highest, luma[pixels])
        counts &= ~is_cut_off[pixels]
    counts &= highest - lowest >= 3 * EDGE
    for one, other in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        is_line = keys[one] == keys[other]
        counts[one] &= ~is_line
        counts[other] &= ~is_line
    return keys, counts


def _sum_cells(marks: np.ndarray) -> np.ndarray:
    """Return the number of marks in each of the window's cells."""
    rows, columns = (np.arange(CELLS) * length // CELLS for length in marks.shape)
    return np.add.reduceat(np.add.reduceat(marks.astype(np.int64), rows, axis=0), columns, axis=1)


def _differ(levels: np.ndarray, least: float) -> np.ndarray:
    """Mark the pixels on both sides of each edge."""
    marks = np.zeros(levels.shape[:2], bool)
    for axis in (0, 1):
        steps = (np.abs(np.diff(levels, axis=axis)) >= least).any(axis=2)
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
