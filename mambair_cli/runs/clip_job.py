"""One clip on its way through a run: a model and an encoder are chosen, its frames restored and written."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from mambair_cli.checkpoints.select import find_kind
from mambair_cli.errors import ImageError
from mambair_cli.inspection.need import Need
from mambair_cli.restore.restorer import Restorer
from mambair_cli.runs.clip_frames import Counter, OnFrame
from mambair_cli.runs.clip_plan import ClipJob, ClipWay, choose_way, decide_clip, shown_size, tell_losses
from mambair_cli.runs.clip_sharing import SegmentWorkers
from mambair_cli.runs.clip_writers import WorkersForClip, Writing, Written, choose_writer
from mambair_cli.runs.journal import Journal
from mambair_cli.runs.policy import Action
from mambair_cli.runs.record import Record
from mambair_cli.runs.result_guard import ResultGuard
from mambair_cli.system.file_errors import lacks_space
from mambair_cli.system.memory import is_out_of_memory
from mambair_cli.system.new_folders import removing_empty
from mambair_cli.system.wording import show
from mambair_cli.video import ClipFacts, VideoOptions, open_clip

OnClip = Callable[[ClipFacts, Restorer, Need | None, VideoOptions | None], None]
"""Called with a clip, the restorer, what was seen, and how frames are encoded, if they are."""


@dataclass(frozen=True)
class ClipOutcome:
    """What became of a clip.

    Attributes:
        job: The job.
        model: Name of the model that restored it.
        need: What was seen of it, and what it needs; None where nobody looked.
        width: Width of a frame of the result, in pixels.
        height: Height of a frame of the result, in pixels.
        frames: Number of frames.
        repeated: Number of those that are equal to the one before, and were not computed again.
        resumed: Number of those that an earlier run has made.
        options: How they are encoded; None where they are images, or go into a pipe.
        seconds: Time that it took.
        warnings: Sentences about what is damaged, and what was left out.
        sha256: SHA-256 of the result, if it was asked for; of numbered images, that of their hashes.
    """

    job: ClipJob
    model: str
    need: Need | None
    width: int
    height: int
    frames: int
    repeated: int
    resumed: int
    options: VideoOptions | None
    seconds: float
    warnings: tuple[str, ...]
    sha256: str | None = None


def restore_clip(
    job: ClipJob,
    restorer: Restorer,
    on_start: OnClip = lambda facts, restorer, need, options: None,
    on_frame: OnFrame = lambda done, all_frames, resumed: None,
    notify: Callable[[str], None] = lambda sentence: None,
    workers: SegmentWorkers | None = None,
) -> ClipOutcome | None:
    """Restore a clip.

    Args:
        job: The clip.
        restorer: The restorer, or one that chooses among several models.
        on_start: Called when the model and the encoder are chosen.
        on_frame: Called with the progress.
        notify: Called with a sentence that the user should read.
        workers: Workers with the same models, which restore whole segments where the clip allows it.

    Returns:
        What became of it; None if an earlier run has done it.

    Raises:
        VideoError: The clip cannot be read, or the result not be encoded.
        ImageError: The result cannot be written.
        MemoryLimitError: The device does not hold even the smallest tile.
    """
    begun = time.perf_counter()
    source = sys.stdin.buffer if job.source is None else job.source
    with removing_empty([job.target.parent] if job.target else []), ExitStack() as opened:
        # First, since it may wait for another run, and the clip be replaced meanwhile.
        with _telling(job):
            journal, record, closed = _open_journal(job, opened, notify)
        before = _look(job)
        clip = opened.enter_context(
            open_clip(source, rate=job.rate, raw=job.raw, deinterlace=job.deinterlace)
        )
        way = choose_way(job, clip, restorer)
        counter = Counter(clip.facts.frames, on_frame)
        with _telling(job):
            action = decide_clip(job, way.result.settings, record, closed)
            if action is Action.SKIP:
                return None
            guard = _guard(job, journal, way.result.settings, before)
            on_start(clip.facts, way.restorer, way.need, way.result.options)
            writing = Writing(
                clip,
                way.result,
                way.restorer,
                way.size,
                counter,
                guard,
                resume=job.policy.resume,
                overwrite=action is Action.REPLACE,
                notify=notify,
                images_before=_count_images_before(job, record),
                sharing=_share(job, way, restorer, workers),
            )
            written = choose_writer(job.target)(writing)
    return _describe(job, way, writing, written, time.perf_counter() - begun)


def _count_images_before(job: ClipJob, record: Record | None) -> int:
    """Return how many images the result has that is to be replaced, if the journal knows each of them."""
    if record is None or job.target is None or not job.gives_images:
        return 0
    entry = record.entry_of(job.target)
    return (entry and entry.images) or 0


def _share(
    job: ClipJob, way: ClipWay, restorer: Restorer, workers: SegmentWorkers | None
) -> WorkersForClip | None:
    """Return what workers need to know of a clip; None where there are none."""
    if workers is None:
        return None
    kind = None if way.need is None else find_kind(way.need, restorer.others)
    return WorkersForClip(workers, kind, job.rate, job.deinterlace)


def _describe(job: ClipJob, way: ClipWay, writing: Writing, written: Written, seconds: float) -> ClipOutcome:
    """Describe what became of a clip."""
    options, counter, guard = way.result.options, writing.counter, writing.guard
    facts = writing.clip.facts
    height, width = shown_size(facts, way.size, options)
    return ClipOutcome(
        job,
        way.restorer.model.name,
        way.need,
        width=width,
        height=height,
        frames=counter.frames,
        repeated=counter.repeated,
        resumed=written.resumed,
        options=options,
        seconds=seconds,
        warnings=(*writing.clip.warnings, *tell_losses(job, facts, options), *written.left_out),
        sha256=guard and guard.sha256,
    )


def _open_journal(
    job: ClipJob, opened: ExitStack, notify: Callable[[str], None]
) -> tuple[Journal | None, Record | None, ImageError | None]:
    """Open the journal, where one is wanted and there is one.

    Returns:
        The journal, what it says, and why it cannot be kept; a journal that cannot be kept may be read.
    """
    folder, target = job.journal_folder, job.target
    if folder is None or target is None or not (job.policy.resume or job.policy.keep_journal):
        return None, None, None
    try:
        journal = Journal(folder, [target], notify)
    except ImageError as error:
        with suppress(OSError):
            return None, Record(folder), error
        return None, None, error
    opened.callback(journal.close)
    return journal, journal.record, None


def _look(job: ClipJob) -> os.stat_result | None:
    """Return what the system tells of a clip that is a file, before it is opened; None for others."""
    with suppress(OSError):  # an error follows when it is opened
        return job.source.stat() if job.source is not None and job.source.is_file() else None
    return None


def _guard(
    job: ClipJob, journal: Journal | None, settings: str, before: os.stat_result | None
) -> ResultGuard | None:
    """Return the guard of a result, which has looked at the clip; None for standard output.

    Raises:
        ImageError: The clip is not the one that was looked at before.
    """
    if job.target is None:
        return None
    source = None if before is None else job.source
    guard = ResultGuard(source, job.target, journal and journal.pen, settings, job.policy.digest)
    guard.look(before)
    return guard


@contextmanager
def _telling(job: ClipJob) -> Iterator[None]:
    """Say in a line why the system does not write, and what is kept."""
    try:
        yield
    except OSError as error:
        if is_out_of_memory(error):
            raise
        name = "standard output" if job.target is None else show(job.target)
        remedy = "free some space" if lacks_space(error) else "see to the folder"
        if job.target is None:
            remedy = "see to the program that reads it"
        raise ImageError(
            f"cannot write {name}: {error.strerror or error}; {remedy}"
            + ("" if job.target is None else ", and go on with --resume")
        ) from error
