"""Segments of a clip, which a thread of its own encodes one after the other."""

from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from mambair_cli.runs.unfinished_clip import UnfinishedClip
from mambair_cli.video import ClipFacts, SegmentWriter, VideoFrame, VideoOptions

SEGMENT_FRAMES = 96  # what a kill may cost; each segment begins with a frame that costs more bytes


class SegmentEncoder:
    """Encodes frames, and begins a new segment where one is full.

    Args:
        unfinished: Where the segments go.
        facts: The source.
        options: How frames are encoded.
    """

    def __init__(self, unfinished: UnfinishedClip, facts: ClipFacts, options: VideoOptions) -> None:
        self._unfinished, self._facts, self._options = unfinished, facts, options
        self._opened = ExitStack()
        self._writer: SegmentWriter | None = None

    def __enter__(self) -> "SegmentEncoder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the last segment; after an error give it up."""
        if error is None:
            self._finish()
        else:
            self._opened.__exit__(kind, error, trace)

    def add(self, frame: VideoFrame, converted: Future[Any]) -> None:
        """Encode a frame.

        Args:
            frame: The frame of the source, with its times.
            converted: Its result, see :func:`mambair_cli.video.convert_frame`.
        """
        if self._writer is None:
            writer = SegmentWriter(self._unfinished.next_path(), self._facts, self._options)
            self._writer = self._opened.enter_context(writer)
        self._writer.encode(converted.result(), frame.pts, frame.duration)
        if self._writer.frames == SEGMENT_FRAMES:
            self._finish()

    def _finish(self) -> None:
        if self._writer is not None:
            self._opened.close()
            self._writer = None
            self._unfinished.add()
