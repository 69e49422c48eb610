"""The end of a scan in Triton: sum its paths, normalise, and multiply by the gate."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mambair_cli.kernels.triton_rows import EPSILON, WARPS, Norm, count_rows, jit, launch, normalise


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
            _merge_kernel,
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


@jit
def _merge_kernel(
    y_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    z_ptr,
    result_ptr,
    pixels,
    z_stride,
    D: tl.constexpr,
    PADDED: tl.constexpr,
    K: tl.constexpr,
    EPSILON: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Merge the paths at ROWS pixels of one image."""
    image = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    exists = (row < pixels)[:, None] & (column < D)[None, :]
    y = tl.zeros((ROWS, COLUMNS), tl.float32)
    for path in tl.static_range(K):  # pyright: ignore[reportGeneralTypeIssues]: Triton unrolls it
        at = (image * pixels + row) * K + path
        y += tl.load(y_ptr + at[:, None] * PADDED + column[None, :], mask=exists, other=0.0).to(tl.float32)
    y = normalise(y, exists, norm_weight_ptr, norm_bias_ptr, column, D, EPSILON)
    place = image * pixels + row
    if z_ptr is not None:
        z = tl.load(z_ptr + place[:, None] * z_stride + column[None, :], mask=exists, other=0.0)
        z = z.to(tl.float32)
        y *= z * tl.sigmoid(z)
    stored = (row < pixels)[:, None] & (column < PADDED)[None, :]
    y = tl.where(exists, y, 0.0).to(result_ptr.dtype.element_ty)
    tl.store(result_ptr + place[:, None] * PADDED + column[None, :], y, mask=stored)
