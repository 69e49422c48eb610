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
from mambair_cli.runs.record import JOURNAL_FILE
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
    printed = [line for line in err.splitlines() if not line.startswith("mambair: using")]
    if code == 0:  # it was faster
        assert len(printed) == 1
        assert f"{IMAGES} done of {IMAGES} images" in printed[0]
    else:
        assert (code, printed) == (130, ["mambair: interrupted"])
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
    printed = [line for line in err.splitlines() if not line.startswith("mambair: using")]
    assert (code, printed) == (130, ["mambair: interrupted"])
    whole = check_whole(output)
    assert {path.suffix for path in output.glob(RESULTS)} <= {".png"}
    assert whole < IMAGES
    assert whole or moment != RESULTS
    assert not list(output.glob(HALF_WRITTEN))


@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
def test_a_closed_terminal_which_sends_two_signals_leaves_nothing_half_written(folder, tmp_path, options):
    output = tmp_path / "out"
    code, err = interrupt(folder, output, options, signal.SIGHUP, HALF_WRITTEN, 0.0)
    assert code == 130
    assert err.endswith("mambair: interrupted\n")
    whole = check_whole(output)
    assert [path.name for path in output.glob(".*")] == [JOURNAL_FILE] * (whole > 0)


REPEATED_AT_EACH_STEP = """
import signal
from mambair_cli.system import signals

set_handler = signal.signal
signals.end_at_once()
for step in range(8):
    calls = iter(range(100))

    def set_and_repeat(number, handler):
        before = set_handler(number, handler)
        if next(calls) == step:
            signal.raise_signal(signal.SIGHUP)
        return before

    try:
        with signals.cleaning_up():
            signal.signal = set_and_repeat
            try:
                signal.raise_signal(signal.SIGHUP)
            finally:
                signal.signal = set_handler
                print("cleaned up at step", step, flush=True)
    except KeyboardInterrupt:
        continue
"""


def test_a_repetition_while_the_first_is_handled_lets_a_command_clean_up(tmp_path):
    with start_python("-c", REPEATED_AT_EACH_STEP, cwd=tmp_path) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines() == [f"cleaned up at step {step}" for step in range(8)]


def start_in_terminal(folder, *command, kind="xterm"):
    """Run a command in a pseudo-terminal of its own, of a kind; return its number and the other end."""
    import pty

    process, terminal = pty.fork()
    if not process:
        os.chdir(folder)
        os.environ["TERM"] = kind
        os.execvp(command[0], command)
    return process, terminal


def read_until(terminal, text):
    """Read what a terminal shows until a text, or to the end for None."""
    shown = b""
    try:
        while text is None or text not in shown:
            shown += os.read(terminal, 1000)
    except OSError:  # how Linux says that the other end is closed
        assert text is None, shown
    return shown


