"""MambaIR in spandrel's registry: recognised, described and computed as this package does."""

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from checkpoint_files import write_legacy, write_zip
from networks import CONFIGS, V1, V2
from PIL import Image
from recordings import FIXTURES, read_recording
from repository import ROOT, SHARED
from safetensors.torch import save_file
from spandrel_package import import_spandrel
from torch import Tensor

from mambair_cli import Restorer
from mambair_cli.checkpoints.catalog import Task
from mambair_cli.checkpoints.load import load_network
from mambair_cli.errors import CheckpointError, MambairError
from mambair_cli.networks import MambaIRv2, build_network
from mambair_cli.restore.engine import Engine
from mambair_cli.spandrel_support import install

spandrel = import_spandrel()

OFFICIAL = json.loads(gzip.decompress((FIXTURES / "official_checkpoints.json.gz").read_bytes()))
BUILT_IN = sorted((ROOT / "mambair_cli" / "weights").glob("tiny_*.safetensors"))
RECORDED = sorted({path.name: path for path in SHARED.glob("parity/*.safetensors")}.values()) or sorted(
    FIXTURES.glob("*.safetensors")
)
NAMES = {"MambaIR": "MambaIR", "MambaIRv2": "MambaIRv2", "MambaIRv2Light": "MambaIRv2"}
TASKS: dict[str, Task] = {"dejpeg": "dejpeg", "denoise": "denoise"}
OURS = {"MambaIR", "MambaIRv2", "MambaIRUNet"}

# Networks of spandrel whose keys look most like ours, and others of each kind, with what they must be given.
OTHERS = {
    "ATD": {},
    "CRAFT": {},
    "Compact": {},
    "DAT": {},
    "DITN": {},
    "DRCT": {},
    "ESRGAN": {},
    "FDAT": {},
    "GRL": {},
    "HAT": {},
    "HVICIDNet": {},
    "MixDehazeNet": {},
    "MoSR": {},
    "NAFNet": {"enc_blk_nums": [1], "dec_blk_nums": [1], "middle_blk_num": 1},
    "OmniSR": {},
    "PLKSR": {},
    "RGT": {},
    "RetinexFormer": {},
    "SAFMN": {"dim": 36},
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3},
    "SwiftSRGAN": {},
    "Swin2SR": {"img_size": 64, "window_size": 8},
    "SwinIR": {"img_size": 64, "window_size": 8},
    "Uformer": {},
}


@pytest.fixture
def registry():
    """Return a copy of spandrel's registry, to which ours are added."""
    registry = spandrel.MAIN_REGISTRY.copy()
    install(registry)
    return registry


@pytest.fixture
def load(registry):
    """Return a function that loads a file, or tensors, as programs do."""
    loader = spandrel.ModelLoader(registry=registry)
    return lambda what: (
        loader.load_from_state_dict(what) if isinstance(what, dict) else loader.load_from_file(what)
    )


def make_tensors(config) -> dict[str, Tensor]:
    """Return the tensors of a network whose every part shows in its result."""
    torch.manual_seed(0)
    net = build_network(config)
    with torch.inference_mode():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def make_image(channels: int = 3, height: int = 21, width: int = 34, batch: int = 1) -> Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def kinds_of(registry, tensors) -> list[str]:
    """Return every architecture that takes the tensors for its own; the first one loads them."""
    supports = registry.architectures("detection")
    return [support.architecture.id for support in supports if support.detect(tensors)]


def save_weights(recording, path) -> None:
    save_file(recording.weights, path)


@torch.inference_mode()
def own_result(path, image: Tensor) -> Tensor:
    """Return what this package makes of an image, with the noise of a command's default."""
    return load_network(path)(image, seed=0).clamp(0, 1)


def test_installing_twice_adds_nothing(registry):
    names = [support.architecture.id for support in registry]
    assert set(names) - {support.architecture.id for support in spandrel.MAIN_REGISTRY.copy()} <= OURS
    assert set(names) >= OURS
    install(registry)
    assert [support.architecture.id for support in registry] == names


