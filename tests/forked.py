"""Programs in processes of their own, forked from one that has imported PyTorch: the import alone takes seconds.

Such a process is like one that ``subprocess.run`` starts: its folder, environment and streams are its own, and
no module that reads the environment, such as huggingface_hub, has been imported. Only OMP_NUM_THREADS and other
variables that PyTorch itself reads are those of the tests. Where no process can fork safely, it is started.
"""

import atexit
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

MOST_BYTES = 2**20  # of an order
IMPORTED = ("numpy", "torch", "PIL.Image", "pyvips", "rich.progress", "safetensors.torch", "typer")  # start no thread

SERVER_OF_FORKS = multiprocessing.get_context("forkserver") if sys.platform == "linux" else None
if SERVER_OF_FORKS is not None:
    SERVER_OF_FORKS.set_forkserver_preload(["mambair_cli.runs.executors.process_worker"])


def run_forked(
    *arguments: object, cwd: Path | str = ".", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS``, where the first ones are -m MODULE or -c PROGRAM, without input.

    Args:
        arguments: Arguments of Python.
        cwd: Folder of the process.
        env: Environment of the process; None: that of the tests.

    Returns:
        Exit code and what was written to both outputs.
    """
    order = [str(argument) for argument in arguments]
    environment = dict(os.environ if env is None else env)
    if sys.platform != "linux":
        started = subprocess.run(
            [sys.executable, *order],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        return started
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        link = _origin()
        message = json.dumps([order, os.path.abspath(cwd), environment]).encode()
        socket.send_fds(link, [message], [out.fileno(), err.fileno()])
        code = int(link.recv(100))
        texts = [file.seek(0) or file.read().decode() for file in (out, err)]
    return subprocess.CompletedProcess(order, code, *texts)


@cache
def _origin() -> socket.socket:
    """Start the process from which the others are forked; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, __file__, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    atexit.register(process.wait)
    atexit.register(ours.close)  # which comes first
    return ours


def _wait_for_order(link: socket.socket) -> tuple[list[str], str, dict[str, str]]:
    """Fork for every order, and return in the new process alone."""
    while True:
        message, streams, _, _ = socket.recv_fds(link, MOST_BYTES, 2)
        if not message:
            os._exit(0)
        child = os.fork()
        if child == 0:
            link.close()
            for number, stream in enumerate(streams, 1):
                os.dup2(stream, number)
                os.close(stream)
            order: Any = json.loads(message)
            return order
        for stream in streams:
            os.close(stream)
        link.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _run(kind: str, program: str, arguments: list[str], folder: str) -> None:
    """Do what Python does with -m and -c."""
    sys.path.insert(0, folder if kind == "-m" else "")
    sys.argv = [program if kind == "-m" else "-c", *arguments]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        exec(compile(program, "<string>", "exec"), sys.modules["__main__"].__dict__)


def _main() -> None:
    sys.path.remove(str(Path(__file__).parent))  # which Python adds for a script
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy all pages
    (kind, program, *arguments), folder, environment = _wait_for_order(socket.socket(fileno=int(sys.argv[1])))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code = 0
    try:
        _run(kind, program, arguments, folder)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]: it waits for threads, as Python does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # at once: Python would first clear up all modules of PyTorch


if __name__ == "__main__":
    _main()
