"""The residual stream in Triton: add the output of a part of a block, and prepare the next part's input.

The stream is read and written once for each half of a block, in float32. All else is in 16 bits, in rows
padded with zeros to a length that suits the matrix units. Sums within a pixel are in float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mambair_cli.kernels.triton_rows import EPSILON, WARPS, Norm, count_rows, jit, launch, normalise


def advance_residual(
    x: Tensor,
    padded: int,
    v: Tensor | None = None,
    skip: Tensor | None = None,
    gate: Tensor | None = None,
    bias: Tensor | None = None,
    norm: Norm | None = None,
    keep: bool = True,
    dtype: torch.dtype = torch.float16,
    w: Tensor | None = None,
    w_places: Tensor | None = None,
    places: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Add to the residual stream, and write the sum as the input of the next product.

    ``x' = x * skip + (v + bias) * gate + w``

    Long because each term is an argument, and passed on to the kernel.

    Args:
        x: Residual stream, (b, p, c) float32.
        padded: Length of the prepared rows, c or more.
        v: First summand, (b, p, c or more) in 16 bits.
        skip: Weight of the stream, (c,).
        gate: Weight of ``v``, (b, c).
        bias: Added to ``v``, (c,).
        norm: Layer norm of the prepared rows; None for no norm.
        keep: Whether to write ``x'``.
        dtype: Type of the prepared rows.
        w: Second summand, (b, p, c or more) in 16 bits.
        w_places: Row of ``w`` for each pixel, counted over all images, (b, p) int32; None for its own.
        places: Row at which to write each pixel's prepared row, counted over all images, (b, p) int32; None
            for the pixel's own.

    Returns:
        x' (b, p, c) float32, or x without ``keep``; and the prepared rows, (b, p, padded).
    """
    b, pixels, c = x.shape
    columns = triton.next_power_of_2(padded)
    rows = count_rows(columns)
    keep = keep and not (v is None and w is None)
    result = torch.empty_like(x) if keep else x
    prepared = x.new_empty(b, pixels, padded, dtype=dtype)
    with torch.cuda.device_of(x):
        launch(
            _advance_kernel,
            (triton.cdiv(pixels, rows), b),
            x,
            v,
            skip,
            gate,
            bias,
            w,
            w_places,
            norm and norm.weight,
            norm and norm.bias,
            result,
            prepared,
            places,
            pixels,
            v.shape[-1] if v is not None else 0,
            w.shape[-1] if w is not None else 0,
            C=c,
            PADDED=padded,
            EPSILON=EPSILON,
            KEEP=keep,
            ROWS=rows,
            COLUMNS=columns,
            num_warps=WARPS,
        )
    return result, prepared


@jit
def _advance_kernel(
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