def test_a_registry_of_ones_own_may_be_empty():
    registry = spandrel.ArchRegistry()
    install(registry)
    assert [support.architecture.id for support in registry] == ["MambaIR", "MambaIRv2", "MambaIRUNet"]


def test_every_loader_of_a_program_knows_the_networks_after_one_call(tmp_path):
    source = """
    import sys
    sys.path.insert(0, sys.argv[1])
    from spandrel_package import import_spandrel
    spandrel = import_spandrel()
    before = len(spandrel.MAIN_REGISTRY)
    from mambair_cli.spandrel_support import install
    install()
    install()
    loaded = spandrel.ModelLoader().load_from_file(sys.argv[2])
    print(len(spandrel.MAIN_REGISTRY) - before, loaded.architecture.id, spandrel.__name__)
    """
    code = "\n".join(line.strip() for line in source.splitlines())
    arguments = [sys.executable, "-c", code, str(ROOT / "tests"), str(BUILT_IN[0])]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout.split() == ["3", "MambaIR", "spandrel"]


def test_to_import_the_package_imports_neither_torch_nor_spandrel():
    code = "import sys, mambair_cli.spandrel_support; print({'torch', 'spandrel'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("spandrel", r"the package spandrel is missing: pip install 'mambair-cli\[spandrel\]' brings it"),
        ("torchvision", "the package spandrel cannot be imported: .*; pip install torchvision may help"),
    ],
)
def test_what_is_missing_is_named(missing, said, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("spandrel", "torchvision")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MambairError, match=f"^{said}$"):
        install()


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_official_checkpoint_is_ours_alone(name, registry):
    official = OFFICIAL[name]
    tensors = {key: torch.empty(shape, device="meta") for key, shape in official["shapes"].items()}
    assert kinds_of(registry, tensors) == [NAMES.get(official["network"], official["network"])]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_form_of_the_networks_is_ours_alone(name, registry):
    net = build_network(CONFIGS[name])
    assert kinds_of(registry, net.state_dict()) == [net.info.architecture]


