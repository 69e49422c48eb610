"""Terminals: whether one takes control sequences, and lines above what is drawn at its end, such as bars."""

import os
import threading
from collections.abc import Callable

TYPE_CHECKING = False  # see the package's own
if TYPE_CHECKING:
    from typing import TextIO

_PLAIN = ("", "dumb", "unknown")  # kinds of terminals that print control sequences, or read them out

_lock = threading.RLock()
_drawing: "tuple[Callable[[], None], Callable[[], None]] | None" = None  # erases it, and draws it again
_is_drawn = False


def takes_controls(stream: "TextIO | int") -> bool:
    """Tell whether a stream is a terminal that takes control sequences; whatever writes any asks this first.

    TERM is ``dumb`` for braille displays, shells in editors and the logs of some build servers.

    Args:
        stream: The stream, or the number of the open file.
    """
    is_terminal = os.isatty(stream) if isinstance(stream, int) else stream.isatty()
    return is_terminal and (os.name == "nt" or os.environ.get("TERM", "").lower() not in _PLAIN)


def begin_drawing(erase: Callable[[], None], draw: Callable[[], None]) -> None:
    """From now on have what is drawn at the end of the terminal give way to lines.

    Args:
        erase: Takes it away, and leaves the cursor where a line may begin.
        draw: Draws it again.
    """
    global _drawing, _is_drawn
    with _lock:
        _drawing, _is_drawn = (erase, draw), True


def end_drawing() -> None:
    """From now on let lines be written as they are."""
    global _drawing
    with _lock:
        _drawing = None


def write_above(write: "Callable[[], int | None]", ends_line: bool) -> int | None:
    """Write to a terminal above what is drawn at its end, if anything is.

    Args:
        write: Writes, and returns how many bytes.
        ends_line: Whether a line may begin afterwards; where none may, nothing is drawn before one has ended.

    Returns:
        How many bytes were written.
    """
    global _is_drawn
    with _lock:
        if _drawing is None:
            return write()
        erase, draw = _drawing
        if _is_drawn:
            _is_drawn = False
            erase()
        written = write()
        if ends_line:
            draw()
            _is_drawn = True
        return written
