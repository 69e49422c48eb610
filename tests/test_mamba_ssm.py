"""The adapter to mamba-ssm, against a stand-in that does on the CPU what that package documents."""

import sys

import pytest
import torch

from mambair_cli import kernels
from mambair_cli.kernels import Backend, ScanParams, selective_scan

# Shapes as the package has them: u and delta (b, d, l), A (d, n), B and C (b, groups, n, l), D and delta_bias
# (d); channels are split evenly over the groups.
STAND_IN = """
import torch

def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    assert u.is_contiguous() or u.stride(-1) == 1
    delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = torch.nn.functional.softplus(delta)
    members = u.shape[1] // B.shape[1]
    B, C = B.repeat_interleave(members, 1), C.repeat_interleave(members, 1)
    h, out = 0, []
    for t in range(u.shape[2]):
        h = torch.exp(delta[:, :, t, None] * A) * h + (delta * u)[:, :, t, None] * B[:, :, :, t]
        out.append((h * C[:, :, :, t]).sum(-1) + D * u[:, :, t])
    return torch.stack(out, 2)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package of that name whose scan is the given source, for one test."""

    def forget():
        kernels._usable.clear()
        for name in [name for name in sys.modules if name.split(".")[0] == "mamba_ssm"]:
            del sys.modules[name]
        sys.modules.pop("mambair_cli.kernels.mamba_ssm", None)
        kernels.__dict__.pop("mamba_ssm", None)

    def write(source):
        folder = tmp_path / "mamba_ssm" / "ops"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").touch()
        (folder / "__init__.py").touch()
        (folder / "selective_scan_interface.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        forget()

    yield write
    forget()


def operands(batch_paths):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    b, length, d, n, r, k = 2, 13, 5, 3, 2, 4
    count = (b, k) if batch_paths else (k,)
    orders = [torch.randperm(length, generator=generator) for _ in range(b * k if batch_paths else k)]
    paths = torch.stack(orders).view(*count, length).int()
    params = ScanParams(
        normal(k, d, r) * 0.3, normal(k, d) - 2, -torch.rand(k, d, n, generator=generator) * 8, normal(k, d)
    )
    return (
        normal(b, length, d),
        normal(b, length, k, r),
        normal(b, length, k, n),
        normal(b, length, k, n),
    ), (
        paths,
        params,
    )


@pytest.mark.parametrize("batch_paths", [False, True])
def test_the_adapter_agrees_with_the_equation_and_its_gradient(install, batch_paths):
    install(STAND_IN)
    tokens, (paths, params) = operands(batch_paths)
    results = []
    backends: tuple[Backend, ...] = ("mamba_ssm", "reference")
    for backend in backends:
        inputs = [tensor.clone().requires_grad_() for tensor in (*tokens, *params)]
        u, dt, B, C, *learned = inputs
        y = selective_scan(u, dt, B, C, paths, ScanParams(*learned), backend)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        results.append((y, [tensor.grad for tensor in inputs]))
    (y, gradients), (wanted, wanted_gradients) = results
    torch.testing.assert_close(y, wanted, atol=1e-5, rtol=1e-5)
    for gradient, expected in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-4)


def test_it_is_chosen_on_cuda_where_nothing_faster_is_installed(install, monkeypatch):
    assert kernels.choose_backend(torch.device("cuda")) != "mamba_ssm"
    install(STAND_IN)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert kernels.choose_backend(torch.device("cuda")) == "mamba_ssm"
    assert kernels.choose_backend(torch.device("cuda")) == "mamba_ssm"
    assert kernels.choose_backend(torch.device("cuda"), torch.float64) != "mamba_ssm"
    assert kernels.choose_backend(torch.device("cpu")) != "mamba_ssm"


def test_a_broken_one_is_passed_over_with_a_warning(install, monkeypatch):
    install("raise ImportError('undefined symbol')")
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.warns(UserWarning, match="mamba_ssm is installed but not used.*undefined symbol"):
        assert kernels.choose_backend(torch.device("cuda")) == "torch"


def test_it_is_an_error_to_ask_for_it_where_it_is_not(install):
    tokens, (paths, params) = operands(False)
    with pytest.raises(ImportError):
        selective_scan(*tokens, paths, params, backend="mamba_ssm")
