"""MambaIRv2 for inference on a GPU.

Windows are never cut out: the rows of the stream are written where a window's attention wants them while they
are normalised, and what attention gives is read from there while it is added. Shifted windows lie sorted by
the mask they need, so that each of the four masks is kept once.
"""

import functools
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mambair_cli.kernels import triton_gelu, triton_merge, triton_routing
from mambair_cli.networks.fused.convolutions import Depthwise
from mambair_cli.networks.fused.packing import (
    pack_norm,
    pad,
    pad_channels,
    pad_matrix,
    pad_vector,
    round_up,
)
from mambair_cli.networks.fused.scan import FusedScan
from mambair_cli.networks.fused.trunk import FusedTrunk, Pending, Preparation
from mambair_cli.networks.layers import mirror_pad, scan_params
from mambair_cli.networks.mambair_v2 import ASSM, AttentiveLayer, ConvFFN, GatedMLP, Layers, MambaIRv2
from mambair_cli.networks.noise import gumbel_noise, make_keys
from mambair_cli.networks.trunk import Group

HEAD_MULTIPLE = 8  # of a head's channels, for the fused attention of PyTorch
ATTENTION = (SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)  # the faster first
TIE = 0.25  # logits that two tokens may be apart and still fit equally well; noise is 1.3 on average


class Places(NamedTuple):
    """Where the pixels of images lie when they are sorted by window.

    Attributes:
        rows: Of each pixel, counted over all images, (b, p) int32.
        counts: Windows that need the first mask, the second and so on.
    """

    rows: Tensor
    counts: tuple[int, ...]


class V2Context(NamedTuple):
    """What every layer needs to know beside its input.

    Attributes:
        size: Images, and their height and width.
        places: In windows, not shifted and shifted.
        origin: Row and column of each image's first pixel in the image it is a part of, (b, 2) int32.
        seed: Of the noise; None for none.
        labels: Where each layer leaves its labels; None where they are not wanted.
    """

    size: tuple[int, int, int]
    places: tuple[Places, Places]
    origin: Tensor | None
    seed: int | None
    labels: list[Tensor] | None


