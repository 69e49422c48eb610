"""The selective scan as one loop in a graph: what an exported network has in place of our kernels.

PyTorch's operator ``scan`` is the loop, and becomes ONNX's ``Scan``. One turn takes a stretch of steps: its
exponentials and products are computed at once, and only two operations remain for each single step.
"""

import torch
from torch import Tensor

from mambair_cli.kernels.operands import MOST_DECAY, ScanParams, path_per_image, state_dtype

STRETCH = 8  # steps of one turn; larger graphs are hardly faster, in onnxruntime
LARGEST_POWER = 40.0  # its exponential fits float32; from there on softplus(x) is x, in float64 too


def selective_scan(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> Tensor:
    """Run one selective scan per path and sum the results at each pixel; see ``kernels.selective_scan``."""
    from torch._higher_order_ops.scan import scan_op

    b, length, d = u.shape
    k, _, n = params.A.shape
    dtype = state_dtype(u)
    dt_weight, dt_bias, A, D = (param.to(dtype) for param in params)
    A = A.transpose(1, 2)[:, None]  # (k, 1, n, d): neighbours in memory are channels
    u = u.to(dtype)

    step = torch.matmul(dt.to(dtype).permute(2, 0, 1, 3).reshape(k, -1, dt.shape[-1]), dt_weight.mT)
    step = _softplus(step + dt_bias[:, None]).view(k, b, length, d)
    orders = path_per_image(paths, b).permute(2, 1, 0)  # (l, k, b)
    rows = (orders + torch.arange(k * b, device=u.device).view(k, b) * length).flatten()
    operands = [
        _cut(x.reshape(k * b * length, -1).index_select(0, rows).view(length, k, b, -1).unsqueeze(place))
        for x, place in (
            (step, -2),
            (step * u, -2),
            (B.to(dtype).permute(2, 0, 1, 3), -1),
            (C.to(dtype).permute(2, 0, 1, 3), -2),
        )
    ]

    def turn(
        h: Tensor, step_t: Tensor, input_t: Tensor, B_t: Tensor, C_t: Tensor, A: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Advance the states (1, k, b, n, d) by a stretch; return them and the outputs (t, k, b, 1, d)."""
        decays = (step_t * A).clamp(min=MOST_DECAY).exp().split(1)
        inputs = (input_t * B_t).split(1)
        states = []
        for decay, x in zip(decays, inputs, strict=True):
            h = h * decay + x
            states.append(h)
        return h.clone(), torch.matmul(C_t, torch.cat(states))

    _, y = scan_op(turn, [u.new_zeros(1, k, b, n, d)], operands, (A,))
    y = y.flatten(0, 1)[:length, :, :, 0]  # (l, k, b, d)
    return _back(y, orders).sum(1) + D.sum(0) * u


def _softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp(x)), to rounding, by operations that onnxruntime has vector instructions for."""
    power = x.clamp(max=LARGEST_POWER).exp()
    total = 1 + power
    # The logarithm alone would lose what the sum has rounded away.
    return torch.maximum(x, total.log() + (power - (total - 1)) / total)


def _back(y: Tensor, orders: Tensor) -> Tensor:
    """Put tokens (l, k, b, c) in the order of paths (l, k, b) into that of pixels, (b, k, l, c)."""
    length, k, b, c = y.shape
    steps = torch.arange(length, device=y.device)[:, None, None].expand(length, k, b)
    places = torch.zeros_like(orders).scatter(0, orders, steps)
    rows = places * (k * b) + torch.arange(k * b, device=y.device).view(k, b)
    return y.reshape(-1, c).index_select(0, rows.permute(2, 1, 0).flatten()).view(b, k, length, c)


def _cut(x: Tensor) -> Tensor:
    """Cut (l, ...) into stretches, (l / t, t, ...); zeros fill the last one, for which a step is no time."""
    missing = -x.shape[0] % STRETCH
    if missing:
        x = torch.cat([x, x.new_zeros(missing, *x.shape[1:])])
    return x.unflatten(0, (-1, STRETCH))
