"""The standard streams of a command: always open, exact for paths, with errors of their own."""

import codecs
import io
import os
import sys
from functools import partial
from typing import Any, TextIO

from mambair_cli.cli.output import escape
from mambair_cli.errors import OutputError
from mambair_cli.system.terminals import write_above

_STDOUT, _STDERR = 1, 2
_STAND_INS = {"×": "x", "…": "...", "°": " degrees", "\ufffd": "?"}  # where the locale has ASCII alone
_ERRORS = "mambair.stdout"


class ReaderGoneError(Exception):
    """The reader of the output has closed it, as ``head`` does; that is not an error."""


def settle_streams() -> None:
    """Make the standard streams safe to use.

    A closed one becomes the null device: otherwise the next file that is opened would take its number, and
    receive what is printed. Paths go to stdout as the bytes they are, whatever the locale; on a terminal,
    what would control it is escaped. Errors of stdout get a class of their own, apart from those of other
    files. Lines on a terminal stand above a bar that is drawn there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # os.open takes the lowest free number
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    if _is_plain(sys.stdout, _STDOUT):
        sys.stdout = _wrap(sys.stdout, _STDOUT)
    if _is_plain(sys.stderr, _STDERR):
        sys.stderr = _wrap(sys.stderr, _STDERR)


def is_stdin_closed() -> bool:
    """Tell whether the process was started without a standard input."""
    return sys.__stdin__ is None


def is_stdout_closed() -> bool:
    """Tell whether the process was started without a standard output."""
    return sys.__stdout__ is None


def open_for_drawing() -> TextIO:
    """Return a stream to stderr for what is drawn at the end of a terminal, and gives way to lines."""
    is_ours = isinstance(_raw_of(sys.stderr), _Stream)
    return _wrap(sys.stderr, _STDERR, draws=True) if is_ours else sys.stderr


def _encode_rest(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write what an encoding lacks: bytes of paths as they are, and other letters in ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter, end = error.object[error.start], error.start + 1
    if "\udc80" <= letter <= "\udcff":  # Python's form of a byte
        return bytes([ord(letter) - 0xDC00]), end
    return _STAND_INS.get(letter) or letter.encode("ascii", "backslashreplace").decode(), end


codecs.register_error(_ERRORS, _encode_rest)


class _Stream(io.FileIO):
    """A stream that raises its first error as a ``MambairError``, and drops what is written later.

    Otherwise the rest of the buffers would fail again when Python ends. stderr drops its first error, too.

    Args:
        number: Number of the open file.
        draws: Whether it draws at the end of a terminal, and does not write lines above.
    """

    def __init__(self, number: int, draws: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self._has_failed = False
        self._is_above = not draws and self.isatty()

    def write(self, data: Any, /) -> int | None:
        size = memoryview(data).nbytes
        if self._has_failed:
            return size
        try:
            if not self._is_above or not size:
                return super().write(data)
            ends_line = memoryview(data).cast("B")[-1] == ord("\n")
            return write_above(partial(super().write, data), ends_line)
        except OSError as error:
            self._has_failed = True
            if self.fileno() == _STDERR:
                return size
            if isinstance(error, BrokenPipeError):
                raise ReaderGoneError from error
            raise OutputError(f"cannot write to standard output: {error.strerror}; make room") from error


def _is_plain(stream: TextIO | None, number: int) -> bool:
    """Tell whether a stream is one that Python made for a file descriptor."""
    if stream is None:
        return True
    raw = _raw_of(stream)
    return type(raw) is io.FileIO and raw.fileno() == number


def _raw_of(stream: TextIO) -> object:
    """Return the stream of bytes below the buffers of another, where there is one."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)  # an unbuffered stream has no more


class _Terminal(io.TextIOWrapper):
    """A terminal's stdout: a name with control characters must not control it."""

    def write(self, text: str, /) -> int:
        return super().write("\n".join(map(escape, text.split("\n"))))


def _wrap(stream: TextIO | None, number: int, draws: bool = False) -> io.TextIOWrapper:
    encoding, errors = "utf-8" if stream is None else stream.encoding, "backslashreplace"
    if number == _STDOUT and os.name == "posix":  # where paths are bytes
        encoding, errors = sys.getfilesystemencoding(), _ERRORS
    buffer = io.BufferedWriter(_Stream(number, draws))
    is_terminal = buffer.isatty()
    wrap = _Terminal if number == _STDOUT and is_terminal else io.TextIOWrapper
    return wrap(buffer, encoding, errors, line_buffering=number == _STDERR or is_terminal)
