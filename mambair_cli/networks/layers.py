"""Layers that the networks share; all work on channels-last images, (b, h, w, c)."""

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair_cli.errors import UsageError
from mambair_cli.kernels import (
    ScanParams,
    has_product_kernel,
    has_vector_kernels,
    is_exporting,
    selective_scan,
)
from mambair_cli.networks.config import ATTENTION_DIVISOR, CabForm, default_dt_rank
from mambair_cli.system.forked_locks import ForkedLock

LEAST_CHANNELS = 16  # with fewer the transforms cost more than the products that they save
# With more, PyTorch's convolution of single pixels adds up in another order if there is more than one thread.
MOST_CHANNELS = 192
_transforming = ForkedLock()
CAB_HIDDEN_DIVISOR: dict[str, int] = {"classic": 3, "light": 2, "light-2024-03": 6}


def check_images(x: Tensor, channels: int, weight: Tensor | None = None) -> None:
    """Refuse what a network would misread: one channel, for example, would be spread over three.

    Args:
        x: What it is called with.
        channels: Number of its channels.
        weight: One of the network's weights; None where their type need not be known.

    Raises:
        TypeError: It is no tensor.
        ValueError: It is no batch of such images, or the weights have a type that is not computed with.
        UsageError: TorchScript follows the network, which has programs that it cannot record.
    """
    if torch.compiler.is_compiling():  # shapes are settled there, and graphs stay as they are
        return
    if not isinstance(x, Tensor):
        raise TypeError(
            f"the network takes a tensor (b, {channels}, h, w) of floats in [0, 1], not "
            f"{type(x).__name__}; torch.from_numpy makes one of an array"
        )
    if any(isinstance(length, Tensor) for length in x.shape):  # TorchScript makes tensors of sizes
        raise UsageError(
            "cannot trace the network: TorchScript, which torch.onnx.export uses with dynamo=False; "
            "torch.export.export, torch.onnx.export with dynamo=True and `mambair export` would work"
        )
    dtype = None if weight is None else weight.dtype
    if weight is not None and dtype in (torch.float16, torch.bfloat16) and weight.device.type == "cpu":
        kind = str(dtype).removeprefix("torch.")
        raise ValueError(
            f"the network computes on a CPU with weights in float32, not {kind}; "
            "call float() on it, and torch.autocast makes its products faster"
        )
    is_double = x.dtype == torch.float64 and dtype not in (None, torch.float64)
    if x.ndim != 4 or x.shape[1] != channels or not x.numel() or not x.is_floating_point() or is_double:
        floats = "floats" if not is_double else str(dtype).removeprefix("torch.")
        kind = str(x.dtype).removeprefix("torch.")
        raise ValueError(
            f"the network takes images (b, {channels}, h, w) of {floats} in [0, 1], not "
            f"{tuple(x.shape)} {kind}"
        )


class Conv2d(nn.Conv2d):
    """A convolution of (b, h, w, c) that keeps its size, with the keys and weights of ``nn.Conv2d``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        groups: int = 1,
        bias: bool = True,
        dilation: int = 1,
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            in_channels, out_channels, kernel, padding=padding, dilation=dilation, groups=groups, bias=bias
        )
        self._transformed: tuple[Tensor, Any] | None = (
            None  # a copy of the weights, and what was made of them
        )

    def forward(self, input: Tensor) -> Tensor:
        is_plain = self.kernel_size == (3, 3) and self.dilation == (1, 1) and self.groups == 1
        if is_plain and self.in_channels >= LEAST_CHANNELS and has_vector_kernels(input):
            return self._convolve_by_transforms(input)
        if self.kernel_size == (1, 1) and self.groups == 1 and self._is_product(input):
            return multiply(input, self.weight[:, :, 0, 0], self.bias)
        return super().forward(input.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def _is_product(self, x: Tensor) -> bool:
        """Tell whether a convolution of single pixels is a product."""
        return has_product_kernel(x) or (self.in_channels > MOST_CHANNELS and has_vector_kernels(x))

    def _convolve_by_transforms(self, x: Tensor) -> Tensor:
        from mambair_cli.kernels.cpu_convolution import convolve, transform_weight

        made = self._transformed
        if made is None or not torch.equal(made[0], self.weight):
            with _transforming:
                made = self._transformed
                # Compared with a copy, since some optimizers change weights without raising their version.
                if made is None or not torch.equal(made[0], self.weight):
                    made = self._transformed = self.weight.detach().clone(), transform_weight(self.weight)
        return convolve(x, made[1], self.bias)

    def __getstate__(self) -> dict[str, Any]:
        """Copy and save the layer without what was made of its weights."""
        return {**self.__dict__, "_transformed": None}


class Linear(nn.Linear):
    """A product of the channels of each pixel, (..., c), with the keys and weights of ``nn.Linear``."""

    def forward(self, input: Tensor) -> Tensor:
        return multiply(input, self.weight, self.bias)


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply the channels of each pixel by a matrix, and add a bias, as ``F.linear`` does."""
    if has_product_kernel(x):
        from mambair_cli.kernels import cpu_products

        return cpu_products.multiply(x, weight, bias)
    return F.linear(x, weight, bias)


