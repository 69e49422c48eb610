"""Checkpoints: every network is told from its tensors, every other file refused in a line that says why."""

import gzip
import io
import json
import os
import pickle
import re
import stat
import struct
import warnings
import zipfile
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CONFIGS, V1, V2
from recordings import FIXTURES, read_recording
from safetensors.torch import save, save_file
from torch import Tensor

from mambair_cli.checkpoints.load import infer_config, load_network
from mambair_cli.errors import CheckpointError
from mambair_cli.networks import Config, MambaIRConfig, MambaIRUNetConfig, MambaIRv2Config, build_network
from mambair_cli.networks.config import CabForm

OFFICIAL = json.loads(gzip.decompress((FIXTURES / "official_checkpoints.json.gz").read_bytes()))
RECORDED = sorted(FIXTURES.glob("*.safetensors"))
SMALL = replace(V1, depths=(1,))


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


@cache
def shapes_of(config: Config) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        net = build_network(config)
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


@cache
def tensors_of(config: Config) -> dict[str, Tensor]:
    """Return the state of a network, the same at every call."""
    torch.manual_seed(0)
    return build_network(config).state_dict()


def refusal(path) -> str:
    """Return why a file is not loaded, without the part that names it."""
    with pytest.raises(CheckpointError) as caught:
        load_network(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert message.startswith(f"cannot load {path}: ")
    return message.removeprefix(f"cannot load {path}: ")


def load_or_refuse(path):
    """Return the network of a file, or None where it is refused as it should be."""
    try:
        return load_network(path)
    except CheckpointError:
        refusal(path)
        return None


# What a network is


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


# Files that hold a network


def write_zip(tensors, path):
    torch.save(tensors, path)


def write_legacy(tensors, path):
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [write_zip, write_legacy, save_file])
@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.safetensors", "a"])
def test_content_decides_how_a_file_is_read(write, name, tmp_path):
    path = tmp_path / name
    write(tensors_of(SMALL), path)
    net = load_network(path)
    assert net.info.config == SMALL
    for tensor, value in net.state_dict().items():
        assert torch.equal(value, tensors_of(SMALL)[tensor])


@pytest.mark.parametrize("config", [SMALL, V2, CONFIGS["U-Net"]], ids=["v1", "v2", "U-Net"])
def test_network_is_ready_for_use(config, tmp_path):
    save_file(tensors_of(config), tmp_path / "a.safetensors")
    net = load_network(str(tmp_path / "a.safetensors"))
    assert not net.training
    for tensor in (*net.parameters(), *net.buffers()):
        assert tensor.device.type == "cpu"
        assert not tensor.requires_grad
        assert tensor.dtype == (torch.float32 if tensor.is_floating_point() else torch.int64)
    built = build_network(config).eval()
    built.load_state_dict(tensors_of(config))
    x = torch.rand(1, config.in_chans, 9, 11)
    with torch.inference_mode():
        assert torch.equal(net(x), built(x))


def test_network_does_not_change_with_its_file(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(tensors_of(SMALL), path)
    net = load_network(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(net.state_dict()["norm.weight"], tensors_of(SMALL)["norm.weight"])


def zeros_of(config: Config) -> dict[str, Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in tensors_of(config).items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: {"params": tensors},
        lambda tensors: {"params_ema": tensors},
        lambda tensors: {"params": tensors, "params_ema": zeros_of(SMALL)},
        lambda tensors: {"params_ema": zeros_of(SMALL), "params": tensors},
        lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: {"params": {f"module.module.{name}": tensor for name, tensor in tensors.items()}},
        lambda tensors: {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()},
    ],
    ids=[
        "params",
        "params_ema",
        "both",
        "both, in the other order",
        "module",
        "params and module",
        "parameters",
    ],
)
def test_tensors_are_found_under_their_wrapping(wrap, tmp_path):
    torch.save(wrap(tensors_of(SMALL)), tmp_path / "a.pth")
    net = load_network(tmp_path / "a.pth")
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, tensors_of(SMALL)[name])


