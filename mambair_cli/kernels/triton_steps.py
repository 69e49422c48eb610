"""The steps of a scan in Triton, from their low-rank form."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mambair_cli.kernels.triton_rows import jit, launch

LEAST_RANKS = 16  # the least length of a sum that matrix units take


class StepsBlock(NamedTuple):
    """Size of one program's part of ``make_steps``.

    Attributes:
        rows: Pixels of one sweep.
        columns: Channels.
        sweeps: Sweeps over pixels.
        warps: Warps that share the part.
    """

    rows: int = 64
    columns: int = 128
    sweeps: int = 8
    warps: int = 4


def round_ranks(r: int) -> int:
    """Round a number of ranks up to a length that matrix units take."""
    return max(LEAST_RANKS, triton.next_power_of_2(r))


def split_weight(weight: Tensor) -> Tensor:
    """Split (k, r, d) float32 into a high and a low part in float16, (k, 2·r, d); r from ``round_ranks``."""
    high = weight.half()
    return torch.cat([high, (weight - high.float()).half()], dim=1)


def make_steps(ranks: Tensor, weight: Tensor, bias: Tensor, block: StepsBlock | None = None) -> Tensor:
    """Expand the low-rank step of each path: ``log2(1 + 2 ** (dt @ weight + bias))``.

    The product is in float16, with a weight in two parts that have 22 correct bits together.

    Args:
        ranks: dt, (b, p, k, r) float16, r from ``round_ranks``.
        weight: Result of ``split_weight`` for log2(e) times dt_weight.
        bias: log2(e) times dt_bias, (k, d) float32.
        block: Size of one program's part; None for the default.

    Returns:
        (b, p, k, d) float16.
    """
    b, pixels, k, r = ranks.shape
    d = bias.shape[1]
    block = block or StepsBlock()
    columns = min((block.columns, block.columns // 2), key=lambda columns: triton.cdiv(d, columns) * columns)
    columns = min(columns, max(16, triton.next_power_of_2(d)))
    result = ranks.new_empty(b, pixels, k, d)
    with torch.cuda.device_of(ranks):
        launch(
            _steps_kernel,
            (triton.cdiv(d, columns) * k * triton.cdiv(pixels, block.rows * block.sweeps), b),
            ranks,
            weight,
            bias,
            result,
            pixels,
            *ranks.stride()[:3],
            D=d,
            K=k,
            RANKS=r,
            ROWS=block.rows,
            COLUMNS=columns,
            SWEEPS=block.sweeps,
            num_warps=block.warps,
        )
    return result


@jit
def _steps_kernel(
    ranks_ptr,
    weight_ptr,
    bias_ptr,
    result_ptr,
    pixels,
    image_stride,
    token_stride,
    path_stride,
    D: tl.constexpr,
    K: tl.constexpr,
    RANKS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SWEEPS: tl.constexpr,
):
    """Make the steps of one path for COLUMNS channels of SWEEPS times ROWS pixels of one image."""
    image = tl.program_id(1).to(tl.int64)
    parts: tl.constexpr = (D + COLUMNS - 1) // COLUMNS * K  # neighbouring programs write to the same pixels
    path = tl.program_id(0) % K
    first = (tl.program_id(0) // parts).to(tl.int64) * ROWS * SWEEPS
    column = tl.program_id(0) % parts // K * COLUMNS + tl.arange(0, COLUMNS)
    rank = tl.arange(0, RANKS)
    weight_ptr += path * 2 * RANKS * D + rank[:, None] * D + column[None, :]
    high = tl.load(weight_ptr, mask=(column < D)[None, :], other=0.0)
    low = tl.load(weight_ptr + RANKS * D, mask=(column < D)[None, :], other=0.0)
    bias = tl.load(bias_ptr + path * D + column, mask=column < D, other=0.0)
    ranks_ptr += image * image_stride + first * token_stride + path * path_stride
    result_ptr += ((image * pixels + first) * K + path) * D
    left = (pixels - first).to(tl.int32)
    for sweep in range(SWEEPS):
        row = sweep * ROWS + tl.arange(0, ROWS)
        ranks = tl.load(
            ranks_ptr + row[:, None] * token_stride + rank[None, :], mask=(row < left)[:, None], other=0.0
        )
        step = _softplus(tl.dot(ranks, low, tl.dot(ranks, high)) + bias[None, :])
        exists = (row < left)[:, None] & (column < D)[None, :]
        place = row[:, None] * (K * D) + column[None, :]
        tl.store(result_ptr + place, step.to(result_ptr.dtype.element_ty), mask=exists)


@jit
def _softplus(x):
    """Return log2(1 + 2 ** x)."""
    # log2(1 + e) / e by a polynomial, error 8.4e-6: a logarithm takes longer, and 1 + e loses small e.
    e = tl.exp2(-tl.abs(x))
    ratio = -0.034435842 * e + 0.14603271
    ratio = ratio * e - 0.30303604
    ratio = ratio * e + 0.46917400
    ratio = ratio * e - 0.72042614
    ratio = ratio * e + 1.4426829
    return tl.maximum(x, 0.0) + e * ratio
