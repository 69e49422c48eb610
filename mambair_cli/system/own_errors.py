"""Tell the errors of a file that is written from those of the code that writes it.

Code in the block of a context manager may open other files, or talk to a server. Its errors are OSErrors,
too, and must not be blamed on the file.
"""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO


class OwnErrors:
    """The errors of one file, collected where they are raised."""

    def __init__(self) -> None:
        self._seen: list[OSError] = []

    def __contains__(self, error: OSError) -> bool:
        """Tell whether it is an error of the file."""
        return any(error is one for one in self._seen)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Take the errors of the block, which does nothing but to write the file, for errors of the file."""
        try:
            yield
        except OSError as error:
            self._seen.append(error)
            raise

    def open(self, place: Path | int, mode: str) -> BinaryIO:
        """Open a file, and collect all errors of what is done with it from now on.

        Args:
            place: Its path, or the number of an open file, which is closed with this one.
            mode: Mode of ``open`` for writing; bytes are meant, without the b.

        Raises:
            OSError: The system refuses.
        """
        with self.noting():
            raw = _NotedFile(place, mode, self)
            return io.BufferedRandom(raw) if raw.readable() else io.BufferedWriter(raw)

    def open_temporary(self) -> BinaryIO:
        """Open a file without a name, as :meth:`open` opens one."""
        with self.noting(), tempfile.TemporaryFile() as file:
            return self.open(os.dup(file.fileno()), "w+")

    def again(self, file: BinaryIO) -> AbstractContextManager[BinaryIO]:
        """Open an open file once more, at its place; what is written there is in it when this one is closed.

        One that is only in memory has no errors of the system, and is given as it is.
        """
        try:
            number = file.fileno()
        except io.UnsupportedOperation:
            return nullcontext(file)
        with self.noting():
            return self.open(os.dup(number), "r+")


class _NotedFile(io.FileIO):
    """A file below a buffer, whose errors are collected."""

    def __init__(self, place: Path | int, mode: str, errors: OwnErrors) -> None:
        self._errors = errors  # first: Python closes also what could not be opened
        super().__init__(place, mode)

    def write(self, data: Any, /) -> Any:
        with self._errors.noting():
            return super().write(data)

    def readinto(self, buffer: Any, /) -> Any:
        with self._errors.noting():
            return super().readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        with self._errors.noting():
            return super().seek(offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        with self._errors.noting():
            return super().truncate(size)

    def close(self) -> None:
        with self._errors.noting():  # some network drives tell only now that they are full
            super().close()
