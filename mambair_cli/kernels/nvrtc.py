"""CUDA C++, compiled at run time for the card by NVRTC, which comes with PyTorch's CUDA builds.

Libraries are called through ctypes, so that PyTorch and the driver are enough. Machine code is cached on
disk, under a name made from the source, its settings, the card and the compiler.
"""

import ctypes
import functools
import hashlib
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from mambair_cli.kernels.disk_cache import find_or_make

LANGUAGE = "--std=c++17"


class CompilerError(OSError):
    """The run-time compiler is missing, or rejects the source."""


def read_source(*names: str) -> str:
    """Join source files of this folder."""
    return "".join(Path(__file__).with_name(name).read_text() for name in names)


class Kernel:
    """A function on a card, launched on PyTorch's current stream."""

    def __init__(self, driver: ctypes.CDLL, handle: ctypes.c_void_p, threads: int) -> None:
        self._driver, self._handle, self._threads = driver, handle, threads

    def launch(self, grid: tuple[int, int, int], operands: ctypes.Structure) -> None:
        """Run the function over a grid of blocks, with one structure as its argument."""
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(operands))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        _check(
            self._driver,
            self._driver.cuLaunchKernel(
                self._handle, *grid, self._threads, 1, 1, 0, stream, arguments, ctypes.c_void_p()
            ),
        )


def load_kernels(
    source: str, settings: Mapping[str, int], names: tuple[str, ...], device: torch.device
) -> tuple[Kernel, ...]:
    """Compile a source for a card, or find its machine code on disk, and load it there.

    Args:
        source: CUDA C++ without headers.
        settings: Macros; THREADS is the size of a block.
        names: Names of its ``extern "C"`` functions.
        device: The card; its context must be the current one.

    Raises:
        CompilerError: There is no compiler or driver, or the compiler rejects the source.
    """
    driver = _open_driver()
    torch.cuda.current_stream(device)  # makes PyTorch's context exist
    with torch.cuda.device(device):
        module = ctypes.c_void_p()
        code = compile_source(source, settings, torch.cuda.get_device_capability(device))
        _check(driver, driver.cuModuleLoadData(ctypes.byref(module), code))
        kernels = []
        for name in names:
            handle = ctypes.c_void_p()
            _check(driver, driver.cuModuleGetFunction(ctypes.byref(handle), module, name.encode()))
            kernels.append(Kernel(driver, handle, settings["THREADS"]))
    return tuple(kernels)


def compile_source(source: str, settings: Mapping[str, int], capability: tuple[int, int]) -> bytes:
    """Compile to a card's machine code, or read it from the disk.

    Raises:
        CompilerError: There is no compiler, or it rejects the source.
    """
    compiler = open_compiler()
    options = [LANGUAGE, f"--gpu-architecture=sm_{capability[0]}{capability[1]}"]
    options += [f"-D{name}={value}" for name, value in sorted(settings.items())]
    major, minor = ctypes.c_int(), ctypes.c_int()
    compiler.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    key = "\0".join([source, *options, f"{major.value}.{minor.value}"])
    name = f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.cubin"
    return find_or_make(name, lambda: _compile(compiler, source, options))


def _compile(compiler: ctypes.CDLL, source: str, options: list[str]) -> bytes:
    program = ctypes.c_void_p()
    compiler.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"mambair.cu", 0, None, None)
    try:
        arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = compiler.nvrtcCompileProgram(program, len(options), arguments)
        size = ctypes.c_size_t()
        if failed:
            compiler.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            compiler.nvrtcGetProgramLog(program, log)
            raise CompilerError(
                f"the run-time compiler gave up: {log.value.decode(errors='replace').strip()}"
            )
        compiler.nvrtcGetCUBINSize(program, ctypes.byref(size))
        code = ctypes.create_string_buffer(size.value)
        compiler.nvrtcGetCUBIN(program, code)
        return code.raw
    finally:
        compiler.nvrtcDestroyProgram(ctypes.byref(program))


@functools.cache
def open_compiler() -> ctypes.CDLL:
    """Find NVRTC among the packages that PyTorch's CUDA builds need, or in the system's libraries.

    Raises:
        CompilerError: There is none.
    """
    major = (torch.version.cuda or "").split(".")[0]
    if sys.platform == "win32":
        patterns, plain = [f"nvrtc64_{major}*_0.dll"], []
    else:
        patterns, plain = [f"libnvrtc.so.{major}"], [f"libnvrtc.so.{major}"]
    folders = [Path(torch.__file__).parent / "lib"]
    for entry in sys.path:
        folders += Path(entry or ".").glob("nvidia/*/lib")
    found = [str(path) for folder in folders for pattern in patterns for path in folder.glob(pattern)]
    for name in (*found, *plain):
        with suppress(OSError):
            return ctypes.CDLL(name)
    raise CompilerError(f"PyTorch's CUDA {torch.version.cuda} came without its run-time compiler (NVRTC)")


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
        raise RuntimeError(f"the CUDA driver reports: {(text.value or b'unknown').decode()} ({result})")
