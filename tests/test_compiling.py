"""Kernels are compiled side by side before a call, and not run."""

import ctypes
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mambair_cli.kernels import nvrtc
from mambair_cli.kernels.compiling import compile_aside, compiling_only, is_compiling_only

CARD = torch.device("cuda", 0)
SETTINGS = {"THREADS": 32}


class NoOperands(ctypes.Structure):
    """The argument of a kernel that is not really run."""


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """Stand in for the compiler and the driver; what they were asked for is noted."""
    asked = []

    def compile(source, settings, capability):
        if "error" in source:
            asked.append("refuse")
            raise nvrtc.CompilerError(source)
        asked.append(f"compile {source} for {capability}")
        return source.encode()

    class Driver:
        def __getattr__(self, name):
            return lambda *arguments: asked.append(name) or 0

    monkeypatch.setattr(nvrtc, "compile_source", compile)
    monkeypatch.setattr(nvrtc, "_open_driver", Driver)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *device: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    return asked


def test_a_kernel_of_cuda_is_compiled_once_and_not_run_then_run(compiled):
    scan, ends = nvrtc.load_kernels("source", SETTINGS, ("scan", "ends"), CARD)
    assert compiled == []
    with compiling_only():
        assert is_compiling_only()
        for _ in range(3):
            scan.launch((1, 1, 1), NoOperands())
            ends.launch((1, 1, 1), NoOperands())
    assert compiled == ["compile source for (9, 0)"]
    assert not is_compiling_only()
    scan.launch((1, 1, 1), NoOperands())
    ends.launch((1, 1, 1), NoOperands())
    assert compiled[1:] == [
        *("cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel"),
        *("cuModuleGetFunction", "cuLaunchKernel"),
    ]


def test_a_kernel_that_cannot_be_compiled_is_told_when_it_is_to_run(compiled):
    (kernel,) = nvrtc.load_kernels("an error", SETTINGS, ("scan",), CARD)
    with compiling_only():
        kernel.launch((1, 1, 1), NoOperands())
    assert compiled == ["refuse"]
    with pytest.raises(nvrtc.CompilerError, match="an error"):
        kernel.launch((1, 1, 1), NoOperands())


def test_nothing_is_compiled_aside_where_kernels_run():
    with pytest.raises(RuntimeError, match="aside"):
        compile_aside("key", lambda: None)


def test_an_error_inside_ends_it():
    with pytest.raises(ZeroDivisionError), compiling_only():
        raise ZeroDivisionError
    assert not is_compiling_only()


def test_the_kernels_of_triton_are_compiled_by_several_threads_and_once(tmp_path):
    pytest.importorskip("triton", minversion="3.5")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    program = Path(__file__).with_name("triton_without_gpu.py")
    done = subprocess.run(
        [sys.executable, program],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(program.parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    kernels, threads, again = map(int, done.stdout.split())
    assert kernels >= 8
    assert threads >= 2
    assert again == 0
    assert not done.stderr
