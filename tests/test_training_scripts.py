"""The scripts by which the built-in models were trained."""

import dataclasses
import json
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from repository import ROOT
from safetensors import safe_open
from safetensors.torch import load_file
from train_runs import NETWORK

from mambair_cli.errors import MambairError
from mambair_cli.networks import build_network
from mambair_cli.train import TrainConfig
from mambair_cli.train.trainer import Trainer, serialize_weights

SCRIPTS = sorted((ROOT / "training").glob("*.py"))


def run(monkeypatch: pytest.MonkeyPatch, script: Path, *arguments: object) -> None:
    """Run a script in this process, with its folder as the place of its imports."""
    monkeypatch.syspath_prepend(script.parent)
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_every_script_has_help(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, script, "--help")
    assert ended.value.code == 0
    assert f"usage: {script.name}" in capsys.readouterr().out


def test_checkpoints_for_the_package_are_the_mean_of_their_sources(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for value, source in zip((1.0, 2.0), sources, strict=True):
        net = build_network(NETWORK, "upscale")
        for parameter in net.parameters():
            torch.nn.init.constant_(parameter, value)
        source.write_bytes(serialize_weights(net, config, 3))
    target = tmp_path / "new" / "mean.safetensors"
    run(monkeypatch, ROOT / "training" / "export_weights.py", *sources, target)
    tensor = load_file(target)["conv_first.weight"]
    assert tensor.dtype == torch.float16
    assert (tensor == 1.5).all()


@pytest.mark.parametrize(
    ("changes", "kept", "left_out"),
    [
        ({}, {"degradation": "papers", "step": 3}, {"sigma", "quality", "clipped", "teacher_share"}),
        (
            {"task": "denoise", "clipped": 0.5, "teacher": Path("t.pth"), "teacher_share": 0.3},
            {"sigma": [0, 55], "clipped": 0.5, "teacher_share": 0.3},
            {"quality"},
        ),
        ({"task": "dejpeg"}, {"quality": [10, 95]}, {"sigma", "clipped"}),
        (
            {"task": "denoise", "degradation": "real"},
            {"degradation": "real"},
            {"sigma", "quality", "clipped"},
        ),
    ],
)
def test_checkpoints_for_the_package_say_what_they_learned(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes, kept, left_out
) -> None:
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    net = build_network(NETWORK, "upscale")
    source.write_bytes(serialize_weights(net, dataclasses.replace(config, **changes), 3))
    run(monkeypatch, ROOT / "training" / "export_weights.py", source, target)
    with safe_open(target, "pt") as file:
        training = json.loads(file.metadata()["training"])
    assert {name: training[name] for name in kept} == kept
    assert not left_out & training.keys()


def test_the_same_files_are_held_out_whatever_folders_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        for number in range(200):
            (folder / f"{folder.name}{number:04}.png").touch()
    monkeypatch.syspath_prepend(ROOT / "training")
    find_files = runpy.run_path(str(ROOT / "training" / "make_looks.py"))["find_files"]
    both = set(find_files(folders, held_out=True))
    apart = [set(find_files([folder], held_out=True)) for folder in folders]
    assert both == apart[0] | apart[1]
    assert both.isdisjoint(find_files(folders, held_out=False))
    assert 30 < len(both) < 70


def test_bundled_runs_that_diverge_save_nothing(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "training")
    bundled_run = runpy.run_path(str(ROOT / "training" / "train_bundled.py"))["BundledRun"]
    trainer = Trainer(dataclasses.replace(config, learning_rate=1e30, warmup=0))
    for _ in range(3):
        trainer.advance()
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    with pytest.raises(MambairError, match="diverged"):
        bundled_run("x2", trainer, None, {}, None).save()
    assert not (config.output / "state.pt").exists()


def test_a_source_without_a_target_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, ROOT / "training" / "export_weights.py", "a.safetensors")
    assert ended.value.code == 2
    assert "required: TARGET" in capsys.readouterr().err
