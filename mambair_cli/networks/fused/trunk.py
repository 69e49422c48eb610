"""The parts that the fused networks share: everything before, between and after their blocks."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair_cli.kernels import triton_residual
from mambair_cli.kernels.triton_rows import Norm
from mambair_cli.networks.fused.convolutions import Convolutions, convolve, shuffle
from mambair_cli.networks.fused.packing import pack_convolution, pack_norm, pad
from mambair_cli.networks.trunk import Group, Trunk

Context = TypeVar("Context", contravariant=True)
"""What every block of a network needs in addition to its input."""


class Preparation(NamedTuple):
    """How the next part wants the stream.

    Attributes:
        norm: Layer norm to apply; None for no norm.
        places: Row at which to write each pixel, (b, p) int32; None for the pixel's own.
    """

    norm: Norm | None = None
    places: Tensor | None = None


class Pending(NamedTuple):
    """A sum that is still to be computed: ``x * skip + (v + bias) * gate + w``, the stream's next value.

    Attributes:
        x: Stream, (b, p, c) float32.
        v: First summand, (b, p, c or more).
        skip: Weight of the stream, (c,).
        gate: Weight of ``v``, (b, c).
        bias: Added to ``v``, (c,).
        w: Second summand, (b, p, c or more).
        w_places: Row of ``w`` for each pixel, (b, p) int32; None for the pixel's own.
    """

    x: Tensor
    v: Tensor | None = None
    skip: Tensor | None = None
    gate: Tensor | None = None
    bias: Tensor | None = None
    w: Tensor | None = None
    w_places: Tensor | None = None

    def settle(self, preparation: Preparation, keep: bool = True) -> tuple[Tensor, Tensor]:
        """Compute the sum and prepare it; without ``keep`` the sum itself is not written.

        See ``triton_residual.advance_residual``.
        """
        added = self.v if self.v is not None else self.w
        assert added is not None
        return triton_residual.advance_residual(
            self.x,
            pad(self.x.shape[-1]),
            v=self.v,
            skip=self.skip,
            gate=self.gate,
            bias=self.bias,
            norm=preparation.norm,
            keep=keep,
            dtype=added.dtype,
            w=self.w,
            w_places=self.w_places,
            places=preparation.places,
        )


class FusedBlock(Protocol[Context]):
    """A block, from the prepared stream to the sum that its last part leaves pending."""

    def preparation(self, context: Context) -> Preparation:
        """Return how the block wants the stream."""
        ...

    def __call__(self, x: Tensor, prepared: Tensor, context: Context) -> Pending:
        """Take the stream, (b, p, c), and its prepared form, (b, p, padded)."""
        ...


class FusedTrunk(Generic[Context]):
    """A whole network, around the blocks that it is given."""

    def __init__(
        self, net: Trunk, groups: Sequence[Sequence[FusedBlock[Context]]], dtype: torch.dtype
    ) -> None:
        self.net, self.groups, self.dtype = net, groups, dtype
        convolutions = [group.conv for group in net.layers if isinstance(group, Group)]
        self.convolutions = [Convolutions(conv, dtype) for conv in convolutions]
        self.embed = pack_norm(net.patch_embed.norm)
        self.norm = pack_norm(net.norm)
        self.after_body = Convolutions(net.conv_after_body, dtype)
        self.head = Head(net, dtype)

    def __call__(self, x: Tensor, context: Context) -> Tensor:
        """Restore images, (b, h, w, ch) in [0, 1] -> (b, s·h, s·w, ch); every block is given ``context``."""
        with torch.cuda.device_of(x):
            return self._run(x, context)

    def _run(self, x: Tensor, context: Context) -> Tensor:
        net, config = self.net, self.net.config
        b, h, w, _ = x.shape
        x = (x - net.mean) * config.img_range
        first = net.conv_first(x).contiguous().view(b, h * w, -1)
        _, stream = triton_residual.advance_residual(
            first, first.shape[-1], norm=self.embed, dtype=torch.float32
        )  # PyTorch's own layer norm takes ten times as long for rows as short as these
        wanted = [blocks[0].preparation(context) for blocks in self.groups]
        _, prepared = triton_residual.advance_residual(
            stream, pad(stream.shape[-1]), norm=wanted[0].norm, places=wanted[0].places, dtype=self.dtype
        )
        for i, blocks in enumerate(self.groups):
            shortcut, last = stream, i + 1 == len(self.groups)
            for block, following in zip(blocks, [*blocks[1:], None], strict=True):
                preparation = following.preparation(context) if following else Preparation()
                pending = block(stream, prepared, context)
                stream, prepared = pending.settle(preparation, keep=following is not None)
            v, bias = self.convolutions[i](prepared.view(b, h, w, -1))
            preparation = Preparation(self.norm) if last else wanted[i + 1]
            stream, prepared = Pending(shortcut, v, bias=bias).settle(preparation, keep=not last)
            del shortcut, v
        del stream
        body, bias = self.after_body(prepared.view(b, h, w, -1))
        _, features = Pending(first, body, bias=bias).settle(Preparation(), keep=False)
        del first, prepared, body  # the head needs as much memory as a block
        return self.head(features.view(b, h, w, -1), x) / config.img_range + net.mean


class Head:
    """The layers after the body, from padded features to the image."""

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
    """Tell whether a layer of that name belongs to the head."""
    return name.startswith(("conv_before_upsample", "upsample", "conv_up", "conv_hr", "conv_last"))
