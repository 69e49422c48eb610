"""Compress and decode pictures: JPEG for a batch by matrix products, WebP by its library."""

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mambair_cli.images.samples import LUMA
from mambair_cli.quality.degrade import check_sides

BLOCK = 8  # pixels: side of a JPEG block

# The quantisation tables that the JPEG standard suggests (ITU-T T.81, annex K), which libjpeg scales.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)

# JFIF: Y, Cb and Cr from R, G and B, the latter two around 128; and back.
_TO_YCC = (
    LUMA,
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def round_to_bytes(x: Tensor) -> Tensor:
    """Clip to [0, 1] and round to 8 bits, as in a saved file."""
    return (x.clamp(0, 1) * 255).round() / 255


def jpeg(x: Tensor, quality: Tensor, shift: Tensor, subsampled: bool) -> Tensor:
    """Encode and decode pictures as JPEG, by libjpeg's steps.

    Up to 5 in a thousand samples of a photograph differ from libjpeg's by more than 1, and up to 25 in a
    thousand of noise in pure colours; with subsampled colours more at the last rows and columns, which
    libjpeg repeats otherwise.

    Args:
        x: (b, 3, h, w) in [0, 1]; clipped and rounded to 8 bits first.
        quality: Quality of libjpeg, 1 to 100, (b,).
        shift: Rows and columns of the first blocks outside the picture, 0 to 15, (b, 2) int64; not 0 for a
            picture that was cropped after it was saved.
        subsampled: Whether colours have half the resolution (4:2:0) or the full one (4:4:4).

    Returns:
        (b, 3, h, w), multiples of 1/255.
    """
    height, width = x.shape[2:]
    rows, columns = (
        (torch.arange(_padded(side), device=x.device) - shift[:, axis, None]).clamp(0, side - 1)
        for axis, side in enumerate((height, width))
    )
    picture = torch.arange(len(x), device=x.device)[:, None, None]
    samples = (x.clamp(0, 1) * 255).round().permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None]]
    ycc = (samples @ _constant(_TO_YCC, x.device).T - 0.5).ceil().permute(0, 3, 1, 2)  # pure blue's half, too
    luma, chroma = ycc[:, :1] - 128, ycc[:, 1:]
    luma_table, chroma_table = (
        _scale_table(_constant(table, x.device), quality) for table in (_LUMA, _CHROMA)
    )
    luma = _quantize(luma, luma_table)
    if subsampled:
        reduced = _round_columns(F.avg_pool2d(chroma, 2), 1 / 4, 2 / 4)
        # The weights are libjpeg's: 9, 3, 3 and 1 of 16.
        enlarged = F.interpolate(_quantize(reduced, chroma_table), scale_factor=2, mode="bilinear")
        chroma = _round_columns(enlarged, 8 / 16, 7 / 16)
    else:
        chroma = _quantize(chroma, chroma_table)
    decoded = torch.cat([luma + 128, chroma], 1).permute(0, 2, 3, 1) @ _constant(_TO_RGB, x.device).T
    down, right = (
        torch.arange(side, device=x.device) + shift[:, axis, None]
        for axis, side in enumerate((height, width))
    )
    kept = decoded[picture, down[:, :, None], right[:, None]]
    return kept.round().clamp(0, 255).permute(0, 3, 1, 2) / 255


def webp(pictures: np.ndarray, qualities: Sequence[int]) -> np.ndarray:
    """Encode and decode pictures as lossy WebP.

    Args:
        pictures: (b, h, w, 3) uint8.
        qualities: Quality of libwebp for each picture, 0 to 100.

    Returns:
        (b, h, w, 3) uint8.

    Raises:
        ImageError: WebP has no room for their size.
    """
    decoded = np.empty_like(pictures)
    for picture, quality, place in zip(pictures, qualities, decoded, strict=True):
        check_sides(picture, "webp")
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "WEBP", quality=quality, method=2)
        place[:] = np.asarray(Image.open(file).convert("RGB"))
    return decoded


def _padded(side: int) -> int:
    """Return a side rounded up to complete blocks of subsampled colours, with room for any shift."""
    unit = 2 * BLOCK
    return -(-(side + unit - 1) // unit) * unit


def _scale_table(table: Tensor, quality: Tensor) -> Tensor:
    """Return the steps of a quality, (b, 1, 1, 8, 1, 8), for blocks (b, c, rows, 8, columns, 8)."""
    percent = torch.where(quality < 50, torch.floor(5000 / quality), 200 - 2 * quality)
    steps = torch.floor((table * percent[:, None, None] + 50) / 100).clamp(1, 255)
    return steps[:, None, None, :, None, :]


def _quantize(x: Tensor, steps: Tensor) -> Tensor:
    """Transform blocks, round their coefficients to steps, transform them back, and round to integers.

    libjpeg computes with integers, 1/4 in the first half of a transform and 1/8 of a coefficient in the
    second. They are whole numbers here, too, so that halves are rounded as there, also in float32.

    Args:
        x: Integers from -128 to 127, (b, c, h, w).
        steps: Steps of each coefficient, (b, 1, 1, 8, 1, 8).

    Returns:
        The same shape, from -128 to 127.
    """
    b, c, height, width = x.shape
    blocks = x.reshape(b, c, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    cosines = _cosines(x.device)
    half_done = _round_up(torch.einsum("bchiwj,vj->bchiwv", blocks, 4 * cosines))
    coefficients = _round_up(torch.einsum("bchiwv,ui->bchuwv", half_done, cosines / 4))  # in eighths
    half = torch.copysign(4 * steps, coefficients)
    coefficients = coefficients.add_(half).div_(8 * steps).trunc_().mul_(steps)  # halves away from 0
    half_done = _round_up(torch.einsum("bchuwv,ui->bchiwv", coefficients, 4 * cosines))
    decoded = _round_up(torch.einsum("bchiwv,vj->bchiwj", half_done, cosines / 32))
    return decoded.clamp_(-128, 127).reshape(b, c, height, width)


def _round_up(x: Tensor) -> Tensor:
    """Round to integers in place, halves up; products of float32 miss a half by a little."""
    return x.add_(0.5 + 2**-8).floor_()


def _round_columns(x: Tensor, even: float, odd: float) -> Tensor:
    """Round down to integers after a share is added to columns, in turn: libjpeg's halves cancel out so."""
    share = x.new_tensor((even, odd)).repeat(x.shape[3] // 2)
    return (x + share).floor()


@cache
def _constant(values: tuple, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


@cache
def _cosines(device: torch.device) -> Tensor:
    """Return the cosine transform of 8 numbers, (8, 8), times the root of 8, with libjpeg's 13 bits."""
    place = torch.arange(BLOCK, dtype=torch.float64, device="cpu")
    cosines = torch.cos(torch.pi * place[:, None] * (2 * place + 1) / (2 * BLOCK)) * 2**0.5
    cosines[0] /= 2**0.5
    return ((cosines * 2**13).round() / 2**13).float().to(device)
