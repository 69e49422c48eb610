"""The steps of a scan in Triton, from their low-rank form."""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from mambair_cli.kernels.triton_rows import launch
from mambair_cli.programs.steps import steps_kernel

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
            steps_kernel,
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
