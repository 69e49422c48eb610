"""The query of a request: the options of the commands under their names, read by a model of pydantic."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from mambair_cli.checkpoints.catalog import REAL, Asked, Task, is_named
from mambair_cli.errors import UsageError
from mambair_cli.images import parse_colour
from mambair_cli.restore.settings import ImageSettings, Precision
from mambair_cli.runs import parameters
from mambair_cli.runs.job_files import WriteOptions
from mambair_cli.runs.output_size import NETWORK_SCALES, network_scale, settle_scale
from mambair_cli.runs.parameters import Parameter
from mambair_cli.runs.policy import RunPolicy

TASKS: tuple[Task, ...] = get_args(Task)

NETWORK_SCALE = Parameter(
    "network_scale",
    "integer",
    "Scale of the model, where all images of a run are to have one, whatever their size.",
    unset="the smallest that the size of the result needs",
    least=NETWORK_SCALES[0],
    most=NETWORK_SCALES[-1],
)
QUERY_PARAMETERS: dict[Task, tuple[Parameter, ...]] = {
    task: (*parameters.TASK_PARAMETERS[task], *([NETWORK_SCALE] if task == "upscale" else []))
    for task in TASKS
}
"""Parameters that a task has of its own in a query."""

_TYPES = {"integer": int, "number": float, "boolean": bool, "string": str}
_DIFFERENCES: dict[str, dict[str, Any]] = {  # between a query and the options of a command
    "precision": {"default": None, "unset": "the server's own"},
}


def _make_model(task: Task) -> type[BaseModel]:
    """Make the model of a task's query from the parameters."""
    shared = [replace(each, **_DIFFERENCES.get(each.name, {})) for each in parameters.SHARED]
    found: dict[str, Any] = {each.name: _make_field(each) for each in (*QUERY_PARAMETERS[task], *shared)}
    return create_model(f"{task.capitalize()}Query", __config__=ConfigDict(extra="forbid"), **found)


def _make_field(parameter: Parameter) -> Any:
    kind = Literal[parameter.choices] if parameter.choices else _TYPES[parameter.kind]
    text = parameter.help.replace("--", "")
    if parameter.unset is not None:
        text += f" Default: {parameter.unset}."
    field = Field(parameter.default, ge=parameter.least, le=parameter.most, description=text)
    return Annotated[kind, BeforeValidator(parameter.parse)], field


QUERIES: dict[Task, type[BaseModel]] = {task: _make_model(task) for task in TASKS}


@dataclass(frozen=True)
class RestoreRequest:
    """How a client wants an image restored.

    Attributes:
        asked: What is asked for; its scale is None where it follows from the output's size, too.
        is_scale_fixed: Whether the scale is that one whatever the size of the output.
        precision: Precision of the network; None for the server's own.
        own: Settings that may differ from image to image.
        offline: Whether to download no model.
        format: Output format; None for that of the image.
        output: How the result is written.
        policy: Which images are refused.
    """

    asked: Asked
    is_scale_fixed: bool
    precision: Precision | None
    own: ImageSettings
    offline: bool
    format: str | None
    output: WriteOptions
    policy: RunPolicy


def read_request(task: Task, query: Iterable[tuple[str, str]]) -> RestoreRequest:
    """Read the query of a request.

    Args:
        task: Task that the path names.
        query: Names and values.

    Raises:
        UsageError: A name is unknown or given twice, or a value is not allowed.
    """
    model = QUERIES[task]
    given: dict[str, str] = {}
    for name, text in query:
        if name in given:
            raise UsageError(f"{name} is given twice; give it once")
        given[name] = text
    refuse_unknown(task, given, model.model_fields)
    read = model.model_validate(given)  # a value that is wrong is a UsageError
    values = read.model_dump()
    wanted = (values.get(name) for name in ("scale", "width", "height", "megapixels"))
    scale, size = settle_scale(*wanted, may_differ=values["model"] == REAL or is_named(values["model"]))
    if size.scale is not None and not is_named(values["model"]):
        scale = network_scale(size.scale)  # GET, which has no image, names the model that POST uses
    fixed = values.get("network_scale")
    level = values.get("sigma", values.get("jpeg_quality"))
    if level is not None and values["model"] != "auto":
        name = parameters.TASK_PARAMETERS[task][0].name
        raise UsageError(f"{name} chooses a model, and {values['model']} is one; leave one out")
    if values["note"] and values["strip"]:
        raise UsageError("note and strip exclude each other: a note is metadata; give one")
    return RestoreRequest(
        asked=Asked(task, scale if fixed is None else fixed, level, values["model"]),
        is_scale_fixed=fixed is not None,
        precision=values["precision"],
        own=ImageSettings.pick(read),
        offline=values["offline"],
        format=values["format"],
        output=WriteOptions(
            quality=values["quality"],
            depth=None if values["depth"] == "auto" else int(values["depth"]),
            strip=values["strip"],
            note=values["note"],
            background=None if values["background"] is None else parse_colour(values["background"]),
            size=size,
        ),
        policy=RunPolicy(max_pixels=values["max_pixels"], damaged=values["damaged"]),
    )


def refuse_unknown(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse parameters that a request does not have.

    Args:
        what: The path or task, for the error.
        given: Names in the query.
        known: Names that it may have.

    Raises:
        UsageError: One of them is unknown.
    """
    for name in given:
        if name not in known:
            works = f"{', '.join(known)} are known" if known else "it takes none"
            raise UsageError(f"{what} has no parameter {name}; {works}")
