"""Count the multiply-adds of a network, layer by layer, without running it."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from mambair_cli.networks import build_network
from mambair_cli.networks.config import Config, MambaIRUNetConfig, MambaIRv2Config
from mambair_cli.networks.layers import SS2D, ChannelAttention, PixelShuffle, PixelUnshuffle
from mambair_cli.networks.mambair_v2 import ASSM, Scan, WindowAttention
from mambair_cli.networks.unet import SIDE_MULTIPLE

DOUBLED = ("conv_up1", "conv_up2")  # layers before which both sides of the image are doubled

# Products for each state and for each channel of the scan, in a step along a path.
PER_STATE = 4  # step · A; step·u · B; decay · state; C · state
PER_CHANNEL = 2  # step · u; D · u
# The same in the papers, which count as fvcore does with the formula of Mamba's authors.
PAPERS_PER_STATE = 9
PAPERS_PER_CHANNEL = 1
PAPERS_PER_NORMED = 5  # for each value that a layer norm returns


@dataclass(frozen=True)
class Count:
    """The parameters of a network, and its multiply-adds for one image.

    One multiply-add is one product in a convolution, a matrix product or the scan. Sums alone, biases, norms,
    activations and gates are not counted.

    Attributes:
        parameters: Number of learned values.
        width: Width of the input, in pixels.
        height: Height of the input, in pixels.
        products: In convolutions and matrix products.
        attention: In the attention of windows, two products for a channel and pair of pixels; 0 for MambaIR.
        scan: In the selective scan: for each pixel, path and channel the rank of the step, two products, and
            four for each state. Exponentials are not counted.
        papers: All of it as the papers count: nine for each state and one for each channel in the scan, five
            for each value of a layer norm, and MambaIRv2's look-up in its dictionary as a matrix product.
    """

    parameters: int
    width: int
    height: int
    products: int
    attention: int
    scan: int
    papers: int

    @property
    def total(self) -> int:
        """All multiply-adds."""
        return self.products + self.attention + self.scan


def count(config: Config, width: int, height: int) -> Count:
    """Count the parameters of a network, and its multiply-adds for one image in one tile.

    Args:
        config: Configuration of the network; weights do not matter.
        width: Width of the input, in pixels.
        height: Height of the input, in pixels.
    """
    if isinstance(config, MambaIRv2Config):
        multiple = config.window_size
    else:
        multiple = SIDE_MULTIPLE if isinstance(config, MambaIRUNetConfig) else 1
    pixels = math.prod(-(-side // multiple) * multiple for side in (width, height))
    with torch.device("meta"):  # without memory
        net = build_network(config)
    tally = _Tally()
    tally.add(net, pixels)
    return Count(
        parameters=net.info.parameters,
        width=width,
        height=height,
        products=tally.products,
        attention=tally.attention,
        scan=tally.scan,
        papers=tally.products + tally.attention + tally.papers,
    )


class _Tally:
    """What layers add up; see :class:`Count`."""

    def __init__(self) -> None:
        self.products = self.attention = self.scan = self.papers = 0

    def add(self, layer: nn.Module, pixels: int) -> int:
        """Count a layer and those in it, which are in the order in which they run.

        Args:
            layer: Layer of a network.
            pixels: Number of pixels that it is given.

        Returns:
            Number of pixels that it returns.
        """
        self._add_own(layer, pixels)
        if isinstance(layer, ChannelAttention):
            self._add_children(layer, 1)
            return pixels
        if isinstance(layer, PixelShuffle):
            return pixels * layer.scale**2
        if isinstance(layer, PixelUnshuffle):
            return pixels // layer.scale**2
        return self._add_children(layer, pixels)

    def _add_children(self, layer: nn.Module, pixels: int) -> int:
        for name, child in layer.named_children():
            pixels = self.add(child, pixels * 4 if name in DOUBLED else pixels)
        return pixels

    def _add_own(self, layer: nn.Module, pixels: int) -> None:
        """Count what a layer does itself, without the layers in it."""
        match layer:
            case nn.Conv2d() | nn.Linear():
                self.products += pixels * layer.weight.numel()
            case nn.LayerNorm():
                self.papers += PAPERS_PER_NORMED * pixels * math.prod(layer.normalized_shape)
            case WindowAttention():
                self.attention += 2 * pixels * layer.window**2 * layer.proj.in_features
            case SS2D() | Scan():
                self._add_scan(layer, pixels)
            case ASSM():
                tokens, rank = layer.embeddingB.weight.shape
                states = layer.selectiveScan.A_logs.shape[-1]
                self.products += tokens * rank * states
                self.papers += pixels * tokens * states

    def _add_scan(self, scan: SS2D | Scan, pixels: int) -> None:
        paths, channels, rank = scan.dt_projs_weight.shape
        states = scan.A_logs.shape[-1]
        steps = pixels * paths * channels
        self.products += pixels * scan.x_proj_weight.numel()
        self.scan += steps * (rank + PER_CHANNEL + PER_STATE * states)
        self.papers += steps * (rank + PAPERS_PER_CHANNEL + PAPERS_PER_STATE * states)
