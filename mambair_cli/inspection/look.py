"""A look at a picture: estimates of its noise, compression and detail."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from mambair_cli.images import is_gray
from mambair_cli.images.stretch import Stretch
from mambair_cli.inspection.common_noise import measure_common
from mambair_cli.inspection.drawing import measure_repetition, measure_sharpness, measure_smoothness
from mambair_cli.inspection.features import BLOCK, SMALLEST, describe, place_windows
from mambair_cli.inspection.margins import measure_quiet, trim_margins
from mambair_cli.inspection.visible import cut_visible

WEIGHTS = Path(__file__).parents[1] / "weights" / "look.safetensors"
SAMPLES = 255  # white in steps of 8 bits
UNTOUCHED = 100  # quality of what was never compressed
# A drawing that is smooth (``drawing.py``) in at least this share was not compressed; the first if the
# estimate is of the higher quality or above, the second from the lower one on. Two in a hundred graphics
# that were saved at qualities from 40 to 92 are as smooth, and no photograph.
DRAWN, SURELY_DRAWN = 0.62, 0.75
MILD, STRONG = 75, 40
# A picture in which this share of edges is sharp was not enlarged. In graphics that were enlarged by 1.5 or
# more, and in photographs, three in ten edges are sharp at most.
SHARP = 0.5
DOUBTFUL_RESOLUTION = 0.9  # from which on edges are looked at; most pictures that are sharp have more
# Where parts come again in this share of a picture, as in small text, there is no noise. None of 515
# noisy pictures reaches it, also with a frame; where a picture was compressed, blocks come again, too.
REPEATED, REPEATED_QUALITY = 0.5, 95
DOUBTFUL_NOISE = 1.0  # sigma from which on that is looked for, and whether channels have noise in common

ReadWindow = Callable[[slice, slice], np.ndarray]
"""Reads rows and columns of a picture, as (h, w, 1 to 4) float32 in [0, 1]; alpha comes last."""

# What the estimator learned to tell, in this order: logarithms of a sigma and of a quality's steps, so that
# errors are relative. They are undone in :func:`_read_estimates`.
SIGMA_OFFSET, STEP_OFFSET = 0.3, 0.02
FARTHEST = 6.0  # deviations from the mean, beyond which a feature is clipped
_MOST_STEP = 5.0  # of the table of quality 10, of that of quality 50


@dataclass(frozen=True)
class Look:
    """Estimates about a picture.

    Attributes:
        sigma: Standard deviation of the noise in red, green and blue, in steps of 8 bits.
        grain: How alike the noise of neighbouring pixels is, 0 to 1: about 0 for white noise, 0.5 and more
            for coarse grain.
        tones: Standard deviation of the noise where the picture is dark, medium and bright.
        quality: JPEG quality whose traces the pixels show, 1 to 100; 100 for none.
        resolution: Share of the width and height that holds detail, 0 to 1; 0.5 for a picture that was
            enlarged twice, or is as soft.
        common: Share of the noise's variance that red, green and blue have in common, 0 to 1: about 0 where
            each has noise of its own, 1 in a gray picture.
        filled: Share of the range of samples between the darkest and the brightest one that was seen, 0 to 1.
        quiet: Share of the picture that has a single level, or is black or white with little noise, 0 to 1.
        two_valued: Whether there are only two values, as in a scan of 1 bit.
        stretched: Whether the picture is faint, and all else was estimated as if it filled the whole range.
    """

    sigma: tuple[float, float, float]
    grain: float
    tones: tuple[float, float, float]
    quality: int
    resolution: float
    common: float = 0.0
    filled: float = 1.0
    quiet: float = 0.0
    two_valued: bool = False
    stretched: bool = False

    @property
    def noise(self) -> float:
        """Standard deviation of the noise, the mean of the channels, in steps of 8 bits."""
        return sum(self.sigma) / len(self.sigma)


CLEAN = Look((0.0, 0.0, 0.0), 0.0, (0.0, 0.0, 0.0), UNTOUCHED, 1.0)
"""A picture of a single colour: nothing is wrong with it that could be seen."""


def look_at(height: int, width: int, read: ReadWindow, stretch: Stretch | None = None) -> Look | None:
    """Look at a picture, or at some windows of a large one.

    Args:
        height: Height of the picture, in pixels.
        width: Width of the picture, in pixels.
        read: Reads a window.
        stretch: How the picture is stretched before it is restored; None if it is not.

    Returns:
        The estimates; None for a picture that is too small to tell, or of which too little can be seen.
    """
    if min(height, width) < SMALLEST:
        return None
    windows: list[np.ndarray] = []
    for rows, columns in place_windows(height, width):
        window = np.nan_to_num(read(rows, columns))
        colours = window.shape[2] - (window.shape[2] % 2 == 0)
        parts = [window] if colours == window.shape[2] else cut_visible(window, window[..., colours])
        windows += (_scale(part[..., :colours], stretch) for part in parts)
    if not windows:
        return None
    least, most = (bound(list(map(bound, windows))) for bound in (np.min, np.max))
    filled = float(most - least) / SAMPLES if stretch is None else stretch.highest - stretch.lowest
    plain = replace(CLEAN, filled=float(f"{min(1.0, filled):.4g}"), stretched=stretch is not None)
    if all(np.ptp(window, axis=(0, 1)).max() < 1 for window in windows):
        return replace(plain, quiet=1.0)
    quiet = round(measure_quiet(windows), 3)
    windows = [trim_margins(window, SMALLEST, BLOCK) for window in windows]
    two_valued = all(is_gray(each) and ((each == least) | (each == most)).all() for each in windows)
    estimates = _read_estimates(_estimate(describe(windows)))
    if all(map(is_gray, windows)):  # the estimator tells three channels apart also where there is one
        estimates = replace(estimates, sigma=(estimates.noise,) * 3)
    look = replace(
        estimates, filled=plain.filled, quiet=quiet, two_valued=two_valued, stretched=plain.stretched
    )
    if STRONG <= look.quality < UNTOUCHED:
        least = DRAWN if look.quality >= MILD else SURELY_DRAWN
        if measure_smoothness(windows) >= least:
            look = replace(look, quality=UNTOUCHED)
    if look.resolution < DOUBTFUL_RESOLUTION and measure_sharpness(windows) >= SHARP:
        look = replace(look, resolution=1.0)
    may_be_text = look.noise >= DOUBTFUL_NOISE and look.quality >= REPEATED_QUALITY
    if may_be_text and measure_repetition(windows) >= REPEATED:
        look = replace(look, sigma=CLEAN.sigma, tones=CLEAN.tones)
    if look.noise >= DOUBTFUL_NOISE:
        look = replace(look, common=round(measure_common(windows), 3))
    return look


def _scale(window: np.ndarray, stretch: Stretch | None) -> np.ndarray:
    """Return a window, (h, w, 1 or 3), in three channels and in steps of 8 bits."""
    window = (window if stretch is None else stretch.apply(window, window.shape[2])) * np.float32(SAMPLES)
    return np.repeat(window, 3, axis=2) if window.shape[2] == 1 else window


def look_at_pixels(pixels: np.ndarray) -> Look | None:
    """Look at a picture in memory, (h, w, 1 to 4) float32 in [0, 1]; see :func:`look_at`."""
    return look_at(pixels.shape[0], pixels.shape[1], lambda rows, columns: pixels[rows, columns])


def _estimate(features: np.ndarray) -> np.ndarray:
    """Return what the estimator says of a picture's features."""
    weights = _load_weights()
    x = np.clip((features - weights["mean"]) / weights["deviation"], -FARTHEST, FARTHEST)
    for layer in ("first", "second"):
        x = weights[f"{layer}.weight"] @ x + weights[f"{layer}.bias"]
        x = x / (1 + np.exp(-x))  # SiLU
    x = weights["last.weight"] @ x + weights["last.bias"]
    return x * weights["target.deviation"] + weights["target.mean"]


@cache
def _load_weights() -> Mapping[str, np.ndarray]:
    from safetensors.numpy import load_file

    return {name: array.astype(np.float64) for name, array in load_file(WEIGHTS).items()}


def _read_estimates(values: np.ndarray) -> Look:
    """Undo the forms in which estimates were learned."""
    sigmas = np.round(np.maximum(np.exp(values[[0, 1, 2, 4, 5, 6]]) - SIGMA_OFFSET, 0), 2).tolist()
    step = float(np.clip(np.exp(values[7]) - STEP_OFFSET, 0, _MOST_STEP))
    return Look(
        sigma=(sigmas[0], sigmas[1], sigmas[2]),
        grain=round(float(np.clip(values[3], 0, 1)), 3),
        tones=(sigmas[3], sigmas[4], sigmas[5]),
        quality=round(50 / step if step > 1 else 100 - 50 * step),
        resolution=round(float(np.clip(2 ** values[8], 0, 1)), 3),
    )
