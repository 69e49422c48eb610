"""The run over jobs: which are to be done, what became of each, and the journal of it; knows no network."""

import os
import stat
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mambair_cli.errors import ImageError, MambairError
from mambair_cli.images import explain_unreadable
from mambair_cli.restore.tiling import Report
from mambair_cli.runs.job_files import Output, check_folder, check_target, make_folder
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.journal import Journal, JournalEntry, Pen, Record, Stamp, digest_settings, stamp_of
from mambair_cli.system.files import hash_of

if TYPE_CHECKING:
    from mambair_cli.restore.restorer import Restorer


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: The job.
        error: Why there is no result, or None.
        size: Width and height of the result in pixels; None without one.
        reduced: Whether the result was reduced from what the network gave.
        report: How it was computed; None without a result.
        seconds: From the first byte read to the last one written.
        is_skipped: Whether an earlier run had done it.
        peak_memory: Of the process that did it, in bytes, so far; None where that is not known.
        sha256: Of the result's file, if it was asked for.
        warnings: Sentences about what is not as it was to be, though there is a result.
        remarks: Sentences of a worker on another machine about how that computes.
    """

    job: Job
    error: MambairError | None
    size: tuple[int, int] | None
    reduced: bool
    report: Report | None
    seconds: float
    is_skipped: bool = False
    peak_memory: int | None = None
    sha256: str | None = None
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedJob:
    """A job, ready to be done by whoever has the network.

    Attributes:
        job: The job.
        output: How results are written.
        overwrite: Whether this result may replace what is there.
        watch: Looks after the result; None where a stream is read or written.
    """

    job: Job
    output: Output
    overwrite: bool
    watch: "ResultGuard | None"


IsStopped = Callable[[], bool]
"""Tells whether no further task is to begin; those in work come to their end."""

Perform = Callable[[Iterable[PreparedJob], IsStopped], Generator[Outcome]]
"""Does tasks, one after the other or side by side, and yields what became of each as it is known."""


def run_jobs(
    jobs: Sequence[Job],
    output: Output,
    settings: dict[str, Any],
    perform: Perform,
    fail_fast: bool = False,
    keep_journal: bool = False,
    notify: Callable[[str], None] = lambda sentence: None,
) -> Generator[Outcome]:
    """Restore images; one that fails costs itself alone.

    A run of several images, or over a folder, keeps a journal beside its results; see ``journal``.

    Args:
        jobs: From ``name_targets``.
        output: How the results are written.
        settings: From ``settings_of``.
        perform: Does the work.
        fail_fast: Whether to begin no further one once one has failed.
        keep_journal: Whether to do so for a single image, too: by it other machines know the folder.
        notify: Told in a sentence that another run is waited for.

    Yields:
        An outcome per job: first of those that an earlier run has done.
    """
    is_batch = keep_journal or output.resume or len(jobs) > 1 or any(job.source.folder for job in jobs)
    with ExitStack() as stack:
        journals, unwritable = _open_journals(jobs, stack, notify) if is_batch else ({}, {})
        tasks = []
        has_failed = False
        for job in jobs:
            start = time.perf_counter()
            journal = journals.get(job.root) if job.root else None
            record = journal.record if journal else None
            try:
                if job.root in unwritable and job.refusal is None:
                    raise ImageError(f"cannot write {job.place}: {unwritable[job.root]}")
                overwrite = settle_overwrite(job, output, record)
            except ImageError as error:
                yield Outcome(job, error, None, False, None, 0.0)
                has_failed = True
                continue
            watch = None
            if job.source.path is not None and job.target is not None:
                pen = journal.pen if journal else None
                word = word_of(job, settings)
                watch = ResultGuard(job.source.path, job.target, pen, word, output)
                if record and output.resume and record.is_done(job.source.path, job.target, word):
                    seconds = time.perf_counter() - start
                    yield Outcome(job, None, None, False, None, seconds, is_skipped=True)
                    continue
            tasks.append(PreparedJob(job, output, overwrite, watch))
        with closing(perform(tasks, lambda: has_failed and fail_fast)) as outcomes:
            for outcome in outcomes:
                has_failed = has_failed or outcome.error is not None
                yield outcome


def _open_journals(
    jobs: Iterable[Job], stack: ExitStack, notify: Callable[[str], None]
) -> tuple[dict[Path, Journal], dict[Path, ImageError]]:
    """Open the journals of all folders of results, and tell of those that cannot have one."""
    journals: dict[Path, Journal] = {}
    unwritable: dict[Path, ImageError] = {}
    targets: dict[Path, list[Path]] = {}
    for job in jobs:
        if job.root and job.target:
            targets.setdefault(job.root, []).append(job.target)
    for root in sorted(targets, key=os.path.realpath):  # in one order: runs wait for each other
        try:
            make_folder(root)
            journals[root] = Journal(root, targets[root], notify)
            stack.callback(journals[root].close)
        except ImageError as error:
            unwritable[root] = error
    return journals, unwritable


def settle_overwrite(job: Job, output: Output, record: Record | None) -> bool:
    """Tell whether the result of a job may replace what is there.

    Args:
        job: The job.
        output: How results are written.
        record: Of earlier runs over the folder, if there were any.

    Raises:
        ImageError: The job was refused, or would replace an input that no run is known to have written.
    """
    if job.refusal is not None:
        raise ImageError(job.refusal)
    if job.target is None or not (output.resume or job.replaces_input):
        return output.overwrite
    is_ours = record is not None and record.is_ours(job.target)
    if job.replaces_input and output.overwrite and not is_ours:
        raise ImageError(
            f"cannot write {job.target}: it is among the inputs, and no run is known to have written it; "
            "leave it out of them, or choose a folder with -o"
        )
    return output.overwrite or (output.resume and is_ours)


def foresee_failures(jobs: Sequence[Job], output: Output) -> list[Outcome] | None:
    """Find out whether all jobs fail whatever network does them; None where one may not.

    Names tell that, in no time. What fails beside others that do not is found in its turn.

    Args:
        jobs: From ``name_targets``.
        output: How results are written.
    """
    outcomes = []
    for job in jobs:
        try:
            if job.refusal is not None:
                raise ImageError(job.refusal)
            if job.source.path is not None:
                _look_at(job.source.path)
            if job.target is not None:
                check_target(job, output.overwrite or output.resume)
                check_folder(job.target)
        except ImageError as error:
            outcomes.append(Outcome(job, error, None, False, None, 0.0))
        else:
            return None
    return outcomes


def _look_at(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise explain_unreadable(path, error) from error


class ResultGuard:
    """Sees that a result is that of its input as it is now, and notes it in the journal, if there is one.

    Attributes:
        sha256: Of the result, when it is written and if it was asked for.
    """

    def __init__(self, source: Path, target: Path, pen: Pen | None, settings: str, output: Output) -> None:
        self.sha256: str | None = None
        self._source, self._target = source, target
        self._pen, self._settings, self._output = pen, settings, output
        self._is_file = True
        self._before: os.stat_result | None = None
        self._content = ""

    def look(self) -> None:
        """Look at the input, before it is read.

        Raises:
            ImageError: It cannot be read.
        """
        try:
            self._before = self._source.stat()
            self._is_file = stat.S_ISREG(self._before.st_mode)  # a pipe can be read once
            self._content = hash_of(self._source) if self._pen and self._is_file else ""
        except OSError as error:
            raise explain_unreadable(self._source, error) from error

    def begin(self, temporary: Path) -> None:
        """Note that the result is being written, under a name that means nothing yet."""
        if self._pen:
            self._pen.begin(self._target, temporary)

    def is_at_home(self) -> bool:
        """Tell whether this process sees the journal: on another machine the folder may be another one."""
        return self._pen is None or self._pen.parts.is_dir()

    def _meddled(self) -> ImageError:
        return ImageError(f"cannot restore {self._source}: it changed or vanished meanwhile; try it again")

    def is_written(self) -> bool:
        """Tell whether somebody has written the result since this run began."""
        return self._pen is not None and self._pen.has_written(self._target)

    def end(self, temporary: Path) -> None:
        """Look at the input again, and note the result, which is whole and has not got its name yet.

        Raises:
            ImageError: The input has changed or vanished.
        """
        before = self._before
        if before is None:
            raise ValueError("what has not begun cannot end")
        try:
            is_same = not self._is_file or stamp_of(self._source) == (before.st_size, before.st_mtime_ns)
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise self._meddled()
        if self._output.digest:
            self.sha256 = hash_of(temporary)
        if self._output.preserve_times:
            os.utime(temporary, ns=(before.st_atime_ns, before.st_mtime_ns))
        if self._pen:
            source = Stamp(before.st_size, before.st_mtime_ns)
            entry = JournalEntry(self._settings, self._content, source, stamp_of(temporary))
            self._pen.finish(self._target, entry)


def computing_of(restorer: "Restorer") -> dict[str, Any]:
    """Collect all that pixels depend on beside the image, and beside how it is written."""
    return {
        "weights": restorer.model.sha256 or hash_of(restorer.model.path),
        "device": restorer.device.type,
        "precision": restorer.precision,
        **computing_of_image(restorer),
    }


def computing_of_image(restorer: "Restorer") -> dict[str, Any]:
    """Collect what of that may differ from image to image where a network serves many."""
    strength = {} if restorer.strength == 1 else {"strength": restorer.strength}  # older journals have none
    return {**restorer.tiles.computing, "seed": restorer.seed, **strength}


def word_of(job: Job, settings: dict[str, Any]) -> str:
    """Put all that the pixels of a result depend on beside its input into one word."""
    return digest_settings({**settings, "format": job.format})


def settings_of(computing: dict[str, Any], output: Output) -> dict[str, Any]:
    """Add to what :func:`computing_of` says how results are written."""
    settings = {
        **computing,
        "quality": output.quality,
        "depth": output.depth,
        "strip": output.strip,
        "size": asdict(output.size),
    }
    # Journals that are older than an option do not have it: what was done without it stays done.
    return settings if output.background is None else {**settings, "background": output.background}
