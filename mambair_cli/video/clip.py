"""Clips as frames of R'G'B', one after another, from any frame on."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from mambair_cli.errors import VideoError
from mambair_cli.system.files import is_stream
from mambair_cli.system.wording import show
from mambair_cli.video.container import find_pictures, open_container
from mambair_cli.video.counted import CountedPipe, explain_rest
from mambair_cli.video.description import (
    count_packets,
    describe_clip,
    explain_missing,
    find_slack,
    tells_alpha,
)
from mambair_cli.video.facts import ClipFacts
from mambair_cli.video.ffmpeg import first_line, import_av
from mambair_cli.video.fields import TimedFrame, deinterlace
from mambair_cli.video.frames import DecodedFrame, FrameMark, RawInput, VideoFrame, has_mark, mark_frame
from mambair_cli.video.marked import MarkedReader
from mambair_cli.video.piped import PipedFrames
from mambair_cli.video.pixels import frame_to_rgb

_NEAR = 10  # frames; times that go back by more begin anew
_FRAMES_BEFORE = (3, 60, 600)  # the one to start with, attempt by attempt; deinterlacing needs two
_NEEDED_BEFORE = 2
_MOST_WARNINGS = 20

IsOver = Callable[[], bool]
"""Tells whether nobody wants the frames any more."""


class _OverError(Exception):
    """Nobody wants the survey any more."""


class Clip:
    """An open clip; see :func:`mambair_cli.video.opening.open_clip`.

    Attributes:
        facts: What the clip is.
        warnings: Sentences about what was damaged, which grow while frames are read.
    """

    def __init__(
        self, source: Path | BinaryIO, raw: RawInput | None, *, deinterlace: bool, threads: int
    ) -> None:
        self.warnings: list[str] = []
        self._name = show(source) if isinstance(source, Path) else "standard input"
        self._opened: BinaryIO | None = None
        if isinstance(source, Path) and is_stream(source):  # a pipe by name, which can be opened only once
            source = self._opened = source.open("rb")
        self._source: Path | BinaryIO | CountedPipe = source
        if not isinstance(source, Path) and not source.seekable():
            self._source = CountedPipe(source)
        self._raw = raw
        self._deinterlace = deinterlace
        self._threads = threads
        self._piped: PipedFrames | None = None
        self._is_doubtful = False  # whether frames may look otherwise when decoded from the beginning
        self._marked: MarkedReader | None = None
        try:
            self._container = self._open()
        except BaseException:
            if self._opened is not None:
                self._opened.close()
            raise
        try:
            self._stream = self._find_stream(self._container)
            self._decoded: Iterator[Any] = self._decode(self._container, self._stream)
            first = next(self._decoded, None)
            if first is None:
                raise VideoError(
                    f"cannot read {self._name}: no frame can be decoded; the clip may be cut off"
                )
            self._first = first
            self.facts = describe_clip(self._container, self._stream, first)
            if not isinstance(source, Path):
                self._piped = PipedFrames(self._number(chain([first], self._decoded), 0), self._name)
            self._slack = find_slack(self.facts, self._stream)
        except BaseException:
            self.close()
            raise

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
        self._container.close()
        if self._opened is not None:
            self._opened.close()

    def count(self) -> ClipFacts:
        """Read all packets, without decoding them, and tell the number of frames and whether times vary.

        Raises:
            VideoError: The clip is a pipe, which can be read only once.
        """
        if not isinstance(self._source, Path):
            raise VideoError(
                f"cannot count the frames of {self._name}: it is a pipe; save it to a file first"
            )
        with self._open() as container:
            number, times = 0, []
            with suppress(import_av().FFmpegError):
                for packet in container.demux(self._find_stream(container)):
                    if packet.size and not packet.is_discard:
                        number += 1
                        time = packet.dts if packet.pts is None else packet.pts
                        times += [] if time is None else [time]
        return count_packets(self.facts, number, times)

    def frames(self, start: int = 0, start_pts: int | None = None) -> Generator[VideoFrame]:
        """Yield frames in the order in which they are shown; the same ones whatever the start.

        Broken data does not end the clip: FFmpeg conceals it, and a warning tells the frame.

        Args:
            start: Number of the first frame.
            start_pts: Time of that frame, in ticks, if known: then the frames before it are not decoded
                one by one.

        Raises:
            VideoError: The clip is a pipe that was read before, or has no such frame.
        """
        with closing(self._read(start, start_pts)) as found:
            for shown in found:
                yield self._to_frame(shown)

    def first_frames(self) -> Iterator[VideoFrame]:
        """Yield frames to look at, which :meth:`frames` yields again, also if the clip is a pipe."""
        return self.frames() if self._piped is None else map(self._to_frame, self._piped.look())

    def survey(
        self, start: int = 0, start_pts: int | None = None, is_over: IsOver | None = None
    ) -> Generator[FrameMark]:
        """Yield a mark of each frame that :meth:`frames` yields, with the same warnings; none is converted.

        The other arguments and errors are those of :meth:`frames`.

        Args:
            start: Number of the first frame.
            start_pts: Time of that frame, in ticks, if known.
            is_over: Asked before each packet, also of frames before the first one; ends the survey if true.
        """
        with closing(self._read(start, start_pts, is_over)) as found, suppress(_OverError):
            for shown in found:
                yield mark_frame(shown, not self._is_doubtful)

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
            self._marked = MarkedReader(
                self._name, lambda start, mark: self._jump(start, mark.pts, mark), self._read
            )
        with closing(self._marked.frames(start, marks)) as found:
            for shown in found:
                yield self._to_frame(shown)

    def _read(
        self, start: int = 0, start_pts: int | None = None, is_over: IsOver | None = None
    ) -> Generator[DecodedFrame]:
        """Yield frames that are not converted; see :meth:`frames`."""
        if self._piped is not None:
            yield from self._some(self._piped.read(start), start)
            return
        if start and start_pts is not None:
            found = self._jump(start, start_pts, None, is_over)
            first = next(found, None)
            if first is not None:
                self._is_doubtful = True
                yield first
                yield from found
                return
        self._is_doubtful = False
        with self._open() as container:
            decoded = self._decode(container, self._find_stream(container), is_over)
            last = yield from self._some(self._number(decoded, start), start)
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
        """Return the frame that is shown at a time; the last one for times after the end.

        Its number is an estimate where times vary.

        Args:
            time: Seconds since the first frame.

        Raises:
            VideoError: The clip is a pipe, or no frame can be decoded there.
        """
        if not isinstance(self._source, Path):
            raise VideoError(f"cannot look into {self._name}: it is a pipe; save it to a file first")
        first = self._first.pts or 0
        wanted = first + int(max(Fraction(0), time) / self.facts.time_base)
        for target in (wanted - _FRAMES_BEFORE[0] * self.facts.ticks_per_frame, first):
            with self._open() as container:
                stream = self._find_stream(container)
                with suppress(import_av().FFmpegError):
                    container.seek(target, stream=stream, backward=True)
                shown = None
                for frame, pts, duration, is_corrupt in self._settle(self._decode(container, stream)):
                    if pts is None or (pts > wanted and shown is not None):
                        break
                    shown = (frame, pts, duration, is_corrupt)
            # A jump that leads behind the time is made again from the first frame.
            if shown is not None and (shown[1] <= wanted or target == first):
                frame, pts, duration, is_corrupt = shown
                usual = self.facts.ticks_per_frame
                number, frame = round((pts - first) / usual), self._fit(frame)
                return self._to_frame(DecodedFrame(number, pts, duration or usual, frame, is_corrupt))
        raise VideoError(f"cannot read {self._name} at {float(time):g} s: no frame can be decoded there")

    def _jump(
        self, start: int, start_pts: int, mark: FrameMark | None = None, is_over: IsOver | None = None
    ) -> Generator[DecodedFrame]:
        """Yield frames from a time on, by a jump; none if no jump leads before that very frame.

        With a mark, none either if the jump leads to the beginning: a reader that is open may be ahead.
        """
        av = import_av()
        needed = min(start, _NEEDED_BEFORE) if self._deinterlace else 0
        for distance in _FRAMES_BEFORE:
            with self._open() as container:
                stream = self._find_stream(container)
                try:
                    before = start_pts - distance * self.facts.ticks_per_frame
                    container.seek(before, stream=stream, backward=True)
                except av.FFmpegError:
                    continue
                decoded = self._decode(container, stream, is_over)
                first = next(decoded, None)
                if mark is not None and first is not None and first.pts == self._first.pts:
                    return
                decoded = iter(()) if first is None else chain([first], decoded)
                found = self._number(decoded, start, start_pts, needed)
                last = next(found, None)
                if last is None or (mark is not None and not has_mark(last, mark)):
                    continue
                yield last
                for last in found:
                    yield last
                self._check_end(last)
                return

    def _open(self) -> Any:
        return open_container(self._source, self._raw, self._name)

    def _find_stream(self, container: Any) -> Any:
        return find_pictures(container, self._name, self._threads)

    def _decode(self, container: Any, stream: Any, is_over: IsOver | None = None) -> Iterator[Any]:
        """Yield frames of FFmpeg; broken data is noted, never the end."""
        av = import_av()
        decoder = stream.codec_context
        alpha = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(decoder.name)
        if alpha and tells_alpha(stream.metadata):  # FFmpeg's own decoders leave it out
            decoder = av.CodecContext.create(alpha, "r")
        packets, end, least = container.demux(stream), 0, self._raw.bytes if self._raw else 1
        while True:
            if is_over is not None and is_over():
                raise _OverError
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                self._is_doubtful = True
                self._warn(f"{self._name} cannot be read to its end: {first_line(error)}")
                packet = None
            # The last packet is empty and has no time; others that are empty repeat a frame.
            is_last = packet is None or (not packet.size and packet.dts is None)
            if packet is not None and packet.size < least and not is_last:
                continue
            if packet is not None and packet.size and packet.pos is not None:
                end = packet.pos + packet.size
            try:
                for frame in decoder.decode(None if is_last else packet):
                    self._is_doubtful |= frame.is_corrupt
                    yield frame
            except av.EOFError:
                return
            except av.FFmpegError as error:
                self._is_doubtful = True
                self._warn(f"part of {self._name} is broken: {first_line(error)}")
            if is_last:
                if rest := explain_rest(self._source, container, end, self._raw):
                    self._warn(f"{self._name} {rest}")
                return

    def _number(
        self, frames: Iterator[Any], start: int, start_pts: int | None = None, needed: int = 0
    ) -> Iterator[DecodedFrame]:
        """Give frames numbers and times, and yield those from a number on.

        Args:
            frames: Frames of FFmpeg, from the first one of the clip or from any one before the start.
            start: Number of the first frame to yield.
            start_pts: Its time, if the frames do not begin with the first one. Nothing is yielded if no
                frame has that time.
            needed: Least number of frames before it.
        """
        number, held, usual = 0, None, self.facts.ticks_per_frame
        is_counted = start_pts is None
        # A frame lasts until the next one; its own length is often that of another, by the order of decoding.
        for frame, pts, duration, is_corrupt in chain(self._settle(frames), [(None, None, 0, False)]):
            if held is not None:
                before, shown, own, was_corrupt = held
                if frame is None:
                    lasts = own or usual
                elif pts is None:
                    pts = shown + (own or usual)
                    lasts = pts - shown
                elif pts <= shown:
                    self._warn(f"times of frames in {self._name} go backwards at frame {number + 1}")
                    pts = shown + (1 if shown - pts < _NEAR * usual else usual)
                    lasts = pts - shown
                else:
                    lasts = pts - shown
                if start_pts is not None and not is_counted and shown >= start_pts:
                    if shown > start_pts or number < needed:
                        return
                    number, is_counted = start, True
                if is_counted and number >= start:
                    if was_corrupt:
                        self._warn(f"frame {number} of {self._name} is broken; what is missing is concealed")
                    yield DecodedFrame(number, shown, lasts, self._fit(before), was_corrupt)
                number += 1
            held = (frame, pts or 0, duration, is_corrupt)

    def _settle(self, frames: Iterator[Any]) -> Iterator[TimedFrame]:
        """Yield frames with their times; deinterlaced if asked for, one for each frame."""
        if self._deinterlace:
            return deinterlace(frames, self.facts)
        return ((frame, frame.pts, frame.duration, frame.is_corrupt) for frame in frames)

    def _to_frame(self, shown: DecodedFrame) -> VideoFrame:
        return VideoFrame(*shown[:3], self._to_rgb(shown.frame), shown.is_corrupt)

    def _fit(self, frame: Any) -> Any:
        """Return a frame in the size of the first one."""
        facts = self.facts
        if (frame.width, frame.height) != (facts.width, facts.height):
            self._warn(f"the size of frames changes in {self._name}; all get the size of the first")
            frame = frame.reformat(width=facts.width, height=facts.height, interpolation="BICUBIC")
        return frame

    def _to_rgb(self, frame: Any) -> np.ndarray:
        pixels = frame_to_rgb(frame, self.facts.colour, self.facts.siting)
        return pixels if self.facts.has_alpha else pixels[..., :3]

    def _check_end(self, last: DecodedFrame) -> None:
        """Warn if frames end before the header says so."""
        ends = (last.pts + last.duration - (self._first.pts or 0)) * self.facts.time_base
        if missing := explain_missing(self.facts, last.number + 1, ends, self._slack):
            self._warn(f"{self._name} {missing}")

    def _warn(self, sentence: str) -> None:
        if len(self.warnings) < _MOST_WARNINGS and sentence not in self.warnings:
            self.warnings.append(sentence)
