"""The fused forward pass against the networks themselves: on a GPU where there is one, else interpreted."""

import os
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from cuda_twin import run_on_cpu
from networks import CONFIGS

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before the first import of Triton, which reads it then

pytest.importorskip("triton")

from mambair_cli.engine import Engine, restore_rows
from mambair_cli.kernels import cuda
from mambair_cli.kernels.cuda import Shape
from mambair_cli.kernels.graphs import Replayed
from mambair_cli.model import MambaIR, build_network, fused
from mambair_cli.model.fused import FusedMambaIR
from mambair_cli.tiling import plan_tiles

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
TOLERANCE = 2e-3  # relative to what the network adds; a value in 16 bits is right to 5e-4


@pytest.fixture
def cuda_scan(tmp_path_factory, monkeypatch):
    """Have the scan in CUDA C++ do its part, on the CPU where there is no GPU."""
    if not HAS_GPU and shutil.which("g++") is None:
        pytest.skip("needs a GPU or g++")
    monkeypatch.setattr(fused, "has_cuda_scan", lambda device: True)
    if not HAS_GPU:  # few threads, which wait for each other less
        small = Shape(lanes=2, steps=4, stage=8, threads=32, blocks=1)
        monkeypatch.setattr(cuda, "choose_cut", lambda *work: (small, 2))
    with nullcontext() if HAS_GPU else run_on_cpu(tmp_path_factory.mktemp("twin")):
        yield


def make_network(config):
    torch.manual_seed(0)
    net = build_network(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # so that skips, norms and biases are not what they start as
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return net.to(DEVICE)


def check(config, height, width):
    net = make_network(config)
    assert isinstance(net, MambaIR)
    x = torch.rand(2, net.config.in_chans, height, width, device=DEVICE)
    with torch.inference_mode():
        wanted, got = net(x), FusedMambaIR(net)(x)
    assert got.shape == wanted.shape
    assert got.dtype == torch.float32
    error = ((got - wanted).norm() / (wanted - wanted.mean()).norm()).item()
    assert error < TOLERANCE, f"{error:.1e}"


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.startswith("v1")])
def test_gives_what_the_network_gives(name, cuda_scan):
    check(CONFIGS[name], 5, 7)


def test_does_without_cuda_as_well(monkeypatch):
    monkeypatch.setattr(fused, "has_cuda_scan", lambda device: False)
    check(CONFIGS["v1"], 2, 3)


def test_the_engine_goes_on_without_it_where_it_fails():
    net = make_network(CONFIGS["v1"])
    engine = Engine(net, DEVICE, "fp32")
    x, origin = torch.rand(1, 3, 5, 7, device=DEVICE), torch.zeros(1, 2)

    def fail(x):
        raise OSError("no compiler")

    engine._fast = Replayed(fail)
    with torch.inference_mode():
        with pytest.warns(UserWarning, match="not taken, since it fails: no compiler"):
            y = engine.run(x, origin, None)
        torch.testing.assert_close(y, net(x))
        engine.run(x, origin, None)  # and says so once


@pytest.mark.parametrize(("error", "is_taken"), [(0.001, True), (0.05, False), (float("nan"), False)])
def test_the_engine_goes_on_without_it_where_it_gives_other_values(error, is_taken):
    net = make_network(CONFIGS["v1"])
    engine = Engine(net, DEVICE, "fp32")
    x, origin = torch.rand(1, 3, 5, 7, device=DEVICE), torch.zeros(1, 2)
    engine._fast = Replayed(lambda x: net(x) + error)
    with torch.inference_mode():
        if is_taken:
            torch.testing.assert_close(engine.run(x, origin, None), net(x) + error)
        else:
            with pytest.warns(UserWarning, match="not taken, since it fails: its values differ by"):
                y = engine.run(x, origin, None)
            torch.testing.assert_close(y, net(x))


@pytest.mark.gpu
def test_the_engine_replays_it_to_the_same_bits():
    net = make_network(CONFIGS["v1 ×4"])
    engine = Engine(net, DEVICE)
    image = np.random.default_rng(0).random((64, 64, 3), np.float32)
    plan = plan_tiles(64, 64, 64, 0)
    runs = [np.concatenate(list(restore_rows(engine, image, plan, 1, None))) for _ in range(3)]
    first, second, third = runs
    np.testing.assert_array_equal(second, first)  # recorded
    np.testing.assert_array_equal(third, first)  # and replayed
    full = np.concatenate(list(restore_rows(Engine(net, DEVICE, "fp32"), image, plan, 1, None)))
    assert 0 < np.abs(first - full).max() < 1 / 255


@pytest.mark.gpu
def test_what_overflows_in_16_bits_is_done_again_in_32():
    net = make_network(CONFIGS["v1 same size, direct"])
    weights = net.state_dict()
    weights["conv_after_body.weight"].mul_(1e7)
    weights["upsample.0.weight"].mul_(1e-7)
    image = np.random.default_rng(0).random((32, 32, 3), np.float32)
    plan = plan_tiles(32, 32, 32, 0)
    got, wanted = (
        np.concatenate(list(restore_rows(Engine(net, DEVICE, precision), image, plan, 1, None)))
        for precision in ("auto", "fp32")
    )
    np.testing.assert_array_equal(got, wanted)
