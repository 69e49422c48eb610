"""What the programs over rows of channels share: layer norm and GELU."""

from typing import Any

import triton
import triton.language as tl

jit: Any = triton.jit  # its types do not know the options of a launch, such as num_warps


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