@pytest.mark.filterwarnings("ignore")  # as spandrel's networks call PyTorch
@pytest.mark.parametrize("name", OTHERS)
def test_networks_of_others_stay_theirs(name, registry):
    module = import_module(f"spandrel.architectures.{name}")
    network = next(getattr(module, each) for each in module.__all__ if not each.endswith("Arch"))
    found = kinds_of(registry, network(**OTHERS[name]).state_dict())
    assert found[0] == name
    assert not set(found) & OURS


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_networks_of_others_are_loaded_as_before(load):
    module = import_module("spandrel.architectures.SwinIR")
    tensors = module.SwinIR(img_size=64, window_size=8, embed_dim=12, depths=[1], num_heads=[2]).state_dict()
    loaded = load({name: tensor.clone() for name, tensor in tensors.items()})
    assert loaded.architecture.id == "SwinIR"
    assert loaded(make_image(height=16, width=16)).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_network_gives_what_the_official_code_gives(path, load, tmp_path):
    recording = read_recording(path)
    save_weights(recording, tmp_path / "net.safetensors")
    loaded = load(tmp_path / "net.safetensors")
    settings = recording.settings
    assert loaded.architecture.id == NAMES.get(recording.network, recording.network)
    assert loaded.scale == settings.get("upscale", 1)
    assert loaded.input_channels == loaded.output_channels == recording.runs[0][0].shape[1]
    assert loaded.purpose == ("SR" if loaded.scale > 1 else "Restoration")
    for image, wanted, noise in recording.runs:
        assert torch.equal(loaded(image), own_result(tmp_path / "net.safetensors", image))
        if not isinstance(loaded.model, MambaIRv2):
            assert (loaded(image) - wanted.clamp(0, 1)).abs().max() < recording.tolerance
        elif not noise:  # the recording is without noise, and spandrel's users are given some
            with torch.inference_mode():
                assert (loaded.model(image) - wanted).abs().max() < recording.tolerance


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: path.stem)
def test_a_built_in_model_gives_what_the_restorer_gives(path, load):
    image = np.asarray(Image.open(ROOT / "docs" / "kitten.jpg").crop((40, 50, 83, 80)), np.float32) / 255
    loaded = load(path)
    kind = path.stem.rpartition("_")[2]
    restore = Restorer(TASKS.get(kind, "upscale"), loaded.scale, weights=path, device="cpu", bare=True)
    wanted = restore(image)
    got = loaded(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    assert got.shape == (30 * loaded.scale, 43 * loaded.scale, 3)
    assert np.array_equal(got, wanted.clip(0, 1))


@pytest.mark.parametrize("name", CONFIGS)
def test_images_of_any_size_are_computed_as_by_this_package(name, load, tmp_path):
    save_file(make_tensors(CONFIGS[name]), tmp_path / "net.safetensors")
    loaded = load(tmp_path / "net.safetensors")
    assert loaded.size_requirements.none
    assert loaded.tiling == spandrel.ModelTiling.SUPPORTED
    for height, width in ((1, 1), (3, 17), (16, 16), (21, 34)):
        image = make_image(loaded.input_channels, height, width)
        result = loaded(image)
        assert result.shape == (1, loaded.output_channels, height * loaded.scale, width * loaded.scale)
        assert torch.equal(result, own_result(tmp_path / "net.safetensors", image))


def test_noise_is_that_of_a_command_and_the_same_each_time(load):
    loaded = load(make_tensors(V2))
    image = make_image()
    first = loaded(image)
    torch.manual_seed(123)
    assert torch.equal(loaded(image), first)
    with torch.inference_mode():
        assert not torch.equal(loaded.model(image).clamp(0, 1), first)
        assert not torch.equal(loaded.model(image, seed=1).clamp(0, 1), first)


def test_the_order_of_an_image_in_memory_changes_nothing(load):
    loaded = load(BUILT_IN[0])
    image = make_image()
    channels_last = image.to(memory_format=torch.channels_last)
    turned = image[0].permute(2, 1, 0).contiguous().permute(2, 1, 0)[None]
    assert torch.equal(loaded(channels_last), loaded(image))
    assert torch.equal(loaded(turned), loaded(image))


def test_several_images_at_once_give_what_each_gives_alone(load):
    loaded = load(make_tensors(V1))
    images = make_image(batch=2)
    alone = torch.cat([loaded(images[:1]), loaded(images[1:])])
    # PyTorch's sigmoid rounds otherwise where a vector is not full, which depends on the number of images.
    assert torch.allclose(loaded(images), alone, atol=1e-5)


@pytest.mark.parametrize("wrapper", [None, "params", "params_ema", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_files_of_pytorch_are_read(wrapper, prefix, write, load, tmp_path):
    tensors = make_tensors(V1)
    content = {prefix + name: tensor for name, tensor in tensors.items()}
    write({wrapper: content} if wrapper else content, tmp_path / "net.pth")
    assert torch.equal(load(tmp_path / "net.pth")(make_image()), load(tensors)(make_image()))


def test_tiles_as_comfyui_cuts_them_give_what_this_package_gives(load, tmp_path):
    torch.save({"params": make_tensors(V2), "params_ema": make_tensors(V2)}, tmp_path / "net.pth")
    loaded = load(torch.load(tmp_path / "net.pth", weights_only=True)).eval()
    images = torch.rand(2, 40, 50, 3)  # a batch, channels last
    for image in images.movedim(-1, -3).split(1):
        for top, left in ((0, 0), (8, 18)):
            tile = image.narrow(2, top, 32).narrow(3, left, 32)
            wanted = own_result(tmp_path / "net.pth", tile.contiguous())
            assert torch.equal(loaded(tile.float()), wanted)


def test_spandrel_prefers_the_averaged_weights_of_a_file(load, tmp_path):
    plain, averaged = make_tensors(V1), {name: tensor * 0.9 for name, tensor in make_tensors(V1).items()}
    torch.save({"params": plain, "params_ema": averaged}, tmp_path / "net.pth")
    assert torch.equal(load(tmp_path / "net.pth")(make_image()), load(averaged)(make_image()))
    assert torch.equal(own_result(tmp_path / "net.pth", make_image()), load(plain)(make_image()))


@pytest.mark.parametrize("config", [V1, V2], ids=["v1", "v2"])
def test_a_network_that_was_called_can_be_trained(config, load):
    loaded = load(make_tensors(config))
    loaded(make_image())
    net = loaded.model.requires_grad_(True)
    net(make_image()).sum().backward()
    assert all(parameter.grad is not None for parameter in net.conv_first.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_are_computed_in_float32(dtype, load):
    tensors = {name: tensor.to(dtype) for name, tensor in make_tensors(V1).items()}
    loaded = load(dict(tensors))
    wanted = load({name: tensor.float() for name, tensor in tensors.items()})
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded(make_image()), wanted(make_image()))


def test_the_tensors_of_the_caller_are_left_alone(load):
    tensors = make_tensors(V1)
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    loaded = load(tensors)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.zero_()
    assert all(torch.equal(tensors[name], kept[name]) for name in kept)


TAGS: dict[str, tuple[Callable, list[str]]] = {
    "v1": (lambda: V1, ["30dim", "3blocks"]),
    "v1 light": (lambda: CONFIGS["v1 light"], ["light", "30dim", "3blocks"]),
    "v2": (lambda: V2, ["30dim", "3layers", "4w"]),
    "v2 light": (lambda: CONFIGS["v2 light"], ["light", "30dim", "3layers", "4w"]),
    "U-Net": (lambda: CONFIGS["U-Net"], ["30dim", "4blocks"]),
}


@pytest.mark.parametrize("name", TAGS)
def test_tags_name_form_and_size(name, load):
    make, tags = TAGS[name]
    assert load(make_tensors(make())).tags == tags


def test_gray_networks_take_one_channel(load):
    loaded = load(make_tensors(replace(V1, in_chans=1)))
    assert (loaded.input_channels, loaded.output_channels) == (1, 1)
    assert loaded(make_image(1)).shape == (1, 1, 21, 34)
    with pytest.raises(ValueError, match=r"takes images \(b, 1, h, w\) of .*, not \(1, 3, 21, 34\)"):
        loaded(make_image(3))
    with pytest.raises(ValueError, match=r"takes images \(b, 3, h, w\)"):
        load(make_tensors(V1))(make_image(1))  # which PyTorch would spread over three


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop("norm.bias"), r"missing: norm\.bias"),
        (lambda tensors: tensors.update(new=torch.zeros(1)), "unexpected: new"),
        (lambda tensors: tensors.update({"norm.bias": torch.zeros(7)}), r"norm\.bias \(7,\), not \(30,\)"),
        (lambda tensors: tensors["norm.bias"].fill_(torch.nan), r"norm\.bias holds values .* not finite"),
        (lambda tensors: tensors.update(epoch=3), "a dictionary of .*, not of tensors alone"),
    ],
)
def test_a_broken_checkpoint_is_refused_with_the_reason(change, said, load):
    tensors = make_tensors(V1)
    change(tensors)
    with pytest.raises(CheckpointError, match=said):
        load(tensors)


