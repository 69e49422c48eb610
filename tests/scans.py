"""What a selective scan is given, and what it must give."""

from typing import NamedTuple

import torch
from torch import Tensor

from mambair_cli.kernels import ScanParams, reference

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

CASES = {  # for ``make_operands``; scans add the sizes at which they cut
    "ordinary": {},
    "one token": {"length": 1},
    "states no power of two": {"n": 10, "d": 2, "b": 1, "k": 1},
    "one of everything": {"b": 1, "length": 3, "d": 1, "k": 1, "n": 1, "r": 1},
    "path of each image": {"batch_paths": True},
    "very slow": {"bias": (-18.0, -14.0)},
    "very fast": {"bias": (25.0, 60.0)},
    "slow next to fast": {"bias": (-16.0, 30.0), "d": 4},
}


class Operands(NamedTuple):
    """All operands of a scan, in the order of the operator's arguments."""

    u: Tensor
    dt: Tensor
    B: Tensor
    C: Tensor
    paths: Tensor
    params: ScanParams


def make_operands(
    b=2, length=20, d=3, k=2, n=4, r=3, bias=(-2.0, 1.0), batch_paths=False, dtype=torch.float32, seed=0
):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    paths = torch.stack(
        [torch.randperm(length, generator=generator) for _ in range(b * k if batch_paths else k)]
    ).int()
    low, high = bias
    operands = [
        normal(b, length, d),
        normal(b, length, k, r),
        normal(b, length, k, n),
        normal(b, length, k, n),
    ]
    params = ScanParams(
        dt_weight=normal(k, d, r) * 0.5,
        dt_bias=low + (high - low) * torch.rand(k, d, generator=generator),
        A=-torch.exp(normal(k, d, n)),
        D=normal(k, d),
    )
    operands = [x.to(DEVICE, dtype) for x in operands]
    params = ScanParams(*(x.to(DEVICE) for x in params))
    return operands, (paths.view(b, k, length) if batch_paths else paths).to(DEVICE), params


def run(scan, operands, paths, params, weights):
    """Return y and the gradients of <y, weights> by every operand and parameter, in float64."""
    operands = [x.detach().clone().requires_grad_() for x in operands]
    params = ScanParams(*(x.detach().clone().requires_grad_() for x in params))
    y = scan(*operands, paths, params)
    gradients = torch.autograd.grad((y * weights.to(y.dtype)).sum(), (*operands, *params))
    return [y.detach().double(), *(gradient.double() for gradient in gradients)]


def check(scan, operands, paths, params, tolerance):
    weights = torch.randn(operands[0].shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    got = run(scan, operands, paths, params, weights)
    exact = [x.double() for x in operands]
    wanted = run(
        reference.selective_scan, exact, paths, ScanParams(*(x.double() for x in params)), weights.double()
    )
    names = ("y", "u", "dt", "B", "C", *ScanParams._fields)
    for name, g, w in zip(names, got, wanted, strict=True):
        assert g.shape == w.shape, name
        error = ((g - w).norm() / w.norm().clamp(min=1e-30)).item()
        assert error < tolerance, f"{name}: {error:.1e}"
