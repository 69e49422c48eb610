"""MambaIR for inference on a GPU."""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair_cli.kernels import triton_channel_gate, triton_merge
from mambair_cli.networks.fused.convolutions import Convolutions, Depthwise
from mambair_cli.networks.fused.packing import pack_norm, pad_channels, pad_matrix
from mambair_cli.networks.fused.scan import FusedScan
from mambair_cli.networks.fused.trunk import FusedTrunk, Pending, Preparation
from mambair_cli.networks.layers import CAB, ChannelAttention, VSSBlock, four_paths, scan_params
from mambair_cli.networks.mambair import Blocks, MambaIR
from mambair_cli.networks.trunk import Group

NARROW = 64  # channels; up to here one product for scan and gate is worth its memory


class V1Context(NamedTuple):
    """What every block needs in addition to its input.

    Attributes:
        size: Number of images, height and width, in pixels.
        paths: The scan's four paths, (4, p) int32.
    """

    size: tuple[int, int, int]
    paths: Tensor


class FusedMambaIR:
    """MambaIR, called as the network is, on images on the same device."""

    def __init__(self, net: MambaIR, dtype: torch.dtype) -> None:
        groups = [cast(Blocks, cast(Group, group).residual_group).blocks for group in net.layers]
        blocks = [[FusedV1Block(cast(VSSBlock, block), dtype) for block in group] for group in groups]
        self.net, self.trunk = net, FusedTrunk(net, blocks, dtype)
        # Kept between calls, since a recorded CUDA graph reads the same memory again.
        self._paths: dict[tuple[int, int], Tensor] = {}

    def __call__(self, x: Tensor, origin: Tensor | None = None, seed: int | None = None) -> Tensor:
        """Restore images, (b, ch, h, w) float32 in [0, 1] -> (b, ch, s·h, s·w), not clipped."""
        size = x.shape[2], x.shape[3]
        if size not in self._paths:
            self._paths = {size: four_paths(*size, x.device)}
        x = x.permute(0, 2, 3, 1).contiguous()
        b, h, w, _ = x.shape
        return self.trunk(x, V1Context((b, h, w), self._paths[h, w])).permute(0, 3, 1, 2)

    def compare(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return this network's result for images, and that of the network it was made from."""
        return self(x), self.net(x)


class FusedV1Block:
    """A block of MambaIR, from the normalised stream to the pending sum of its second half."""

    def __init__(self, block: VSSBlock, dtype: torch.dtype) -> None:
        ssm = block.self_attention
        self.d = d = ssm.x_proj_weight.shape[-1]
        self.norm_1, self.norm_2 = pack_norm(block.ln_1), pack_norm(block.ln_2)
        self.skip_1, self.skip_2 = block.skip_scale.detach().float(), block.skip_scale2.detach().float()
        into_scan, into_gate = (pad_matrix(x, dtype) for x in ssm.in_proj.weight.chunk(2))
        self.into, self.inner = torch.cat([into_scan, into_gate]), len(into_scan)
        self.is_narrow = ssm.in_proj.in_features <= NARROW
        self.depthwise = Depthwise(ssm.conv2d, "silu", padded=pad_channels(d))
        params = scan_params(ssm.dt_projs_weight, ssm.dt_projs_bias, ssm.A_logs, ssm.Ds)
        self.scan = FusedScan(ssm.x_proj_weight, params, ssm.split, dtype)
        self.out_norm = pack_norm(ssm.out_norm)
        self.out_proj = pad_matrix(ssm.out_proj.weight, dtype)[:, : pad_channels(d)].contiguous()
        self.cab = FusedCAB(block.conv_blk, dtype)

    def preparation(self, context: V1Context) -> Preparation:
        """Return how the block wants the stream: normalised."""
        return Preparation(self.norm_1)

    def __call__(self, x: Tensor, prepared: Tensor, context: V1Context) -> Pending:
        """Take the stream, (b, p, c), and its normalised form, (b, p, padded)."""
        b, h, w = context.size
        # The scan needs the most memory, so a wide network's gate is computed after it.
        v = F.linear(prepared, self.into if self.is_narrow else self.into[: self.inner])
        u = self.depthwise(v.view(b, h, w, -1)).view(b, h * w, -1)
        z = v[..., self.inner :] if self.is_narrow else None
        del v
        y = self.scan(u, context.paths)
        del u
        if z is None:
            z = F.linear(prepared, self.into[self.inner :])
        v = triton_merge.merge_paths(y, self.out_norm, z[..., : self.d], z.dtype)
        del y, z
        v = F.linear(v, self.out_proj)
        x, prepared = Pending(x, v, self.skip_1).settle(Preparation(self.norm_2))
        v, gate, bias = self.cab(prepared.view(b, h, w, -1))
        return Pending(x, v.view(b, h * w, -1), self.skip_2, gate, bias)


class FusedCAB:
    """A channel attention block, without its last bias and its gate, which are applied with the next sum."""

    def __init__(self, cab: CAB, dtype: torch.dtype) -> None:
        *local, attention = cab.cab
        self.local = Convolutions(nn.Sequential(*local), dtype)
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
        """Take (b, h, w, padded); return the same shape, the gate (b, c) and the bias (c,)."""
        v, bias = self.local(x)
        b, h, w, c = v.shape
        return v, triton_channel_gate.gate_channels(v.view(b, h * w, c), bias, *self.gate), bias
