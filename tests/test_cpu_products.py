import pytest
import torch
from vector_lanes import emulated_lanes

from mambair_cli.kernels import cpu_products
from mambair_cli.kernels.cpu_products import multiply
from mambair_cli.networks import layers
from mambair_cli.networks.layers import Conv2d, Linear

pytestmark = pytest.mark.usefixtures("one_thread")
TOLERANCE = 4e-6  # of sums of some ten numbers of size 1


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pixels", [1, 5, 12, 13, 100])
@pytest.mark.parametrize(("c", "k"), [(1, 1), (3, 16), (30, 17), (60, 144), (72, 33), (40, 19), (7, 70)])
def test_each_pixel_is_multiplied(pixels: int, c: int, k: int) -> None:
    x, weight, bias = normal(pixels, c), normal(k, c, seed=1) / c**0.5, normal(k, seed=2)
    expected = x.double() @ weight.double().T
    assert (multiply(x, weight) - expected).abs().max() <= TOLERANCE
    assert (multiply(x, weight, bias) - expected - bias).abs().max() <= TOLERANCE


def test_parts_of_images_and_images_that_lie_otherwise_are_taken() -> None:
    weight = normal(20, 6, seed=1)
    image = normal(2, 5, 7, 15)
    for x in (image[..., :6], image[..., 9:], image[:, 1:4, 2:, 3:9], normal(2, 6, 5, 7).permute(0, 2, 3, 1)):
        made = multiply(x, weight)
        assert made.shape == (*x.shape[:-1], 20)
        torch.testing.assert_close(made, torch.nn.functional.linear(x, weight), rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 16])
def test_neither_threads_nor_other_pixels_change_a_bit(count: int) -> None:
    x, weight, bias = normal(200, 37), normal(50, 37, seed=1), normal(50, seed=2)
    alone = multiply(x, weight, bias)
    torch.set_num_threads(count)
    assert torch.equal(multiply(x, weight, bias), alone)
    assert torch.equal(multiply(x[70:77], weight, bias), alone[70:77])


@pytest.mark.parametrize("lanes", [8, 16])
def test_lanes_change_no_bit(lanes: int) -> None:
    x, weight, bias = normal(90, 37), normal(75, 37, seed=1), normal(75, seed=2)
    usual = multiply(x, weight, bias)
    with emulated_lanes(cpu_products, lanes):
        assert torch.equal(multiply(x, weight, bias), usual)


@pytest.mark.parametrize("shape", [(0, 8), (2, 0, 8)])
def test_nothing_in_nothing_out(shape: tuple[int, ...]) -> None:
    assert multiply(torch.empty(shape), torch.ones(3, 8)).shape == (*shape[:-1], 3)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="pixels of 4 channels do not fit a matrix for 5"):
        multiply(normal(2, 4), normal(3, 5))
    with pytest.raises(ValueError, match="must be float32 on the CPU"):
        multiply(normal(2, 4).double(), normal(3, 4))


def test_what_is_not_finite_stays_in_its_pixel() -> None:
    x = normal(30, 8)
    x[13, 5] = torch.nan
    made = multiply(x, normal(40, 8, seed=1))
    assert made[13].isnan().all()
    assert made[:13].isfinite().all()
    assert made[14:].isfinite().all()


@pytest.mark.parametrize("layer", [Linear(9, 21), Linear(9, 21, bias=False), Conv2d(9, 21, 1)])
def test_layers_give_the_same_with_and_without_the_kernel(layer: torch.nn.Module, monkeypatch) -> None:
    x = normal(1, 6, 5, 9)
    with torch.inference_mode():
        monkeypatch.setattr(layers, "has_product_kernel", lambda x: True)
        fast = layer(x)
        monkeypatch.setattr(layers, "has_product_kernel", lambda x: False)
        plain = layer(x)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-5)
    assert layer(x.requires_grad_()).requires_grad


def test_convolutions_of_many_channels_do_not_depend_on_the_number_of_threads(monkeypatch) -> None:
    monkeypatch.setattr(layers, "has_product_kernel", lambda x: False)  # as with vectors of eight
    convolution, x = Conv2d(240, 120, 1, bias=False), normal(1, 20, 26, 240)
    with torch.inference_mode():
        alone = convolution(x)
        torch.set_num_threads(3)
        assert torch.equal(convolution(x), alone)
