"""Ctrl-C, a request to terminate and a closed terminal: end a command at once, or let it clean up."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from mambair_cli.system.terminals import takes_controls, write_above

TYPE_CHECKING = False  # see the package's own
if TYPE_CHECKING:
    import socket
    from typing import Any, NoReturn

EXIT_INTERRUPTED = 130

# Windows has no SIGHUP.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# Signals that a terminal sends to all processes of a command.
OF_TERMINALS = tuple(number for number in SIGNALS if number != signal.SIGTERM)
# A closed terminal sends SIGHUP more than once: the second must not interrupt what the first one started.
_REPEATED = tuple(number for number in OF_TERMINALS if number != signal.SIGINT)
_ERASE_BAR = b"\r\x1b[K\x1b[?25h"  # erases the line of a progress bar, and shows the cursor
_is_printed = False
_heard = 0  # the last signal that asked for an end
_is_interrupted = False  # whether the process has cleaned up after one, and is about to end


def end_at_once() -> None:
    """From now on end the process at the first signal, with one line.

    This is right while there is nothing to undo. An exception would be raised inside an import, and some
    packages turn it into another one.
    """
    _handle(end_now)
    atexit.register(_leave)  # the first that is registered runs last


def end_as_interrupted() -> None:
    """Have the process end as interrupted ones do, once all that is registered with atexit is done.

    That is the exit code 130, whatever Python makes of it: with ``python -m``, a KeyboardInterrupt that has
    come out of an ``exec()``, as of a dataclass, counts as never handled.
    """
    global _is_interrupted
    _is_interrupted = True


@contextmanager
def cleaning_up() -> Iterator[None]:
    """In the block, raise KeyboardInterrupt at the first signal; the second ends the process at once.

    Half-written files that are left have temporary names; with a journal the next run removes them.
    """
    if threading.current_thread() is not threading.main_thread():  # only it receives signals
        yield
        return
    is_interrupted = False

    def interrupt(number: int, frame: object) -> "NoReturn":
        nonlocal is_interrupted
        is_interrupted = True
        _interrupt(number, frame)

    before = _handle(interrupt)
    before_unraisable = sys.unraisablehook
    sys.unraisablehook = _see_unraisable
    try:
        yield
    except Exception:
        if is_interrupted:  # amid the wait for a lock it becomes an error of the lock
            raise KeyboardInterrupt from None
        raise
    finally:
        sys.unraisablehook = before_unraisable
        _restore(before)


@contextmanager
def ending_by(end: "Callable[[int], NoReturn]") -> Iterator[None]:
    """In the block, end the process at a signal by a function, which gets the signal's number."""
    if threading.current_thread() is not threading.main_thread():  # only it receives signals
        yield
        return
    before = _handle(lambda number, frame: end(number))
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def stop_requests(answer: str | None) -> "Iterator[Callable[[], bool]]":
    """In the block, note the first signal as a request to stop; the second ends the process at once.

    Args:
        answer: Sentence for the user, printed when the first signal comes; None for no line.

    Yields:
        Function that tells whether a stop was requested.
    """
    if threading.current_thread() is not threading.main_thread():  # only it receives signals
        yield lambda: False
        return
    import socket

    asked = threading.Event()
    # Python handles signals only between two of its instructions, and a step may be one of minutes.
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    # Between two instructions, this is sooner than the listener, which may have to wait for its turn.
    before = _handle(lambda number, frame: asked.set())
    former_sender = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    listener = threading.Thread(
        target=_answer, args=(receiver, asked, answer), name="mambair-signals", daemon=True
    )
    listener.start()
    try:
        yield asked.is_set
    finally:
        signal.set_wakeup_fd(former_sender)
        _restore(before)
        sender.close()
        listener.join()
        receiver.close()


