"""Which jobs of a run are done: what the user allows, and one decision for the run and the dry run."""

import os
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mambair_cli.images import MAX_PIXELS
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.record import Record
from mambair_cli.system.disk_names import is_same_file
from mambair_cli.system.file_errors import explain_input
from mambair_cli.system.wording import show


@dataclass(frozen=True)
class RunPolicy:
    """What a run may do, and how far it goes.

    Attributes:
        overwrite: Whether to replace results that exist.
        resume: Whether to skip what an earlier run has done, and to replace what it left outdated.
        max_pixels: Largest number of pixels of an image; larger ones are refused.
        damaged: Whether to restore what is there of images of which a part is missing.
        digest: Whether to take the SHA-256 of results.
        fail_fast: Whether to begin no further job once one has failed.
        keep_journal: Whether to keep a journal for a single image, too: by it other machines know the folder.
    """

    overwrite: bool = False
    resume: bool = False
    max_pixels: int = MAX_PIXELS
    damaged: bool = False
    digest: bool = False
    fail_fast: bool = False
    keep_journal: bool = False


class Action(Enum):
    """What to do with a job.

    Attributes:
        DO: Do it, unless a file has the name of the result.
        REPLACE: Do it, and replace the file that has the name of the result, if there is one.
        SKIP: Do nothing: an earlier run has done it.
        REFUSE: Do nothing: it would do harm, or its result cannot have its name.
    """

    DO = "do"
    REPLACE = "replace"
    SKIP = "skip"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Decision:
    """What to do with a job, and for a refused one why it cannot be done."""

    action: Action
    reason: str = ""


def decide(job: Job, record: Record | None, policy: RunPolicy, settings: str | None) -> Decision:
    """Decide what to do with a job; nothing is written.

    Args:
        job: The job.
        record: What earlier runs have noted in the folder of the result; None where there were none, or where
            neither the policy nor the job asks for them.
        policy: What the run may do.
        settings: Digest of all that the result depends on except the input; None where no earlier run can
            have had the same.
    """
    if job.refusal is not None:
        return Decision(Action.REFUSE, job.refusal)
    target, source = job.target, job.source.path
    if target and source and not job.is_stream and is_same_file(target, source):
        return Decision(Action.REFUSE, str(explain_input(target)))
    if target is None or not (policy.resume or job.replaces_input):
        return Decision(Action.REPLACE if policy.overwrite else Action.DO)
    is_ours = record is not None and record.is_ours(target)
    if job.replaces_input and (policy.overwrite or policy.resume) and not is_ours:
        return Decision(
            Action.REFUSE,
            f"cannot write {target}: it is among the inputs, and no run is known to have written it; "
            "leave it out of them, or choose a folder with -o",
        )
    if policy.resume and record and source and settings and record.is_done(source, target, settings):
        return Decision(Action.SKIP)
    if policy.resume and not policy.overwrite and record and source:
        other = record.other_input(source, target)
        if other is not None and not any(is_same_file(other, namesake) for namesake in job.namesakes):
            return Decision(Action.REFUSE, explain_other(source, target, other))
    if policy.overwrite or (policy.resume and is_ours):
        return Decision(Action.REPLACE)
    if policy.resume and record and not job.is_stream and (reason := explain_kept(target, record)):
        return Decision(Action.REFUSE, reason)
    return Decision(Action.DO)


def explain_other(source: Path, target: Path, other: Path) -> str:
    """Say that the result of another input has the name already, as a run of both would.

    Args:
        source: The input.
        target: The result.
        other: The other input, from ``Record.other_input``.
    """
    if not source.is_absolute():
        with suppress(ValueError):  # on another drive
            other = Path(os.path.relpath(other))
    return (
        f"cannot restore {show(source)}: {show(other)} is written as {show(target)}, too; restore them into "
        "different folders, or replace that result with --overwrite"
    )


def explain_kept(target: Path, record: Record) -> str | None:
    """Say why a run that resumes keeps a file with the name of a result; None where there is no such reason.

    Args:
        target: The result.
        record: What earlier runs have noted in its folder.
    """
    if record.is_changed(target):
        why = "it was changed after an earlier run wrote it"
    elif os.path.lexists(target) and not record.is_ours(target):
        why = (
            "it exists already, and no earlier run has noted it: a run of one file notes its result only "
            "with --resume"
        )
    else:
        return None
    return f"cannot write {show(target)}: {why}; --overwrite replaces it"
