"""Where the frames of a clip go: segments of a file, numbered images, or a pipe."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mambair_cli.checkpoints.select import PictureKind
from mambair_cli.restore.restorer import Restorer
from mambair_cli.runs import clip_segments
from mambair_cli.runs.clip_frames import FRAMES_AHEAD, Counter, RestoredFrame, read_ahead, restore_frames
from mambair_cli.runs.clip_images import check_image, check_images, refuse_inputs, settle_rest
from mambair_cli.runs.clip_segments import SegmentEncoder, encode_in_segments
from mambair_cli.runs.clip_sharing import ClipForWorkers, DoneFrames, SegmentWorkers, share_clip
from mambair_cli.runs.in_order import results_in_order
from mambair_cli.runs.result_guard import ResultGuard
from mambair_cli.runs.stamps import stamp_of
from mambair_cli.runs.unfinished_clip import LeftOver, UnfinishedClip, count_finished, find_left_over
from mambair_cli.system.atomic import new_temporary
from mambair_cli.system.files import is_stream
from mambair_cli.system.process import count_processors
from mambair_cli.system.wording import show, show_count
from mambair_cli.video import (
    Clip,
    ClipFacts,
    NumberedFrames,
    RawInput,
    UprightFrames,
    VideoFrame,
    VideoOptions,
    Yuv4MpegWriter,
    explain_times,
    is_pattern,
    join_segments,
    write_frame,
    write_raw,
)
from mambair_cli.video.segments import read_times

_THREADS = 3  # that write images


@dataclass(frozen=True)
class ClipResult:
    """The result of a clip.

    Attributes:
        target: A file, or numbered images; None for standard output.
        options: How frames are encoded; None for images and pipes.
        settings: SHA-256 of all that it depends on except the clip.
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


@dataclass(frozen=True)
class Written:
    """What a writer has done.

    Attributes:
        resumed: Number of frames that an earlier run has made.
        left_out: Sentences about what the result cannot hold, and what stays next to it.
    """

    resumed: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Writing:
    """A clip that is to be written.

    Attributes:
        clip: The clip.
        result: Its result.
        restorer: Restores frames.
        size: Height and width of a result.
        counter: Counts frames.
        guard: Guard of the result; None for standard output.
        resume: Whether to go on with what an earlier run has left.
        overwrite: Whether a file may be replaced.
        notify: Called with a sentence that the user should read.
        images_before: Number of images that a result has which is replaced, and is known to be ours.
        sharing: Makes what workers need of the clip, where they may restore whole segments.
    """

    clip: Clip | NumberedFrames
    result: ClipResult
    restorer: Restorer
    size: tuple[int, int]
    counter: Counter
    guard: ResultGuard | None
    resume: bool
    overwrite: bool
    notify: Callable[[str], None]
    images_before: int = 0
    sharing: "WorkersForClip | None" = None

    @property
    def place(self) -> tuple[Path, ResultGuard]:
        """The target, which is not standard output, and its guard."""
        if self.result.target is None or self.guard is None:
            raise ValueError("standard output has no path")
        return self.result.target, self.guard


@dataclass(frozen=True)
class WorkersForClip:
    """Workers for the segments of a clip, and how they read it.

    Attributes:
        workers: The workers.
        kind: Kind of its pictures, where that has a model of its own.
        rate: Frames a second of images; None for 25.
        deinterlace: Whether to make whole frames of interlaced ones.
    """

    workers: SegmentWorkers
    kind: PictureKind | None
    rate: Fraction | None
    deinterlace: bool


def choose_writer(target: Path | None) -> Callable[[Writing], Written]:
    """Return what writes to a target."""
    if target is None:
        return _write_to_pipe
    return _write_images if is_pattern(target) else _write_clip


