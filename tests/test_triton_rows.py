"""What lies between products, in Triton, against PyTorch: on a GPU where there is one, else interpreted."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from interpreted import DEVICE

from mambair_cli.kernels import triton_gelu, triton_merge, triton_residual, triton_steps
from mambair_cli.kernels.triton_rows import Norm
from mambair_cli.kernels.triton_steps import StepsBlock

LOG2_E = math.log2(math.e)


def normal(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


@pytest.mark.parametrize("block", [StepsBlock(16, 32, 1, 1), StepsBlock(16, 64, 3, 1)])
@pytest.mark.parametrize("r", [16, 32])
def test_steps_are_those_of_a_softplus(r, block):
    b, pixels, k, d = 2, 35, 2, 37
    ranks = 2 * normal(b, pixels, k * r + 5, dtype=torch.float16)[..., : k * r].unflatten(-1, (k, r))
    weight, bias = normal(k, r, d, seed=1), 3 * normal(k, d, seed=2)
    x = torch.einsum("bpkr,krd->bpkd", ranks.double(), weight.double()) + bias.double()
    wanted = (F.softplus(x) * LOG2_E).half()
    got = triton_steps.make_steps(ranks, triton_steps.split_weight(weight * LOG2_E), bias * LOG2_E, block)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-3)


def test_moves_rows_while_it_adds_and_normalises():
    b, pixels, c, padded = 2, 21, 5, 8
    x, skip = normal(b, pixels, c), normal(c, seed=1)
    v, w = (normal(b, pixels, padded, dtype=torch.float16, seed=seed) for seed in (2, 3))
    norm = Norm(normal(c, seed=4), normal(c, seed=5))
    read, written = (torch.randperm(b * pixels).to(DEVICE) for _ in range(2))
    result, prepared = triton_residual.advance_residual(
        x,
        padded,
        v,
        skip,
        norm=norm,
        w=w,
        w_places=read.view(b, pixels).int(),
        places=written.view(b, pixels).int(),
    )
    moved = w.view(-1, padded)[read].view_as(w)
    wanted = x * skip + v[..., :c].float() + moved[..., :c].float()
    torch.testing.assert_close(result, wanted)
    rows = F.layer_norm(wanted, (c,), *norm).half().view(-1, c)
    at_places = prepared.view(-1, padded)[written]
    torch.testing.assert_close(at_places[:, :c], rows)
    assert not at_places[:, c:].any()


def test_prepares_a_gate():
    half, c = 5, 12
    x, bias = normal(7, c, dtype=torch.float16), normal(c, seed=1)
    norm = Norm(normal(half, seed=2), normal(half, seed=3))
    activated = F.gelu(x.float() + bias)
    got = triton_gelu.prepare_gate(x.clone(), bias, norm)
    torch.testing.assert_close(got[:, :half].float(), activated[:, :half], atol=1e-3, rtol=1e-3)
    seen = F.layer_norm(activated[:, half : 2 * half], (half,), *norm)
    torch.testing.assert_close(got[:, half : 2 * half].float(), seen, atol=3e-3, rtol=3e-3)
    assert torch.equal(got[:, 2 * half :], x[:, 2 * half :])


@pytest.mark.parametrize(("c", "rows"), [(5, 3), (128, 40), (200, 33)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.float32, 1e-6)])
def test_gelu_of_rows_of_every_width(c, rows, dtype, tolerance):
    x, bias = normal(rows, c, dtype=dtype), normal(c, seed=1)
    wanted = F.gelu(x.float() + bias)
    got = triton_gelu.gelu_in_place(x, bias)
    assert got is x
    torch.testing.assert_close(got.float(), wanted, atol=tolerance, rtol=tolerance)


def test_the_fitted_gelu_is_right_to_the_rounding_of_16_bits_everywhere():
    x = torch.linspace(-12, 12, 4096, device=DEVICE).half().view(1, -1)
    wanted = F.gelu(x.float())
    with np.errstate(over="ignore"):  # of the interpreter: to divide by infinity is what is wanted
        got = triton_gelu.gelu_in_place(x.clone(), torch.zeros(4096, device=DEVICE))
    # half a unit in the last place, and what is said of the fit
    torch.testing.assert_close(got.float(), wanted, atol=5e-6, rtol=2.0**-11)


@pytest.mark.parametrize("has_gate", [True, False])
def test_merges_paths_in_rows_wider_than_their_channels(has_gate):
    b, pixels, k, d, padded = 2, 7, 4, 5, 8
    y, z = normal(b, pixels, k, padded), normal(b, pixels, padded, seed=1)[..., :d]
    y[..., d:] = float("nan")  # which must not get anywhere
    norm = Norm(normal(d, seed=2), normal(d, seed=3))
    got = triton_merge.merge_paths(y, norm, z if has_gate else None, torch.float32)
    wanted = F.layer_norm(y[..., :d].sum(2), (d,), *norm) * (F.silu(z) if has_gate else 1)
    torch.testing.assert_close(got[..., :d], wanted, atol=2e-6, rtol=2e-5)
    assert got.shape == (b, pixels, padded)
    assert not got[..., d:].any()
