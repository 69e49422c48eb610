"""The segments of one clip, shared out among workers that each restore and encode whole segments.

This process decodes the clip once, ahead of the workers, without converting or restoring a frame. So it knows
where each segment begins, and by which marks a worker that jumps there finds its frames. It counts what is
done, and takes up what an earlier run has left.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import NamedTuple, Protocol

from mambair_cli.checkpoints.select import PictureKind
from mambair_cli.errors import VideoError
from mambair_cli.runs.clip_frames import Ahead, Counter, read_ahead
from mambair_cli.runs.stamps import Stamp
from mambair_cli.runs.unfinished_clip import UnfinishedClip
from mambair_cli.video import Clip, ClipFacts, FrameMark, NumberedFrames, VideoOptions
from mambair_cli.video.segments import read_times

_SEGMENTS_AHEAD = 4  # of which frames are marked before a worker takes them


@dataclass(frozen=True)
class ClipForWorkers:
    """A clip as workers get it.

    Attributes:
        source: The clip: a file, a folder, or numbered images.
        stamp: Stamp of the file; None for images, which are compared one by one.
        rate: Frames a second of images; None for 25.
        deinterlace: Whether to make whole frames of interlaced ones.
        facts: What the clip is.
        options: How frames are encoded.
        kind: Kind of its pictures, where that has a model of its own.
        size: Height and width of a result.
        length: Frames of a segment.
        converters: Threads with which a worker converts frames for the encoder.
    """

    source: Path
    stamp: Stamp | None
    rate: Fraction | None
    deinterlace: bool
    facts: ClipFacts
    options: VideoOptions
    kind: PictureKind | None
    size: tuple[int, int]
    length: int
    converters: int


class ClipSegment(NamedTuple):
    """A segment to make.

    Attributes:
        number: Number of the segment, from 0.
        start: Number of its first frame.
        path: Its file.
        marks: Marks of its frames.
    """

    number: int
    start: int
    path: Path
    marks: tuple[FrameMark, ...]

    @property
    def frames(self) -> str:
        """The numbers of its frames, from 1, as a message tells them."""
        return f"frames {self.start + 1} to {self.start + len(self.marks)}"


class DoneFrames(NamedTuple):
    """Frames that are in segments already. Those of the last one are read again: they tell times that follow.

    Attributes:
        total: Number of all.
        start: Number of the first frame of the last segment.
        mark: Its mark; None where that is not known.
    """

    total: int = 0
    start: int = 0
    mark: FrameMark | None = None

    @property
    def read_again(self) -> int:
        """Number of those that are read again."""
        return self.total - self.start


class SegmentWorkers(Protocol):
    """Workers that restore whole segments."""

    @property
    def count(self) -> int:
        """Return the number of workers."""
        ...

    @property
    def are_gpus(self) -> bool:
        """Tell whether the workers compute on GPUs."""
        ...

    def restore(self, shared: "SharedClip") -> None:
        """Restore all segments.

        Args:
            shared: Hands out the segments, and learns what becomes of each.

        Raises:
            MambairError: A segment cannot be made; what is finished is kept.
        """
        ...


class SharedClip:
    """The segments of a clip: which ones are to be made, and which are finished.

    Args:
        order: The clip.
        clip: The same, open in this process.
        unfinished: Where the segments go.
        counter: Counts frames.
        marks: Marks of frames, from the first one on that is read again, from a thread that reads ahead.
        done: Frames that are done already.

    Attributes:
        order: The clip.
        is_over: Whether all segments have been handed out.
        resumed: Number of frames that an earlier run has made, of segments after a gap.
        last_duration: How long the last frame is shown, in ticks, once all segments are handed out.
    """

    def __init__(
        self,
        order: ClipForWorkers,
        clip: Clip | NumberedFrames,
        unfinished: UnfinishedClip,
        counter: Counter,
        marks: Ahead[FrameMark],
        done: DoneFrames,
    ) -> None:
        self.order = order
        self.is_over = False
        self.resumed = self.last_duration = 0
        self._clip, self._unfinished, self._counter, self._marks = clip, unfinished, counter, marks
        self._read_again = done.read_again  # frames whose marks are still to come
        self._next = done.total // order.length  # number of the next segment
        self._collected: list[FrameMark] = []  # marks of its frames so far
        self._encoded: dict[int, list[bool]] = {}  # of each segment that is not finished: repeated or not
        self._finished: dict[int, tuple[str, ...]] = {}  # after a gap, with the warnings of each

    def next_segment(self) -> ClipSegment | None:
        """Return a segment to make; None if none is known yet, or all have been handed out."""
        while not self.is_over and self._marks.has_next():
            mark = next(self._marks, None)
            if mark is None:
                self.is_over = True
            else:
                self.last_duration = mark.duration
                if self._read_again:
                    self._read_again -= 1
                else:
                    self._collected.append(mark)
            if len(self._collected) == self.order.length or (self.is_over and self._collected):
                segment = self._begin_segment()
                if not self._take_up(segment):
                    return segment
        return None

    def _begin_segment(self) -> ClipSegment:
        """Return the segment whose frames are known now."""
        number, marks = self._next, tuple(self._collected)
        self._next, self._collected = number + 1, []
        self._encoded[number] = []
        return ClipSegment(number, number * self.order.length, self._unfinished.path_of(number), marks)

    def frame_encoded(self, number: int, is_repeated: bool) -> None:
        """Count a frame that a worker has encoded."""
        self._encoded[number // self.order.length].append(is_repeated)
        self._counter.add(is_repeated)

    def segment_finished(self, number: int, warnings: tuple[str, ...]) -> None:
        """Count a segment, which is complete and on the disk.

        Args:
            number: Number of the segment.
            warnings: Sentences about what was damaged in it.
        """
        del self._encoded[number]
        self._finished[number] = warnings
        while (first := len(self._unfinished.segments)) in self._finished:
            self._unfinished.add()
            warnings = self._finished.pop(first)
            if isinstance(self._clip, NumberedFrames):  # the survey of a file has given the same
                self._clip.warnings += [each for each in warnings if each not in self._clip.warnings]

    def segment_lost(self, number: int) -> None:
        """Take back what a worker that has died had made of a segment."""
        self._counter.take_back(self._encoded[number])
        self._encoded[number] = []

    def _take_up(self, segment: ClipSegment) -> bool:
        """Count a segment that an earlier run has made, though not those before it."""
        if not segment.path.exists():
            return False
        with suppress(VideoError):  # a damaged one is made again
            if sorted(read_times(segment.path).pts) == [mark.pts for mark in segment.marks]:
                self.resumed += len(segment.marks)
                self._counter.skip(len(segment.marks))
                self.segment_finished(segment.number, ())
                return True
        return False


@contextmanager
def share_clip(
    order: ClipForWorkers,
    clip: Clip | NumberedFrames,
    unfinished: UnfinishedClip,
    counter: Counter,
    done: DoneFrames,
) -> Iterator[SharedClip]:
    """Survey a clip in a thread, which ends with the block, and hand out its segments.

    Args:
        order: The clip.
        clip: The same, open in this process.
        unfinished: Where the segments go.
        counter: Counts frames.
        done: Frames that are done already.
    """
    is_over = Event()
    survey = clip.survey(done.start, done.mark, is_over.is_set)
    with read_ahead(survey, _SEGMENTS_AHEAD * order.length) as marks:
        try:
            yield SharedClip(order, clip, unfinished, counter, marks, done)
        finally:
            is_over.set()  # else the thread would go on to the next mark, which may be far
