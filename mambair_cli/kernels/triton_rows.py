"""Parts that the Triton kernels over rows of channels share: their size, layer norm, GELU."""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

jit: Any = triton.jit  # its types do not know the options of a launch, such as num_warps

EPSILON = 1e-5  # of every layer norm
ELEMENTS = 2048  # values of one program: its rows times their padded length
WARPS = 4  # of one program


class Norm(NamedTuple):
    """A layer norm's parameters.

    Attributes:
        weight: (c,) float32.
        bias: (c,) float32.
    """

    weight: Tensor
    bias: Tensor


def count_rows(columns: int) -> int:
    """Return how many rows of a padded length one program takes."""
    return max(1, ELEMENTS // columns)


def launch(kernel: Any, grid: tuple[int, ...], *operands: Any, **options: Any) -> None:
    """Run a kernel over a grid of programs.

    A product and a sum are rounded once, which has been Triton's default until 3.9; from then on it warns.
    """
    kernel[grid](*operands, enable_fp_fusion=True, **options)


@jit
def normalise(x, exists, weight_ptr, bias_ptr, column, C: tl.constexpr, EPSILON: tl.constexpr):
    """Apply a layer norm to rows of length C; values outside ``exists`` are ignored."""
    mean = tl.sum(tl.where(exists, x, 0.0), 1) / C
    x = tl.where(exists, x - mean[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, 1) / C + EPSILON)
    weight = tl.load(weight_ptr + column, mask=column < C, other=0.0)
    bias = tl.load(bias_ptr + column, mask=column < C, other=0.0)
    return x * scale[:, None] * weight[None, :] + bias[None, :]


@jit
def gelu(x, EXACT: tl.constexpr):
    """Apply GELU; unless EXACT, by a logistic function with a fitted exponent, error 4e-6."""
    if EXACT:
        return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    s = x * x
    p = 3.2290532e-06 * s - 8.823919e-05
    p = p * s - 3.6026954e-04
    p = p * s + 0.10522669
    p = p * s + 2.3020453
    return x / (1.0 + tl.exp2(-x * p))
