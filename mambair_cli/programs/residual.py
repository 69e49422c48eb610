"""The program that adds to the residual stream and prepares the next part's input."""

import triton.language as tl

from mambair_cli.programs.rows import jit, normalise


@jit(do_not_specialize=["pixels"])
def advance_kernel(
    x_ptr,
    v_ptr,
    skip_ptr,
    gate_ptr,
    bias_ptr,
    w_ptr,
    w_places_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    result_ptr,
    prepared_ptr,
    places_ptr,
    pixels,
    v_stride,
    w_stride,
    C: tl.constexpr,
    PADDED: tl.constexpr,
    EPSILON: tl.constexpr,
    KEEP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Advance ROWS pixels of one image; terms that are None are left out."""
    image = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    place = image * pixels + row
    exists = (row < pixels)[:, None] & (column < C)[None, :]
    at = place[:, None] * C + column[None, :]
    x = tl.load(x_ptr + at, mask=exists, other=0.0)
    if skip_ptr is not None:
        x *= tl.load(skip_ptr + column, mask=column < C, other=0.0)[None, :]
    if v_ptr is not None:
        v = tl.load(v_ptr + place[:, None] * v_stride + column[None, :], mask=exists, other=0.0)
        v = v.to(tl.float32)
        if bias_ptr is not None:
            v += tl.load(bias_ptr + column, mask=column < C, other=0.0)[None, :]
        if gate_ptr is not None:
            v *= tl.load(gate_ptr + image * C + column, mask=column < C, other=0.0)[None, :]
        x += v
    if w_ptr is not None:
        w_place = place
        if w_places_ptr is not None:
            w_place = tl.load(w_places_ptr + place, mask=row < pixels, other=0).to(tl.int64)
        w = tl.load(w_ptr + w_place[:, None] * w_stride + column[None, :], mask=exists, other=0.0)
        x += w.to(tl.float32)
    if KEEP:
        tl.store(result_ptr + at, x, mask=exists)
    if norm_weight_ptr is not None:
        x = normalise(x, exists, norm_weight_ptr, norm_bias_ptr, column, C, EPSILON)
    stored = (row < pixels)[:, None] & (column < PADDED)[None, :]
    prepared = tl.where(exists, x, 0.0).to(prepared_ptr.dtype.element_ty)
    if places_ptr is not None:
        place = tl.load(places_ptr + place, mask=row < pixels, other=0).to(tl.int64)
    tl.store(prepared_ptr + place[:, None] * PADDED + column[None, :], prepared, mask=stored)
