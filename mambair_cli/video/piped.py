"""The frames of a pipe, which can be read once: the first ones are held until all of them are read."""

from collections import deque
from collections.abc import Iterator

from mambair_cli.errors import VideoError
from mambair_cli.video.frames import DecodedFrame

MOST_HELD = 512 * 2**20  # bytes of frames; a look takes 73 frames, of 1080p 220 MiB


class PipedFrames:
    """Frames of a pipe.

    Args:
        frames: All of them.
        name: Name of the pipe in messages.
    """

    def __init__(self, frames: Iterator[DecodedFrame], name: str) -> None:
        self._frames = frames
        self._name = name
        self._held: deque[DecodedFrame] = deque()
        self._is_read = False

    def look(self) -> Iterator[DecodedFrame]:
        """Yield the first frames, which :meth:`read` yields again; as many as memory is meant for."""
        held = 0
        while held < MOST_HELD and (frame := next(self._frames, None)) is not None:
            self._held.append(frame)
            held += sum(plane.buffer_size for plane in frame.frame.planes)
            yield frame

    def read(self, start: int) -> Iterator[DecodedFrame]:
        """Yield frames from a number on.

        Raises:
            VideoError: They were read before.
        """
        if self._is_read:
            raise VideoError(f"cannot read {self._name} again: it is a pipe; save it to a file first")
        self._is_read = True
        while self._held:
            frame = self._held.popleft()
            if frame.number >= start:
                yield frame
        yield from (frame for frame in self._frames if frame.number >= start)
