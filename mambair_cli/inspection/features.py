"""Numbers that describe a picture's noise, compression and detail, for an estimator that has learned them.

They are taken where a picture is smooth (noise), at the borders of blocks of 8×8 pixels (compression), and
where it has most detail (resolution). A large picture is looked at in windows.
"""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise, product

import numpy as np

from mambair_cli.images.samples import LUMA

BLOCK = 8  # side of the blocks that JPEG compresses, in pixels
WINDOW = 256  # side of a window, in pixels; a multiple of BLOCK, so that blocks keep their place
MOST_WINDOWS = 12
SMALLEST = 48  # side of the smallest picture that says enough, in pixels

BANDS = 8  # of frequencies in a block
FLOOR_SHARES = (0.02, 0.1, 0.25, 0.5)  # of the blocks, the smoothest first
QUALITIES = (10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 84, 88, 91, 94, 96)
TESTED_COEFFICIENTS = 20  # of each block, the lowest frequencies: higher ones are mostly zero
BRIGHTNESS = (0, 16, 85, 170, 239, 256)  # borders between dark, medium and bright blocks
FEWEST_BLOCKS = 4  # of a brightness, to say anything of it
MOST_BLOCKS = 4096  # that are tested for the steps of a quantisation

PATCH = 32  # side of a patch whose spectrum is taken, in pixels
MOST_PATCHES = 256
RINGS = 16  # of frequencies in a patch

# libjpeg's table for luma at quality 50, by rows (ITU-T T.81, table K.1).
_LUMA_STEPS = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61),
        *(12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56),
        *(14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77),
        *(24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101),
        *(72, 92, 95, 98, 112, 100, 103, 99),
    ],
    dtype=np.float64,
)
# From red, green and blue to their sum and two differences, each of length 1.
_OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
_LUMA = np.array(LUMA, np.float32)  # as in JPEG


def describe(windows: Sequence[np.ndarray]) -> np.ndarray:
    """Return the numbers that describe a picture.

    Args:
        windows: The picture, or parts of it that begin at multiples of 8 pixels; (h, w, 3) float32, in steps
            of 8 bits: 0 to 255; both sides at least ``SMALLEST``.

    Returns:
        (n,) float32.
    """
    lumas = [window @ _LUMA for window in windows]
    row, down = _find_grid([luma.T for luma in lumas])
    column, across = _find_grid(lumas)
    blocks = np.concatenate([_cut_blocks(window, row, column) for window in windows])
    coefficients = _transform(blocks)
    luma = coefficients @ _LUMA
    found = [
        _describe_floor(coefficients),
        _describe_brightness(luma),
        _describe_range(windows),
        across,
        down,
        _describe_steps(luma),
        _describe_spectrum(lumas),
    ]
    return np.concatenate(found).astype(np.float32)


