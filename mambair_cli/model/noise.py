"""Gumbel noise that depends on where a pixel is, not on which tile or batch it is computed in."""

import torch
from torch import Tensor

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
    key = torch.tensor(_to_int32(_STRIDE), dtype=torch.int32, device=device)  # not 0, which scrambles to 0
    for word in (seed >> 32, seed, layer):
        key = _scramble(key ^ _to_int32(word))
    rows = origin[:, :1].int() + torch.arange(height, dtype=torch.int32, device=device)  # (b, h)
    columns = origin[:, 1:].int() + torch.arange(width, dtype=torch.int32, device=device)  # (b, w)
    row_keys = _scramble(key ^ rows)
    column_keys = _scramble(_scramble(key ^ _to_int32(_STRIDE)) ^ columns)  # another key: no symmetry
    pixels = _scramble(row_keys[:, :, None] ^ column_keys[:, None])  # (b, h, w)
    counters = torch.arange(tokens, dtype=torch.int32, device=device) * _to_int32(_STRIDE)
    bits = _scramble(pixels.flatten(1)[:, :, None] + counters)
    # 23 bits: the half is still exact in float32
    uniform = _shift_right(bits, 9).float().add_(0.5).mul_(2.0**-23)
    return uniform.log_().neg_().log_().neg_()


def _scramble(x: Tensor) -> Tensor:
    """Map 32-bit integers, in place, one to one onto others that look random.

    They are int32, of which only the bits matter: what overflows is cut off.

    Source: Chris Wellons, "Prospecting for Hash Functions" (2018), the function called lowbias32.
    """
    x.bitwise_xor_(_shift_right(x, 16)).mul_(_to_int32(0x7FEB352D))
    x.bitwise_xor_(_shift_right(x, 15)).mul_(_to_int32(0x846CA68B))
    return x.bitwise_xor_(_shift_right(x, 16))


def _shift_right(x: Tensor, places: int) -> Tensor:
    """Shift int32 as if it had no sign: zeros come in."""
    return (x >> places).bitwise_and_((1 << (32 - places)) - 1)


def _to_int32(word: int) -> int:
    """Return the int32 of a whole number's lowest 32 bits."""
    return (word + 2**31) % 2**32 - 2**31
