"""A pipe whose bytes are counted: FFmpeg says nothing of a last frame of YUV4MPEG that is cut off."""

from typing import BinaryIO


class CountedPipe:
    """A pipe to read from.

    Attributes:
        count: Number of bytes that were read.
    """

    def __init__(self, pipe: BinaryIO) -> None:
        self.count = 0
        self._pipe = pipe

    def read(self, size: int = -1) -> bytes:
        """Read bytes."""
        data = self._pipe.read(size)
        self.count += len(data)
        return data
