"""MambaIRv2's routing in Triton against PyTorch: on a GPU where there is one, else interpreted."""

import pytest
import torch
import torch.nn.functional as F
from interpreted import DEVICE

from mambair_cli.kernels import triton_routing
from mambair_cli.networks.noise import gumbel_noise, make_keys


def make_operands(b=2, height=9, width=11, hidden=7, tokens=5, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    operands = [
        torch.randn(shape, generator=generator) * scale
        for shape in ((b, height * width, hidden), (hidden,), (hidden, tokens), (tokens,))
    ]
    return [x.to(DEVICE) for x in operands]


@pytest.mark.parametrize("tokens", [1, 5, 64, 128])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (9, 11)])
def test_labels_and_sorts_as_pytorch_does(height, width, tokens):
    hidden, bias, weight, logit_bias = make_operands(height=height, width=width, tokens=tokens)
    labels, path = triton_routing.route_pixels(hidden, bias, weight, logit_bias, width, None, None)
    wanted = (F.gelu(hidden + bias) @ weight + logit_bias).argmax(-1)
    assert torch.equal(labels.long(), wanted)
    assert torch.equal(path.long(), wanted.sort(dim=-1, stable=True).indices)


@pytest.mark.parametrize("origin", [[[0, 0], [144, 288]], [[-3, 5], [2**20, 0]]])
@pytest.mark.parametrize(("seed", "layer"), [(0, 0), (2**40 + 3, 35), (-1, 1)])
def test_draws_the_same_noise(seed, layer, origin):
    height, width, tokens = 9, 11, 64
    corner = torch.tensor(origin, device=DEVICE)
    hidden, bias, weight, logit_bias = make_operands(height=height, width=width, tokens=tokens, scale=0.0)
    labels, _ = triton_routing.route_pixels(
        hidden, bias, weight, logit_bias, width, make_keys(seed, layer), corner.int()
    )
    assert torch.equal(labels.long(), gumbel_noise(seed, layer, corner, height, width, tokens).argmax(-1))


@pytest.mark.parametrize("tokens", [1, 5, 64])
def test_pixels_without_a_number_get_a_token_that_exists(tokens):
    hidden, bias, weight, logit_bias = make_operands(tokens=tokens)
    hidden[0, 3:70] = torch.nan
    labels, path = triton_routing.route_pixels(hidden, bias, weight, logit_bias, 11, None, None)
    assert 0 <= labels.min() <= labels.max() < tokens
    assert torch.equal(path.long().sort().values, torch.arange(99, device=DEVICE).expand(2, -1))
    wanted = (F.gelu(hidden + bias) @ weight + logit_bias).argmax(-1)
    assert torch.equal(labels[hidden.isfinite().all(-1)].long(), wanted[hidden.isfinite().all(-1)])
