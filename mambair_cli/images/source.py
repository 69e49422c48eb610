"""The source of an image: a file, standard input, or bytes in memory."""

import stat
import sys
from dataclasses import dataclass, replace
from mmap import mmap
from pathlib import Path

from mambair_cli.system.file_errors import explain_unreadable
from mambair_cli.system.wording import as_argument

STANDARD_STREAM = "-"


@dataclass(frozen=True)
class Source:
    """An image to restore.

    Attributes:
        path: Path of its file; None for standard input.
        folder: Input folder that it was found in; None if the image itself was named.
        data: Bytes of an image without a path; None for standard input before it is read.
        label: What it is called where its file is a temporary one, or was a pipe; None for its own name.
    """

    path: Path | None
    folder: Path | None = None
    data: bytes | mmap | None = None
    label: str | None = None

    def __str__(self) -> str:
        """Return its name as the user gave it."""
        return self.label or (STANDARD_STREAM if self.path is None else as_argument(self.path))

    def hold(self) -> "Source":
        """Return a source that can be read again; standard input and pipes are read into memory.

        Raises:
            ImageError: The pipe cannot be read.
        """
        if self.data is not None:
            return self
        if self.path is None:
            return replace(self, data=sys.stdin.buffer.read())
        try:
            if not stat.S_ISFIFO(self.path.stat().st_mode):
                return self
            return replace(self, path=None, data=self.path.read_bytes(), label=str(self))
        except OSError as error:
            raise explain_unreadable(self.path, error) from error
