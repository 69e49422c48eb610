"""The standard streams of a command: there, for paths as they are, and with errors of their own."""

import io
import os
import sys
from typing import Any, TextIO

from mambair_cli.errors import OutputError

_STDOUT, _STDERR = 1, 2


class ReaderGoneError(Exception):
    """Whoever read the output has seen enough of it; that is nobody's mistake."""


def settle_streams() -> None:
    """Make the standard streams such that commands can rely on them.

    One that is closed becomes the null device: else the next file that is opened would take its place, and
    receive what is printed. Paths go to stdout as the bytes they are, whatever the locale; and an error of
    stdout cannot be taken for that of another file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
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
    """A stream that fails once, in words of ours; stderr not even that. What comes then is dropped.

    Else what is left in buffers would fail again when Python ends.
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
    """Tell whether a stream is one of Python's own, and goes to a file."""
    if stream is None:
        return True
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # which is all there is of an unbuffered one
    return type(raw) is io.FileIO and raw.fileno() == number


def _wrap(stream: TextIO | None, number: int) -> io.TextIOWrapper:
    encoding, errors = "utf-8" if stream is None else stream.encoding, "backslashreplace"
    if number == _STDOUT and os.name == "posix":  # where paths are bytes
        encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    buffer = io.BufferedWriter(_Stream(number))
    return io.TextIOWrapper(buffer, encoding, errors, line_buffering=number == _STDERR or buffer.isatty())
