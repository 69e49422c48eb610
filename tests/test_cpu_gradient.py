"""What is the vector backend's own gradient: its edges, its threads, its memory, and whole networks.

That it agrees with the equation is tested with the other backends, in test_kernels.py.
"""

import copy

import llvmlite.binding as llvm
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import CONFIGS
from scans import Operands
from torch.utils.checkpoint import checkpoint

from mambair_cli.kernels import Backend, ScanParams, cpu_gradient, cpu_scan, cpu_threads, selective_scan
from mambair_cli.kernels.llvm_builder import Code, count_lanes
from mambair_cli.kernels.llvm_math import softplus_and_slope
from mambair_cli.networks import build_network

pytestmark = pytest.mark.usefixtures("one_thread")

FLOAT32_ROUNDING = 2.0**-24
TOLERANCE = 5e-6  # of a gradient's largest value; some 50 roundings add up along a path of 50
TOLERANCE_CANCELLED = 1e-3  # where the only value may be what is left of much larger terms


@pytest.fixture
def fresh_kernels():
    kernels = cpu_scan._compile_kernel, cpu_gradient._compile_kernel
    for kernel in kernels:
        kernel.cache_clear()
    yield
    for kernel in kernels:
        kernel.cache_clear()


def make_operands(b=2, length=50, d=37, k=4, n=5, r=3, path_per_image=False, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    params = ScanParams(normal(k, d, r), normal(k, d) - 2, -torch.exp(normal(k, d, n)), normal(k, d))
    count = b * k if path_per_image else k
    paths = torch.stack([torch.randperm(length, generator=generator) for _ in range(count)]).int()
    if path_per_image:
        paths = paths.view(b, k, length)
    u, dt, B, C = (normal(b, length, *rest) for rest in ((d,), (k, r), (k, n), (k, n)))
    return Operands(u, dt, B, C, paths, params)


def gradients(operands, backend: Backend = "cpu", dtype=torch.float32):
    """Return y, and the gradients of all operands but the paths for an uneven gradient of y."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in (*operands[:4], *operands.params)]
    u, dt, B, C, *params = leaves
    y = selective_scan(u, dt, B, C, operands.paths, ScanParams(*params), backend=backend)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), leaves)]


def check(operands, tolerance=TOLERANCE):
    got, exact = gradients(operands), gradients(operands, "reference", torch.float64)
    for value, wanted in zip(got, exact, strict=True):
        assert value.dtype == torch.float32
        assert value.shape == wanted.shape
        assert (value - wanted).abs().max() < tolerance * wanted.abs().max() + 1e-30


def equal(first, second):
    return all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@pytest.mark.parametrize("d", [1, 7, 8, 9, 16, 31, 32, 33, 64, 75])
def test_channels_that_fill_no_block(d):
    check(make_operands(d=d))


@pytest.mark.parametrize("length", [1, 31, 32, 33, 67])
def test_tokens_that_fill_no_stretch(length):
    assert cpu_scan.STRETCH == 32
    check(make_operands(length=length, d=3))


@given(
    b=st.integers(1, 3),
    length=st.integers(1, 70),
    d=st.integers(1, 40),
    k=st.integers(1, 4),
    # few n and r, since each pair of them is some kernels to compile
    n_and_r=st.sampled_from([(1, 1), (4, 7), (16, 12)]),
    path_per_image=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_agrees_with_reference_whatever_the_sizes(b, length, d, k, n_and_r, path_per_image, seed):
    n, r = n_and_r
    check(make_operands(b, length, d, k, n, r, path_per_image, seed), TOLERANCE_CANCELLED)


@pytest.mark.parametrize(("b", "d", "length"), [(0, 3, 5), (2, 0, 5), (2, 3, 0)])
def test_gradients_of_nothing_are_zero(b, d, length):
    operands = make_operands(b=b, d=d, length=length or 1)
    if not length:
        u, dt, B, C, paths, params = operands
        operands = Operands(u[:, :0], dt[:, :0], B[:, :0], C[:, :0], paths[:, :0], params)
    got = gradients(operands)
    assert all(not x.any() for x in got)
    assert [x.shape for x in got[1:]] == [x.shape for x in (*operands[:4], *operands.params)]


def test_forward_pass_gives_the_bits_of_inference():
    operands = make_operands()
    with torch.no_grad():
        alone = selective_scan(*operands, backend="cpu")
    assert torch.equal(gradients(operands)[0], alone)


@pytest.mark.parametrize("in_team", [True, False])
@pytest.mark.parametrize("count", [2, 3, 7, 64])
@pytest.mark.parametrize(("b", "d", "k"), [(1, 75, 1), (2, 37, 4), (3, 70, 2)])
def test_threads_change_no_bit(b, d, k, count, in_team, monkeypatch):
    operands = make_operands(b=b, d=d, k=k)
    alone = gradients(operands)
    if not in_team:
        monkeypatch.setattr(cpu_threads, "_run_in_team", None)
    torch.set_num_threads(count)
    assert equal(gradients(operands), alone)


def test_gradient_can_be_asked_for_twice_but_has_none_itself():
    operands = make_operands()
    u = operands.u.requires_grad_()
    y = selective_scan(*operands, backend="cpu").sum()
    (once,) = torch.autograd.grad(y, u, create_graph=True)
    (again,) = torch.autograd.grad(y, u, retain_graph=True)
    assert torch.equal(once, again)
    with pytest.raises(RuntimeError):
        once.square().sum().backward()


@pytest.mark.parametrize("which", range(8))
def test_gradient_of_a_single_operand(which):
    operands = make_operands()
    leaves = [*operands[:4], *operands.params]
    leaves[which].requires_grad_()
    u, dt, B, C, *params = leaves
    y = selective_scan(u, dt, B, C, operands.paths, ScanParams(*params))
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (got,) = torch.autograd.grad((y * weights).sum(), [leaves[which]])
    assert torch.equal(got, gradients(operands)[1 + which])


def test_operands_may_lie_in_memory_as_they_like():
    u, dt, B, C, paths, params = operands = make_operands(path_per_image=True)
    wanted = gradients(operands)
    joined = torch.cat([dt, B, C], dim=-1).requires_grad_()
    dt, B, C = joined.split([3, 5, 5], dim=-1)
    wide = torch.full((2, 50, 48), torch.nan)
    wide[:, :, :37] = u
    wide.requires_grad_()
    strewn = [x.mT.contiguous().mT.requires_grad_() for x in params]
    y = selective_scan(wide[:, :, :37], dt, B, C, paths, ScanParams(*strewn), backend="cpu")
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    y.backward(weights.permute(2, 0, 1).contiguous().permute(1, 2, 0))
    assert wide.grad is not None
    assert joined.grad is not None
    assert not wide.grad[:, :, 37:].any()
    grads = [wide.grad[:, :, :37], *joined.grad.split([3, 5, 5], dim=-1), *(x.grad for x in strewn)]
    assert equal(grads, wanted[1:])


@pytest.mark.parametrize("operand", ["u", "dt", "B", "C"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_seen_in_the_gradients(operand, value):
    operands = make_operands(b=1, k=1)
    getattr(operands, operand)[0, 20] = value
    assert not all(x.isfinite().all() for x in gradients(operands)[1:])


def test_16_bit_tokens_get_gradients_of_their_type():
    operands = make_operands()
    tokens = [x.bfloat16().requires_grad_() for x in operands[:4]]
    u, dt, B, C = tokens
    y = selective_scan(u, dt, B, C, operands.paths, operands.params, backend="cpu")
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad(y, tokens, weights)
    u, dt, B, C = (x.detach().float() for x in tokens)
    rounded = Operands(u, dt, B, C, operands.paths, operands.params)
    for value, wanted in zip(got, gradients(rounded)[1:5], strict=True):
        assert value.dtype == torch.bfloat16
        assert torch.equal(value, wanted.bfloat16())


def test_pixel_that_does_not_exist_is_refused():
    operands = make_operands()
    operands.u.requires_grad_()
    operands.paths[2, 7] = 50
    with pytest.raises(ValueError, match="paths must name pixels from 0 to 49, not "):
        selective_scan(*operands, backend="cpu")


def test_memory_grows_with_tokens_not_with_states():
    peaks = []
    for length in (1000, 3000):
        operands = make_operands(b=1, length=length, d=64, n=16, r=4)
        gradients(operands)  # whatever is allocated once
        with torch.profiler.profile(profile_memory=True) as profiler:
            gradients(operands)
        peaks.append(sum(max(event.self_cpu_memory_usage, 0) for event in profiler.key_averages()))
    states = 2000 * 4 * 64 * 16 * 4  # bytes
    assert peaks[1] - peaks[0] < states / 2  # the sum of all that is allocated, which is more than its peak


@pytest.mark.usefixtures("fresh_kernels")
def test_runs_on_the_plainest_processor(monkeypatch):
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: "generic")
    monkeypatch.setattr(llvm, "get_host_cpu_features", llvm.FeatureMap)
    monkeypatch.setattr(cpu_scan, "LANES", count_lanes())
    check(make_operands())


@pytest.mark.usefixtures("fresh_kernels")
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_any_number_of_lanes(lanes, monkeypatch):
    monkeypatch.setattr(cpu_scan, "LANES", lanes)
    check(make_operands())


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_sum_of_each_vector_is_in_its_lane(lanes, count):
    code = Code("sums", ["source", "target"], [], lanes)
    vectors = [code.job["source"].at(i * lanes).load() for i in range(count)]
    code.job["target"].store(code.sum_each(vectors))
    values = np.arange(count * lanes, dtype=np.float32).reshape(count, lanes) ** 2
    sums = np.full(lanes, np.nan, dtype=np.float32)
    job = np.array([values.ctypes.data, sums.ctypes.data])
    code.compile()(np.ctypeslib.as_ctypes(job))
    assert sums.tolist() == [*values.sum(1), *[0] * (lanes - count)]


def test_slope_of_softplus_is_right_to_a_few_roundings_however_small():
    lanes = cpu_scan.LANES
    code = Code("slope", ["source", "target"], ["size"], lanes)
    with code.loop(0, code.job["size"], by=lanes) as i:
        code.job["target"].at(i).store(softplus_and_slope(code.job["source"].at(i).load())[1])
    x = np.linspace(-87, 87, 2**16, dtype=np.float32)
    slope = np.empty_like(x)
    code.compile()(np.ctypeslib.as_ctypes(np.array([x.ctypes.data, slope.ctypes.data, x.size])))
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    assert (np.abs(slope - exact) / exact).max() < 6 * FLOAT32_ROUNDING


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("v1", "denoise"),
        ("v1 light", "upscale"),
        ("v2", "denoise"),
        ("v2 light", "upscale"),
        ("U-Net", "denoise"),
    ],
)
def test_gradients_of_whole_networks(name, task, monkeypatch):
    torch.manual_seed(0)
    net = build_network(CONFIGS[name], task).train()
    x = torch.rand(2, 3, 11, 9)
    scans = []
    scan = cpu_gradient.selective_scan
    monkeypatch.setattr(cpu_gradient, "selective_scan", lambda *operands: scans.append(1) or scan(*operands))

    def measure(net, x):
        net.zero_grad()
        y = net(x)
        (y * torch.linspace(-1, 1, y.numel(), dtype=x.dtype).view(y.shape)).sum().backward()
        return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}

    got = measure(net, x)
    assert scans
    exact = measure(copy.deepcopy(net).double(), x.double())
    assert got.keys() == exact.keys()
    for key, wanted in exact.items():
        assert (got[key] - wanted).abs().max() < 1e-4 * wanted.abs().max() + 1e-9, key


def test_registrations_are_consistent():
    operands = make_operands(length=10, d=2)
    leaves = [x.requires_grad_() for x in (*operands[:4], *operands.params)]
    arguments = (*leaves[:4], operands.paths, *leaves[4:])
    torch.library.opcheck(torch.ops.mambair.cpu_scan.default, arguments)


def measure_gradients(operands, run):
    leaves = [x.detach().requires_grad_() for x in (*operands[:4], *operands.params)]
    return torch.autograd.grad(run(*leaves).square().sum(), leaves)


def test_gradient_is_the_same_under_a_checkpoint():
    operands = make_operands(length=10, d=2)

    def run(u, dt, B, C, *params):
        return selective_scan(u, dt, B, C, operands.paths, ScanParams(*params), "cpu")

    again = measure_gradients(operands, lambda *leaves: checkpoint(run, *leaves, use_reentrant=False))
    for got, wanted in zip(again, measure_gradients(operands, run), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_gradients_of_several_results_may_be_taken_at_once():
    operands = make_operands(length=10, d=2)
    leaves = [x.requires_grad_() for x in (*operands[:4], *operands.params)]
    u, dt, B, C, *params = leaves
    y = selective_scan(u, dt, B, C, operands.paths, ScanParams(*params), "cpu")
    weights = torch.stack([torch.ones_like(y), y.detach()])
    together = torch.autograd.grad(y, leaves, weights, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(y, leaves, of_y, retain_graph=True) for of_y in weights]
    for got, *wanted in zip(together, *each, strict=True):
        torch.testing.assert_close(got, torch.stack(wanted))


def test_compiler_sees_one_operator():
    u, dt, B, C, paths, params = make_operands()
    tokens = [x.requires_grad_() for x in (u, dt, B, C)]
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def scan(u, dt, B, C):
        return selective_scan(u * 2, dt, B, C, paths, params).sin()

    torch._dynamo.reset()
    got = torch.compile(scan, fullgraph=True, backend=keep)(*tokens)
    torch.testing.assert_close(got, scan(*tokens))
    called = [str(node.target) for node in graphs[0].graph.nodes if "mambair" in str(node.target)]
    assert called == ["mambair.cpu_scan.default"]
