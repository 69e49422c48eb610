"""What a server and its clients tell each other beside images, as JSON."""

from typing import Any

from mambair_cli import errors
from mambair_cli.errors import MambairError
from mambair_cli.restore.tiling import Report, plan_nothing, plan_tiles
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.outcomes import Outcome, describe_result

REPORT_HEADER = "Mambair-Report"
"""Beside a result: how it came about, as JSON of ASCII letters."""


def describe_report(outcome: Outcome, model: str, scale: int, computing: str) -> dict[str, Any]:
    """Describe a result as JSON, under the names of the event ``done``.

    Args:
        outcome: Outcome with a result.
        model: Name of the model.
        scale: Output pixels per input pixel and side of the model.
        computing: Digest of all that pixels depend on besides the image.
    """
    facts = describe_result(outcome)
    del facts["sha256"]  # the client takes it of the file that it writes
    if outcome.report is None:
        raise ValueError(f"only a result can be described: {outcome}")
    plan = outcome.report.plan
    return {
        "model": model,
        "scale": scale,
        "computing": computing,
        **facts,
        "input": [plan.width, plan.height],
        "batch": outcome.report.batch,
    }


def read_report(facts: dict[str, Any], job: Job) -> Outcome:
    """Undo :func:`describe_report`.

    Args:
        facts: The report.
        job: Job that the result belongs to.

    Raises:
        KeyError, TypeError, ValueError: The facts are not such a report.
    """
    (width, height), overlap = facts["input"], facts["overlap"]
    plan = plan_nothing(height, width)
    if facts["tiles"]:
        # A tile may be no larger than the overlap where the image is not, and then there is but one of them.
        tile_width, tile_height = (max(side, overlap + 1) for side in facts["tile"])
        plan = plan_tiles(height, width, (tile_height, tile_width), overlap)
    return Outcome(
        job,
        size=(facts["width"], facts["height"]),
        reduced=facts["reduced"],
        report=Report(plan, facts["batch"], facts["shrunk"]),
        seconds=facts["seconds"],
        peak_memory=facts["peak_memory"],
        warnings=tuple(facts["warnings"]),
    )


def describe_error(error: MambairError) -> dict[str, str]:
    """Turn an error into what JSON can hold."""
    kinds = (kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return {"kind": next(kinds), "message": str(error)}


def read_error(facts: dict[str, Any], prefix: str = "") -> MambairError:
    """Undo :func:`describe_error`, and put something before its message.

    Raises:
        KeyError: It was not made by it.
    """
    kind = getattr(errors, facts["kind"], None)
    if not (isinstance(kind, type) and issubclass(kind, MambairError)):
        kind = MambairError
    return kind(f"{prefix}{facts['message']}")
