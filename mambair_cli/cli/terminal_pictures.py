"""Pictures in terminals that can show them, which the terminal itself is asked about."""

import base64
import io
import math
import os
import re
import select
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mambair_cli.cli.output import say
from mambair_cli.system.terminals import takes_controls

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from mambair_cli.pages.screen import ScreenPicture

Protocol = Literal["kitty", "iTerm2", "sixel"]

ANSWER_SECONDS = 0.3  # to wait for an answer; terminals take some milliseconds
ANSWER_BYTES = 4096  # no terminal says more
CELL = 10, 20  # width and height of a character where the terminal does not tell, in pixels
GAP = 8  # between pictures, in pixels
LEAST_WIDTH = 240  # of a picture in a row, in pixels; more pictures go to the next row
LEFT_ROWS = 3  # lines of the terminal that stay free for text
_KITTY_CHUNK = 4096  # bytes of text in one command
_SIXEL_COLOURS = 256

# Questions in the order in which they are answered. Every terminal answers the last one.
_QUERY = (
    b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"  # whether kitty's protocol would show one black pixel
    b"\x1b]1337;ReportCellSize\x07"  # iTerm2's
    b"\x1b[16t"  # size of a character
    b"\x1b[c"  # kind of terminal, and what it can do
)
_CLEAN_LINE = b"\r\x1b[K"  # some terminals print what they do not understand
_ATTRIBUTES = re.compile(rb"\x1b\[\?([\d;]*)c")
_KITTY = re.compile(rb"\x1b_Gi=31;OK\x1b\\")
_ITERM2 = re.compile(rb"\x1b\]1337;ReportCellSize=([\d.]+);([\d.]+)(?:;([\d.]+))?")
_CELL = re.compile(rb"\x1b\[6;(\d+);(\d+)t")
_SIXEL = b"4"  # among the attributes


@dataclass(frozen=True)
class PictureTerminal:
    """A terminal that shows pictures.

    Attributes:
        protocol: How pictures are sent to it.
        columns: Number of characters in a line.
        lines: Number of lines.
        cell: Width and height of a character, in pixels.
    """

    protocol: Protocol
    columns: int
    lines: int
    cell: tuple[int, int]


def show_in_terminal(pictures: Sequence["ScreenPicture"]) -> None:
    """Show pictures next to each other on stderr, if that is a terminal that can, with a line of their names.

    Args:
        pictures: The pictures, of one shape; smaller ones are enlarged.
    """
    if not (sys.stdin.isatty() and takes_controls(sys.stderr)):
        return
    terminal = ask_terminal()
    if terminal is None:
        return
    for names, row in arrange(pictures, terminal):
        say(f"from left to right: {', '.join(names)}" if len(names) > 1 else names[0])
        sys.stderr.flush()
        sys.stderr.buffer.write(write_picture(row, terminal) + b"\n")
        sys.stderr.flush()


def ask_terminal() -> PictureTerminal | None:
    """Ask the terminal of this process whether it shows pictures, and how large its characters are.

    Returns:
        The terminal; None where there is none, it shows none, or does not answer.
    """
    try:
        import termios
    except ImportError:  # Windows
        return None
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return None
    try:
        if os.tcgetpgrp(terminal) != os.getpgrp():  # in the background it would stop this process
            return None
        answer = _ask(terminal)
        size = os.get_terminal_size(terminal)
    except (OSError, termios.error):
        return None
    finally:
        os.close(terminal)
    return read_answer(answer, size.columns, size.lines)


def _ask(terminal: int) -> bytes:
    """Write the query, and read until the last answer or until the time is over."""
    import termios

    before = termios.tcgetattr(terminal)
    raw = [*before[:3], before[3] & ~(termios.ICANON | termios.ECHO), *before[4:]]
    answer = b""
    try:
        termios.tcsetattr(terminal, termios.TCSADRAIN, raw)
        os.write(terminal, _QUERY)
        end = time.monotonic() + ANSWER_SECONDS
        while len(answer) < ANSWER_BYTES and not _ATTRIBUTES.search(answer):
            if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
                break
            if not (piece := os.read(terminal, 256)):
                break
            answer += piece
        os.write(terminal, _CLEAN_LINE)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
    return answer


def read_answer(answer: bytes, columns: int, lines: int) -> PictureTerminal | None:
    """Read what a terminal has answered.

    Args:
        answer: Its answers, and whatever was typed meanwhile.
        columns: Number of characters in a line.
        lines: Number of lines.
    """
    iterm2 = _ITERM2.search(answer)
    attributes = _ATTRIBUTES.search(answer)
    protocol: Protocol
    if _KITTY.search(answer):
        protocol = "kitty"
    elif iterm2:
        protocol = "iTerm2"
    elif attributes and _SIXEL in attributes[1].split(b";")[1:]:
        protocol = "sixel"
    else:
        return None
    height, width = CELL[::-1]
    if found := _CELL.search(answer):
        height, width = int(found[1]), int(found[2])
    elif iterm2:  # in points, and how many pixels a point has
        height, width = (round(float(side) * float(iterm2[3] or 1)) for side in iterm2.groups()[:2])
    return PictureTerminal(protocol, max(1, columns), max(1, lines), (width or CELL[0], height or CELL[1]))


