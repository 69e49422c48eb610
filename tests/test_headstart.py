"""What begins beforehand: that it begins, and that nothing depends on it."""

import ctypes
import gc
import os
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from mambair_cli.cli import executors
from mambair_cli.cli.options import Options
from mambair_cli.errors import MambairError
from mambair_cli.restore import restorer
from mambair_cli.system import warmup


class Driver:
    """Stands in for NVIDIA's, and remembers the context that it was asked for."""

    def __init__(self):
        self.devices, self.asked = 1, []
        self.cuInit, self.cuDeviceGet, self.cuDevicePrimaryCtxRetain = self.init, self.get, self.retain

    def init(self, flags):
        assert threading.current_thread() is not threading.main_thread()
        return 0 if self.devices else 100

    def get(self, device, number):
        device._obj.value = 7 + number
        return 0 if number < self.devices else 101

    def retain(self, context, device):
        self.asked.append(device.value)
        return 0


@pytest.fixture
def driver(monkeypatch):
    """Have the stand-in loaded in place of the driver."""
    stands_in = Driver()

    def load(name):
        assert name == warmup.DRIVER
        return stands_in

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(warmup, "_is_built_for_cuda", lambda: True)
    monkeypatch.setenv("CUDA_MODULE_LOADING", "EAGER")  # by the user, which stays
    return stands_in


def test_how_a_gpu_loads_kernels_is_the_users_to_say(driver):
    warmup.import_torch("cuda")
    assert os.environ["CUDA_MODULE_LOADING"] == "EAGER"
    join()


def join():
    """Wait for what was begun."""
    for thread in threading.enumerate():
        if thread.name == "mambair-headstart":
            assert not thread.daemon  # the process must not end in its midst
            thread.join()


@pytest.mark.parametrize(("device", "asked"), [("auto", [7]), ("cuda", [7]), ("cuda:1", [8]), ("cpu", [])])
def test_the_gpu_that_will_compute_is_prepared(device, asked, driver):
    driver.devices = 2
    warmup.import_torch(device)
    join()
    assert driver.asked == asked


@pytest.mark.parametrize(
    ("device", "asked"),
    [("cuda:1", []), (f"cuda:{10**30}", []), ("cuda:x", [7]), ("cuda:", [7]), ("mps", []), ("nonsense", [])],
)
def test_what_does_not_exist_is_left_to_pytorch(device, asked, driver):
    warmup.import_torch(device)
    join()
    assert driver.asked == asked


@pytest.mark.parametrize(("library", "wanted"), [("libtorch_cpu.so", False), ("libtorch_cuda.so", True)])
def test_a_pytorch_without_cuda_prepares_nothing(library, wanted, tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / library).touch()
    monkeypatch.setattr(
        warmup, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    )
    begun = []
    monkeypatch.setattr(warmup, "_start", lambda *call: begun.append(call))
    monkeypatch.setattr(os, "environ", environment := {})
    warmup.import_torch("auto")
    assert bool(begun) == wanted
    assert environment == ({"CUDA_MODULE_LOADING": "LAZY"} if wanted else {})


def test_a_system_without_threads_to_spare_is_no_error(monkeypatch):
    def fail(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    warmup._start(lambda: None)


@pytest.mark.parametrize(
    ("options", "imported_for", "loaded_for"),
    [
        ({}, "auto", "cuda" if torch.cuda.is_available() else "cpu"),
        ({"device": "cpu"}, "cpu", "cpu"),
        ({"workers": 2}, "cpu", None),  # which are processes of their own
        ({"devices": "cpu,cpu"}, "cpu", None),
    ],
)
def test_a_command_that_computes_itself_has_a_head_start(options, imported_for, loaded_for, monkeypatch):
    begun = []
    monkeypatch.setattr(executors, "import_torch", lambda device: begun.append(device))
    monkeypatch.setattr(executors, "load_libraries", lambda device: begun.append(device.type))

    def end(settings, notify):
        raise MambairError("here it is the restorer's turn")

    monkeypatch.setattr(restorer.Restorer, "from_settings", end)
    with pytest.raises(MambairError, match="turn"):
        executors.open_executor("upscale", 4, None, Options(**options), cast(Any, None))
    assert begun == [imported_for, *([loaded_for] if loaded_for else [])]


def test_a_machine_without_gpus_or_driver_is_none_the_worse(driver, monkeypatch):
    driver.devices = 0
    warmup.import_torch("auto")
    join()
    assert not driver.asked

    def fail(name):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    warmup.import_torch("auto")
    join()


@pytest.mark.parametrize("is_enabled", [True, False])
def test_garbage_is_looked_for_again_afterwards(is_enabled):
    (gc.enable if is_enabled else gc.disable)()
    try:
        warmup.import_torch("cpu")
        assert gc.isenabled() == is_enabled
    finally:
        gc.enable()


def test_pytorch_is_imported_without_looking_for_garbage():
    program = """
import gc, sys
from mambair_cli.system.warmup import import_torch
assert "torch" not in sys.modules
looked = []
gc.callbacks.append(lambda phase, told: looked.append(phase))
import_torch("cpu")
assert "torch" in sys.modules
sys.exit(bool(looked))
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_libraries_are_for_gpus_alone(monkeypatch):
    begun = []
    monkeypatch.setattr(warmup, "_start", lambda *call: begun.append(call))
    warmup.load_libraries(torch.device("cpu"))
    assert not begun
    warmup.load_libraries(torch.device("cuda", 1))
    assert begun == [(warmup._make_products, torch.device("cuda", 1))]


def test_what_libraries_raise_is_left_for_whoever_needs_them(monkeypatch):
    warmup._make_products(torch.device("cpu"))
    warmup._make_products(torch.device("meta"))
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setitem(sys.modules, "triton.runtime", None)
    monkeypatch.setitem(sys.modules, "triton.runtime.cache", None)
    warmup._know_triton()


KNOW_BESIDE_PYTORCH = """
import ctypes, sys, threading
from types import SimpleNamespace
from mambair_cli import headstart

calls = dict.fromkeys(("cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain"), lambda *arguments: 0)
driver, load = SimpleNamespace(**calls), ctypes.CDLL
headstart._is_built_for_cuda = lambda: True
ctypes.CDLL = lambda name, *more, **named: driver if name == headstart.DRIVER else load(name, *more, **named)
headstart.import_torch("cuda")
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join()
from triton.runtime.cache import triton_key
sys.exit(triton_key.cache_info().currsize != 1)
"""


def test_triton_knows_itself_when_pytorch_is_there():
    pytest.importorskip("triton")
    subprocess.run([sys.executable, "-c", KNOW_BESIDE_PYTORCH], check=True)