def test_prefix_is_stripped_from_safetensors(tmp_path):
    prefixed = {f"module.{name}": tensor for name, tensor in tensors_of(SMALL).items()}
    save_file(prefixed, tmp_path / "a.safetensors")
    assert load_network(tmp_path / "a.safetensors").info.config == SMALL


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
@pytest.mark.parametrize("write", [write_zip, save_file])
def test_other_precisions_are_read_as_float32(write, dtype, tmp_path):
    narrow = {name: tensor.to(dtype) for name, tensor in tensors_of(V2).items()}  # the integer index, too
    write(narrow, tmp_path / "a.pth")
    net = load_network(tmp_path / "a.pth")
    for name, parameter in net.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, narrow[name].float())
    assert net(torch.rand(1, 3, 5, 6)).isfinite().all()


@pytest.mark.parametrize(
    ("config", "claimed", "task"),
    [
        (SMALL, None, "restore"),
        (SMALL, "denoise", "denoise"),
        (SMALL, "dejpeg", "dejpeg"),
        (SMALL, "upscale", "restore"),
        (SMALL, "make coffee", "restore"),
        (CONFIGS["v1 ×2"], None, "upscale"),
        (CONFIGS["v1 ×2"], "denoise", "upscale"),
        (CONFIGS["U-Net"], "dejpeg", "denoise"),
    ],
)
def test_task_is_what_the_file_says_where_that_can_be(config, claimed, task, tmp_path):
    save_file(tensors_of(config), tmp_path / "a.safetensors", {"task": claimed} if claimed else None)
    assert load_network(tmp_path / "a.safetensors").info.task == task


def test_safetensors_whose_header_begins_as_a_pickle_does(tmp_path):
    contents = (save(tensors_of(SMALL), {"note": " " * spaces}) for spaces in range(256))
    content = next(content for content in contents if content[0] == 0x80)
    (tmp_path / "a.safetensors").write_bytes(content)
    assert load_network(tmp_path / "a.safetensors").info.config == SMALL


def test_indices_are_computed_not_believed(tmp_path):
    astray = tensors_of(V2) | {"relative_position_index_SA": torch.full((16, 16), 10**9)}
    save_file(astray, tmp_path / "a.safetensors")
    assert load_network(tmp_path / "a.safetensors")(torch.rand(1, 3, 4, 4)).isfinite().all()


# Tensors that are not those of a network


def loadable(tmp_path, tensors):
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    return path


STRICT = {
    "v1": SMALL,
    "v1 light": replace(CONFIGS["v1 light"], depths=(1,)),
    "v2": replace(V2, depths=(1,), num_heads=(3,)),
}


@pytest.mark.parametrize("name", STRICT)
def test_missing_tensor_is_named(name, tmp_path):
    tensors = tensors_of(STRICT[name])
    for missing in tensors:
        rest = {name: tensor for name, tensor in tensors.items() if name != missing}
        assert re.search(
            rf"missing: {re.escape(missing)}$|tensor {re.escape(missing)} is missing",
            refusal(loadable(tmp_path, rest)),
        )


@pytest.mark.parametrize("name", STRICT)
def test_misshapen_tensor_is_named(name, tmp_path):
    config = STRICT[name]
    named = 0
    for misshapen, tensor in tensors_of(config).items():
        other = torch.zeros(tensor.shape[0] + 1, *tensor.shape[1:])
        reason = refusal(loadable(tmp_path, tensors_of(config) | {misshapen: other}))
        try:
            as_before = infer_config(shapes_of(config) | {misshapen: tuple(other.shape)}) == config
        except CheckpointError:
            as_before = False
        if as_before:  # else it is all the others that do not fit it
            assert f"of another shape: {misshapen} {tuple(other.shape)}, not {tuple(tensor.shape)}" in reason
            named += 1
    assert named > 0.8 * len(tensors_of(config))


def test_surplus_tensor_is_named(tmp_path):
    for surplus in (
        "foo",
        "layers.0.residual_group.blocks.0.foo.weight",
        "layers.0.residual_group.blocks.0.norm.bias",
    ):
        reason = refusal(loadable(tmp_path, tensors_of(SMALL) | {surplus: torch.zeros(3)}))
        assert reason == f"its tensors are not those of a MambaIR; unexpected: {surplus}"


