"""Segments of a clip, which a thread of its own encodes while further frames are restored."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from mambair_cli.errors import ImageError
from mambair_cli.runs.clip_frames import FRAMES_AHEAD, RestoredFrame
from mambair_cli.runs.in_order import results_in_order
from mambair_cli.video import ClipFacts, SegmentWriter, VideoFrame, VideoOptions, convert_frame

SEGMENT_FRAMES = 96  # what a kill may cost; each segment begins with a frame that costs more bytes
CONVERTERS = 3  # threads; one converts some thirty frames of 1080p a second


class SegmentEncoder:
    """Encodes frames, and begins a new segment where one is full or frames of another come.

    Args:
        place: Tells the file of a segment by its number.
        length: Frames of a segment; the last one of a clip may have fewer.
        facts: The source.
        options: How frames are encoded.
    """

    def __init__(
        self, place: Callable[[int], Path], length: int, facts: ClipFacts, options: VideoOptions
    ) -> None:
        self._place, self._length = place, length
        self._facts, self._options = facts, options
        self._opened = ExitStack()
        self._writer: SegmentWriter | None = None
        self._number = -1
        self._is_broken = False

    def __enter__(self) -> "SegmentEncoder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up a segment that is not finished."""
        self._opened.__exit__(kind, error, trace)

    def convert(self, pixels: Any) -> Any:
        """Convert a frame to what the encoder takes; several threads may do so at once."""
        return convert_frame(pixels, self._facts, self._options)

    def add(self, frame: VideoFrame, converted: Future[Any]) -> int | None:
        """Encode a frame.

        Args:
            frame: The frame of the source, with its number and its times.
            converted: Its result, by :meth:`convert`.

        Returns:
            The number of a segment that is finished; None if there is none.
        """
        if self._is_broken:  # a frame is missing, and those that were begun before come all the same
            return None
        try:
            with _as_of_the_clip():
                return self._add(frame, converted)
        except BaseException:
            self._is_broken = True
            raise

    def _add(self, frame: VideoFrame, converted: Future[Any]) -> int | None:
        finished = self.finish() if frame.number // self._length != self._number else None
        if self._writer is None:
            self._number = frame.number // self._length
            path = self._place(self._number)
            writer = SegmentWriter(path, self._facts, self._options, mark=frame.mark)
            self._writer = self._opened.enter_context(writer)
        self._writer.encode(converted.result(), frame.pts, frame.duration)
        return self.finish() if self._writer.frames == self._length else finished

    def finish(self) -> int | None:
        """Finish the segment that is begun, and return its number; None if none is."""
        if self._writer is None:
            return None
        with _as_of_the_clip():
            self._opened.close()
        self._writer = None
        return self._number


@contextmanager
def _as_of_the_clip() -> Iterator[None]:
    """Raise errors of the system as they are: the user knows the clip, not the segment that names them."""
    try:
        yield
    except ImageError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise


def encode_in_segments(
    restored: Generator[RestoredFrame],
    segments: SegmentEncoder,
    on_done: Callable[[int], None],
    converters: int = CONVERTERS,
) -> Generator[RestoredFrame]:
    """Encode restored frames; yield each when it is encoded.

    Args:
        restored: Frames of one or more segments, each from its first frame on.
        segments: Encodes them.
        on_done: Called with the number of each segment when it is complete, after its frames.
        converters: Number of threads that convert frames for the encoder.
    """
    with (
        closing(restored),
        segments,
        ThreadPoolExecutor(converters, "mambair-convert") as pool,
        ThreadPoolExecutor(1, "mambair-encode") as encoder,
    ):
        converting = ((each, pool.submit(segments.convert, each.pixels)) for each in restored)

        def encode(item: tuple[RestoredFrame, Future[Any]]) -> int | None:
            return segments.add(item[0].frame, item[1])

        with closing(results_in_order(converting, encoder, encode, FRAMES_AHEAD)) as encoded:
            for (each, _), finished in encoded:
                yield each
                if finished is not None:
                    on_done(finished)
        if (last := segments.finish()) is not None:
            on_done(last)
