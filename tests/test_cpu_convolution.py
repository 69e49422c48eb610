"""Convolutions by transforms on a CPU: what they give, and that changed weights are seen."""

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mambair_cli.kernels.cpu_convolution import convolve, transform_weight
from mambair_cli.networks import layers
from mambair_cli.networks.layers import Conv2d

TOLERANCE = 3e-5  # some 100 roundings of values up to 4

pytestmark = pytest.mark.usefixtures("one_thread")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plainly(layer: Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x.permute(0, 3, 1, 2), layer.weight, layer.bias, padding=1).permute(0, 2, 3, 1)


def exactly(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    bias = None if bias is None else bias.double()
    return F.conv2d(x.double().permute(0, 3, 1, 2), weight.double(), bias, padding=1).permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("shape", "k"),
    [
        ((1, 1, 1, 1), 1),
        ((2, 4, 4, 16), 32),
        ((1, 5, 3, 7), 3),
        ((3, 3, 18, 29), 88),
        ((1, 37, 50, 88), 29),
        ((2, 9, 8, 33), 17),
        ((1, 8, 12, 180), 48),
    ],
)
def test_pixels_are_convolved(shape: tuple[int, ...], k: int) -> None:
    c = shape[-1]
    x = normal(*shape[:-1], 2 * c)[..., :c]  # a part of the channels of a larger image
    weight, bias = normal(k, c, 3, 3, seed=1) / (9 * c) ** 0.5, normal(k, seed=2)
    for each in (bias, None):
        made = convolve(x, transform_weight(weight), each)
        torch.testing.assert_close(made.double(), exactly(x, weight, each), rtol=0, atol=TOLERANCE)
        assert made.is_contiguous()


def test_images_may_lie_in_memory_in_any_way() -> None:
    weight, bias = normal(20, 16, 3, 3, seed=1) / 12, normal(20, seed=2)
    made = transform_weight(weight)
    for x in (
        normal(2, 9, 7, 16).transpose(1, 2),
        normal(2, 16, 9, 7).permute(0, 2, 3, 1),
        normal(1, 1, 7, 16).expand(2, 9, 7, 16),
        normal(4, 18, 14, 16)[::2, 1::2, ::2],
        normal(2, 9, 7, 1).expand(2, 9, 7, 16),
    ):
        torch.testing.assert_close(
            convolve(x, made, bias).double(), exactly(x, weight, bias), rtol=0, atol=TOLERANCE
        )


def test_it_is_about_as_exact_as_the_plain_sum() -> None:
    x, weight = normal(1, 64, 64, 88), normal(88, 88, 3, 3, seed=1) / (9 * 88) ** 0.5
    exact = exactly(x, weight, None)
    plain = F.conv2d(x.permute(0, 3, 1, 2), weight, padding=1).permute(0, 2, 3, 1)
    errors = [
        (y - exact).square().mean().sqrt() for y in (plain, convolve(x, transform_weight(weight), None))
    ]
    assert errors[1] < 3 * errors[0] < 3e-6


def test_a_pixel_reaches_its_neighbours_alone() -> None:
    x, weight = torch.zeros(1, 11, 11, 16), normal(16, 16, 3, 3)
    x[0, 5, 4] = 1e4
    made = convolve(x, transform_weight(weight), None)
    made[0, 4:7, 3:6] = 0
    assert made.abs().max() < 0.05  # what rounding leaves of 1e4


@pytest.mark.parametrize("count", [2, 3, 16])
def test_threads_change_no_bit(count: int) -> None:
    x, weight, bias = (
        normal(2, 21, 30, 37),
        transform_weight(normal(20, 37, 3, 3, seed=1)),
        normal(20, seed=2),
    )
    alone = convolve(x, weight, bias)
    torch.set_num_threads(count)
    assert torch.equal(alone, convolve(x, weight, bias))


def test_neighbouring_images_change_no_bit() -> None:
    x, weight, bias = normal(3, 10, 7, 24), transform_weight(normal(40, 24, 3, 3, seed=1)), normal(40, seed=2)
    together = convolve(x, weight, bias)
    assert all(torch.equal(together[i : i + 1], convolve(x[i : i + 1], weight, bias)) for i in range(3))


@pytest.mark.parametrize("shape", [(0, 4, 4, 8), (1, 0, 4, 8), (1, 4, 0, 8)])
def test_nothing_in_nothing_out(shape: tuple[int, ...]) -> None:
    weight = transform_weight(torch.ones(5, 8, 3, 3))
    assert convolve(torch.empty(shape), weight, torch.zeros(5)).shape == (*shape[:-1], 5)