def test_a_few_tensors_are_named_and_the_rest_counted(tmp_path):
    tensors = {name: tensor for name, tensor in tensors_of(SMALL).items() if "ln_" not in name}
    tensors |= {f"extra.{i}": torch.zeros(1) for i in range(9)}
    block = "layers.0.residual_group.blocks.0"
    assert refusal(loadable(tmp_path, tensors)) == (
        f"its tensors are not those of a MambaIR; missing: {block}.ln_1.weight, {block}.ln_1.bias, "
        f"{block}.ln_2.weight and 1 more; unexpected: extra.0, extra.1, extra.2 and 6 more"
    )


def test_layer_of_another_width_in_the_middle(tmp_path):
    config = replace(V2, depths=(3,), num_heads=(3,))
    wide = tensors_of(replace(config, d_inner=config.d_inner + 2))
    layer = "layers.0.residual_group.layers.1."
    tensors = tensors_of(config) | {name: tensor for name, tensor in wide.items() if name.startswith(layer)}
    reason = refusal(loadable(tmp_path, tensors))
    assert reason.startswith(f"its tensors are not those of a MambaIRv2; of another shape: {layer}")
    assert "(36,), not (34,)" in reason


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_numbers_of_the_wrong_kind(dtype, tmp_path):
    torch.save(tensors_of(SMALL) | {"norm.weight": torch.ones(30, dtype=dtype)}, tmp_path / "a.pth")
    assert refusal(tmp_path / "a.pth").endswith("not of floating-point numbers: norm.weight")


def test_numbers_of_an_unknown_kind(tmp_path):
    header = b'{"norm.weight":{"dtype":"F4","shape":[30],"data_offsets":[0,15]}}'
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(15))
    reason = refusal(tmp_path / "a.safetensors")  # by safetensors itself, where it is of before 4-bit numbers
    assert re.search("norm.weight has an unsupported type|safetensors file is .* damaged", reason)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite(value, tmp_path):
    bias = torch.zeros(30)
    bias[7] = value
    reason = refusal(loadable(tmp_path, tensors_of(SMALL) | {"norm.bias": bias}))
    assert reason == "the tensor norm.bias holds values that are not finite; the file is damaged"


def test_overflow_on_the_way_to_float32_is_seen(tmp_path):
    huge = torch.full((30,), 1e300, dtype=torch.float64)
    assert "not finite" in refusal(loadable(tmp_path, tensors_of(SMALL) | {"norm.bias": huge}))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((), "of another shape: norm.weight (), not (30,)"), ((0,), "the tensor norm.weight is empty, (0,)")],
)
def test_tensor_of_no_size(shape, reason, tmp_path):
    assert refusal(loadable(tmp_path, tensors_of(SMALL) | {"norm.weight": torch.ones(shape)})).endswith(
        reason
    )


def test_every_tensor_without_dimensions(tmp_path):
    tensors = {name: torch.tensor(1.0) for name in tensors_of(V2)}
    assert refusal(loadable(tmp_path, tensors)) == "the shapes of its tensors do not belong to one network"


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


@pytest.mark.parametrize(
    ("names", "network"),
    [
        (
            ["layers.0.residual_group.blocks.0.attn.relative_position_bias_table", "conv_first.weight"],
            "SwinIR",
        ),
        (
            [
                "layers.0.residual_group.blocks.0.attn.relative_position_bias_table",
                "layers.0.residual_group.overlap_attn.relative_position_bias_table",
            ],
            "HAT",
        ),
        (["conv_first.weight", "body.0.rdb1.conv1.weight"], "ESRGAN or Real-ESRGAN"),
        (["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"], "ESRGAN or Real-ESRGAN"),
        (["RRDB_trunk.0.RDB1.conv1.weight"], "ESRGAN or Real-ESRGAN"),
        (["patch_embed.proj.weight", "encoder_level1.0.attn.temperature"], "Restormer"),
        (["intro.weight", "encoders.0.0.conv1.weight"], "NAFNet"),
        (["backbone.layers.0.mixer.A_log"], "another Mamba network"),
    ],
)
def test_network_of_another_family_is_recognised(names, network, tmp_path):
    torch.save({"params": {name: torch.zeros(3, 3) for name in names}}, tmp_path / "a.pth")
    assert refusal(tmp_path / "a.pth") == (
        f"it is a checkpoint of {network}; mambair runs only MambaIR and MambaIRv2"
    )


def test_unknown_network_is_described_by_its_tensors(tmp_path):
    tensors = {f"fc{i}": torch.zeros(2, 2) for i in range(4)}
    assert refusal(loadable(tmp_path, tensors)) == (
        "it is not a network of the MambaIR family (its tensors: fc0, fc1, fc2 and 1 more)"
    )


