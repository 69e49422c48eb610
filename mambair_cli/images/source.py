"""The source of an image: a file, standard input, or bytes in memory."""

import sys
from dataclasses import dataclass, replace
from mmap import mmap
from pathlib import Path

STANDARD_STREAM = "-"


@dataclass(frozen=True)
class Source:
    """An image to restore.

    Attributes:
        path: Path of its file; None for standard input.
        folder: Input folder that it was found in; None if the image itself was named.
        data: Bytes of an image without a path; None for standard input before it is read.
        label: What it is called where its file is a temporary one; None for its own name.
    """

    path: Path | None
    folder: Path | None = None
    data: bytes | mmap | None = None
    label: str | None = None

    def __str__(self) -> str:
        """Return its name as the user gave it."""
        return self.label or (STANDARD_STREAM if self.path is None else str(self.path))

    def hold(self) -> "Source":
        """Return a source that can be read again; standard input is read into memory."""
        if self.path is not None or self.data is not None:
            return self
        return replace(self, data=sys.stdin.buffer.read())
