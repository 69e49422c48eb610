"""MambaIR and MambaIRv2, computed as in their papers' code, by PyTorch's kernels, to be timed.

Weights and results are those of the project's networks, but every step has the order and the layout of the
official implementation: images are (b, c, h, w) for convolutions and tokens for everything else, with copies
between them; the four directions of a scan are stacked, transposed and flipped copies; windows are rolled,
cut out and put back; the mask of shifted windows is made on the host for each image; pixels are gathered by
label and scattered back. The scan on a GPU is mamba_ssm's CUDA kernel, which must be installed (the package,
or its compiled part ``selective_scan_cuda``); on a CPU it is a loop, which is only for tests.
"""

from collections.abc import Callable
from importlib import import_module
from itertools import product
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair_cli.networks import MambaIR, MambaIRv2
from mambair_cli.networks.layers import CAB, SS2D, VSSBlock
from mambair_cli.networks.mambair_v2 import AttentiveLayer, ConvFFN, GatedMLP, WindowAttention

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""u, delta (b, k·d, l), A (k·d, n), B, C (b, k, n, l), D, delta_bias (k·d,) -> (b, k·d, l)."""


class Official:
    """A network of the project, computed in the official way."""

    def __init__(self, net: MambaIR | MambaIRv2) -> None:
        self.net = net
        self.scan, self.scan_name = find_scan(net.mean.device)

    def __call__(self, x: Tensor) -> Tensor:
        """Restore images, (b, ch, h, w) in [0, 1], whose sides are multiples of the window."""
        net, config = self.net, self.net.config
        mean = net.mean.view(1, -1, 1, 1)
        x = (x - mean) * config.img_range
        first = convolve(net.conv_first, x)
        size = x.shape[2], x.shape[3]
        tokens = net.patch_embed.norm(first.flatten(2).transpose(1, 2))
        masks = None
        if isinstance(net, MambaIRv2):
            masks = make_masks(*size, net.window).to(x.device)
        for group in net.layers:
            shortcut = tokens
            inner = cast(Any, group).residual_group
            for block in inner.blocks if isinstance(net, MambaIR) else inner.layers:
                tokens = self.run_block(block, tokens, size, masks)
            image = convolve(cast(Any, group).conv, to_image(tokens, size))
            tokens = image.flatten(2).transpose(1, 2) + shortcut
        features = to_image(net.norm(tokens), size)
        features = convolve(net.conv_after_body, features) + first
        return finish(net, features, x) / config.img_range + mean

    def run_block(self, block: nn.Module, x: Tensor, size: tuple[int, int], masks: Tensor | None) -> Tensor:
        """Run a block on tokens, (b, l, c) -> (b, l, c)."""
        if isinstance(block, VSSBlock):
            image = x.view(len(x), *size, -1)
            image = image * block.skip_scale + self.scan_image(block.self_attention, block.ln_1(image))
            seen = block.ln_2(image).permute(0, 3, 1, 2).contiguous()
            seen = convolve(cast(CAB, block.conv_blk).cab, seen).permute(0, 2, 3, 1).contiguous()
            return (image * block.skip_scale2 + seen).view(len(x), -1, x.shape[-1]).contiguous()
        layer = cast(AttentiveLayer, block)
        qkv = layer.wqkv(layer.norm1(x))
        attended = attend(layer.win_mhsa, qkv, size, cast(MambaIRv2, self.net), masks) + x
        forward = feed_forward(layer.convffn1, layer.norm2(attended), size)
        x = x * layer.scale1 + attended + forward
        scanned = self.scan_sorted(layer, layer.norm3(x), size) + x
        forward = feed_forward(layer.convffn2, layer.norm4(scanned), size)
        return x * layer.scale2 + scanned + forward

    def scan_image(self, ssm: SS2D, x: Tensor) -> Tensor:
        """Scan (b, h, w, c) in four directions; each is a copy of the image in its order."""
        b, h, w, _ = x.shape
        x, z = ssm.in_proj(x).chunk(2, dim=-1)
        x = F.silu(convolve(ssm.conv2d, x.permute(0, 3, 1, 2).contiguous()))
        rows, columns = x.flatten(2), x.transpose(2, 3).contiguous().flatten(2)
        ways = torch.stack([rows, columns], dim=1)
        ways = torch.cat([ways, ways.flip(-1)], dim=1)  # (b, 4, d, l)
        y = self.scan_ways(ssm, ways)
        forth, back = y[:, :2], y[:, 2:].flip(-1)
        turned = [way[:, 1].reshape(b, -1, w, h).transpose(2, 3).contiguous() for way in (forth, back)]
        total = forth[:, 0] + back[:, 0] + turned[0].flatten(2) + turned[1].flatten(2)
        total = total.transpose(1, 2).contiguous().view(b, h, w, -1)
        return ssm.out_proj(ssm.out_norm(total) * F.silu(z))

    def scan_ways(self, parameters: Any, ways: Tensor, prompt: Tensor | float = 0.0) -> Tensor:
        """Scan (b, k, d, l) along l with the tensors of an SS2D or a v2 scan; ``prompt`` is added to C."""
        b, _, _, length = ways.shape
        n = parameters.A_logs.shape[1]
        projected = torch.einsum("bkdl,kcd->bkcl", ways, parameters.x_proj_weight)
        ranks, B, C = projected.split([projected.shape[2] - 2 * n, n, n], dim=2)
        steps = torch.einsum("bkrl,kdr->bkdl", ranks, parameters.dt_projs_weight)
        return self.scan(
            ways.float().reshape(b, -1, length),
            steps.float().reshape(b, -1, length),
            -torch.exp(parameters.A_logs.float()),
            B.float().contiguous(),
            (C + prompt).float().contiguous(),
            parameters.Ds.float(),
            parameters.dt_projs_bias.float().flatten(),
        ).view(ways.shape)

    def scan_sorted(self, layer: AttentiveLayer, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Route pixels, sort them by label, scan them and put them back; (b, l, c)."""
        assm = layer.assm
        dictionary = assm.embeddingB.weight @ layer.embeddingA.weight
        choice = F.gumbel_softmax(F.log_softmax(assm.route(x), dim=-1), hard=True, dim=-1)
        prompt = torch.matmul(choice, dictionary).view(len(x), 1, x.shape[1], -1)
        order = choice.argmax(-1).sort(dim=-1, stable=True).indices
        places = torch.arange(x.shape[1], device=x.device).expand_as(order)
        back = torch.empty_like(order).scatter_(1, order, places)
        image = convolve(assm.in_proj, to_image(x, size))
        image = image * torch.sigmoid(convolve(assm.CPE, image))
        tokens = image.flatten(2).transpose(1, 2).contiguous()
        ordered = tokens.gather(1, order[:, :, None].expand_as(tokens))
        ways = ordered.transpose(1, 2).contiguous()[:, None]
        y = self.scan_ways(assm.selectiveScan, ways, prompt.transpose(2, 3))[:, 0]
        y = assm.out_proj(assm.out_norm(y.transpose(1, 2).contiguous()))
        return y.gather(1, back[:, :, None].expand_as(y))


