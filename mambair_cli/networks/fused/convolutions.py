"""Convolutions of channels-last images in a fused network."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair_cli.kernels import has_nvrtc, triton_gelu
from mambair_cli.networks.fused.packing import pack_convolution, pack_depthwise, pad

ACTIVATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of v and other; see cuda_depthwise
    "": lambda v, other: v,
    "silu": lambda v, other: F.silu(v),
    "gate": lambda v, other: other * v.sigmoid(),
    "gelu_add": lambda v, other: other + F.gelu(v),
    "times": lambda v, other: other * v,
}


class Depthwise:
    """A depthwise convolution with an activation: ``cuda_depthwise`` where NVRTC works, else PyTorch."""

    def __init__(self, conv: nn.Conv2d, activation: str = "", padded: int | None = None) -> None:
        self.packed = pack_depthwise(conv, padded)
        self.activation, self.dilation = activation, conv.dilation[0]
        self.by_cuda = has_nvrtc(conv.weight.device)

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Convolve x, (b, h, w, padded or more); ``other``, (b, h, w, padded), is by default x."""
        if self.by_cuda:
            from mambair_cli.kernels.cuda_depthwise import convolve_depthwise

            return convolve_depthwise(x, *self.packed, self.activation, self.dilation, other=other)
        weight, bias = (parameter.to(x.dtype) for parameter in self.packed)
        side, c = int(len(weight) ** 0.5), len(bias)
        x, weight = x[..., :c], weight.T.reshape(c, 1, side, side)
        v = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, 1, side // 2 * self.dilation, self.dilation, c)
        v = v.permute(0, 2, 3, 1)
        return ACTIVATIONS[self.activation](v, x if other is None else other).contiguous()


class Convolutions:
    """Convolutions and the activations between them; the last bias is returned, not added."""

    def __init__(self, layers: nn.Module, dtype: torch.dtype) -> None:
        self.layers = list(layers) if isinstance(layers, nn.Sequential) else [layers]
        convolutions = [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]
        self.depthwise = [Depthwise(conv) for conv in convolutions if is_depthwise(conv)]
        self.packed = [pack_convolution(conv, dtype) for conv in convolutions if not is_depthwise(conv)]
        device = convolutions[-1].weight.device
        self.no_bias = torch.zeros(pad(convolutions[-1].out_channels), dtype=torch.float32, device=device)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Take (b, h, w, padded); return the same shape, and the bias, (c,), that is not yet added."""
        packed, depthwise = iter(self.packed), iter(self.depthwise)
        missing: Tensor | None = None
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                if missing is not None:
                    x, missing = x + missing.to(x.dtype), None
                if is_depthwise(layer):
                    x = next(depthwise)(x)
                    continue
                weight, bias = next(packed)
                if layer.kernel_size == (1, 1):
                    x = F.linear(x, weight[:, :, 0, 0], bias.to(x.dtype))
                else:
                    x, missing = convolve(x, weight), bias
            elif isinstance(layer, nn.GELU):
                if missing is None:
                    missing = torch.zeros(x.shape[-1], dtype=torch.float32, device=x.device)
                x, missing = triton_gelu.gelu_in_place(x.contiguous(), missing), None
            else:
                assert isinstance(layer, nn.LeakyReLU)
                if missing is not None:
                    x, missing = x + missing.to(x.dtype), None
                x = F.leaky_relu(x, layer.negative_slope)
        return x.contiguous(), self.no_bias if missing is None else missing


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve (b, h, w, c), keeping the sides, without a bias."""
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, padding=weight.shape[-1] // 2)
    return y.permute(0, 2, 3, 1)


def shuffle(x: Tensor, bias: Tensor, scale: int) -> Tensor:
    """Add a bias, (s·s·c,), and spread channels over pixels: (b, h, w, s·s·c) -> (b, s·h, s·w, c)."""
    b, h, w, _ = x.shape
    bias = bias.to(x.dtype).view(scale, 1, scale, -1)
    y = x.new_empty(b, h, scale, w, *bias.shape[2:])
    torch.add(x.reshape(b, h, w, scale, scale, -1).transpose(2, 3), bias, out=y)
    return y.view(b, h * scale, w * scale, -1)


def is_depthwise(layer: nn.Module) -> bool:
    """Tell whether a layer convolves each channel on its own."""
    return isinstance(layer, nn.Conv2d) and layer.groups > 1
