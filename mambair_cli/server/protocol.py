"""What a server and its clients send each other except images: JSON, described by dataclasses."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

from mambair_cli import errors
from mambair_cli.errors import MambairError
from mambair_cli.inspection.need import read_need
from mambair_cli.restore.tiling import Report, plan_nothing, plan_tiles
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.outcomes import Outcome, describe_error, describe_result

T = TypeVar("T")

REPORT_HEADER = "Mambair-Report"
"""Header of a result: a :class:`ResultReport` as JSON of ASCII letters."""

COMMAND_HEADER = "Mambair-Command"
"""Header of a request of a command: messages may name its options."""


@dataclass(frozen=True)
class ErrorReport:
    """Why a request failed.

    Attributes:
        kind: Name of the class of the error.
        message: What failed and what would work, in one line.
    """

    kind: str
    message: str


@dataclass(frozen=True)
class Health:
    """State of the server.

    Attributes:
        version: Version of mambair.
        device: Device that it computes on.
        loaded: Names of the models in memory, the last used at the end.
        waiting: Number of images that it has.
    """

    version: str
    device: str
    loaded: list[str]
    waiting: int


@dataclass(frozen=True)
class ModelState:
    """A model that requests can name.

    Attributes:
        name: Name in the catalogue.
        task: "upscale", "denoise" or "dejpeg".
        scale: Output pixels per input pixel and side.
        level: Noise sigma or JPEG quality that it is made for; None for any.
        loaded: Whether it is in the server's memory.
        here: Whether its file is on the server's machine.
    """

    name: str
    task: str
    scale: int
    level: int | None
    loaded: bool
    here: bool


@dataclass(frozen=True)
class ServerInfo:
    """How a server restores the images of a query.

    Attributes:
        version: Version of mambair.
        model: Name of the model, or of the first choice where a look at each image chooses one.
        scale: Output pixels per input pixel and side.
        device: Device that it computes on.
        computing: All that pixels depend on except the image, from ``Fingerprint.describe``.
        notice: What the user should know about the choice of the model, if anything.
        max_bytes: Largest file that it accepts.
        others: Names of the other models that a look at each image may choose.
    """

    version: str
    model: str
    scale: int
    device: str
    computing: dict[str, Any]
    notice: str | None
    max_bytes: int
    others: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ResultReport:
    """How a result was made, under the names of the event ``done``.

    Attributes:
        model: Name of the model.
        scale: Output pixels per input pixel and side of the model.
        computing: Digest of all that pixels depend on except the image.
        width: Width of the result, in pixels.
        height: Height of the result, in pixels.
        reduced: Whether the output of the network was scaled down.
        input: Width and height of the image, in pixels.
        tiles: Number of tiles.
        tile: Width and height of a tile, in pixels.
        overlap: Pixels that neighbouring tiles share.
        batch: Tiles computed at a time.
        shrunk: Whether too little memory made tiles smaller.
        peak_memory: Most memory that the server has used, in bytes; None where that is unknown.
        warnings: Sentences about what differs from what was asked for.
        seconds: Time that the image took.
        need: What was seen of the image, and what it needs; None where nobody looked.
    """

    model: str
    scale: int
    computing: str
    width: int
    height: int
    reduced: bool
    input: tuple[int, int]
    tiles: int
    tile: tuple[int, int]
    overlap: int
    batch: int
    shrunk: bool
    peak_memory: int | None
    warnings: list[str]
    seconds: float
    need: dict[str, Any] | None


def describe_report(outcome: Outcome, model: str, scale: int, computing: str) -> ResultReport:
    """Write the report of a result.

    Args:
        outcome: Outcome with a result.
        model: Name of the model, where no look at the image chose another.
        scale: Output pixels per input pixel and side of the model.
        computing: Digest of all that pixels depend on except the image.

    Raises:
        ValueError: The outcome has no result.
    """
    facts = describe_result(outcome)
    del facts["sha256"]  # the client computes that of the file that it writes
    if outcome.report is None:
        raise ValueError(f"only a result can be described: {outcome}")
    report, plan = outcome.report, outcome.report.plan
    size = (plan.width, plan.height)
    model, scale = report.model or model, report.scale or scale
    return ResultReport(model, scale, computing, input=size, batch=report.batch, **facts)


def read_report(sent: ResultReport, job: Job) -> Outcome:
    """Undo :func:`describe_report`.

    Args:
        sent: The report.
        job: Job that the result belongs to.

    Raises:
        KeyError, TypeError, ValueError: The report does not come from it.
    """
    (width, height), overlap = sent.input, sent.overlap
    plan = plan_nothing(height, width)
    if sent.tiles:
        # A tile is no larger than the overlap only where the image is as small, and then it is the only one.
        tile_width, tile_height = (max(side, overlap + 1) for side in sent.tile)
        plan = plan_tiles(height, width, (tile_height, tile_width), overlap)
    report = Report(plan, sent.batch, sent.shrunk)
    if sent.need is not None:
        report = replace(report, model=sent.model, scale=sent.scale, need=read_need(sent.need))
    return Outcome(
        job,
        size=(sent.width, sent.height),
        reduced=sent.reduced,
        report=report,
        seconds=sent.seconds,
        peak_memory=sent.peak_memory,
        warnings=tuple(sent.warnings),
    )


def report_error(error: MambairError) -> ErrorReport:
    """Write the report of an error."""
    return ErrorReport(**describe_error(error))


def read_error(sent: ErrorReport, prefix: str = "") -> MambairError:
    """Undo :func:`report_error`, and put a prefix before the message."""
    kind = getattr(errors, sent.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, MambairError)):
        kind = MambairError
    return kind(f"{prefix}{sent.message}")


def read_record(record: type[T], sent: Any) -> T:
    """Return one of the dataclasses above from JSON; other names in it are ignored.

    Args:
        record: The dataclass.
        sent: The value read from JSON.

    Raises:
        KeyError, TypeError: It is not such a record.
    """
    return record(**{each.name: sent[each.name] for each in fields(cast(Any, record))})


Query = dict[str, str | int | float | bool | None]
"""Parameters of a request by their names; None for those that are left out."""


def compose_target(path: str, query: Query) -> str:
    """Write the target of a request, without parameters that are None."""
    words = {True: "true", False: "false"}
    given = {
        name: words.get(value, value) if isinstance(value, bool) else value for name, value in query.items()
    }
    return f"{path}?{urlencode({name: value for name, value in given.items() if value is not None})}"
