"""Depthwise convolution in CUDA C++, for inference on NVIDIA cards; its source is compiled at run time."""

import ctypes
import functools
from typing import NamedTuple

import torch
from torch import Tensor

from mambair_cli.kernels import nvrtc

SOURCES = ("elements.cuh", "cuda_depthwise.cu")
ACTIVATIONS = {"": 0, "silu": 1, "gate": 2, "gelu_add": 3, "times": 4}


class DepthwiseShape(NamedTuple):
    """How the work is divided among threads.

    Attributes:
        width: Width of a thread's rectangle, in pixels.
        height: Its height, in pixels.
        threads: Threads of a block.
        blocks: Blocks that a multiprocessor must hold at once, which limits their registers.
    """

    width: int
    height: int
    threads: int
    blocks: int


class _DepthwiseOperands(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weight", "bias", "own", "y")),
        *((name, ctypes.c_int) for name in ("height", "width", "channels")),
    )


def convolve_depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    activation: str = "",
    dilation: int = 1,
    other: Tensor | None = None,
    shape: DepthwiseShape | None = None,
) -> Tensor:
    """Convolve each channel with its own kernel, and apply an activation.

    With ``v`` the result of the convolution, including the bias: "" gives v, "silu" silu(v), "gate"
    other * sigmoid(v), "gelu_add" other + gelu(v), "times" other * v.

    Args:
        x: Images, (b, h, w, c), contiguous except for the distance between pixels.
        weight: Kernels, (side², channels) float32.
        bias: Added to the convolution, (channels,) float32.
        activation: Name of the activation; see above.
        dilation: Distance between the kernel's taps, in pixels.
        other: Operand of the activation, (b, h, w, channels), with the strides of x; by default x.
        shape: How the work is divided; by default by ``choose_shape``.

    Returns:
        (b, h, w, channels) in the dtype of x.

    Raises:
        ValueError: Operands do not lie in memory as described, or have another type.
    """
    b, h, w, _ = x.shape
    channels = weight.shape[-1]
    own = x if other is None else other
    _check_operands(x, weight, bias, own)
    y = x.new_empty(b, h, w, channels)
    addresses = (x.data_ptr() // x.itemsize, own.data_ptr() // x.itemsize, x.stride(2), channels)
    each = 2 if all(address % 2 == 0 for address in addresses) else 1
    side = int(weight.shape[0] ** 0.5)
    shape = shape or choose_shape(side, activation)
    form = side, dilation, ACTIVATIONS[activation], nvrtc.TYPES[x.dtype], x.stride(2), each
    kernel = _load(*form, shape, x.device)
    operands = _DepthwiseOperands(
        *(tensor.data_ptr() for tensor in (x, weight, bias, own, y)), h, w, channels
    )
    items = -(-w // shape.width) * (channels // each)
    kernel.launch((-(-items // shape.threads), -(-h // shape.height), b), operands)
    return y


def _check_operands(x: Tensor, weight: Tensor, bias: Tensor, own: Tensor) -> None:
    _, h, w, _ = x.shape
    distance = x.stride(2)
    wanted = (h * w * distance, w * distance, distance, 1)
    for name, tensor in (("x", x), ("other", own)):
        lengths = zip(tensor.shape, tensor.stride(), wanted, strict=True)
        if tensor.dtype != x.dtype or any(size > 1 and stride != right for size, stride, right in lengths):
            raise ValueError(
                f"{name} must be {x.dtype} of strides {wanted}, not {tensor.dtype} of {tensor.stride()}"
            )
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor.dtype != torch.float32 or not tensor.is_contiguous():
            raise ValueError(
                f"{name} must be contiguous float32, not {tensor.dtype} of strides {tensor.stride()}"
            )


def choose_shape(side: int, activation: str) -> DepthwiseShape:
    """Divide the work so that registers hold the weights and the sums of a thread's pixels."""
    if side <= 3:  # these numbers are measured; see benchmarks/README.md
        return DepthwiseShape(4, 4, 128, 6) if activation == "gate" else DepthwiseShape(8, 4, 128, 4)
    return DepthwiseShape(4, 4, 64, 8 if side == 5 else 4)


@functools.cache
def _load(
    side: int,
    dilation: int,
    activation: int,
    element: int,
    stride: int,
    channels: int,
    shape: DepthwiseShape,
    device: torch.device,
) -> nvrtc.Kernel:
    """Compile or find the kernel for these settings; see the source."""
    settings = {"SIDE": side, "DILATION": dilation, "ACTIVATION": activation, "ELEMENT": element}
    settings |= {"STRIDE": stride, "CHANNELS": channels}
    settings |= {name.upper(): value for name, value in shape._asdict().items()}
    return nvrtc.load_kernels(SOURCES, settings, ("depthwise",), device)[0]