def place_windows(height: int, width: int) -> list[tuple[slice, slice]]:
    """Place windows evenly on an image, or one that is all of a small image.

    Returns:
        Rows and columns of each window, all within the image; they begin at multiples of 8 pixels.
    """
    if height * width <= MOST_WINDOWS * WINDOW**2:
        return [(slice(0, height), slice(0, width))]
    share = np.sqrt(MOST_WINDOWS * height / width)
    rows = int(np.clip(round(share), 1, max(1, height // WINDOW)))
    columns = int(np.clip(MOST_WINDOWS // rows, 1, max(1, width // WINDOW)))
    return list(product(_spread(height, rows), _spread(width, columns)))


def _spread(side: int, count: int) -> list[slice]:
    """Return windows along a side, in the middle of equal parts; they begin at borders of blocks."""
    size = min(WINDOW, side)
    middles = ((2 * i + 1) * side / (2 * count) for i in range(count))
    starts = (int(np.clip(middle - size / 2, 0, side - size)) // BLOCK * BLOCK for middle in middles)
    return [slice(start, start + size) for start in starts]


def _find_grid(lumas: list[np.ndarray]) -> tuple[int, np.ndarray]:
    """Find at which columns blocks begin, by steps in brightness that are larger there.

    Returns:
        The first such column, 0 to 7, and numbers on how clear that is.
    """
    sums, counts = np.zeros(BLOCK), np.zeros(BLOCK)
    for luma in lumas:
        steps = np.abs(np.diff(luma, axis=1))
        extra = steps[:, 1:-1] - 0.5 * (steps[:, :-2] + steps[:, 2:])
        means = np.clip(extra, -6, 6).mean(0)
        columns = (np.arange(len(means)) + 2) % BLOCK  # the step before a column
        sums += np.bincount(columns, means, BLOCK)
        counts += np.bincount(columns, minlength=BLOCK)
    levels = sums / np.maximum(counts, 1)
    first = int(levels.argmax())
    others = np.delete(levels, first)
    contrast = levels[first] - others.max()
    clear = contrast / (others.std() + 0.02)
    return first, np.array([contrast, np.log1p(max(clear, 0)), others.std()])


def _cut_blocks(window: np.ndarray, row: int, column: int) -> np.ndarray:
    """Cut a window into blocks that begin at a row and a column, (n, 8, 8, 3)."""
    window = window[row:, column:]
    rows, columns = window.shape[0] // BLOCK, window.shape[1] // BLOCK
    blocks = window[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK, 3)
    return blocks.transpose(0, 2, 1, 3, 4).reshape(-1, BLOCK, BLOCK, 3)


def _transform(blocks: np.ndarray) -> np.ndarray:
    """Return the DCT of blocks, (n, 64, 3), the rows' frequency first; a step of 1 stays a step of 1."""
    kernel = np.kron(_cosines(), _cosines())
    return np.matmul(kernel, blocks.reshape(-1, BLOCK**2, 3))


@cache
def _cosines() -> np.ndarray:
    """Return the orthonormal DCT of 8 samples, (8, 8) float32."""
    at = np.arange(BLOCK)
    waves = np.cos(np.pi / BLOCK * (at + 0.5) * at[:, None]) * np.sqrt(2 / BLOCK)
    waves[0] /= np.sqrt(2)
    return waves.astype(np.float32)


@cache
def _bands() -> np.ndarray:
    """Return which of the coefficients of a block are in each band of frequencies, (BANDS, 64) bool."""
    row, column = np.divmod(np.arange(BLOCK**2), BLOCK)
    radius = np.hypot(row, column)
    edges = np.quantile(radius[1:], np.linspace(0, 1, BANDS + 1))
    number = np.clip(np.searchsorted(edges, radius, "right") - 1, 0, BANDS - 1)
    number[0] = -1
    return number == np.arange(BANDS)[:, None]


def _describe_floor(coefficients: np.ndarray) -> np.ndarray:
    """Return how much there is of each band in the smoothest blocks, for six channels."""
    opponent = coefficients @ _OPPONENT.T.astype(np.float32)
    channels = np.concatenate([coefficients, opponent], axis=2)
    bands = _bands().astype(np.float32)
    power = np.einsum("bk,nkc->nbc", bands / bands.sum(1, keepdims=True), channels**2)
    level = np.sqrt(power)
    ranks = np.clip(np.round(np.array(FLOOR_SHARES) * (len(level) - 1)).astype(int), 0, len(level) - 1)
    floor = np.partition(level, ranks, axis=0)[ranks]
    # Blocks that are smooth in the sum of all bands: there the bands are compared with each other.
    activity = power[:, :, 3].sum(1)
    smooth = np.argsort(activity)[: max(4, len(activity) // 8)]
    together = np.sqrt(power[smooth].mean(0))
    return np.log(np.concatenate([floor.ravel(), together.ravel()]) + 0.05)


def _describe_brightness(luma: np.ndarray) -> np.ndarray:
    """Return how much high frequency the smoothest blocks have; dark, medium and bright ones apart."""
    level = np.sqrt((luma[:, _bands()[-3:].any(0)] ** 2).mean(1))
    brightness = luma[:, 0] / BLOCK
    found = []
    for low, high in pairwise(BRIGHTNESS):
        some = np.sort(level[(brightness >= low) & (brightness < high)])
        share = len(some) / len(level)
        floors = some[[len(some) // 10, len(some) // 4]] if len(some) >= FEWEST_BLOCKS else np.zeros(2)
        found += [*np.log(floors + 0.05), share]
    return np.array(found)


def _describe_range(windows: Sequence[np.ndarray]) -> np.ndarray:
    """Return the shares of flat, black and white pixels, the amount of colour, and the size."""
    pixels = sum(window.shape[0] * window.shape[1] for window in windows)
    step = max(1, int(np.sqrt(pixels / 2**16)))
    some = np.concatenate([window[:-1:step, :-1:step].reshape(-1, 3) for window in windows])
    next_to = np.concatenate([window[1::step, 1::step].reshape(-1, 3) for window in windows])
    flat = (some == next_to).all(-1).mean()
    saturated = [(some <= 1).mean(), (some >= 254).mean()]
    colour = np.abs(some - some[..., 1:2]).mean()
    return np.array([flat, *saturated, np.log(colour + 0.05), np.log(min(pixels, 2**16))])


@cache
def _steps() -> np.ndarray:
    """Return JPEG's steps at each tested quality, (qualities, 64), for coefficients by rows."""
    quality = np.array(QUALITIES, dtype=np.float64)[:, None]
    scale = np.where(quality < 50, 50 / quality, 2 - quality / 50)
    return np.clip(np.round(_LUMA_STEPS * scale), 1, 255).astype(np.float32)


@cache
def _order() -> np.ndarray:
    """Return the coefficients that are tested, the lowest frequencies first, without the mean."""
    row, column = np.divmod(np.arange(BLOCK**2), BLOCK)
    return np.argsort(row + column + 0.01 * row, kind="stable")[1 : TESTED_COEFFICIENTS + 1]


def _describe_steps(luma: np.ndarray) -> np.ndarray:
    """Return how well the coefficients of blocks fit multiples of the steps of each quality."""
    order = _order()
    some = luma[:: max(1, len(luma) // MOST_BLOCKS + 1)][:, order]
    found = []
    for steps in _steps()[:, order]:
        ratio = some / steps
        fit = np.cos(2 * np.pi * ratio)
        is_used = np.abs(ratio) > 0.7  # those near zero fit every step
        count = is_used.sum(0)
        mean = (fit * is_used).sum(0) / (count + 4)
        worth = np.sqrt(count)
        found += [
            (mean * worth).sum() / (worth.sum() + 1),
            (np.abs(ratio) < 0.25).mean() - (np.abs(ratio) < 0.5).mean(),
        ]
    return np.array([*found, (np.abs(luma[:, 36:]) < 0.4).mean()])


def _describe_spectrum(lumas: list[np.ndarray]) -> np.ndarray:
    """Return the power at each frequency in the patches with most detail, and in those with some."""
    side = min(PATCH, *(min(luma.shape) for luma in lumas))
    patches = np.concatenate([_cut_patches(luma, side) for luma in lumas])
    patches = patches[:: max(1, len(patches) // MOST_PATCHES)]
    wave = np.hanning(side + 2)[1:-1].astype(np.float32)
    patches = (patches - patches.mean((1, 2), keepdims=True)) * np.outer(wave, wave)
    power = np.abs(np.fft.rfft2(patches)) ** 2 / side**2
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) * 2
    ring = np.minimum((frequency * RINGS).astype(int), RINGS).ravel()
    number = np.bincount(ring, minlength=RINGS + 1)
    flat = power.reshape(len(power), -1)
    rings = np.stack([flat[:, ring == i].sum(1) / max(1, number[i]) for i in range(RINGS)], 1)
    rank = np.argsort(-rings[:, 1:4].sum(1))
    most, some = rings[rank[: max(2, len(rank) // 8)]].mean(0), np.median(rings, 0)
    high = np.quantile(rings, 0.9, axis=0)
    return np.log(np.concatenate([most, some, high]) + 1e-3)


def _cut_patches(luma: np.ndarray, side: int) -> np.ndarray:
    rows, columns = luma.shape[0] // side, luma.shape[1] // side
    patches = luma[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return patches.transpose(0, 2, 1, 3).reshape(-1, side, side)
