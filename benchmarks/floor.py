"""The least time of a network on a card: the sum of its kernels, each at its own limit.

There are as few kernels as possible: each norm, activation and sum is computed by the product, convolution or
scan before or after it. The residual stream is float32 in memory, everything else has 16 bits.
"""

from typing import NamedTuple

from mambair_cli.networks import Config, MambaIRConfig, MambaIRUNetConfig, MambaIRv2Config
from mambair_cli.networks.config import default_dt_rank
from mambair_cli.networks.layers import CAB_HIDDEN_DIVISOR
from mambair_cli.networks.trunk import UPSAMPLE_CHANNELS


class Card(NamedTuple):
    """The most that a card can do in a second.

    Attributes:
        operations: Multiplications and additions of matrix products in 16 bits.
        bytes: Bytes read or written.
        exponentials: Exponentials or logarithms in float32.
    """

    operations: float
    bytes: float
    exponentials: float


H200 = Card(operations=738e12, bytes=4.2e12, exponentials=16 * 132 * 1.98e9)  # the first two are measured


class Kernel(NamedTuple):
    """The work of a kernel for one pixel of the input.

    Attributes:
        multiplications: Multiplications, each with an addition.
        values: Values of 16 bits, read or written.
        stream: Values of the residual stream, read or written.
        exponentials: Exponentials or logarithms.
        times: Number of such kernels in the network.
    """

    multiplications: float
    values: float
    stream: float = 0
    exponentials: float = 0
    times: int = 1


def least_seconds(config: Config, pixels: int, card: Card = H200) -> float:
    """Return the sum of the kernels' least times, for an image of so many pixels."""
    return sum(
        kernel.times
        * pixels
        * max(
            2 * kernel.multiplications / card.operations,
            (2 * kernel.values + 4 * kernel.stream) / card.bytes,
            kernel.exponentials / card.exponentials,
        )
        for kernel in list_kernels(config)
    )


def list_kernels(config: Config) -> list[Kernel]:
    """List the kernels of a network."""
    if isinstance(config, MambaIRUNetConfig):
        raise ValueError("the U-Net works at four resolutions, which is not counted here")
    block = list_block(config) if isinstance(config, MambaIRConfig) else list_layer(config)
    kernels = [kernel._replace(times=sum(config.depths)) for kernel in block]
    c, ch, scale = config.embed_dim, config.in_chans, config.upscale
    kernels.append(Kernel(9 * ch * c, 0, ch + c))
    body = len(config.depths) + 1
    if config.resi_connection == "1conv":
        kernels.append(Kernel(9 * c * c, 0, 4 * c, times=body))
    else:
        narrow = c // 4
        kernels.append(Kernel(9 * c * narrow, narrow, c, times=body))
        kernels.append(Kernel(narrow * narrow, 2 * narrow, times=body))
        kernels.append(Kernel(9 * c * narrow, narrow, 3 * c, times=body))
    f = UPSAMPLE_CHANNELS
    if config.upsampler == "pixelshuffle":
        kernels.append(Kernel(9 * c * f, c + f))
        size, step = 1, 3 if scale == 3 else 2  # size: pixels for each of the input
        while size < scale**2:
            kernels.append(Kernel(size * 9 * f * f * step**2, size * (f + f * step**2)))
            size *= step**2
        kernels.append(Kernel(size * 9 * f * ch, size * f, size * ch))
    elif config.upsampler == "nearest+conv":
        kernels.append(Kernel(9 * c * f, c + f))
        kernels += [Kernel(size * 9 * f * f, size * f + size / 4 * f) for size in (4, 16)]
        kernels += [Kernel(16 * 9 * f * f, 2 * 16 * f), Kernel(16 * 9 * f * ch, 16 * f, 16 * ch)]
    else:
        kernels.append(Kernel(9 * c * ch * scale**2, c, (1 + scale**2) * ch))
    return kernels


def list_block(config: MambaIRConfig) -> list[Kernel]:
    """List the kernels of a block of MambaIR."""
    c, d, n, k = config.embed_dim, config.d_inner, config.d_state, 4
    rows = k * (default_dt_rank(c) + 2 * n)
    kernels = [
        Kernel(2 * c * d, 2 * d, c),  # norm, product
        Kernel(9 * d, 2 * d),  # depthwise, SiLU
        Kernel(d * rows, d + rows),
        Kernel(k * d * default_dt_rank(c), d + rows + k * d, exponentials=k * d * n),  # steps, scan
        Kernel(d * c, (k + 1) * d, 2 * c),  # sum, norm, gate, product, sum
    ]
    if config.cab == "light-2024-02":
        return [*kernels, Kernel(9 * c, c, c), Kernel(c, c, 2 * c)]
    hidden = c // CAB_HIDDEN_DIVISOR[config.cab]
    if config.cab == "light":
        local = [Kernel(c * hidden, hidden, c), Kernel(9 * hidden, 2 * hidden)]
        local += [Kernel(c * hidden, hidden + c), Kernel(9 * c, 2 * c)]
    else:
        local = [Kernel(9 * c * hidden, hidden, c), Kernel(9 * c * hidden, hidden + c)]
    return [*kernels, *local, Kernel(c, c, 2 * c)]  # gate, sum


def list_layer(config: MambaIRv2Config) -> list[Kernel]:
    """List the kernels of a layer of MambaIRv2."""
    c, d, n, t = config.embed_dim, config.d_inner, config.d_state, config.num_tokens
    taps, window, heads = config.convffn_kernel_size**2, config.window_size**2, config.num_heads[0]
    rank = default_dt_rank(d)
    seen, kept = (d, d) if config.feed_forward == "conv" else (d, d // 2)
    feed_forward = [
        Kernel(c * d, d, c),  # norm, product, GELU
        Kernel(taps * kept, seen + kept),
        Kernel(kept * c, kept, 2 * c),  # product, sums
    ]
    hidden = c // 3
    return [
        Kernel(3 * c * c, 3 * c, c),  # norm, product
        Kernel(2 * window * c, 4 * c, exponentials=heads * window),
        Kernel(c * c, c, 2 * c),
        *feed_forward,
        Kernel(c * hidden + hidden * t, 2, c, exponentials=2 * t),  # norm, route, noise, label
        Kernel(c * d, d, c),
        Kernel(9 * d, 2 * d),
        Kernel(d * (rank + 2 * n), d + rank + 2 * n),
        Kernel(d * rank, 2 * d + rank + 2 * n, exponentials=d * n),
        Kernel(d * c, d, 2 * c),  # norm, product, sum
        *feed_forward,
    ]
