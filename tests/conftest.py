"""Settings for every test."""

import os
import shutil
import signal
import subprocess

import pytest
from hypothesis import settings

# Small tensors gain nothing from threads; threads that wait for each other on a busy machine take seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the first import of torch, which reads it then

# Under nohup, which commands respect, tests of a closed terminal would wait for ever.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

settings.register_profile("mambair", deadline=None)  # a first call imports, compiles or allocates
settings.load_profile("mambair")


@pytest.fixture(scope="module")
def cuda_kernels(tmp_path_factory):
    """Have the kernels in CUDA C++ at hand: on a GPU where there is one, else as the CPU runs them."""
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
    """Return a folder that is a disk of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tiny disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
