"""The networks and their layers against plain statements of what they are."""

import math
import subprocess
import sys
from dataclasses import replace
from itertools import cycle, islice, product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from networks import CONFIGS, V1, V2
from recordings import FIXTURES, read_recording

from mambair_cli.networks import MambaIRConfig, MambaIRUNet, MambaIRv2, Network, build_network
from mambair_cli.networks.layers import (
    Conv2d,
    PixelShuffle,
    PixelUnshuffle,
    check_images,
    four_paths,
    mirror_pad,
)
from mambair_cli.networks.mambair_v2 import MASKED, relative_position_index, shift_mask
from mambair_cli.networks.noise import gumbel_noise

CPU = torch.device("cpu")


def build(config) -> Network:
    """Make a network, the same at every call, all of whose parts show."""
    torch.manual_seed(0)
    net = build_network(config).eval()
    for name, parameter in net.named_parameters():
        if name.endswith((".scale1", ".scale2")):  # of MambaIRv2, which start too small to be seen
            torch.nn.init.ones_(parameter)
        if name.endswith("attention.1.bias"):  # before a ReLU, where there is but one channel
            torch.nn.init.ones_(parameter)
    return net


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


# Sizes


@pytest.mark.parametrize("name", CONFIGS)
def test_any_size_works(name):
    config = CONFIGS[name]
    net = build(config)
    scale = net.info.scale
    with torch.inference_mode():
        for height, width in [(1, 1), (1, 6), (7, 1), (2, 3), (9, 5), (8, 8)]:
            y = net(images(2, config.in_chans, height, width), seed=0)
            assert y.shape == (2, config.in_chans, scale * height, scale * width)
            assert y.isfinite().all()


@pytest.mark.parametrize("name", CONFIGS)
def test_image_does_not_depend_on_its_place_in_a_batch(name):
    net = build(CONFIGS[name])
    a, b = images(2, net.info.channels, 5, 6)
    with torch.inference_mode():
        first, _, last = net(torch.stack([a, b, a]), seed=3)
        (alone,) = net(a[None], seed=3)
    # Products of the CPU's libraries round by the place; an image that saw another would differ by 0.01.
    torch.testing.assert_close(first, last, rtol=0, atol=2e-6)
    torch.testing.assert_close(first, alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_nan_in_an_image_stays_there(name):
    net = build(CONFIGS[name])
    x = images(3, net.info.channels, 6, 5)
    x[1, :, 2, 3] = torch.nan
    with torch.inference_mode():
        y = net(x, seed=0)
    assert y[1].isnan().any()
    assert y[0].isfinite().all()
    assert y[2].isfinite().all()


@pytest.mark.parametrize("name", CONFIGS)
def test_autocast_is_close(name):
    net = build(CONFIGS[name])
    x = images(2, net.info.channels, 6, 5)
    with torch.inference_mode():
        wanted = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            y = net(x)
    assert (
        y - wanted
    ).abs().mean() < 0.02 * wanted.abs().mean()  # three digits, some sixty roundings in a row


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (3, 2), (4, 5), (7, 13), (8, 12)])
def test_v2_mirrors_an_image_with_its_edge_to_fill_windows(size):
    net = build(V2)
    height, width = size
    x = images(2, 3, height, width)
    bottom, right = -height % V2.window_size, -width % V2.window_size
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, bottom), (0, right)), mode="symmetric")
    with torch.inference_mode():
        wanted = net(torch.from_numpy(padded), seed=1)[:, :, :height, :width]
        assert torch.equal(net(x, seed=1), wanted)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (3, 2), (5, 4), (7, 13), (8, 16)])
def test_unet_mirrors_an_image_without_its_edge(size):
    net = build(CONFIGS["U-Net"])
    height, width = size
    x = images(1, 3, height, width)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, -height % 8), (0, -width % 8)), mode="reflect")
    with torch.inference_mode():
        assert torch.equal(net(x), net(torch.from_numpy(padded))[:, :, :height, :width])


