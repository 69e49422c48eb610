"""Which network a checkpoint holds: its configuration follows from names and shapes of tensors."""

import gzip
import json
import re

import pytest
import torch
from checkpoint_files import SMALL, load_or_refuse, shapes_of
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CONFIGS, V1, V2
from recordings import FIXTURES, read_recording
from safetensors.torch import save_file

from mambair_cli.checkpoints.load import infer_config
from mambair_cli.errors import CheckpointError
from mambair_cli.networks import Config, MambaIRConfig, MambaIRUNetConfig, MambaIRv2Config, build_network
from mambair_cli.networks.config import CabForm

OFFICIAL = json.loads(gzip.decompress((FIXTURES / "official_checkpoints.json.gz").read_bytes()))


RECORDED = sorted(FIXTURES.glob("*.safetensors"))


def cab_form(name: str) -> CabForm:
    """Return the form of the attention block, which an official configuration shows in its name alone."""
    if "light_2024_02" in name:
        return "light-2024-02"
    if "light_2024_03" in name:
        return "light-2024-03"
    return "light" if "light" in name else "classic"


def translate(name: str, network: str, settings: dict) -> Config:
    """Write an official configuration as one of ours."""
    if network == "MambaIRUNet":
        dim, ratio = settings["dim"], settings["mlp_ratio"]
        return MambaIRUNetConfig(
            dim=dim,
            num_blocks=tuple(settings["num_blocks"]),
            num_refinement_blocks=settings["num_refinement_blocks"],
            d_inner=(int(dim * ratio), int(2 * dim * ratio), int(4 * dim * ratio), int(8 * dim * ratio)),
            d_state=16,
            in_chans=settings["inp_channels"],
        )
    shared = {
        "embed_dim": settings["embed_dim"],
        "depths": tuple(settings["depths"]),
        "d_state": settings["d_state"],
        "d_inner": int(settings["mlp_ratio"] * settings["embed_dim"]),
        "in_chans": settings.get("in_chans", 3),
        "upscale": settings["upscale"],
        "upsampler": settings.get("upsampler", ""),
        "resi_connection": settings.get("resi_connection", "1conv"),
    }
    if network == "MambaIR":
        return MambaIRConfig(**shared, cab=cab_form(name))
    return MambaIRv2Config(
        **shared,
        num_heads=tuple(settings["num_heads"]),
        inner_rank=settings["inner_rank"],
        num_tokens=settings["num_tokens"],
        feed_forward="gated" if network == "MambaIRv2Light" else "conv",
        window_size=settings["window_size"],
        convffn_kernel_size=settings["convffn_kernel_size"],
    )


def test_there_are_26_official_configurations():
    assert len(OFFICIAL) == 26


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_configuration_comes_back(name):
    entry = OFFICIAL[name]
    shapes = {tensor: tuple(shape) for tensor, shape in entry["shapes"].items()}
    config = infer_config(shapes)
    assert config == translate(name, entry["network"], entry["config"])
    with torch.device("meta"):
        net = build_network(config)
    assert {tensor: tuple(value.shape) for tensor, value in net.state_dict().items()} == shapes
    assert net.info.parameters == entry["parameters"]
    assert net.info.scale == entry["config"].get("upscale", 1)
    assert net.info.architecture == entry["network"].removesuffix("Light")


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_configuration_comes_back(path):
    recording = read_recording(path)
    config = infer_config({name: tuple(tensor.shape) for name, tensor in recording.weights.items()})
    assert config == translate(path.stem, recording.network, recording.settings)


@pytest.mark.parametrize("name", CONFIGS)
def test_configuration_comes_back(name):
    assert infer_config(shapes_of(CONFIGS[name])) == CONFIGS[name]


def heads(draw):
    return draw(
        st.sampled_from([("", 1), ("pixelshuffledirect", 3), ("pixelshuffle", 4), ("nearest+conv", 4)])
    )


@st.composite
def v1_configs(draw):
    upsampler, upscale = heads(draw)
    return MambaIRConfig(
        embed_dim=draw(st.integers(30, 70)),
        depths=tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=12))),
        d_state=draw(st.integers(1, 20)),
        d_inner=draw(st.integers(1, 150)),
        cab=draw(st.sampled_from(["classic", "light", "light-2024-03", "light-2024-02"])),
        in_chans=draw(st.sampled_from([1, 3])),
        upscale=upscale,
        upsampler=upsampler,
        resi_connection=draw(st.sampled_from(["1conv", "3conv"])),
    )


