import dataclasses
import inspect
import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest
from error_lines import is_one_line
from forked import start_forked
from pictures import save_photo
from PIL import Image
from safetensors import safe_open
from terminal import run_in_terminal

from mambair_cli import load_network
from mambair_cli.networks import MambaIRv2Config
from mambair_cli.train import TrainConfig, pace, train
from mambair_cli.train.config import read_config
from mambair_cli.train.loop import STOP_MESSAGE

SMALL = ("--embed-dim", "30", "--depths", "1", "--d-inner", "8", "--d-state", "2")
SHORT = (
    "--steps",
    "4",
    "--batch",
    "1",
    "--crop",
    "8",
    "--warmup",
    "1",
    "--precision",
    "fp32",
    "--device",
    "cpu",
)


@pytest.fixture
def run(run):
    for index in range(2):
        save_photo(f"photos/{index}.png", (48, 40), seed=index)
    return run


def test_what_was_trained_restores_and_goes_on_to_be_trained(run):
    code, out, _ = run("train", "photos", "--task", "upscale", "-s", "2", "-o", "run", *SMALL, *SHORT)
    assert code == 0
    assert json.loads(out[0])["step"] == 4
    assert out[-1] == "run/weights.safetensors"
    assert load_network("run/weights.safetensors").info.scale == 2
    code, out, _ = run("upscale", "photos/0.png", "--weights", "run/weights.safetensors", "-o", "big.png")
    assert code == 0
    with Image.open("big.png") as big:
        assert big.size == (96, 80)
    further = ("--weights", "run/weights.safetensors", *SHORT)
    code, _, _ = run("train", "photos", "--task", "upscale", "-o", "more", *further)
    assert code == 0
    assert load_network("more/weights.safetensors").info.scale == 2
    code, out, err = run("train", "photos", "--task", "upscale", "-s", "4", "-o", "other", *further)
    assert (code, out) == (2, [])
    assert "weights.safetensors (MambaIR) does upscale ×2; --scale 2 would work" in err
    code, out, err = run("train", "photos", "--task", "denoise", "-o", "other", *further)
    assert (code, out) == (2, [])
    assert "cannot train for denoise: weights.safetensors (MambaIR) does upscale ×2; one that keeps" in err


@pytest.mark.parametrize("seed", [-1, 10**23])
def test_a_seed_that_no_generator_takes_is_refused_in_a_line(run, seed):
    code, out, err = run(
        "train", "photos", "--task", "denoise", "--degradation", "real", "-o", "run", "--seed", seed
    )
    assert (code, out, len(err.splitlines())) == (2, [], 1)
    assert "--seed" in err


def test_a_slow_run_says_so_unless_it_is_to_be_quiet(run, monkeypatch):
    monkeypatch.setattr(pace, "SAID_FROM_SECONDS", 0)
    code, _, err = run("train", "photos", "--task", "denoise", "-o", "run", *SMALL, *SHORT)
    assert code == 0
    assert len(err.splitlines()) == 1
    assert re.match(r"mambair: a step takes about [0-9.e-]+ s on cpu, 4 steps ", err)
    code, out, err = run("train", "photos", "--task", "denoise", "-o", "other", *SMALL, *SHORT, "--quiet")
    assert (code, err) == (0, "")
    assert (json.loads(out[0])["step"], out[1:]) == (4, ["other/weights.safetensors"])


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize("quiet", [False, True])
def test_an_interrupted_run_that_is_to_be_quiet_says_that_alone(run, quiet):
    steps = ("--steps", "4000", "--batch", "1", "--crop", "8", "--device", "cpu")
    command = ["train", "photos", "--task", "denoise", "-o", "run", *SMALL, *steps]
    with start_forked("-m", "mambair_cli", *command, *(["-q"] if quiet else [])) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["step"] == 100
        process.send_signal(signal.SIGTERM)
        err = process.communicate()[1]
    assert process.returncode == 130
    notices = [] if quiet else [f"mambair: {STOP_MESSAGE}"]
    slow = "mambair: a step takes"  # said on a busy machine
    lines = [line for line in err.splitlines() if not line.startswith(slow)]
    assert lines == [*notices, "mambair: interrupted"]


