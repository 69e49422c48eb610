"""One clip on its way through a run: a model and an encoder are chosen, its frames restored and written."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from mambair_cli.checkpoints.select import find_kind
from mambair_cli.errors import ImageError
from mambair_cli.inspection.clip import find_need_of_clip
from mambair_cli.inspection.need import Need
from mambair_cli.restore.restorer import Restorer
from mambair_cli.runs.clip_frames import Counter, OnFrame
from mambair_cli.runs.clip_segments import SEGMENT_FRAMES
from mambair_cli.runs.clip_sharing import SegmentWorkers
from mambair_cli.runs.clip_writers import ClipResult, WorkersForClip, Writing, choose_writer
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.journal import Journal, Record
from mambair_cli.runs.journal_entry import JournalEntry
from mambair_cli.runs.output_size import Size, keep_scale
from mambair_cli.runs.policy import explain_kept
from mambair_cli.runs.stamps import hash_result, stamp_of
from mambair_cli.system.files import hash_of, is_stream, lacks_space, show
from mambair_cli.system.memory import is_out_of_memory
from mambair_cli.system.new_folders import removing_empty
from mambair_cli.system.values import as_argument
from mambair_cli.video import (
    Clip,
    ClipFacts,
    NumberedFrames,
    RawInput,
    VideoOptions,
    choose_options,
    is_pattern,
    open_clip,
)

OnClip = Callable[[ClipFacts, Restorer, Need | None, VideoOptions | None], None]
"""Called with a clip, the restorer, what was seen, and how frames are encoded, if they are."""


@dataclass(frozen=True)
class ClipJob:
    """A clip to restore.

    Attributes:
        source: The clip: a file, numbered images such as ``frames/%06d.png``, or a folder of images; None for
            standard input.
        target: Where the result goes: a file whose suffix names the container, or numbered images; None for
            standard output.
        size: Size of the result that was asked for.
        codec: Codec of the result; None for the one that suits.
        quality: Quality of the result, 1 to 100; None for the default.
        deinterlace: Whether to make whole frames of interlaced ones.
        rate: Frames a second of images; None for 25.
        raw: Format of raw frames on standard input, which a result on standard output has, too; None for a
            clip that tells its own.
        overwrite: Whether to replace a file.
        resume: Whether to go on with what an earlier run has left, and to skip what it has finished.
        keep_journal: Whether to note a finished clip in the journal of its folder, for a run that resumes.
    """

    source: Path | None
    target: Path | None
    size: Size = field(default_factory=Size)
    codec: str | None = None
    quality: int | None = None
    deinterlace: bool = False
    rate: Fraction | None = None
    raw: RawInput | None = None
    overwrite: bool = False
    resume: bool = False
    keep_journal: bool = False

    @property
    def input(self) -> str:
        """Name of the clip, as the user gave it."""
        return "-" if self.source is None else as_argument(self.source)

    @property
    def output(self) -> str:
        """Name of the result."""
        return "-" if self.target is None else as_argument(self.target)


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
    with open_clip(source, rate=job.rate, raw=job.raw, deinterlace=job.deinterlace) as clip:
        chosen, need, size, result = choose_way(job, clip, restorer)
        with _telling(job), removing_empty([job.target.parent] if job.target else []), ExitStack() as opened:
            try:
                journal = _open_journal(job, opened, notify)
            except ImageError:
                if _was_done(job, result.settings):
                    return None
                raise
            if journal and job.resume and journal.is_done(result.settings):
                return None
            overwrite = job.overwrite or bool(job.resume and journal and journal.may_replace())
            on_start(clip.facts, chosen, need, result.options)
            counter = Counter(clip.facts.frames, on_frame)
            write = choose_writer(job.target)

            def finish() -> None:
                if journal:
                    journal.note(result.settings, counter.frames)

            kind = None if need is None else find_kind(need, restorer.others)
            sharing = WorkersForClip(workers, kind, job.rate, job.deinterlace) if workers else None
            policy = job.resume, overwrite, notify, finish
            written = write(Writing(clip, result, chosen, size, counter, *policy, sharing))
        notes = () if result.options is None else result.options.notes
        warnings = (*clip.warnings, *notes, *written.left_out)
    height, width = size
    counts = counter.frames, counter.repeated, written.resumed
    seconds = time.perf_counter() - begun
    return ClipOutcome(
        job, chosen.model.name, need, width, height, *counts, result.options, seconds, warnings
    )


def choose_way(
    job: ClipJob, clip: Clip | NumberedFrames, restorer: Restorer
) -> tuple[Restorer, Need | None, tuple[int, int], ClipResult]:
    """Choose the model and the encoder for a clip.

    Returns:
        The restorer, what was seen of the clip, height and width of the result, and the result.
    """
    facts, scale = clip.facts, restorer.info.scale
    need = find_need_of_clip(clip.first_frames()) if restorer.others else None
    chosen = (restorer if need is None else restorer.choose(need)).alone()
    size = job.size if chosen.info.scale == scale else keep_scale(job.size, scale)
    width, height = size.target(facts.width, facts.height, chosen.info.scale)
    options = None
    if job.target is not None and not is_pattern(job.target):
        options = choose_options(
            facts,
            job.target,
            size=(width, height),
            codec=job.codec,
            quality=job.quality,
            deinterlaced=job.deinterlace,
        )
    plan = {
        "schema": 1,
        "pixels": Fingerprint.of(chosen).digest(),
        "size": asdict(size),
        "options": options and _describe(options),
        "quality": None if options else job.quality,
        "deinterlace": job.deinterlace,
        "rate": job.rate and str(job.rate),
        "segment": SEGMENT_FRAMES,
    }
    settings = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    result = ClipResult(
        job.target,
        options,
        settings,
        {**plan, "source": _stamp(job.source, clip)},
        job.source,
        job.raw,
        job.quality,
    )
    return chosen, need, (height, width), result


def _describe(options: VideoOptions) -> dict[str, Any]:
    """Return options as JSON: no notes, which change nothing; plans of earlier versions have no fields."""
    described = {**asdict(options), "notes": ()}
    if not options.fields:
        del described["fields"]
    return described


def _stamp(source: Path | None, clip: Clip | NumberedFrames) -> Any:
    """Return what differs from clip to clip: size and time of the file, or of each image.

    The time of the folder of images would not do: a result in it changes that, too. Of a pipe, all that is
    known before is the form of its frames.
    """
    if isinstance(clip, NumberedFrames):
        stamps = [(path.name, *stamp_of(path)) for path in clip.paths]
        return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()
    if source is None or is_stream(source):
        facts = clip.facts
        return [facts.width, facts.height, facts.pixel_format, str(facts.frame_rate)]
    return list(stamp_of(source))


class _JobJournal:
    """The journal of the folder of a clip's result."""

    def __init__(self, source: Path, target: Path, notify: Callable[[str], None]) -> None:
        self._source, self._target, self._stamp = source, target, stamp_of(source)
        self._journal = Journal(target.parent, [target], notify)
        self.close = self._journal.close

    def is_done(self, settings: str) -> bool:
        """Tell whether an earlier run has made the result."""
        return self._journal.record.is_done(self._source, self._target, settings)

    def may_replace(self) -> bool:
        """Tell whether a run has written the file, or the images, that are there.

        Raises:
            ImageError: The file is none that a run has written, or somebody has changed it since.
        """
        refuse_other(self._journal.record, self._target)
        return self._journal.record.is_ours(self._target)

    def note(self, settings: str, frames: int) -> None:
        """Note that the result is finished, and how many frames it has."""
        images = frames if is_pattern(self._target) else None
        result, sha256 = stamp_of(self._target, images), hash_result(self._target, images)
        entry = JournalEntry(settings, hash_of(self._source), self._stamp, result, images, sha256)
        self._journal.pen.finish(self._target, entry)


def _open_journal(job: ClipJob, opened: ExitStack, notify: Callable[[str], None]) -> _JobJournal | None:
    """Open the journal, where one is wanted, and a file becomes a file or images."""
    if job.source is None or job.target is None or not job.source.is_file():
        return None
    if not (job.resume or job.keep_journal):
        return None
    journal = _JobJournal(job.source, job.target, notify)
    opened.callback(journal.close)
    return journal


def _was_done(job: ClipJob, settings: str) -> bool:
    """Tell whether an earlier run has made the result, where the journal can only be read."""
    if job.resume and job.source is not None and job.target is not None:
        with suppress(OSError):
            return Record(job.target.parent).is_done(job.source, job.target, settings)
    return False


def refuse_other(record: Record, target: Path) -> None:
    """Refuse to replace a file that is not what an earlier run has written.

    Args:
        record: What earlier runs have noted in the folder of the result.
        target: The result.

    Raises:
        ImageError: It is none that a run has written, or somebody has changed it since.
    """
    if (reason := explain_kept(target, record)) is not None:
        raise ImageError(reason)


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