@contextmanager
def held_back(numbers: Sequence[int] = OF_TERMINALS) -> Iterator[None]:
    """In the block, hold signals, and deliver them on leaving.

    Processes that are started in the block have these signals blocked: Ctrl-C, which comes to all processes
    of a command, does not end them before they can call :func:`ignore_terminals`.

    Args:
        numbers: Signals to hold; by default what a terminal sends.
    """
    held: list[int] = []
    handlers: dict[int, Any] = {}
    with ExitStack() as on_leaving:  # the last one is called first
        on_leaving.callback(_deliver, held, handlers)
        if hasattr(signal, "pthread_sigmask"):  # not on Windows
            masked = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
            on_leaving.callback(signal.pthread_sigmask, signal.SIG_SETMASK, masked)
        if threading.current_thread() is threading.main_thread():
            # The system gives a signal to any thread that does not block it, and Python to the main one.
            for number in numbers:
                handler = handlers[number] = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):  # nohup; a handler that is not Python's
                    on_leaving.callback(signal.signal, number, handler)
                    signal.signal(number, lambda number, frame: held.append(number))
        yield


def _deliver(numbers: list[int], handlers: "dict[int, Any]") -> None:
    """Do what handlers do about signals that came before; of several of one number, about one."""
    for number in dict.fromkeys(numbers):
        if callable(handlers[number]):
            handlers[number](number, None)  # raised again, it would be a second one for stop_requests()
        else:
            signal.raise_signal(number)


def ignore_terminals() -> None:
    """Ignore what a terminal sends, in a process whose parent receives it, too, and ends it."""
    for number in OF_TERMINALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_TERMINALS)


def _answer(receiver: "socket.socket", asked: threading.Event, answer: str | None) -> None:
    """Receive signals at once; this runs in a thread."""
    global _heard
    is_first = True
    while numbers := receiver.recv(1):
        if numbers[0] not in SIGNALS:
            continue
        _heard = numbers[0]
        asked.set()
        if not is_first and _heard not in _REPEATED:
            end_now(_heard)
        if is_first and answer is not None:
            write_above(partial(_write, answer), ends_line=True)
        is_first = False


def tell() -> None:
    """Print that the command was interrupted, once."""
    global _is_printed
    if not _is_printed:
        _is_printed = True
        _write("interrupted")


def _write(sentence: str) -> None:
    """Write a line to stderr without Python's buffers: a signal may come while they are in use."""
    with suppress(OSError):  # stderr may be closed
        os.write(2, (_ERASE_BAR if takes_controls(2) else b"") + f"mambair: {sentence}\n".encode())


def _handle(handler: "Callable[[int, object], object]") -> "dict[int, Any]":
    """Handle the signals that are not ignored, as with nohup; return the previous handlers."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _restore({number: handler for number, old in before.items() if old is not signal.SIG_IGN})
    return before


def _handle_next() -> None:
    """End the process at the next signal that is not a repetition."""
    # No step in between ends it at a repetition. A handler which does nothing, since Python complains of a
    # signal that comes just before SIG_IGN is set.
    _handle(lambda number, frame: None if number in _REPEATED else end_now(number))


def _restore(handlers: "dict[int, Any]") -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _interrupt(number: int, frame: object) -> "NoReturn":
    global _heard
    _heard = number
    _handle_next()
    raise KeyboardInterrupt


def _see_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """End the process after an interrupt in a destructor, which cannot pass it on."""
    if unraisable.exc_type is KeyboardInterrupt:
        end_now(_heard)
    sys.__unraisablehook__(unraisable)


def end_now(number: int, frame: object = None) -> "NoReturn":
    """End the process at once, after a signal.

    Args:
        number: The signal.
        frame: What Python gives to handlers.
    """
    tell()
    if number == signal.SIGINT and _is_in_front():
        _die_of_interrupt()
    os._exit(EXIT_INTERRUPTED)


def _is_in_front() -> bool:
    """Tell whether the terminal of this process, if it has one, sends it Ctrl-C."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except (OSError, AttributeError):  # it has none, or it is gone; on Windows
        return False


def _die_of_interrupt() -> None:
    """Die of SIGINT, which tells a shell to end its script or loop, too; after an exit code it goes on.

    To the user, the shell says that the exit code is 130.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    else:  # where Python refuses that, and the main thread may be busy for minutes
        import ctypes

        ctypes.CDLL(None).signal(int(signal.SIGINT), None)  # SIG_DFL is a null pointer
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    signal.raise_signal(signal.SIGINT)


def _leave() -> None:
    """Ignore signals, by which the system would end a process after Python; end an interrupted one.

    What an interrupted process has printed is in its buffers still; there is nothing else to lose.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if _is_interrupted:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # it may be closed, or its reader gone
                stream.flush()
        end_now(_heard)