def test_a_run_that_the_machine_cannot_hold_ends_with_the_code_for_memory(run):
    command = ("train", "photos", "--task", "denoise", "-o", "run", *SMALL, *SHORT[:-6])
    code, out, err = run(*command, "--crop", 50_000, "--device", "cpu")
    assert (code, out) == (4, [])
    assert is_one_line(err)
    assert "GiB of memory, and this machine has" in err


def test_defaults_are_those_of_a_run_from_python():
    from mambair_cli.cli.train import train

    options = inspect.signature(train).parameters
    for field in dataclasses.fields(TrainConfig):
        name = {"quality": "jpeg_quality"}.get(field.name, field.name)
        if name in options and name not in ("task", "images", "output", "scale", "device"):
            assert options[name].default == field.default, name


def read_training(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["training"])


def test_a_run_goes_on_with_its_own_options(run):
    options = ("--task", "dejpeg", "--jpeg-quality", "20", "30", "--loss", "l2", "--seed", "3")
    code, _, _ = run("train", "photos", *options, "-o", "whole", *SMALL, *SHORT, "--steps", "6")
    assert code == 0
    assert run("train", "photos", *options, "-o", "run", *SMALL, *SHORT)[0] == 0
    code, out, err = run("train", "photos", "--resume", "-o", "run", "--device", "cpu")
    assert (code, out, err) == (
        0,
        ["run/weights.safetensors"],
        "mambair: all 4 steps are done; larger --steps go on\n",
    )
    code, out, err = run("train", "photos", "--resume", "-o", "run", "--steps", "6")
    assert (code, out[-1], err) == (0, "run/weights.safetensors", "")
    whole, resumed = read_training("whole/weights.safetensors"), read_training("run/weights.safetensors")
    assert {**whole, "output": "run"} == resumed


def test_a_run_from_python_goes_on_by_the_command(run):
    network = MambaIRv2Config(30, (1,), (3,), d_state=2, d_inner=8, inner_rank=4, num_tokens=8, window_size=8)
    config = TrainConfig(
        "denoise", (Path("photos"),), Path("run"), network=network, shrink=(1.0, 0.8), weight_decay=0.1,
        crop=8, batch=1, steps=1, validation=Path("photos"), precision="fp32",
    )  # fmt: skip
    train(config)
    code, out, err = run("train", "photos", "--resume", "-o", "run", "--steps", "2")
    assert (code, err) == (0, "")
    assert json.loads(out[0])["step"] == 2
    assert read_config(read_training("run/weights.safetensors")) == dataclasses.replace(config, steps=2)


def test_a_run_that_started_from_weights_keeps_them(run):
    assert run("train", "photos", "--task", "upscale", "-s", "2", "-o", "first", *SMALL, *SHORT)[0] == 0
    weights = ("--weights", "first/weights.safetensors")
    assert run("train", "photos", "--task", "upscale", *weights, "-o", "run", *SHORT)[0] == 0
    code, _, err = run("train", "photos", "--resume", "-o", "run", "--d-state", 4)
    assert code == 2
    assert "first/weights.safetensors has its own network: --d-state 4; leave it out" in err
    Path("first").rename("moved")
    moved = ("--weights", "moved/weights.safetensors", "--steps", "5")
    assert run("train", "photos", "--resume", "-o", "run", *moved)[0] == 0
    assert read_training("run/weights.safetensors")["weights"] == "moved/weights.safetensors"


def test_all_options_that_would_make_a_run_another_one_are_named_at_once(run):
    assert run("train", "photos", "--task", "upscale", "-s", "2", "-o", "run", *SMALL, *SHORT)[0] == 0
    for given, message in (
        (
            "--task denoise --sigma 1 2 --crop 9 --d-inner 9",
            "with --task denoise, --sigma 1 2, --crop 9 and --d-inner 9: it was begun with --task upscale, "
            "--sigma 0 55, --crop 8 and --d-inner 8; give those, or leave them out",
        ),
        ("--scale 3", "with --scale 3: it was begun with --scale 2; give that, or leave it out"),
        ("--steps 3", "with --steps 3: it was begun with --steps 4; give that, or leave it out"),
        (
            "--weights run/weights.safetensors",
            "with --weights: it was begun with a new network; give that, or",
        ),
        ("--jpeg-quality 1 2", "upscale is trained without JPEG: --jpeg-quality 1 2; leave it out"),
    ):
        code, out, err = run("train", "photos", "--resume", "-o", "run", *given.split())
        assert (code, out) == (2, [])
        assert is_one_line(err)
        assert message in err


