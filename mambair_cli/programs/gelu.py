"""Programs that add a bias and apply GELU in place, alone or followed by a layer norm of half a row."""

import triton.language as tl

from mambair_cli.programs.rows import gelu, jit, normalise


@jit(do_not_specialize=["count"])
def gelu_kernel(
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


@jit(do_not_specialize=["count"])
def prepare_gate_kernel(
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
