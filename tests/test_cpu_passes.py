"""Sums and averages in one pass over memory: parts of the scan, gated channels, means of channels."""

import pytest
import torch
from vector_lanes import emulated_lanes

from mambair_cli.kernels import cpu_passes
from mambair_cli.kernels.cpu_passes import add_in_order, average_pixels, gate_and_add
from mambair_cli.networks import layers
from mambair_cli.networks.layers import VSSBlock, four_paths

pytestmark = pytest.mark.usefixtures("one_thread")

CHANNELS = [1, 7, 8, 16, 17, 60, 64, 88, 180]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[8, 16])
def lanes(request):
    with emulated_lanes(cpu_passes, request.param):
        yield request.param


@pytest.mark.parametrize("c", CHANNELS)
def test_parts_are_added_one_after_the_other(c, lanes):
    for parts in (normal(4, 2, 50, c), normal(4, 2, 50, c + 5)[..., :c], normal(2, 9, c), normal(3, c)):
        expected = parts[0].clone()
        for part in parts[1:]:
            expected += part
        assert torch.equal(add_in_order(parts), expected)


def test_a_single_part_is_the_sum():
    part = normal(1, 5, 4)
    assert add_in_order(part).data_ptr() == part.data_ptr()
    assert add_in_order(normal(4, 0, 3)).shape == (0, 3)


@pytest.mark.parametrize("c", CHANNELS)
def test_channels_are_gated_and_the_scaled_input_is_added(c, lanes):
    y, x = normal(2, 5, 7, c), normal(2, 5, 7, c + 3, seed=1)[..., :c]
    gate, scale = normal(2, 1, 1, c, seed=2), normal(c, seed=3)
    expected = y.double() * gate + x.double() * scale
    given = y.clone()
    made = gate_and_add(given, gate, x, scale)
    assert made.data_ptr() == given.data_ptr()
    torch.testing.assert_close(made.double(), expected, rtol=0, atol=3e-6)
    strewn = y.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)
    assert torch.equal(gate_and_add(strewn, gate, x, scale), made)


@pytest.mark.parametrize("c", CHANNELS)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (5, 13), (70, 30)])
def test_channels_are_averaged_over_the_pixels_of_their_image(c, size, lanes):
    x = normal(3, *size, c + 2)[..., 1 : c + 1] + 3
    torch.testing.assert_close(
        average_pixels(x).double(), x.double().mean((1, 2), keepdim=True), rtol=2e-6, atol=0
    )


@pytest.mark.parametrize("c", [1, 37, 88])
def test_other_images_change_no_bit(c):
    x = normal(5, 40, 33, c)
    assert torch.equal(average_pixels(x), torch.cat([average_pixels(image[None]) for image in x]))


@pytest.mark.parametrize("count", [2, 3, 16])
def test_threads_change_no_bit(count):
    parts, gate, scale = normal(4, 300, 37), normal(2, 1, 1, 37), normal(37)
    y, x = normal(2, 30, 9, 37, seed=1), normal(2, 30, 9, 37, seed=2)
    alone = add_in_order(parts), gate_and_add(y.clone(), gate, x, scale), average_pixels(x)
    torch.set_num_threads(count)
    together = add_in_order(parts), gate_and_add(y.clone(), gate, x, scale), average_pixels(x)
    assert all(torch.equal(*pair) for pair in zip(alone, together, strict=True))


def test_no_pixels_no_result():
    empty = torch.empty(0, 4, 4, 8)
    assert gate_and_add(empty, torch.empty(0, 1, 1, 8), empty, normal(8)).shape == (0, 4, 4, 8)
    assert average_pixels(torch.empty(0, 4, 4, 8)).shape == (0, 1, 1, 8)
    assert average_pixels(torch.empty(1, 0, 4, 8)).isnan().all()


@pytest.mark.parametrize("cab", ["classic", "light", "light-2024-02", "light-2024-03"])
def test_blocks_give_the_same_with_and_without_the_kernels(cab, monkeypatch):
    torch.manual_seed(0)
    block, x = VSSBlock(channels=60, d_inner=20, d_state=4, cab=cab), normal(2, 6, 5, 60)
    paths, given = four_paths(6, 5, torch.device("cpu")), x.clone()
    with torch.inference_mode():
        fast = block(x, paths)
        assert torch.equal(x, given)
        monkeypatch.setattr(layers, "has_vector_kernels", lambda x: False)
        plain = block(x, paths)
    assert not torch.equal(fast, plain)  # they round differently
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-5)
