"""What is the vector backend's own: its exponential, its edges, its threads and processes, its memory.

That it agrees with the equation is tested with the other backends, in test_kernels.py.
"""

import ctypes
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import llvmlite.binding as llvm
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scans import Operands

from mambair_cli import kernels
from mambair_cli.kernels import ScanParams, choose_backend, cpu_scan, cpu_threads, reference
from mambair_cli.kernels.cpu_function import CpuFunction
from mambair_cli.kernels.llvm_builder import Code, count_lanes
from mambair_cli.kernels.llvm_math import exp2, log, softplus

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
FLOAT32_ROUNDING = 2.0**-24
TOLERANCE = 3e-6  # some 30 roundings, in this backend and in the other


@pytest.fixture
def fresh_kernels():
    cpu_scan._compile_kernel.cache_clear()
    yield
    cpu_scan._compile_kernel.cache_clear()


def make_operands(b=2, length=50, d=37, k=4, n=5, r=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    params = ScanParams(normal(k, d, r), normal(k, d) - 2, -torch.exp(normal(k, d, n)), normal(k, d))
    paths = torch.stack([torch.randperm(length, generator=generator) for _ in range(k)]).int()
    u, dt, B, C = (normal(b, length, *rest) for rest in ((d,), (k, r), (k, n), (k, n)))
    return Operands(u, dt, B, C, paths, params)


def check(operands):
    u, dt, B, C, paths, params = operands
    y, plain = cpu_scan.selective_scan(*operands), reference.selective_scan(*operands)
    positive = u.abs(), dt, B.abs(), C.abs(), paths, params._replace(D=params.D.abs())
    magnitude = reference.selective_scan(*positive)  # of all that makes a value, where nothing cancels
    assert y.shape == plain.shape
    assert ((y - plain).abs() / magnitude).max() < TOLERANCE


def apply(function, values):
    """Compute a function of the kernel's for every value, in an array of whole vectors."""
    code = Code("apply", ["source", "target"], ["size"], cpu_scan.LANES)
    with code.loop(0, code.job["size"], by=cpu_scan.LANES) as i:
        code.job["target"].at(i).store(function(code.job["source"].at(i).load()))
    result = np.empty_like(values)
    job = (ctypes.c_int64 * 3)(values.ctypes.data, result.ctypes.data, values.size)
    code.compile()(job)
    return result


def test_power_of_two_is_right_to_a_few_roundings():
    x = np.linspace(-126, 1, 2**20, dtype=np.float32)
    exact = np.exp2(x.astype(np.float64))
    assert (np.abs(apply(exp2, x) - exact) / exact).max() < 4 * FLOAT32_ROUNDING  # 3 by the polynomial


def test_power_of_two_leaves_what_hardly_decays():
    x = -np.logspace(-12, -1, 2**16, dtype=np.float32)
    lost = -np.expm1(x.astype(np.float64) * np.log(2))
    error = np.abs(1 - apply(exp2, x).astype(np.float64) - lost)
    assert (error < FLOAT32_ROUNDING + 5e-7 * lost).all()


def test_power_of_two_at_its_ends():
    x = np.zeros(cpu_scan.LANES, dtype=np.float32)
    x[:7] = [0, -0.0, -127, -128, -1e30, -np.inf, np.nan]
    assert apply(exp2, x)[:7] == pytest.approx([1, 1, 0, 0, 0, 0, np.nan], abs=0, rel=0, nan_ok=True)


def test_logarithm_is_right_to_two_roundings_also_close_to_one():
    uniform = (np.arange(2**23, dtype=np.float32) + np.float32(0.5)) * np.float32(2.0**-23)
    for x in (uniform, np.logspace(-37, 38, 2**18, dtype=np.float32)):
        exact = np.log(x.astype(np.float64))
        assert (np.abs(apply(log, x) - exact) <= 2 * FLOAT32_ROUNDING * np.abs(exact)).all()
    assert apply(log, np.ones(cpu_scan.LANES, dtype=np.float32)).tolist() == [0] * cpu_scan.LANES


def test_softplus_is_right_to_a_few_roundings_however_small():
    x = np.linspace(-87, 87, 2**20, dtype=np.float32)
    exact = np.logaddexp(0, x.astype(np.float64))
    assert (np.abs(apply(softplus, x) - exact) / exact).max() < 6 * FLOAT32_ROUNDING


def test_softplus_at_its_ends():
    x = np.zeros(cpu_scan.LANES, dtype=np.float32)
    x[:6] = [-1e30, -np.inf, 1e30, np.inf, np.nan, 200]
    wanted = [0, 0, np.float32(1e30), np.inf, np.nan, 200]
    assert apply(softplus, x)[:6] == pytest.approx(wanted, abs=0, rel=0, nan_ok=True)


@pytest.mark.parametrize(
    "d", [1, cpu_scan.LANES - 1, cpu_scan.LANES, cpu_scan.LANES + 1, 3 * cpu_scan.LANES + 5]
)
def test_channels_that_fill_no_vector(d):
    check(make_operands(d=d))


@pytest.mark.parametrize(
    "length", [1, cpu_scan.STRETCH - 1, cpu_scan.STRETCH, cpu_scan.STRETCH + 1, 2 * cpu_scan.STRETCH + 3]
)
def test_tokens_that_fill_no_stretch(length):
    check(make_operands(length=length, d=3))


@given(
    b=st.integers(1, 3),
    length=st.integers(1, 70),
    d=st.integers(1, 40),
    k=st.integers(1, 4),
    # few n and r, since each pair of them is a kernel to compile
    n_and_r=st.sampled_from([(1, 1), (2, 7), (16, 24)]),
    seed=st.integers(0, 2**32),
)
def test_agrees_with_reference_whatever_the_sizes(b, length, d, k, n_and_r, seed):
    check(make_operands(b, length, d, k, *n_and_r, seed=seed))


@pytest.mark.parametrize(("b", "d"), [(0, 3), (2, 0)])
def test_nothing_in_nothing_out(b, d):
    assert cpu_scan.selective_scan(*make_operands(b=b, d=d)).shape == (b, 50, d)


def test_channels_after_the_last_are_not_touched():
    operands = make_operands(b=1, d=5)
    wide = torch.full((1, 50, 24), torch.nan)
    wide[:, :, :5] = operands.u
    slices = operands._replace(u=wide[:, :, :5])
    assert torch.equal(cpu_scan.selective_scan(*slices), cpu_scan.selective_scan(*operands))


@pytest.mark.parametrize("operand", ["u", "dt", "B", "C"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_comes_out(operand, value):
    operands = make_operands()
    getattr(operands, operand).fill_(value)
    assert not cpu_scan.selective_scan(*operands).isfinite().any()


@pytest.mark.parametrize("param", ScanParams._fields)
def test_nan_in_a_weight_comes_out(param):
    operands = make_operands()
    getattr(operands.params, param).fill_(torch.nan)
    assert cpu_scan.selective_scan(*operands).isnan().all()


@pytest.mark.parametrize("pixel", [-1, 50, 2**31 - 1])
def test_pixel_that_does_not_exist_is_refused(pixel):
    operands = make_operands()
    operands.paths[2, 7] = pixel
    with pytest.raises(ValueError, match="paths must name pixels from 0 to 49, not "):
        cpu_scan.selective_scan(*operands)


def test_operand_in_other_memory_is_refused():
    operands = make_operands()
    with pytest.raises(ValueError, match="needs its operands on the CPU, not on meta"):
        cpu_scan.selective_scan(*operands._replace(u=operands.u.to("meta")))


@pytest.mark.parametrize("in_team", [True, False])
@pytest.mark.parametrize("count", [2, 3, 7, 64])
def test_threads_change_no_bit(count, in_team, monkeypatch):
    operands = make_operands()
    alone = cpu_scan.selective_scan(*operands)
    if not in_team:
        monkeypatch.setattr(cpu_threads, "_run_in_team", None)
    torch.set_num_threads(count)
    assert torch.equal(cpu_scan.selective_scan(*operands), alone)


@pytest.mark.parametrize(("b", "d", "k"), [(1, 64, 4), (1, 3, 4), (2, 20, 1), (3, 17, 3)])
@pytest.mark.parametrize("count", [2, 5, 16, 64])
def test_paths_side_by_side_give_the_bits_of_paths_in_turn(b, d, k, count):
    operands = make_operands(b=b, d=d, k=k)
    in_turn = cpu_scan.selective_scan(*operands)
    torch.set_num_threads(count)
    assert torch.equal(cpu_scan.selective_scan(*operands), in_turn)


@pytest.mark.parametrize("n", [4, 10])  # rows fetched before the recurrence, and during it
@pytest.mark.parametrize("count", [2, 3, 5])
def test_walks_that_go_from_thread_to_thread_give_the_bits_of_one(n, count):
    operands = make_operands(b=1, length=cpu_scan.LEGS * cpu_scan.STRETCH + 5, d=5 * cpu_scan.LANES, n=n)
    alone = cpu_scan.selective_scan(*operands)
    torch.set_num_threads(count)
    for _ in range(20):
        assert torch.equal(cpu_scan.selective_scan(*operands), alone)


def test_rows_begin_on_cache_lines():
    y = cpu_scan.selective_scan(*make_operands(d=72, k=1))
    assert y.stride(-2) == 80
    assert y.data_ptr() % 64 == 0


@pytest.mark.parametrize(
    ("b", "vectors", "n", "threads", "is_apart"),
    [
        (1, 4, 4, 1, False),
        (1, 4, 4, 2, False),
        (1, 5, 10, 2, False),
        (1, 5, 10, 4, False),
        (1, 4, 4, 8, True),
        (1, 5, 10, 16, True),
        (1, 23, 16, 8, False),
        (8, 4, 4, 8, False),
    ],
)
def test_division_keeps_all_threads_at_work(b, vectors, n, threads, is_apart):
    division = cpu_scan.divide(b, 4, vectors, n, threads)
    assert division.is_apart == is_apart
    parts = 4 if is_apart else 1
    assert parts * b * -(-vectors // division.run) >= threads
    assert division.run <= 1.1 * parts * b * vectors / threads


def test_one_path_is_not_apart_from_others():
    assert not cpu_scan.divide(1, 1, 4, 4, 8).is_apart


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch's threads are found on Linux alone")
def test_threads_of_pytorch_are_found():
    assert cpu_threads._run_in_team is not None


def test_tensors_live_until_threads_are_done_where_another_cannot_be_started(monkeypatch):
    monkeypatch.setattr(cpu_threads, "_run_in_team", None)
    go_on, started, start = threading.Event(), [], threading.Thread.start

    def start_one(thread):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    class Kernel(CpuFunction):
        def __init__(self):
            """Be a function that waits, without code."""

        def make_job(self, tensors, numbers):
            return (ctypes.c_int64 * 1)(tensors["x"].data_ptr())

        def __call__(self, job):
            go_on.wait()

    monkeypatch.setattr(threading.Thread, "start", start_one)
    tensor = torch.zeros(1)
    held = weakref.ref(tensor)
    with pytest.raises(RuntimeError, match="can't start"):
        cpu_threads.run_in_threads(Kernel(), {"x": tensor}, {}, 3)
    del tensor
    gc.collect()
    lives = held() is not None
    go_on.set()
    started[0].join()
    assert lives
    assert held() is None


@pytest.mark.usefixtures("fresh_kernels")
def test_callers_in_several_threads_do_not_disturb_each_other():
    torch.set_num_threads(2)
    operands = [make_operands(seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: cpu_scan.selective_scan(*x), operands))
    for y, x in zip(together, operands, strict=True):
        assert torch.equal(y, cpu_scan.selective_scan(*x))


def scan_of_seed(seed):
    """Scan in whatever process this is, in two threads."""
    torch.set_num_threads(2)
    return cpu_scan.selective_scan(*make_operands(seed=seed)).numpy()


FORK = """
import os, sys, torch
from test_cpu_scan import cpu_scan, make_operands
torch.set_num_threads(2)
operands = make_operands()
y = cpu_scan.selective_scan(*operands)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(cpu_scan.selective_scan(*operands), y) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_process_scans_after_its_parent_did():
    folder = os.path.dirname(__file__)
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], cwd=folder, check=True, timeout=60)


def test_spawned_process_scans():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert (pool.apply(scan_of_seed, (5,)) == scan_of_seed(5)).all()


def test_needs_no_more_memory_than_its_result_and_a_little():
    operands = make_operands(b=1, length=2000, d=64)
    with torch.profiler.profile(profile_memory=True) as profiler:
        y = cpu_scan.selective_scan(*operands)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profiler.key_averages())
    assert y.nbytes <= allocated < 1.2 * y.nbytes


@pytest.mark.usefixtures("fresh_kernels")
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_lanes_change_no_bit(lanes, monkeypatch):
    operands = make_operands()
    y = cpu_scan.selective_scan(*operands)
    monkeypatch.setattr(cpu_scan, "LANES", lanes)
    cpu_scan._compile_kernel.cache_clear()
    assert torch.equal(cpu_scan.selective_scan(*operands), y)


@pytest.mark.usefixtures("fresh_kernels")
def test_runs_on_the_plainest_processor(monkeypatch):
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: "generic")
    monkeypatch.setattr(llvm, "get_host_cpu_features", llvm.FeatureMap)
    monkeypatch.setattr(cpu_scan, "LANES", count_lanes())
    assert cpu_scan.LANES == 8
    check(make_operands())


@pytest.mark.usefixtures("fresh_choice")
def test_is_the_choice_on_a_cpu():
    assert choose_backend(CPU) == "cpu"
    assert choose_backend(CPU, torch.bfloat16) == "cpu"
    assert choose_backend(CPU, torch.float64) == "torch"
    assert choose_backend(CPU) == "cpu"
    assert choose_backend(CPU, torch.float64) == "torch"


@pytest.mark.usefixtures("fresh_choice")
def test_torch_is_the_choice_without_llvm(monkeypatch):
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    assert choose_backend(CPU) == "torch"
    assert choose_backend(CPU) == "torch"


@pytest.mark.usefixtures("fresh_choice")
def test_torch_is_the_choice_where_code_must_not_be_made(monkeypatch):
    def refuse():
        raise OSError(1, "cannot allocate executable memory")

    monkeypatch.setattr(llvm, "check_jit_execution", refuse)
    for module in ("cpu_scan", "llvm_builder"):
        monkeypatch.delitem(sys.modules, f"mambair_cli.kernels.{module}")
        monkeypatch.delattr(kernels, module)
    with pytest.warns(UserWarning, match="llvmlite is installed but not used.*executable memory"):
        assert choose_backend(CPU) == "torch"


def test_llvm_is_imported_by_none_but_this_backend():
    script = "import sys, mambair_cli.kernels, mambair_cli.networks; sys.exit('llvmlite' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