def exit_code(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_a_terminal_that_is_closed_ends_a_command(folder, tmp_path):
    output = tmp_path / "out"
    process, terminal = start_in_terminal(folder, sys.executable, "-m", "mambair_cli", *COMMAND, str(output))
    while not any(output.glob(HALF_WRITTEN)):
        time.sleep(0.002)
    os.close(terminal)
    assert exit_code(process) == 130
    whole = check_whole(output)
    assert [path.name for path in output.glob(".*")] == [JOURNAL_FILE] * (whole > 0)


SCRIPT = '"$@"; echo "ended with $?"'


def test_ctrl_c_ends_a_shell_script_with_a_command_which_has_cleaned_up(folder, tmp_path):
    output = tmp_path / "out"
    command = [sys.executable, "-m", "mambair_cli", *COMMAND, str(output), "--resume"]
    process, terminal = start_in_terminal(folder, "bash", "-c", SCRIPT, "bash", *command)
    while not any(output.glob(HALF_WRITTEN)):
        time.sleep(0.002)
    os.write(terminal, b"\x03")
    shown = read_until(terminal, None)
    assert exit_code(process) == -signal.SIGINT
    assert b"mambair: interrupted" in shown
    assert b"ended with" not in shown
    assert check_whole(output) < IMAGES
    assert not list(output.glob(HALF_WRITTEN))


AT_THE_START = """
import time
from mambair_cli.system import signals

signals.end_at_once()
print("ready", flush=True)
time.sleep(60)
"""
AMID_A_STEP = """
import hashlib
from mambair_cli.system import signals

with signals.stop_requests("ready"):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # Python handles no signal meanwhile
"""


@pytest.mark.parametrize(("program", "times"), [(AT_THE_START, 1), (AMID_A_STEP, 2)])
def test_ctrl_c_that_ends_a_command_at_once_ends_a_shell_script(tmp_path, program, times):
    process, terminal = start_in_terminal(
        tmp_path, "bash", "-c", SCRIPT, "bash", sys.executable, "-c", program
    )
    for _ in range(times):
        read_until(terminal, b"ready")
        os.write(terminal, b"\x03")
    assert b"ended with" not in read_until(terminal, None)
    assert exit_code(process) == -signal.SIGINT


@pytest.mark.parametrize("kind", ["xterm", "dumb", ""])
def test_control_sequences_go_only_to_a_terminal_that_takes_them(tmp_path, kind):
    process, terminal = start_in_terminal(tmp_path, sys.executable, "-c", AT_THE_START, kind=kind)
    read_until(terminal, b"ready")
    os.write(terminal, b"\x03")
    shown = read_until(terminal, None)
    assert exit_code(process) == -signal.SIGINT
    assert b"mambair: interrupted" in shown
    assert (b"\x1b" in shown) == (kind == "xterm")


@pytest.mark.parametrize(
    ("number", "before", "code"),
    [
        (signal.SIGTERM, "", 130),
        (signal.SIGHUP, "", 130),
        (signal.SIGINT, "os.setpgid(0, 0)", 130),  # in the background, where no Ctrl-C comes
        (signal.SIGINT, "os.setsid()", 130),  # without the terminal
        (signal.SIGINT, "", -signal.SIGINT),
    ],
)
def test_only_an_interrupt_by_the_terminal_does_what_ends_a_shell_script(tmp_path, number, before, code):
    lines = ["import os, sys", "from mambair_cli.system import signals", "if os.fork():"]
    lines += ["    code = os.waitstatus_to_exitcode(os.wait()[1])", "    sys.exit(code % 256)"]
    lines += [before, "signals.end_at_once()", f"os.kill(os.getpid(), {int(number)})"]
    process, terminal = start_in_terminal(tmp_path, sys.executable, "-c", "\n".join(lines))
    assert b"mambair: interrupted" in read_until(terminal, None)
    assert exit_code(process) == code % 256


@pytest.mark.parametrize("has_terminal", [False, True])
def test_an_interrupted_command_ends_alike_after_one_within_code_that_python_made(tmp_path, has_terminal):
    lines = ["import atexit, signal, sys", "from mambair_cli.system import signals", "signals.end_at_once()"]
    lines += ["atexit.register(print, 'cleaned up')", "try:", "    with signals.cleaning_up():"]
    lines += ["        exec('signal.raise_signal(signal.SIGINT)')", "except KeyboardInterrupt:"]
    lines += ["    signals.end_as_interrupted()", "sys.exit(130)"]
    (tmp_path / "program.py").write_text("\n".join(lines))
    command = [sys.executable, "-m", "program"]
    if has_terminal:
        process, terminal = start_in_terminal(tmp_path, *command)
        shown, code = read_until(terminal, None).decode(), exit_code(process)
    else:
        with start_python(*command[1:], cwd=tmp_path) as process:
            shown, code = process.communicate()[0], process.wait()
    assert shown.startswith("cleaned up")
    assert code == (-signal.SIGINT if has_terminal else 130)


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