def arrange(
    pictures: Sequence["ScreenPicture"], terminal: PictureTerminal
) -> list[tuple[list[str], "Image"]]:
    """Place pictures in rows that fit the terminal, each enlarged by a whole number, or reduced.

    Args:
        pictures: The pictures, of one shape.
        terminal: The terminal.

    Returns:
        For each row the names of its pictures, and one picture of them all, with transparent gaps.
    """
    from PIL.Image import Image, Resampling, fromarray, new

    images: list[Image] = [fromarray(picture.pixels).convert("RGBA") for picture in pictures]
    largest = max((image.size for image in images), key=math.prod)
    room = terminal.columns * terminal.cell[0]
    count = max(1, min(len(images), (room + GAP) // (LEAST_WIDTH + GAP)))
    across = ((room + GAP) // count - GAP) / largest[0]
    down = max(1, terminal.lines - LEFT_ROWS) * terminal.cell[1] / largest[1]
    factor = min(across, down)
    factor = math.floor(factor) if factor >= 1 else factor
    width, height = (max(1, int(side * factor)) for side in largest)
    kernel = Resampling.NEAREST if factor >= 1 else Resampling.LANCZOS
    rows = []
    for first in range(0, len(images), count):
        row = new("RGBA", (count * (width + GAP) - GAP, height))
        for place, image in enumerate(images[first : first + count]):
            shown = image.resize(largest, Resampling.BICUBIC).resize((width, height), kernel)
            row.paste(shown, (place * (width + GAP), 0))
        rows.append(([picture.name for picture in pictures[first : first + count]], row))
    return rows


def write_picture(image: "Image", terminal: PictureTerminal) -> bytes:
    """Write a picture as a terminal takes it, in as many of its pixels as the picture has.

    Args:
        image: RGBA, no wider than the terminal.
        terminal: The terminal.
    """
    if terminal.protocol == "sixel":
        return _write_sixel(image)
    from PIL.Image import new

    # As large as whole characters, so that the terminal need not resample it.
    columns, lines = (-(-side // cell) for side, cell in zip(image.size, terminal.cell, strict=True))
    padded = new("RGBA", (columns * terminal.cell[0], lines * terminal.cell[1]))
    padded.paste(image)
    file = io.BytesIO()
    padded.save(file, "PNG", compress_level=1)
    text = base64.b64encode(file.getvalue())
    if terminal.protocol == "iTerm2":
        head = f"inline=1;size={len(file.getvalue())};width={columns};height={lines}"
        return b"\x1b]1337;File=%b:%b\x07" % (head.encode(), text)
    chunks = [text[start : start + _KITTY_CHUNK] for start in range(0, len(text), _KITTY_CHUNK)]
    commands = []
    for number, chunk in enumerate(chunks):
        head = f"a=T,f=100,q=2,c={columns},r={lines}," if number == 0 else "q=2,"
        commands.append(b"\x1b_G%bm=%d;%b\x1b\\" % (head.encode(), number < len(chunks) - 1, chunk))
    return b"".join(commands)


def _write_sixel(image: "Image") -> bytes:
    """Write a picture as sixels: bands of six rows, in each of them every colour's pixels.

    What is transparent stays as it is.
    """
    import numpy as np
    from PIL.Image import Quantize

    reduced = image.convert("RGB").quantize(_SIXEL_COLOURS, Quantize.MEDIANCUT)
    palette = np.array(reduced.getpalette() or [], np.uint8).reshape(-1, 3)
    codes = np.where(np.asarray(image.getchannel("A")) < 128, -1, np.asarray(reduced, np.int16))
    height = image.height
    codes = np.pad(codes, ((0, -height % 6), (0, 0)), constant_values=-1)
    used = np.unique(codes[codes >= 0]).tolist()
    colours = "".join(
        f"#{code};2;" + ";".join(str(round(100 * int(value) / 255)) for value in palette[code])
        for code in used
    )
    bands = [_write_band(codes[top : top + 6]) for top in range(0, height, 6)]
    head = f'\x1bP0;1;0q"1;1;{image.width};{height}{colours}'
    return head.encode() + b"-".join(bands) + b"\x1b\\"


def _write_band(codes: "np.ndarray") -> bytes:
    """Write six rows of colours, (6, w); -1 is none."""
    import numpy as np

    present = np.unique(codes[codes >= 0])
    bits = (1 << np.arange(6))[:, None]
    lines = []
    for code in present.tolist():
        places = (codes == code) * bits
        letters = (places.sum(axis=0) + 63).astype(np.uint8)
        ends = np.flatnonzero(np.diff(letters, append=np.uint8(0)))
        counts = np.diff(ends, prepend=-1).tolist()
        runs = list(zip(counts, letters[ends].tolist(), strict=True))
        if runs and runs[-1][1] == 63:  # nothing more of this colour
            runs.pop()
        lines.append(b"#%d" % code + b"".join(_write_run(count, letter) for count, letter in runs))
    return b"$".join(lines)


def _write_run(count: int, letter: int) -> bytes:
    """Write a letter some times."""
    return b"!%d%c" % (count, letter) if count > 3 else bytes([letter]) * count
