"""CUDA C++, compiled by NVRTC, the compiler that comes with PyTorch's CUDA builds; without importing PyTorch.

Machine code is cached on disk, under a name made from the source, its settings, the card and the compiler.
"""

import ctypes
import functools
import hashlib
import runpy
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from mambair_cli.system.disk_cache import find_or_make

LANGUAGE = "--std=c++17"
FUNCTIONS = (  # of NVRTC
    *("nvrtcVersion", "nvrtcCreateProgram", "nvrtcCompileProgram", "nvrtcDestroyProgram"),
    *("nvrtcGetProgramLogSize", "nvrtcGetProgramLog", "nvrtcGetCUBINSize", "nvrtcGetCUBIN"),
)


class CompilerError(OSError):
    """The run-time compiler is missing, or rejects the source."""


def read_source(*names: str) -> str:
    """Join source files of this folder."""
    return "".join(Path(__file__).with_name(name).read_text() for name in names)


def compile_source(source: str, settings: Mapping[str, int], capability: tuple[int, int]) -> bytes:
    """Compile to a card's machine code, or read it from the disk.

    Raises:
        CompilerError: There is no compiler, or it rejects the source.
    """
    compiler = open_compiler()
    options = [LANGUAGE, f"--gpu-architecture=sm_{capability[0]}{capability[1]}"]
    options += [f"-D{name}={value}" for name, value in sorted(settings.items())]
    key = "\0".join([source, *options, compiler_version()])
    name = f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.cubin"
    return find_or_make(name, lambda: _compile(compiler, source, options))


def compiler_version() -> str:
    """Return the version of NVRTC; "" where there is none."""
    try:
        compiler = open_compiler()
    except CompilerError:
        return ""
    major, minor = ctypes.c_int(), ctypes.c_int()
    compiler.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


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
    folder, version = find_torch()
    major = version.split(".")[0]
    if sys.platform == "win32":
        patterns, plain = [f"nvrtc64_{major}*_0.dll"], []
    else:
        patterns, plain = [f"libnvrtc.so.{major}"], [f"libnvrtc.so.{major}"]
    folders = [folder / "lib"]
    for entry in sys.path:
        folders += Path(entry or ".").glob("nvidia/*/lib")
    found = [str(path) for folder in folders for pattern in patterns for path in folder.glob(pattern)]
    for name in (*found, *plain):
        with suppress(OSError):
            library = ctypes.CDLL(name)
            if all(hasattr(library, each) for each in FUNCTIONS):
                return library
    raise CompilerError(f"PyTorch's CUDA {version} came without its run-time compiler (NVRTC)")


@functools.cache
def find_torch() -> tuple[Path, str]:
    """Return PyTorch's folder, and the version of CUDA that it is built for; "" without CUDA.

    Raises:
        CompilerError: There is no PyTorch.
    """
    found = find_spec("torch")
    if found is None or found.origin is None:
        raise CompilerError("PyTorch is not installed")
    folder = Path(found.origin).parent
    return folder, runpy.run_path(str(folder / "version.py")).get("cuda") or ""
