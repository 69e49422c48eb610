"""MambaIR for inference on a GPU: the same arithmetic in few passes over memory, with weights packed once.

Products and convolutions are in float16 with float32 sums; the residual stream, the norms and the scan's
recurrence are in float32. Channels are padded with zeros to numbers that the matrix units like.
"""

import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair_cli.kernels import has_cuda_scan, pointwise
from mambair_cli.kernels.operands import ScanParams
from mambair_cli.kernels.pointwise import Norm
from mambair_cli.model.layers import CAB, ChannelAttention, VSSBlock, four_paths, scan_params
from mambair_cli.model.mambair import Blocks, MambaIR
from mambair_cli.model.trunk import Group

MULTIPLES = (64, 8)  # of channels; the first is faster, unless more than an eighth would be padding
DTYPE = torch.float16


class Pending(NamedTuple):
    """What is still to be added to the residual stream, (v + bias) * gate, and the weight of the stream."""

    x: Tensor
    v: Tensor
    skip: Tensor | None
    gate: Tensor | None
    bias: Tensor

    def settle(self, norm: Norm | None, keep: bool = True) -> tuple[Tensor, Tensor]:
        """Add it, and prepare the sum for the next product, normalised if there is a norm."""
        padded = pad(self.x.shape[-1])
        return pointwise.advance_residual(
            self.x, padded, self.v, self.skip, self.gate, self.bias, norm, keep, DTYPE
        )


class FusedMambaIR:
    """MambaIR, called as the network is, on images on the same device; their sides are those of a tile."""

    def __init__(self, net: MambaIR) -> None:
        self.net = net
        self.groups = [FusedGroup(cast(Group, group)) for group in net.layers]
        self.embed = pack_norm(net.patch_embed.norm)
        self.norm = pack_norm(net.norm)
        self.after_body = Convolutions(net.conv_after_body)
        self.head = Head(net)

    def __call__(self, x: Tensor) -> Tensor:
        """Restore images, (b, ch, h, w) float32 in [0, 1] -> (b, ch, s·h, s·w), not clipped."""
        net, config = self.net, self.net.config
        b, _, h, w = x.shape
        x = (x.permute(0, 2, 3, 1).contiguous() - net.mean) * config.img_range
        first = net.conv_first(x).contiguous().view(b, h * w, -1)
        stream = F.layer_norm(first, first.shape[-1:], *self.embed)
        paths = four_paths(h, w, x.device)
        norms = [*(group.first_norm for group in self.groups[1:]), self.norm]
        _, prepared = pointwise.advance_residual(
            stream, pad(stream.shape[-1]), norm=self.groups[0].first_norm, dtype=DTYPE
        )
        for group, norm in zip(self.groups, norms, strict=True):
            last = norm is self.norm
            stream, prepared = group(stream, prepared, paths, (b, h, w)).settle(norm, keep=not last)
        body, bias = self.after_body(prepared.view(b, h, w, -1))
        _, features = Pending(first, body, None, None, bias).settle(None, keep=False)
        y = self.head(features.view(b, h, w, -1), x)
        return (y / config.img_range + net.mean).permute(0, 3, 1, 2)


class FusedGroup:
    """A residual group."""

    def __init__(self, group: Group) -> None:
        blocks = cast(Blocks, group.residual_group).blocks
        self.blocks = [FusedBlock(cast(VSSBlock, block)) for block in blocks]
        self.conv = Convolutions(group.conv)
        self.first_norm = self.blocks[0].norm_1

    def __call__(self, x: Tensor, prepared: Tensor, paths: Tensor, size: tuple[int, int, int]) -> Pending:
        """Take the stream and its normalised form; return what is to be added to the stream."""
        shortcut = x
        norms = [*(block.norm_1 for block in self.blocks[1:]), None]
        for block, norm in zip(self.blocks, norms, strict=True):
            x, prepared = block(x, prepared, paths, size).settle(norm, keep=norm is not None)
        v, bias = self.conv(prepared.view(*size, -1))
        return Pending(shortcut, v, None, None, bias)


