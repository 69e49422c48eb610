"""The residual stream in Triton: add the output of a part of a block, and prepare the next part's input.

The stream is read and written once for each half of a block, in float32. All else is in 16 bits, in rows
padded with zeros to a length that suits the matrix units. Sums within a pixel are in float32.
"""

import torch
import triton
from torch import Tensor

from mambair_cli.kernels.triton_rows import EPSILON, WARPS, Norm, count_rows, launch
from mambair_cli.programs.residual import advance_kernel


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
            advance_kernel,
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
