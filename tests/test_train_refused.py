"""Training that cannot begin or go on: what the error says, and that no file is lost."""

import dataclasses
import errno
import os

import pytest
import torch
from safetensors.torch import save_file

from mambair_cli.errors import CheckpointError, ImageError, MambairError, UsageError
from mambair_cli.train import train
from mambair_cli.train.trainer import Trainer


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scale": 1}, "cannot train upscale at scale 1"),
        ({"task": "denoise"}, "cannot train denoise at scale 2"),
        ({"scale": 3}, "the network's scale is 2"),
        ({"network": None}, "neither a network to build nor a checkpoint"),
        ({"sigma": (30, 20)}, "sigma from 30 to 20"),
        ({"quality": (0, 20)}, "quality from 0 to 20"),
        ({"batch": 0}, "batch 0"),
        ({"shrink": (2.0,)}, "above 0 and at most 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(config, changes, said):
    with pytest.raises(UsageError, match=said):
        train(dataclasses.replace(config, **changes))
    assert not config.output.exists()


def test_weights_that_fit_nowhere_are_refused(config, tmp_path):
    save_file({"conv_first.weight": torch.zeros(7, 3, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="none of its tensors fits"):
        train(dataclasses.replace(config, weights=tmp_path / "other.safetensors"))


def test_a_folder_without_images_is_refused(config, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images"):
        train(dataclasses.replace(config, images=(tmp_path / "empty",)))


def test_a_damaged_image_is_named(config, photos):
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"broken\.png"):
        train(config)


def test_a_run_is_neither_overwritten_nor_mistaken_for_another(config):
    train(dataclasses.replace(config, steps=1))
    with pytest.raises(UsageError, match="it holds a run"):
        train(config)
    with pytest.raises(UsageError, match="--batch 3: it was begun with --batch 2; give that"):
        train(dataclasses.replace(config, batch=3), resume=True)
    assert config.network
    wider = dataclasses.replace(config, steps=1, network=dataclasses.replace(config.network, d_state=3))
    with pytest.raises(UsageError, match=r"with --d-state 3: it was begun with --d-state \d; give that"):
        train(wider, resume=True)
    further = dataclasses.replace(
        config, steps=1, network=None, weights=config.output / "weights.safetensors"
    )
    with pytest.raises(UsageError, match="with --weights: it was begun with a new network; give that"):
        train(further, resume=True)


def test_a_run_stays_on_its_kind_of_device(config):
    run = Trainer(config)
    config.output.mkdir()
    run.save()
    state = torch.load(config.output / "state.pt", weights_only=True)
    torch.save({**state, "config": {**state["config"], "device": "cuda:1"}}, config.output / "state.pt")
    with pytest.raises(UsageError, match="begun on cuda"):
        train(config, resume=True)


def test_a_state_that_is_missing_or_damaged_is_a_clear_error(config):
    with pytest.raises(CheckpointError, match=r"holds no state\.pt"):
        train(config, resume=True)
    config.output.mkdir()
    (config.output / "state.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(CheckpointError, match="damaged"):
        train(config, resume=True)


def test_divergence_ends_the_run_and_saves_nothing(config):
    with pytest.raises(MambairError, match="diverged"):
        train(dataclasses.replace(config, learning_rate=1e30, warmup=0))
    assert not (config.output / "weights.safetensors").exists()


def test_a_full_disk_ends_the_run_and_keeps_the_state_before(config, monkeypatch):
    run = Trainer(config)
    config.output.mkdir()
    run.save()
    before = {path.name: path.read_bytes() for path in config.output.iterdir()}

    def fail(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    run.advance()
    with pytest.raises(
        MambairError, match=r"cannot write .*state.pt: No space left on device; free some space"
    ):
        run.save()
    assert {path.name: path.read_bytes() for path in config.output.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_one_line(config, photos):
    with pytest.raises(
        MambairError, match=r"cannot write .*a\.png/run: .*; free some space, or choose another"
    ):
        train(dataclasses.replace(config, output=photos / "a.png" / "run"))
