"""Worker processes are started quickly, and are what a process begun anew would be."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from mambair_cli.runs.executors import starting
from mambair_cli.runs.executors.starting import prepare, start_process
from mambair_cli.system.signals import OF_TERMINALS, cleaning_up, held_back, stop_requests

PRELOADED = "mambair_cli.runs.executors.process_worker"


def tell(connection: Connection) -> None:
    """Tell what a process finds when it begins."""
    ignored = all(signal.getsignal(number) is signal.SIG_IGN for number in OF_TERMINALS)
    threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1
    connection.send((dict(os.environ), ignored, PRELOADED in sys.modules, threads))


def run_code(code: str, timeout: float | None = None) -> "subprocess.CompletedProcess[str]":
    """Run code that imports from this module in a process of its own."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def ask(name: str = "asked") -> tuple[dict[str, str], bool, bool, int]:
    ours, theirs = multiprocessing.Pipe()
    process = start_process(tell, (theirs,), name)
    theirs.close()
    assert process.name == name
    answer = ours.recv()
    process.join(20)
    assert process.exitcode == 0
    return answer


def test_a_process_has_the_environment_of_its_parent_now(monkeypatch) -> None:
    monkeypatch.setenv("MAMBAIR_TEST_ONE", "1")
    assert ask()[0]["MAMBAIR_TEST_ONE"] == "1"
    monkeypatch.delenv("MAMBAIR_TEST_ONE")
    monkeypatch.setenv("MAMBAIR_TEST_TWO", "2")
    environment = ask()[0]
    assert "MAMBAIR_TEST_ONE" not in environment
    assert environment["MAMBAIR_TEST_TWO"] == "2"


def test_a_process_ignores_what_a_terminal_sends_and_has_one_thread() -> None:
    _, ignored, _, threads = ask()
    assert ignored
    assert threads == 1


def send_before(number: int, call: Callable[..., object]) -> Callable[..., object]:
    """Return a function that sends this process a signal before it does what another one does."""

    def send_and_call(*arguments: object) -> object:
        os.kill(os.getpid(), number)
        return call(*arguments)

    return send_and_call


@pytest.mark.parametrize("number", OF_TERMINALS)
def test_a_signal_while_a_process_starts_interrupts_once_it_has_started(monkeypatch, number) -> None:
    ours, theirs = multiprocessing.Pipe()
    kind = type(starting._context.Process())
    monkeypatch.setattr(kind, "start", send_before(number, kind.start))
    with pytest.raises(KeyboardInterrupt), cleaning_up():
        start_process(tell, (theirs,), "interrupted")
    theirs.close()
    assert ours.recv()[1], "it has begun, and ignores interrupts"


def fail_amid_an_interrupt() -> None:
    """Raise another error where an interrupt comes, as Python does where it is about to have a lock again."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
        raise RuntimeError("cannot release un-acquired lock") from error


def test_what_an_interrupt_turns_into_is_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), cleaning_up():
        fail_amid_an_interrupt()
    with pytest.raises(RuntimeError), cleaning_up():
        raise RuntimeError("of another kind")


def wait_for_ever() -> None:
    """Begin, and do not end."""
    time.sleep(1000)


def test_a_process_that_starts_while_a_signal_comes_does_not_outlive_its_parent() -> None:
    code = (
        "import signal\n"
        "from mambair_cli.runs.executors import starting\n"
        "from mambair_cli.system.signals import cleaning_up\n"
        "from test_starting import send_before, wait_for_ever\n"
        "kind = type(starting._context.Process())\n"
        "kind.start = send_before(signal.SIGINT, kind.start)\n"
        "with cleaning_up():\n"
        "    starting.start_process(wait_for_ever, (), 'waiting')\n"
    )
    done = run_code(code, timeout=60)
    assert "KeyboardInterrupt" in done.stderr
    assert done.returncode == -signal.SIGINT if sys.platform != "win32" else 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is prepared")
def test_a_signal_while_modules_are_prepared_interrupts(monkeypatch) -> None:
    from multiprocessing import forkserver  # it needs what only Unix has

    running = send_before(signal.SIGINT, forkserver.ensure_running)
    monkeypatch.setattr(forkserver, "ensure_running", running)
    with pytest.raises(KeyboardInterrupt), cleaning_up():
        prepare([])


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself such signals")
def test_a_signal_while_others_are_held_back_counts_once_and_goes_where_it_went() -> None:
    with stop_requests(None) as is_asked:
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):
            time.sleep(0.001)  # a second one would end this process
        assert is_asked()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {*OF_TERMINALS}


def count_new_pages(connection: Connection) -> None:
    """Tell how many pages the system gives while the same memory is taken and freed again and again."""
    import resource

    counts = []
    for _ in range(4):
        bytearray(2**26)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    connection.send(counts[-1] - counts[0])


@pytest.mark.skipif(sys.platform != "linux", reason="only the GNU C library has such a setting")
def test_a_process_keeps_the_memory_that_it_frees() -> None:
    ours, theirs = multiprocessing.Pipe()
    process = start_process(count_new_pages, (theirs,), "counting")
    theirs.close()
    assert ours.recv() < 100
    process.join(20)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process begins anew")
def test_modules_are_imported_before_a_process_begins() -> None:
    code = (
        "import sys\n"
        "from mambair_cli.runs.executors.starting import prepare\n"
        "from test_starting import PRELOADED, ask\n"
        "prepare(['no_such_module', PRELOADED])\n"
        "assert 'torch' not in sys.modules, 'it is imported elsewhere'\n"
        "assert ask()[2]\n"
    )
    done = run_code(code)
    assert done.returncode == 0, done.stderr
