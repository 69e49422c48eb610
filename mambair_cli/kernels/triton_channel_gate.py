"""The gate of channel attention in Triton: a weight for each channel, from all channels' averages."""

import torch
import triton
from torch import Tensor

from mambair_cli.kernels.triton_rows import WARPS, count_rows, launch
from mambair_cli.programs.channel_gate import gate_kernel, sum_kernel

MOST_PARTS = 64  # parts of an image that are summed apart, at most


def gate_channels(
    x: Tensor, bias: Tensor, down: Tensor, down_bias: Tensor, up: Tensor, up_bias: Tensor
) -> Tensor:
    """Return channel attention's gate: ``sigmoid(up @ relu(down @ (mean(x) + bias)))``, with biases.

    Args:
        x: Features, (b, p, c or more) in 16 bits.
        bias: Bias of the features, not yet added to ``x``, (c,).
        down: Weight of the first product, (m, c) float32.
        down_bias: Its bias, (m,).
        up: Weight of the second product, (c, m).
        up_bias: Its bias, (c,).

    Returns:
        (b, c) float32.
    """
    hidden, c = down.shape
    b, pixels, stride = x.shape
    columns = triton.next_power_of_2(c)
    rows = count_rows(columns)
    parts = min(MOST_PARTS, triton.next_power_of_2(triton.cdiv(pixels, 1024)))
    sums = x.new_empty(b, parts, c, dtype=torch.float32)
    result = x.new_empty(b, c, dtype=torch.float32)
    with torch.cuda.device_of(x):
        launch(
            sum_kernel,
            (parts, b),
            x,
            sums,
            pixels,
            triton.cdiv(pixels, parts),
            stride,
            C=c,
            ROWS=rows,
            COLUMNS=columns,
            num_warps=WARPS,
        )
        launch(
            gate_kernel,
            (b,),
            sums,
            bias,
            down,
            down_bias,
            up,
            up_bias,
            result,
            1.0 / pixels,
            C=c,
            HIDDEN=hidden,
            PARTS=parts,
            COLUMNS=columns,
            num_warps=WARPS,
        )
    return result
