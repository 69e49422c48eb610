"""The benchmarks for GPUs, tried on the CPU, since time on a GPU is expensive."""

import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from networks import CONFIGS
from repository import ROOT

from mambair_cli.networks import build_network

TOLERANCE = 1e-5  # relative, in float32


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


@pytest.mark.parametrize("paths", [1, 4])
def test_the_scan_is_timed_in_every_cut(paths, cuda_kernels):
    module = import_module("cuda_scan")
    said = module.describe(module.Case("toy", 1, 3, paths, 2, 4), torch.device("cpu"), 1)
    assert re.fullmatch(
        r"toy +1 of 3×3: least 0\.000 ms, [\d.]+ \(\d lanes?, \d+ threads\), \d+%; others .*", said
    )
    assert said.count(" threads") == 5


def run(*arguments):
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", *arguments, "--device", "cpu", "--turns", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["v1", "v1 light", "v1 ×4", "v1 nearest", "v2", "v2 light", "v2 odd window"])
def test_the_official_way_gives_the_same(name, monkeypatch):
    def without_noise(logits, hard, dim):
        assert hard
        return F.one_hot(logits.argmax(dim), logits.shape[dim]).float()

    monkeypatch.setattr(F, "gumbel_softmax", without_noise)
    torch.manual_seed(0)
    net = build_network(CONFIGS[name]).eval()
    with torch.inference_mode():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
        x = torch.rand(2, 3, 20, 40)
        if name == "v2 odd window":  # the official code pads, which is not imitated
            x = x[:, :, :15]
        got, wanted = import_module("official").Official(net)(x), net(x)
    assert ((got - wanted).norm() / (wanted - wanted.mean()).norm()).item() < TOLERANCE


@pytest.mark.parametrize("name", CONFIGS)
def test_the_floor_grows_with_the_image(name):
    least_seconds = import_module("floor").least_seconds
    if name.startswith("U-Net"):
        with pytest.raises(ValueError, match="four resolutions"):
            least_seconds(CONFIGS[name], 100)
    else:
        assert 0 < least_seconds(CONFIGS[name], 100) < least_seconds(CONFIGS[name], 101)


def test_the_floor_of_the_classic_network_is_what_was_counted_by_hand():
    floor, gpu = import_module("floor"), import_module("gpu")
    assert 0.020 < floor.least_seconds(gpu.CASES["v1-classic"], 256 * 256) < 0.023


def test_what_the_official_code_lacks_on_a_gpu_is_said(monkeypatch):
    for name in ("mamba_ssm", "selective_scan_cuda"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit, match=r"needs mamba_ssm on a GPU: .*pip install mamba-ssm, or .* --own"):
        import_module("official").find_scan(torch.device("cuda"))


def test_every_round_of_a_batch_has_an_image(monkeypatch):
    batch, made = import_module("batch"), []

    class Restorer:
        device = torch.device("cpu")

        def __call__(self, picture):
            return picture

    def make_photographs(folder, images, width, height):
        made.append(images)
        return [0] * images

    monkeypatch.setattr(batch, "make_photographs", make_photographs)
    monkeypatch.setattr(batch, "make_restorer", lambda *settings: Restorer())
    monkeypatch.setattr(batch, "restore_folder", lambda folder, restorer: None)
    monkeypatch.setattr(sys, "argv", ["batch.py", "--images", "3"])
    batch.main()
    assert made == [1] * 5


def test_a_run_that_fails_by_itself_is_not_killed(tmp_path, monkeypatch):
    kill = import_module("kill")
    monkeypatch.setattr(kill, "run_to_end", lambda *settings: [])
    fail = "raise SystemExit(3)"
    with pytest.raises(RuntimeError, match="a run failed by itself, with exit code 3"):
        kill.kill_and_resume(
            tmp_path, [], 1, 0, start=lambda command, folder: kill.start_process(["-c", fail], folder)
        )


def test_networks_are_compared():
    lines = run("toy-v1", "toy-v2", "--side", "32").splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["toy-v1", "toy-v2"]
    assert all(line.endswith("scan: a loop") for line in lines[2:])


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
def test_tiles_and_batches_are_swept():
    lines = run("toy-v1", "--side", "2", "--tile", "1", "--sweep").splitlines()
    assert len([line for line in lines if " ms" in line]) == 3


@pytest.mark.skipif(find_spec("spandrel") is None, reason="needs the extra benchmarks")
def test_rivals_are_timed():
    last = run("toy-v1", "--own", "--side", "16", "--rivals", "swinir-light").splitlines()[-1]
    assert last.startswith("swinir-light")
    assert "toy-v1" in last


@pytest.mark.skipif(find_spec("spandrel") is None, reason="needs the extra benchmarks")
@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # as SwinIR and HAT call it
@pytest.mark.parametrize("name", ["hat", "rrdb"])
def test_every_kind_of_rival_can_be_made(name):
    net = import_module("rivals").make_rival(name)
    assert sum(parameter.numel() for parameter in net.parameters()) > 16_000_000
