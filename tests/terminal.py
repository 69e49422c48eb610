"""A command run in a pseudo-terminal."""

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from forked import start_forked


class Seen(NamedTuple):
    """Exit code of a command, what the terminal showed, and what went to the pipe."""

    code: int
    shown: bytes
    stdout: bytes


def run_in_terminal(
    arguments: list[str], folder: Path, columns: int = 100, shows_stdout: bool = False, kind: str = "xterm"
) -> Seen:
    """Run ``mambair`` with a pseudo-terminal of a kind as stderr, and as stdout that terminal or a pipe."""
    import pty

    terminal, stderr = pty.openpty()
    environment = {**os.environ, "TERM": kind, "COLUMNS": str(columns)}
    command = ["-m", "mambair_cli", *arguments]
    stdout = stderr if shows_stdout else subprocess.PIPE
    with start_forked(*command, cwd=folder, env=environment, stdout=stdout, stderr=stderr) as process:
        os.close(stderr)
        shown = b""
        try:
            while piece := os.read(terminal, 4096):
                shown += piece
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(terminal)
        printed = process.stdout.read().encode() if process.stdout else b""
    return Seen(process.wait(), shown, printed)
