"""The selective scan as the papers write it: slow, plain, differentiable, on every device and in float64."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair_cli.kernels.operands import ScanParams, path_per_image, state_dtype


def selective_scan(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> Tensor:
    """Run one selective scan per path and sum the results at each pixel; see ``kernels.selective_scan``."""
    b, length, d = u.shape
    dtype = state_dtype(u)
    u, dt, B, C = (operand.to(dtype) for operand in (u, dt, B, C))
    dt_weight, dt_bias, A, D = (param.to(dtype) for param in params)
    step = F.softplus(torch.einsum("blkr,kdr->blkd", dt, dt_weight) + dt_bias)

    total = u.new_zeros(b, length, d)
    for k, order in enumerate(path_per_image(paths, b).unbind(1)):
        along = order[:, :, None]  # (b, l, 1): the pixel at each position of the path
        u_k = u.gather(1, along.expand(-1, -1, d))
        step_k = step[:, :, k].gather(1, along.expand(-1, -1, d))
        B_k = B[:, :, k].gather(1, along.expand(-1, -1, B.shape[-1]))
        C_k = C[:, :, k].gather(1, along.expand(-1, -1, C.shape[-1]))
        h = u.new_zeros(b, d, A.shape[-1])
        y = []
        for t in range(length):
            decay = torch.exp(step_k[:, t, :, None] * A[k])
            h = decay * h + (step_k[:, t] * u_k[:, t])[:, :, None] * B_k[:, t, None, :]
            y.append((h * C_k[:, t, None, :]).sum(-1) + D[k] * u_k[:, t])
        total = total + torch.zeros_like(total).scatter(1, along.expand(-1, -1, d), torch.stack(y, 1))
    return total
