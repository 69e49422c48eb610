"""MambaIRv2: window attention and an attentive state-space layer that scans pixels sorted by meaning.

Source: MambaIRv2 (arXiv:2411.15269).
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair_cli.kernels import has_vector_kernels, is_exporting, selective_scan
from mambair_cli.networks.config import MambaIRv2Config, default_dt_rank
from mambair_cli.networks.layers import (
    Conv2d,
    LayerNorm,
    Linear,
    check_images,
    convolve_and_gate,
    init_scan,
    mirror_pad,
    project_scan,
    scan_params,
)
from mambair_cli.networks.noise import gumbel_noise
from mambair_cli.networks.trunk import Group, Trunk
from mambair_cli.system.wanted import check_wanted

ROUTE_DIVISOR = 3  # channels per hidden channel of the router
MASKED = -100.0  # added to the attention between pixels that the cyclic shift brought together

DrawNoise = Callable[[int], Tensor | None]
"""Function from a layer's number in the network to its routing noise, (b, l, tokens); None for no noise."""


class LayerContext(NamedTuple):
    """What every layer needs in addition to its input.

    Attributes:
        bias_index: Row of the table of relative positions, (window², window²) int64.
        draw_noise: Source of each layer's routing noise.
    """

    bias_index: Tensor
    draw_noise: DrawNoise


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias per relative position.

    Source: Swin Transformer (arXiv:2103.14030), section 3.2.
    """

    def __init__(self, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        if not self.relative_position_bias_table.is_meta:  # see init_scan
            nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.proj = Linear(channels, channels)

    def forward(self, qkv: Tensor, bias_index: Tensor) -> Tensor:
        """Attend within windows: qkv (b, h, w, 3c), sides multiples of the window -> (b, h, w, c)."""
        bias = self.biases(bias_index, qkv.dtype)
        if has_vector_kernels(qkv):
            from mambair_cli.kernels.cpu_attention import attend

            return self.proj(attend(qkv, bias, self.window, self.shift))
        b, h, w, c3 = qkv.shape
        size, heads, shift = self.window, self.heads, self.shift
        head_channels = c3 // 3 // heads
        if shift:
            qkv = qkv.roll((-shift, -shift), (1, 2))
        rows, columns = h // size, w // size
        qkv = qkv.view(b, rows, size, columns, size, 3, heads, head_channels)
        qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, b, rows, columns, heads, size**2, head_channels)

        y = _attend_shifted(qkv, bias) if shift else _attend(qkv, bias[0])
        y = y.view(b, rows, columns, heads, size, size, head_channels).permute(0, 1, 4, 2, 5, 3, 6)
        y = y.reshape(b, h, w, c3 // 3)
        return self.proj(y.roll((shift, shift), (1, 2)) if shift else y)

    def biases(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the bias of the scores: (1, heads, window², window²), or 4 of them for shifted windows.

        Only the windows of the last row and column hold pixels that the shift brought together: the four are
        for all other windows, for the last column, for the last row, and for the corner. Their rows are
        contiguous, which PyTorch's fused attentions require.
        """
        bias = self.relative_position_bias_table[index].permute(2, 0, 1).to(dtype).contiguous()
        if not self.shift:
            return bias[None]
        masks = [
            shift_mask(self.window, self.shift, last_row, last_column, bias.device)
            for last_row, last_column in product((False, True), repeat=2)
        ]
        return bias + torch.stack(masks).to(dtype)[:, None]


def _attend(qkv: Tensor, bias: Tensor) -> Tensor:
    """Attend in each window: (3, b, rows, columns, heads, s², e) -> (b, rows, columns, heads, s², e)."""
    _, *batch, heads, tokens, channels = qkv.shape
    q, k, v = qkv.reshape(3, -1, heads, tokens, channels)
    mask = bias[None]  # PyTorch's fused kernels accept no mask of three dimensions
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).view(*batch, heads, tokens, channels)


