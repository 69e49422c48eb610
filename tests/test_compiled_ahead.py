"""Programs are compiled ahead as their launches ask for them, and nothing depends on it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import save_photo

from mambair_cli.checkpoints.catalog import load_catalog
from mambair_cli.programs import ahead
from mambair_cli.programs.forms import FILE, read_launches

PROGRAM = Path(__file__).with_name("launched_forms.py")
ROOT = PROGRAM.parents[1]


def start(*command: object, **environment: object) -> subprocess.CompletedProcess[str]:
    """Run a Python program that inherits nothing from the tests."""
    settings = {key: value for key, value in os.environ.items() if not key.startswith("TRITON_")}
    settings |= {"PYTHONPATH": str(ROOT)} | {key: str(value) for key, value in environment.items()}
    arguments = [sys.executable, *map(str, command)]
    return subprocess.run(arguments, env=settings, capture_output=True, text=True, check=False)


def test_the_list_has_just_what_models_launch() -> None:
    pytest.importorskip("triton")
    done = start(PROGRAM)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(FILE.read_text()), f"see {PROGRAM.name}"


@pytest.mark.parametrize("model", [model.name for model in load_catalog() if model.bundled])
def test_each_built_in_model_has_forms(model: str) -> None:
    assert all(read_launches(model))


def test_a_model_that_is_not_in_the_catalogue_has_none() -> None:
    assert read_launches("my-own") == ([], [])


# What is left out is compiled by the system's compiler, and needs the driver's library.
COMPILE = """
import sys
from triton.backends.nvidia import driver
driver.CudaUtils = object
vars(driver).pop("make_launcher", None)
from mambair_cli.programs import cuda_source
folder, version = cuda_source.find_torch()
cuda_source.find_torch = lambda: (folder, version or "13.0")
from mambair_cli.programs.compile import compile_launches
compile_launches(sys.argv[1], int(sys.argv[2]), processes=2, seconds=600)
assert "torch" not in sys.modules
"""


def compiled(folder: Path) -> set[Path]:
    """Return the places of machine code in a folder, Triton's apart from its name, which programs share."""
    by_triton = {path.parent.relative_to(folder) for path in folder.glob("triton/*/*.cubin")}
    return by_triton | {path.relative_to(folder) for path in folder.glob("mambair/kernels/*.cubin")}


def places(folder: Path) -> dict[str, Path]:
    """Return the settings by which compilers keep their results in a folder."""
    return {"TRITON_CACHE_DIR": folder / "triton", "XDG_CACHE_HOME": folder}


def count_launches(model: str) -> int:
    """Return how many compilations are reported: one more than a model launches."""
    return sum(map(len, read_launches(model))) + 1


@pytest.mark.parametrize(("model", "capability"), [("tiny-x4", 75)])
def test_what_is_compiled_has_the_names_by_which_launches_look(
    model: str, capability: int, tmp_path: Path
) -> None:
    pytest.importorskip("triton")
    folders = {way: places(tmp_path / way) for way in ("ahead", "launched")}
    done = start("-c", COMPILE, model, capability, **folders["ahead"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "." * count_launches(model)
    done = start(PROGRAM, model, capability, **folders["launched"])
    assert (done.returncode, done.stderr) == (0, "")
    ahead_of, launched = (compiled(tmp_path / way) for way in folders)
    assert ahead_of == launched
    by_triton = len(read_launches(model).triton)
    assert len(launched) in (by_triton, count_launches(model) - 1)  # the first where there is no NVRTC


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of Triton's results, which does not exist yet; a file stands for Triton."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "triton.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setattr(ahead, "find_spec", lambda name: FakeSpec(tmp_path / "packages" / "triton.py"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "mambair" / "kernels").mkdir(parents=True)
    monkeypatch.delenv(ahead.SWITCH, raising=False)
    return tmp_path / "results"


class FakeSpec:
    """Where a module is."""

    def __init__(self, origin: Path) -> None:
        self.origin = str(origin)


def stamps(folder: Path) -> int:
    return len(list(folder.glob("mambair-*")))


WHOLE = f"import os; os.write(1, b'.' * {count_launches('tiny-x4')})"
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is compiled ahead")


@linux
def test_without_a_home_nothing_is_compiled_ahead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    for variable in ("XDG_CACHE_HOME", "TRITON_CACHE_DIR"):
        with monkeypatch.context() as patch:
            patch.delenv(variable)
            patch.delenv("TRITON_HOME", raising=False)
            ahead.start("tiny-x4", (9, 0))
        assert not ahead._begun


@linux
def test_what_is_compiled_once_is_not_begun_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_PROGRAM", WHOLE)
    for begun in (True, False):
        ahead.start("tiny-x4", (9, 0))
        assert bool(ahead._begun) == begun
        ahead.wait()
        assert stamps(folder) == 1
    changes = {"model": ("tiny-x2", (9, 0)), "card": ("tiny-x4", (8, 0))}
    for count, asked in enumerate(changes.values(), start=2):
        ahead.start(*asked)
        ahead.wait()
        assert stamps(folder) == count
    monkeypatch.setenv("TRITON_PTXAS_PATH", "/another/ptxas")
    ahead.start("tiny-x4", (9, 0))
    ahead.wait()
    assert stamps(folder) == 4
    shutil.rmtree(folder.parent / "mambair" / "kernels")  # with machine code from CUDA C++
    ahead.start("tiny-x4", (9, 0))
    assert ahead._begun
    ahead.wait()


@linux
@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit('a failure')",
        "import os; os.write(1, b'...')",
        f"import os; os.write(1, b'...'); os.kill(os.getpid(), {int(signal.SIGKILL)})",
        "import time; time.sleep(600)",
    ],
)
def test_where_it_fails_nothing_is_said_and_it_is_tried_again(
    program: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ahead, "_PROGRAM", program)
    monkeypatch.setattr(ahead, "WAIT_SECONDS", 3)
    ahead.start("tiny-x4", (9, 0))
    ((process, *_),) = ahead._begun
    ahead.wait()
    assert process.wait() != 0 or program.endswith("b'...')")
    assert stamps(folder) == 0
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(ahead, "_PROGRAM", WHOLE)
    ahead.start("tiny-x4", (9, 0))
    ahead.wait()
    assert stamps(folder) == 1


