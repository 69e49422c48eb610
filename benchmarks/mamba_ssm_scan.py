"""The selective scan by the CUDA kernel of the package mamba-ssm, to be timed."""

import torch
from mamba_ssm.ops.selective_scan_interface import (  # pyright: ignore[reportMissingImports]: optional
    selective_scan_fn,
)
from torch import Tensor

from mambair_cli.kernels.operands import ScanParams, path_per_image, state_dtype


def selective_scan(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> Tensor:
    """Run one selective scan per path and sum the results at each pixel; see ``kernels.selective_scan``.

    The kernel needs channels before positions, and positions in the order of the path, so all operands are
    reordered and transposed, and the result back.
    """
    b, length, d = u.shape
    k, _, n = params.A.shape
    orders = path_per_image(paths, b)  # (b, k, l)
    image = torch.arange(b, device=u.device)[:, None, None]
    path = torch.arange(k, device=u.device)[None, :, None]
    dtype = state_dtype(u)

    step = torch.einsum("bklr,kdr->bkdl", dt[image, orders, path].to(dtype), params.dt_weight.to(dtype))
    y = selective_scan_fn(
        u[image, orders].to(dtype).transpose(2, 3).reshape(b, k * d, length),
        step.reshape(b, k * d, length),
        params.A.reshape(k * d, n).float(),
        B[image, orders, path].to(dtype).transpose(2, 3).contiguous(),  # (b, k, n, l): a group per path
        C[image, orders, path].to(dtype).transpose(2, 3).contiguous(),
        params.D.reshape(k * d).float(),
        delta_bias=params.dt_bias.reshape(k * d).float(),
        delta_softplus=True,
    )
    y = y.view(b, k, d, length).transpose(2, 3)  # (b, k, l, d), in the order of the paths
    total = torch.zeros_like(y[:, 0])
    for j in range(k):
        along = orders[:, j, :, None].expand(-1, -1, d)
        total = total + torch.zeros_like(total).scatter(1, along, y[:, j])
    return total
