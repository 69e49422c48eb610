"""The bytes of a file, read where they are asked for.

A mapped file would do the same, but the system ends a process whose mapped file becomes shorter.
"""

import io
import os
from pathlib import Path
from typing import BinaryIO, overload

from mambair_cli.errors import ImageError
from mambair_cli.system.file_errors import explain_unreadable
from mambair_cli.system.wording import show


class FileBytes:
    """Looks like the bytes of a file; what is looked at is read, and a copy.

    Args:
        file: The file, opened by its name and buffered; it stays open while these are used, in one thread.

    Raises:
        ImageError: By any access: the file has become shorter, or cannot be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._path = Path(file.name)
        self._size = os.fstat(file.fileno()).st_size

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return self[:]

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> bytes: ...
    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, int):
            if not -self._size <= key < self._size:
                raise IndexError(f"byte {key} of {self._size}")
            return self._read(key % self._size, 1)[0]
        start, stop, step = key.indices(self._size)
        if step != 1:
            raise ValueError(f"bytes of a file are read in their order, not in steps of {step}")
        return self._read(start, stop - start)

    def _read(self, start: int, count: int) -> bytes:
        if count <= 0:
            return b""
        try:
            self._file.seek(start, io.SEEK_SET)
            data = self._file.read(count)
        except OSError as error:
            raise explain_unreadable(self._path, error) from error
        if len(data) < count:
            raise changed_error(self._path)
        return data


def changed_error(path: Path) -> ImageError:
    """Return the error for a file that changes while it is read."""
    return ImageError(f"cannot read {show(path)}: it changes while it is read; try again")