class FusedBlock:
    """A block of MambaIR, from the normalised stream to what its second half adds."""

    def __init__(self, block: VSSBlock) -> None:
        ssm = block.self_attention
        k, rows, d = ssm.x_proj_weight.shape
        self.d, self.split = d, ssm.split
        self.norm_1, self.norm_2 = pack_norm(block.ln_1), pack_norm(block.ln_2)
        self.skip_1, self.skip_2 = block.skip_scale.detach().float(), block.skip_scale2.detach().float()
        self.in_proj = pad_matrix(ssm.in_proj.weight)
        self.window = pack_depthwise(ssm.conv2d, padded=d)
        self.x_proj = ssm.x_proj_weight.detach().reshape(k * rows, d).to(DTYPE)
        self.scan = FusedScan(
            scan_params(ssm.dt_projs_weight, ssm.dt_projs_bias, ssm.A_logs, ssm.Ds), ssm.split
        )
        self.out_norm = pack_norm(ssm.out_norm)
        self.out_proj = pad_matrix(ssm.out_proj.weight)[:, :d].contiguous()
        self.cab = FusedCAB(block.conv_blk)
        self.zero = torch.zeros_like(self.skip_1)

    def __call__(self, x: Tensor, prepared: Tensor, paths: Tensor, size: tuple[int, int, int]) -> Pending:
        """Take the stream, (b, p, c), and its normalised form, (b, p, padded)."""
        b, h, w = size
        xz = F.linear(prepared, self.in_proj)  # (b, p, 2d)
        u = pointwise.convolve_depthwise(xz.view(b, h, w, -1), *self.window, "silu").view(b, h * w, -1)
        projected = F.linear(u, self.x_proj).view(b, h * w, paths.shape[0], -1)
        y = self.scan(u, projected, paths)
        del u, projected
        v = pointwise.merge_paths(y, self.out_norm, xz[..., self.d :], DTYPE)
        del xz, y
        v = F.linear(v, self.out_proj)
        x, prepared = Pending(x, v, self.skip_1, None, self.zero).settle(self.norm_2)
        v, gate, bias = self.cab(prepared.view(b, h, w, -1))
        return Pending(x, v.view(b, h * w, -1), self.skip_2, gate, bias)


class FusedScan:
    """A selective scan that leaves its paths apart, to be merged with what follows."""

    def __init__(self, params: ScanParams, split: tuple[int, int, int]) -> None:
        self.params = ScanParams(*(param.detach().float().contiguous() for param in params))
        self.split = split
        log2_e = math.log2(math.e)
        self.weight = (self.params.dt_weight * log2_e).transpose(1, 2).contiguous()
        self.bias = self.params.dt_bias * log2_e
        self.by_cuda = has_cuda_scan(params.A.device)

    def __call__(self, u: Tensor, projected: Tensor, paths: Tensor) -> Tensor:
        """Scan u, (b, p, d), with projections (b, p, k, r + 2n) -> (b, p, paths or 1, d)."""
        if self.by_cuda:
            from mambair_cli.kernels import cuda

            steps = pointwise.make_steps(projected, self.weight, self.bias, DTYPE)
            entering = projected[..., self.split[0] :]  # B and C
            return cuda.scan_paths(u, steps, entering, paths, self.params.A, self.params.D)
        from mambair_cli.kernels import gpu

        dt, B, C = projected.split(self.split, dim=-1)
        return gpu.selective_scan(u, dt, B, C, paths, self.params)[:, :, None]


