"""Gumbel noise that depends on where a pixel is, not on which tile or batch it is computed in."""

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_STRIDE = 0x9E3779B9  # 2**32 over the golden ratio: counters land far from each other


def gumbel_noise(seed: int, layer: int, origin: Tensor, height: int, width: int, tokens: int) -> Tensor:
    """Draw the noise that MambaIRv2 adds to its routing logits.

    Each value is a function of (seed, layer, row and column in the whole image, token) and of nothing else.

    Args:
        seed: Any integer.
        layer: Number of the layer in the network.
        origin: Row and column of each image's first pixel in the image it is a part of, (b, 2) int64.
        height: Rows, in pixels.
        width: Columns, in pixels.
        tokens: Values per pixel.

    Returns:
        (b, height·width, tokens) float32, finite.
    """
    device = origin.device
    key = torch.tensor(_STRIDE, device=device)  # not 0, which scrambles to 0
    for word in ((seed >> 32) & _MASK, seed & _MASK, layer):
        key = _scramble(key ^ word)
    rows = origin[:, :1] + torch.arange(height, device=device)  # (b, h)
    columns = origin[:, 1:] + torch.arange(width, device=device)  # (b, w)
    row_keys = _scramble(key ^ (rows & _MASK))
    column_keys = _scramble(_scramble(key ^ _STRIDE) ^ (columns & _MASK))  # another key: no symmetry
    pixels = _scramble(row_keys[:, :, None] ^ column_keys[:, None])  # (b, h, w)
    counters = torch.arange(tokens, device=device) * _STRIDE
    bits = _scramble((pixels.flatten(1)[:, :, None] + counters) & _MASK)
    uniform = ((bits >> 9).float() + 0.5) * 2.0**-23  # 23 bits: the half is still exact in float32
    return -torch.log(-torch.log(uniform))


def _scramble(x: Tensor) -> Tensor:
    """Map 32-bit integers, kept in int64, one to one onto others that look random.

    Source: Chris Wellons, "Prospecting for Hash Functions" (2018), the function called lowbias32.
    """
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)