class FusedMambaIRv2:
    """MambaIRv2, called as the network is, on images on the same device."""

    def __init__(self, net: MambaIRv2, dtype: torch.dtype) -> None:
        groups = [cast(Layers, cast(Group, group).residual_group).layers for group in net.layers]
        index = net.relative_position_index_SA
        blocks = [
            [FusedLayer(cast(AttentiveLayer, layer), index, dtype) for layer in group] for group in groups
        ]
        self.net, self.trunk = net, FusedTrunk(net, blocks, dtype)
        self._attention = blocks[0][0].attention.choose_backend() if net.mean.is_cuda else None
        self._size: tuple[int, ...] = ()  # of the last images
        self._places: tuple[Places, Places] | None = None  # kept, since a recorded graph goes on reading them

    def __call__(
        self,
        x: Tensor,
        origin: Tensor | None = None,
        seed: int | None = None,
        labels: list[Tensor] | None = None,
    ) -> Tensor:
        """Restore images.

        Args:
            x: Images, (b, ch, h, w) float32 in [0, 1].
            origin: Row and column of each image's first pixel in the image it is a tile of, (b, 2); by
                default (0, 0).
            seed: Of the noise in the routing; None for no noise.
            labels: Given each layer's, (b, p) int32.

        Returns:
            (b, ch, s·h, s·w), not clipped.
        """
        if x.shape != self._size:
            self._size, self._places = x.shape, None
        if origin is None and seed is not None:
            origin = torch.zeros(len(x), 2)
        if origin is not None:
            origin = origin.to(x.device, torch.int32)
        with prefer_attention(self._attention):
            return self._restore(x, origin, seed, labels)

    def _restore(
        self, x: Tensor, origin: Tensor | None, seed: int | None, labels: list[Tensor] | None
    ) -> Tensor:
        window, scale = self.net.window, self.net.config.upscale
        height, width = x.shape[2:]
        x = x.permute(0, 2, 3, 1)
        x = mirror_pad(x, -height % window, -width % window, repeat_edge=True).contiguous()
        b, h, w, _ = x.shape
        if self._places is None:
            place = functools.partial(place_windows, b, h, w, window, device=x.device)
            self._places = place(shift=0), place(shift=window // 2)
        y = self.trunk(x, V2Context((b, h, w), self._places, origin, seed, labels))
        return y[:, : height * scale, : width * scale].permute(0, 3, 1, 2)

    def compare(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what this makes of images, and what the network itself does when ties are broken alike.

        Where two tokens fit a pixel equally well, 16 bits may choose the other one, and then a pixel's
        place changes, and with it those of many more. That is no error, but would look like one.
        """
        labels: list[Tensor] = []
        y = self(x, seed=0, labels=labels)
        height, width = (side + -side % self.net.window for side in x.shape[2:])
        corner, tokens = torch.zeros(len(x), 2, dtype=torch.int64, device=x.device), self.net.tokens

        def draw_noise(layer: int) -> Tensor:
            noise = gumbel_noise(0, layer, corner, height, width, tokens)
            return noise + TIE * F.one_hot(labels[layer].long(), tokens)

        return y, self.net(x, draw_noise=draw_noise)


class FusedLayer:
    """A layer of MambaIRv2, from the stream, normalised and in windows, to what its last part adds."""

    def __init__(self, layer: AttentiveLayer, index: Tensor, dtype: torch.dtype) -> None:
        self.norm_1, self.norm_2 = pack_norm(layer.norm1), pack_norm(layer.norm2)
        self.norm_3, self.norm_4 = pack_norm(layer.norm3), pack_norm(layer.norm4)
        self.attention = FusedAttention(layer, index, dtype)
        self.assm = FusedASSM(layer, dtype)
        self.feed_forward_1 = fuse_feed_forward(layer.convffn1, dtype)
        self.feed_forward_2 = fuse_feed_forward(layer.convffn2, dtype)
        # x * scale + f with f = x + w + v is x * (1 + scale) + w + v: x + w need not be kept
        self.skip_1, self.skip_2 = 1 + layer.scale1.detach().float(), 1 + layer.scale2.detach().float()

    def entry(self, around: V2Context) -> Preparation:
        """Want the stream normalised and in windows."""
        return Preparation(self.norm_1, around.places[self.attention.shifted].rows)

    def __call__(self, x: Tensor, prepared: Tensor, around: V2Context) -> Pending:
        """Take the stream, (b, p, c), and its normalised form in windows, (b, p, padded)."""
        places = around.places[self.attention.shifted]
        attended = self.attention(prepared, places.counts)
        pending = Pending(x, w=attended, w_places=places.rows)
        _, prepared = pending.settle(Preparation(self.norm_2), keep=False)
        v, bias = self.feed_forward_1(prepared, around.size)
        pending = Pending(x, v, self.skip_1, bias=bias, w=attended, w_places=places.rows)
        x, prepared = pending.settle(Preparation(self.norm_3))
        scanned = self.assm(prepared, around)
        _, prepared = Pending(x, w=scanned).settle(Preparation(self.norm_4), keep=False)
        v, bias = self.feed_forward_2(prepared, around.size)
        return Pending(x, v, self.skip_2, bias=bias, w=scanned)


class FusedAttention:
    """Attention within windows, in the order of windows."""

    def __init__(self, layer: AttentiveLayer, index: Tensor, dtype: torch.dtype) -> None:
        attention = layer.win_mhsa
        self.heads, self.shifted = attention.heads, bool(attention.shift)
        c = layer.wqkv.in_features
        own = c // self.heads  # channels of a head
        self.channels = round_up(own, HEAD_MULTIPLE)
        self.scale = own**-0.5
        more = self.channels - own
        weight = layer.wqkv.weight.detach().view(3, self.heads, own, c)
        weight = F.pad(weight, (0, pad(c) - c, 0, more))
        self.qkv = weight.reshape(-1, pad(c)).to(dtype)
        bias = layer.wqkv.bias.detach().view(3, self.heads, own)
        self.qkv_bias = F.pad(bias, (0, more)).reshape(-1).to(dtype)
        proj = F.pad(attention.proj.weight.detach().view(c, self.heads, own), (0, more))
        proj = F.pad(proj.reshape(c, -1), (0, 0, 0, pad(c) - c))
        self.proj = proj.T.to(dtype)  # (heads·channels, padded)
        self.proj_bias = pad_vector(attention.proj.bias, pad(c)).to(dtype)
        self.biases = attention.biases(index, dtype).detach()  # (masks, heads, window², window²)

    def choose_backend(self) -> SDPBackend:
        """Find the fastest of PyTorch's attentions that takes windows and biases as they lie here."""
        windows = 2
        tokens = self.biases.shape[-1]
        qkv = self.qkv_bias.new_zeros(windows, tokens, 3, self.heads, self.channels)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mask = self.biases[:1].expand(windows, -1, -1, -1)
        for backend in ATTENTION:
            try:
                with warnings.catch_warnings(), sdpa_kernel([backend]):
                    warnings.simplefilter("ignore")  # it tells what it does not take
                    F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
                return backend
            except RuntimeError:
                continue
        return SDPBackend.MATH

    def __call__(self, prepared: Tensor, counts: tuple[int, ...]) -> Tensor:
        """Attend: (b, p, padded) in the order of windows -> (b, p, padded), ditto."""
        tokens = self.biases.shape[-1]
        qkv = F.linear(prepared, self.qkv, self.qkv_bias)
        qkv = qkv.view(-1, tokens, 3, self.heads, self.channels).permute(2, 0, 3, 1, 4)
        result = prepared.new_empty(prepared.shape[0] * prepared.shape[1], self.proj.shape[1])
        start = 0
        for count, bias in zip(counts, self.biases, strict=True):
            if count:
                q, k, v = qkv[:, start : start + count]
                mask = bias[None].expand(count, -1, -1, -1)
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
                y = y.transpose(1, 2).reshape(count * tokens, -1)
                rows = result[start * tokens : (start + count) * tokens]
                torch.addmm(self.proj_bias, y, self.proj, out=rows)
            start += count
        return result.view(*prepared.shape[:2], -1)


class FusedASSM:
    """The attentive state-space module: pixels are routed, sorted and scanned."""

    def __init__(self, layer: AttentiveLayer, dtype: torch.dtype) -> None:
        assm: ASSM = layer.assm
        hidden, last = cast(nn.Linear, assm.route[0]), cast(nn.Linear, assm.route[2])
        self.number = layer.number
        width = pad(hidden.out_features)
        self.route = pad_matrix(hidden.weight, dtype)
        self.route_bias = pad_vector(hidden.bias, width)
        weight = F.pad(last.weight.detach(), (0, width - hidden.out_features))
        self.logits = weight.T.to(dtype).contiguous()
        self.logit_bias = last.bias.detach().float()
        in_proj, scan = cast(nn.Conv2d, assm.in_proj[0]), assm.selectiveScan
        d = in_proj.out_channels
        self.in_proj = pad_matrix(in_proj.weight.view(d, -1), dtype)
        self.in_bias = pad_vector(in_proj.bias, pad(d)).to(dtype)
        self.window = Depthwise(cast(nn.Conv2d, assm.CPE[0]), "gate", padded=pad_channels(d))
        params = scan_params(scan.dt_projs_weight, scan.dt_projs_bias, scan.A_logs, scan.Ds)
        self.scan = FusedScan(scan.x_proj_weight, params, assm.split, dtype)
        self.dictionary = (assm.embeddingB.weight @ layer.embeddingA.weight).detach().float().contiguous()
        self.out_norm = pack_norm(assm.out_norm)
        self.out_proj = pad_matrix(assm.out_proj.weight, dtype)[:, : pad_channels(d)].contiguous()
        self.out_bias = pad_vector(assm.out_proj.bias, len(self.out_proj)).to(dtype)

    def __call__(self, prepared: Tensor, around: V2Context) -> Tensor:
        """Mix the pixels of (b, p, padded)."""
        b, h, w = around.size
        keys = None if around.seed is None else make_keys(around.seed, self.number)
        hidden = F.linear(prepared, self.route)
        labels, path = triton_routing.route_pixels(
            hidden, self.route_bias, self.logits, self.logit_bias, w, keys, around.origin
        )
        if around.labels is not None:
            around.labels.append(labels)
        v = F.linear(prepared, self.in_proj, self.in_bias).view(b, h, w, -1)
        u = self.window(v).view(b, h * w, -1)
        y = self.scan(u, path[:, None], labels, self.dictionary)
        y = triton_merge.merge_paths(y, self.out_norm, None, prepared.dtype)
        return F.linear(y, self.out_proj, self.out_bias)


class FusedConvFFN:
    """Feed-forward network that sees its neighbours; its last bias is handed over, not added."""

    def __init__(self, net: ConvFFN, dtype: torch.dtype) -> None:
        hidden = net.fc1.out_features
        self.fc1, self.fc2 = pad_matrix(net.fc1.weight, dtype), pad_matrix(net.fc2.weight, dtype)
        self.bias_1, self.bias_2 = pad_vector(net.fc1.bias, pad(hidden)), net.fc2.bias.detach().float()
        self.window = Depthwise(cast(nn.Conv2d, net.dwconv.depthwise_conv[0]), "gelu_add")

    def __call__(self, prepared: Tensor, size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Take (b, p, padded); return as much, and the bias, (c,), that it lacks."""
        x = triton_gelu.gelu_in_place(F.linear(prepared, self.fc1), self.bias_1)
        x = self.window(x.view(*size, -1))
        return F.linear(x.view(*prepared.shape[:2], -1), self.fc2), self.bias_2


class FusedGatedMLP:
    """Feed-forward network with a spatial gate; its last bias is handed over, not added."""

    def __init__(self, net: GatedMLP, dtype: torch.dtype) -> None:
        hidden = net.fc1.out_features
        self.half = hidden // 2
        self.fc1 = pad_matrix(net.fc1.weight, dtype)
        self.fc2 = pad_matrix(net.fc2.weight, dtype)[:, : self.half].contiguous()
        self.bias_1, self.bias_2 = pad_vector(net.fc1.bias, pad(hidden)), net.fc2.bias.detach().float()
        self.norm = pack_norm(net.sg.norm)
        self.window = Depthwise(net.sg.conv, "times", padded=self.half)

    def __call__(self, prepared: Tensor, size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Take (b, p, padded); return as much, and the bias, (c,), that it lacks."""
        x = triton_gelu.prepare_gate(F.linear(prepared, self.fc1), self.bias_1, self.norm).view(*size, -1)
        gate, seen = x[..., : self.half], x[..., self.half : 2 * self.half]
        x = self.window(seen, gate)
        return F.linear(x.view(*prepared.shape[:2], -1), self.fc2), self.bias_2


def fuse_feed_forward(net: nn.Module, dtype: torch.dtype) -> FusedConvFFN | FusedGatedMLP:
    """Fuse whichever feed-forward network that is."""
    return FusedGatedMLP(net, dtype) if isinstance(net, GatedMLP) else FusedConvFFN(cast(ConvFFN, net), dtype)


def place_windows(b: int, h: int, w: int, window: int, shift: int, device: torch.device) -> Places:
    """Sort pixels by window, windows by mask and then by image.

    After a cyclic shift the windows of the last row and column need masks of their own; see
    ``mambair_v2.WindowAttention``. Without a shift there is a single, empty one.
    """
    rows, columns = h // window, w // window
    y = ((torch.arange(h, device=device) - shift) % h)[:, None]
    x = ((torch.arange(w, device=device) - shift) % w)[None, :]
    row, column = y // window, x // window
    if shift:
        counts = ((rows - 1) * (columns - 1), rows - 1, columns - 1, 1)
        mask = 2 * (row == rows - 1) + (column == columns - 1)
        number = torch.where(mask == 0, row * (columns - 1) + column, torch.where(mask == 1, row, column))
        number = torch.where(mask == 3, 0, number)
    else:
        counts = (rows * columns,)
        mask, number = torch.zeros_like(row + column), row * columns + column
    of_images = torch.tensor(counts, device=device)
    before = b * (of_images.cumsum(0) - of_images)  # windows with an earlier mask
    image = torch.arange(b, device=device)[:, None, None]
    places = (before[mask] + image * of_images[mask] + number) * window**2
    places = places + y % window * window + x % window
    return Places(places.view(b, -1).int(), tuple(b * count for count in counts))


def prefer_attention(backend: SDPBackend | None) -> AbstractContextManager:
    """Have PyTorch take that one of its attentions; beside it, none: its own order has cuDNN's last."""
    return nullcontext() if backend is None else sdpa_kernel([backend])
