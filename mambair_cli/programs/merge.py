"""The program that ends a scan: sum its paths, normalise, and multiply by the gate."""

import triton.language as tl

from mambair_cli.programs.rows import jit, normalise


@jit(do_not_specialize=["pixels"])
def merge_kernel(
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