def test_a_run_in_the_place_of_the_pictures_is_answered_with_the_whole_command(run):
    Path("photos").rename("my photos")
    assert run("train", "my photos", "--task", "denoise", "-o", "run", *SMALL, *SHORT)[0] == 0
    code, _, err = run("train", "run", "--resume")
    command = "mambair train 'my photos' --resume -o run"
    assert (code, err) == (
        2,
        f"mambair: error: --output is not given: run holds a run; this continues it: {command}\n",
    )
    assert run(*shlex.split(command)[1:])[0] == 0


def test_a_denoiser_says_what_it_is_for(run):
    code, _, _ = run("train", "photos", "--task", "denoise", "--sigma", 10, 20, "-o", "run", *SMALL, *SHORT)
    assert code == 0
    assert load_network("run/weights.safetensors").info.task == "denoise"
    code, _, err = run("dejpeg", "photos/0.png", "--weights", "run/weights.safetensors")
    assert code == 3
    assert "does denoise" in err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("photos", "--task", "denoise", "-s", "2", "-o", "run"), 2),
        (("photos", "--task", "denoise", "-o", "run", "--depths", "1;2"), 2),
        (("photos", "--task", "denoise", "-o", "run", "--sigma", "20", "10"), 2),
        (("photos", "--task", "denoise", "-o", "run", "--depths", "3,0"), 2),
        (("photos", "--task", "denoise", "-o", "run", "--jpeg-quality", "10", "20"), 2),
        (("photos", "--task", "upscale", "-o", "run", "--sigma", "10", "20"), 2),
        (("photos", "--task", "denoise", "-o", "run", "--sigma", "10", "nan"), 2),
        (("photos", "--task", "denoise", "-o", "run", "--learning-rate", "inf"), 2),
        (("photos", "--task", "denoise", "-o", "run", "--weights", "no.pth", "--d-state", "4"), 2),
        (("photos", "--task", "denoise", "-o", "run", "--validation", "nothing"), 2),
        (("nothing", "--task", "denoise", "-o", "run"), 2),
        (("photos", "--task", "denoise", "-o", "run", "--weights", "no.pth"), 3),
        (("photos", "--task", "denoise", "-o", "run", "--resume"), 2),
        (("photos", "--task", "denoise", "-o", "photos/0.png"), 2),
        (("photos", "-o", "run"), 2),
    ],
)
def test_what_cannot_be_trained_is_one_line(run, arguments, code):
    got, out, err = run("train", *arguments, *SHORT, *(() if "--weights" in arguments else SMALL[:2]))
    assert (got, out) == (code, [])
    assert len(err.splitlines()) == 1
    assert err.startswith("mambair: error: ")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_the_bar_is_on_the_terminal_and_the_log_is_in_the_pipe(run, tmp_path):
    seen = run_in_terminal(["train", "photos", "--task", "denoise", "-o", "run", *SMALL, *SHORT], tmp_path)
    record, path = seen.stdout.splitlines()
    assert seen.code == 0
    assert json.loads(record)["step"] == 4
    assert path == b"run/weights.safetensors"
    assert b"4/4" in seen.shown
    assert f"steps loss {json.loads(record)['loss']:.4f}".encode() in seen.shown


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that refuses what is written")
@pytest.mark.parametrize("is_closed", [False, True])
def test_a_log_that_cannot_be_printed_loses_no_step(run, is_closed):
    command = ["train", "photos", "--task", "denoise", "-o", "run", *SMALL, *SHORT]
    reader, writer = os.pipe()
    os.close(reader)  # as head does
    with (
        open("/dev/full", "w") as full,
        start_forked("-m", "mambair_cli", *command, stdout=writer if is_closed else full) as process,
    ):
        err = process.communicate()[1]
    os.close(writer)
    finished = ["mambair: all 4 steps are done and saved in run"]
    failed = "mambair: error: cannot write to standard output: No space left on device; make room"
    assert (process.returncode, err.splitlines()) == (1, finished if is_closed else [*finished, failed])
    code, out, _ = run(*command, "--resume", "--steps", "5")
    assert (code, out[-1]) == (0, "run/weights.safetensors")
    assert load_network("run/weights.safetensors").info.task == "denoise"
