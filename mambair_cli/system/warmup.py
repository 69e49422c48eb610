"""Begin early with what a GPU needs, while the processor does other things; nothing depends on it."""

import ctypes
import gc
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

DRIVER = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"


def import_torch(device: str) -> None:
    """Import PyTorch, and have the driver prepare a GPU meanwhile, and Triton know itself, if there is one.

    The one takes a second or two of a processor, an eighth of which would go into looking for garbage, and
    there is none; the others, a third of a second each, take next to nothing of that.

    Args:
        device: That is to compute, as PyTorch will name it, or "auto".
    """
    kind, _, number = device.partition(":")
    if kind in ("auto", "cuda") and _is_built_for_cuda():
        os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")  # PyTorch, too, would set it, but too late
        _start(_prepare_gpu, int(number) if number.isdecimal() else 0)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import_module("torch")
    finally:
        if was_enabled:
            gc.enable()


def load_libraries(device: "torch.device") -> None:
    """Have a thread load what products and convolutions on a GPU are made of."""
    if device.type == "cuda":
        _start(_make_products, device)


def _start(function: Callable[..., None], *arguments: object) -> None:
    # No daemon: a process must not end in the midst of what the driver does.
    thread = threading.Thread(target=function, args=arguments, name="mambair-headstart")
    with suppress(RuntimeError):  # the system lets no more of them be
        thread.start()


def _is_built_for_cuda() -> bool:
    """Tell whether the PyTorch that is installed can use NVIDIA's GPUs."""
    found = find_spec("torch")
    libraries = Path(found.origin).parent / "lib" if found and found.origin else None
    return libraries is not None and any(libraries.glob("*torch_cuda.*"))


def _prepare_gpu(number: int) -> None:
    """Make the context that PyTorch will use, as long as the process lives."""
    with suppress(Exception):  # whatever is the matter, PyTorch will say it in its own words
        driver = ctypes.CDLL(DRIVER)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), number) == 0:
            _start(_know_triton)
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)


def _make_products(device: "torch.device") -> None:
    import torch
    import torch.nn.functional as F

    with suppress(Exception), torch.inference_mode():  # what fails here fails again where it can be told
        x = torch.zeros(1, 8, 8, 8, dtype=torch.float16, device=device)
        F.linear(F.conv2d(x, x[:, :, :3, :3].expand(8, 8, 3, 3), padding=1), x[0, 0])


def _know_triton() -> None:
    """Have Triton read what it consists of, half a gigabyte: by that it finds the kernels of earlier runs."""
    with suppress(Exception):
        from triton.runtime.cache import triton_key

        triton_key()