def bounce(size: int, length: int, repeat_edge: bool) -> list[int]:
    """Walk from 0 up to the last of ``size`` places and back, again and again."""
    up = list(range(size))
    down = up[::-1] if repeat_edge else up[-2:0:-1]
    return list(islice(cycle(up + down), length))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_mirror_pad_walks_back_and_forth(height, width, bottom, right, repeat_edge):
    x = torch.arange(height * width).view(1, height, width, 1)
    padded = mirror_pad(x, bottom, right, repeat_edge)
    rows = bounce(height, height + bottom, repeat_edge)
    columns = bounce(width, width + right, repeat_edge)
    assert padded[0, :, :, 0].tolist() == [[row * width + column for column in columns] for row in rows]


# Layers


@given(st.integers(1, 7), st.integers(1, 7))
def test_four_paths_are_rows_columns_and_both_backwards(height, width):
    rows = [row * width + column for row, column in product(range(height), range(width))]
    columns = [row * width + column for column, row in product(range(width), range(height))]
    paths = four_paths(height, width, CPU)
    assert paths.dtype == torch.int32
    assert paths.tolist() == [rows, columns, rows[::-1], columns[::-1]]


def test_paths_made_in_inference_serve_training():
    with torch.inference_mode():
        four_paths(3, 11, CPU)

    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, paths):
            ctx.save_for_backward(paths)
            return 2 * x

        @staticmethod
        def backward(ctx, *grads):
            return 2 * grads[0], None

    x = torch.ones(1, requires_grad=True)
    Scale.apply(x, four_paths(3, 11, CPU)).backward()
    assert x.grad is not None


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_pixel_shuffles_are_those_of_torch_with_channels_last(scale):
    x = images(2, 3 * scale**2, 4, 5)
    last = x.permute(0, 2, 3, 1)
    shuffled = PixelShuffle(scale)(last)
    assert torch.equal(shuffled.permute(0, 3, 1, 2), F.pixel_shuffle(x, scale))
    assert torch.equal(PixelUnshuffle(scale)(shuffled), last)
    spread = images(2, 3, 4 * scale, 5 * scale)
    gathered = PixelUnshuffle(scale)(spread.permute(0, 2, 3, 1))
    assert torch.equal(gathered.permute(0, 3, 1, 2), F.pixel_unshuffle(spread, scale))


@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([(2, 1), (4, 2), (5, 2), (16, 8)]))
def test_shift_mask_parts_what_the_shift_brought_together(rows, columns, window_and_shift):
    window, shift = window_and_shift

    def stripes(count: int) -> list[int]:
        """Number the three stripes of an axis between which a shifted window must not look."""
        return [0] * (count - 1) * window + [1] * (window - shift) + [2] * shift

    regions = np.array([[3 * y + x for x in stripes(columns)] for y in stripes(rows)])
    for row, column in product(range(rows), range(columns)):
        own = regions[row * window :, column * window :][:window, :window].ravel()
        mask = shift_mask(window, shift, row == rows - 1, column == columns - 1, CPU)
        assert (mask.numpy() == np.where(own[:, None] == own[None, :], 0.0, MASKED)).all()


def test_relative_positions_are_numbered_from_the_top_left():
    pixels = list(product(range(3), range(3)))
    wanted = [[(y - v + 2) * 5 + (x - u + 2) for v, u in pixels] for y, x in pixels]
    assert relative_position_index(3).tolist() == wanted
    recorded = read_recording(FIXTURES / "v2_light_x2.safetensors").weights["relative_position_index_SA"]
    assert torch.equal(relative_position_index(16), recorded)


@pytest.mark.parametrize("name", ["v1", "v1 light", "v1 ×4", "v2", "v2 light", "v2 nearest", "U-Net"])
def test_convolutions_keep_channels_last_in_memory(name):
    net = build(CONFIGS[name])
    strewn = []

    def look(module, inputs, output):
        if not output.is_contiguous():
            strewn.append(module)

    for module in net.modules():
        if isinstance(module, Conv2d):
            module.register_forward_hook(look)
    with torch.inference_mode():
        net(images(2, 3, 16, 24))
    assert not strewn


