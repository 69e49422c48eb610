"""What Ctrl-C and a request to terminate do to a command: end it at once, or once it has cleaned up."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TYPE_CHECKING = False  # see the package's own
if TYPE_CHECKING:
    from typing import NoReturn

EXIT_INTERRUPTED = 130

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ERASE_BAR = b"\r\x1b[K\x1b[?25h"  # of a terminal: its line, and the cursor that a bar hides
_is_told = False


def end_at_once() -> None:
    """From now on end the process at the first signal, in a line.

    That is right as long as nothing is begun that is to be undone. An exception would come out of whatever
    is being imported, some of which turns it into another.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as behind nohup
            signal.signal(number, _end)
    atexit.register(_ignore)  # the last of all: when Python has ended, the system would end the process


@contextmanager
def cleaning_up() -> Iterator[None]:
    """In the block, raise KeyboardInterrupt at the first signal; the second ends the process at once.

    What is left half-written then has no name of a result; where there is a journal, the next run clears it
    away.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone has signals
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    before_unraisable = sys.unraisablehook
    for number in _SIGNALS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    sys.unraisablehook = _see_unraisable
    try:
        yield
    finally:
        sys.unraisablehook = before_unraisable
        for number, handler in before.items():
            signal.signal(number, handler)


def tell() -> None:
    """Tell the user, once."""
    global _is_told
    if not _is_told:
        _is_told = True
        with suppress(OSError):  # nobody may be there to read it
            os.write(2, (_ERASE_BAR if os.isatty(2) else b"") + b"mambair: interrupted\n")


def _interrupt(number: int, frame: object) -> "NoReturn":
    for other in _SIGNALS:
        if signal.getsignal(other) is not signal.SIG_IGN:
            signal.signal(other, _end)
    raise KeyboardInterrupt


def _see_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """End the process where an interrupt came while something was destroyed, which passes no error on."""
    if unraisable.exc_type is KeyboardInterrupt:
        _end()
    sys.__unraisablehook__(unraisable)


def _end(number: int = 0, frame: object = None) -> "NoReturn":
    tell()
    os._exit(EXIT_INTERRUPTED)


def _ignore() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
