"""The gate of channel attention in Triton: a weight for each channel, from all channels' averages."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mambair_cli.kernels.triton_rows import WARPS, count_rows, jit, launch

MOST_PARTS = 64  # parts of an image that are summed apart, at most


def gate_channels(
    x: Tensor, bias: Tensor, down: Tensor, down_bias: Tensor, up: Tensor, up_bias: Tensor
) -> Tensor:
    """Return channel attention's gate: ``sigmoid(up @ relu(down @ (mean(x) + bias)))``, with biases.

    Args:
        x: Features, (b, p, c or more) in 16 bits.
        bias: Bias of the features, not yet added to ``x``, (c,).
        down: Weight of the first product, (m, c) float32.
        down_bias: Its bias, (m,).
        up: Weight of the second product, (c, m).
        up_bias: Its bias, (c,).

    Returns:
        (b, c) float32.
    """
    hidden, c = down.shape
    b, pixels, stride = x.shape
    columns = triton.next_power_of_2(c)
    rows = count_rows(columns)
    parts = min(MOST_PARTS, triton.next_power_of_2(triton.cdiv(pixels, 1024)))
    sums = x.new_empty(b, parts, c, dtype=torch.float32)
    result = x.new_empty(b, c, dtype=torch.float32)
    with torch.cuda.device_of(x):
        launch(
            _sum_kernel,
            (parts, b),
            x,
            sums,
            pixels,
            triton.cdiv(pixels, parts),
            stride,
            C=c,
            PARTS=parts,
            ROWS=rows,
            COLUMNS=columns,
            num_warps=WARPS,
        )
        launch(
            _gate_kernel,
            (b,),
            sums,
            bias,
            down,
            down_bias,
            up,
            up_bias,
            result,
            1.0 / pixels,
            C=c,
            HIDDEN=hidden,
            PARTS=parts,
            COLUMNS=columns,
            num_warps=WARPS,
        )
    return result


@jit
def _sum_kernel(
    x_ptr,
    sums_ptr,
    pixels,
    pixels_of_part,
    stride,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sum one part of one image's pixels."""
    part = tl.program_id(0)
    image = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    last = tl.minimum((part + 1) * pixels_of_part, pixels)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(part * pixels_of_part, last, ROWS):
        row = start + tl.arange(0, ROWS)
        at = (image * pixels + row)[:, None] * stride + column[None, :]
        total += tl.load(x_ptr + at, mask=(row < last)[:, None] & (column < C)[None, :], other=0.0)
    sums = tl.sum(total, 0)
    tl.store(sums_ptr + (image * PARTS + part) * C + column, sums, mask=column < C)


@jit
def _gate_kernel(
    sums_ptr,
    bias_ptr,
    down_ptr,
    down_bias_ptr,
    up_ptr,
    up_bias_ptr,
    result_ptr,
    factor,
    C: tl.constexpr,
    HIDDEN: tl.constexpr,
    PARTS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Make the gate of one image."""
    image = tl.program_id(0)
    column = tl.arange(0, COLUMNS)
    exists = column < C
    part = tl.arange(0, PARTS)
    at = (image * PARTS + part)[:, None] * C + column[None, :]
    mean = tl.sum(tl.load(sums_ptr + at, mask=exists[None, :], other=0.0), 0) * factor
    mean += tl.load(bias_ptr + column, mask=exists, other=0.0)
    total = tl.load(up_bias_ptr + column, mask=exists, other=0.0)
    for m in tl.static_range(HIDDEN):  # pyright: ignore[reportGeneralTypeIssues]: Triton unrolls it
        down = tl.load(down_ptr + m * C + column, mask=exists, other=0.0)
        hidden = tl.maximum(tl.sum(mean * down, 0) + tl.load(down_bias_ptr + m), 0.0)
        total += hidden * tl.load(up_ptr + column * HIDDEN + m, mask=exists, other=0.0)
    tl.store(result_ptr + image * C + column, tl.sigmoid(total), mask=exists)
