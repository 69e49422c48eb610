"""Bias and GELU in place in Triton, alone or followed by a layer norm of half the channels."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mambair_cli.kernels.triton_rows import EPSILON, WARPS, Norm, count_rows, gelu, jit, launch, normalise

COLUMNS, ELEMENTS = 128, 4096  # of one program of gelu_in_place, which may cut rows


def gelu_in_place(x: Tensor, bias: Tensor) -> Tensor:
    """Add a bias, (c,), to each row of x, (..., c), and apply GELU, in place."""
    c = x.shape[-1]
    count = x.numel() // c
    columns = min(COLUMNS, triton.next_power_of_2(c))
    rows = ELEMENTS // columns
    parts = triton.cdiv(c, columns)
    with torch.cuda.device_of(x):
        launch(
            _gelu_kernel,
            (triton.cdiv(count, rows) * parts,),
            x,
            bias,
            count,
            C=c,
            PARTS=parts,
            ROWS=rows,
            COLUMNS=columns,
            num_warps=WARPS,
        )
    return x


def prepare_gate(x: Tensor, bias: Tensor, norm: Norm) -> Tensor:
    """Add a bias to rows, apply GELU, and normalise the second half of each row, in place.

    Args:
        x: Rows, (..., c), contiguous; only the first 2h columns are used.
        bias: Added before GELU, (2h or more,) float32.
        norm: Layer norm of the second half, (h,).

    Returns:
        x
    """
    half, c = norm.weight.shape[0], x.shape[-1]
    count = x.numel() // c
    columns = triton.next_power_of_2(half)
    rows = count_rows(columns)
    with torch.cuda.device_of(x):
        launch(
            _prepare_gate_kernel,
            (triton.cdiv(count, rows),),
            x,
            bias,
            norm.weight,
            norm.bias,
            count,
            C=c,
            HALF=half,
            EPSILON=EPSILON,
            ROWS=rows,
            COLUMNS=columns,
            num_warps=WARPS,
        )
    return x


@jit
def _gelu_kernel(
    x_ptr,
    bias_ptr,
    count,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Activate COLUMNS columns of ROWS rows."""
    row = (tl.program_id(0) // PARTS).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % PARTS * COLUMNS + tl.arange(0, COLUMNS)
    exists = (row < count)[:, None] & (column < C)[None, :]
    place = x_ptr + row[:, None] * C + column[None, :]
    bias = tl.load(bias_ptr + column, mask=column < C, other=0.0)
    x = tl.load(place, mask=exists, other=0.0).to(tl.float32) + bias[None, :]
    x = gelu(x, x_ptr.dtype.element_ty == tl.float32)
    tl.store(place, x.to(x_ptr.dtype.element_ty), mask=exists)


@jit
def _prepare_gate_kernel(
    x_ptr,
    bias_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    count,
    C: tl.constexpr,
    HALF: tl.constexpr,
    EPSILON: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Prepare both halves of ROWS rows."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    exists = (row < count)[:, None] & (column < HALF)[None, :]
    for part in tl.static_range(2):  # pyright: ignore[reportGeneralTypeIssues]: Triton unrolls it
        at = row[:, None] * C + part * HALF + column[None, :]
        x = tl.load(x_ptr + at, mask=exists, other=0.0).to(tl.float32)
        bias = tl.load(bias_ptr + part * HALF + column, mask=column < HALF, other=0.0)
        x = gelu(x + bias[None, :], x_ptr.dtype.element_ty == tl.float32)
        if part == 1:
            x = normalise(x, exists, norm_weight_ptr, norm_bias_ptr, column, HALF, EPSILON)
        tl.store(x_ptr + at, x.to(x_ptr.dtype.element_ty), mask=exists)