class LayerNorm(nn.LayerNorm):
    """Normalise the channels of each pixel, (..., c), with the keys and weights of ``nn.LayerNorm``."""

    def forward(self, input: Tensor, gate: Tensor | None = None) -> Tensor:
        """Return the normalised channels; times SiLU of a gate of the same shape, if one is given."""
        if has_vector_kernels(input) and (gate is None or gate.dtype == input.dtype):
            from mambair_cli.kernels.cpu_rows import normalize_rows

            return normalize_rows(input, self.weight, self.bias, self.eps, gate)
        normalized = super().forward(input)
        return normalized if gate is None else normalized * F.silu(gate)


class PixelShuffle(nn.Module):
    """Spread s² channels over s×s pixels: (b, h, w, c·s²) -> (b, s·h, s·w, c)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        s = self.scale
        return (
            x.reshape(b, h, w, c // s**2, s, s).permute(0, 1, 4, 2, 5, 3).reshape(b, s * h, s * w, c // s**2)
        )


class PixelUnshuffle(nn.Module):
    """Gather s×s pixels into s² channels: (b, s·h, s·w, c) -> (b, h, w, c·s²)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        s = self.scale
        return (
            x.reshape(b, h // s, s, w // s, s, c)
            .permute(0, 1, 3, 5, 2, 4)
            .reshape(b, h // s, w // s, c * s**2)
        )


class Mean(nn.Module):
    """Average over the pixels of each image: (b, h, w, c) -> (b, 1, 1, c)."""

    def forward(self, x: Tensor) -> Tensor:
        if has_vector_kernels(x):
            from mambair_cli.kernels.cpu_passes import average_pixels

            return average_pixels(x)
        return x.mean((1, 2), keepdim=True)


class ChannelAttention(nn.Module):
    """Multiply each channel by a gate, computed from all channels' averages, and add the scaled input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // ATTENTION_DIVISOR
        self.attention = nn.Sequential(
            Mean(), Conv2d(channels, hidden, 1), nn.ReLU(), Conv2d(hidden, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor, skipped: Tensor, scale: Tensor) -> Tensor:
        """Return ``gate(x) * x + scale * skipped``: images (b, h, w, c), scale (c,)."""
        gate = self.attention(x)
        if has_vector_kernels(x) and gate.dtype == skipped.dtype == x.dtype:
            from mambair_cli.kernels.cpu_passes import gate_and_add

            return gate_and_add(x, gate, skipped, scale)
        return torch.addcmul(x * gate, skipped, scale)


class CAB(nn.Module):
    """Channel attention block: local convolutions, then channel attention, added to the scaled input."""

    def __init__(self, channels: int, form: CabForm) -> None:
        super().__init__()
        c = channels
        if form == "light-2024-02":
            local: list[nn.Module] = [Conv2d(c, c, 3, groups=c)]
        elif form == "light":
            hidden = c // CAB_HIDDEN_DIVISOR[form]
            local = [
                Conv2d(c, hidden, 1),
                Conv2d(hidden, hidden, 3, groups=hidden),
                nn.GELU(),
                Conv2d(hidden, c, 1),
                Conv2d(c, c, 3, groups=c, dilation=2),
            ]
        else:
            hidden = c // CAB_HIDDEN_DIVISOR[form]
            local = [Conv2d(c, hidden, 3), nn.GELU(), Conv2d(hidden, c, 3)]
        self.cab = nn.Sequential(*local, ChannelAttention(c))

    def forward(self, x: Tensor, skipped: Tensor, scale: Tensor) -> Tensor:
        """Return the block's result for x, plus ``scale * skipped``: images (b, h, w, c), scale (c,)."""
        *local, attention = self.cab
        for layer in local:
            x = layer(x)
        return attention(x, skipped, scale)


class SS2D(nn.Module):
    """Selective scan over an image along four paths, gated.

    Source: MambaIR (arXiv:2402.15648), section 3.3; VMamba (arXiv:2401.10166).
    """

    def __init__(self, channels: int, d_inner: int, d_state: int) -> None:
        super().__init__()
        k, d, n, r = 4, d_inner, d_state, default_dt_rank(channels)
        self.split = (r, n, n)
        self.in_proj = Linear(channels, 2 * d, bias=False)
        self.conv2d = Conv2d(d, d, 3, groups=d)
        self.x_proj_weight = nn.Parameter(torch.empty(k, r + 2 * n, d))
        self.dt_projs_weight = nn.Parameter(torch.empty(k, d, r))
        self.dt_projs_bias = nn.Parameter(torch.empty(k, d))
        self.A_logs = nn.Parameter(torch.empty(k * d, n))
        self.Ds = nn.Parameter(torch.empty(k * d))
        self.out_norm = LayerNorm(d)
        self.out_proj = Linear(d, channels, bias=False)
        init_scan(self.x_proj_weight, self.dt_projs_weight, self.dt_projs_bias, self.A_logs, self.Ds)

    def forward(self, x: Tensor, paths: Tensor) -> Tensor:
        """Mix the pixels of x, (b, h, w, c), along paths, (4, h·w)."""
        b, h, w, _ = x.shape
        x, z = self.in_proj(x).chunk(2, dim=-1)
        u = convolve_and_activate(x, self.conv2d).reshape(b, h * w, -1)
        dt, B, C = project_scan(u, self.x_proj_weight).split(self.split, dim=-1)
        params = scan_params(self.dt_projs_weight, self.dt_projs_bias, self.A_logs, self.Ds)
        y = selective_scan(u, dt, B, C, paths, params)
        return self.out_proj(self.out_norm(y.view(b, h, w, -1), z))


class VSSBlock(nn.Module):
    """A block of MambaIR: the scan mixes distant pixels, the CAB near ones.

    Source: MambaIR (arXiv:2402.15648), section 3.2 (RSSB).
    """

    def __init__(self, channels: int, d_inner: int, d_state: int, cab: CabForm) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(channels)
        self.self_attention = SS2D(channels, d_inner, d_state)
        self.skip_scale = nn.Parameter(torch.ones(channels))
        self.conv_blk = CAB(channels, cab)
        self.ln_2 = LayerNorm(channels)
        self.skip_scale2 = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor, paths: Tensor) -> Tensor:
        """Map x, (b, h, w, c), to the same shape, scanning along paths, (4, h·w)."""
        y = self.self_attention(self.ln_1(x), paths)
        x = torch.addcmul(y, x, self.skip_scale, out=y if has_vector_kernels(y) else None)
        return self.conv_blk(self.ln_2(x), x, self.skip_scale2)


def convolve_and_activate(x: Tensor, convolution: Conv2d) -> Tensor:
    """Convolve each channel of (b, h, w, c) by 3×3 weights of its own, and apply SiLU."""
    if has_vector_kernels(x) and convolution.bias is not None:
        from mambair_cli.kernels import cpu_depthwise

        return cpu_depthwise.convolve_and_activate(x, convolution.weight, convolution.bias)
    return F.silu(convolution(x))


def convolve_and_gate(x: Tensor, convolution: Conv2d) -> Tensor:
    """Convolve each channel of (b, h, w, c) by 3×3 weights of its own; return x times the sigmoid of that."""
    if has_vector_kernels(x) and convolution.bias is not None:
        from mambair_cli.kernels import cpu_depthwise

        return cpu_depthwise.convolve_and_gate(x, convolution.weight, convolution.bias)
    return x * torch.sigmoid(convolution(x))


def project_scan(u: Tensor, weight: Tensor) -> Tensor:
    """Project tokens for every path at once: u (b, l, d), weight (k, m, d) -> (b, l, k, m)."""
    k, m, d = weight.shape
    return multiply(u, weight.reshape(k * m, d)).view(*u.shape[:2], k, m)


def scan_params(dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor) -> ScanParams:
    """Shape a checkpoint's scan tensors for the operator; its A_logs (k·d, n) and Ds (k·d) are path-major."""
    k, d, _ = dt_weight.shape
    A = -torch.exp(A_logs.to(torch.promote_types(A_logs.dtype, torch.float32)))
    return ScanParams(dt_weight, dt_bias, A.view(k, d, -1), Ds.view(k, d))


@torch.no_grad()
def init_scan(x_proj_weight: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor) -> None:
    """Initialise scan tensors as Mamba does: A from 1 to n, steps log-uniform between 0.001 and 0.1.

    Source: Mamba (arXiv:2312.00752), section 3.6 and appendix E.
    """
    if A_logs.is_meta:  # no memory, nothing to initialise; PyTorch would take 0.8 s to find that out
        return
    r = dt_weight.shape[-1]
    n = A_logs.shape[-1]
    nn.init.kaiming_uniform_(x_proj_weight.view(-1, x_proj_weight.shape[-1]), a=5**0.5)  # as nn.Linear
    dt_weight.uniform_(-(r**-0.5), r**-0.5)
    step = torch.empty_like(dt_bias).uniform_(math.log(0.001), math.log(0.1)).exp()
    dt_bias.copy_(step + torch.log(-torch.expm1(-step)))  # inverse of softplus
    A_logs.copy_(torch.arange(1, n + 1, device=A_logs.device).float().log().expand_as(A_logs))
    Ds.fill_(1.0)


def four_paths(height: int, width: int, device: torch.device) -> Tensor:
    """Return MambaIR's paths over an image, (4, h·w) int32: rows, columns, and both backwards."""
    if is_exporting():  # tensors without values, which must not be kept
        return _make_four_paths(height, width, device)
    return _keep_four_paths(height, width, device)


def _make_four_paths(height: int, width: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a kept tensor must also serve a later forward pass with gradients
        rows = torch.arange(height * width, dtype=torch.int32, device=device)
        columns = rows.view(height, width).T.reshape(-1)
        return torch.stack([rows, columns, rows.flip(0), columns.flip(0)])


_keep_four_paths = functools.lru_cache(maxsize=16)(_make_four_paths)


def mirror_pad(x: Tensor, bottom: int, right: int, repeat_edge: bool) -> Tensor:
    """Extend (b, h, w, c) at the bottom and right by its mirror image, repeated as often as needed.

    Args:
        x: Images, (b, h, w, c).
        bottom: Rows to add.
        right: Columns to add.
        repeat_edge: Whether the edge pixel is the first of its mirror image (abc|cba) or not (abc|ba).

    Returns:
        (b, h + bottom, w + right, c)
    """

    def mirror(size: int, extra: int) -> Tensor:
        places = torch.arange(size + extra, device=x.device)
        if size == 1:
            return torch.zeros_like(places)
        period = 2 * size if repeat_edge else 2 * size - 2
        places = places % period
        return torch.where(places < size, places, period - places - int(repeat_edge))

    if bottom:
        x = x.index_select(1, mirror(x.shape[1], bottom))
    if right:
        x = x.index_select(2, mirror(x.shape[2], right))
    return x
