"""Vector kernels that do the work of several operations: normalisation with a gate, convolution with SiLU."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair_cli.kernels.cpu_depthwise import convolve_and_activate, convolve_and_gate
from mambair_cli.kernels.cpu_rows import normalize_rows
from mambair_cli.networks import layers
from mambair_cli.networks.layers import SS2D, Conv2d, LayerNorm, four_paths

pytestmark = pytest.mark.usefixtures("one_thread")

EPS = 1e-5
NANS = torch.tensor([0x7FC00000, 0x7FC00001, 0x7FC00155, -0x3FFF01]).int().view(torch.float32)  # of all bits
TOLERANCE = 4e-6  # some 40 roundings of values up to 10


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exact_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x.double(), x.shape[-1:], weight.double(), bias.double(), EPS)


@pytest.mark.parametrize("c", [1, 3, 16, 37, 64, 88, 360])
def test_channels_are_normalized_and_gated(c: int) -> None:
    x, both = 3 * normal(2, 5, 7, c) + 1, 5 * normal(2, 5, 7, 2 * c, seed=1)
    weight, bias, gate = normal(c, seed=2), normal(c, seed=3), both[..., c:]
    expected = exact_norm(x, weight, bias)
    scale = expected.abs().max().clamp(min=1)
    assert (normalize_rows(x, weight, bias, EPS) - expected).abs().max() <= TOLERANCE * scale
    gated = expected * F.silu(gate.double())
    scale = gated.abs().max().clamp(min=1)
    assert (normalize_rows(x, weight, bias, EPS, gate) - gated).abs().max() <= TOLERANCE * scale


def test_gates_far_from_zero_are_open_or_closed() -> None:
    x, gate = normal(1, 8), torch.tensor([[-1e30, -200.0, -88.0, -1.0, 0.0, 1.0, 200.0, 1e30]])
    made = normalize_rows(x, torch.ones(8), torch.zeros(8), EPS, gate)
    expected = exact_norm(x, torch.ones(8), torch.zeros(8)) * F.silu(gate.double())
    torch.testing.assert_close(made.double(), expected, rtol=1e-5, atol=1e-30)


def test_pixels_of_one_value_become_the_bias() -> None:
    bias = normal(20)
    made = normalize_rows(torch.full((3, 20), 7.0), torch.ones(20), bias, EPS)
    torch.testing.assert_close(made, bias.expand(3, 20), rtol=0, atol=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_comes_out(value: float) -> None:
    x = normal(2, 40)
    x[0, 39] = value
    made = normalize_rows(x, torch.ones(40), torch.zeros(40), EPS)
    assert made[0].isnan().all()
    assert made[1].isfinite().all()
    image = normal(1, 3, 3, 4)
    image[0, 0, 0, 2] = value
    for convolve in (convolve_and_activate, convolve_and_gate):
        made = convolve(image, torch.ones(4, 1, 3, 3), torch.zeros(4))
        assert not made[0, 0, 0, 2].isfinite()
        assert made[0, 2].isfinite().all()
        assert made[..., :2].isfinite().all()
        assert convolve is convolve_and_gate or not made[0, :2, :2, 2].isfinite().any()


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 3), (2, 1, 5, 16), (1, 6, 1, 40), (2, 7, 9, 64), (1, 2, 2, 88), (3, 5, 4, 37)]
)
def test_each_channel_is_convolved_and_activated_or_gates(shape: tuple[int, ...]) -> None:
    c = shape[-1]
    x = normal(*shape[:-1], 2 * c)[..., :c]  # a part of the channels of a larger image
    weight, bias = normal(c, 1, 3, 3, seed=1), normal(c, seed=2)
    convolved = F.conv2d(x.permute(0, 3, 1, 2).double(), weight.double(), bias.double(), padding=1, groups=c)
    convolved = convolved.permute(0, 2, 3, 1)
    assert (convolve_and_activate(x, weight, bias) - F.silu(convolved)).abs().max() <= TOLERANCE
    assert (convolve_and_gate(x, weight, bias) - x * convolved.sigmoid()).abs().max() <= TOLERANCE


@pytest.mark.parametrize("count", [2, 3, 16])
def test_threads_change_no_bit(count: int) -> None:
    x, weight, bias = normal(2, 9, 11, 37), normal(37, seed=1), normal(37, seed=2)
    filters = normal(37, 1, 3, 3, seed=3)

    def compute() -> list[torch.Tensor]:
        convolved = [convolve(x, filters, bias) for convolve in (convolve_and_activate, convolve_and_gate)]
        return [normalize_rows(x, weight, bias, EPS, x), *convolved]

    alone = compute()
    torch.set_num_threads(count)
    together = compute()
    assert all(torch.equal(*pair) for pair in zip(alone, together, strict=True))


def test_operands_of_other_types_are_refused() -> None:
    x, ones = normal(2, 8), torch.ones(8)
    for operands in ((x.double(), ones, ones), (x, ones.half(), ones), (x, ones, ones.to("meta"))):
        with pytest.raises(ValueError, match="must be float32 on the CPU"):
            normalize_rows(*operands, EPS)
    with pytest.raises(ValueError, match=r"gate must be float32 on the CPU, not torch\.bfloat16"):
        normalize_rows(x, ones, ones, EPS, x.bfloat16())


@pytest.mark.parametrize("shape", [(0, 4, 4, 8), (1, 0, 4, 8)])
def test_nothing_in_nothing_out(shape: tuple[int, ...]) -> None:
    assert normalize_rows(torch.empty(shape), torch.ones(8), torch.zeros(8), EPS).shape == shape
    assert convolve_and_activate(torch.empty(shape), torch.ones(8, 1, 3, 3), torch.zeros(8)).shape == shape


def test_layers_give_the_same_with_and_without_the_kernels(monkeypatch) -> None:
    torch.manual_seed(0)
    block, x = SS2D(channels=12, d_inner=20, d_state=4), normal(2, 6, 5, 12)
    paths = four_paths(6, 5, torch.device("cpu"))
    with torch.inference_mode():
        fast = block(x, paths)
        monkeypatch.setattr(layers, "has_vector_kernels", lambda x: False)
        plain = block(x, paths)
    assert not torch.equal(fast, plain)  # they round differently
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-5)


def test_layers_give_gradients_and_other_types() -> None:
    norm, convolution, x = LayerNorm(6), Conv2d(6, 6, 3, groups=6), normal(1, 4, 4, 6).requires_grad_()
    result = norm(layers.convolve_and_activate(x, convolution), x)
    (gradient,) = torch.autograd.grad(result.sum(), x)
    assert gradient.shape == x.shape
    with torch.no_grad():
        double = norm.double()(x.double())
        expected = nn.functional.layer_norm(x.double(), (6,))
    torch.testing.assert_close(double, expected)


@pytest.mark.parametrize("convolve", [convolve_and_activate, convolve_and_gate])
def test_every_nan_stays_one(convolve) -> None:
    bias = NANS.repeat(9)
    x, weight = normal(1, 3, 3, len(bias)), normal(len(bias), 1, 3, 3)
    assert convolve(x, weight, bias).isnan().all()
    assert normalize_rows(x, bias, bias, EPS, bias.expand(x.shape)).isnan().all()
