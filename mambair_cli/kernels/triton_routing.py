"""The routing of MambaIRv2 in Triton: label each pixel with a token, and sort pixels by label.

Neither logits nor noise are written to memory. It is a counting sort: one kernel labels a block of pixels and
counts its labels, a running sum over all blocks gives the first place of each label and block, and a second
kernel writes the pixels to their places. Pixels of one label stay in their order.
"""

import torch
import triton
from torch import Tensor

from mambair_cli.kernels.triton_rows import launch
from mambair_cli.programs.routing import label_kernel, sort_kernel

ROWS = 64  # pixels of a block


def route_pixels(
    hidden: Tensor,
    bias: Tensor,
    weight: Tensor,
    logit_bias: Tensor,
    width: int,
    keys: tuple[int, int] | None,
    origin: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Label each pixel with the token of its largest logit, and order the pixels by their labels.

    ``label = argmax(gelu(hidden + bias) @ weight + logit_bias + noise)``

    Long because it starts two kernels with many arguments.

    Args:
        hidden: Hidden values of the router before bias and GELU, (b, l, m) in the dtype of ``weight``.
        bias: Bias of ``hidden``, (m,) float32.
        weight: Weight of the logits, (m, tokens).
        logit_bias: Bias of the logits, (tokens,) float32.
        width: Width of the images, in pixels.
        keys: Keys of the Gumbel noise for rows and for columns, from ``networks.noise.make_keys``; None for
            no noise.
        origin: Row and column of each image's first pixel in the whole image, (b, 2) int32; None without
            noise.

    Returns:
        The labels, (b, l), and the path, which is the pixel at each place of the order, (b, l); both int32.
    """
    b, length, m = hidden.shape
    tokens = weight.shape[1]
    blocks = triton.cdiv(length, ROWS)
    labels = hidden.new_empty(b, length, dtype=torch.int32)
    counts = hidden.new_empty(b, tokens, blocks, dtype=torch.int32)
    path = torch.empty_like(labels)
    row_key, column_key = keys or (0, 0)
    columns = max(16, triton.next_power_of_2(tokens))
    with torch.cuda.device_of(hidden):
        launch(
            label_kernel,
            (blocks, b),
            hidden,
            bias,
            weight,
            logit_bias,
            origin,
            labels,
            counts,
            row_key,
            column_key,
            length,
            width,
            M=m,
            TOKENS=tokens,
            NOISE=keys is not None,
            ROWS=ROWS,
            HIDDEN=max(16, triton.next_power_of_2(m)),
            COLUMNS=columns,
            num_warps=8 if columns > 64 else 4,
        )
        # One sum over all images: since each has all its pixels, an image's places begin at its first row.
        ends = counts.view(-1).cumsum(0, dtype=torch.int32)
        launch(
            sort_kernel,
            (blocks, b),
            labels,
            counts,
            ends,
            path,
            length,
            blocks,
            TOKENS=tokens,
            ROWS=ROWS,
            num_warps=4,
        )
    return labels, path
