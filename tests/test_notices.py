"""What users should know although nothing failed: a line in mambair's name, from whatever process."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from checkpoints import save_identity
from pictures import save_photo
from PIL import Image

from mambair_cli.checkpoints.catalog import Asked
from mambair_cli.images.source import Source
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.settings import RestoreSettings
from mambair_cli.runs.executors.messages import Done
from mambair_cli.runs.executors.ray_cluster import NodeNotices
from mambair_cli.runs.executors.ray_worker import RayWorker
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.run import PreparedJob
from mambair_cli.system.notices import SlowerWarning, telling

LINE = "mambair: llvmlite is installed but not used, since it does not work: no code at run time"


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """Have commands find an llvmlite that does not work; return how to start one."""
    monkeypatch.chdir(tmp_path)
    Path("broken/llvmlite").mkdir(parents=True)
    Path("broken/llvmlite/__init__.py").write_text("raise OSError('no code at run time')")
    for name in "ab":
        save_photo(f"{name}.png")
    path = os.pathsep.join(["broken", *filter(None, [os.environ.get("PYTHONPATH")])])

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "mambair_cli", *arguments],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
def test_a_slower_way_is_a_line_and_printed_once(slow, options):
    with slow("denoise", "a.png", "b.png", "-o", "out", "--offline", *options) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert sorted(out.splitlines()) == ["out/a.png", "out/b.png"]
    assert [line for line in err.splitlines() if "llvmlite" in line] == [LINE]
    assert all(line.startswith("mambair: ") for line in err.splitlines())


def test_a_quiet_command_says_nothing_of_it(slow):
    with slow("denoise", "a.png", "-o", "out/", "--offline", "--quiet", "--json") as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["start", "done", "summary"]


def test_a_server_says_it_in_a_line(slow):
    with slow("serve", "--port", "0", "--offline") as server:
        assert server.stdout
        address = server.stdout.readline().strip()
        with slow("denoise", "a.png", "-o", "c.png", "--server", address, "-q") as process:
            assert process.communicate(timeout=120) == ("c.png\n", "")
        server.terminate()
        err = server.communicate(timeout=60)[1]
    assert [line for line in err.splitlines() if "llvmlite" in line] == [LINE]
    assert all(line.startswith("mambair: ") for line in err.splitlines())


@pytest.mark.filterwarnings("default")
def test_notices_of_another_machine_come_with_its_results_and_are_printed_once(tmp_path, monkeypatch):
    open_rows = Restorer.open_rows

    def warn_and_restore(self, *arguments):
        warnings.warn("the slower way is taken", SlowerWarning, stacklevel=1)
        return open_rows(self, *arguments)

    monkeypatch.setattr(Restorer, "open_rows", warn_and_restore)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    weights = Path(save_identity(tmp_path / "same.safetensors"))
    settings = RestoreSettings(Asked("denoise"), device="cpu")
    worker = RayWorker(settings, weights.read_bytes(), weights.name, 1, str(tmp_path))
    printed = []
    notices = NodeNotices(printed.append)
    for name in ("b.png", "c.png"):
        job = Job(Source(tmp_path / "a.png"), tmp_path / name)
        done = worker.perform(PreparedJob(job))
        assert isinstance(done, Done)
        assert done.outcome.error is None
        notices.show("10.0.0.2", done.outcome.remarks)
    worker.close()
    assert printed == ["on the node 10.0.0.2: the slower way is taken"]


@pytest.mark.filterwarnings("default")
def test_other_warnings_are_named_for_what_they_are_and_printed_once():
    printed = []
    with telling(printed.append):
        for _ in range(2):
            warnings.warn("it is\n  slow", SlowerWarning, stacklevel=1)
            warnings.warn("it is old", RuntimeWarning, stacklevel=1)
    assert printed == ["it is slow", "RuntimeWarning: it is old"]
