"""Blur and sharpen: a small kernel for each picture, applied by the Fourier transform."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 10  # pixels: kernels are 21×21
SIDE = 2 * RADIUS + 1

_Y, _X = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1].astype(np.float64)


def gaussian(
    sigma: float, aspect: float = 1.0, angle: float = 0.0, power: float = 2.0, plateau: bool = False
) -> np.ndarray:
    """Return a Gaussian kernel, or a generalised one.

    With ``r`` the distance in standard deviations, along axes rotated by ``angle``::

        exp(-r ** power / 2)      or, as a plateau,      1 / (1 + r ** power)

    Args:
        sigma: Standard deviation along the first axis, in pixels.
        aspect: Standard deviation along the second axis, divided by that along the first.
        angle: Angle of the axes, in radians.
        power: 2 for a Gaussian; less for longer tails, more for a flatter top.
        plateau: Whether to use the second form.

    Returns:
        (21, 21) float64, summing to one.
    """
    cosine, sine = math.cos(angle), math.sin(angle)
    across = (cosine * _X + sine * _Y) / sigma
    along = (cosine * _Y - sine * _X) / (sigma * aspect)
    r = np.hypot(across, along) ** power
    kernel = 1 / (1 + r) if plateau else np.exp(-r / 2)
    return kernel / kernel.sum()


def disc(radius: float) -> np.ndarray:
    """Return the kernel of a lens out of focus: a disc with a rim of one pixel.

    Args:
        radius: Radius, in pixels.

    Returns:
        (21, 21) float64, summing to one.
    """
    kernel = np.clip(radius + 0.5 - np.hypot(_X, _Y), 0, 1)
    return kernel / kernel.sum()


def low_pass(cutoff: float) -> np.ndarray:
    """Return the kernel that keeps a disc of frequencies; it rings like strong reduction or compression.

    Args:
        cutoff: Highest frequency that is kept, in radians per pixel, up to pi.

    Returns:
        (21, 21) float64, summing to one.
    """
    r = np.hypot(_X, _Y)
    r[RADIUS, RADIUS] = 1
    bessel = torch.special.bessel_j1(torch.from_numpy(cutoff * r)).numpy()
    kernel = cutoff * bessel / (2 * math.pi * r)
    kernel[RADIUS, RADIUS] = cutoff**2 / (4 * math.pi)
    return kernel / kernel.sum()


def sharpen(amount: float, sigma: float) -> np.ndarray:
    """Return the kernel of an unsharp mask: ``x + amount * (x - blurred x)``.

    Args:
        amount: Share of the difference that is added.
        sigma: Standard deviation of the blur, in pixels.

    Returns:
        (21, 21) float64, summing to one.
    """
    kernel = -amount * gaussian(sigma)
    kernel[RADIUS, RADIUS] += 1 + amount
    return kernel


def convolve(x: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each picture with its own kernel; beyond its border it is mirrored.

    Args:
        x: (b, c, h, w).
        kernels: (b, 21, 21) for all channels alike, or (b, c, 21, 21).

    Returns:
        (b, c, h, w).
    """
    height, width = x.shape[2:]
    mode = "reflect" if min(height, width) > RADIUS else "replicate"
    padded = F.pad(x, (RADIUS,) * 4, mode=mode)
    shape = padded.shape[2:]
    if kernels.ndim == 3:
        kernels = kernels[:, None]
    centred = F.pad(kernels, (0, shape[1] - SIDE, 0, shape[0] - SIDE)).roll((-RADIUS, -RADIUS), (2, 3))
    product = torch.fft.rfft2(padded) * torch.fft.rfft2(centred)
    return torch.fft.irfft2(product, s=shape)[:, :, RADIUS:-RADIUS, RADIUS:-RADIUS]