def find_scan(device: torch.device) -> tuple[Scan, str]:
    """Return the CUDA scan of mamba_ssm, or a loop on the CPU, and its name.

    Raises:
        SystemExit: There is no mamba_ssm for a GPU.
    """
    if device.type != "cuda":
        return scan_step_by_step, "a loop"
    try:
        scan = import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
        return (lambda *operands: scan(*operands[:6], None, operands[6], True)), "mamba_ssm"
    except (ImportError, OSError):  # the package needs more than its compiled part does
        try:
            forward = import_module("selective_scan_cuda").fwd
        except (ImportError, OSError) as error:
            raise SystemExit(
                f"the official code needs mamba_ssm on a GPU: {error}; "
                "pip install mamba-ssm, or leave that code out by --own"
            ) from error
        return (lambda *operands: forward(*operands[:6], None, operands[6], True)[0]), "selective_scan_cuda"


def scan_step_by_step(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    b, channels, length = u.shape
    step = F.softplus(delta + delta_bias[:, None])
    B, C = (x.repeat_interleave(channels // B.shape[1], dim=1) for x in (B, C))  # (b, k·d, n, l)
    h = u.new_zeros(b, *A.shape)
    y = torch.empty_like(u)
    for t in range(length):
        h = torch.exp(step[:, :, t, None] * A) * h + (step * u)[:, :, t, None] * B[..., t]
        y[:, :, t] = (h * C[..., t]).sum(-1) + D * u[:, :, t]
    return y


def attend(
    attention: WindowAttention, qkv: Tensor, size: tuple[int, int], net: MambaIRv2, masks: Tensor | None
) -> Tensor:
    """Roll, cut into windows, attend with scores in memory, put back: (b, l, 3c) -> (b, l, c)."""
    b, length, c3 = qkv.shape
    (h, w), window, heads, shift = size, attention.window, attention.heads, attention.shift
    image = qkv.view(b, h, w, c3)
    if shift:
        image = torch.roll(image, (-shift, -shift), (1, 2))
    windows = image.view(b, h // window, window, w // window, window, c3).transpose(2, 3).contiguous()
    windows = windows.view(-1, window**2, 3, heads, c3 // 3 // heads).permute(2, 0, 3, 1, 4).contiguous()
    q, k, v = windows
    scores = q * (c3 // 3 // heads) ** -0.5 @ k.transpose(-2, -1)
    bias = attention.relative_position_bias_table[net.relative_position_index_SA.flatten()]
    scores = scores + bias.view(window**2, window**2, heads).permute(2, 0, 1).contiguous()[None]
    if shift and masks is not None:
        scores = scores.view(b, len(masks), heads, window**2, window**2) + masks[None, :, None]
        scores = scores.view(-1, heads, window**2, window**2)
    y = attention.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, window**2, c3 // 3))
    y = y.view(b, h // window, w // window, window, window, -1).transpose(2, 3).contiguous().view(b, h, w, -1)
    return (torch.roll(y, (shift, shift), (1, 2)) if shift else y).view(b, length, -1)


def make_masks(h: int, w: int, window: int) -> Tensor:
    """Return the mask of each shifted window, on the host: (windows, window², window²)."""
    shift = window // 2
    region = torch.zeros(h, w)
    parts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate(product(parts, parts)):
        region[rows, columns] = number
    region = region.view(h // window, window, w // window, window).transpose(1, 2).reshape(-1, window**2)
    return torch.where(region[:, None] == region[:, :, None], 0.0, -100.0)


def feed_forward(net: nn.Module, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Run a feed-forward network on tokens, (b, l, c); its convolution needs an image."""
    if isinstance(net, ConvFFN):
        x = F.gelu(net.fc1(x))
        seen = F.gelu(convolve(net.dwconv.depthwise_conv[0], to_image(x, size).contiguous()))
        return net.fc2(x + seen.flatten(2).transpose(1, 2).contiguous())
    assert isinstance(net, GatedMLP)
    first, second = F.gelu(net.fc1(x)).chunk(2, dim=-1)
    seen = convolve(net.sg.conv, to_image(net.sg.norm(second), size).contiguous())
    return net.fc2(first * seen.flatten(2).transpose(-1, -2).contiguous())


def finish(net: MambaIR | MambaIRv2, x: Tensor, image: Tensor) -> Tensor:
    """Turn features into the image, (b, c, h, w)."""
    upsampler = net.config.upsampler
    if upsampler == "pixelshuffle":
        x = convolve(net.upsample, convolve(net.conv_before_upsample, x))
        return convolve(net.conv_last, x)
    if upsampler == "pixelshuffledirect":
        return convolve(net.upsample, x)
    if upsampler == "nearest+conv":
        x = convolve(net.conv_before_upsample, x)
        for layer in (net.conv_up1, net.conv_up2):
            x = F.leaky_relu(convolve(layer, F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return convolve(net.conv_last, F.leaky_relu(convolve(net.conv_hr, x), 0.2))
    return image + convolve(net.conv_last, x)


def convolve(layers: nn.Module, x: Tensor) -> Tensor:
    """Apply layers of the project, made for channels last, to (b, c, h, w)."""
    for layer in layers if isinstance(layers, nn.Sequential) else [layers]:
        if isinstance(layer, nn.Conv2d):
            x = F.conv2d(
                x, layer.weight, layer.bias, 1, cast(Any, layer.padding), layer.dilation, layer.groups
            )
        elif hasattr(layer, "attention"):  # channel attention
            _, down, relu, up, sigmoid = cast(Any, layer).attention
            gate = F.adaptive_avg_pool2d(x, 1)
            x = x * sigmoid(convolve(up, relu(convolve(down, gate))))
        elif hasattr(layer, "scale"):
            x = F.pixel_shuffle(x, cast(Any, layer).scale)
        else:
            x = layer(x)
    return x


def to_image(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Turn tokens (b, l, c) into images (b, c, h, w), as a copy."""
    return tokens.transpose(1, 2).contiguous().view(len(tokens), -1, *size)
