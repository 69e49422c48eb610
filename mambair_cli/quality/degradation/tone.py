"""Tones of gray photographs: sepia, selenium, cyanotype and others, a curve for each channel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mambair_cli.quality.degradation.transfer import send

STEEPEST = 0.9  # below 1, curves rise everywhere

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Tone:
    """A smooth curve for each of red, green and blue, which rises everywhere.

    With ``x`` the gray, ``t = x + bend * x * (1 - x) + sway * x * (1 - x) * (1 - 2 * x)`` and the result
    ``black + (white - black) * t``. The absolute values of bend and sway are less than 1 together.

    Attributes:
        black: What black becomes.
        white: What white becomes.
        bend: How much the middle is brighter.
        sway: How much the dark half is brighter and the bright half darker.
    """

    black: Channels
    white: Channels
    bend: Channels
    sway: Channels


# The limits of black, white and bend of each at full strength, for red, green and blue.
_KINDS = {
    "sepia": (
        ((0.0, 0.16), (0.0, 0.1), (0.0, 0.06)),
        ((0.94, 1.0), (0.88, 0.98), (0.7, 0.94)),
        ((0.1, 0.6), (-0.1, 0.15), (-0.7, -0.1)),
    ),
    "selenium": (
        ((0.03, 0.14), (0.0, 0.06), (0.03, 0.14)),
        ((0.96, 1.0), (0.94, 1.0), (0.94, 1.0)),
        ((0.0, 0.3), (-0.25, 0.0), (-0.1, 0.25)),
    ),
    "cyanotype": (
        ((0.0, 0.1), (0.05, 0.25), (0.2, 0.5)),
        ((0.85, 1.0), (0.92, 1.0), (0.94, 1.0)),
        ((-0.7, -0.2), (-0.2, 0.2), (0.1, 0.6)),
    ),
    "other": (
        ((0.0, 0.3),) * 3,
        ((0.7, 1.0),) * 3,
        ((-0.6, 0.6),) * 3,
    ),
}


def draw_tone(random: np.random.Generator) -> Tone:
    """Draw a tone, from a tinge of one to its full strength."""
    kind = str(random.choice(list(_KINDS), p=[0.45, 0.15, 0.15, 0.25]))
    black, white, bend = (random.uniform(*np.transpose(limits)) for limits in _KINDS[kind])
    strength = random.uniform(0.2, 1.0)
    sway = random.uniform(-1, 1) * (STEEPEST - np.abs(bend).max())  # alike in all: the contrast of a print
    sways = (0.5 * sway + random.uniform(-0.05, 0.05, 3)) * (strength if kind == "other" else 0.5)
    return Tone(
        _three(strength * black), _three(1 - strength * (1 - white)), _three(strength * bend), _three(sways)
    )


def apply_tones(gray: Tensor, tones: Sequence[Tone]) -> Tensor:
    """Tone gray pictures.

    Args:
        gray: (b, 3, h, w) with equal channels; clipped to [0, 1] first, beyond which curves might fall.
        tones: One for each picture.

    Returns:
        The shape of ``gray``, in [0, 1].
    """
    values = [(tone.black, tone.white, tone.bend, tone.sway) for tone in tones]
    black, white, bend, sway = send(values, gray.device).transpose(0, 1)[..., None, None]
    x = gray.clamp(0, 1)
    curved = x + x * (1 - x) * (bend + sway * (1 - 2 * x))
    return black + (white - black) * curved


def _three(values: np.ndarray) -> Channels:
    red, green, blue = values.tolist()
    return red, green, blue
