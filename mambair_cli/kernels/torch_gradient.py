"""The selective scan in plain PyTorch with a gradient that is a second scan, backwards along each path.

It is for float64, for machines without llvmlite and for devices without a backend of their own. Nothing of
the states is kept between the forward and the backward pass: they are computed again. All paths and images
advance together, so that a step is one operation over all states.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mambair_cli.kernels.operands import MOST_DECAY, ScanParams, path_per_image, state_dtype


def selective_scan(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> Tensor:
    """Run one selective scan per path and sum the results at each pixel; see ``kernels.selective_scan``."""
    b, _, d = u.shape
    dtype = state_dtype(u)
    u, dt, B, C = (operand.to(dtype) for operand in (u, dt, B, C))
    dt_weight, dt_bias, A, D = (param.to(dtype) for param in params)
    orders = path_per_image(paths, b)
    image = torch.arange(b, device=u.device)[:, None, None]
    path = torch.arange(orders.shape[1], device=u.device)[None, :, None]

    u_k = u[image, orders]  # (b, k, l, d)
    step = F.softplus(torch.matmul(dt[image, orders, path], dt_weight.transpose(1, 2)) + dt_bias[:, None])
    y = _Recurrence.apply(step, step * u_k, B[image, orders, path], C[image, orders, path], A)
    y = y + D[:, None] * u_k
    total = torch.zeros_like(u)
    for k in range(orders.shape[1]):
        total = total + torch.zeros_like(u).scatter(1, orders[:, k, :, None].expand(-1, -1, d), y[:, k])
    return total


class _Recurrence(torch.autograd.Function):
    """Map step, x, B, C and A to y, (b, k, l, d), along each path.

    The equations::

        h[t] = exp(step[t] * A) * h[t-1] + x[t] * B[t]
        y[t] = <C[t], h[t]>

    With g the gradient of y, that of h is a scan in the other direction::

        G[t] = C[t] * g[t] + exp(step[t+1] * A) * G[t+1]
    """

    @staticmethod
    def forward(ctx: Any, step: Tensor, x: Tensor, B: Tensor, C: Tensor, A: Tensor) -> Tensor:
        """Compute y; step and x are (b, k, l, d), B and C (b, k, l, n), A (k, d, n)."""
        ctx.save_for_backward(step, x, B, C, A)
        return torch.einsum("tbkdn,bktn->bktd", _states(_decays(step, A), x, B), C)

    @staticmethod
    @once_differentiable  # it works in place, so a gradient of the gradient would be wrong without a word
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]: once_differentiable hides the names
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the gradients of the operands, in their order."""
        (g,) = grad_outputs
        step, x, B, C, A = ctx.saved_tensors
        decay = _decays(step, A)
        h = _states(decay, x, B)
        G = torch.einsum("bktd,bktn->tbkdn", g, C).contiguous()
        for t in range(len(G) - 2, -1, -1):
            G[t].addcmul_(decay[t + 1], G[t + 1])
        of_C = torch.einsum("tbkdn,bktd->bktn", h, g)
        of_x = torch.einsum("tbkdn,bktn->bktd", G, B)
        of_B = torch.einsum("tbkdn,bktd->bktn", G, x)
        # The derivative of exp(step · A) by step · A is itself; nothing comes before the first state.
        of_product = decay[1:].mul_(h[:-1]).mul_(G[1:])
        of_step = torch.zeros_like(step)
        of_step[:, :, 1:] = torch.einsum("tbkdn,kdn->bktd", of_product, A)
        of_A = torch.einsum("tbkdn,bktd->kdn", of_product, step[:, :, 1:])
        return of_step, of_x, of_B, of_C, of_A


def _decays(step: Tensor, A: Tensor) -> Tensor:
    """Return exp(step · A), (l, b, k, d, n); less than exp(-50) is less than any rounding error."""
    product = step.permute(2, 0, 1, 3)[..., None] * A
    return product.clamp_(MOST_DECAY).exp_()


def _states(decay: Tensor, x: Tensor, B: Tensor) -> Tensor:
    """Return the states of all steps, (l, b, k, d, n)."""
    h = (x.permute(2, 0, 1, 3)[..., None] * B.permute(2, 0, 1, 3)[..., None, :]).contiguous()
    for t in range(1, len(h)):
        h[t].addcmul_(decay[t], h[t - 1])
    return h
