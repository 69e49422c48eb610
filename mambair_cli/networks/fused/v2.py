"""MambaIRv2 for inference on a GPU.

Windows are never cut out: while the stream is normalised, its rows are written in the order of windows, and
while the result of attention is added, it is read in that order. Shifted windows are sorted by the mask that
they need, so that each of the four masks is stored once.
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

HEAD_MULTIPLE = 8  # to which the channels of a head are padded: PyTorch's fused attention needs it
ATTENTION = (SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)  # the faster first
TIE = 0.25  # logits; two tokens this close fit equally well, since the noise is 1.3 on average


class Places(NamedTuple):
    """Where the pixels of images lie when they are sorted by window.

    Attributes:
        rows: Row of each pixel, counted over all images, (b, p) int32.
        counts: Number of windows that need the first mask, the second and so on.
    """

    rows: Tensor
    counts: tuple[int, ...]


class V2Context(NamedTuple):
    """What every layer needs in addition to its input.

    Attributes:
        size: Number of images, height and width, in pixels.
        places: The pixels' places in windows without a shift, and in shifted windows.
        origin: Row and column of each image's first pixel in the whole image, (b, 2) int32.
        seed: Seed of the noise in the routing; None for no noise.
        labels: List to which each layer appends its labels, (b, p) int32; None to drop them.
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
        self._size: tuple[int, ...] = ()  # shape of the last images
        # Kept between calls, since a recorded CUDA graph reads the same memory again.
        self._places: tuple[Places, Places] | None = None

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
            origin: Row and column of each image's first pixel in the whole image, (b, 2); None for (0, 0).
            seed: Seed of the noise in the routing; None for no noise.
            labels: List to which each layer appends its labels, (b, p) int32; None to drop them.

        Returns:
            (b, ch, s·h, s·w), not clipped.
        """
        if x.shape != self._size:
            self._size, self._places = x.shape, None
        if origin is None and seed is not None:
            origin = torch.zeros(len(x), 2, dtype=torch.int32, device=x.device)
        if origin is not None:
            origin = origin.to(x.device, torch.int32)
        with prefer_attention(self._attention):
            return self._run(x, origin, seed, labels)

    def _run(self, x: Tensor, origin: Tensor | None, seed: int | None, labels: list[Tensor] | None) -> Tensor:
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
        """Return this network's result for images, and that of the network it was made from.

        The latter prefers the former's labels. Where two tokens fit a pixel equally well, rounding to 16
        bits may choose the other one, which moves the pixel, and many more, along the path. That is not an
        error, but would look like one.
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
    """A layer of MambaIRv2, from the normalised stream in windows to the pending sum of its last part."""

    def __init__(self, layer: AttentiveLayer, index: Tensor, dtype: torch.dtype) -> None:
        self.norm_1, self.norm_2 = pack_norm(layer.norm1), pack_norm(layer.norm2)
        self.norm_3, self.norm_4 = pack_norm(layer.norm3), pack_norm(layer.norm4)
        self.attention = FusedAttention(layer, index, dtype)
        self.assm = FusedASSM(layer, dtype)
        self.feed_forward_1 = fuse_feed_forward(layer.convffn1, dtype)
        self.feed_forward_2 = fuse_feed_forward(layer.convffn2, dtype)
        # x * scale + (x + w) + v is x * (1 + scale) + w + v: x + w need not be stored
        self.skip_1, self.skip_2 = 1 + layer.scale1.detach().float(), 1 + layer.scale2.detach().float()

    def preparation(self, context: V2Context) -> Preparation:
        """Return how the layer wants the stream: normalised and in windows."""
        return Preparation(self.norm_1, context.places[self.attention.shifted].rows)

    def __call__(self, x: Tensor, prepared: Tensor, context: V2Context) -> Pending:
        """Take the stream, (b, p, c), and its normalised form in windows, (b, p, padded)."""
        places = context.places[self.attention.shifted]
        attended = self.attention(prepared, places.counts)
        pending = Pending(x, w=attended, w_places=places.rows)
        _, prepared = pending.settle(Preparation(self.norm_2), keep=False)
        v, bias = self.feed_forward_1(prepared, context.size)
        pending = Pending(x, v, self.skip_1, bias=bias, w=attended, w_places=places.rows)
        x, prepared = pending.settle(Preparation(self.norm_3))
        scanned = self.assm(prepared, context)
        _, prepared = Pending(x, w=scanned).settle(Preparation(self.norm_4), keep=False)
        v, bias = self.feed_forward_2(prepared, context.size)
        return Pending(x, v, self.skip_2, bias=bias, w=scanned)