# Files that hold no tensors, or other things beside them


def contents() -> dict[str, tuple[bytes, str]]:
    """Return files that are no checkpoints, and why they are not."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("photo.txt", "hello")
    neither = "it is neither a PyTorch nor a safetensors file"
    text = "it is a text file, not a checkpoint"
    page = "it is a web page, not a checkpoint; download the file itself"
    safetensors = "the safetensors file is truncated or damaged; download it again"
    return {
        "empty": (b"", "the file is empty; download it again"),
        "text": (b"weights go here", text),
        "text with a brace": (b"function{ return }", text),
        "text in UTF-8": ("Gewichte für MambaIR".encode(), text),
        "one letter": (b"P", text),
        "JSON": (b'{"a": {"b": 1}}', text),
        "web page": (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", page),
        "web page with a byte-order mark": (b"\xef\xbb\xbf<!-- x --><HTML lang=en>", page),
        "Git LFS pointer": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "it is a Git LFS pointer, not the file itself; get the file with `git lfs pull`",
        ),
        "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(30), neither),
        "gzip": (b"\x1f\x8b\x08" + bytes(30), neither),
        "zeros": (bytes(1000), neither),
        "zip": (archive.getvalue(), "it is a zip archive, not a PyTorch file; unpack it first"),
        "safetensors, absurd header": (struct.pack("<Q", 2**62) + b'{"a":1}' + bytes(9), safetensors),
        "safetensors, header beyond the file": (struct.pack("<Q", 10**8) + b'{"a":1}', safetensors),
        "safetensors, header of no tensors": (struct.pack("<Q", 7) + b'{"a":1}', safetensors),
        "safetensors, empty": (save({}), "it holds no tensors"),
        "pickle of a number": (
            pickle.dumps(5, protocol=2),
            "the PyTorch file is truncated or damaged; download it again",
        ),
        "nested pickle": (
            b"\x80\x02" + b"]" * 100_000 + b".",
            "the PyTorch file is truncated or damaged; download it again",
        ),
    }


@pytest.mark.parametrize("name", contents())
def test_file_that_is_no_checkpoint(name, tmp_path):
    content, reason = contents()[name]
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    assert refusal(path) == reason


def test_safetensors_of_a_tensor_larger_than_any_file(tmp_path):
    header = b'{"conv_first.weight":{"dtype":"F32","shape":[1000000000000,1000000000],"data_offsets":[0,0]}}'
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert "truncated or damaged" in refusal(tmp_path / "a.safetensors")


def test_missing_file(tmp_path):
    assert refusal(tmp_path / "a.pth") == "No such file or directory"


def test_folder(tmp_path):
    assert refusal(tmp_path) == "it is a folder; give a .pth or .safetensors file"


def test_file_without_permission(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert refusal(path) == "Permission denied"
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "it holds one list, not a dictionary of tensors"),
        (torch.ones(3), "it holds one Tensor, not a dictionary of tensors"),
        (None, "it holds one NoneType, not a dictionary of tensors"),
        ({}, "it holds no tensors"),
        ({"params": {}}, "it holds no tensors"),
        (
            {"state_dict": {"a": torch.ones(1)}, "epoch": 3},
            "it is a dictionary of state_dict, epoch, not of tensors alone; "
            "tensors are looked for at the top and under params and params_ema",
        ),
        (
            {1: torch.ones(1), (2, 3): torch.ones(1)},
            "it is a dictionary of int, tuple, not of tensors alone; "
            "tensors are looked for at the top and under params and params_ema",
        ),
    ],
    ids=["list", "tensor", "nothing", "empty", "empty params", "training state", "keys that are no names"],
)
def test_pytorch_file_of_other_things(content, reason, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    assert refusal(tmp_path / "a.pth") == reason


def test_two_tensors_of_one_name(tmp_path):
    torch.save(tensors_of(SMALL) | {"module.norm.weight": torch.zeros(30)}, tmp_path / "a.pth")
    assert "tensors of the same name" in refusal(tmp_path / "a.pth")


def test_names_in_a_message_neither_break_nor_flood_the_line(tmp_path):
    torch.save(
        tensors_of(SMALL) | {"\n\x1b[31m\u2028": torch.ones(1), "n" * 10**5: torch.ones(1)},
        tmp_path / "a.pth",
    )
    reason = refusal(tmp_path / "a.pth")
    assert r"unexpected: \n\x1b[31m\u2028, nnn" in reason
    assert len(reason) < 300


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(30).to_sparse(),
        torch.ones(30, device="meta"),
    ],
    ids=["sparse", "meta"],
)
def test_tensor_that_is_not_stored_value_by_value(tensor, tmp_path):
    torch.save(tensors_of(SMALL) | {"norm.weight": tensor}, tmp_path / "a.pth")
    assert (
        refusal(tmp_path / "a.pth") == "the tensor norm.weight is not stored value by value; save it as it is"
    )


def test_few_values_that_pose_as_many(tmp_path):
    one = torch.ones(1).expand(10**6, 10**6, 10**3)
    values = torch.ones(10**5)
    again_and_again = {str(i): values.view(-1) for i in range(10)}
    for tensors in ({"norm.weight": one}, again_and_again):
        torch.save(tensors_of(SMALL) | tensors, tmp_path / "a.pth")
        assert refusal(tmp_path / "a.pth").startswith("its tensors claim to be larger than the file")


def test_compressed_archive_is_not_unpacked(tmp_path):
    torch.save(tensors_of(SMALL) | {"norm.weight": torch.zeros(10**6)}, tmp_path / "a.pth")
    packed = zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "a.pth") as plain, packed:
        for member in plain.namelist():
            packed.writestr(member, plain.read(member))
    assert refusal(tmp_path / "b.pth").startswith("it is compressed")


def test_torchscript_is_refused(tmp_path):
    module = torch.nn.Module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of all of torch.jit, in new versions
        torch.jit.script(module).save(str(tmp_path / "a.pth"))
    assert refusal(tmp_path / "a.pth") == (
        "it is a TorchScript program, which is refused; save its state_dict() instead"
    )


class Intruder:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_bare_pickle_that_would_run_code(protocol, tmp_path):
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Intruder(tmp_path / "mark"), protocol))
    reason = refusal(tmp_path / "a.pth")
    assert not (tmp_path / "mark").exists()
    if protocol >= 2:
        assert "run code" in reason
        assert "is refused; ask its author for a file of tensors alone" in reason
    pickle.loads((tmp_path / "a.pth").read_bytes())
    assert (tmp_path / "mark").exists()  # it would have been


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize(
    "hide",
    [
        lambda intruder: intruder,
        lambda intruder: {"params": tensors_of(SMALL) | {"z": intruder}},
        lambda intruder: {"params": tensors_of(SMALL), "optimizer": [intruder]},
    ],
    ids=["bare", "among the tensors", "beside them"],
)
def test_pytorch_file_that_would_run_code(hide, write, tmp_path):
    write(hide(Intruder(tmp_path / "mark")), tmp_path / "a.pth")
    reason = refusal(tmp_path / "a.pth")
    assert reason.startswith(
        f"it is a pickle that would run code ({os.mkdir.__module__}.mkdir), which is refused"
    )
    assert not (tmp_path / "mark").exists()


@cache
def file_of(write) -> bytes:
    buffer = io.BytesIO()
    if write is save_file:
        buffer.write(save(tensors_of(SMALL)))
    else:
        write(tensors_of(SMALL), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("write", [write_zip, write_legacy, save_file])
def test_truncated_file(write, tmp_path):
    content = file_of(write)
    path = tmp_path / "a.pth"
    for length in {9, 100, 5000, len(content) // 2, len(content) - 1000, len(content) - 1}:
        path.write_bytes(content[:length])
        assert re.fullmatch(
            r"the (PyTorch|safetensors) file is truncated or damaged; download it again", refusal(path)
        )


@given(st.data())
def test_damaged_file_is_refused_or_read_but_nothing_else(tmp_path_factory, data):
    content = bytearray(file_of(data.draw(st.sampled_from([write_zip, write_legacy, save_file]))))
    head = st.integers(0, 5000)  # where the structure is
    for place in data.draw(st.lists(head | st.integers(0, len(content) - 1), min_size=1, max_size=5)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(content)
    net = load_or_refuse(path)
    assert net is None or net.info.config == SMALL


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
