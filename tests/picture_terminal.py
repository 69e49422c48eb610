"""A terminal that answers questions as kitty, iTerm2 and others do, and what it was shown."""

import base64
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

QUESTIONS = {
    "kitty": b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\",
    "iTerm2": b"\x1b]1337;ReportCellSize\x07",
    "cell": b"\x1b[16t",
    "attributes": b"\x1b[c",
}


# Makes the standard input the terminal of its session, and becomes the command.
_IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Session(NamedTuple):
    """Exit code of a command, what the terminal showed, what went to the pipe, and its mode at the end."""

    code: int
    shown: bytes
    stdout: bytes
    is_restored: bool


def run_in_picture_terminal(
    command: list[str],
    folder: Path,
    answers: dict[str, bytes],
    columns: int = 100,
    lines: int = 40,
    kind: str = "xterm",
) -> Session:
    """Run Python in a terminal of its own, which answers some questions, with stdout in a pipe.

    Args:
        command: Arguments of Python.
        folder: Working folder.
        answers: Answers by names of ``QUESTIONS``.
        columns: Number of characters in a line.
        lines: Number of lines.
        kind: What TERM says.
    """
    terminal, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    before = termios.tcgetattr(side)
    with subprocess.Popen(
        [sys.executable, "-c", _IN_TERMINAL, sys.executable, *command],
        cwd=folder,
        stdin=side,
        stdout=subprocess.PIPE,
        stderr=side,
        start_new_session=True,
        env={**os.environ, "TERM": kind, "COLUMNS": str(columns)},
    ) as process:
        shown = b""
        asked = {QUESTIONS[name]: answer for name, answer in answers.items()}
        os.set_blocking(terminal, False)
        while True:
            is_over = process.poll() is not None
            try:
                shown += os.read(terminal, 2**16)
            except BlockingIOError:
                if is_over:
                    break
                time.sleep(0.002)
            except OSError:
                break
            for question in [each for each in asked if each in shown]:
                os.write(terminal, asked.pop(question))
        printed = process.stdout.read() if process.stdout else b""
    after = termios.tcgetattr(side)
    os.close(side)
    os.close(terminal)
    return Session(process.returncode, shown, printed, before == after)


def read_kitty(shown: bytes) -> list[tuple[dict[str, str], np.ndarray]]:
    """Return the pictures of kitty's protocol, with the keys of their first commands."""
    pictures: list[tuple[dict[str, str], np.ndarray]] = []
    text, first = b"", {}
    for head, payload in re.findall(rb"\x1b_G([^;]*);([^\x1b]*)\x1b\\", shown):
        keys = dict(pair.split("=") for pair in head.decode().split(","))
        if keys.get("a") == "q":
            continue
        first = first if text else keys
        text += payload
        assert len(payload) <= 4096
        if keys["m"] == "0":
            pictures.append((first, _decode(text)))
            text = b""
    assert not text
    return pictures


def read_iterm2(shown: bytes) -> list[tuple[dict[str, str], np.ndarray]]:
    """Return the pictures of iTerm2's protocol, with their keys."""
    found = re.findall(rb"\x1b\]1337;File=([^:]*):([^\x07]*)\x07", shown)
    return [
        (dict(pair.split("=") for pair in head.decode().split(";")), _decode(text)) for head, text in found
    ]


def _decode(text: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGBA"))


def read_sixel(shown: bytes) -> list[np.ndarray]:
    """Return the sixel pictures, RGBA, alpha 0 where nothing was drawn."""
    found = re.findall(rb'\x1bP0;1;0q"1;1;(\d+);(\d+)([^\x1b]*)\x1b\\', shown)
    return [_draw(int(width), int(height), data) for width, height, data in found]


def _draw(width: int, height: int, data: bytes) -> np.ndarray:
    canvas = np.zeros((-(-height // 6) * 6, width, 4), np.uint8)
    palette: dict[int, tuple[int, ...]] = {}
    x = y = colour = 0
    token = rb"#(\d+)(?:;2;(\d+);(\d+);(\d+))?|!(\d+)([?-~])|([?-~])|(\$)|(-)"
    position = 0
    for match in re.finditer(token, data):
        assert match.start() == position, data[position : position + 20]
        position = match.end()
        number, red, green, blue, count, run, letter, back, down = match.groups()
        if number is not None:
            colour = int(number)
            if red is not None:
                palette[colour] = tuple(round(int(part) * 2.55) for part in (red, green, blue))
        elif back:
            x = 0
        elif down:
            x, y = 0, y + 6
        else:
            times, bits = int(count or 1), (run or letter)[0] - 63
            for row in range(6):
                if bits >> row & 1:
                    canvas[y + row, x : x + times] = (*palette[colour], 255)
            x += times
            assert x <= width
    assert position == len(data)
    return canvas[:height]