def test_other_files_are_refused_by_spandrel(load):
    with pytest.raises(spandrel.UnsupportedModelError):
        load({"conv_first.weight": torch.zeros(8, 3, 3, 3)})


@pytest.mark.parametrize("name", ["v1 light", "v1 ×4", "v2", "U-Net"])
def test_half_precision_is_that_of_a_command(name, load):
    tensors = make_tensors(CONFIGS[name])
    loaded = load(tensors)
    exact = loaded(make_image())
    assert loaded.supports_half
    loaded.half()
    assert loaded.dtype == torch.float16
    got = loaded(make_image().half())
    assert got.dtype == torch.float16

    net = load({name: tensor.half() for name, tensor in tensors.items()}).model
    image = make_image().half().float()
    wanted = Engine(net, torch.device("cpu"), "fp16").run_whole(image, 0).clamp(0, 1)
    assert torch.equal(got, wanted.half())
    assert not torch.equal(got.float(), exact)
    if name != "v2":  # whose router may take another token for a pixel
        assert (got.float() - exact).abs().max() < 4 / 255

    loaded.float()
    assert loaded(make_image()).dtype == torch.float32
    assert torch.equal(
        loaded(image), Engine(net, torch.device("cpu"), "fp32").run_whole(image, 0).clamp(0, 1)
    )


