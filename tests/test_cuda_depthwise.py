"""The depthwise convolution in CUDA C++ against PyTorch: on a GPU where there is one, else on the CPU."""

import pytest
import torch
import torch.nn.functional as F

from mambair_cli.kernels import cuda_depthwise
from mambair_cli.kernels.cuda_depthwise import ACTIVATIONS, DepthwiseShape

pytestmark = pytest.mark.usefixtures("cuda_kernels")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALL = DepthwiseShape(width=3, height=2, threads=8, blocks=1)
COMBINED = {
    "": lambda v, x, other: v,
    "silu": lambda v, x, other: F.silu(v),
    "gate": lambda v, x, other: x * v.sigmoid(),
    "gelu_add": lambda v, x, other: x + F.gelu(v),
    "times": lambda v, x, other: other * v,
}


def check(
    activation="",
    side=3,
    dilation=1,
    c=6,
    stride=8,
    dtype=torch.float32,
    size=(2, 5, 7),
    shape: DepthwiseShape | None = SMALL,
):
    generator = torch.Generator().manual_seed(0)
    wide = (3 * torch.randn(*size, 2 * stride, generator=generator)).to(DEVICE, dtype)
    x, other = wide[..., :c], wide[..., stride : stride + c]
    weight = torch.randn(side**2, c, generator=generator).to(DEVICE)
    bias = torch.randn(c, generator=generator).to(DEVICE)
    got = cuda_depthwise.convolve_depthwise(
        x, weight, bias, activation, dilation, other=other if activation == "times" else None, shape=shape
    )
    x, other = x.float(), other.float()
    kernel = weight.T.reshape(c, 1, side, side)
    padding = side // 2 * dilation
    v = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, 1, padding, dilation, groups=c).permute(0, 2, 3, 1)
    wanted = COMBINED[activation](v, x, other)
    assert got.shape == wanted.shape
    assert got.dtype == dtype
    rounding = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(got.float(), wanted, atol=rounding, rtol=rounding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_and_dtype(activation, dtype):
    check(activation, dtype=dtype)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 2, 3), (3, 4, 6), (1, 7, 1)])
def test_every_size_of_image(size):
    check(size=size)


@pytest.mark.parametrize("settings", [{"side": 5}, {"side": 1}, {"dilation": 2}, {"side": 7, "dilation": 3}])
def test_every_kernel(settings):
    check(**settings)


@pytest.mark.parametrize(("c", "stride"), [(5, 8), (6, 7), (1, 1)])
def test_odd_channels_and_distances(c, stride):
    check(c=c, stride=stride, dtype=torch.float16)


@pytest.mark.parametrize("shape", [SMALL._replace(width=1, height=1), SMALL._replace(width=8, height=4)])
def test_every_cut_of_the_work_gives_the_same(shape):
    check(side=5, shape=shape)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("x", lambda x: x.transpose(1, 2)),
        ("x", lambda x: x[..., ::2]),
        ("other", lambda x: x.half()),
        ("other", lambda x: x.clone().expand(2, -1, -1, -1)),
        ("weight", lambda x: x.half()),
        ("weight", lambda x: x.T.contiguous().T),
        ("bias", lambda x: x.double()),
    ],
)
def test_operands_that_it_would_misread_are_refused(name, change):
    operands = {
        "x": torch.rand(2, 4, 4, 6, device=DEVICE),
        "weight": torch.rand(9, 6, device=DEVICE),
        "bias": torch.rand(6, device=DEVICE),
        "other": torch.rand(2, 4, 4, 6, device=DEVICE)[:1] if name == "other" else None,
    }
    operands[name] = change(operands[name])
    with pytest.raises(ValueError, match=f"^{name} must be "):
        cuda_depthwise.convolve_depthwise(**operands, activation="times", shape=SMALL)


@pytest.mark.gpu
@pytest.mark.parametrize("side", [3, 5])
def test_agrees_at_the_size_of_networks(side):
    check("gelu_add", side, c=384, stride=384, dtype=torch.float16, size=(2, 64, 96), shape=None)
