"""The program that makes the steps of a scan from their low-rank form."""

import triton.language as tl

from mambair_cli.programs.rows import jit


@jit(do_not_specialize=["pixels"])
def steps_kernel(
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
