"""Kernels in CUDA C++ without a GPU: the same source compiled for the CPU, one thread for each of a block."""

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mambair_cli.kernels import cuda_depthwise, cuda_scan, cuda_training, nvrtc
from mambair_cli.programs.cuda_source import read_source

HEADER = Path(__file__).with_name("cuda_twin.hpp")
FLAGS = ("-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-pthread")


class TwinKernel:
    """A kernel on the CPU, launched in the same way as one on a GPU."""

    def __init__(self, library: ctypes.CDLL, name: str, threads: int) -> None:
        self.function, self.threads = getattr(library, f"run_{name}"), threads

    def launch(self, grid, operands):
        self.function(*grid, self.threads, ctypes.byref(operands))


@contextmanager
def run_on_cpu(folder: Path) -> Iterator[None]:
    """Run the package's CUDA C++ on the CPU, as if that were a GPU with a single multiprocessor."""
    loaders = cuda_scan._load, cuda_depthwise._load, cuda_training._load
    for load in loaders:
        load.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvrtc, "load_kernels", lambda *args: _build(folder, *args[:3]))
        patch.setattr(cuda_scan, "multiprocessors", lambda device: 1)
        yield
    for load in loaders:
        load.cache_clear()


_built = {}  # by source and settings, since compiling takes seconds


def _build(folder, files, settings, names):
    key = files, tuple(settings.items())
    if key not in _built:
        _built[key] = _compile(folder, read_source(*files), settings, names)
    return _built[key]


def _compile(folder, source, settings, names):
    entries = "".join(
        f'extern "C" void run_{name}(int x, int y, int z, int threads, const Operands* operands)'
        f"{{ run({name}, x, y, z, threads, *operands); }}\n"
        for name in names
    )
    header = folder.parent / HEADER.name  # for all tests of a process
    if not header.exists():
        shutil.copy(HEADER, header)  # parsed once, it halves the time of every other call
        subprocess.run(["g++", *FLAGS, "-x", "c++-header", header, "-o", f"{header}.gch"], check=True)
    file = folder / f"{len(list(folder.iterdir()))}.cpp"
    settled = "".join(f"#define {name} {value}\n" for name, value in settings.items())  # after the header
    file.write_text(f'#include "{header}"\n{settled}{source}\n{entries}')
    library = file.with_suffix(".so")
    subprocess.run(["g++", *FLAGS, file, "-o", library], check=True)
    return tuple(TwinKernel(ctypes.CDLL(str(library)), name, settings["THREADS"]) for name in names)
