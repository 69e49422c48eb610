"""The run over jobs: which of them are done, and what became of each; it knows no network."""

import os
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mambair_cli.errors import ImageError
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.job_files import WriteOptions, check_target, leave_out_unused
from mambair_cli.runs.jobs import Job, group_targets
from mambair_cli.runs.journal import Journal
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.policy import Action, RunPolicy, decide
from mambair_cli.runs.record import Record
from mambair_cli.runs.result_guard import ResultGuard
from mambair_cli.system.file_errors import explain_unreadable
from mambair_cli.system.new_folders import removing_empty
from mambair_cli.system.result_folders import check_folder, make_folder


@dataclass(frozen=True)
class PreparedJob:
    """A job with all that a process needs to do it; it can be pickled.

    Attributes:
        job: The job.
        output: How the result is written.
        policy: What the run may do.
        overwrite: Whether this result may replace a file.
        guard: Guard of the result; None where it goes to standard output or stays in memory.
    """

    job: Job
    output: WriteOptions = field(default_factory=WriteOptions)
    policy: RunPolicy = field(default_factory=RunPolicy)
    overwrite: bool = False
    guard: ResultGuard | None = None


class _ClosedFolder(NamedTuple):
    """A folder of results that cannot be written, why, and what earlier runs have noted, if that is known."""

    error: ImageError
    record: Record | None


IsStopped = Callable[[], bool]
"""Tells whether no further job is to begin; jobs that have begun are finished."""

Perform = Callable[[Iterable[PreparedJob], IsStopped], Generator[Outcome]]
"""Does jobs, in turn or several at once, and yields what became of each as soon as that is known."""


def run_jobs(
    jobs: Sequence[Job],
    output: WriteOptions,
    policy: RunPolicy,
    fingerprint: Fingerprint,
    perform: Perform,
    notify: Callable[[str], None] = lambda sentence: None,
    scale: int | None = None,
) -> Generator[Outcome]:
    """Restore images; one that fails does not stop the others.

    A run of several images, or over a folder, keeps a journal next to its results; see ``journal``.

    Args:
        jobs: Jobs, from ``name_targets``.
        output: How the results are written.
        policy: What the run may do.
        fingerprint: All that pixels depend on except the images.
        perform: Does the jobs.
        notify: Called with a sentence when the run waits for another one.
        scale: Scale of the network; None where it is unknown.

    Yields:
        An outcome per job; first those of jobs that an earlier run has done.
    """
    digest = cache(fingerprint.digest_result)  # there are few formats, and many jobs
    with ExitStack() as stack:
        places = (job.target.parent for job in jobs if job.target is not None)
        stack.enter_context(removing_empty(places))
        journals: dict[Path, Journal | _ClosedFolder] = {}
        if keeps_journal(jobs, policy):
            journals = _open_journals(jobs, stack, notify)
        prepared = []
        has_failed = False
        for job in jobs:
            journal = journals.get(job.root) if job.root else None
            try:
                settings = digest(leave_out_unused(output, job, scale), job.format)
                one = _prepare(job, output, policy, journal, settings)
            except ImageError as error:
                one = Outcome.failed(job, error)
            if isinstance(one, PreparedJob):
                prepared.append(one)
            else:
                has_failed = has_failed or one.error is not None
                yield one
        with closing(perform(prepared, lambda: has_failed and policy.fail_fast)) as outcomes:
            for outcome in outcomes:
                has_failed = has_failed or outcome.error is not None
                yield outcome


def keeps_journal(jobs: Sequence[Job], policy: RunPolicy) -> bool:
    """Tell whether a run keeps journals in the folders of its results."""
    return policy.keep_journal or policy.resume or len(jobs) > 1 or any(job.source.folder for job in jobs)


def _open_journals(
    jobs: Iterable[Job], stack: ExitStack, notify: Callable[[str], None]
) -> "dict[Path, Journal | _ClosedFolder]":
    """Open the journals of all folders of results."""
    journals: dict[Path, Journal | _ClosedFolder] = {}
    targets = group_targets(jobs)
    for root in sorted(targets, key=os.path.realpath):  # in one order: runs wait for each other
        try:
            check_folder(root)
            make_folder(root)
            journals[root] = journal = Journal(root, targets[root], notify)
            stack.callback(journal.close)
        except ImageError as error:
            record = None
            with suppress(OSError):
                record = Record(root)
            journals[root] = _ClosedFolder(error, record)
    return journals


def _prepare(
    job: Job,
    output: WriteOptions,
    policy: RunPolicy,
    journal: "Journal | _ClosedFolder | None",
    settings: str,
) -> PreparedJob | Outcome:
    """Prepare a job, or return what became of it already.

    Raises:
        ImageError: The job is refused.
    """
    start = time.perf_counter()
    decision = decide(job, journal.record if journal else None, policy, settings)
    if decision.action is Action.REFUSE:
        raise ImageError(decision.reason)
    if decision.action is Action.SKIP:
        return Outcome(job, seconds=time.perf_counter() - start, is_skipped=True)
    if isinstance(journal, _ClosedFolder):
        return Outcome.failed(job, journal.error)
    if job.target is not None and not job.is_stream:
        check_folder(job.target.parent)
    guard = None
    if job.target is not None:
        pen = journal.pen if journal and job.source.path is not None else None
        guard = ResultGuard(job.source.path, job.target, pen, settings, policy.digest, output.preserve_times)
    return PreparedJob(job, output, policy, decision.action is Action.REPLACE, guard)


def foresee_failures(jobs: Sequence[Job], policy: RunPolicy) -> list[Outcome] | None:
    """Find out whether all jobs fail whatever network does them; None where one may not.

    Names tell that at once, before a model is loaded. Where only some fail, the run finds that out.

    Args:
        jobs: Jobs, from ``name_targets``.
        policy: What the run may do.
    """
    outcomes = []
    for job in jobs:
        try:
            if job.refusal is not None:
                raise ImageError(job.refusal)
            if job.source.path is not None:
                _look_at(job.source.path)
            if job.target is not None and not job.is_stream:
                check_target(job, policy.overwrite or policy.resume)
                if policy.resume and os.path.lexists(job.target):
                    return None  # it may be done
                check_folder(job.target.parent)
        except ImageError as error:
            outcomes.append(Outcome.failed(job, error))
        else:
            return None
    return outcomes


def _look_at(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise explain_unreadable(path, error) from error
