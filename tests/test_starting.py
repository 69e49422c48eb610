"""Worker processes are started quickly, and are what a process begun anew would be."""

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from mambair_cli.runs.executors.starting import start_process
from mambair_cli.system.signals import OF_TERMINALS

PRELOADED = "mambair_cli.runs.executors.process_worker"


def tell(connection: Connection) -> None:
    """Tell what a process finds when it begins."""
    ignored = all(signal.getsignal(number) is signal.SIG_IGN for number in OF_TERMINALS)
    threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1
    connection.send((dict(os.environ), ignored, PRELOADED in sys.modules, threads))


def ask(name: str = "asked") -> tuple[dict[str, str], bool, bool, int]:
    ours, theirs = multiprocessing.Pipe()
    process = start_process(tell, (theirs,), name)
    theirs.close()
    assert process.name == name
    told = ours.recv()
    process.join(20)
    assert process.exitcode == 0
    return told


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


def count_new_pages(connection: Connection) -> None:
    """Tell how many pages the system gives while the same memory is taken and freed again and again."""
    import resource

    counts = []
    for _ in range(4):
        bytearray(2**26)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    connection.send(counts[-1] - counts[0])


@pytest.mark.skipif(sys.platform != "linux", reason="only the GNU C library can be told so")
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
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
