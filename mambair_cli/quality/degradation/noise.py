"""Add noise like that of cameras, scanners and their software."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair_cli.quality.degradation.filters import convolve
from mambair_cli.quality.degradation.resample import FILTERS, resize

GAMMA = 2.2  # power that maps samples to light


class Strength(NamedTuple):
    """The strength of noise, one number for each picture.

    Attributes:
        sigma: Standard deviation in [0, 1], at a value of 1/2, (b,).
        shot: Share of the variance that grows with the value of the pixel, 0 to 1, (b,).
    """

    sigma: Tensor
    shot: Tensor


class Field(NamedTuple):
    """The look of noise.

    Attributes:
        gray: Share of the standard deviation that all channels share, 0 to 1, (b,).
        kernels: Blur of the shared part and of the colours, (b, 2, 21, 21).
        gains: Strength in each channel, around 1, (b, 3).
        grain: Pixels of the picture for each pixel of the noise, 1 at least; more for a picture that was
            enlarged afterwards, (b,).
    """

    gray: Tensor
    kernels: Tensor
    gains: Tensor
    grain: Tensor


def make_field(white: Tensor, field: Field) -> Tensor:
    """Turn white noise into noise of another look, with a standard deviation around 1.

    Args:
        white: Independent normal random numbers, (b, 4, h, w): one for all channels together, and one for
            each of three.
        field: Look of the noise.

    Returns:
        (b, 3, h, w).
    """
    norms = field.kernels.square().sum((2, 3), keepdim=True).sqrt()
    kernels = field.kernels / norms  # keep the variance
    blurred = convolve(white, kernels[:, [0, 1, 1, 1]])
    gray = field.gray[:, None, None, None]
    noise = gray * blurred[:, :1] + (1 - gray.square()).sqrt() * blurred[:, 1:]
    linear = torch.full((len(white),), FILTERS.index("linear"), dtype=torch.int64, device=white.device)
    grown = resize(noise, 1 / field.grain, linear, (white.shape[2], white.shape[3]), 1.0)
    weaker = grown.std((1, 2, 3), keepdim=True) / noise.std((1, 2, 3), keepdim=True)
    return grown / weaker * field.gains[:, :, None, None]


def add(x: Tensor, noise: Tensor, strength: Strength) -> Tensor:
    """Add noise; the part that is shot noise is stronger where the picture is brighter.

    With ``s`` the share of shot noise, its variance at a value ``x`` is::

        sigma ** 2 * (1 - s + 2 * s * x)

    Args:
        x: (b, 3, h, w), around [0, 1].
        noise: Noise of standard deviation around 1, the shape of ``x``.
        strength: Strength of the noise.

    Returns:
        The shape of ``x``, not clipped.
    """
    sigma, shot = (number[:, None, None, None] for number in strength)
    return x + sigma * (1 - shot + 2 * shot * x.clamp(0, 1)).sqrt() * noise


def photograph(x: Tensor, white: Tensor, strength: Strength, balance: Tensor, mosaic: Tensor) -> Tensor:
    """Simulate a camera: noise in linear light, behind a mosaic of colour filters.

    The picture is converted to linear light and to the sensor's colour balance; noise is added to the one
    colour that each pixel sees; the other colours are interpolated from its neighbours; and the picture is
    converted back.

    Args:
        x: (b, 3, h, w).
        white: Independent normal random numbers, (b, 4, h, w); only the first channel is used.
        strength: Strength of the noise, in linear light.
        balance: Gains of red and blue after the sensor, (b, 2).
        mosaic: How much the mosaic blurs the picture itself, from 0 to 1, (b,). Good converters keep its
            detail, but still colour the noise.

    Returns:
        (b, 3, h, w) in [0, 1].
    """
    red, blue = balance[:, 0], balance[:, 1]
    gains = torch.stack([red, torch.ones_like(red), blue], 1)[:, :, None, None]
    light = x.clamp(0, 1) ** GAMMA / gains
    seen = _bayer(x.shape[2], x.shape[3], x.device)
    raw = (light * seen).sum(1, keepdim=True)
    noise = add(raw, white[:, :1], strength) - raw
    coloured = _interpolate(noise, seen)
    softened = _interpolate(raw, seen) - light
    taken = light + coloured + mosaic[:, None, None, None] * softened
    return (taken * gains).clamp(0, 1) ** (1 / GAMMA)


def _bayer(height: int, width: int, device: torch.device) -> Tensor:
    """Return the mask of the colour that each pixel sees, (1, 3, h, w) of 0 and 1."""
    y = torch.arange(height, device=device)[:, None] % 2
    x = torch.arange(width, device=device) % 2
    red, blue = (1 - y) * (1 - x), y * x
    return torch.stack([red, 1 - red - blue, blue])[None].float()


def _interpolate(raw: Tensor, seen: Tensor) -> Tensor:
    """Interpolate the colours that a pixel does not see from its neighbours, (b, 3, h, w)."""
    near = raw.new_tensor([1.0, 2.0, 1.0])
    kernel = (near[:, None] * near)[None, None].repeat(3, 1, 1, 1)
    weight = F.conv2d(seen, kernel, padding=1, groups=3)
    return F.conv2d(raw * seen, kernel, padding=1, groups=3) / weight
