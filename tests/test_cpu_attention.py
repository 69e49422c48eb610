"""The attention of the CPU's vector kernels against PyTorch's, window by window."""

import pytest
import torch

from mambair_cli.kernels import cpu_attention, has_vector_kernels
from mambair_cli.networks.mambair_v2 import WindowAttention, relative_position_index

TOLERANCE = 5e-6  # of averages of numbers around 1, and of some 30 roundings


def make(channels, heads, window, shift):
    torch.manual_seed(0)
    attention = WindowAttention(channels, heads, window, shift).requires_grad_(False)
    torch.nn.init.normal_(attention.relative_position_bias_table)
    torch.nn.init.eye_(attention.proj.weight)  # what it adds to the attention would hide what it rounds
    torch.nn.init.zeros_(attention.proj.bias)
    return attention, relative_position_index(window)


def check(attention, index, qkv, tolerance=TOLERANCE):
    exact = attention.double()(qkv.double(), index)
    with torch.inference_mode():
        assert has_vector_kernels(qkv)
        y = attention.float()(qkv, index)
    assert (y - exact).abs().max() < tolerance


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(
    ("channels", "heads", "window", "rows", "columns"),
    [
        (48, 4, 16, 2, 3),
        (30, 3, 4, 1, 1),
        (12, 2, 5, 3, 2),  # tokens fill neither vectors nor what is unrolled
        (3, 3, 3, 2, 1),
        (40, 2, 2, 1, 4),  # a window smaller than a vector, channels more than one
    ],
)
def test_agrees_with_pytorch(channels, heads, window, rows, columns, shifted):
    attention, index = make(channels, heads, window, window // 2 if shifted else 0)
    check(attention, index, torch.randn(2, rows * window, columns * window, 3 * channels))


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FC00001, 0x7FC00155])
def test_a_nan_of_one_key_is_seen_by_all_of_its_window(bits):
    attention, index = make(12, 2, 4, 0)
    qkv = torch.randn(1, 8, 4, 36)
    qkv[0, 1, 2, 12:24] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    with torch.inference_mode():
        y = attention(qkv, index)
    assert y[0, :4].isnan().all()
    assert y[0, 4:].isfinite().all()


def test_large_scores_do_not_overflow():
    attention, index = make(12, 2, 4, 2)
    qkv = 30 * torch.randn(1, 8, 8, 36)
    check(attention, index, qkv, 3000 * TOLERANCE)  # of values of 30, by scores of 100 and more


def test_slices_of_wider_images_are_read():
    attention, index = make(12, 2, 4, 2)
    wide = torch.randn(2, 8, 8, 50)
    bias = attention.biases(index, torch.float32)
    y = cpu_attention.attend(wide[..., 7:43], bias, 4, 2)
    assert torch.equal(y, cpu_attention.attend(wide[..., 7:43].contiguous(), bias, 4, 2))


@pytest.mark.parametrize("part", [0, 1, 2])
def test_nan_stays_in_its_window(part):
    attention, index = make(12, 2, 4, 0)
    qkv = torch.randn(1, 8, 8, 36)
    qkv[0, 5, 6, 12 * part : 12 * part + 12] = torch.nan
    y = cpu_attention.attend(qkv, attention.biases(index, torch.float32), 4, 0)
    assert y[0, 5, 6].isnan().all()
    y[0, 4:, 4:] = 0
    assert y.isfinite().all()


@pytest.mark.parametrize("count", [2, 3, 7])
def test_threads_change_no_bit(count):
    attention, index = make(12, 2, 4, 2)
    qkv, bias = torch.randn(2, 8, 12, 36), attention.biases(index, torch.float32)
    alone = cpu_attention.attend(qkv, bias, 4, 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        assert torch.equal(cpu_attention.attend(qkv, bias, 4, 2), alone)
    finally:
        torch.set_num_threads(threads)


def test_gradient_and_other_types_are_left_to_pytorch():
    x = torch.zeros(1)
    assert not has_vector_kernels(x)
    with torch.inference_mode():
        assert has_vector_kernels(x)
        assert not has_vector_kernels(x.double())
        assert not has_vector_kernels(x.bfloat16())
