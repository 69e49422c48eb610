"""Files that hold a network: they are read whatever their name, wrapping and precision."""

import pytest
import torch
from checkpoint_files import SMALL, tensors_of, write_legacy, write_zip
from networks import CONFIGS, V2
from safetensors.torch import save, save_file
from torch import Tensor

from mambair_cli.checkpoints import load
from mambair_cli.checkpoints.load import load_network
from mambair_cli.errors import CheckpointError
from mambair_cli.networks import Config, build_network


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


def prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


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
        lambda tensors: {"state_dict": prefix("module.", tensors), "epoch": 3},
        lambda tensors: {"state_dict": prefix("net.", tensors), "pytorch-lightning_version": "2.4"},
        lambda tensors: {"state_dict": prefix("model.net.module.", tensors), "optimizer_states": [{}]},
        lambda tensors: {"model": tensors, "optimizer": {"state": {}}},
        lambda tensors: {"model_state_dict": {"params": tensors}, "loss": torch.zeros(1)},
        lambda tensors: {"model": {"embed_dim": 60}, "net": tensors},
        lambda tensors: {"params": {}, "params_ema": tensors},
        lambda tensors: {"model": tensors, "rng_state": torch.get_rng_state(), "best": torch.tensor(30.1)},
        lambda tensors: {"state_dict": {"model": {"params": tensors}}},
        lambda tensors: prefix("_orig_mod.module.", tensors),
        lambda tensors: {name.replace("layers.0.", "layers.0._orig_mod."): tensors[name] for name in tensors},
    ],
    ids=[
        "params",
        "params_ema",
        "both",
        "both, in the other order",
        "module",
        "params and module",
        "parameters",
        "state_dict and module",
        "Lightning",
        "Lightning with a network in another one",
        "model and optimizer",
        "params in model_state_dict",
        "next to a configuration",
        "next to an empty dictionary",
        "next to the state of random numbers",
        "three dictionaries",
        "compiled",
        "compiled in part",
    ],
)
def test_tensors_are_found_under_their_wrapping(wrap, tmp_path):
    torch.save(wrap(tensors_of(SMALL)), tmp_path / "a.pth")
    net = load_network(tmp_path / "a.pth")
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, tensors_of(SMALL)[name])


@pytest.mark.parametrize(("name", "scale"), [("v1", 1), ("v1 ×2", 2), ("U-Net", 1)])
def test_the_scale_is_read_without_a_network(name, scale, tmp_path, monkeypatch):
    save_file(tensors_of(CONFIGS[name]), tmp_path / "a.safetensors")
    monkeypatch.setattr(load, "build_network", None)
    assert load.read_scale(tmp_path / "a.safetensors") == scale
    save_file({"other": torch.ones(2)}, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"cannot load \S+b\.safetensors: it is not a network"):
        load.read_scale(tmp_path / "b.safetensors")


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
