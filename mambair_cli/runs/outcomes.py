"""What became of the jobs of a run, and its description as JSON."""

from dataclasses import dataclass
from typing import Any

from mambair_cli import errors
from mambair_cli.errors import MambairError
from mambair_cli.inspection.need import describe_need
from mambair_cli.restore.tiling import Report
from mambair_cli.runs.jobs import Job


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: The job.
        error: Why there is no result; None if there is one.
        size: Width and height of the result, in pixels; None without a new result.
        reduced: Whether the output of the network was scaled down.
        report: How the result was computed; None without a new result.
        seconds: Time from the first byte read to the last byte written.
        is_skipped: Whether an earlier run had done the job.
        peak_memory: Most memory that the process has used so far, in bytes; None where that is unknown.
        sha256: SHA-256 of the result's file, if it was asked for.
        warnings: Sentences about what the result lacks, or what differs from what was asked for.
        remarks: Sentences of a worker on another machine about how it computes.
    """

    job: Job
    error: MambairError | None = None
    size: tuple[int, int] | None = None
    reduced: bool = False
    report: Report | None = None
    seconds: float = 0.0
    is_skipped: bool = False
    peak_memory: int | None = None
    sha256: str | None = None
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @classmethod
    def failed(cls, job: Job, error: MambairError, seconds: float = 0.0) -> "Outcome":
        """Return the outcome of a job that has no result."""
        return cls(job, error, seconds=seconds)


def describe(outcome: Outcome, model: str | None = None, scale: int | None = None) -> dict[str, Any]:
    """Describe an outcome as an event of JSON: ``done``, ``skipped`` or ``failed``.

    Args:
        outcome: The outcome.
        model: Name of the model that makes results, where no look at an image chooses another.
        scale: Output pixels per input pixel and side of that model.
    """
    job, source = outcome.job, str(outcome.job.source)
    if outcome.error is not None:
        return {"event": "failed", "input": source, **describe_error(outcome.error)}
    if outcome.is_skipped:
        return {"event": "skipped", "input": source, "output": job.place}
    report = outcome.report
    if report is not None and report.model is not None:
        model, scale = report.model, report.scale
    made_by = {"model": model, "scale": scale}
    return {"event": "done", "input": source, "output": job.place, **made_by, **describe_result(outcome)}


def describe_result(outcome: Outcome) -> dict[str, Any]:
    """Describe a result as JSON: what events and the report of a server say of it.

    Raises:
        ValueError: The outcome has no result of this run.
    """
    if outcome.size is None or outcome.report is None:
        raise ValueError(f"only a result can be described: {outcome}")
    plan, need = outcome.report.plan, outcome.report.need
    return {
        "width": outcome.size[0],
        "height": outcome.size[1],
        "reduced": outcome.reduced,
        "tiles": len(plan),
        "tile": [plan.tile_width, plan.tile_height],
        "overlap": plan.shared,
        "shrunk": outcome.report.shrunk,
        "seconds": round(outcome.seconds, 3),
        "peak_memory": outcome.peak_memory,
        "sha256": outcome.sha256,
        "need": None if need is None else describe_need(need),
        "warnings": list(outcome.warnings),
    }


def describe_error(error: MambairError) -> dict[str, str]:
    """Describe an error as JSON: by its class in ``errors``, also where it is a special case of that."""
    kind = next(each for each in type(error).__mro__ if each.__module__ == errors.__name__)
    return {"kind": kind.__name__, "message": str(error)}
