"""Weights as the fused networks read them: padded with zeros, in their dtype and in the kernels' order."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair_cli.kernels.triton_rows import EPSILON, Norm

MULTIPLES = (64, 8)  # channels; the first is faster, unless the padding is more than an eighth


def pad(channels: int) -> int:
    """Round a number of channels up to what the matrix units compute fast."""
    best, least = (round_up(channels, multiple) for multiple in MULTIPLES)
    return best if best * 8 <= channels * 9 else least


def round_up(count: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-count // multiple) * multiple


def pad_channels(d: int) -> int:
    """Round a scan's channels up, so that products read rows in whole words of 16 bytes."""
    return round_up(d, MULTIPLES[-1])


def pad_matrix(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Pad a product's weight, (out, in), to multiples on both sides."""
    rows, columns = weight.shape
    return F.pad(weight.detach(), (0, pad(columns) - columns, 0, pad(rows) - rows)).to(dtype)


def pad_vector(x: Tensor | None, length: int) -> Tensor:
    """Pad a bias with zeros, in float32; it must not be None."""
    assert x is not None
    return F.pad(x.detach().float(), (0, length - len(x)))


def pack_convolution(conv: nn.Conv2d, dtype: torch.dtype, spread: int = 1) -> tuple[Tensor, Tensor]:
    """Pad a convolution's channels: weight in ``dtype``, channels last, and bias in float32.

    Args:
        conv: The convolution, on its device.
        dtype: Type of the packed weight.
        spread: Side s of the square of pixels over which a pixel shuffle will spread the output: channels
            (c, s, s) are packed as (s, s, c).
    """
    weight = conv.weight.detach()
    out, into = weight.shape[:2]
    bias = weight.new_zeros(out, dtype=torch.float32) if conv.bias is None else conv.bias.detach()
    if spread > 1:
        weight, bias = (x.unflatten(0, (-1, spread**2)).transpose(0, 1).flatten(0, 1) for x in (weight, bias))
    weight = F.pad(weight, (0, 0, 0, 0, 0, pad(into) - into, 0, pad(out) - out)).to(dtype)
    return weight.contiguous(memory_format=torch.channels_last), pad_vector(bias, pad(out))


def pack_depthwise(conv: nn.Conv2d, padded: int | None = None) -> tuple[Tensor, Tensor]:
    """Lay out a depthwise convolution's weight as (side², padded), and its bias, in float32."""
    c = conv.in_channels
    padded = pad(c) if padded is None else padded
    weight = conv.weight.detach().float().view(c, -1).T
    return F.pad(weight, (0, padded - c)).contiguous(), pad_vector(conv.bias, padded)


def pack_norm(norm: nn.LayerNorm) -> Norm:
    """Take a norm's weight and bias in float32; its epsilon must be that of the kernels."""
    assert norm.eps == EPSILON, f"a norm's epsilon must be {EPSILON}, not {norm.eps}"
    return Norm(norm.weight.detach().float(), cast(Tensor, norm.bias).detach().float())
