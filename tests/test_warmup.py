"""What a GPU needs is begun early, and nothing depends on it."""

import ctypes
import gc
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from pictures import save_photo

from mambair_cli.programs import ahead
from mambair_cli.system import warmup


class Driver:
    """Stands in for NVIDIA's, and remembers the devices whose contexts it was asked for."""

    def __init__(self):
        self.devices, self.asked = 1, []
        self.cuInit, self.cuDeviceGet, self.cuDevicePrimaryCtxRetain = self.init, self.get, self.retain
        self.cuDeviceGetAttribute = self.get_attribute

    def init(self, flags):
        assert threading.current_thread() is not threading.main_thread()
        return 0 if self.devices else 100

    def get(self, device, number):
        device._obj.value = 7 + number
        return 0 if number < self.devices else 101

    def get_attribute(self, value, attribute, device):
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0 if device.value >= 7 else 101

    def retain(self, context, device):
        self.asked.append(device.value)
        return 0


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Have PyTorch be found in a folder that has one library, the one for CUDA until another is named."""

    def install(library):
        package = tmp_path / library
        (package / "lib").mkdir(parents=True)
        (package / "lib" / library).touch()
        monkeypatch.setattr(torch.__spec__, "origin", str(package / "__init__.py"))

    install("libtorch_cuda.so")
    return install


@pytest.fixture
def driver(install, monkeypatch):
    """Have the stand-in loaded in place of the driver."""
    stands_in, load = Driver(), ctypes.CDLL

    def load_driver(name, *more, **named):
        return stands_in if name == warmup.DRIVER else load(name, *more, **named)

    monkeypatch.setattr(ctypes, "CDLL", load_driver)
    monkeypatch.setenv("CUDA_MODULE_LOADING", "EAGER")  # by the user, which stays
    return stands_in


@pytest.fixture
def computed(monkeypatch):
    """Return what is computed, and for which device, while the CPU stands in for all of them."""
    computed, zeros = [], torch.zeros

    def make(*shape, device, **options):
        assert threading.current_thread() is not threading.main_thread()
        computed.append(str(device))
        return zeros(*shape, **options)

    def record(function):
        def call(*operands, **options):
            result = function(*operands, **options)
            computed.append(function.__name__)
            return result

        return call

    monkeypatch.setattr(torch, "zeros", make)
    monkeypatch.setattr(F, "conv2d", record(F.conv2d))
    monkeypatch.setattr(F, "linear", record(F.linear))
    return computed


@pytest.fixture(autouse=True)
def join(monkeypatch):
    """Wait for what was begun; none of it may end with an error that nobody catches."""
    before, uncaught = set(threading.enumerate()), []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)

    def join():
        while begun := set(threading.enumerate()) - before:
            for thread in begun:
                assert not thread.daemon  # the process must not end in its midst
                with suppress(RuntimeError):  # another thread is about to start it
                    thread.join()

    yield join
    join()
    assert not uncaught


def test_how_a_gpu_loads_kernels_is_the_users_to_say(driver, join):
    warmup.import_torch("cuda")
    join()
    assert driver.asked == [7]
    assert os.environ["CUDA_MODULE_LOADING"] == "EAGER"


@pytest.mark.parametrize(("device", "asked"), [("auto", [7]), ("cuda", [7]), ("cuda:1", [8]), ("cpu", [])])
def test_the_gpu_that_will_compute_is_prepared(device, asked, driver, join):
    driver.devices = 2
    warmup.import_torch(device)
    join()
    assert driver.asked == asked


@pytest.mark.parametrize(
    ("device", "asked"),
    [("cuda:1", []), (f"cuda:{10**30}", []), ("cuda:x", [7]), ("cuda:", [7]), ("mps", []), ("nonsense", [])],
)
def test_what_does_not_exist_is_left_to_pytorch(device, asked, driver, join):
    warmup.import_torch(device)
    join()
    assert driver.asked == asked


@pytest.mark.parametrize(
    ("library", "asked", "loading"), [("libtorch_cpu.so", [], None), ("torch_cuda.dll", [7], "LAZY")]
)
def test_a_pytorch_without_cuda_prepares_nothing(library, asked, loading, install, driver, monkeypatch, join):
    install(library)
    monkeypatch.delenv("CUDA_MODULE_LOADING")
    warmup.import_torch("auto")
    join()
    assert driver.asked == asked
    assert os.environ.get("CUDA_MODULE_LOADING") == loading


def test_a_system_without_threads_to_spare_is_no_error(driver, computed, monkeypatch):
    refused = []

    def fail(thread):
        refused.append(thread)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    warmup.import_torch("cuda")
    warmup.load_libraries(torch.device("cuda"))
    assert len(refused) == 2
    assert driver.asked == computed == []


@pytest.mark.parametrize(
    ("options", "asked", "loaded"),
    [
        ([], [7], True),
        (["--device", "cpu"], [], False),
        (["--workers", 2], [], False),  # which are processes of their own
        (["--devices", "cpu,cpu"], [], False),
    ],
)
def test_a_command_that_computes_itself_has_a_head_start(
    options, asked, loaded, run, driver, computed, monkeypatch, join
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    save_photo("in.png")
    Path("empty.pth").touch()
    code, _, err = run("upscale", "in.png", "--weights", "empty.pth", *options)
    join()
    assert (code, err.splitlines()[-1].partition(";")[0]) == (
        3,
        "mambair: error: cannot load empty.pth: the file is empty",
    )
    assert driver.asked == asked
    assert computed == (["cuda", "conv2d", "linear"] if loaded else [])


@pytest.mark.parametrize(
    ("options", "model"),
    [
        (["--model", "tiny-x4"], "tiny-x4"),
        (["--model", "tiny-x2", "--scale", "2", "--device", "cuda"], "tiny-x2"),
        ([], "mambairv2-large-x4"),  # of which the look at the picture may think otherwise
        (["--model", "no-such-model"], None),
        (["--model", "tiny-x4", "--device", "cpu"], None),
        (["--model", "tiny-x4", "--precision", "fp32"], None),
        (["--weights", "empty.pth"], None),
    ],
)
def test_the_programs_of_the_model_that_is_named_are_compiled_ahead(
    options, model, run, driver, monkeypatch, join
):
    begun = []
    monkeypatch.setattr(ahead, "start", lambda *asked: begun.append(asked))
    Path("empty.pth").touch()
    save_photo("in.png")
    run("upscale", "in.png", *options)
    join()
    assert begun == ([] if model is None else [(model, (9, 0))])


def test_a_machine_without_gpus_or_driver_is_none_the_worse(driver, monkeypatch, join):
    driver.devices = 0
    warmup.import_torch("auto")
    join()
    assert driver.asked == []
    sought = []

    def fail(name):
        sought.append(name)
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    warmup.import_torch("auto")
    join()
    assert sought == [warmup.DRIVER]


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
gc.callbacks.append(lambda phase, info: looked.append(phase))
import_torch("cpu")
assert "torch" in sys.modules
sys.exit(bool(looked))
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_libraries_are_for_gpus_alone(computed, join):
    warmup.load_libraries(torch.device("cpu"))
    join()
    assert computed == []
    warmup.load_libraries(torch.device("cuda", 1))
    join()
    assert computed == ["cuda:1", "conv2d", "linear"]


def test_what_libraries_raise_is_left_to_the_network(monkeypatch, join):
    tried = []

    def fail(*shape, device, **options):
        tried.append(str(device))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "zeros", fail)
    warmup.load_libraries(torch.device("cuda"))
    join()
    assert tried == ["cuda"]


def test_what_triton_raises_is_left_to_its_kernels(driver, monkeypatch, join):
    tried = []

    def fail():
        tried.append("triton")
        raise OSError("cannot read its files")

    cache = SimpleNamespace(triton_key=fail)
    for name, module in (
        ("", ModuleType("triton")),
        (".runtime", ModuleType("runtime")),
        (".runtime.cache", cache),
    ):
        monkeypatch.setitem(sys.modules, f"triton{name}", module)
    warmup.import_torch("cuda")
    join()
    assert tried == ["triton"]
    assert driver.asked == [7]


# Its argument is the file of a PyTorch that has a library for CUDA.
KNOW_NEXT_TO_PYTORCH = """
import ctypes, importlib.util, sys, threading
from types import SimpleNamespace

find, load = importlib.util.find_spec, ctypes.CDLL
torch = SimpleNamespace(origin=sys.argv[1])
importlib.util.find_spec = lambda name, *more: torch if name == "torch" else find(name, *more)
from mambair_cli.system import warmup

calls = dict.fromkeys(("cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain"), lambda *arguments: 0)
driver = SimpleNamespace(**calls)
ctypes.CDLL = lambda name, *more, **named: driver if name == warmup.DRIVER else load(name, *more, **named)
warmup.import_torch("cuda")
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join()
from triton.runtime.cache import triton_key
sys.exit(triton_key.cache_info().currsize != 1)
"""


def test_triton_knows_itself_when_pytorch_is_there(install):
    pytest.importorskip("triton")
    assert torch.__spec__.origin
    subprocess.run([sys.executable, "-c", KNOW_NEXT_TO_PYTORCH, torch.__spec__.origin], check=True)
