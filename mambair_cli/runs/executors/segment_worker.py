"""What a worker process does with segments of clips: it reads, restores and encodes them, one after another.

The next segment is read while the last frames of the one before are restored and encoded, as if both followed
each other in the clip.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from mambair_cli.errors import MambairError
from mambair_cli.restore.restorer import Restorer
from mambair_cli.runs.clip_frames import read_ahead, restore_frames
from mambair_cli.runs.clip_segments import SegmentEncoder, encode_in_segments
from mambair_cli.runs.clip_sharing import ClipForWorkers
from mambair_cli.runs.executors.messages import (
    FrameEncoded,
    RestoreSegment,
    SegmentFailed,
    SegmentFinished,
)
from mambair_cli.runs.stamps import stamp_of
from mambair_cli.system.memory import explaining_memory
from mambair_cli.system.wording import show
from mambair_cli.video import Clip, NumberedFrames, VideoFrame, open_clip
from mambair_cli.video.frames import changed

Take = Callable[[bool], RestoreSegment | None]
"""Returns the next segment; None after the last one or, without waiting for one, if there is none yet."""


def restore_segments(
    first: RestoreSegment, take: Take, restorer: Restorer, send: Callable[[Any], None]
) -> None:
    """Restore segments as they come, until the last one.

    Args:
        first: The first segment.
        take: Returns those after it.
        restorer: The restorer, or one that has others for kinds of pictures.
        send: Sends messages to the parent.
    """
    item: RestoreSegment | None = first
    while item is not None:
        try:
            with explaining_memory(show(item.order.source)):
                item = _restore_clip(item, take, restorer, send)
        except MambairError as error:
            send(SegmentFailed(error))
            item = take(True)
        except OSError as error:  # FFmpeg's own errors are of that class, and do not travel
            send(SegmentFailed(OSError(error.errno, error.strerror or str(error))))
            item = take(True)


def _restore_clip(
    first: RestoreSegment, take: Take, restorer: Restorer, send: Callable[[Any], None]
) -> RestoreSegment | None:
    """Restore the segments of one clip, which stays open; return the first segment of another one."""
    order = first.order
    chosen = (restorer if order.kind is None else restorer.for_kind(order.kind)).alone()
    with open_clip(order.source, rate=order.rate, deinterlace=order.deinterlace) as clip:
        if order.stamp is not None and stamp_of(order.source) != order.stamp:
            raise changed(show(order.source))
        item: RestoreSegment | None = first
        while item is not None and item.order == order:
            following = _Following(item, take, clip)
            _encode(following, order, chosen, send)
            item = following.other or take(True)
    return item


def _encode(
    following: "_Following", order: ClipForWorkers, restorer: Restorer, send: Callable[[Any], None]
) -> None:
    """Restore and encode segments that follow each other without a pause."""

    def finish(number: int) -> None:  # frames after it, or the end, have been read by now
        send(SegmentFinished(number, following.warnings[number]))

    segments = SegmentEncoder(following.path_of, order.length, order.facts, order.options)
    with read_ahead(following.frames()) as frames:
        restored = restore_frames(frames, restorer, order.size, order.length)
        with closing(encode_in_segments(restored, segments, finish, order.converters)) as done:
            for each in done:
                send(FrameEncoded(each.frame.number, each.is_repeated))


class _Following:
    """Segments of one clip, as long as a next one is there when one is read to its end.

    Args:
        first: The first of them.
        take: Returns those after it.
        clip: The clip.

    Attributes:
        other: The first segment of another clip, if one has come.
        warnings: Sentences about what was damaged, by the number of the segment.
    """

    def __init__(self, first: RestoreSegment, take: Take, clip: Clip | NumberedFrames) -> None:
        self.other: RestoreSegment | None = None
        self.warnings: dict[int, tuple[str, ...]] = {}
        self._first, self._take, self._clip = first, take, clip
        self._paths: dict[int, Path] = {}

    def path_of(self, number: int) -> Path:
        """Return the file of a segment."""
        return self._paths[number]

    def frames(self) -> Generator[VideoFrame]:
        """Yield the frames of all segments."""
        item: RestoreSegment | None = self._first
        while item is not None:
            if item.order != self._first.order:
                self.other = item
                return
            segment, known = item.segment, len(self._clip.warnings)
            self._paths[segment.number] = segment.path
            yield from self._clip.marked_frames(segment.start, segment.marks)
            self.warnings[segment.number] = tuple(self._clip.warnings[known:])
            item = self._take(False)