# Noise


def noise(seed=0, layer=0, origin=((0, 0),), height=4, width=5, tokens=6):
    return gumbel_noise(seed, layer, torch.tensor(origin), height, width, tokens)


def test_noise_has_the_gumbel_distribution():
    values = noise(height=128, width=128, tokens=64).flatten().double().numpy()
    assert np.isfinite(values).all()
    assert abs(values.mean() - np.euler_gamma) < 0.005  # four standard errors of a million values
    assert abs(values.var() - math.pi**2 / 6) < 0.013
    values.sort()
    ranks = np.arange(len(values) + 1) / len(values)
    distribution = np.exp(-np.exp(-values))
    distance = max((distribution - ranks[:-1]).max(), (ranks[1:] - distribution).max())
    assert distance * len(values) ** 0.5 < 1.95  # Kolmogorov and Smirnov: exceeded once in a thousand draws


def test_neighbouring_noise_is_uncorrelated():
    values = noise(height=64, width=64, tokens=64).view(64, 64, 64)
    upper = torch.triu_indices(64, 64, 1)
    pairs = {
        "row": (values[1:], values[:-1]),
        "column": (values[:, 1:], values[:, :-1]),
        "token": (values[:, :, 1:], values[:, :, :-1]),
        "diagonal": (values[1:, 1:], values[:-1, :-1]),
        "mirror image": (values[upper[0], upper[1]], values[upper[1], upper[0]]),
        "seed": (values, noise(seed=1, height=64, width=64, tokens=64).view(64, 64, 64)),
        "layer": (values, noise(layer=1, height=64, width=64, tokens=64).view(64, 64, 64)),
    }
    for name, (one, other) in pairs.items():
        correlation = np.corrcoef(one.flatten().numpy(), other.flatten().numpy())[0, 1]
        assert abs(correlation) < 0.01, name  # five standard errors


@given(st.integers(-(2**70), 2**70), st.integers(0, 200), st.integers(0, 2**40), st.integers(0, 2**40))
def test_noise_is_finite_wherever_it_is_drawn(seed, layer, row, column):
    values = noise(seed, layer, ((row, column),))
    assert values.shape == (1, 20, 6)
    assert values.dtype == torch.float32
    assert values.isfinite().all()


@pytest.mark.parametrize(
    ("row", "column", "token", "value"), [(772, 704, 1, 16.6355), (391, 283, 2, -2.8115)]
)
def test_noise_is_finite_at_both_ends_of_the_generator(row, column, token, value):
    """These are among the few pixels, found by search, where it draws its largest and its least number."""
    drawn = noise(origin=((row, column),), height=1, width=1)[0, 0, token].item()
    assert drawn == pytest.approx(value, abs=1e-4)
    uniform = 2.0**-24 if value < 0 else 1 - 2.0**-24
    assert drawn == pytest.approx(-math.log(-math.log(uniform)), abs=1e-5)


def test_noise_changes_with_everything_that_it_depends_on():
    values = noise().view(4, 5, 6)
    for other in (noise(seed=1), noise(seed=-1), noise(seed=2**32), noise(layer=1), noise(origin=((4, 0),))):
        assert (values != other.view(4, 5, 6)).all()
    assert len(values.unique()) == values.numel()
    assert torch.equal(values, noise().view(4, 5, 6))


@given(
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 2),
    st.integers(1, 40),
)
def test_noise_of_a_tile_is_cut_from_that_of_the_image(top, left, height, width, place, tokens):
    whole = noise(5, 2, ((0, 0),), 18, 18, tokens).view(18, 18, tokens)
    origins = [(3, 1), (0, 7)]
    origins.insert(place, (top, left))
    tile = noise(5, 2, origins, height, width, tokens)[place].view(height, width, tokens)
    assert torch.equal(tile, whole[top : top + height, left : left + width])


