"""Gumbel noise that depends on where a pixel is, not on which tile or batch it is computed in."""

import torch
from torch import Tensor

from mambair_cli.kernels import choose_backend

_STRIDE = 0x9E3779B9  # 2**32 over the golden ratio: counters land far from each other


def gumbel_noise(seed: int, layer: int, origin: Tensor, height: int, width: int, tokens: int) -> Tensor:
    """Draw the noise that MambaIRv2 adds to its routing logits.

    Each value is a function of (seed, layer, row and column in the whole image, token) and of nothing else.

    Args:
        seed: Any integer.
        layer: Number of the layer in the network.
        origin: Row and column of each image's first pixel in the whole image, (b, 2) int64.
        height: Height of the images, in pixels.
        width: Width of the images, in pixels.
        tokens: Values per pixel.

    Returns:
        (b, height·width, tokens) float32, finite.
    """
    device = origin.device
    row_key, column_key = make_keys(seed, layer)
    rows = origin[:, :1].int() + torch.arange(height, dtype=torch.int32, device=device)  # (b, h)
    columns = origin[:, 1:].int() + torch.arange(width, dtype=torch.int32, device=device)  # (b, w)
    row_keys = _scramble(rows ^ row_key)
    column_keys = _scramble(columns ^ column_key)
    pixels = _scramble(row_keys[:, :, None] ^ column_keys[:, None])  # (b, h, w)
    counters = torch.arange(tokens, dtype=torch.int32, device=device) * _to_int32(_STRIDE)
    if choose_backend(device) == "cpu":
        from mambair_cli.kernels.cpu_routing import draw_gumbel

        return draw_gumbel(pixels.flatten(1), counters)
    bits = _scramble(pixels.flatten(1)[:, :, None] + counters)
    # 23 bits: the half is still exact in float32
    uniform = _shift_right(bits, 9).float().add_(0.5).mul_(2.0**-23)
    return uniform.log_().neg_().log_().neg_()


def make_keys(seed: int, layer: int) -> tuple[int, int]:
    """Return the keys for row and for column numbers, int32; they differ, so that noise is not symmetric."""
    key = _STRIDE  # not 0, which scrambles to 0
    for word in (seed >> 32, seed, layer):
        key = _scramble_word(key ^ word)
    return _to_int32(key), _to_int32(_scramble_word(key ^ _STRIDE))


def _scramble_word(x: int) -> int:
    """Scramble the lowest 32 bits of one number, as ``_scramble`` does those of a tensor."""
    x %= 2**32
    for places, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ x >> places) * factor % 2**32
    return x ^ x >> 16


def _scramble(x: Tensor) -> Tensor:
    """Map 32-bit integers, in place, one to one to others that look random.

    Only the bits of the int32 values matter: overflow is cut off.

    Source: Chris Wellons, "Prospecting for Hash Functions" (2018), the function called lowbias32.
    """
    x.bitwise_xor_(_shift_right(x, 16)).mul_(_to_int32(0x7FEB352D))
    x.bitwise_xor_(_shift_right(x, 15)).mul_(_to_int32(0x846CA68B))
    return x.bitwise_xor_(_shift_right(x, 16))


def _shift_right(x: Tensor, places: int) -> Tensor:
    """Shift int32 as if it had no sign: zeros enter from the left."""
    return (x >> places).bitwise_and_((1 << (32 - places)) - 1)


def _to_int32(word: int) -> int:
    """Return the int32 of a whole number's lowest 32 bits."""
    return (word + 2**31) % 2**32 - 2**31
