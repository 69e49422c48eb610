"""Segments of a clip: encoded one by one, joined without a loss at the end.

A segment is a Matroska file of pictures only. Matroska counts milliseconds, too coarse for most clips, so one
of them stands for one tick here; the length of a tick and the time of the first frame are tags of the file.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from mambair_cli.errors import ImageError, VideoError
from mambair_cli.system.file_errors import explain_unwritable
from mambair_cli.system.files import open_atomic
from mambair_cli.system.priority import kept_priority
from mambair_cli.system.wording import show
from mambair_cli.video.codecs import CODECS, VideoOptions
from mambair_cli.video.encoders import encoder_options
from mambair_cli.video.facts import FIELD_ORDERS, ClipFacts
from mambair_cli.video.ffmpeg import first_line, import_av
from mambair_cli.video.fields import mark_fields
from mambair_cli.video.frames import FrameMark
from mambair_cli.video.pixels import rgb_to_frame, tags_for_layout

_LONG_BEFORE = 2**40  # ticks
_TICK = Fraction(1, 1000)  # of Matroska
_TIME_BASE_TAG = "MAMBAIR_TIME_BASE"
_FIRST_TAG = "MAMBAIR_FIRST_PTS"
_MARK_TAG = "MAMBAIR_FIRST_MARK"  # length and checksum of the source's frame


class _AbandonedError(Exception):
    """A segment is not finished."""


class _Output:
    """The file of a segment, as PyAV writes it: an error of the system is kept until it can be raised.

    PyAV would print an error that a call from FFmpeg raises, with its traceback, and go on.

    Args:
        file: The file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write, unless an earlier call has failed."""
        if self._error is None:
            try:
                return self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, which may write what is buffered."""
        if self._error is None:
            try:
                return self._file.seek(offset, whence)
            except OSError as error:
                self._error = error
        return offset

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell() if self._error is None else 0

    def settle(self) -> None:
        """Raise the error that was kept, if there is one."""
        if self._error is not None:
            raise self._error


class SegmentWriter:
    """Encodes frames to a file that appears when it is complete, or never.

    The encoder starts anew with each segment, so a segment depends on its own frames only, to the byte.

    Args:
        path: The file.
        facts: The source: its times, colours and the shape of its pixels are those of the result.
        options: How frames are encoded.
        mark: Mark of the source's frame that comes first; None where it has none.
        overwrite: Whether to replace an existing file.

    Attributes:
        frames: Number of frames written.
    """

    def __init__(
        self,
        path: Path,
        facts: ClipFacts,
        options: VideoOptions,
        *,
        mark: FrameMark | None = None,
        overwrite: bool = True,
    ) -> None:
        self.frames = 0
        self._path = path
        self._facts = facts
        self._options = options
        self._mark, self._overwrite = mark, overwrite
        self._files = ExitStack()
        self._container: Any = None
        self._output: Any = None
        self._stream: Any = None
        self._fields: Any = None
        self._last_pts = self._first_pts = self._packets = 0

    def __enter__(self) -> "SegmentWriter":
        with ExitStack() as files:
            opened = open_atomic(self._path, overwrite=self._overwrite)
            self._output = _Output(files.enter_context(opened))
            # Times before the first frame's are only those of decoding, which Matroska does not store.
            self._container = import_av().open(
                self._output, "w", format="matroska", options={"avoid_negative_ts": "disabled"}
            )
            self._files = files.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            # A full disk does not let the file be closed either; the first error tells it.
            with suppress(_AbandonedError, ImageError), self._files:
                with suppress(OSError, import_av().FFmpegError):
                    self._container.close()
                raise _AbandonedError  # the file is given up, whatever the error
            return
        with self._files:
            if self._stream is None:
                raise VideoError(f"cannot write {show(self._path)}: it has no frames; write one at least")
            with explained(self._path):
                self._mux(self._stream.encode(None))
                self._container.close()
                self._output.settle()

    def write(self, pixels: np.ndarray, pts: int, duration: int) -> None:
        """Encode a frame.

        Args:
            pixels: (h, w, 3 or 4) R'G'B' with or without straight alpha, float32 in [0, 1].
            pts: Time at which it is shown, in ticks of the source, later than that of the one before.
            duration: How long it is shown, in ticks.

        Raises:
            VideoError: FFmpeg cannot encode it.
            ImageError: The system refuses to write; the disk is full, for example.
        """
        self.encode(convert_frame(pixels, self._facts, self._options), pts, duration)

    def encode(self, frame: Any, pts: int, duration: int) -> None:
        """Encode a frame of :func:`convert_frame`; see :meth:`write`."""
        if self._stream is not None and pts <= self._last_pts:
            raise ValueError(f"frames come in their order: {pts} is not after {self._last_pts}")
        with explained(self._path):
            stream = self._stream or self._begin(frame.width, frame.height, pts)
            frame.pts, frame.time_base, frame.duration = pts, self._facts.time_base, duration
            if self._options.fields:
                frame = self._mark_fields(frame)
            with nullcontext() if self.frames else kept_priority():  # the first frame opens the encoder
                packets = stream.encode(frame)
            self._mux(packets)
            self._output.settle()
        self._last_pts = pts
        self.frames += 1

    def _mark_fields(self, frame: Any) -> Any:
        """Return a frame that says which of its fields is shown first."""
        if self._fields is None:
            self._fields = mark_fields(frame, self._facts, self._options.fields)
        self._fields.push(frame)
        return self._fields.pull()

    def _begin(self, width: int, height: int, pts: int) -> Any:
        facts, options = self._facts, self._options
        self._first_pts = pts
        tags = tags_for_layout(facts.colour, options.layout, (width, height))
        # SVT-AV1 prints to the terminal unless its own variable forbids it.
        os.environ.setdefault("SVT_LOG", "1")
        values, threads = encoder_options(options, tags, facts.mastering, facts.light_level, (width, height))
        stream = self._container.add_stream(
            CODECS[options.codec].encoder, rate=facts.frame_rate, options=values, time_base=facts.time_base
        )
        stream.width, stream.height, stream.pix_fmt = width, height, options.pixel_format
        context = stream.codec_context
        context.thread_count = threads
        context.colorspace, context.color_range = tags.matrix, tags.range
        context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        context.sample_aspect_ratio = facts.pixel_aspect
        if options.fields:
            context.flags |= import_av().codec.context.Flags.interlaced_dct
            context.flags |= import_av().codec.context.Flags.interlaced_me
            context.field_order = FIELD_ORDERS.index("tt" if options.fields == "tff" else "bb")
        if facts.display_matrix is not None:
            stream.set_display_matrix(facts.display_matrix)
        self._container.metadata[_TIME_BASE_TAG] = str(facts.time_base)
        self._container.metadata[_FIRST_TAG] = str(pts)
        if self._mark is not None:
            self._container.metadata[_MARK_TAG] = f"{self._mark.duration} {self._mark.checksum}"
        self._stream = stream
        return stream

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.pts -= self._first_pts
            # Matroska does not store when a packet is decoded, and what x265 tells of it is sometimes wrong
            # for a segment of few frames. FFmpeg only wants times that rise and are early enough.
            packet.dts = self._packets - _LONG_BEFORE
            packet.time_base = _TICK
            self._packets += 1
            self._container.mux(packet)


