"""The fused forward pass against the networks themselves: on a GPU where there is one, else interpreted."""

import math
import shutil
import warnings
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from cuda_twin import run_on_cpu
from interpreted import DEVICE
from networks import CONFIGS, V1, V2

from mambair_cli.kernels import cuda_depthwise, cuda_scan, self_check, triton_routing
from mambair_cli.kernels.cuda_graph import Replayed
from mambair_cli.kernels.cuda_scan import ScanShape
from mambair_cli.networks import MambaIRv2, MambaIRv2Config, build_network, fuse_network
from mambair_cli.networks.fused import convolutions as fused_convolutions
from mambair_cli.networks.fused import scan as fused_scan
from mambair_cli.networks.fused import v1 as fused_v1
from mambair_cli.networks.fused.v2 import ATTENTION, FusedMambaIRv2
from mambair_cli.networks.mambair_v2 import WindowAttention
from mambair_cli.restore.engine import Engine, run_image
from mambair_cli.restore.tiling import plan_tiles
from mambair_cli.system import disk_cache

HAS_GPU = DEVICE.type == "cuda"
TOLERANCE = 2e-3  # relative to what the network adds; a value in 16 bits is right to 5e-4
EXACT_TOLERANCE = 2e-5  # in float32


def shortened(config):
    """Return the same with one group of layers; the second layer of MambaIRv2 shifts its windows."""
    if isinstance(config, MambaIRv2Config):
        return replace(config, depths=(2,), num_heads=(3,))
    return replace(config, depths=(1,))


SHORT = {"v1": shortened(V1), "v2": shortened(V2)}


@pytest.fixture
def scan_in_cuda(tmp_path_factory, monkeypatch):
    """Have the scan in CUDA C++ do its part, on the CPU where there is no GPU."""
    if not HAS_GPU and shutil.which("g++") is None:
        pytest.skip("needs a GPU or g++")
    for module in (fused_scan, fused_convolutions):
        monkeypatch.setattr(module, "has_nvrtc", lambda device: True)
    if not HAS_GPU:  # few threads, which wait for each other less
        small = ScanShape(lanes=2, steps=4, stage=8, threads=32, blocks=1)
        monkeypatch.setattr(cuda_scan, "choose_cut", lambda *work: (small, 2))
        monkeypatch.setattr(
            cuda_depthwise, "choose_shape", lambda *kernel: cuda_depthwise.DepthwiseShape(2, 2, 16, 1)
        )
    with nullcontext() if HAS_GPU else run_on_cpu(tmp_path_factory.mktemp("twin")):
        yield


