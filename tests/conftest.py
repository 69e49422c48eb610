"""Settings for every test."""

import atexit
import gc
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
import typer.main
from hypothesis import settings

if TYPE_CHECKING:
    from hub_client import Client

    from mambair_cli.server.address import Address
    from mambair_cli.train import TrainConfig

# Small tensors gain nothing from threads; threads that wait for each other on a busy machine take seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the first import of torch, which reads it then
os.environ.setdefault("MKL_CBWR", "AUTO")  # as in commands, whose results are compared with these

# A developer may have models of their own, which tests must not see.
os.environ["XDG_CONFIG_HOME"] = os.path.join(tempfile.gettempdir(), "mambair-tests-without-settings")

# Under nohup, which commands respect, tests of a closed terminal would wait for ever.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so is Ctrl-C in a shell's background
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("mambair", deadline=None)  # a first call imports, compiles or allocates
settings.load_profile("mambair")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what is imported and collected: each look at all of it takes a second."""
    gc.disable()
    collected = yield
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)  # else Triton complains of what is never freed
    return collected


@pytest.fixture(scope="session", autouse=True)
def commands_built_once() -> Iterator[None]:
    """Build all commands for the first call of ``main`` only: else that is a third of most calls' time."""
    with patch.object(typer.main, "get_command", cache(typer.main.get_command)):
        yield


@pytest.fixture(autouse=True)
def kept_priority() -> Iterator[None]:
    """See that no test leaves this thread with another priority: all later ones would have it, too."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0)
    yield
    after = os.sched_getscheduler(0)
    if after != before:
        os.sched_setscheduler(0, before, os.sched_param(0))
    assert after == before


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let a test set the number of PyTorch's threads, and begin with one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, list[str], str]]:
    """Run a command in an empty folder, as a user would, and return (exit code, stdout lines, stderr)."""
    from mambair_cli.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*arguments: object) -> tuple[int, list[str], str]:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return call


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of checkpoints: x2 and x4 repeat pixels, same and gray (one channel) keep them."""
    from checkpoints import save_identity, save_nearest

    folder = tmp_path_factory.mktemp("weights")
    save_nearest(folder / "x2.safetensors", 2)
    save_nearest(folder / "x4.safetensors", 4)
    save_identity(folder / "same.safetensors")
    save_identity(folder / "gray.safetensors", channels=1)
    return folder


@pytest.fixture
def restore(
    run: Callable[..., tuple[int, list[str], str]], weights: Path
) -> Callable[..., tuple[int, list[str], str]]:
    """Run a command with a small checkpoint, named second, as ``run`` does; it says nothing but errors."""

    def call(command: str, checkpoint: str, *arguments: object) -> tuple[int, list[str], str]:
        return run(command, *arguments, "--weights", weights / f"{checkpoint}.safetensors", "-q")

    return call


@pytest.fixture(scope="module")
def address() -> Iterator["Address"]:
    """Return the address of a server that computes on the CPU."""
    from restore_server import serving

    with serving() as address:
        yield address


@pytest.fixture
def client(tmp_path: Path) -> Iterator["Client"]:
    """Return a machine with an empty cache, and a Hub that has a file of its model."""
    from hub_client import CONTENT, MODEL, Client
    from hub_server import HubServer

    with HubServer() as server:
        server.add_repo(MODEL.repo, {"README.md": b"hello", "ckpt/first.pth": CONTENT})
        yield Client(server, tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of three photographs to train on."""
    from train_runs import save_photographs

    save_photographs(tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def config(photos: Path) -> "TrainConfig":
    """Return the settings of a short run of training."""
    from train_runs import make_config

    return make_config(photos.parent)


@pytest.fixture
def fresh_choice() -> Iterator[None]:
    """Let the backend of the scan be chosen anew, and forget the choice afterwards."""
    from mambair_cli import kernels

    kernels._usable.clear()
    yield
    kernels._usable.clear()


@pytest.fixture(scope="module")
def cuda_kernels(tmp_path_factory):
    """Make the kernels in CUDA C++ usable: on a GPU if there is one, else compiled for the CPU."""
    import torch

    if torch.cuda.is_available():
        yield
        return
    if shutil.which("g++") is None:
        pytest.skip("needs a GPU or g++")
    from cuda_twin import run_on_cpu

    with run_on_cpu(tmp_path_factory.mktemp("twin")):
        yield


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 64 KiB, and return its folder."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tiny disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
