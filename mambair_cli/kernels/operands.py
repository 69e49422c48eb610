"""The operands of a selective scan, and the checks that every backend shares."""

from typing import NamedTuple

import torch
from torch import Tensor

# A decay of exp(-50) is smaller than any rounding error. Below exp(-87), where float32 has only denormal
# numbers, the exponential of a CPU is 10 to 30 times as slow.
MOST_DECAY = -50.0


class ScanParams(NamedTuple):
    """The learned parameters of a selective scan over ``k`` paths, ``d`` channels and ``n`` states.

    Attributes:
        dt_weight: Weight that expands the low-rank step, (k, d, r).
        dt_bias: Added before the softplus, (k, d).
        A: Rate of decay, negative, (k, d, n).
        D: Weight of the input that is added to the output directly, (k, d).
    """

    dt_weight: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor


class ScanOperands(NamedTuple):
    """All operands of a selective scan; see ``kernels.selective_scan``."""

    u: Tensor
    dt: Tensor
    B: Tensor
    C: Tensor
    paths: Tensor
    params: ScanParams


def state_dtype(u: Tensor) -> torch.dtype:
    """Return the dtype of the recurrence: float64 for float64 tokens, float32 for all others."""
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def path_per_image(paths: Tensor, batch: int) -> Tensor:
    """Return ``paths`` as (b, k, l) int64, repeated over the batch where it is shared."""
    paths = paths.long()
    return paths if paths.ndim == 3 else paths.expand(batch, *paths.shape)


def check_operands(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> None:
    """Raise a ValueError that names the first operand whose shape or type is not what backends read."""
    if u.ndim != 3 or params.A.ndim != 3:
        raise ValueError(
            f"u must be (b, l, d) and A (k, d, n): got {tuple(u.shape)}, {tuple(params.A.shape)}"
        )
    b, length, d = u.shape
    k, _, n = params.A.shape
    r = params.dt_weight.shape[-1]
    wanted = {
        "dt": (dt, (b, length, k, r)),
        "B": (B, (b, length, k, n)),
        "C": (C, (b, length, k, n)),
        "paths": (paths, (b, k, length) if paths.ndim == 3 else (k, length)),
        "dt_weight": (params.dt_weight, (k, d, r)),
        "dt_bias": (params.dt_bias, (k, d)),
        "A": (params.A, (k, d, n)),
        "D": (params.D, (k, d)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, not {tuple(tensor.shape)}")
    if paths.dtype != torch.int32:
        raise ValueError(f"paths must be int32, not {str(paths.dtype).removeprefix('torch.')}")
