"""Clips as frames of R'G'B', one after another, from any frame on."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from mambair_cli.errors import VideoError
from mambair_cli.video.colour import explain_matrix
from mambair_cli.video.decoder import Decoder, IsOver, OverError
from mambair_cli.video.description import (
    count_held,
    count_packets,
    describe_clip,
    explain_missing,
    find_slack,
)
from mambair_cli.video.facts import ClipFacts
from mambair_cli.video.ffmpeg import import_av
from mambair_cli.video.frames import DecodedFrame, FrameMark, RawInput, VideoFrame, has_mark, mark_frame
from mambair_cli.video.marked import MarkedReader
from mambair_cli.video.numbering import CONCEALED, Numbering
from mambair_cli.video.piped import PipedFrames
from mambair_cli.video.pixels import frame_to_rgb

# Frames that are read before the one to start with, attempt by attempt; deinterlacing needs two.
_FRAMES_BEFORE = (3, 60, 600)
_NEEDED_BEFORE = 2


class Clip:
    """An open clip; see :func:`mambair_cli.video.opening.open_clip`.

    Attributes:
        facts: What the clip is.
        warnings: Sentences about what was damaged, which grow while frames are read.
    """

    def __init__(self, source: Path | BinaryIO, raw: RawInput | None, *, deinterlace: bool) -> None:
        self._decoder = Decoder(source, raw)
        self.warnings = self._decoder.warnings
        self._name = self._decoder.name
        self._needed_before = _NEEDED_BEFORE if deinterlace else 0
        self._piped: PipedFrames | None = None
        self._marked: MarkedReader | None = None
        self._has_named_missing = False
        self._decoded: Iterator[Any] = iter(())
        with ExitStack() as opened:
            opened.callback(self._decoder.close)
            container = opened.enter_context(self._decoder.open())
            stream = self._decoder.find_stream(container)
            self._decoded = self._decoder.decode(container, stream)
            first = next(self._decoded, None)
            if first is None:
                raise VideoError(
                    f"cannot read {self._name}: no frame can be decoded; the clip may be cut off"
                )
            self._first = first
            self.facts = describe_clip(container, stream, first)
            if sentence := explain_matrix(first.colorspace, self.facts.colour):
                self._decoder.warn(f"{self._name}: {sentence}")
            # There a frame of another part may have the same time, so that a jump to it can lead anywhere.
            flag = import_av().format.Flags.ts_discont
            self._may_begin_anew = bool(container.format.flags & flag.value)
            self._slack = find_slack(self.facts, stream)
            self._held = count_held(self.facts, container, stream)
            self._numbering = Numbering(self.facts, self._name, deinterlace, self._decoder.warn)
            if self._decoder.file is None:
                shown = self._numbering.number(chain([first], self._decoded), 0)
                self._piped = PipedFrames(shown, self._name)
            self._opened = opened.pop_all()

    def __enter__(self) -> "Clip":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a stream that was given stays open."""
        # Else this object and its generator would keep the decoder until the next search for cycles.
        self._decoded, self._piped = iter(()), None
        if self._marked is not None:
            self._marked.close()
            self._marked = None
        self._opened.close()

    def count(self) -> ClipFacts:
        """Tell the number of frames that the file has and whether times vary; none is decoded.

        All packets are read where no index tells it. A warning tells what is missing, as far as that shows.

        Raises:
            VideoError: The clip is a pipe, which can be read only once.
        """
        if self._decoder.file is None:
            raise VideoError(
                f"cannot count the frames of {self._name}: it is a pipe; save it to a file first"
            )
        counted = self._count()
        shown = Fraction(counted.frames or 0) / counted.frame_rate  # times may begin anew in the middle
        ends = max(shown, counted.duration or Fraction(0))
        self._note_missing(counted.frames or 0, ends)
        return counted

    def _count(self) -> ClipFacts:
        if self.facts.frames_exact and self.facts.variable is not None:
            return replace(self.facts, frames=self._held)
        with self._decoder.open() as container:
            number, times = 0, []
            with suppress(import_av().FFmpegError):
                for packet in container.demux(self._decoder.find_stream(container)):
                    if packet.size and not packet.is_discard:
                        number += 1
                        time = packet.dts if packet.pts is None else packet.pts
                        times += [] if time is None else [time]
        return count_packets(self.facts, number, times)

    def frames(self, start: int = 0, mark: FrameMark | None = None) -> Generator[VideoFrame]:
        """Yield frames in the order in which they are shown; the same ones whatever the start.

        Broken data does not end the clip: FFmpeg conceals it, and a warning tells the frame.

        Args:
            start: Number of the first frame.
            mark: Its mark, if known: then the frames before it are not decoded one by one, where a jump
                leads to that very frame.

        Raises:
            VideoError: The clip is a pipe that was read before, or has no such frame.
        """
        with closing(self._read(start, mark)) as found:
            for shown in found:
                yield self._to_frame(shown)

    def first_frames(self) -> Iterator[VideoFrame]:
        """Yield frames to look at, which :meth:`frames` yields again, also if the clip is a pipe."""
        return self.frames() if self._piped is None else map(self._to_frame, self._piped.look())

    def survey(
        self, start: int = 0, mark: FrameMark | None = None, is_over: IsOver | None = None
    ) -> Generator[FrameMark]:
        """Yield a mark of each frame that :meth:`frames` yields, with the same warnings; none is converted.

        The other arguments and errors are those of :meth:`frames`.

        Args:
            start: Number of the first frame.
            mark: Its mark, if known.
            is_over: Asked before each packet, also of frames before the first one; ends the survey if true.
        """
        with closing(self._read(start, mark, is_over)) as found, suppress(OverError):
            for shown in found:
                yield mark_frame(shown, not self._decoder.is_doubtful)

    def marked_frames(self, start: int, marks: Sequence[FrameMark]) -> Generator[VideoFrame]:
        """Yield the frames that a survey has marked, wherever the clip is read from.

        What FFmpeg makes of broken data depends on what it has decoded before. So where a jump leads to
        other frames, the clip is decoded from its beginning, by a reader that goes on with later segments.

        Args:
            start: Number of the first frame.
            marks: Marks of that frame and of those after it.

        Raises:
            VideoError: The clip is a pipe, or has no such frames any more.
        """
        if self._marked is None:
            self._marked = MarkedReader(self._name, self._jump, self._read)
        with closing(self._marked.frames(start, marks)) as found:
            for shown in found:
                yield self._to_frame(shown)

    def _read(
        self, start: int = 0, mark: FrameMark | None = None, is_over: IsOver | None = None
    ) -> Generator[DecodedFrame]:
        """Yield frames that are not converted; see :meth:`frames`."""
        if self._piped is not None:
            yield from self._some(self._piped.read(start), start)
            return
        if start and mark is not None and not self._may_begin_anew:
            found = self._jump(start, mark, is_over)
            first = next(found, None)
            if first is not None:
                self._decoder.is_doubtful = True
                yield first
                yield from found
                return
        self._decoder.is_doubtful = False
        with self._decoder.open() as container:
            decoded = self._decoder.decode(container, self._decoder.find_stream(container), is_over)
            last = yield from self._some(self._numbering.number(decoded, start), start)
            self._check_end(last)

    def _some(
        self, frames: Iterator[DecodedFrame], start: int
    ) -> Generator[DecodedFrame, None, DecodedFrame]:
        """Yield frames, and return the last one; raise if there is none."""
        last = None
        for last in frames:
            yield last
        if last is None:
            raise VideoError(f"cannot read frame {start} of {self._name}: the clip ends before it")
        return last

    def frame_at(self, time: Fraction) -> VideoFrame:
        """Return the frame that is shown at a time; the last one, with a warning, for times after it.

        Its number is an estimate where times vary.

        Args:
            time: Seconds since the first frame.

        Raises:
            VideoError: The clip is a pipe, or no frame can be decoded there.
        """
        if self._decoder.file is None:
            raise VideoError(f"cannot look into {self._name}: it is a pipe; save it to a file first")
        first = self._first.pts or 0
        wanted = first + int(max(Fraction(0), time) / self.facts.time_base)
        for jumps in (True, False):
            with self._decoder.open() as container:
                stream = self._decoder.find_stream(container)
                if jumps:
                    target = wanted - _FRAMES_BEFORE[0] * self.facts.ticks_per_frame
                    with suppress(import_av().FFmpegError):
                        container.seek(target, stream=stream, backward=True)
                shown, is_last = None, False
                frames = self._numbering.settle(self._decoder.decode(container, stream))
                for frame, pts, duration, is_corrupt in frames:
                    if pts is None or (pts > wanted and shown is not None):
                        break
                    shown = (frame, pts, duration, is_corrupt)
                else:
                    is_last = True
            # Where a jump leads behind the time, or to no frame, all are decoded from the beginning.
            if shown is not None and (shown[1] <= wanted or not jumps):
                frame, pts, duration, is_corrupt = shown
                if is_corrupt:
                    place = f"the frame of {self._name} at {float(time):g} s"
                    self._decoder.warn(f"{place} is broken; {CONCEALED}")
                usual = self.facts.ticks_per_frame
                if is_last and pts + (duration or usual) <= wanted:
                    last = f"its last one, at {float((pts - first) * self.facts.time_base):.5g} s, is shown"
                    self._decoder.warn(f"{self._name} has no frame at {float(time):.5g} s; {last}")
                number, frame = round((pts - first) / usual), self._numbering.fit(frame)
                return self._to_frame(DecodedFrame(number, pts, duration or usual, frame, is_corrupt))
        raise VideoError(f"cannot read {self._name} at {float(time):g} s: no frame can be decoded there")

    def time_of(self, frame: VideoFrame) -> Fraction:
        """Return when a frame is shown, in seconds since the first one."""
        return (frame.pts - (self._first.pts or 0)) * self.facts.time_base

    def _jump(self, start: int, mark: FrameMark, is_over: IsOver | None = None) -> Generator[DecodedFrame]:
        """Yield frames from a marked one on, by a jump; none if no jump leads before that very frame.

        None either if the jump leads to the beginning: a reader that is open may be ahead.
        """
        av = import_av()
        needed = min(start, self._needed_before)
        for distance in _FRAMES_BEFORE:
            with self._decoder.open() as container:
                stream = self._decoder.find_stream(container)
                try:
                    before = mark.pts - distance * self.facts.ticks_per_frame
                    container.seek(before, stream=stream, backward=True)
                except av.FFmpegError:
                    continue
                decoded = self._decoder.decode(container, stream, is_over)
                first = next(decoded, None)
                if first is not None and first.pts == self._first.pts:
                    return
                decoded = iter(()) if first is None else chain([first], decoded)
                found = self._numbering.number(decoded, start, mark.pts, needed)
                last = next(found, None)
                if last is None or not has_mark(last, mark):
                    continue
                yield last
                for last in found:
                    yield last
                self._check_end(last)
                return

    def _to_frame(self, shown: DecodedFrame) -> VideoFrame:
        return VideoFrame(*shown[:3], self._to_rgb(shown.frame), shown.is_corrupt, shown)

    def _to_rgb(self, frame: Any) -> np.ndarray:
        pixels = frame_to_rgb(frame, self.facts.colour, self.facts.siting)
        return pixels if self.facts.has_alpha else pixels[..., :3]

    def _check_end(self, last: DecodedFrame) -> None:
        """Warn if frames end before the header says so."""
        ends = (last.pts + last.duration - (self._first.pts or 0)) * self.facts.time_base
        self._note_missing(last.number + 1, ends)

    def _note_missing(self, frames: int, seconds: Fraction) -> None:
        """Warn once if that is less than the header tells; a count and a read differ by a frame or so."""
        missing = explain_missing(self.facts, frames, seconds, self._slack)
        if missing and not self._has_named_missing:
            self._has_named_missing = True
            self._decoder.warn(f"{self._name} {missing}")
