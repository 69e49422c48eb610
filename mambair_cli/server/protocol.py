"""What a server and its clients tell each other beside images, as JSON."""

from typing import Any, NamedTuple

from mambair_cli import errors
from mambair_cli.errors import MambairError
from mambair_cli.restore.tiling import Report, plan_nothing, plan_tiles

REPORT_HEADER = "Mambair-Report"
"""Beside a result: how it came about, as JSON of ASCII letters."""


class Account(NamedTuple):
    """What is told of a result.

    Attributes:
        size: Width and height of the result in pixels.
        reduced: Whether the result was reduced from what the network gave.
        report: How it was computed.
        peak_memory: Of the server, in bytes, so far; None where that is not known.
        warnings: Sentences about what is not as it was to be.
    """

    size: tuple[int, int]
    reduced: bool
    report: Report
    peak_memory: int | None
    warnings: tuple[str, ...] = ()


def describe_account(account: Account) -> dict[str, Any]:
    """Turn an account into what JSON can hold, under the names of the event ``done``."""
    size, reduced, report, peak_memory, warnings = account
    plan = report.plan
    return {
        "width": size[0],
        "height": size[1],
        "reduced": reduced,
        "input": [plan.width, plan.height],
        "tiles": len(plan),
        "tile": [plan.tile_width, plan.tile_height],
        "overlap": plan.overlap,
        "batch": report.batch,
        "shrunk": report.shrunk,
        "peak_memory": peak_memory,
        "warnings": list(warnings),
    }


def read_account(facts: dict[str, Any]) -> Account:
    """Undo :func:`describe_account`.

    Raises:
        KeyError, TypeError, ValueError: It was not made by it.
    """
    (width, height), overlap = facts["input"], facts["overlap"]
    plan = plan_nothing(height, width)
    if facts["tiles"]:
        # A tile may be no larger than the overlap where the image is not, and then there is but one of them.
        tile_width, tile_height = (max(side, overlap + 1) for side in facts["tile"])
        plan = plan_tiles(height, width, (tile_height, tile_width), overlap)
    report = Report(plan, facts["batch"], facts["shrunk"])
    size = facts["width"], facts["height"]
    return Account(size, facts["reduced"], report, facts["peak_memory"], tuple(facts["warnings"]))


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
