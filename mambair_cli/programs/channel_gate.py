"""The programs of channel attention's gate: sums of parts of an image, and the gate from them."""

import triton.language as tl

from mambair_cli.programs.rows import jit


@jit(do_not_specialize=["pixels", "pixels_of_part"])
def sum_kernel(
    x_ptr,
    sums_ptr,
    pixels,
    pixels_of_part,
    stride,
    C: tl.constexpr,
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
    tl.store(sums_ptr + (image * tl.num_programs(0) + part) * C + column, sums, mask=column < C)


@jit
def gate_kernel(
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
