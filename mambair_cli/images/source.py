"""Where an image comes from: a file, standard input, or bytes in memory."""

import sys
from dataclasses import dataclass, replace
from mmap import mmap
from pathlib import Path

STANDARD_STREAM = "-"


@dataclass(frozen=True)
class Source:
    """An image to restore.

    Attributes:
        path: Of its file; None for standard input.
        folder: The folder among the inputs that it was found in; None where it was named itself.
        data: What its file holds, if it came without a path; None for standard input that is not read yet.
    """

    path: Path | None
    folder: Path | None = None
    data: bytes | mmap | None = None

    def __str__(self) -> str:
        """Name it as its user did."""
        return STANDARD_STREAM if self.path is None else str(self.path)

    def hold(self) -> "Source":
        """Return a source that can be read again: what standard input has is read into memory."""
        if self.path is not None or self.data is not None:
            return self
        return replace(self, data=sys.stdin.buffer.read())