def _attend_shifted(qkv: Tensor, bias: Tensor) -> Tensor:
    """Attend in shifted windows, where those of the last row and column have biases of their own.

    The parts are joined, not assigned, for which a graph that is exported has only slow operators.

    Args:
        qkv: The same as in _attend.
        bias: Those of ``WindowAttention.biases``, (4, heads, s², s²).
    """
    rows, columns = qkv.shape[2:4]
    ends = [(slice(0, -1), 0), (slice(-1, None), 1)]  # all but the last; the last
    lines = []
    for down, last_row in ends[rows == 1 :]:
        parts = [
            _attend(qkv[:, :, down, across], bias[2 * last_row + last_column])
            for across, last_column in ends[columns == 1 :]
        ]
        lines.append(torch.cat(parts, dim=2))
    return torch.cat(lines, dim=1)


def shift_mask(window: int, shift: int, last_row: bool, last_column: bool, device: torch.device) -> Tensor:
    """Return the mask of a shifted window, (window², window²): 0 within a region of the image, else −100.

    A cyclic shift brings opposite borders of the image together in the windows of the last row and
    column: there the last ``shift`` rows or columns come from the other side.
    """
    wrapped = torch.arange(window, device=device) >= window - shift
    row = wrapped if last_row else torch.zeros_like(wrapped)
    column = wrapped if last_column else torch.zeros_like(wrapped)
    region = (row[:, None] * 2 + column[None, :]).flatten()
    return torch.where(region[:, None] == region[None, :], 0.0, MASKED)


def relative_position_index(window: int) -> Tensor:
    """Return the row of the bias table for each pair of a window's pixels, (window², window²) int64."""
    places = torch.arange(window, device="cpu")
    y, x = torch.meshgrid(places, places, indexing="ij")
    y, x = y.flatten(), x.flatten()
    rows = y[:, None] - y[None, :] + window - 1
    columns = x[:, None] - x[None, :] + window - 1
    return rows * (2 * window - 1) + columns


class Scan(nn.Module):
    """The tensors of a scan along one path."""

    def __init__(self, d: int, n: int) -> None:
        super().__init__()
        r = default_dt_rank(d)
        self.x_proj_weight = nn.Parameter(torch.empty(1, r + 2 * n, d))
        self.dt_projs_weight = nn.Parameter(torch.empty(1, d, r))
        self.dt_projs_bias = nn.Parameter(torch.empty(1, d))
        self.A_logs = nn.Parameter(torch.empty(d, n))
        self.Ds = nn.Parameter(torch.empty(d))
        init_scan(self.x_proj_weight, self.dt_projs_weight, self.dt_projs_bias, self.A_logs, self.Ds)