@pytest.mark.parametrize("reason", ["switched off", "no Triton", "unknown model"])
def test_where_it_cannot_be_nothing_is_begun(
    reason: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "switched off":
        monkeypatch.setenv(ahead.SWITCH, "0")
    if reason == "no Triton":
        monkeypatch.setattr(ahead, "find_spec", lambda name: None)
    ahead.start("my-own" if reason == "unknown model" else "tiny-x4", (9, 0))
    assert not ahead._begun
    assert not folder.exists()


ON_A_CARD = """
import os, sys
from pathlib import Path
import numpy as np
import torch
from mambair_cli import Restorer
from mambair_cli.programs import ahead

def count():
    places = os.environ["TRITON_CACHE_DIR"], os.environ["XDG_CACHE_HOME"] + "/mambair/kernels"
    return sum(len(list(Path(place).rglob("*.cubin"))) for place in places)

ahead.start(sys.argv[1], torch.cuda.get_device_capability())
ahead.wait()
before = count()
Restorer(model=sys.argv[1])(np.zeros((200, 300, 3), np.uint8))
print(before, count())
"""


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["tiny-x2", "tiny-x3", "tiny-x4", "tiny-real-x2", "tiny-real-x4"])
def test_on_a_card_a_model_finds_all_that_it_launches(model: str, tmp_path: Path) -> None:
    scale = next(each.scale for each in load_catalog() if each.name == model)
    program = ON_A_CARD.replace("Restorer(", f"Restorer(scale={scale}, ")
    done = start("-c", program, model, **places(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    before, after = map(int, done.stdout.split())
    assert after == before == count_launches(model) - 1


# Its arguments: a program to run instead of the compiling one, or "", and those of the command. A card that
# is not there tells its compute capability; the network then computes on the CPU.
COMMAND = """
import ctypes, sys
from types import SimpleNamespace
from mambair_cli.programs import ahead
from mambair_cli.system import warmup

def give(value, attribute, device):
    value._obj.value = {75: 9, 76: 0}[attribute]
    return 0

load = ctypes.CDLL
driver = SimpleNamespace(cuInit=lambda flags: 0, cuDeviceGet=lambda device, number: 0)
driver.cuDeviceGetAttribute, driver.cuDevicePrimaryCtxRetain = give, lambda context, device: 0
ctypes.CDLL = lambda name, *more, **named: driver if name == warmup.DRIVER else load(name, *more, **named)
warmup._is_built_for_cuda = lambda: True
warmup._hash_triton = lambda: None
if sys.argv[1]:
    ahead._PROGRAM = sys.argv.pop(1)
else:
    sys.argv.pop(1)
from mambair_cli.__main__ import main
from mambair_cli.restore.engine import Engine
run = Engine.run

def wait_and_run(*arguments):
    ahead.wait()
    return run(*arguments)

Engine.run = wait_and_run
sys.exit(main())
"""


@linux
@pytest.mark.parametrize("reason", ["no driver's library", "killed", "no folder", "no Triton"])
def test_a_command_is_none_the_worse_where_nothing_is_compiled_ahead(reason: str, tmp_path: Path) -> None:
    save_photo(tmp_path / "in.png")
    arguments = ("upscale", tmp_path / "in.png", "--model", "tiny-x4", "-o", tmp_path / "out.png")
    program = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})" if reason == "killed" else ""
    results = tmp_path / "results"
    if reason == "no folder":
        results.touch()
    settings: dict[str, object] = {"TRITON_CACHE_DIR": results, "TRITON_LIBCUDA_PATH": tmp_path}
    if reason == "no Triton":
        (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['triton'] = None\n")
        settings["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = start("-c", COMMAND, program, *arguments, **settings)
    notice = "mambair: using tiny-x4 on cpu\n"
    assert (done.stdout, done.stderr, done.returncode) == (f"{tmp_path / 'out.png'}\n", notice, 0)
    assert results.is_file() or stamps(results) == 0