class FusedCAB:
    """A channel attention block; its last bias and its gate are left to whoever adds its result."""

    def __init__(self, cab: CAB) -> None:
        *local, attention = cab.cab
        self.local = Convolutions(nn.Sequential(*local))
        down, up = (
            conv for conv in cast(ChannelAttention, attention).attention if isinstance(conv, nn.Conv2d)
        )
        self.gate = [
            x.detach().float().squeeze().reshape(shape)
            for x, shape in (
                (down.weight, (down.out_channels, down.in_channels)),
                (cast(Tensor, down.bias), (-1,)),
                (up.weight, (up.out_channels, up.in_channels)),
                (cast(Tensor, up.bias), (-1,)),
            )
        ]

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take (b, h, w, padded); return as much, the gate (b, c) and the bias (c,)."""
        v, bias = self.local(x)
        b, h, w, c = v.shape
        return v, pointwise.gate_channels(v.view(b, h * w, c), bias, *self.gate), bias


class Convolutions:
    """Convolutions and the activations between them; the last one's bias is handed over, not added."""

    def __init__(self, layers: nn.Module) -> None:
        self.layers = list(layers) if isinstance(layers, nn.Sequential) else [layers]
        self.packed = [
            pack_depthwise(layer) if is_depthwise(layer) else pack_convolution(layer)
            for layer in self.layers
            if isinstance(layer, nn.Conv2d)
        ]
        self.no_bias = torch.zeros_like(self.packed[-1][1])

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Take (b, h, w, padded); return as much, and the bias, (c,), that it lacks."""
        packed = iter(self.packed)
        missing: Tensor | None = None
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                weight, bias = next(packed)
                if missing is not None:
                    x, missing = x + missing.to(DTYPE), None
                if is_depthwise(layer):
                    x = pointwise.convolve_depthwise(x, weight, bias, "", layer.dilation[0])
                elif layer.kernel_size == (1, 1):
                    x = F.linear(x, weight[:, :, 0, 0], bias.to(DTYPE))
                else:
                    x, missing = convolve(x, weight), bias
            elif isinstance(layer, nn.GELU):
                none = torch.zeros(x.shape[-1], device=x.device)
                x, missing = (
                    pointwise.gelu_in_place(x.contiguous(), none if missing is None else missing),
                    None,
                )
            else:
                assert isinstance(layer, nn.LeakyReLU)
                if missing is not None:
                    x, missing = x + missing.to(DTYPE), None
                x = F.leaky_relu(x, layer.negative_slope)
        return x.contiguous(), self.no_bias if missing is None else missing


class Head:
    """What follows the body, from padded features to the image."""

    def __init__(self, net: MambaIR) -> None:
        self.config = net.config
        self.packed = {
            name: pack_convolution(layer)
            for name, layer in net.named_modules()
            if isinstance(layer, nn.Conv2d) and is_head(name)
        }
        self.channels = net.config.in_chans

    def __call__(self, x: Tensor, image: Tensor) -> Tensor:
        """Take features (b, h, w, padded) and the image (b, h, w, ch) float32; return (b, s·h, s·w, ch)."""
        upsampler, scale = self.config.upsampler, self.config.upscale
        if upsampler == "pixelshuffle":
            x = F.leaky_relu_(self._convolve(x, "conv_before_upsample.0"), 0.01)
            for name in sorted(name for name in self.packed if name.startswith("upsample.")):
                x = shuffle(self._convolve(x, name), 3 if scale == 3 else 2)
            return self._last(x, "conv_last", self.channels)
        if upsampler == "pixelshuffledirect":
            return shuffle(self._last(x, "upsample.0", self.channels * scale**2), scale)
        if upsampler == "nearest+conv":
            x = F.leaky_relu_(self._convolve(x, "conv_before_upsample.0"), 0.01)
            for name in ("conv_up1", "conv_up2"):
                x = x.repeat_interleave(2, 1).repeat_interleave(2, 2)
                x = F.leaky_relu_(self._convolve(x, name), 0.2)
            return self._last(F.leaky_relu_(self._convolve(x, "conv_hr"), 0.2), "conv_last", self.channels)
        return image + self._last(x, "conv_last", self.channels)

    def _convolve(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.packed[name]
        return convolve(x, weight).add_(bias.to(DTYPE))

    def _last(self, x: Tensor, name: str, channels: int) -> Tensor:
        weight, bias = self.packed[name]
        return convolve(x, weight)[..., :channels].float() + bias[:channels]


def pad(channels: int) -> int:
    """Round up to what the matrix units want."""
    best, least = (-(-channels // multiple) * multiple for multiple in MULTIPLES)
    return best if best * 8 <= channels * 9 else least


def pad_matrix(weight: Tensor) -> Tensor:
    """Pad a product's weight, (out, in), to multiples on both sides, in 16 bits."""
    rows, columns = weight.shape
    return F.pad(weight.detach(), (0, pad(columns) - columns, 0, pad(rows) - rows)).to(DTYPE)


def pack_convolution(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Pad a convolution's channels to multiples: weight in 16 bits, channels last, and bias in float32."""
    weight = conv.weight.detach()
    out, into = weight.shape[:2]
    weight = F.pad(weight, (0, 0, 0, 0, 0, pad(into) - into, 0, pad(out) - out)).to(DTYPE)
    bias = torch.zeros(out, device=weight.device) if conv.bias is None else conv.bias.detach().float()
    return weight.contiguous(memory_format=torch.channels_last), F.pad(bias, (0, pad(out) - out))


def pack_depthwise(conv: nn.Conv2d, padded: int | None = None) -> tuple[Tensor, Tensor]:
    """Lay out a depthwise convolution's weight as (side², padded), and its bias, in float32."""
    c = conv.in_channels
    padded = pad(c) if padded is None else padded
    weight = conv.weight.detach().float().view(c, -1).T
    bias = cast(Tensor, conv.bias).detach().float()
    return F.pad(weight, (0, padded - c)).contiguous(), F.pad(bias, (0, padded - c))


def pack_norm(norm: nn.LayerNorm) -> Norm:
    """Take a norm's weight and bias in float32."""
    return Norm(norm.weight.detach().float(), norm.bias.detach().float())


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve (b, h, w, c), keeping the sides, without a bias."""
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, padding=weight.shape[-1] // 2)
    return y.permute(0, 2, 3, 1)


def shuffle(x: Tensor, scale: int) -> Tensor:
    """Spread channels over pixels: (b, h, w, c·s²) -> (b, s·h, s·w, c)."""
    return F.pixel_shuffle(x.permute(0, 3, 1, 2), scale).permute(0, 2, 3, 1).contiguous()


def is_depthwise(layer: nn.Module) -> bool:
    """Tell whether each channel is convolved on its own."""
    return isinstance(layer, nn.Conv2d) and layer.groups > 1


def is_head(name: str) -> bool:
    """Tell whether a layer of that name belongs to what follows the body."""
    return name.startswith(("conv_before_upsample", "upsample", "conv_up", "conv_hr", "conv_last"))