class ASSM(nn.Module):
    """Attentive state-space module: one scan over the pixels, sorted by the token that each is routed to.

    Source: MambaIRv2 (arXiv:2411.15269), sections 3.2 and 3.3.
    """

    def __init__(self, config: MambaIRv2Config) -> None:
        super().__init__()
        c, d, n = config.embed_dim, config.d_inner, config.d_state
        self.split = (default_dt_rank(d), n, n)
        self.embeddingB = _embedding(config.num_tokens, config.inner_rank)
        self.route = nn.Sequential(
            Linear(c, c // ROUTE_DIVISOR), nn.GELU(), Linear(c // ROUTE_DIVISOR, config.num_tokens)
        )
        self.in_proj = nn.Sequential(Conv2d(c, d, 1))
        self.CPE = nn.Sequential(Conv2d(d, d, 3, groups=d))
        self.selectiveScan = Scan(d, n)
        self.out_norm = LayerNorm(d)
        self.out_proj = Linear(d, c)

    def forward(self, x: Tensor, embedding_a: Tensor, noise: Tensor | None) -> Tensor:
        """Mix the pixels of x, (b, h, w, c), with the layer's half of the dictionary, (inner_rank, n)."""
        b, h, w, _ = x.shape
        dictionary = self.embeddingB.weight @ embedding_a  # (t, n)
        label = _find_token(self.route(x).flatten(1, 2), noise)  # (b, l)
        path = _sort_pixels(label)
        place = torch.empty_like(path).scatter_(1, path, torch.arange(h * w, device=x.device).expand(b, -1))

        v = self.in_proj(x)
        u = convolve_and_gate(v, cast(Conv2d, self.CPE[0])).flatten(1, 2)
        dt, B, C = project_scan(u, self.selectiveScan.x_proj_weight).split(self.split, dim=-1)
        # The tokens are sorted, but the rows of the dictionary are not: step t of the path gets the row of
        # pixel t. The official network was trained this way.
        C = C + dictionary[label.gather(1, place)][:, :, None]
        scan = self.selectiveScan
        params = scan_params(scan.dt_projs_weight, scan.dt_projs_bias, scan.A_logs, scan.Ds)
        y = selective_scan(u, dt, B, C, path.int()[:, None], params)
        return self.out_proj(self.out_norm(y)).view(b, h, w, -1)


def _find_token(logits: Tensor, noise: Tensor | None) -> Tensor:
    """Return the token of the largest probability after the noise: logits (b, l, t) -> (b, l)."""
    if has_vector_kernels(logits):
        from mambair_cli.kernels.cpu_routing import find_largest

        return find_largest(logits, noise)  # which the softmax, the same for all tokens of a pixel, leaves
    score = F.log_softmax(logits.float(), dim=-1)
    return (score if noise is None else score + noise).argmax(-1)


def _sort_pixels(label: Tensor) -> Tensor:
    """Return the pixels by label (b, l), and those of one label in the order of the image."""
    if not is_exporting():
        return label.sort(dim=-1, stable=True).indices
    pixels = label.shape[-1]  # ONNX has no stable sort; where all keys differ, none is needed
    keys = label * pixels + torch.arange(pixels, device=label.device)
    return keys.topk(pixels, largest=False).indices


def _embedding(rows: int, channels: int) -> nn.Embedding:
    """Make an embedding with normally distributed weights, or without memory; see init_scan."""
    weight = torch.empty(rows, channels)
    return nn.Embedding.from_pretrained(weight if weight.is_meta else weight.normal_(), freeze=False)


class DepthwiseConv(nn.Module):
    """A depthwise convolution and GELU; a separate module only for its key."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise_conv = nn.Sequential(Conv2d(channels, channels, kernel, groups=channels), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return self.depthwise_conv(x)


class ConvFFN(nn.Module):
    """Feed-forward network with a depthwise convolution, through which a pixel sees its neighbours."""

    def __init__(self, channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.fc1 = Linear(channels, hidden)
        self.dwconv = DepthwiseConv(hidden, kernel)
        self.fc2 = Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.fc1(x))
        return self.fc2(x + self.dwconv(x))


class SpatialGate(nn.Module):
    """Multiply one half of the channels by a depthwise convolution of the other half."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.conv = Conv2d(channels, channels, kernel, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, dim=-1)
        return x1 * self.conv(self.norm(x2))


class GatedMLP(nn.Module):
    """Feed-forward network with a spatial gate, for the light network."""

    def __init__(self, channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.fc1 = Linear(channels, hidden)
        self.sg = SpatialGate(hidden // 2, kernel)
        self.fc2 = Linear(hidden // 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.sg(F.gelu(self.fc1(x))))


class AttentiveLayer(nn.Module):
    """A layer of MambaIRv2: window attention, then the attentive scan, each with a feed-forward network."""

    def __init__(self, config: MambaIRv2Config, heads: int, shift: int, number: int) -> None:
        super().__init__()
        c = config.embed_dim
        feed_forward = ConvFFN if config.feed_forward == "conv" else GatedMLP
        self.number = number
        self.norm1, self.norm2 = LayerNorm(c), LayerNorm(c)
        self.norm3, self.norm4 = LayerNorm(c), LayerNorm(c)
        self.wqkv = Linear(c, 3 * c)
        self.win_mhsa = WindowAttention(c, heads, config.window_size, shift)
        self.assm = ASSM(config)
        self.convffn1 = feed_forward(c, config.d_inner, config.convffn_kernel_size)
        self.convffn2 = feed_forward(c, config.d_inner, config.convffn_kernel_size)
        self.embeddingA = _embedding(config.inner_rank, config.d_state)
        self.scale1 = nn.Parameter(torch.full((c,), 1e-4))
        self.scale2 = nn.Parameter(torch.full((c,), 1e-4))

    def forward(self, x: Tensor, context: LayerContext) -> Tensor:
        attended = self.win_mhsa(self.wqkv(self.norm1(x)), context.bias_index) + x
        x = x * self.scale1 + attended + self.convffn1(self.norm2(attended))
        scanned = self.assm(self.norm3(x), self.embeddingA.weight, context.draw_noise(self.number)) + x
        return x * self.scale2 + scanned + self.convffn2(self.norm4(scanned))


class Layers(nn.Module):
    """The layers of a group, one after the other; every second one shifts its windows by half."""

    def __init__(self, config: MambaIRv2Config, depth: int, heads: int, first: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            AttentiveLayer(config, heads, config.window_size // 2 if j % 2 else 0, first + j)
            for j in range(depth)
        )

    def forward(self, x: Tensor, context: LayerContext) -> Tensor:
        for layer in self.layers:
            check_wanted()
            x = layer(x, context)
        return x


class MambaIRv2(Trunk):
    """Super-resolution, denoising and JPEG artefact removal with MambaIRv2."""

    config: MambaIRv2Config
    relative_position_index_SA: Tensor

    def __init__(self, config: MambaIRv2Config) -> None:
        groups: list[nn.Module] = []
        for i, (depth, heads) in enumerate(zip(config.depths, config.num_heads, strict=True)):
            layers = Layers(config, depth, heads, first=sum(config.depths[:i]))
            groups.append(Group(layers, config.embed_dim, config.resi_connection))
        super().__init__(config, groups)
        self.window = config.window_size
        self.tokens = config.num_tokens

    def reset_buffers(self) -> None:
        super().reset_buffers()
        # On the CPU: it needs values even in a network that is built without memory.
        self.register_buffer("relative_position_index_SA", relative_position_index(self.config.window_size))

    def forward(
        self,
        x: Tensor,
        seed: int | None = None,
        origin: Tensor | None = None,
        draw_noise: DrawNoise | None = None,
    ) -> Tensor:
        """Restore images.

        Args:
            x: Images, (b, ch, h, w) in [0, 1], of any size.
            seed: Seed of the Gumbel noise in the routing; None for no noise.
            origin: Row and column of each image's first pixel in the whole image, (b, 2); None for (0, 0).
            draw_noise: Source of the noise over the padded image, instead of the seed.

        Returns:
            (b, ch, s·h, s·w), not clipped.

        Raises:
            TypeError: They are no tensor.
            ValueError: The images or the weights have another shape or type.
            UsageError: TorchScript follows the network.
        """
        check_images(x, self.config.in_chans, next(self.parameters()))
        x = x.permute(0, 2, 3, 1)
        height, width = x.shape[1:3]
        x = mirror_pad(x, -height % self.window, -width % self.window, repeat_edge=True).contiguous()
        if draw_noise is None:
            draw_noise = self._noise_of(seed, origin, x)
        y = self.run(x, LayerContext(self.relative_position_index_SA, draw_noise))
        scale = self.config.upscale
        return y[:, : height * scale, : width * scale].permute(0, 3, 1, 2)

    def _noise_of(self, seed: int | None, origin: Tensor | None, x: Tensor) -> DrawNoise:
        """Return the source of a seed's noise over padded images x, (b, h, w, ch)."""
        if seed is None:
            return lambda layer: None
        height, width = x.shape[1:3]
        if origin is None:
            origin = torch.zeros(x.shape[0], 2, dtype=torch.int64, device=x.device)
        corner = origin.to(x.device, torch.int64)
        return lambda layer: gumbel_noise(seed, layer, corner, height, width, self.tokens)
