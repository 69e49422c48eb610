"""The parts that MambaIR and MambaIRv2 share: everything before, between and after their blocks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair_cli.networks.config import (
    MambaIRConfig,
    MambaIRv2Config,
    NetworkInfo,
    ResidualConv,
    Upsampler,
)
from mambair_cli.networks.layers import Conv2d, LayerNorm, PixelShuffle

RGB_MEAN = (0.4488, 0.4371, 0.4040)  # mean of DIV2K; subtracted from colour images
UPSAMPLE_CHANNELS = 64  # between the body and the enlarged image


class PatchEmbed(nn.Module):
    """The norm between the first convolution and the blocks; a separate module only for its key."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Group(nn.Module):
    """A residual group: blocks and a convolution, and their input added to the result."""

    def __init__(self, blocks: nn.Module, channels: int, resi_connection: ResidualConv) -> None:
        super().__init__()
        self.residual_group = blocks
        self.conv = residual_conv(channels, resi_connection)

    def forward(self, x: Tensor, context: object) -> Tensor:
        return x + self.conv(self.residual_group(x, context))


class Trunk(nn.Module):
    """A whole network, around the blocks that a subclass makes.

    Whatever else those blocks need, their context, passes through ``run`` unchanged.
    """

    info: NetworkInfo
    mean: Tensor

    def __init__(self, config: MambaIRConfig | MambaIRv2Config, groups: list[nn.Module]) -> None:
        super().__init__()
        self.config = config
        c, ch, feat = config.embed_dim, config.in_chans, UPSAMPLE_CHANNELS
        self.conv_first = Conv2d(ch, c, 3)
        self.patch_embed = PatchEmbed(c)
        self.layers = nn.ModuleList(groups)
        self.norm = LayerNorm(c)
        self.conv_after_body = residual_conv(c, config.resi_connection)
        if config.upsampler == "pixelshuffle":
            self.conv_before_upsample = nn.Sequential(Conv2d(c, feat, 3), nn.LeakyReLU(0.01))
            self.upsample = nn.Sequential(*_shuffles(feat, config.upscale))
            self.conv_last = Conv2d(feat, ch, 3)
        elif config.upsampler == "pixelshuffledirect":
            self.upsample = nn.Sequential(Conv2d(c, ch * config.upscale**2, 3), PixelShuffle(config.upscale))
        elif config.upsampler == "nearest+conv":
            self.conv_before_upsample = nn.Sequential(Conv2d(c, feat, 3), nn.LeakyReLU(0.01))
            self.conv_up1 = Conv2d(feat, feat, 3)
            self.conv_up2 = Conv2d(feat, feat, 3)
            self.conv_hr = Conv2d(feat, feat, 3)
            self.conv_last = Conv2d(feat, ch, 3)
        else:
            self.conv_last = Conv2d(c, ch, 3)
        self.reset_buffers()

    def reset_buffers(self) -> None:
        """Compute the tensors that are not weights; also called after a network was built without memory."""
        mean = RGB_MEAN if self.config.in_chans == 3 else (0.0,) * self.config.in_chans
        weight = self.conv_first.weight  # whatever types and devices are PyTorch's defaults now
        mean = torch.tensor(mean, dtype=weight.dtype, device=weight.device)
        self.register_buffer("mean", mean, persistent=False)

    def run(self, x: Tensor, context: object) -> Tensor:
        """Restore images x, (b, h, w, ch) in [0, 1], with ``context`` for every block."""
        x = (x - self.mean) * self.config.img_range
        first = self.conv_first(x)
        features = self.patch_embed(first)
        for group in self.layers:
            features = group(features, context)
        features = self.conv_after_body(self.norm(features)) + first
        return self._head(features, x) / self.config.img_range + self.mean

    def _head(self, features: Tensor, x: Tensor) -> Tensor:
        upsampler: Upsampler = self.config.upsampler
        if upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(self.conv_before_upsample(features)))
        if upsampler == "pixelshuffledirect":
            return self.upsample(features)
        if upsampler == "nearest+conv":
            features = self.conv_before_upsample(features)
            for conv in (self.conv_up1, self.conv_up2):
                features = F.leaky_relu(conv(_double(features)), 0.2)
            return self.conv_last(F.leaky_relu(self.conv_hr(features), 0.2))
        return x + self.conv_last(features)


def residual_conv(channels: int, form: ResidualConv) -> nn.Module:
    """Make the convolution that ends a group: one 3×3, or three through a quarter of the channels."""
    if form == "1conv":
        return Conv2d(channels, channels, 3)
    narrow = channels // 4
    return nn.Sequential(
        Conv2d(channels, narrow, 3),
        nn.LeakyReLU(0.2),
        Conv2d(narrow, narrow, 1),
        nn.LeakyReLU(0.2),
        Conv2d(narrow, channels, 3),
    )


def _shuffles(channels: int, scale: int) -> list[nn.Module]:
    """Make the convolutions and pixel shuffles that enlarge by 3, or by 2 as often as needed."""
    steps = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
    return [layer for s in steps for layer in (Conv2d(channels, channels * s**2, 3), PixelShuffle(s))]


def _double(x: Tensor) -> Tensor:
    """Enlarge (b, h, w, c) twofold, by nearest neighbour."""
    return x.repeat_interleave(2, 1).repeat_interleave(2, 2)
