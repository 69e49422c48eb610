"""The scripts by which the built-in models were trained."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from repository import ROOT
from safetensors.torch import load_file
from train_runs import NETWORK

from mambair_cli.networks import build_network
from mambair_cli.train import TrainConfig
from mambair_cli.train.trainer import serialize_weights

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


def test_a_source_without_a_target_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, ROOT / "training" / "export_weights.py", "a.safetensors")
    assert ended.value.code == 2
    assert "required: TARGET" in capsys.readouterr().err