class FusedAttention:
    """Attention within windows, in the order of windows."""

    def __init__(self, layer: AttentiveLayer, index: Tensor, dtype: torch.dtype) -> None:
        attention = layer.win_mhsa
        self.heads, self.shifted = attention.heads, bool(attention.shift)
        c = layer.wqkv.in_features
        own = c // self.heads  # channels of a head, before padding
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
        """Return the fastest of PyTorch's attentions that accepts the windows and biases in this layout."""
        windows = 2
        tokens = self.biases.shape[-1]
        qkv = self.qkv_bias.new_zeros(windows, tokens, 3, self.heads, self.channels)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mask = self.biases[:1].expand(windows, -1, -1, -1)
        for backend in ATTENTION:
            try:
                with warnings.catch_warnings(), sdpa_kernel([backend]):
                    warnings.simplefilter("ignore")  # it warns of each layout that it does not accept
                    F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
                return backend
            except RuntimeError:
                continue
        return SDPBackend.MATH

    def __call__(self, prepared: Tensor, counts: tuple[int, ...]) -> Tensor:
        """Attend: (b, p, padded) in the order of windows -> (b, p, padded) in the same order."""
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
    """The attentive state-space module: it routes pixels to tokens, sorts them and scans them."""

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
        self.depthwise = Depthwise(cast(nn.Conv2d, assm.CPE[0]), "gate", padded=pad_channels(d))
        params = scan_params(scan.dt_projs_weight, scan.dt_projs_bias, scan.A_logs, scan.Ds)
        self.scan = FusedScan(scan.x_proj_weight, params, assm.split, dtype)
        self.dictionary = (assm.embeddingB.weight @ layer.embeddingA.weight).detach().float().contiguous()
        self.out_norm = pack_norm(assm.out_norm)
        self.out_proj = pad_matrix(assm.out_proj.weight, dtype)[:, : pad_channels(d)].contiguous()
        self.out_bias = pad_vector(assm.out_proj.bias, len(self.out_proj)).to(dtype)

    def __call__(self, prepared: Tensor, context: V2Context) -> Tensor:
        """Mix the pixels: (b, p, padded) -> (b, p, padded)."""
        b, h, w = context.size
        keys = None if context.seed is None else make_keys(context.seed, self.number)
        hidden = F.linear(prepared, self.route)
        labels, path = triton_routing.route_pixels(
            hidden, self.route_bias, self.logits, self.logit_bias, w, keys, context.origin
        )
        if context.labels is not None:
            context.labels.append(labels)
        v = F.linear(prepared, self.in_proj, self.in_bias).view(b, h, w, -1)
        u = self.depthwise(v).view(b, h * w, -1)
        y = self.scan(u, path[:, None], labels, self.dictionary)
        y = triton_merge.merge_paths(y, self.out_norm, None, prepared.dtype)
        return F.linear(y, self.out_proj, self.out_bias)


class FusedConvFFN:
    """Feed-forward network with a depthwise convolution; its last bias is returned, not added."""

    def __init__(self, net: ConvFFN, dtype: torch.dtype) -> None:
        hidden = net.fc1.out_features
        self.fc1, self.fc2 = pad_matrix(net.fc1.weight, dtype), pad_matrix(net.fc2.weight, dtype)
        self.bias_1, self.bias_2 = pad_vector(net.fc1.bias, pad(hidden)), net.fc2.bias.detach().float()
        self.depthwise = Depthwise(cast(nn.Conv2d, net.dwconv.depthwise_conv[0]), "gelu_add")

    def __call__(self, prepared: Tensor, size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Take (b, p, padded); return the same shape, and the bias, (c,), that is not yet added."""
        x = triton_gelu.gelu_in_place(F.linear(prepared, self.fc1), self.bias_1)
        x = self.depthwise(x.view(*size, -1))
        return F.linear(x.view(*prepared.shape[:2], -1), self.fc2), self.bias_2


class FusedGatedMLP:
    """Feed-forward network with a spatial gate; its last bias is returned, not added."""

    def __init__(self, net: GatedMLP, dtype: torch.dtype) -> None:
        hidden = net.fc1.out_features
        self.half = hidden // 2
        self.fc1 = pad_matrix(net.fc1.weight, dtype)
        self.fc2 = pad_matrix(net.fc2.weight, dtype)[:, : self.half].contiguous()
        self.bias_1, self.bias_2 = pad_vector(net.fc1.bias, pad(hidden)), net.fc2.bias.detach().float()
        self.norm = pack_norm(net.sg.norm)
        self.depthwise = Depthwise(net.sg.conv, "times", padded=self.half)

    def __call__(self, prepared: Tensor, size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Take (b, p, padded); return the same shape, and the bias, (c,), that is not yet added."""
        x = triton_gelu.prepare_gate(F.linear(prepared, self.fc1), self.bias_1, self.norm).view(*size, -1)
        gate, seen = x[..., : self.half], x[..., self.half : 2 * self.half]
        x = self.depthwise(seen, gate)
        return F.linear(x.view(*prepared.shape[:2], -1), self.fc2), self.bias_2


def fuse_feed_forward(net: nn.Module, dtype: torch.dtype) -> FusedConvFFN | FusedGatedMLP:
    """Fuse a feed-forward network of either kind."""
    return FusedGatedMLP(net, dtype) if isinstance(net, GatedMLP) else FusedConvFFN(cast(ConvFFN, net), dtype)


def place_windows(b: int, h: int, w: int, window: int, shift: int, device: torch.device) -> Places:
    """Sort pixels by window, and windows by mask and then by image.

    After a cyclic shift the windows of the last row and column need other masks; see
    ``mambair_v2.WindowAttention``. Without a shift there is one mask, which is empty.

    Args:
        b: Number of images.
        h: Their height, in pixels; a multiple of ``window``.
        w: Their width, in pixels; a multiple of ``window``.
        window: Side of a window, in pixels.
        shift: Rows and columns of the cyclic shift, in pixels.
        device: Where to make the result.
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
    per_image = torch.tensor(counts, dtype=torch.int64, device=device)
    before = b * (per_image.cumsum(0) - per_image)  # windows with an earlier mask
    image = torch.arange(b, device=device)[:, None, None]
    places = (before[mask] + image * per_image[mask] + number) * window**2
    places = places + y % window * window + x % window
    return Places(places.view(b, -1).int(), tuple(b * count for count in counts))


def prefer_attention(backend: SDPBackend | None) -> AbstractContextManager:
    """Let PyTorch use only that attention; by its own order it would try cuDNN's last. None: no change."""
    return nullcontext() if backend is None else sdpa_kernel([backend])
