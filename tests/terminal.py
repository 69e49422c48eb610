"""A command run with a pseudo-terminal as its stderr."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Seen(NamedTuple):
    """Exit code of a command, what the terminal showed, and what went to the pipe."""

    code: int
    shown: bytes
    stdout: bytes


def run_in_terminal(arguments: list[str], folder: Path, columns: int = 100) -> Seen:
    """Run ``mambair`` with a pseudo-terminal as stderr, and a pipe as stdout."""
    import pty

    terminal, stderr = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    command = [sys.executable, "-m", "mambair_cli", *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=stderr
    ) as process:
        os.close(stderr)
        shown = b""
        try:
            while piece := os.read(terminal, 4096):
                shown += piece
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(terminal)
        assert process.stdout
        stdout = process.stdout.read()
    return Seen(process.returncode, shown, stdout)
