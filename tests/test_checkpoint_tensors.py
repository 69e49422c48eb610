"""Tensors that are not those of a network: the error names those that are wrong."""

import re
import struct
from dataclasses import replace

import pytest
import torch
from checkpoint_files import SMALL, refusal, shapes_of, tensors_of
from networks import CONFIGS, V2
from safetensors.torch import save_file

from mambair_cli.checkpoints.load import infer_config
from mambair_cli.errors import CheckpointError


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
