"""Where the frames of a clip go: segments of a file, numbered images, or a pipe."""

import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from mambair_cli.images.source import Source
from mambair_cli.runs.clip_frames import FRAMES_AHEAD, RestoredFrame, read_ahead
from mambair_cli.runs.clip_segments import SegmentEncoder
from mambair_cli.runs.in_order import results_in_order
from mambair_cli.runs.job_files import check_target
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.unfinished_clip import UnfinishedClip
from mambair_cli.system.files import show
from mambair_cli.video import (
    Clip,
    NumberedFrames,
    RawInput,
    VideoFrame,
    VideoOptions,
    Yuv4MpegWriter,
    convert_frame,
    is_pattern,
    join_segments,
    name_frame,
    write_frame,
    write_raw,
)
from mambair_cli.video.segments import read_times

_THREADS = 3  # that convert frames, or write images; one converts some thirty of 1080p a second

OnFrame = Callable[[int, int | None], None]
"""Called with the number of frames done and the number of all, if it is known, after every frame."""

Restore = Callable[[Iterator[VideoFrame]], Generator[RestoredFrame]]
"""Restores frames, in their order."""


@dataclass(frozen=True)
class ClipResult:
    """The result of a clip.

    Attributes:
        target: A file, or numbered images; None for standard output.
        options: How frames are encoded; None for images and pipes.
        settings: SHA-256 of all that it depends on besides the clip.
        plan: All that it depends on, as JSON.
        source: The clip, of which all but the pictures is copied; None for standard input.
        raw: Format of raw frames on standard input; None for a clip that tells its own.
        quality: Quality of images, 1 to 100; None for the usual one.
    """

    target: Path | None
    options: VideoOptions | None
    settings: str
    plan: dict[str, Any]
    source: Path | None
    raw: RawInput | None
    quality: int | None = None

    @property
    def place(self) -> Path:
        """The target, which is no pipe."""
        if self.target is None:
            raise ValueError("standard output has no path")
        return self.target


@dataclass(frozen=True)
class Written:
    """What a writer has done.

    Attributes:
        resumed: Number of frames that an earlier run has made.
        left_out: Sentences about what the container cannot hold.
    """

    resumed: int = 0
    left_out: list[str] = field(default_factory=list)


class Counter:
    """Counts the frames of a clip.

    Args:
        all_frames: Number of all, if it is known.
        on_frame: Called with the progress.

    Attributes:
        frames: Number of frames so far, those of an earlier run among them.
        repeated: Number of those that are equal to the one before.
    """

    def __init__(self, all_frames: int | None, on_frame: OnFrame) -> None:
        self.frames = self.repeated = 0
        self._all, self._on_frame = all_frames, on_frame

    def skip(self, frames: int) -> None:
        """Count frames that an earlier run has made."""
        self.frames += frames
        self._tell()

    def add(self, is_repeated: bool) -> None:
        """Count a frame."""
        self.frames += 1
        self.repeated += is_repeated
        self._tell()

    def _tell(self) -> None:
        self._on_frame(self.frames, None if self._all is None else max(self._all, self.frames))


@dataclass(frozen=True)
class Writing:
    """A clip that is to be written.

    Attributes:
        clip: The clip.
        result: Its result.
        restore: Restores frames.
        counter: Counts them.
        resume: Whether to go on with what an earlier run has left.
        overwrite: Whether a file may be replaced.
        notify: Called with a sentence that the user should read.
        finish: Called when the result is there, before what a later run would go on with is removed.
    """

    clip: Clip | NumberedFrames
    result: ClipResult
    restore: Restore
    counter: Counter
    resume: bool
    overwrite: bool
    notify: Callable[[str], None]
    finish: Callable[[], None]


def choose_writer(target: Path | None) -> Callable[[Writing], Written]:
    """Return what writes to a target."""
    if target is None:
        return _write_to_pipe
    return _write_images if is_pattern(target) else _write_clip


def _write_clip(writing: Writing) -> Written:
    """Write the segments that are missing, and join all of them."""
    clip, result = writing.clip, writing.result
    target = result.place
    check_target(Job(Source(result.source), target), writing.overwrite)
    with UnfinishedClip(target, result.plan) as unfinished:
        _begin(unfinished, target, writing)
        resumed, frames = _go_on(clip, unfinished)
        if resumed:
            writing.notify(f"{show(target)}: going on after {resumed} frames")
            writing.counter.skip(resumed)
        last = _write_segments(frames, writing, unfinished)
        source = result.source if result.source is not None and result.source.is_file() else None
        left_out = join_segments(
            unfinished.segments,
            source,
            target,
            clip.facts,
            last_duration=last.duration,
            overwrite=writing.overwrite,
            temporary=unfinished.folder / "joined",
        )
        writing.finish()
    return Written(resumed, left_out)