def _write_clip(writing: Writing) -> Written:
    """Write the segments that are missing, and join all of them."""
    clip, result = writing.clip, writing.result
    target, guard = writing.place
    with UnfinishedClip(target, result.plan) as unfinished:
        _begin(unfinished, find_left_over(target, result.plan, writing.resume), target, writing)
        done = _count_done(unfinished)
        resumed = done.total
        if resumed:
            writing.notify(f"{show(target)}: going on after {show_count(resumed, 'frame')}")
            writing.counter.skip(resumed)
        order = _clip_for_workers(writing, resumed)
        if order is None or writing.sharing is None:
            last_duration = _write_segments(writing, unfinished, done)
        else:
            with share_clip(order, clip, unfinished, writing.counter, done) as shared:
                writing.sharing.workers.restore(shared)
            resumed, last_duration = resumed + shared.resumed, shared.last_duration
        source = result.source if result.source is not None and result.source.is_file() else None
        left_out = join_segments(
            unfinished.segments,
            source,
            target,
            clip.facts,
            last_duration=last_duration,
            overwrite=writing.overwrite,
            temporary=unfinished.folder / "joined",
            on_end=guard.end,
        )
    return Written(resumed, left_out)


def _begin(unfinished: UnfinishedClip, left: LeftOver, target: Path, writing: Writing) -> None:
    if left.is_other:
        writing.notify(begins_anew(target))  # before anything is removed
    unfinished.begin(left)


def begins_anew(target: Path) -> str:
    """Say that a run does not go on with what there is of a clip."""
    finished = count_finished(target)
    loss = f", without its {show_count(finished, 'finished frame')}" if finished else ""
    return f"{show(target)} was begun with other settings or from another clip; beginning anew{loss}"


def _count_done(unfinished: UnfinishedClip) -> DoneFrames:
    """Return which frames are in the segments that are there."""
    segments = [read_times(path) for path in unfinished.segments]
    if not segments:
        return DoneFrames()
    total = sum(len(each.pts) for each in segments)
    return DoneFrames(total, total - len(segments[-1].pts), segments[-1].mark)


