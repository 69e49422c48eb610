"""Bias and GELU in place in Triton, alone or followed by a layer norm of half the channels."""

import torch
import triton
from torch import Tensor

from mambair_cli.kernels.triton_rows import EPSILON, WARPS, Norm, count_rows, launch
from mambair_cli.programs.gelu import gelu_kernel, prepare_gate_kernel

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
            gelu_kernel,
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
            prepare_gate_kernel,
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
