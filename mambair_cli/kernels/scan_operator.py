"""Scans with a gradient as operators of PyTorch, inside which ``torch.compile`` does not look."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mambair_cli.kernels.operands import ScanOperands, ScanParams

Forward = Callable[[ScanOperands], tuple[Tensor, Tensor]]
ShapeOfKept = Callable[[ScanOperands], tuple[int, ...]]
Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, ScanParams], Tensor]

_OPERANDS = ", ".join(
    f"Tensor {name}" for name in ("u", "dt", "B", "C", "paths", "dt_weight", "dt_bias", "A", "D")
)


class ScanGradients(NamedTuple):
    """The gradients of a scan's operands, in float32.

    Attributes:
        u: Gradient of the tokens, (b, l, d).
        projected: Gradients of dt, B and C joined, (b, l, k, r + 2n).
        dt_weight: (k, d, r).
        dt_bias: (k, d).
        A: (k, d, n).
        D: (k, d); None: each path adds D · u to y, so it is a sum of products that PyTorch takes.
    """

    u: Tensor
    projected: Tensor
    dt_weight: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor | None = None


Backward = Callable[[Tensor, ScanOperands, Tensor], ScanGradients]


def define_operator(name: str, scan: Forward, shape_of_kept: ShapeOfKept):
    """Define the operator ``mambair::{name}``, which knows no gradient.

    Args:
        name: Name of the operator.
        scan: Function that returns the sum over paths, (b, l, d), and what a gradient needs of the states;
            both in float32.
        shape_of_kept: Function that returns the shape of the states that ``scan`` keeps.

    Returns:
        The operator, with the operands of ``kernels.selective_scan``, the parameters one by one.
    """
    operator = torch.library.custom_op(
        f"mambair::{name}",
        lambda *tensors: scan(_gather(tensors)),
        mutates_args=(),
        schema=f"({_OPERANDS}) -> (Tensor, Tensor)",
    )

    @operator.register_fake
    def _(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        operands = _gather(tensors)
        y = operands.u.new_empty(operands.u.shape, dtype=torch.float32)
        return y, y.new_empty(shape_of_kept(operands))

    return operator


def define_scan(
    name: str, scan: Forward, differentiate: Backward, shape_of_kept: ShapeOfKept, sums_D: bool = False
) -> Scan:
    """Define the operators ``mambair::{name}`` and ``mambair::{name}_backward``.

    Args:
        name: Name of the operator.
        scan: Scan without a gradient; see :func:`define_operator`.
        differentiate: Function that returns the gradients, from that of the sum, the operands and the states.
        shape_of_kept: Shape of the states that it keeps; see :func:`define_operator`.
        sums_D: Whether ``differentiate`` gives the gradient of D, too.

    Returns:
        The scan, with the operands of ``kernels.selective_scan``, and a gradient.
    """
    operator = define_operator(name, scan, shape_of_kept)

    def run_backward(grad_y: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        operands = _gather(tensors[:-1])
        of_u, projected, *of_params = differentiate(grad_y.contiguous(), operands, tensors[-1])
        params = (x.contiguous() for x in of_params if x is not None)
        return of_u.to(operands.u.dtype), projected.to(operands.dt.dtype), *params

    count = len(ScanGradients._fields) if sums_D else len(ScanGradients._fields) - 1
    results = ", ".join(["Tensor"] * count)  # no list: PyTorch cannot batch an operator that returns one
    gradient = torch.library.custom_op(
        f"mambair::{name}_backward",
        run_backward,
        mutates_args=(),
        schema=f"(Tensor grad_y, {_OPERANDS}, Tensor kept) -> ({results})",
    )

    @gradient.register_fake
    def _(grad_y: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        u, dt, _, _, _, params = _gather(tensors[:-1])
        projected = dt.new_empty(*dt.shape[:-1], dt.shape[-1] + 2 * params.A.shape[-1])
        of_params = (p.new_empty(p.shape, dtype=torch.float32) for p in (params if sums_D else params[:-1]))
        return u.new_empty(u.shape), projected, *of_params

    def keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[1])

    def backward(ctx: Any, grad_y: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: a checkpoint computes them again, for one reading
        u, dt, B, _, _, params = _gather(saved[:-1])
        of_u, projected, *of_params = gradient(grad_y, *saved)
        if not sums_D:
            of_params.append((grad_y * u).sum((0, 1)).expand_as(params.D))
        ranks, states = dt.shape[-1], B.shape[-1]
        return of_u, *projected.split([ranks, states, states], dim=-1), None, *of_params

    operator.register_autograd(backward, setup_context=keep)
    return lambda u, dt, B, C, paths, params: operator(u, dt, B, C, paths, *params)[0]


def _gather(tensors: Sequence[Tensor]) -> ScanOperands:
    u, dt, B, C, paths, *params = tensors
    return ScanOperands(u, dt, B, C, paths, ScanParams(*params))