def test_seed_decides_the_output_of_v2():
    net = build(replace(V2, num_tokens=40))
    x = images(1, 3, 12, 12)
    with torch.inference_mode():
        y = net(x, seed=0)
        assert torch.equal(y, net(x, seed=0))
        assert not torch.equal(y, net(x, seed=1))
        assert not torch.equal(y, net(x))
        assert not torch.equal(y, net(x, seed=0, origin=torch.tensor([[4, 0]])))
        assert torch.equal(y, net(x, seed=0, origin=torch.tensor([[0, 0]], dtype=torch.int32)))
        assert torch.equal(net(x), net(x, seed=None))


def test_noise_may_come_from_outside():
    net = build(V2)
    assert isinstance(net, MambaIRv2)
    x = images(2, 3, 5, 6)  # padded to 8×8
    origin = torch.tensor([[0, 0], [2, 4]])
    layers = []

    def draw(layer):
        layers.append(layer)
        return gumbel_noise(7, layer, origin, 8, 8, V2.num_tokens)

    with torch.inference_mode():
        assert torch.equal(net(x, draw_noise=draw), net(x, seed=7, origin=origin))
    assert layers == [0, 1, 2]


@pytest.mark.parametrize("name", ["v1", "U-Net"])
def test_seed_is_nothing_to_networks_that_draw_nothing(name):
    net = build(CONFIGS[name])
    x = images(1, 3, 4, 4)
    with torch.inference_mode():
        assert torch.equal(net(x), net(x, seed=5, origin=torch.tensor([[3, 4]])))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    ("shape", "dtype", "received"),
    [
        ((1, 1, 8, 8), torch.float32, r"\(1, 1, 8, 8\) float32"),
        ((3, 8, 8), torch.float32, r"\(3, 8, 8\) float32"),
        ((8, 8), torch.float32, r"\(8, 8\) float32"),
        ((1, 8, 8, 3), torch.float32, r"\(1, 8, 8, 3\) float32"),
        ((1, 3, 8, 8), torch.uint8, r"\(1, 3, 8, 8\) uint8"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(name, shape, dtype, received):
    net = build(replace(CONFIGS[name], in_chans=3))
    with pytest.raises(
        ValueError, match=rf"takes images \(b, 3, h, w\) of floats in \[0, 1\], not {received}"
    ):
        net(torch.zeros(shape, dtype=dtype))


def test_half_precision_is_refused_where_the_weights_are_on_a_cpu():
    image = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match="on a CPU with weights in float32, not float16; call float"):
        check_images(image, 3, torch.zeros(1, dtype=torch.float16))
    check_images(image, 3, torch.zeros(1, dtype=torch.float16, device="meta"))  # PyTorch names both devices


# Making and training


@pytest.mark.parametrize("name", CONFIGS)
def test_info_says_what_a_network_is(name):
    config = CONFIGS[name]
    net = build(config)
    assert net.info.config == config
    assert net.info.channels == config.in_chans
    assert net.info.scale == getattr(config, "upscale", 1)
    assert net.info.architecture == type(net).__name__
    assert net.info.parameters == sum(parameter.numel() for parameter in net.parameters())
    if net.info.scale > 1:
        assert net.info.task == "upscale"
    else:
        assert net.info.task == ("denoise" if isinstance(net, MambaIRUNet) else "restore")


@pytest.mark.parametrize(
    ("config", "change", "reason"),
    [
        (V1, {"in_chans": 2}, r"in_chans must be 1 \(gray\) or 3 \(colour\), not 2"),
        (V1, {"embed_dim": 29}, "embed_dim must be 30 or more, not 29"),
        (V1, {"upscale": 2}, "upscale must be one of 1 for the upsampler '', not 2"),
        (V1, {"upsampler": "pixelshuffle", "upscale": 5}, "upscale must be one of 2, 3, 4, 8"),
        (V2, {"upsampler": "nearest+conv", "upscale": 2}, "upscale must be one of 4 for the upsampler"),
        (V2, {"num_heads": (3,)}, r"num_heads must be one for each group, not \(3,\)"),
        (V2, {"num_heads": (3, 4)}, "embed_dim must be a multiple of the 4 heads, not 30"),
        (V2, {"convffn_kernel_size": 4}, "convffn_kernel_size must be odd, not 4"),
        (V2, {"feed_forward": "gated", "d_inner": 33}, "d_inner must be even, to be gated by half, not 33"),
        (CONFIGS["U-Net"], {"dim": 31}, "dim must be even, 30 or more, not 31"),
    ],
)
def test_configuration_that_cannot_be_is_refused(config, change, reason):
    with pytest.raises(ValueError, match=reason):
        replace(config, **change)


def test_img_range_scales_the_features_and_not_the_image():
    wide = build(replace(V1, img_range=255.0))
    narrow = build(V1)
    with torch.no_grad():
        for net in (wide, narrow):
            net.get_parameter("conv_first.bias").zero_()
        narrow.get_parameter("conv_first.weight").mul_(255)
        narrow.get_parameter("conv_last.weight").div_(255)
        narrow.get_parameter("conv_last.bias").div_(255)
    x = images(1, 3, 6, 5)
    with torch.inference_mode():
        torch.testing.assert_close(wide(x), narrow(x))


@pytest.mark.parametrize("name", ["v1", "v2", "v2 light", "U-Net"])
def test_output_in_float64_agrees_with_float32(name):
    net = build(CONFIGS[name])
    x = images(1, 3, 8, 8)
    with torch.inference_mode():
        y = net(x)
        exact = net.double()(x.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=2e-5)


TRAINED = {
    "v1": MambaIRConfig(embed_dim=30, depths=(1,), d_state=4, d_inner=36, cab="light"),
    "v1 ×2": replace(V1, depths=(1,), upsampler="pixelshuffledirect", upscale=2),
    "v2": replace(V2, depths=(2,), num_heads=(3,)),
    "v2 light": replace(CONFIGS["v2 light"], depths=(2,), num_heads=(3,)),
    "U-Net": CONFIGS["U-Net"],
}


@pytest.mark.parametrize("name", TRAINED)
def test_fresh_network_learns(name):
    torch.manual_seed(0)
    net = build_network(TRAINED[name])
    x = images(2, 3, 8, 8)
    y = 1 - F.interpolate(x, scale_factor=net.info.scale)  # what a fresh network is far from
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        loss = (net(x) - y).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", TRAINED)
def test_every_weight_has_a_share_in_the_output(name):
    net = build(TRAINED[name])
    net(images(1, 3, 16, 16)).square().mean().backward()  # enough for a path in the U-Net's depth, too
    idle = [
        part
        for part, parameter in net.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    # MambaIRv2 routes by a maximum, which has no slope.
    assert all(".assm.route." in part for part in idle)


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_scan_starts_as_mamba_does(name):
    net = build(CONFIGS[name])
    d_state = CONFIGS[name].d_state  # pyright: ignore[reportAttributeAccessIssue]
    for part, parameter in net.named_parameters():
        if part.endswith("A_logs"):
            assert torch.allclose(parameter.exp(), torch.arange(1.0, d_state + 1).expand_as(parameter))
        elif part.endswith("dt_projs_bias"):
            step = F.softplus(parameter)
            assert step.min() > 0.00099
            assert step.max() < 0.1001
        elif part.endswith("Ds"):
            assert (parameter == 1).all()


WITHOUT_MEMORY = """
import sys, torch
from networks import CONFIGS
from mambair_cli.networks import build_network
with torch.device("meta"):
    for config in CONFIGS.values():
        build_network(config)
sys.exit("torch._dynamo" in sys.modules)
"""


def test_network_without_memory_needs_no_compiler():
    """To which PyTorch resorts for some random numbers where there is no memory; its import takes 0.8 s."""
    subprocess.run([sys.executable, "-c", WITHOUT_MEMORY], cwd=Path(__file__).parent, check=True)
