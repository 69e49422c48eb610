"""Resize each picture of a batch by its own factor and filter, as two matrix products."""

import math

import torch
from torch import Tensor

FILTERS = ("cubic", "linear", "area", "lanczos", "sharp cubic", "plain linear")
"""Names of the filters, by number. The first four get wider where a picture shrinks, which avoids aliasing;
the last two, like those of quick resizers, do not."""

_WIDENED = 4
_REACH = 3  # radius of the widest filter, in pixels


def resize(x: Tensor, steps: Tensor, filters: Tensor, shape: tuple[int, int], widest: float) -> Tensor:
    """Resize pictures with the usual positions of pixel centres.

    With ``k`` a filter::

        y[i] = sum_j w(i, j) x[j],   w(i, j) = k(((i + 1/2) * step - 1/2 - j) / max(step, 1))

    normalised to a sum of one, and mirrored at the border.

    Args:
        x: (b, c, h, w).
        steps: Pixels of the input for each pixel of the output, (b,).
        filters: Number of each picture's filter, (b,).
        shape: Height and width of the output; beyond the input its border is repeated.
        widest: Upper limit of all steps.

    Returns:
        (b, c, *shape).
    """
    rows, columns = (
        _weights(have, want, steps, filters, widest) for have, want in zip(x.shape[2:], shape, strict=True)
    )
    return rows[:, None] @ x @ columns.transpose(1, 2)[:, None]


def _weights(have: int, want: int, steps: Tensor, filters: Tensor, widest: float) -> Tensor:
    """Return the weight of each input pixel in each output pixel, (b, want, have)."""
    beyond = min(have, math.ceil(_REACH * max(widest, 1)) + 1)
    output = torch.arange(want, device=steps.device)
    centre = ((output + 0.5) * steps[:, None] - 0.5).clamp(-0.5, have - 0.5)
    pixel = torch.arange(-beyond, have + beyond, device=steps.device)
    stretch = torch.where(filters < _WIDENED, steps.clamp(min=1), torch.ones_like(steps))
    distance = (centre[:, :, None] - pixel) / stretch[:, None, None]
    weights = _evaluate(distance.abs(), filters)
    weights = weights / weights.sum(2, keepdim=True)
    folded = weights[:, :, beyond:-beyond].clone()
    folded[:, :, :beyond] += weights[:, :, :beyond].flip(2)
    folded[:, :, -beyond:] += weights[:, :, -beyond:].flip(2)
    return folded


def _evaluate(x: Tensor, filters: Tensor) -> Tensor:
    """Evaluate each picture's filter at distances from its centre, (b, want, pixels)."""
    linear, area = (1 - x).clamp(min=0), (x <= 0.5).to(x.dtype)
    of_all = (_cubic(x, -0.5), linear, area, _lanczos(x), _cubic(x, -0.75), linear)
    result = of_all[0]
    for number, values in enumerate(of_all[1:], 1):
        result = torch.where((filters == number)[:, None, None], values, result)
    return result


def _cubic(x: Tensor, a: float) -> Tensor:
    """Evaluate the cubic convolution kernel (Keys 1981)."""
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, inner, torch.where(x <= 2, outer, torch.zeros_like(x)))


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x < _REACH, torch.sinc(x) * torch.sinc(x / _REACH), torch.zeros_like(x))