def test_operands_of_other_types_are_refused() -> None:
    weight, bias = transform_weight(torch.ones(5, 8, 3, 3)), torch.zeros(5)
    for x, other in ((torch.ones(1, 2, 2, 8).double(), bias), (torch.ones(1, 2, 2, 8), bias.half())):
        with pytest.raises(ValueError, match="must be float32 on the CPU"):
            convolve(x, weight, other)
    with pytest.raises(ValueError, match="an image of 7 channels does not fit weights for 8"):
        convolve(torch.ones(1, 2, 2, 7), weight, bias)
    with pytest.raises(ValueError, match=r"a bias of shape \(4,\) does not fit 5 channels"):
        convolve(torch.ones(1, 2, 2, 8), weight, torch.zeros(4))


def test_a_layer_takes_them_where_they_pay(monkeypatch) -> None:
    taken = []
    monkeypatch.setattr(
        "mambair_cli.kernels.cpu_convolution.convolve",
        lambda x, weight, bias: taken.append(weight.channels) or convolve(x, weight, bias),
    )
    x = normal(1, 6, 5, 32)
    with torch.inference_mode():
        for layer in (Conv2d(32, 21, 3), Conv2d(32, 22, 1), Conv2d(32, 32, 3, groups=32)):
            layer(x)
        Conv2d(32, 23, 3, dilation=2)(x)
        Conv2d(3, 24, 3)(x[..., :3])
        Conv2d(32, 25, 3).double()(x.double())
    Conv2d(32, 26, 3)(x)  # with a gradient
    assert taken == [21]


def test_a_layer_sees_that_its_weights_have_changed() -> None:
    layer, x = Conv2d(16, 16, 3), normal(1, 6, 5, 16)
    with torch.no_grad():
        first = layer(x)
        other = copy.deepcopy(layer)
        assert torch.equal(other(x), first)
        layer.weight.mul_(2)
        torch.testing.assert_close(layer(x), 2 * first - layer.bias, rtol=0, atol=1e-5)
        layer.load_state_dict(other.state_dict())
        assert torch.equal(layer(x), first)
        layer.weight = torch.nn.Parameter(layer.weight.transpose(0, 1))  # a view
        torch.testing.assert_close(layer(x), plainly(layer, x), rtol=0, atol=TOLERANCE)
        layer.weight = torch.nn.Parameter(-other.weight)
        assert layer.bias is not None
        torch.testing.assert_close(layer(x), 2 * layer.bias - first, rtol=0, atol=1e-5)
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_a_layer_in_training_sees_each_step() -> None:
    layer, x = Conv2d(16, 16, 3), normal(1, 6, 5, 16)
    step = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)  # which counts no version
    for _ in range(2):
        layer(x).square().mean().backward()
        step.step()
        with torch.no_grad():
            torch.testing.assert_close(layer(x), plainly(layer, x), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_layer_sees_weights_that_were_written_behind_its_back(mode: Any) -> None:
    with mode():
        layer, x = Conv2d(16, 16, 3), normal(1, 6, 5, 16)
        layer(x)
        for write in (
            lambda: layer.weight.data.mul_(3),
            lambda: layer.weight.detach().numpy().fill(0.01),
            lambda: layer.load_state_dict(Conv2d(16, 16, 3).state_dict()),
        ):
            write()
            torch.testing.assert_close(layer(x), plainly(layer, x), rtol=0, atol=TOLERANCE)


def test_what_was_made_of_weights_is_not_saved() -> None:
    layer, x = Conv2d(16, 16, 3), normal(1, 6, 5, 16)
    size = len(pickle.dumps(layer))
    with torch.no_grad():
        first = layer(x)
        assert len(pickle.dumps(layer)) == size
        assert torch.equal(pickle.loads(pickle.dumps(layer))(x), first)


def test_layers_give_the_same_with_and_without_them(monkeypatch) -> None:
    torch.manual_seed(0)
    block, x = layers.CAB(48, "classic"), normal(2, 13, 10, 48)
    scale = torch.ones(48)
    with torch.inference_mode():
        fast = block(x, x, scale)
        monkeypatch.setattr(layers, "has_vector_kernels", lambda x: False)
        plain = block(x, x, scale)
    assert not torch.equal(fast, plain)  # they round differently
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-5)
