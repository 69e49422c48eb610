"""Keep results close to their input where that is smooth; knows no network."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Pixels of the input around a detail within which any result is allowed. A JPEG block of one colour must see
# the next block: the right value may lie between the two.
REACH = 8


def limit(x: Tensor, y: Tensor, scale: int) -> Tensor:
    """Limit how far a result differs from its input, by how much the input bends nearby.

    Networks see zeros beyond the border of a tile, and were trained on few pictures of one pure colour: at
    the corners of a green area a result may be wrong by 46 of 255. With ``least`` and ``most`` of a pixel and
    its eight neighbours in the input, and ``bend`` the largest second difference along rows and columns
    within ``REACH``, in each channel::

        least - bend <= limit(x, y) <= most + bend

    So flat colours stay the same, slopes stay straight up to the border, and where there is any detail or
    noise, nothing is changed.

    Args:
        x: Input of the network, (b, c, h, w).
        y: Result of the network, (b, c, s·h, s·w).
        scale: s.

    Returns:
        (b, c, s·h, s·w) float32.
    """
    b, c, h, w = x.shape
    x = x.contiguous()  # pooling is slow on a CPU where channels lie last
    bend = _largest_near(_bend(x), REACH)
    lowest = -_largest_near(-x, 1) - bend
    highest = _largest_near(x, 1) + bend
    blocks = y.unflatten(3, (w, scale)).unflatten(2, (h, scale))
    held = blocks.clamp(lowest.view(b, c, h, 1, w, 1), highest.view(b, c, h, 1, w, 1))
    return held.reshape(b, c, h * scale, w * scale)


def _bend(x: Tensor) -> Tensor:
    """Return the larger second difference along rows and columns; borders are repeated outwards."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    down = padded[:, :, :-2, 1:-1] + padded[:, :, 2:, 1:-1] - 2 * x
    across = padded[:, :, 1:-1, :-2] + padded[:, :, 1:-1, 2:] - 2 * x
    return torch.maximum(down.abs_(), across.abs_())


def _largest_near(x: Tensor, reach: int) -> Tensor:
    """Return the largest value within ``reach`` pixels of each pixel."""
    side = 2 * reach + 1
    x = F.max_pool2d(x, (side, 1), 1, (reach, 0))
    return F.max_pool2d(x, (1, side), 1, (0, reach))
