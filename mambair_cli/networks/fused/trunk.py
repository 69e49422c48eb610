"""What the fused networks share: everything before, between and after their blocks."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair_cli.kernels import triton_residual
from mambair_cli.kernels.triton_rows import Norm
from mambair_cli.networks.fused.convolutions import Convolutions, convolve, shuffle
from mambair_cli.networks.fused.packing import pack_convolution, pack_norm, pad
from mambair_cli.networks.trunk import Group, Trunk


class Preparation(NamedTuple):
    """How the stream is to be prepared for what comes next.

    Attributes:
        norm: To apply.
        places: Row at which each pixel's is wanted; by default its own.
    """

    norm: Norm | None = None
    places: Tensor | None = None


class Pending(NamedTuple):
    """What is still to be added to the residual stream: ``x * skip + (v + bias) * gate + w``.

    Attributes:
        w_places: Row of w that belongs to each pixel; by default its own.
    """

    x: Tensor
    v: Tensor | None = None
    skip: Tensor | None = None
    gate: Tensor | None = None
    bias: Tensor | None = None
    w: Tensor | None = None
    w_places: Tensor | None = None

    def settle(self, entry: Preparation, keep: bool = True) -> tuple[Tensor, Tensor]:
        """Add it, and prepare the sum for what comes next; see ``triton_residual.advance_residual``."""
        added = self.v if self.v is not None else self.w
        assert added is not None
        return triton_residual.advance_residual(
            self.x,
            pad(self.x.shape[-1]),
            self.v,
            self.skip,
            self.gate,
            self.bias,
            entry.norm,
            keep,
            added.dtype,
            self.w,
            self.w_places,
            entry.places,
        )


class FusedBlock(Protocol):
    """A block, from the prepared stream to what its last part adds."""

    def entry(self, around: Any) -> Preparation:
        """Tell how it wants the stream."""
        ...

    def __call__(self, x: Tensor, prepared: Tensor, around: Any) -> Pending:
        """Take the stream, (b, p, c), and its prepared form, (b, p, padded)."""
        ...


class FusedTrunk:
    """A network but for its blocks, which it is given."""

    def __init__(self, net: Trunk, groups: Sequence[Sequence[FusedBlock]], dtype: torch.dtype) -> None:
        self.net, self.groups, self.dtype = net, groups, dtype
        convolutions = [group.conv for group in net.layers if isinstance(group, Group)]
        self.convolutions = [Convolutions(conv, dtype) for conv in convolutions]
        self.embed = pack_norm(net.patch_embed.norm)
        self.norm = pack_norm(net.norm)
        self.after_body = Convolutions(net.conv_after_body, dtype)
        self.head = Head(net, dtype)

    def __call__(self, x: Tensor, around: Any) -> Tensor:
        """Restore images, (b, h, w, ch) in [0, 1] -> (b, s·h, s·w, ch); every block is given ``around``."""
        with torch.cuda.device_of(x):
            return self._restore(x, around)

    def _restore(self, x: Tensor, around: Any) -> Tensor:
        net, config = self.net, self.net.config
        b, h, w, _ = x.shape
        x = (x - net.mean) * config.img_range
        first = net.conv_first(x).contiguous().view(b, h * w, -1)
        _, stream = triton_residual.advance_residual(
            first, first.shape[-1], norm=self.embed, dtype=torch.float32
        )  # PyTorch's own takes ten times as long for rows as short as these
        entries = [blocks[0].entry(around) for blocks in self.groups]
        _, prepared = triton_residual.advance_residual(
            stream, pad(stream.shape[-1]), norm=entries[0].norm, places=entries[0].places, dtype=self.dtype
        )
        for i, blocks in enumerate(self.groups):
            shortcut, last = stream, i + 1 == len(self.groups)
            for block, following in zip(blocks, [*blocks[1:], None], strict=True):
                entry = following.entry(around) if following else Preparation()
                stream, prepared = block(stream, prepared, around).settle(entry, keep=following is not None)
            v, bias = self.convolutions[i](prepared.view(b, h, w, -1))
            entry = Preparation(self.norm) if last else entries[i + 1]
            stream, prepared = Pending(shortcut, v, bias=bias).settle(entry, keep=not last)
            del shortcut, v
        del stream
        body, bias = self.after_body(prepared.view(b, h, w, -1))
        _, features = Pending(first, body, bias=bias).settle(Preparation(), keep=False)
        del first, prepared, body  # the head wants as much memory as a block
        return self.head(features.view(b, h, w, -1), x) / config.img_range + net.mean


class Head:
    """What follows the body, from padded features to the image."""

    def __init__(self, net: Trunk, dtype: torch.dtype) -> None:
        self.config = net.config
        scale = net.config.upscale
        self.spread = {"pixelshuffle": 3 if scale == 3 else 2, "pixelshuffledirect": scale}.get(
            net.config.upsampler, 1
        )
        self.packed = {
            name: pack_convolution(layer, dtype, self.spread if name.startswith("upsample") else 1)
            for name, layer in net.named_modules()
            if isinstance(layer, nn.Conv2d) and is_head(name)
        }
        self.channels = net.config.in_chans

    def __call__(self, x: Tensor, image: Tensor) -> Tensor:
        """Take features (b, h, w, padded) and the image (b, h, w, ch) float32; return (b, s·h, s·w, ch)."""
        upsampler = self.config.upsampler
        if upsampler == "pixelshuffle":
            x = F.leaky_relu_(self._convolve(x, "conv_before_upsample.0"), 0.01)
            for name in sorted(name for name in self.packed if name.startswith("upsample.")):
                weight, bias = self.packed[name]
                x = shuffle(convolve(x, weight), bias, self.spread)
            return self._last(x, "conv_last", self.channels)
        if upsampler == "pixelshuffledirect":
            weight, bias = self.packed["upsample.0"]
            bias = bias[: self.channels * self.spread**2]
            return shuffle(convolve(x, weight)[..., : len(bias)].float(), bias, self.spread)
        if upsampler == "nearest+conv":
            x = F.leaky_relu_(self._convolve(x, "conv_before_upsample.0"), 0.01)
            for name in ("conv_up1", "conv_up2"):
                x = x.repeat_interleave(2, 1).repeat_interleave(2, 2)
                x = F.leaky_relu_(self._convolve(x, name), 0.2)
            return self._last(F.leaky_relu_(self._convolve(x, "conv_hr"), 0.2), "conv_last", self.channels)
        return image + self._last(x, "conv_last", self.channels)

    def _convolve(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.packed[name]
        return convolve(x, weight).add_(bias.to(x.dtype))

    def _last(self, x: Tensor, name: str, channels: int) -> Tensor:
        weight, bias = self.packed[name]
        return convolve(x, weight)[..., :channels].float() + bias[:channels]


def is_head(name: str) -> bool:
    """Tell whether a layer of that name belongs to what follows the body."""
    return name.startswith(("conv_before_upsample", "upsample", "conv_up", "conv_hr", "conv_last"))
