"""Prepare the GPU early, while the processor does other things; results never depend on it."""

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

Capability = tuple[int, int]
MAJOR, MINOR = 75, 76  # numbers that the driver gives a card's compute capability
DRIVER = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"


def import_torch(device: str, begin: Callable[[Capability], None] | None = None) -> None:
    """Import PyTorch; meanwhile the driver prepares a GPU, if there is one, and Triton computes its key.

    The import takes one to two seconds of a processor, an eighth of it for garbage collection that finds
    nothing; the others take a third of a second each and hardly use the processor.

    Args:
        device: Device that will compute, as PyTorch names it, or "auto".
        begin: Called with a GPU's compute capability as soon as it is known, in a thread; what it raises is
            ignored.
    """
    kind, _, number = device.partition(":")
    if kind in ("auto", "cuda") and _is_built_for_cuda():
        os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")  # PyTorch sets it, too, but too late
        _start(_prepare_gpu, int(number) if number.isdecimal() else 0, begin)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import_module("torch")
    finally:
        if was_enabled:
            gc.enable()


def load_libraries(device: "torch.device") -> None:
    """Load the libraries for matrix products and convolutions on a GPU in a thread."""
    if device.type == "cuda":
        _start(_make_products, device)


def _start(function: Callable[..., None], *arguments: object) -> None:
    # No daemon thread: the process must not end while the driver is busy.
    thread = threading.Thread(target=function, args=arguments, name="mambair-warmup")
    with suppress(RuntimeError):  # the system allows no more threads
        thread.start()


def _is_built_for_cuda() -> bool:
    """Tell whether the installed PyTorch supports NVIDIA GPUs."""
    found = find_spec("torch")
    libraries = Path(found.origin).parent / "lib" if found and found.origin else None
    return libraries is not None and any(libraries.glob("*torch_cuda.*"))


def _prepare_gpu(number: int, begin: Callable[[Capability], None] | None) -> None:
    """Create the context that PyTorch will use; it lasts as long as the process."""
    with suppress(Exception):  # PyTorch will report the error itself
        driver = ctypes.CDLL(DRIVER)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), number) == 0:
            if begin is not None:
                _start(_tell_capability, driver, device, begin)
            _start(_hash_triton)
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)


def _tell_capability(driver: ctypes.CDLL, device: ctypes.c_int, begin: Callable[[Capability], None]) -> None:
    with suppress(Exception):
        major, minor = ctypes.c_int(), ctypes.c_int()
        for value, attribute in ((major, MAJOR), (minor, MINOR)):
            if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) != 0:
                return
        begin((major.value, minor.value))


def _make_products(device: "torch.device") -> None:
    import torch
    import torch.nn.functional as F

    with suppress(Exception), torch.inference_mode():  # it fails again later, where it is reported
        x = torch.zeros(1, 8, 8, 8, dtype=torch.float16, device=device)
        F.linear(F.conv2d(x, x[:, :, :3, :3].expand(8, 8, 3, 3), padding=1), x[0, 0])


def _hash_triton() -> None:
    """Have Triton hash its own files, half a gigabyte: the hash is the key to kernels of earlier runs."""
    with suppress(Exception):
        from triton.runtime.cache import triton_key

        triton_key()