@st.composite
def v2_configs(draw):
    upsampler, upscale = heads(draw)
    feed_forward = draw(st.sampled_from(["conv", "gated"]))
    depths = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    return MambaIRv2Config(
        embed_dim=12 * draw(st.integers(1, 6)),
        depths=depths,
        num_heads=tuple(draw(st.sampled_from([1, 2, 3, 4, 6])) for _ in depths),
        d_state=draw(st.integers(1, 20)),
        d_inner=2 * draw(st.integers(1, 60)),
        inner_rank=draw(st.integers(1, 20)),
        num_tokens=draw(st.integers(1, 40)),
        feed_forward=feed_forward,
        window_size=draw(st.integers(1, 9)),
        convffn_kernel_size=draw(st.sampled_from([1, 3, 5, 7])),
        in_chans=draw(st.sampled_from([1, 3])),
        upscale=upscale,
        upsampler=upsampler,
        resi_connection=draw(st.sampled_from(["1conv", "3conv"])),
    )


@settings(max_examples=50)
@given(v1_configs() | v2_configs())
def test_any_configuration_comes_back(config):
    assert infer_config(shapes_of(config)) == config


@pytest.mark.parametrize(
    ("config", "mutation", "reason"),
    [
        (
            V2,
            {"win_mhsa.relative_position_bias_table": (49, 4)},
            "embed_dim must be a multiple of the 4 heads, not 30",
        ),
        (V2, {"dwconv.depthwise_conv.0.weight": (34, 1, 4, 4)}, "convffn_kernel_size must be odd, not 4"),
        (
            CONFIGS["v2 light"],
            {"x_proj_weight": (1, 9, 33)},
            "d_inner must be even, to be gated by half, not 33",
        ),
        (V1, {"conv_first.weight": (30, 6, 3, 3)}, r"in_chans must be 1 \(gray\) or 3 \(colour\), not 6"),
        (V1, {"conv_first.weight": (29, 3, 3, 3)}, "embed_dim must be 30 or more, not 29"),
        (
            CONFIGS["v1 ×2"],
            {"upsample.0.weight": (64 * 25, 64, 3, 3)},
            "upscale must be one of 2, 3, 4, 8 for",
        ),
        (
            CONFIGS["U-Net"],
            {"patch_embed.proj.weight": (33, 3, 3, 3)},
            "dim must be even, 30 or more, not 33",
        ),
    ],
)
def test_settings_that_no_network_can_have(config, mutation, reason):
    shapes = {
        name: next((shape for end, shape in mutation.items() if name.endswith(end)), shape)
        for name, shape in shapes_of(config).items()
    }
    with pytest.raises(CheckpointError, match=f"^the shapes of its tensors make no network: .*{reason}"):
        infer_config(shapes)


def test_attention_block_of_no_known_form():
    shapes = shapes_of(SMALL) | {"layers.0.residual_group.blocks.0.conv_blk.cab.0.weight": (7, 30, 3, 3)}
    with pytest.raises(CheckpointError, match="squeezes 30 channels to 7, which no official form does"):
        infer_config(shapes)


def test_dual_pixel_network():
    shapes = shapes_of(CONFIGS["U-Net"]) | {
        "patch_embed.proj.weight": (30, 6, 3, 3),
        "skip_conv.weight": (60, 30, 1, 1),
    }
    with pytest.raises(CheckpointError, match="dual-pixel network"):
        infer_config(shapes)


@st.composite
def mutated_shapes(draw):
    """Draw the shapes of a network with some names and shapes altered."""
    some = [SMALL, CONFIGS["v1 light"], CONFIGS["v1 ×3"], V2, CONFIGS["v2 nearest"]]
    shapes = dict(shapes_of(draw(st.sampled_from(some))))
    for _ in range(draw(st.integers(1, 4))):
        name, other = (draw(st.sampled_from(sorted(shapes))) for _ in range(2))
        shape = list(shapes[name])
        kind = draw(st.sampled_from(["delete", "rename", "resize", "extend", "cut", "exchange", "add"]))
        if kind == "delete":
            del shapes[name]
        elif kind == "rename":
            digits = draw(st.sampled_from(["", "0", "9", "٣", "99999999999999999999"]))
            shapes[re.sub(r"\d+", digits, name, count=draw(st.integers(0, 2)))] = shapes.pop(name)
        elif kind == "resize" and shape:
            shape[draw(st.integers(0, len(shape) - 1))] = draw(st.integers(0, 70))
            shapes[name] = tuple(shape)
        elif kind == "extend":
            shapes[name] = (*shape, draw(st.integers(1, 3)))
        elif kind == "cut":
            shapes[name] = tuple(shape[:-1])
        elif kind == "exchange":
            shapes[name], shapes[other] = shapes[other], shapes[name]
        else:
            part = draw(
                st.sampled_from(["skip_conv.weight", "upsample.2.weight", "conv_up1.weight", "layers.1.x"])
            )
            shapes[part] = tuple(shape)
    return shapes


@settings(max_examples=60)
@given(mutated_shapes())
def test_odd_tensors_are_refused_or_make_a_network_that_runs(tmp_path_factory, shapes):
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
    net = load_or_refuse(path)
    if net is not None:
        scale = net.info.scale
        y = net(torch.rand(1, net.info.channels, 3, 5))
        assert y.shape == (1, net.info.channels, 3 * scale, 5 * scale)
