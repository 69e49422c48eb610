"""The operator on which speed depends most: a selective scan along given paths over the pixels.

Backends differ only in speed, and each is tested against ``reference``:

=============  ===========================================  ========  ==========
backend        computed by                                  gradient  runs on
=============  ===========================================  ========  ==========
``reference``  the equation, step by step                   yes       everything
``torch``      PyTorch, in place, in bounded memory         yes       everything
``graph``      PyTorch's operator for loops, for export     no        everything
``cpu``        vector instructions, compiled by LLVM        yes       CPUs
``cuda``       CUDA C++, compiled at run time by NVRTC      no        CUDA
``triton``     Triton; for gradients CUDA C++ if possible   yes       CUDA
=============  ===========================================  ========  ==========
"""

import importlib.util
import warnings
from types import ModuleType
from typing import Literal, get_args

import torch
from torch import Tensor

from mambair_cli.kernels.forks import settle_forks
from mambair_cli.kernels.operands import ScanParams, check_operands
from mambair_cli.system.notices import SlowerWarning

__all__ = [
    "NEED_GPU",
    "Backend",
    "ScanParams",
    "choose_backend",
    "has_nvrtc",
    "has_product_kernel",
    "has_triton",
    "has_vector_kernels",
    "is_exporting",
    "selective_scan",
]

Backend = Literal["reference", "torch", "graph", "cpu", "cuda", "triton"]
_PACKAGES = {"cpu": "llvmlite", "triton": "triton"}  # package that a backend needs
NEED_GPU: tuple[Backend, ...] = ("cuda", "triton")
_usable: dict[tuple[Backend, int | None], bool] = {}

settle_forks()


def selective_scan(
    u: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    paths: Tensor,
    params: ScanParams,
    backend: Backend | None = None,
) -> Tensor:
    """Run one selective scan per path and sum the results at each pixel.

    With ``step = softplus(dt @ dt_weight.T + dt_bias)``, at position ``t`` of a path::

        h[t] = exp(step[t] * A) * h[t-1] + step[t] * u[t] * B[t]
        y[t] = <C[t], h[t]> + D * u[t]

    The recurrence is in float32 whatever the dtype of the tokens, in float64 for tokens in float64.

    Args:
        u: Tokens in pixel order, (b, l, d).
        dt: Low-rank step, (b, l, k, r).
        B: Input projection, (b, l, k, n).
        C: Output projection, (b, l, k, n).
        paths: Pixel visited at each step, (k, l) or (b, k, l), int32; each path visits each pixel once.
        params: dt_weight (k, d, r), dt_bias (k, d), A (k, d, n) negative, D (k, d).
        backend: Backend to use; by default the fastest for the device.

    Returns:
        (b, l, d) in the dtype of the recurrence, in pixel order.

    Raises:
        ValueError: Shapes do not fit each other, or the backend is unknown.
        ImportError: The given backend is not installed.

    Source: Mamba (arXiv:2312.00752), Algorithm 2.
    """
    check_operands(u, dt, B, C, paths, params)
    if backend is None:
        backend = choose_backend(u.device, u.dtype)
    elif backend not in get_args(Backend):
        raise ValueError(f"no scan backend is called {backend!r}: there are {', '.join(get_args(Backend))}")
    if is_exporting():  # a graph has no room for the context below
        return _import(backend).selective_scan(u, dt, B, C, paths, params)
    with torch.autocast(u.device.type, enabled=False):  # which would compute the recurrence in 16 bits
        return _import(backend).selective_scan(u, dt, B, C, paths, params)


def choose_backend(device: torch.device, dtype: torch.dtype = torch.float32) -> Backend:
    """Name the fastest backend that works here.

    Args:
        device: Device of the tokens.
        dtype: Type of the tokens.
    """
    if is_exporting():
        return "graph"
    if dtype != torch.float64 and has_triton(device):
        return "triton"
    is_cpu = device.type == "cpu" and dtype != torch.float64
    return "cpu" if is_cpu and _is_usable("cpu") else "torch"


def is_exporting() -> bool:
    """Tell whether PyTorch follows the network to write it down as a graph."""
    if not hasattr(torch.compiler, "is_exporting"):  # since PyTorch 2.7
        return False
    # PyTorch 2.11 says so in torch.compile, too, where the second is true.
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()


def has_vector_kernels(x: Tensor) -> bool:
    """Tell whether the CPU's vector kernels, which give no gradient, can compute with x."""
    plain = x.dtype == torch.float32 and not torch.is_grad_enabled()
    return plain and choose_backend(x.device, x.dtype) == "cpu"


def has_product_kernel(x: Tensor) -> bool:
    """Tell whether the CPU's own products of pixels are faster than PyTorch's, and give no gradient of x."""
    if not has_vector_kernels(x):
        return False
    from mambair_cli.kernels import cpu_products

    return cpu_products.IS_FASTER


def has_nvrtc(device: torch.device) -> bool:
    """Tell whether kernels in CUDA C++ can be compiled for a device at run time, by NVRTC."""
    return device.type == "cuda" and _is_usable("cuda", device.index)


def has_triton(device: torch.device) -> bool:
    """Tell whether Triton's programs can be launched on a device."""
    return device.type == "cuda" and _is_usable("triton")


def _is_usable(backend: Backend, card: int | None = None) -> bool:
    """Tell whether a backend is installed and found usable; remembered in a dict, for torch.compile.

    Each card has its own answer, where compilers may know one and not another.
    """
    if (backend, card) not in _usable:
        _usable[backend, card] = _works(backend, card)
    return _usable[backend, card]


def _works(backend: Backend, card: int | None) -> bool:
    """Try a backend: a package, or a compiler, may be installed and not work."""
    if backend == "cuda" and (torch.version.hip or not torch.cuda.is_available()):
        return False
    package = _PACKAGES.get(backend)
    if package is not None and importlib.util.find_spec(package) is None:
        return False
    try:
        module = _import(backend)
        if backend == "cuda":
            module.check_usable(card)
        elif backend == "triton":
            module.check_usable()
    except (ImportError, OSError) as error:  # OSError: the system forbids code made at run time
        name = package or "the scan in CUDA C++"
        text = f"{name} is installed but not used, since it does not work: {error}"
        warnings.warn(text, SlowerWarning, stacklevel=2)
        return False
    return True


def _import(backend: Backend) -> ModuleType:
    """Import a backend's module, by plain import statements, which torch.compile can follow."""
    if backend == "reference":
        from mambair_cli.kernels import reference as module
    elif backend == "torch":
        from mambair_cli.kernels import torch_scan as module
    elif backend == "graph":
        from mambair_cli.kernels import graph_scan as module
    elif backend == "cpu":
        from mambair_cli.kernels import cpu_scan as module
    elif backend == "cuda":
        from mambair_cli.kernels import cuda_scan as module
    elif backend == "triton":
        from mambair_cli.kernels import triton_scan as module
    else:
        raise ValueError(f"no backend of the scan: {backend}")
    return module
