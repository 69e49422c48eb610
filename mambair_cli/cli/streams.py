"""The standard streams of a command: always open, exact for paths, with errors of their own."""

import io
import os
import sys
from typing import Any, TextIO

from mambair_cli.errors import OutputError

_STDOUT, _STDERR = 1, 2


class ReaderGoneError(Exception):
    """The reader of the output has closed it, as ``head`` does; that is not an error."""


def settle_streams() -> None:
    """Make the standard streams safe to use.

    A closed one becomes the null device: otherwise the next file that is opened would take its number, and
    receive what is printed. Paths go to stdout as the bytes they are, whatever the locale. Errors of stdout
    get a class of their own, apart from those of other files.
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


def is_stdout_closed() -> bool:
    """Tell whether the process was started without a standard output."""
    return sys.__stdout__ is None


class _Stream(io.FileIO):
    """A stream that raises its first error as a ``MambairError``, and drops what is written later.

    Otherwise the rest of the buffers would fail again when Python ends. stderr drops its first error, too.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._has_failed = False

    def write(self, data: Any, /) -> int | None:
        size = memoryview(data).nbytes
        if self._has_failed:
            return size
        try:
            return super().write(data)
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
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # an unbuffered stream has no more
    return type(raw) is io.FileIO and raw.fileno() == number


def _wrap(stream: TextIO | None, number: int) -> io.TextIOWrapper:
    encoding, errors = "utf-8" if stream is None else stream.encoding, "backslashreplace"
    if number == _STDOUT and os.name == "posix":  # where paths are bytes
        encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    buffer = io.BufferedWriter(_Stream(number))
    return io.TextIOWrapper(buffer, encoding, errors, line_buffering=number == _STDERR or buffer.isatty())