def _clip_for_workers(writing: Writing, done: int) -> ClipForWorkers | None:
    """Return what workers need of the clip; None where they would not be faster, or cannot open it again.

    A few segments would leave some of the workers idle. Processors do better with tiles of the same frame; to
    a GPU these come too slowly.
    """
    result, sharing, facts = writing.result, writing.sharing, writing.clip.facts
    if sharing is None or result.source is None or is_stream(result.source) or result.options is None:
        return None
    length = clip_segments.SEGMENT_FRAMES
    are_few = facts.frames is not None and facts.frames - done <= length * (sharing.workers.count - 1)
    if are_few and not sharing.workers.are_gpus:
        return None
    return ClipForWorkers(
        result.source,
        stamp_of(result.source) if result.source.is_file() else None,
        sharing.rate,
        sharing.deinterlace,
        facts,
        result.options,
        sharing.kind,
        writing.size,
        length,
        max(1, min(clip_segments.CONVERTERS, count_processors() // sharing.workers.count)),
    )


def _write_segments(writing: Writing, unfinished: UnfinishedClip, done: DoneFrames) -> int:
    """Restore frames, and encode them in segments.

    Args:
        writing: What is written.
        unfinished: The segments.
        done: Frames that are done.

    Returns:
        How long the last frame is shown, in ticks.
    """
    clip, options, length = writing.clip, writing.result.options, clip_segments.SEGMENT_FRAMES
    _, guard = writing.place
    assert options is not None

    def finish(number: int) -> None:
        guard.check()
        unfinished.add()

    with read_ahead(clip.frames(done.start, done.mark)) as frames:
        last = next(frames)
        for frame in islice(frames, max(0, done.read_again - 1)):
            last = frame
        waiting = frames if done.total else chain([last], frames)
        encoded = encode_in_segments(
            restore_frames(waiting, writing.restorer, writing.size, length),
            SegmentEncoder(unfinished.path_of, length, clip.facts, options),
            finish,
        )
        with closing(encoded):
            for each in encoded:
                last = each.frame
                writing.counter.add(each.is_repeated)
    return last.duration


def _write_images(writing: Writing) -> Written:
    """Write each frame to a file of its own."""
    clip, result = writing.clip, writing.result
    target, guard = writing.place
    upright, lengths = UprightFrames(clip.facts), _Lengths()
    refuse_inputs(target, clip)
    with UnfinishedClip(target, result.plan) as unfinished:
        left = find_left_over(target, result.plan, writing.resume)
        done, begun, resumed = left.images_done, left.images_begun, left.count_images(target)
        if not writing.overwrite:
            check_images(target, begun, clip.facts)
        _begin(unfinished, left, target, writing)
        if resumed:
            writing.notify(f"{show(target)}: going on after {show_count(resumed, 'frame')}")
            writing.counter.skip(resumed)

        def begin(restored: Iterator[RestoredFrame]) -> Iterator[RestoredFrame]:
            for each in restored:
                number = each.frame.number
                if number >= begun:
                    if not writing.overwrite:
                        check_image(target, number)
                    unfinished.begin_image()
                yield each

        def write(each: RestoredFrame) -> None:
            number, bits = each.frame.number, clip.facts.bits
            replaces = writing.overwrite or number < begun
            write_frame(
                target,
                number,
                upright.turn(each.pixels),
                bits=bits,
                quality=result.quality,
                overwrite=replaces,
                temporary=new_temporary(unfinished.folder),  # where the next run removes it
            )

        # The last one that is done is read again: there may be none after it.
        with read_ahead(clip.frames(max(0, resumed - 1))) as frames:
            if resumed:
                next(frames)
            with (
                closing(restore_frames(frames, writing.restorer, writing.size)) as restored,
                ThreadPoolExecutor(_THREADS, "mambair-write") as threads,
                closing(results_in_order(begin(restored), threads, write, FRAMES_AHEAD)) as written,
            ):
                for each, _ in written:
                    if each.frame.number >= done:
                        unfinished.finish_image()
                    writing.counter.add(each.is_repeated)
                    lengths.add(each.frame)
        frames = writing.counter.frames
        guard.end(target, frames)
        rest = settle_rest(target, clip, frames, writing.images_before)
    return Written(resumed, [*lengths.explain(clip.facts, target), *rest])


def _write_to_pipe(writing: Writing) -> Written:
    """Write frames to standard output: raw ones where raw ones came, else YUV4MPEG."""
    clip, stream = writing.clip, sys.stdout.buffer
    writer, lengths = Yuv4MpegWriter(stream, clip.facts), _Lengths()

    def write(each: RestoredFrame) -> None:
        if writing.result.raw is None:
            writer.write(each.pixels)
        else:
            write_raw(stream, each.pixels, clip.facts.bits)
        stream.flush()

    with (
        read_ahead(clip.frames()) as frames,
        closing(restore_frames(frames, writing.restorer, writing.size)) as restored,
        ThreadPoolExecutor(1, "mambair-write") as thread,
        closing(results_in_order(restored, thread, write, FRAMES_AHEAD)) as written,
    ):
        for each, _ in written:
            writing.counter.add(each.is_repeated)
            lengths.add(each.frame)
    return Written(0, [] if writing.result.raw else lengths.explain(clip.facts, None))


class _Lengths:
    """Whether frames last differently long, where that is not known before all are read."""

    def __init__(self) -> None:
        self._least: int | None = None
        self._most = self._last = 0  # the last frame may be shorter

    def add(self, frame: VideoFrame) -> None:
        """Look at a frame."""
        if self._last:
            self._least = min(self._least or self._last, self._last)
            self._most = max(self._most, self._last)
        self._last = frame.duration

    def explain(self, facts: ClipFacts, target: Path | None) -> list[str]:
        """Return a sentence about it, unless facts have it or all frames last as long, up to a tick."""
        varies = facts.variable is None and self._least is not None and self._most - self._least > 1
        return [explain_times(target)] if varies else []
