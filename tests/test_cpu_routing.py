"""The routing of MambaIRv2 in vector code: its noise, and the token with the largest logit."""

import math

import pytest
import torch
import torch.nn.functional as F
from vector_lanes import emulated_lanes

from mambair_cli.kernels import cpu_routing
from mambair_cli.kernels.cpu_routing import draw_gumbel, find_largest
from mambair_cli.networks import mambair_v2, noise
from mambair_cli.networks.config import MambaIRv2Config

pytestmark = pytest.mark.usefixtures("one_thread")

COUNTS = [1, 7, 8, 16, 17, 64, 128]
SMALL_V2 = MambaIRv2Config(
    embed_dim=12,
    depths=(2,),
    num_heads=(2,),
    window_size=4,
    d_inner=24,
    d_state=4,
    inner_rank=5,
    num_tokens=9,
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def numbers(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**31), 2**31, shape, generator=generator, dtype=torch.int32)


def exact_gumbel(pixel, counter):
    """Draw one value in Python's integers and floats."""
    word = noise._scramble_word(pixel + counter)
    return -math.log(-math.log(((word >> 9) + 0.5) / 2**23))


@pytest.fixture(params=[8, 16])
def lanes(request):
    with emulated_lanes(cpu_routing, request.param):
        yield request.param


@pytest.mark.parametrize("tokens", COUNTS)
def test_noise_is_the_logarithm_of_the_same_random_bits(tokens, lanes):
    pixels, counters = numbers(2, 5), numbers(tokens, seed=1)
    drawn = draw_gumbel(pixels, counters)
    assert drawn.shape == (2, 5, tokens)
    exact = [[exact_gumbel(p, c) for c in counters.tolist()] for p in pixels.flatten().tolist()]
    torch.testing.assert_close(
        drawn.view(10, tokens).double(), torch.tensor(exact, dtype=torch.float64), rtol=3e-7, atol=2e-7
    )


def test_noise_is_that_of_other_devices(monkeypatch):
    where = (3, 2, torch.tensor([[0, 0], [70, 2**20]]), 9, 11, 64)
    fast = noise.gumbel_noise(*where)
    monkeypatch.setattr(noise, "choose_backend", lambda device: "torch")
    torch.testing.assert_close(fast, noise.gumbel_noise(*where), rtol=5e-7, atol=5e-7)


@pytest.mark.parametrize("tokens", COUNTS)
def test_the_largest_sum_is_found(tokens, lanes):
    logits, drawn = 3 * normal(4, 50, tokens), normal(4, 50, tokens, seed=1)
    assert torch.equal(find_largest(logits, None), logits.argmax(-1))
    assert torch.equal(find_largest(logits, drawn), (logits + drawn).argmax(-1))
    assert torch.equal(find_largest(logits - 1e30, None), (logits - 1e30).argmax(-1))  # all are negative


def test_of_several_alike_the_first_is_found(lanes):
    logits = torch.zeros(3, 40)
    logits[1, 5:] = 1
    logits[2, [39, 20]] = 7
    assert find_largest(logits, None).tolist() == [0, 5, 20]


def test_what_is_not_finite_gives_a_token(lanes):
    logits = torch.zeros(4, 21)
    logits[0] = math.nan
    logits[1] = -math.inf
    logits[2, 20] = math.inf
    logits[3, 3], logits[3, 9] = math.nan, 2
    assert find_largest(logits, None).tolist() == [0, 0, 20, 9]


@pytest.mark.parametrize("count", [2, 3, 16])
def test_threads_change_no_bit(count):
    pixels, counters, logits = numbers(13), numbers(37, seed=1), normal(13, 37)
    alone = draw_gumbel(pixels, counters), find_largest(logits, None)
    torch.set_num_threads(count)
    together = draw_gumbel(pixels, counters), find_largest(logits, None)
    assert all(torch.equal(*pair) for pair in zip(alone, together, strict=True))


def test_no_pixels_no_labels():
    assert draw_gumbel(numbers(2, 0), numbers(5)).shape == (2, 0, 5)
    assert find_largest(torch.empty(0, 5), None).shape == (0,)


def test_networks_route_alike_with_and_without_the_kernels(monkeypatch):
    torch.manual_seed(0)
    net = mambair_v2.MambaIRv2(SMALL_V2).eval()
    labels = []
    find = mambair_v2._find_token
    monkeypatch.setattr(mambair_v2, "_find_token", lambda *both: labels.append(find(*both)) or labels[-1])
    x = torch.rand(1, 3, 16, 24)
    with torch.inference_mode():
        fast = net(x, seed=5)
        monkeypatch.setattr(mambair_v2, "has_vector_kernels", lambda x: False)
        monkeypatch.setattr(noise, "choose_backend", lambda device: "torch")
        plain = net(x, seed=5)
    half = len(labels) // 2
    assert half == 2
    assert all(torch.equal(*pair) for pair in zip(labels[:half], labels[half:], strict=True))
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-5)


def test_a_token_is_found_where_gradients_are_wanted():
    logits = normal(2, 6, 9).requires_grad_()
    assert torch.equal(mambair_v2._find_token(logits, None), F.softmax(logits, -1).argmax(-1))
