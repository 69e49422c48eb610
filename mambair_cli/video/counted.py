"""A pipe whose bytes are counted: FFmpeg says nothing of a last frame that is cut off, if frames are bare."""

from typing import Any, BinaryIO

from mambair_cli.video.frames import RawInput


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


def explain_rest(source: Any, container: Any, end: int, raw: RawInput | None) -> str | None:
    """Say that a clip of bare frames ends inside one; None if it does not, or has packets.

    Args:
        source: What the container reads.
        container: The clip, which was read to its end.
        end: Place of the byte after its last whole frame.
        raw: What raw frames do not tell, if it is a stream of them.
    """
    size = source.count if isinstance(source, CountedPipe) else container.size
    if container.format.name not in ("yuv4mpegpipe", "rawvideo") or end >= size:
        return None
    doubt = f"; check whether --raw {raw.width}x{raw.height} is its size" if raw else ""
    return f"ends inside a frame, which is left out{doubt}"
