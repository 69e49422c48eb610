"""The selective scan in plain PyTorch, in place and in bounded memory, for devices without a faster backend.

All paths and images advance together. The exponentials and products of a stretch of steps are computed at
once; only one fused multiply-add over all states remains for each single step.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair_cli.kernels.operands import MOST_DECAY, ScanParams, path_per_image, state_dtype

STRETCH_BYTES = 2**21  # of each of the two temporaries; the fastest of 0.25 to 4 MiB, at d 64 to 360


def selective_scan(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> Tensor:
    """Run one selective scan per path and sum the results at each pixel; see ``kernels.selective_scan``.

    In addition to its operands it needs memory for one stretch of steps; where a gradient is needed, for all.
    """
    if torch.is_grad_enabled() and any(x.requires_grad for x in (u, dt, B, C, *params)):
        from mambair_cli.kernels import torch_gradient

        return torch_gradient.selective_scan(u, dt, B, C, paths, params)
    with torch.no_grad():
        return _scan(u, dt, B, C, paths, params)


def _scan(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> Tensor:
    """Run the scans in place."""
    b, length, d = u.shape
    k, _, n = params.A.shape
    dtype = state_dtype(u)
    dt_weight = params.dt_weight.to(dtype).transpose(1, 2)  # (k, r, d)
    dt_bias = params.dt_bias.to(dtype)[:, None]  # (k, 1, d)
    A = params.A.to(dtype).transpose(1, 2).contiguous()  # (k, n, d): neighbours in memory are channels
    D = params.D.to(dtype)[:, None]

    orders = path_per_image(paths, b)
    image = torch.arange(b, device=u.device)[:, None, None]
    path = torch.arange(k, device=u.device)[None, :, None]
    total = torch.zeros(b, length, d, dtype=dtype, device=u.device)
    h = torch.zeros(b, k, n, d, dtype=dtype, device=u.device)
    stretch = max(1, STRETCH_BYTES // max(1, h.numel() * h.element_size()))  # there may be no image
    decay = torch.empty(min(stretch, length), b, k, n, d, dtype=dtype, device=u.device)
    states = torch.empty_like(decay)
    for start in range(0, length, stretch):
        pixels = orders[:, :, start : start + stretch]  # (b, k, t)
        t = pixels.shape[-1]
        u_t = u[image, pixels].to(dtype)  # (b, k, t, d)
        step = F.softplus(torch.matmul(dt[image, pixels, path].to(dtype), dt_weight).add_(dt_bias))
        B_t = B[image, pixels, path].to(dtype).permute(2, 0, 1, 3)[..., None]  # (t, b, k, n, 1)
        C_t = C[image, pixels, path].to(dtype).permute(2, 0, 1, 3)[..., None, :]  # (t, b, k, 1, n)

        torch.mul(step.permute(2, 0, 1, 3)[:, :, :, None], A, out=decay[:t]).clamp_(MOST_DECAY).exp_()
        torch.mul((step * u_t).permute(2, 0, 1, 3)[:, :, :, None], B_t, out=states[:t])
        for i in range(t):
            h = torch.addcmul(states[i], decay[i], h, out=states[i])
        h = h.clone()  # the next stretch writes over `states`
        y = torch.matmul(C_t, states[:t])[..., 0, :].permute(1, 2, 0, 3).addcmul(u_t, D)  # (b, k, t, d)
        for j in range(k):  # a path visits each pixel once, so no two additions of a call collide
            total[image[:, 0], pixels[:, j]] += y[:, j]
    return total
