"""What launches of Triton's programs over rows of channels share: their size, and a norm's weights."""

from typing import Any, NamedTuple

from torch import Tensor

EPSILON = 1e-5  # of every layer norm
ELEMENTS = 2048  # values of one program: its rows times their padded length
WARPS = 4  # of one program


class Norm(NamedTuple):
    """A layer norm's parameters.

    Attributes:
        weight: (c,) float32.
        bias: (c,) float32.
    """

    weight: Tensor
    bias: Tensor


def count_rows(columns: int) -> int:
    """Return how many rows of a padded length one program takes."""
    return max(1, ELEMENTS // columns)


def launch(kernel: Any, grid: tuple[int, ...], *operands: Any, **options: Any) -> None:
    """Run a kernel over a grid of programs.

    A product and a sum are rounded once, which has been Triton's default until 3.9; from then on it warns.
    """
    kernel[grid](*operands, enable_fp_fusion=True, **options)
