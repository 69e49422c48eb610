"""The U-Net of MambaIR blocks that removes the noise of real cameras (arXiv:2402.15648, section 4.4)."""

import torch
from torch import Tensor, nn

from mambair_cli.networks.config import MambaIRUNetConfig, NetworkInfo
from mambair_cli.networks.layers import (
    Conv2d,
    PixelShuffle,
    PixelUnshuffle,
    VSSBlock,
    check_images,
    four_paths,
    mirror_pad,
)
from mambair_cli.system.wanted import check_wanted

SIDE_MULTIPLE = 8  # three halvings


class Projection(nn.Module):
    """The first convolution; a separate module only for its key."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = Conv2d(in_channels, out_channels, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Resample(nn.Module):
    """Change the number of channels by a convolution, and the size by a pixel shuffle."""

    def __init__(self, in_channels: int, out_channels: int, shuffle: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(Conv2d(in_channels, out_channels, 3, bias=False), shuffle)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class MambaIRUNet(nn.Module):
    """Denoising of real photographs, at four resolutions."""

    info: NetworkInfo

    def __init__(self, config: MambaIRUNetConfig) -> None:
        super().__init__()
        self.config = config
        w1, w2, w3, w4 = (config.dim * 2**level for level in range(4))
        n1, n2, n3, n4 = config.num_blocks
        inner = dict(zip((w1, w2, w3, w4), config.d_inner, strict=True))

        def blocks(width: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(
                VSSBlock(width, inner[width], config.d_state, "classic") for _ in range(count)
            )

        def down(width: int) -> Resample:
            return Resample(width, width // 2, PixelUnshuffle(2))

        def up(width: int) -> Resample:
            return Resample(width, width * 2, PixelShuffle(2))

        self.patch_embed = Projection(config.in_chans, w1)
        self.encoder_level1, self.down1_2 = blocks(w1, n1), down(w1)
        self.encoder_level2, self.down2_3 = blocks(w2, n2), down(w2)
        self.encoder_level3, self.down3_4 = blocks(w3, n3), down(w3)
        self.latent, self.up4_3 = blocks(w4, n4), up(w4)
        self.reduce_chan_level3 = Conv2d(w4, w3, 1, bias=False)
        self.decoder_level3, self.up3_2 = blocks(w3, n3), up(w3)
        self.reduce_chan_level2 = Conv2d(w3, w2, 1, bias=False)
        self.decoder_level2, self.up2_1 = blocks(w2, n2), up(w2)
        self.decoder_level1 = blocks(w2, n1)  # twice as wide as its encoder: nothing reduces [up, skip]
        self.refinement = blocks(w2, config.num_refinement_blocks)
        self.output = Conv2d(w2, config.in_chans, 3, bias=False)

    def reset_buffers(self) -> None:
        """Do nothing: this network has no tensors but its weights."""

    def forward(self, x: Tensor, seed: int | None = None, origin: Tensor | None = None) -> Tensor:
        """Denoise images.

        Args:
            x: Images, (b, 3, h, w) in [0, 1], of any size.
            seed: Ignored; this network draws nothing.
            origin: Ignored, for the same reason.

        Returns:
            (b, 3, h, w), not clipped.

        Raises:
            TypeError: They are no tensor.
            ValueError: The images or the weights have another shape or type.
            UsageError: TorchScript follows the network.
        """
        check_images(x, self.config.in_chans, next(self.parameters()))
        x = x.permute(0, 2, 3, 1)
        height, width = x.shape[1:3]
        x = mirror_pad(x, -height % SIDE_MULTIPLE, -width % SIDE_MULTIPLE, repeat_edge=False).contiguous()

        first = _run(self.encoder_level1, self.patch_embed(x))
        second = _run(self.encoder_level2, self.down1_2(first))
        third = _run(self.encoder_level3, self.down2_3(second))
        y = _run(self.latent, self.down3_4(third))
        y = _run(self.decoder_level3, self.reduce_chan_level3(_join(self.up4_3(y), third)))
        y = _run(self.decoder_level2, self.reduce_chan_level2(_join(self.up3_2(y), second)))
        y = _run(self.decoder_level1, _join(self.up2_1(y), first))
        y = self.output(_run(self.refinement, y)) + x
        return y[:, :height, :width].permute(0, 3, 1, 2)


def _run(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    """Run blocks in order on (b, h, w, c)."""
    paths = four_paths(x.shape[1], x.shape[2], x.device)
    for block in blocks:
        check_wanted()
        x = block(x, paths)
    return x


def _join(up: Tensor, skip: Tensor) -> Tensor:
    """Join the channels of a decoder's input with those of its encoder."""
    return torch.cat([up, skip], dim=-1)