def convert_frame(pixels: np.ndarray, facts: ClipFacts, options: VideoOptions) -> Any:
    """Convert a frame to what an encoder takes; several threads may do so at once.

    Args:
        pixels: (h, w, 3 or 4) R'G'B' with or without straight alpha, float32 in [0, 1].
        facts: The source, whose colours are those of the result.
        options: How frames are encoded.

    Returns:
        Frame of PyAV, for :meth:`SegmentWriter.encode`.
    """
    tags = tags_for_layout(facts.colour, options.layout, (pixels.shape[1], pixels.shape[0]))
    is_same = pixels.shape[:2] == (facts.height, facts.width) and options.layout.factors == facts.chroma
    return rgb_to_frame(pixels, options.layout, tags, options.siting, inverts=is_same)


@dataclass(frozen=True)
class SegmentTimes:
    """Times of a segment's packets, in the order of the file, in ticks of the source.

    Attributes:
        time_base: Length of a tick, in seconds.
        first: Time of the first frame.
        pts: Time of each packet's frame.
        mark: Mark of the source's frame that comes first; None where the segment does not tell it.
    """

    time_base: Fraction
    first: int
    pts: tuple[int, ...]
    mark: FrameMark | None = None


class SegmentReader:
    """A segment that is read: its packets, as they are.

    Attributes:
        stream: Its stream of PyAV.
        time_base: Length of a tick, in seconds.
        first: Time of the first frame, in ticks.
        mark: Mark of the source's frame that comes first; None in segments of earlier versions.

    Raises:
        VideoError: It is no segment, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with ExitStack() as opened:
                self._container = opened.enter_context(import_av().open(f"file:{path}"))
                self.stream = self._container.streams.video[0]
                self.time_base = Fraction(self._container.metadata[_TIME_BASE_TAG])
                self.first = int(self._container.metadata[_FIRST_TAG])
                stated = self._container.metadata.get(_MARK_TAG)
                length, checksum = map(int, stated.split()) if stated else (0, 0)
                self.mark = FrameMark(self.first, length, checksum) if stated else None
                opened.pop_all()
        except (import_av().FFmpegError, KeyError, IndexError, ValueError, ZeroDivisionError) as error:
            raise self._explain(error) from error

    def __enter__(self) -> "SegmentReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def packets(self) -> Iterator[tuple[Any, int]]:
        """Yield packets, each with the time at which its frame is shown, in ticks."""
        packets = self._container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except import_av().FFmpegError as error:
                raise self._explain(error) from error
            if packet is None:
                return
            if packet.size:
                yield packet, self.first + packet.pts

    def _explain(self, error: Exception) -> VideoError:
        reason = first_line(error) if isinstance(error, import_av().FFmpegError) else "it is no segment"
        return VideoError(
            f"cannot read the segment {show(self._path)}: {reason}; delete it and make it again"
        )


def read_times(path: Path) -> SegmentTimes:
    """Read the times of a segment's packets; nothing is decoded."""
    with SegmentReader(path) as segment:
        times = tuple(pts for _, pts in segment.packets())
        return SegmentTimes(segment.time_base, segment.first, times, segment.mark)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say in a line why FFmpeg, or the system, cannot write a file."""
    av = import_av()
    try:
        yield
    except OSError as error:
        raise explain_unwritable(path, error) from error
    except av.FFmpegError as error:
        raise VideoError(
            f"cannot write {show(path)}: {first_line(error)}; another codec, preset or container may work"
        ) from error
