"""Commands that are interrupted, at any moment: never a traceback, and nothing half-written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoints import save_nearest
from forked import start_forked, start_python
from pictures import save_photo
from PIL import Image

from mambair_cli.cli import main
from mambair_cli.runs.journal import JOURNAL_FILE
from mambair_cli.train.folder import LOCK_FILE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
IMAGES, SIZE = 6, (400, 300)  # some tenths of a second for each
COMMAND = ("upscale", "photos", "--weights", "x4.safetensors", "-o")
HALF_WRITTEN, RESULTS = ".mambair-*.tmp", "[!.]*"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupts")
    save_nearest(folder / "x4.safetensors", 4)
    for index in range(IMAGES):
        save_photo(folder / f"photos/{index}.png", SIZE)
    return folder


def heeds_signals(process):
    """Tell whether a process has come to our code; before, Python is starting."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def await_moment(moment, process, output):
    """Wait for some seconds, or for a file that a pattern fits."""
    if isinstance(moment, float):
        time.sleep(moment)
        return
    while not any(output.glob(moment)):
        assert process.poll() is None
        time.sleep(0.002)


def interrupt(folder, output, options, number, *moments):
    """Run a command, send it a signal at each of some moments; return the exit code and stderr."""
    command = ["-m", "mambair_cli", *COMMAND, output, *options]
    start = start_forked if isinstance(moments[0], str) else start_python  # whose imports are interrupted
    with start(*command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        while not heeds_signals(process):
            time.sleep(0.002)
        for moment in moments:
            await_moment(moment, process, output)
            process.send_signal(number)
        err = process.communicate(timeout=60)[1]
    return process.returncode, err


def check_whole(output):
    """Load all results, and count them."""
    paths = list(output.glob(RESULTS))
    for path in paths:
        with Image.open(path) as image:
            image.load()
            assert image.size == (SIZE[0] * 4, SIZE[1] * 4)
    return len(paths)


@pytest.mark.parametrize(
    ("options", "number", "moments"),
    [
        ([], signal.SIGINT, (0.0,)),  # typer is being imported
        ([], signal.SIGTERM, (0.3,)),  # torch is
        ([], signal.SIGINT, (0.6, 0.05)),
        ([], signal.SIGTERM, (2.0, 0.05)),
        (["--workers", "2"], signal.SIGINT, (2.5,)),  # the workers import torch
        (["--workers", "2"], signal.SIGTERM, (4.0, 0.05)),
    ],
)
def test_an_interrupt_is_a_line_at_any_moment(folder, tmp_path, options, number, moments):
    code, err = interrupt(folder, tmp_path / "out", options, number, *moments)
    told = [line for line in err.splitlines() if not line.startswith("mambair: using")]
    if code == 0:  # it was faster
        assert len(told) == 1
        assert f"{IMAGES} done of {IMAGES} images" in told[0]
    else:
        assert (code, told) == (130, ["mambair: interrupted"])
    check_whole(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "number", "moment"),
    [
        ([], signal.SIGINT, HALF_WRITTEN),
        ([], signal.SIGTERM, RESULTS),
        (["--workers", "2"], signal.SIGTERM, HALF_WRITTEN),
        (["--workers", "2"], signal.SIGINT, RESULTS),
    ],
)
def test_an_interrupt_amid_work_leaves_whole_results_alone(folder, tmp_path, options, number, moment):
    output = tmp_path / "out"
    code, err = interrupt(folder, output, options, number, moment)
    told = [line for line in err.splitlines() if not line.startswith("mambair: using")]
    assert (code, told) == (130, ["mambair: interrupted"])
    whole = check_whole(output)
    assert {path.suffix for path in output.glob(RESULTS)} <= {".png"}
    assert whole < IMAGES
    assert whole or moment != RESULTS
    assert not list(output.glob(HALF_WRITTEN))


@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
def test_a_closed_terminal_which_tells_it_twice_leaves_nothing_half_written(folder, tmp_path, options):
    output = tmp_path / "out"
    code, err = interrupt(folder, output, options, signal.SIGHUP, HALF_WRITTEN, 0.0)
    assert code == 130
    assert err.endswith("mambair: interrupted\n")
    check_whole(output)
    assert {path.name for path in output.iterdir() if path.name.startswith(".")} == {JOURNAL_FILE}


def test_a_terminal_that_is_closed_ends_a_command(folder, tmp_path):
    import pty

    output = tmp_path / "out"
    process, terminal = pty.fork()
    if not process:
        os.chdir(folder)
        os.execv(sys.executable, [sys.executable, "-m", "mambair_cli", *COMMAND, str(output)])
    while not any(output.glob(HALF_WRITTEN)):
        time.sleep(0.002)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130
    check_whole(output)
    assert {path.name for path in output.iterdir() if path.name.startswith(".")} == {JOURNAL_FILE}


def test_what_a_second_interrupt_leaves_is_cleared_away_by_the_next_run(folder, tmp_path, monkeypatch):
    output = tmp_path / "out"
    code, err = interrupt(folder, output, [], signal.SIGINT, HALF_WRITTEN, 0.0)
    assert code == 130
    assert err.endswith("mambair: interrupted\n")
    check_whole(output)
    monkeypatch.chdir(folder)
    assert main([*COMMAND, str(output), "--resume"]) == 0
    assert check_whole(output) == IMAGES
    assert not list(output.glob(HALF_WRITTEN))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("was_there", [False, True])
def test_a_training_that_is_interrupted_while_it_loads_leaves_nothing(folder, tmp_path, number, was_there):
    output = tmp_path / "new" / "run"
    if was_there:
        output.mkdir(parents=True)
    command = ["-m", "mambair_cli", "train", "photos", "--task", "denoise", "-o", output]
    with start_forked(*command, cwd=folder) as process:
        await_moment(LOCK_FILE, process, output)
        process.send_signal(number)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "mambair: interrupted\n")
    assert list(tmp_path.rglob("*")) == ([output.parent, output] if was_there else [])


def test_a_signal_that_the_shell_has_turned_off_stays_so(folder, tmp_path):
    script = f"trap '' INT; exec {sys.executable} -m mambair_cli models path tiny-x4"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not heeds_signals(process):
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        out = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert out.endswith(".safetensors\n")