def test_what_half_precision_cannot_hold_is_computed_in_float32(load):
    tensors = make_tensors(V1)
    tensors["conv_first.weight"] *= 6e4 / tensors["conv_first.weight"].abs().max()
    loaded = load(tensors).half()
    assert (
        Engine(load(tensors).model, torch.device("cpu"), "fp16")
        .run(make_image(), torch.zeros(1, 2), 0)
        .isnan()
        .any()
    )
    assert loaded(make_image().half()).isfinite().all()


def test_bfloat16_is_refused(load):
    loaded = load(make_tensors(V1))
    assert not loaded.supports_bfloat16
    with pytest.raises(spandrel.UnsupportedDtypeError):
        loaded.bfloat16()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_new_weights_count_from_the_next_call(dtype, load):
    loaded, other = load(make_tensors(V1)).to(dtype), load(make_tensors(V1)).to(dtype)
    image = make_image().to(dtype)
    first = loaded(image)
    tensors = {name: tensor * 0.9 for name, tensor in make_tensors(V1).items()}
    loaded.model.load_state_dict(tensors)
    assert not torch.equal(loaded(image), first)
    assert torch.equal(loaded(image), load(tensors).to(dtype)(image))
    assert torch.equal(other(image), first)


def test_a_network_can_change_its_type_within_inference_mode(load):
    loaded, wanted = load(make_tensors(V1)), load(make_tensors(V1)).half()
    with torch.inference_mode():
        loaded.half()
        assert torch.equal(loaded(make_image().half()), wanted(make_image().half()))


def test_the_node_for_comfyui_registers_the_networks(monkeypatch):
    text = (ROOT / "docs" / "spandrel.md").read_text(encoding="utf-8")
    (node,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "NODE_CLASS" in block]
    registry = spandrel.MAIN_REGISTRY.copy()
    monkeypatch.setattr(spandrel, "MAIN_REGISTRY", registry)
    names: dict[str, object] = {}
    exec(node, names)
    assert names["NODE_CLASS_MAPPINGS"] == {}
    assert {support.architecture.id for support in registry} >= OURS


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["v1 light", "v1 ×4", "v2", "v2 light", "U-Net"])
def test_a_gpu_gives_what_the_engine_gives(name, registry):
    tensors = make_tensors(CONFIGS[name])
    loaded = spandrel.ModelLoader("cuda", registry).load_from_state_dict(tensors)
    device = torch.device("cuda")
    image = make_image().half().float()
    for precision in ("fp32", "fp16"):
        net = spandrel.ModelLoader(registry=registry).load_from_state_dict(
            {name: tensor.half() if precision == "fp16" else tensor for name, tensor in tensors.items()}
        )
        wanted = Engine(net.model, device, precision).run_whole(image.to(device), 0).clamp(0, 1)
        if precision == "fp16":
            loaded.half()
        got = loaded(image.to(device, loaded.dtype))
        assert got.device.type == "cuda"
        assert torch.equal(got, wanted.to(got.dtype))
