"""Programs in processes of their own, forked from one that has imported PyTorch, which alone takes seconds.

Such a process is like one that ``subprocess`` starts: its folder, environment and streams are its own, and no
module that reads the environment, such as huggingface_hub, has been imported. Only variables that PyTorch
itself reads are those of the tests. Where a process cannot fork safely, the program is started instead.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, cast

MOST_BYTES = 2**20  # of an order
IMPORTED = (  # They start no thread, and read nothing of the environment that tests set.
    "numpy",
    "torch",
    "PIL.Image",
    "pyvips",
    "rich.progress",
    "safetensors.torch",
    "typer",
    "pydantic.type_adapter",  # by which typer reads options
    "mambair_cli.cli.executors",
    "mambair_cli.images.decoding",
    "mambair_cli.kernels.cpu_convolution",
    "mambair_cli.kernels.cpu_depthwise",
    "mambair_cli.kernels.cpu_rows",
    "mambair_cli.kernels.cpu_scan",
    "mambair_cli.networks",
    "mambair_cli.restore.restorer",
    "mambair_cli.runs.executors.this_process",
)

Stream = IO[Any] | int


class ForkedProcess:
    """A process that runs Python without input, and has the methods of ``subprocess.Popen`` that tests need.

    Args:
        arguments: Arguments of Python: -m MODULE or -c PROGRAM, and those of the program.
        cwd: Folder of the process.
        env: Environment of the process; None: that of the tests.
        stdout, stderr: Where outputs go, as in ``subprocess.Popen``.

    Attributes:
        pid: Number of the process.
        stdout, stderr: Ends of the pipes, as texts.
        returncode: Exit code, once it has been waited for; minus the number of the signal that ended it.
    """

    def __init__(
        self,
        *arguments: object,
        cwd: Path | str = ".",
        env: Mapping[str, str] | None = None,
        stdout: Stream = subprocess.PIPE,
        stderr: Stream = subprocess.PIPE,
    ) -> None:
        order = [str(argument) for argument in arguments]
        environment = dict(os.environ if env is None else env)
        self.returncode: int | None = None
        self.stdout: TextIOWrapper | None
        self.stderr: TextIOWrapper | None
        self.stdout, out = _output(stdout)
        self.stderr, err = _output(stderr)
        message = json.dumps([order, os.path.abspath(cwd), environment]).encode()
        socket.send_fds(_origin(), [message], [out, err])
        os.close(out)
        os.close(err)
        self.pid = int(_origin().recv(100))

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        if self.returncode is None:
            _origin().send(b"%d" % self.pid)
            self.returncode = json.loads(_origin().recv(100))
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        """Wait for the end, and return the exit code."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < end, "it does not end"
            time.sleep(0.002)
        return code

    def communicate(self, timeout: float = 60) -> tuple[str, str]:
        """Read both pipes to their ends, and wait for the end."""
        texts = [file.read() if file else "" for file in (self.stdout, self.stderr)]
        self._close()
        self.wait(timeout)
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "ForkedProcess":
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is not None:
            self.kill()
        self.wait()
        self._close()

    def _close(self) -> None:
        for file in (self.stdout, self.stderr):
            if file is not None:
                file.close()


def start_forked(
    *arguments: object,
    cwd: Path | str = ".",
    env: Mapping[str, str] | None = None,
    stdout: Stream = subprocess.PIPE,
    stderr: Stream = subprocess.PIPE,
) -> ForkedProcess:
    """Start ``python ARGUMENTS``, as ``ForkedProcess`` describes."""
    start = ForkedProcess if sys.platform == "linux" else start_python
    return start(*arguments, cwd=cwd, env=env, stdout=stdout, stderr=stderr)


def start_python(
    *arguments: object,
    cwd: Path | str = ".",
    env: Mapping[str, str] | None = None,
    stdout: Stream = subprocess.PIPE,
    stderr: Stream = subprocess.PIPE,
) -> ForkedProcess:
    """Start ``python ARGUMENTS`` from the very beginning, apart from the terminal of the tests."""
    command = [sys.executable, *map(str, arguments)]
    started = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )
    return cast(ForkedProcess, started)


def run_forked(
    *arguments: object, cwd: Path | str = ".", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS`` to its end; return the exit code and what was written to both outputs."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with start_forked(*arguments, cwd=cwd, env=env, stdout=out, stderr=err) as process:
            code = process.wait(300)
        out.seek(0)
        err.seek(0)
        texts = out.read().decode(), err.read().decode()
    return subprocess.CompletedProcess([*map(str, arguments)], code, *texts)


def _output(stream: Stream) -> tuple[TextIOWrapper | None, int]:
    """Return the end of a pipe to read from, if one is needed, and what the process writes to."""
    if stream == subprocess.PIPE:
        ours, theirs = os.pipe()
        return open(ours, encoding="utf-8"), theirs
    if stream == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    return None, os.dup(stream if isinstance(stream, int) else stream.fileno())


@cache
def _origin() -> socket.socket:
    """Start the process from which the others are forked, apart from a terminal; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, __file__, str(theirs.fileno())]
        process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )
    atexit.register(process.wait)
    atexit.register(ours.close)  # which comes first
    return ours


def _serve(link: socket.socket) -> tuple[list[str], str, dict[str, str]]:
    """Fork for every order, and return in the new process alone; a number asks for an exit code."""
    while True:
        message, streams, _, _ = socket.recv_fds(link, MOST_BYTES, 2)
        if not message:
            os._exit(0)
        order: Any = json.loads(message)
        if isinstance(order, int):
            ended, status = os.waitpid(order, os.WNOHANG)
            link.send(json.dumps(os.waitstatus_to_exitcode(status) if ended else None).encode())
            continue
        child = os.fork()
        if child == 0:
            link.close()
            for number, stream in enumerate(streams, 1):
                os.dup2(stream, number)
                os.close(stream)
            return order
        for stream in streams:
            os.close(stream)
        link.send(b"%d" % child)


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
    (kind, program, *arguments), folder, environment = _serve(socket.socket(fileno=int(sys.argv[1])))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)  # it knows whether it is a terminal
    code = 0
    try:
        _run(kind, program, arguments, folder)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    # What Python does at its end, but for clearing up all modules of PyTorch: that takes 0.2 s for each of
    # hundreds of processes. No public function waits for threads and ends those of executors.
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]: multiprocessing ends so, too
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _main()
