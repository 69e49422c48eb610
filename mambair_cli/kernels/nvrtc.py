"""Functions in CUDA C++, loaded on a card and launched there.

The driver is called through ctypes, so that PyTorch and the driver are enough.
"""

import ctypes
import functools
import sys
from collections.abc import Mapping
from contextlib import suppress

import torch

from mambair_cli.programs.cuda_source import CompilerError, compile_source, read_source

# Numbers of element types in elements.cuh.
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
SHARED_BYTES = 48 * 1024  # of shared memory, which every block may use
OUT_OF_MEMORY = 2  # the driver's CUDA_ERROR_OUT_OF_MEMORY


class Kernel:
    """A function on a card, launched on PyTorch's current stream of that card."""

    def __init__(
        self, driver: ctypes.CDLL, handle: ctypes.c_void_p, threads: int, device: torch.device
    ) -> None:
        self._driver, self._handle, self._threads, self._device = driver, handle, threads, device

    def launch(self, grid: tuple[int, int, int], operands: ctypes.Structure) -> None:
        """Run the function over a grid of blocks, with one structure as its argument."""
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(operands))
        with torch.cuda.device(self._device):  # which may not be the current one
            stream = ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
            _check(
                self._driver,
                self._driver.cuLaunchKernel(
                    self._handle, *grid, self._threads, 1, 1, 0, stream, arguments, ctypes.c_void_p()
                ),
            )


def load_kernels(
    files: tuple[str, ...], settings: Mapping[str, int], names: tuple[str, ...], device: torch.device
) -> tuple[Kernel, ...]:
    """Compile a source for a card, or find its machine code on disk, and load it there.

    Args:
        files: Names of the source's files in ``programs``, in CUDA C++ without headers.
        settings: Macros; THREADS is the size of a block.
        names: Names of its ``extern "C"`` functions.
        device: The card.

    Raises:
        CompilerError: There is no compiler or driver, or the compiler rejects the source.
        torch.OutOfMemoryError: The card has no room for the machine code.
    """
    driver = _open_driver()
    torch.cuda.current_stream(device)  # makes PyTorch's context exist
    with torch.cuda.device(device):
        module = ctypes.c_void_p()
        code = compile_source(read_source(*files), settings, torch.cuda.get_device_capability(device))
        _check(driver, driver.cuModuleLoadData(ctypes.byref(module), code))
        kernels = []
        for name in names:
            handle = ctypes.c_void_p()
            _check(driver, driver.cuModuleGetFunction(ctypes.byref(handle), module, name.encode()))
            kernels.append(Kernel(driver, handle, settings["THREADS"], device))
    return tuple(kernels)


def driver_version() -> int:
    """Return the version of CUDA that the driver has, such as 13000; 0 where there is none."""
    version = ctypes.c_int()
    with suppress(CompilerError):
        _open_driver().cuDriverGetVersion(ctypes.byref(version))
    return version.value


@functools.cache
def _open_driver() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise CompilerError(f"the CUDA driver cannot be opened: {error}") from error


def _check(driver: ctypes.CDLL, result: int) -> None:
    if result:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(result, ctypes.byref(text))
        said = f"the CUDA driver reports: {(text.value or b'unknown').decode()} ({result})"
        raise torch.OutOfMemoryError(said) if result == OUT_OF_MEMORY else RuntimeError(said)
