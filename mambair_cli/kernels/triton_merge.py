"""The end of a scan in Triton: sum its paths, normalise, and multiply by the gate."""

import torch
import triton
from torch import Tensor

from mambair_cli.kernels.triton_rows import EPSILON, WARPS, Norm, count_rows, launch
from mambair_cli.programs.merge import merge_kernel


def merge_paths(y: Tensor, norm: Norm, z: Tensor | None, dtype: torch.dtype = torch.float16) -> Tensor:
    """Sum the paths of a scan at each pixel, normalise, and gate: ``norm(sum(y)) * silu(z)``.

    Args:
        y: Each path's result, (b, p, k, d or more).
        norm: Layer norm of the sum, (d,).
        z: Gate before its activation, (b, p, d), rows at any distance; None for no gate.
        dtype: Type of the result.

    Returns:
        (b, p, d or more), with zeros beyond d.
    """
    b, pixels, k, padded = y.shape
    columns = triton.next_power_of_2(padded)
    rows = count_rows(columns)
    result = y.new_empty(b, pixels, padded, dtype=dtype)
    with torch.cuda.device_of(y):
        launch(
            merge_kernel,
            (triton.cdiv(pixels, rows), b),
            y,
            norm.weight,
            norm.bias,
            z,
            result,
            pixels,
            z.stride(1) if z is not None else 0,
            D=norm.weight.shape[0],
            PADDED=padded,
            K=k,
            EPSILON=EPSILON,
            ROWS=rows,
            COLUMNS=columns,
            num_warps=WARPS,
        )
    return result