def _begin(unfinished: UnfinishedClip, target: Path, writing: Writing) -> None:
    if unfinished.begin(writing.resume):
        writing.notify(f"{show(target)} was begun with other settings or from another clip; beginning anew")


def _go_on(clip: Clip | NumberedFrames, unfinished: UnfinishedClip) -> tuple[int, Generator[VideoFrame]]:
    """Return how many frames are in the segments that are there, and the frames from the last of them on.

    That one is read again since it tells the time of those that follow.
    """
    if not unfinished.segments:
        return 0, clip.frames()
    times = [read_times(path).pts for path in unfinished.segments]
    frames = sum(map(len, times))
    return frames, clip.frames(frames - 1, max(times[-1]))


def _write_segments(
    frames: Generator[VideoFrame], writing: Writing, unfinished: UnfinishedClip
) -> VideoFrame:
    """Restore frames, and encode them in segments; return the last frame.

    Args:
        frames: Frames; after a resumed part the first of them is done.
        writing: What is written.
        unfinished: The segments.
    """
    facts, options = writing.clip.facts, writing.result.options
    assert options is not None
    with read_ahead(frames) as waiting:
        last = next(waiting)
        if not unfinished.segments:
            waiting = chain([last], waiting)
        with (
            closing(writing.restore(waiting)) as restored,
            SegmentEncoder(unfinished, facts, options) as segments,
            ThreadPoolExecutor(_THREADS, "mambair-convert") as converters,
            ThreadPoolExecutor(1, "mambair-encode") as encoder,
        ):
            converting = (
                (each, converters.submit(convert_frame, each.pixels, facts, options)) for each in restored
            )

            def encode(item: tuple[RestoredFrame, Future[Any]]) -> None:
                segments.add(item[0].frame, item[1])

            with closing(results_in_order(converting, encoder, encode, FRAMES_AHEAD)) as encoded:
                for (each, _), _ in encoded:
                    last = each.frame
                    writing.counter.add(each.is_repeated)
    return last


def _write_images(writing: Writing) -> Written:
    """Write each frame to a file of its own."""
    clip, result = writing.clip, writing.result
    target = result.place
    resumed = 0
    with UnfinishedClip(target, result.plan) as unfinished:
        _begin(unfinished, target, writing)
        done, begun = unfinished.images_done, unfinished.images_begun
        while resumed < done and name_frame(target, resumed).exists():
            resumed += 1
        if resumed:
            writing.notify(f"{show(target)}: going on after {resumed} frames")
            writing.counter.skip(resumed)

        def begin(restored: Iterator[RestoredFrame]) -> Iterator[RestoredFrame]:
            for each in restored:
                number = each.frame.number
                if number >= begun:
                    check_target(Job(Source(result.source), name_frame(target, number)), writing.overwrite)
                    unfinished.begin_image()
                yield each

        def write(each: RestoredFrame) -> None:
            number, bits = each.frame.number, clip.facts.bits
            replaces = writing.overwrite or number < begun
            write_frame(target, number, each.pixels, bits=bits, quality=result.quality, overwrite=replaces)

        # The last one that is done is read again: there may be none after it.
        with read_ahead(clip.frames(max(0, resumed - 1))) as frames:
            if resumed:
                next(frames)
            with (
                closing(writing.restore(frames)) as restored,
                ThreadPoolExecutor(_THREADS, "mambair-write") as threads,
                closing(results_in_order(begin(restored), threads, write, FRAMES_AHEAD)) as written,
            ):
                for each, _ in written:
                    if each.frame.number >= done:
                        unfinished.finish_image()
                    writing.counter.add(each.is_repeated)
        writing.finish()
    return Written(resumed)


def _write_to_pipe(writing: Writing) -> Written:
    """Write frames to standard output: raw ones where raw ones came, else YUV4MPEG."""
    clip, stream = writing.clip, sys.stdout.buffer
    writer = Yuv4MpegWriter(stream, clip.facts)

    def write(each: RestoredFrame) -> None:
        if writing.result.raw is None:
            writer.write(each.pixels)
        else:
            write_raw(stream, each.pixels, clip.facts.bits)
        stream.flush()

    with (
        read_ahead(clip.frames()) as frames,
        closing(writing.restore(frames)) as restored,
        ThreadPoolExecutor(1, "mambair-write") as thread,
        closing(results_in_order(restored, thread, write, FRAMES_AHEAD)) as written,
    ):
        for each, _ in written:
            writing.counter.add(each.is_repeated)
    writing.finish()
    return Written()