def make_network(config, spread=0.02):
    torch.manual_seed(0)
    net = build_network(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # so that skips, norms and biases are not what they start as
            parameter.add_(torch.randn_like(parameter) * spread)
    return net.to(DEVICE)


def error_of(got, wanted):
    """Return how far it is off, relative to what the network adds."""
    assert got.shape == wanted.shape
    assert got.dtype == torch.float32
    return ((got - wanted).norm() / (wanted - wanted.mean()).norm()).item()


def fuse(net, dtype=torch.float16):
    fused = fuse_network(net, dtype)
    assert fused is not None
    return fused


def check(config, height, width):
    net = make_network(config)
    fused = fuse(net)
    with torch.inference_mode():
        error = error_of(*fused.compare(torch.rand(2, config.in_chans, height, width, device=DEVICE)))
    assert error < TOLERANCE, f"{error:.1e}"


BODIES = ("v1", "v1 3conv", "v1 light", "v1 light 2024-03", "v1 light 2024-02", "v2", "v2 light")
ENDS = ("v1 gray", "v1 ×2", "v1 ×3", "v1 ×4", "v1 ×8", "v1 nearest", "v1 same size, direct")


@pytest.mark.parametrize("name", [*BODIES, "v2 odd window"])
def test_gives_what_the_network_gives(name, scan_in_cuda):
    check(CONFIGS[name] if name in SHORT else shortened(CONFIGS[name]), 5, 7)


@pytest.mark.parametrize("narrow", [0, 64])
def test_makes_the_gate_before_the_scan_or_after_it(narrow, scan_in_cuda, monkeypatch):
    monkeypatch.setattr(fused_v1, "NARROW", narrow)
    check(SHORT["v1"], 5, 7)


@pytest.mark.parametrize("name", ENDS)
def test_begins_and_ends_as_the_network_does(name, scan_in_cuda):
    check(shortened(CONFIGS[name]), 2, 3)


@pytest.mark.parametrize("name", ["v2", "v2 light"])
def test_routes_as_the_network_does(name, scan_in_cuda):
    net = make_network(CONFIGS[name] if name in SHORT else shortened(CONFIGS[name]))
    x, origin = torch.rand(2, 3, 9, 6, device=DEVICE), torch.tensor([[0, 0], [144, 288]])
    with torch.inference_mode():
        wanted = net(x, seed=7, origin=origin)
        fused = fuse(net, torch.float32)  # in 16 bits, a few pixels choose another token
        assert error_of(fused(x, origin, 7), wanted) < EXACT_TOLERANCE
        assert error_of(fused(x, origin, 8), wanted) > 10 * EXACT_TOLERANCE


def test_a_norm_with_another_epsilon_is_refused(monkeypatch):
    net = make_network(SHORT["v1"])
    monkeypatch.setattr(net.norm, "eps", 1e-6)
    with pytest.raises(AssertionError, match="epsilon must be 1e-05, not 1e-06"):
        fuse(net)


def test_a_wrong_routing_is_seen(scan_in_cuda, monkeypatch):
    net, tokens = make_network(SHORT["v2"], spread=0.1), 5
    route = triton_routing.route_pixels

    def turn(*operands):
        labels, path = route(*operands)
        return (labels + 1) % tokens, path

    monkeypatch.setattr(triton_routing, "route_pixels", turn)
    with torch.inference_mode():
        assert error_of(*fuse(net).compare(torch.rand(1, 3, 4, 4, device=DEVICE))) > 10 * TOLERANCE


@pytest.mark.parametrize("shift", [0, 2])
def test_biases_lie_in_rows_as_fused_attentions_want_them(shift):
    attention, index = WindowAttention(6, 3, 4, shift), torch.zeros(16, 16, dtype=torch.int64)
    assert attention.biases(index, torch.float16).is_contiguous()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_fused_attention_is_taken(dtype):
    net = make_network(SHORT["v2"])
    assert isinstance(net, MambaIRv2)
    assert FusedMambaIRv2(net, dtype)._attention in ATTENTION


@pytest.mark.parametrize("name", SHORT)
def test_does_without_cuda_as_well(name, monkeypatch):
    for module in (fused_scan, fused_convolutions):
        monkeypatch.setattr(module, "has_nvrtc", lambda device: False)
    check(SHORT[name], 2, 3)


@pytest.fixture(autouse=True)
def forgetful(monkeypatch, tmp_path):
    """Let no test remember what another one found right."""
    monkeypatch.setattr(disk_cache, "cache_folder", lambda: tmp_path)


class Wrong:
    """A network in place of the fused one, wrong by so much, or an exception."""

    compared = 0

    def __init__(self, net, error):
        self.net, self.error = net, error

    def __call__(self, x, origin=None, seed=None):
        if isinstance(self.error, Exception):
            warnings.warn("no kernel, since rows are apart. (Triggered internally)", stacklevel=1)
            raise self.error
        return self.net(x) + self.error

    def compare(self, x):
        self.compared += 1
        self.shape = x.shape
        return self(x), self.net(x)


def make_engine_with(error, name="v1"):
    engine = Engine(make_network(CONFIGS[name]), DEVICE, "fp32")
    engine._fused = Wrong(engine.net, error)
    engine._fast = Replayed(engine._fused)
    return engine, torch.rand(1, 3, 5, 7, device=DEVICE), torch.zeros(1, 2)


def test_the_engine_goes_on_without_it_where_it_fails():
    engine, x, origin = make_engine_with(OSError("no compiler"))
    with torch.inference_mode():
        with pytest.warns(UserWarning, match="slower PyTorch path on this GPU: no compiler"):
            y = engine.run(x, origin, None)
        torch.testing.assert_close(y, engine.net(x))
        engine.run(x, origin, None)  # and says so once


def test_the_engine_says_what_pytorch_only_warns_of():
    engine, x, origin = make_engine_with(RuntimeError("No kernel."))
    said = r"on this GPU: No kernel\. no kernel, since rows are apart\.$"
    with torch.inference_mode(), pytest.warns(UserWarning, match=said):
        engine.run(x, origin, None)


def test_memory_that_runs_out_does_not_count_against_it():
    engine, x, origin = make_engine_with(torch.OutOfMemoryError("CUDA out of memory"))
    with torch.inference_mode(), pytest.raises(torch.OutOfMemoryError):
        engine.run(x, origin, None)
    assert engine._fast is not None


def test_memory_that_runs_out_while_it_is_checked_leaves_it_to_be_checked(monkeypatch):
    engine, x, origin = make_engine_with(torch.OutOfMemoryError("CUDA out of memory"))
    with torch.inference_mode():
        with pytest.raises(torch.OutOfMemoryError):
            engine.run(x, origin, None)
        monkeypatch.setattr(engine._fused, "error", 0.05)
        with pytest.warns(UserWarning, match=r"the faster path differs by 0\.05 from"):
            engine.run(x, origin, None)


@pytest.mark.parametrize(("error", "is_taken"), [(0.001, True), (0.05, False), (float("nan"), False)])
def test_the_engine_goes_on_without_it_where_it_gives_other_values(error, is_taken):
    engine, x, origin = make_engine_with(error)
    with torch.inference_mode():
        if is_taken:
            torch.testing.assert_close(engine.run(x, origin, None), engine.net(x) + error)
        else:
            said = "gives values that are not finite" if math.isnan(error) else "differs by 0.05 from"
            with pytest.warns(UserWarning, match=f"on this GPU: the faster path {said}"):
                y = engine.run(x, origin, None)
            torch.testing.assert_close(y, engine.net(x))


def compare_once(engine, x, origin):
    with torch.inference_mode():
        engine.run(x, origin, None)
    return engine._fused.compared


def test_the_engine_compares_batches_whose_pixels_leave_the_last_blocks_of_kernels_unfilled():
    engine, x, origin = make_engine_with(0.001)
    compare_once(engine, x, origin)
    assert isinstance(engine._fused, Wrong)
    b, _, height, width = engine._fused.shape
    assert b > 1
    assert height != width
    assert height * width % triton_routing.ROWS
    assert height * width % ScanShape().stage


def test_the_engine_remembers_what_was_right_and_nothing_else(monkeypatch):
    assert compare_once(*make_engine_with(0.001)) == 1
    assert compare_once(*make_engine_with(0.001)) == 0
    assert compare_once(*make_engine_with(0.001, "v1 light")) == 1  # another network
    monkeypatch.setattr(self_check, "source_files", list)  # other sources
    engine, x, origin = make_engine_with(0.05)
    for _ in range(2):
        with torch.inference_mode(), pytest.warns(UserWarning, match="the faster path differs by"):
            engine.run(x, origin, None)
        engine, x, origin = make_engine_with(0.05)


def test_what_cannot_be_remembered_is_found_out_again(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setattr(disk_cache, "cache_folder", lambda: blocked / "folder")
    for _ in range(2):
        assert compare_once(*make_engine_with(0.001)) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["v1 ×4", "v2 ×4", "v2 light"])
def test_the_engine_replays_it_to_the_same_bits(name):
    net = make_network(CONFIGS[name])
    engine = Engine(net, DEVICE)
    image = np.random.default_rng(0).random((64, 64, 3), np.float32)
    plan = plan_tiles(64, 64, 32, 16)
    runs = [run_image(engine, image, plan, 3, 0) for _ in range(3)]  # of three batches each
    first, second, third = runs
    assert engine._fast is not None
    np.testing.assert_array_equal(second, first)  # recorded
    np.testing.assert_array_equal(third, first)  # and replayed
    other = run_image(engine, image, plan, 3, 1)
    assert (name.startswith("v2")) == bool(np.any(other != first))  # another seed, another recording
    if name.startswith("v1"):  # in MambaIRv2 a few pixels choose another token
        full = run_image(Engine(net, DEVICE, "fp32"), image, plan, 3, 0)
        assert 0 < np.abs(first - full).max() < 1 / 255


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["v1 ×4", "v2 ×4"])
def test_works_on_a_card_that_is_not_the_current_one(name):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two cards")
    image = np.random.default_rng(0).random((32, 32, 3), np.float32)
    engines = [Engine(make_network(CONFIGS[name]), torch.device("cuda", number)) for number in (1, 0)]
    plan = plan_tiles(32, 32, 32, 0)
    results = [run_image(engine, image, plan, 1, 0) for engine in engines for _ in range(3)]
    assert all(engine._fast is not None for engine in engines)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.gpu
def test_what_overflows_in_16_bits_is_done_again_in_32():
    net = make_network(CONFIGS["v1 same size, direct"])
    weights = net.state_dict()
    weights["conv_after_body.weight"].mul_(1e7)
    weights["upsample.0.weight"].mul_(1e-7)
    image = np.random.default_rng(0).random((32, 32, 3), np.float32)
    plan = plan_tiles(32, 32, 32, 0)
    wanted = run_image(Engine(net, DEVICE, "fp32"), image, plan, 1, None)
    with pytest.warns(UserWarning, match="on this GPU: the faster path gives values that are not finite"):
        got = run_image(Engine(net, DEVICE), image, plan, 1, None)
    np.testing.assert_array_equal(got, wanted)
