"""A network between two checkpoints: its tensors, its command, and what does not mix."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import save_random
from networks import CONFIGS
from PIL import Image

from mambair_cli import Restorer
from mambair_cli.checkpoints.load import read_tensors
from mambair_cli.checkpoints.mixing import mix_checkpoints
from mambair_cli.checkpoints.select import ChosenModel
from mambair_cli.cli import main
from mambair_cli.errors import CheckpointError

LOCAL = ("--offline", "--device", "cpu")
V1, V2 = CONFIGS["v1 ×2"], CONFIGS["v2 light"]


def random_checkpoint(folder: Path, name: str, config, seed: int = 0) -> ChosenModel:
    return ChosenModel(name, save_random(folder / f"{name}.safetensors", config, seed))


@pytest.fixture
def photo(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 30, 3), np.uint8)
    Image.fromarray(pixels).save("in.png")
    return tmp_path / "in.png"


@pytest.mark.parametrize("config", [V1, V2])
@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_each_tensor_is_between_the_two(config, share, tmp_path: Path) -> None:
    one, other = (random_checkpoint(tmp_path, name, config, seed) for seed, name in enumerate(("a", "b")))
    target = tmp_path / "mixed.safetensors"
    mix_checkpoints(one, other, share, target)
    first, second, mixed = (read_tensors(path)[0] for path in (one.path, other.path, target))
    assert mixed.keys() == first.keys()
    for name, tensor in mixed.items():
        wanted = first[name] if share == 0 else second[name]
        if 0 < share < 1 and tensor.is_floating_point():
            wanted = (1 - share) * first[name] + share * second[name]
        torch.testing.assert_close(tensor, wanted, rtol=0, atol=0 if share in (0, 1) else 1e-6)
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (replace(V1, embed_dim=32), "embed_dim is 30 and 32"),
        (replace(V1, upscale=3), "upscale is 2 and 3"),
        (V2, "their networks are MambaIR and MambaIRv2"),
    ],
)
def test_networks_that_differ_do_not_mix(other, why, tmp_path: Path) -> None:
    first, second = random_checkpoint(tmp_path, "a", V1), random_checkpoint(tmp_path, "b", other)
    with pytest.raises(CheckpointError, match=f"cannot mix a and b: {why}"):
        mix_checkpoints(first, second, 0.5, tmp_path / "mixed.safetensors")
    assert not (tmp_path / "mixed.safetensors").exists()


def test_the_command_restores_by_the_mix(photo: Path) -> None:
    names = ("tiny-x4", "tiny-real-x4")
    command = ["upscale", "in.png", "-s", "4", *LOCAL]
    for name, more in (
        ("first", ["--model", names[0]]),
        ("mixed0", ["--model", names[0], "--model", names[1], "--mix", "0"]),
        ("mixed", ["--model", names[0], "--model", names[1], "--mix", "0.4", "--workers", "2"]),
    ):
        assert main([*command, *more, "-o", f"{name}.png"]) == 0
    pictures = {name: np.array(Image.open(f"{name}.png")) for name in ("first", "mixed0", "mixed")}
    assert np.array_equal(pictures["first"], pictures["mixed0"])
    weights = Path(__file__).parents[1] / "mambair_cli" / "weights"
    one, other = (ChosenModel(name, weights / f"{name.replace('-', '_')}.safetensors") for name in names)
    target = photo.parent / "mixed.safetensors"
    mix_checkpoints(one, other, 0.4, target)
    wanted = Restorer(weights=target, device="cpu")(np.array(Image.open("in.png")))
    assert np.array_equal(pictures["mixed"], wanted)
    assert not np.array_equal(pictures["mixed"], pictures["first"])


def test_a_run_by_a_mix_goes_on_where_it_stopped(photo: Path, capsys) -> None:
    """The file of the mix is another one each time, and its content the same."""
    models = [random_checkpoint(photo.parent, name, V1, seed).path for seed, name in enumerate(("a", "b"))]
    (photo.parent / "photos").mkdir()
    photo.rename(photo.parent / "photos" / "in.png")
    given = [text for path in models for text in ("--weights", str(path))]
    command = ["upscale", "photos", "-s", "2", *LOCAL, *given, "--json", "--resume"]
    for share, does in (("0.5", "done"), ("0.5", "skipped"), ("0.6", "done")):
        extra = ["--overwrite"] if share == "0.6" else []
        assert main([*command, "--mix", share, *extra]) == 0
        assert f'"event":"{does}"' in capsys.readouterr().out.replace(" ", "")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--mix", "0.5"], "--mix 0.5 needs two models, not 0"),
        (["--mix", "0.5", "--model", "tiny-x2"], "--mix 0.5 needs two models, not 1"),
        (["--mix", "0.5", "--model", "tiny-x2", "--model", "auto"], "--model auto may be any"),
        (["--weights", "a.pth", "--weights", "b.pth"], "mix them with --mix 0.5"),
        (["--mix", "1.5"], "a number from 0 to 1"),
        (["--mix", "0.5", "--model", "tiny-x2", "--weights", "b.pth"], "cannot load b.pth"),
        (
            ["--mix", "0.5", "--model", "tiny-x2", "--model", "tiny-real-x2", "--server", "auto"],
            "exclude each other",
        ),
    ],
)
def test_what_does_not_mix_is_refused_in_a_line(given, why, photo: Path, capsys) -> None:
    assert main(["upscale", "in.png", "-s", "2", *LOCAL[:1], *given]) in (2, 3)
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in photo.parent.iterdir()) == ["in.png"]
