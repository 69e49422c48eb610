"""The scan's backends against the equation written out position by position in NumPy, in float64."""

import json
import sys
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scans import Operands
from torch.profiler import ProfilerActivity, profile

from mambair_cli import kernels
from mambair_cli.kernels import NEED_GPU, Backend, ScanParams, choose_backend, has_triton, selective_scan
from mambair_cli.system.notices import SlowerWarning

BACKENDS = [backend for backend in get_args(Backend) if backend not in NEED_GPU]

# In units of float32's rounding, of all that flows into a value: each step's share goes through a few dozen
# operations, and along the path the roundings of decays and sums add up like a random walk.
ROUNDINGS = 6
ROUNDINGS_PER_ROOT_STEP = 0.6
ROUNDINGS_CANCELLED = 100  # where a small step is what is left of terms up to 30
# torch's softplus(x) is x beyond 20, which is exp(-20) too little.
TOLERANCE_FLOAT64 = 3e-9


@dataclass(frozen=True)
class Scan:
    """Operands of a scan, all of them random.

    The step before its softplus lies between ``low`` and ``high`` in each channel, plus a part that changes
    along the path with the standard deviation ``swing``. D is of the size ``skip``: where states are tiny it
    must be 0, or nothing is seen of them. Where u, B and C are ``positive``, no error cancels another.
    """

    b: int = 2
    length: int = 33
    d: int = 7
    k: int = 4
    n: int = 3
    r: int = 2
    low: float = -5.0
    high: float = 0.0
    swing: float = 1.0
    skip: float = 1.0
    positive: bool = False
    path_per_image: bool = False
    seed: int = 0

    def make(self, dtype: torch.dtype = torch.float32) -> Operands:
        generator = torch.Generator().manual_seed(self.seed)

        def normal(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        def uniform(low, high, *shape):
            return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

        b, length, d, k, n, r = self.b, self.length, self.d, self.k, self.n, self.r
        count = b * k if self.path_per_image else k
        paths = torch.stack([torch.randperm(length, generator=generator) for _ in range(count)]).int()
        u, dt, B, C = (normal(b, length, *rest) for rest in ((d,), (k, r), (k, n), (k, n)))
        if self.positive:
            u, B, C = u.abs(), B.abs(), C.abs()
        params = ScanParams(
            dt_weight=normal(k, d, r) * self.swing / r**0.5,
            dt_bias=uniform(self.low, self.high, k, d),
            A=-torch.exp(uniform(np.log(0.5), np.log(16.0), k, d, n)),
            D=normal(k, d) * self.skip,
        )
        return Operands(
            u.to(dtype),
            dt.to(dtype),
            B.to(dtype),
            C.to(dtype),
            paths.view(b, k, length) if self.path_per_image else paths,
            ScanParams(*(x.to(torch.promote_types(dtype, torch.float32)) for x in params)),
        )


def scan_in_numpy(u, dt, B, C, paths, params):
    """Return the scan, (b, l, d), one image, path, position after the other."""
    u, dt, B, C, *params = (x.detach().double().numpy() for x in (u, dt, B, C, *params))
    dt_weight, dt_bias, A, D = params
    y = np.zeros_like(u)
    for image in range(len(u)):
        for k, path in enumerate(paths[image] if paths.ndim == 3 else paths):
            h = np.zeros(A[k].shape)
            for pixel in path.tolist():
                step = np.logaddexp(0, dt_weight[k] @ dt[image, pixel, k] + dt_bias[k])
                h = np.exp(step[:, None] * A[k]) * h
                h += (step * u[image, pixel])[:, None] * B[image, pixel, k]
                y[image, pixel] += h @ C[image, pixel, k] + D[k] * u[image, pixel]
    return y


def check(operands, backend, roundings=ROUNDINGS):
    """Hold a backend to NumPy; the tolerance is relative to the sum of all magnitudes that make a value."""
    u = operands.u
    y = selective_scan(*operands, backend=backend)
    exact = scan_in_numpy(*operands)
    absolute = {name: getattr(operands, name).abs() for name in ("u", "B", "C")}
    params = operands.params._replace(D=operands.params.D.abs())
    magnitude = scan_in_numpy(*operands._replace(**absolute, params=params))
    assert y.shape == u.shape
    if u.dtype == torch.float64:
        assert y.dtype == torch.float64
        tolerance = TOLERANCE_FLOAT64
    else:
        assert y.dtype == torch.float32
        roundings += ROUNDINGS_PER_ROOT_STEP * u.shape[1] ** 0.5
        tolerance = roundings * np.finfo(np.float32).eps
    error = (np.abs(y.numpy() - exact) / (magnitude + np.finfo(np.float32).tiny)).max()
    assert error < tolerance, f"{error:.1e}, not {tolerance:.1e}"


ORDINARY = Scan()
# softplus(-17) = 4e-8: with A to -16, a step keeps all but 2e-8 to 7e-7 of a state.
SLOW = Scan(low=-17.0, high=-17.0, swing=0.3, skip=0.0)
# softplus(-23) = 1e-10: a decay is 1 - 2e-9 at most, which is 1 in float32; one that is not is soon seen.
STANDING = Scan(low=-23.0, high=-23.0, swing=0.3, skip=0.0, positive=True)
# exp(-30) to exp(-4800): from a state that can be neglected to one that underflows.
FAST = Scan(low=60.0, high=300.0)
CASES = {
    "ordinary": ORDINARY,
    "of each image its own path": replace(ORDINARY, path_per_image=True),
    "one path": replace(ORDINARY, k=1, path_per_image=True),
    "one token": replace(ORDINARY, length=1),
    "one channel": replace(ORDINARY, d=1),
    "one state": replace(ORDINARY, n=1),
    "one of everything": Scan(b=1, length=1, d=1, k=1, n=1, r=1),
    "no round numbers": Scan(b=3, length=37, d=19, k=3, n=11, r=5),
    "slow": SLOW,
    "standing": STANDING,
    "fast": FAST,
    "channels slow and fast": Scan(low=-20.0, high=100.0, d=24, skip=0.0),
    "steps slow and fast": Scan(swing=15.0, d=24, skip=0.0),
    "neither, nor": Scan(low=-3.0, high=5.0, swing=5.0, n=16),
}
LONG_CASES = {
    "ordinary": Scan(b=1, length=4000, d=24, k=2, n=8),
    "slow": replace(SLOW, b=1, length=4000, d=24, k=2, n=8),
    "standing": replace(STANDING, b=1, length=4000, d=24, k=2, n=8),
    "fast": replace(FAST, b=1, length=4000, d=24, k=2, n=8),
    "channels slow and fast": Scan(b=1, length=4000, d=24, k=2, n=8, low=-20.0, high=100.0, skip=0.0),
    "steps slow and fast": Scan(b=1, length=4000, d=24, k=2, n=8, swing=15.0, skip=0.0, path_per_image=True),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_equation(case, backend):
    check(CASES[case].make(), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", LONG_CASES)
def test_agrees_with_the_equation_along_a_long_path(case, backend):
    check(LONG_CASES[case].make(), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_equation_in_float64(case, backend):
    check(CASES[case].make(torch.float64), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_recurrence_is_in_float32_for_16_bit_tokens(dtype, backend):
    check(replace(ORDINARY, length=200).make(dtype), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_recurrence_is_in_float32_where_autocast_rules(backend):
    with torch.autocast("cpu", torch.bfloat16):
        check(ORDINARY.make(), backend)


small = st.integers(1, 4)


@given(
    st.builds(
        Scan,
        b=small,
        length=st.integers(1, 9),
        d=small,
        k=small,
        n=small,
        r=small,
        low=st.floats(-30, 0),
        high=st.floats(0, 200),
        swing=st.floats(0, 10),
        path_per_image=st.booleans(),
        seed=st.integers(0, 2**32),
    )
)
def test_agrees_with_the_equation_whatever_the_sizes_and_steps(scan):
    for backend in BACKENDS:
        check(scan.make(), backend, ROUNDINGS_CANCELLED)


@pytest.mark.parametrize("backend", BACKENDS)
def test_operands_may_lie_in_memory_as_they_like(backend):
    operands = Scan(path_per_image=True).make()
    u, dt, B, C, paths, params = operands
    r, n = dt.shape[-1], B.shape[-1]
    dt, B, C = torch.cat([dt, B, C], dim=-1).split([r, n, n], dim=-1)
    strewn = Operands(
        u.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        dt,
        B,
        C,
        paths.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        ScanParams(*(x.mT.contiguous().mT for x in params)),
    )
    assert not any(x.is_contiguous() for x in (*strewn[:5], *strewn.params))
    check(strewn, backend)
    check(operands._replace(u=u[:1].expand(2, -1, -1)), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("operand", ["u", "dt", "B", "C"])
def test_nan_spreads_as_in_the_equation_and_no_further(operand, backend):
    operands = Scan(length=12, k=2).make()
    getattr(operands, operand)[1, 5, ..., -1] = torch.nan
    y = selective_scan(*operands, backend=backend).numpy()
    with np.errstate(invalid="ignore"):
        exact = scan_in_numpy(*operands)
    assert (np.isnan(y) == np.isnan(exact)).all()
    assert np.isnan(y[1]).any()
    assert not np.isnan(y[0]).any()


def differentiable(operands, device="cpu"):
    """Return all operands but the paths, on a device, as they are asked for gradients."""
    tokens = operands.u, operands.dt, operands.B, operands.C
    return [x.to(device).requires_grad_() for x in (*tokens, *operands.params)]


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("path_per_image", [False, True])
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_gradients_are_those_of_small_differences(backend, path_per_image, length):
    operands = Scan(length=length, d=3, k=2, n=2, path_per_image=path_per_image).make(torch.float64)

    def scan(u, dt, B, C, *params):
        return selective_scan(u, dt, B, C, operands.paths, ScanParams(*params), backend=backend)

    assert torch.autograd.gradcheck(scan, differentiable(operands))


def gradients(operands, backend, dtype):
    """Return the gradients of all operands but the paths, for a gradient of y that differs everywhere."""
    inputs = [x.detach().to(dtype).requires_grad_() for x in (*operands[:4], *operands.params)]
    u, dt, B, C, *params = inputs
    y = selective_scan(u, dt, B, C, operands.paths, ScanParams(*params), backend=backend)
    return torch.autograd.grad(
        (y * torch.linspace(-1, 1, y.numel(), dtype=dtype).view(y.shape)).sum(), inputs
    )


def check_gradients(operands, backend):
    """Hold the gradients to those of the equation in float64, relative to the largest of each."""
    got = gradients(operands, backend, torch.float32)
    exact = gradients(operands, "reference", torch.float64)
    tolerance = (
        10 * (ROUNDINGS + ROUNDINGS_PER_ROOT_STEP * operands.u.shape[1] ** 0.5) * np.finfo(np.float32).eps
    )
    for name, value, wanted in zip(("u", "dt", "B", "C", *ScanParams._fields), got, exact, strict=True):
        error = (value - wanted).abs().max() / (wanted.abs().max() + 1e-30)
        assert error < tolerance, f"{name}: {error:.1e}, not {tolerance:.1e}"


WITH_GRADIENT = ["torch", "cpu"]


@pytest.mark.parametrize("backend", WITH_GRADIENT)
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_equation(case, backend):
    check_gradients(CASES[case].make(), backend)


@pytest.mark.parametrize("backend", WITH_GRADIENT)
@pytest.mark.parametrize("case", LONG_CASES)
def test_gradients_are_those_of_the_equation_along_a_long_path(case, backend):
    check_gradients(replace(LONG_CASES[case], length=600).make(), backend)


@pytest.mark.parametrize("sizes", [{"b": 0}, {"d": 0}, {"length": 0}])
@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_nothing_is_scanned_to_nothing(backend, sizes):
    u, dt, B, C, paths, params = ORDINARY.make()
    b, length, d = (sizes.get(name, getattr(ORDINARY, name)) for name in ("b", "length", "d"))
    params = ScanParams(*(x[:, :d] for x in params))
    dt, B, C = (x[:b, :length] for x in (dt, B, C))
    y = selective_scan(u[:b, :length, :d], dt, B, C, paths[:, :length], params, backend=backend)
    assert y.shape == (b, length, d)
    assert not y.any()


def test_operands_are_left_as_they_were():
    for backend in BACKENDS:
        operands = ORDINARY.make()
        selective_scan(*operands, backend=backend)
        before = ORDINARY.make()
        for was, now in zip((*before[:5], *before.params), (*operands[:5], *operands.params), strict=True):
            assert torch.equal(was, now)


def test_gradient_is_had_without_asking_for_a_backend():
    operands = ORDINARY.make()
    operands.u.requires_grad_()
    selective_scan(*operands).sum().backward()
    assert operands.u.grad is not None
    assert operands.u.grad.abs().min() > 0
    with torch.no_grad():
        assert not selective_scan(*operands).requires_grad


@pytest.mark.filterwarnings("ignore:triton is installed but not used:UserWarning")  # without a compiler
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backend_that_is_chosen_is_never_the_slow_one(device, dtype):
    chosen = choose_backend(torch.device(device), dtype)
    assert chosen in ("torch", "cpu", "triton")  # which give a gradient


def test_float64_is_kept_without_asking_for_a_backend():
    operands = ORDINARY.make(torch.float64)
    check(operands, None)
    assert choose_backend(torch.device("cuda"), torch.float64) not in NEED_GPU  # which are of float32


@pytest.fixture
def compilers(tmp_path, monkeypatch, fresh_choice):
    """Return a folder that alone is searched for compilers; there is none in it."""
    pytest.importorskip("triton")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    return tmp_path


@pytest.mark.parametrize("setting", [None, "", "no-such-compiler"])
def test_triton_is_passed_over_where_it_finds_no_compiler(compilers, setting, monkeypatch):
    if setting is not None:
        monkeypatch.setenv("CC", setting)
    with pytest.warns(SlowerWarning, match=r"triton is installed but not used.*install gcc, or set CC$"):
        assert choose_backend(torch.device("cuda")) == "torch"
    assert choose_backend(torch.device("cuda")) == "torch"  # and says so once
    assert not has_triton(torch.device("cuda"))


@pytest.mark.skipif(sys.platform == "win32", reason="there programs are found by their suffixes")
@pytest.mark.parametrize(("name", "setting"), [("gcc", None), ("clang", None), ("mycc", "mycc")])
def test_triton_is_taken_where_it_finds_a_compiler(compilers, name, setting, monkeypatch):
    (compilers / name).touch(0o755)
    if setting is not None:
        monkeypatch.setenv("CC", setting)
    assert choose_backend(torch.device("cuda")) == "triton"
    assert has_triton(torch.device("cuda"))
    assert not has_triton(torch.device("cpu"))


@pytest.mark.usefixtures("fresh_choice")
def test_broken_package_is_passed_over_with_a_warning(tmp_path, monkeypatch):
    package = tmp_path / "triton"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('undefined symbol: made for another PyTorch')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "triton"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "mambair_cli.kernels.triton_scan", raising=False)
    monkeypatch.delattr(kernels, "triton_scan", raising=False)
    with pytest.warns(UserWarning, match=r"triton is installed but not used.*undefined symbol"):
        backend = choose_backend(torch.device("cuda"))
    assert backend == "torch"
    assert choose_backend(torch.device("cuda")) == backend  # and says so once


@pytest.mark.usefixtures("fresh_choice")
def test_backend_that_is_not_installed_is_an_import_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "mambair_cli.kernels.triton_scan", raising=False)
    monkeypatch.delattr(kernels, "triton_scan", raising=False)
    with pytest.raises(ImportError, match="triton"):
        selective_scan(*ORDINARY.make(), backend="triton")


def test_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="no scan backend is called 'numba': there are reference, torch"):
        selective_scan(*ORDINARY.make(), backend="numba")  # pyright: ignore[reportArgumentType]: on purpose


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("dt", (2, 33, 4, 5)),
        ("B", (2, 33, 3, 3)),
        ("C", (2, 34, 4, 3)),
        ("paths", (4, 32)),
        ("paths", (3, 4, 33)),
        ("paths", (33,)),
        ("dt_bias", (4, 8)),
        ("D", (28,)),
    ],
)
def test_operand_that_does_not_fit_is_named_with_both_shapes(name, shape):
    operands = ORDINARY.make()
    params = operands.params
    if name in ScanParams._fields:
        operands = operands._replace(params=params._replace(**{name: torch.zeros(shape)}))
    else:
        operands = operands._replace(**{name: torch.zeros(shape, dtype=getattr(operands, name).dtype)})
    with pytest.raises(ValueError, match=f"^{name} must have the shape ") as caught:
        selective_scan(*operands)
    assert str(caught.value).endswith(f"not {shape}")


def test_paths_of_another_type_are_refused():
    operands = ORDINARY.make()
    with pytest.raises(ValueError, match=r"^paths must be int32, not int64$"):
        selective_scan(*operands._replace(paths=operands.paths.long()))


def test_u_and_a_must_have_three_dimensions():
    operands = ORDINARY.make()
    with pytest.raises(ValueError, match=r"u must be \(b, l, d\) and A \(k, d, n\): got \(33, 7\)"):
        selective_scan(*operands._replace(u=operands.u[0]))
    flat = operands.params._replace(A=operands.params.A.flatten(0, 1))
    with pytest.raises(ValueError, match=r"got \(2, 33, 7\), \(28, 3\)"):
        selective_scan(*operands._replace(params=flat))


def peak_bytes(call, folder):
    """Return the most bytes that a call holds at once beyond what was held before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    trace = folder / "trace.json"
    profiler.export_chrome_trace(str(trace))
    events = [e for e in json.loads(trace.read_text())["traceEvents"] if e["name"] == "[memory]"]
    held = np.cumsum([e["args"]["Bytes"] for e in sorted(events, key=lambda e: e["ts"])])
    return held.max()


def test_memory_of_torch_grows_with_tokens_not_with_states(tmp_path):
    short, long = (Scan(b=1, length=length, d=64, n=16, r=4) for length in (500, 2000))
    operands = {scan: scan.make() for scan in (short, long)}
    peaks = {
        scan: peak_bytes(lambda scan=scan: selective_scan(*operands[scan], backend="torch"), tmp_path)
        for scan in (short, long)
    }
    more_tokens = (long.length - short.length) * (long.d * 4 + long.k * 8)  # the result, and paths in int64
    more_states = (long.length - short.length) * long.k * long.d * long.n * 4
    growth = peaks[long] - peaks[short]
    assert 0 < growth < 1.5 * more_tokens
    assert 1.5 * more_tokens < more_states / 10  # so that the line above can tell the two apart
