"""What can be asked for in a query: the options of the commands, under their names."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from mambair_cli.checkpoints.catalog import REAL, Task, is_named
from mambair_cli.errors import UsageError
from mambair_cli.images import DEFAULT_QUALITY, MAX_PIXELS, WRITABLE_SUFFIXES, parse_colour
from mambair_cli.runs.job_files import WriteOptions
from mambair_cli.runs.output_size import LARGEST_SCALE, network_scale, settle_scale
from mambair_cli.runs.policy import RunPolicy
from mambair_cli.system.values import Kind, plain_factor, plain_format, read_value

TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True)
class Parameter:
    """One that a query may have.

    Attributes:
        name: As the option of the command, with lines for dashes.
        kind: As JSON Schema names it.
        help: What it means.
        default: Where it is left out.
        least: Of a number.
        most: Of a number.
        choices: Of a word, where only these will do.
        plain: Turns other spellings of a value into the plain one.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    plain: Callable[[str], str] = str

    def parse(self, text: str) -> Any:
        """Read a value.

        Raises:
            UsageError: It is none.
        """
        return read_value(self.name, self.plain(text), self.kind, self.least, self.most, self.choices)

    @property
    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema."""
        facts = {
            "type": self.kind,
            "default": self.default,
            "minimum": self.least,
            "maximum": self.most,
            "enum": list(self.choices) or None,
        }
        return {key: value for key, value in facts.items() if value is not None}


SHARED = (
    Parameter(
        "model",
        "string",
        "Model by name, see /v1/models; real, for noisy, compressed or blurred pictures; clean, for others; "
        "auto chooses: to upscale a JPEG of quality below 90, real, else clean.",
        "auto",
    ),
    Parameter(
        "precision",
        "string",
        "Of products and convolutions; left out, the server's own.",
        choices=("auto", "fp32", "fp16"),
    ),
    Parameter("tile", "integer", "Largest side of a tile of the input, in pixels.", least=16, most=2**20),
    Parameter("overlap", "integer", "Pixels that neighbouring tiles share.", least=0, most=2**20),
    Parameter("seed", "integer", "Of the noise that MambaIRv2 draws.", 0, -(2**63), 2**63 - 1),
    Parameter("strength", "number", "Share of what the model does; the rest is the input.", 1.0, 0, 1),
    Parameter(
        "format",
        "string",
        "Of the result; left out, as the input.",
        choices=tuple(WRITABLE_SUFFIXES),
        plain=partial(plain_format, suffixes=WRITABLE_SUFFIXES),
    ),
    Parameter("quality", "integer", "Of JPEG, WebP and AVIF.", DEFAULT_QUALITY, 1, 100),
    Parameter("depth", "string", "Bits a sample.", "auto", choices=("auto", "8", "16")),
    Parameter("strip", "boolean", "Leave out all metadata; colours become sRGB.", False),
    Parameter("background", "string", "Colour behind transparent images in JPEG: white or #rrggbb."),
    Parameter("damaged", "boolean", "Restore what is there of a file that is cut short.", False),
    Parameter("max_pixels", "integer", "Refuse larger images.", MAX_PIXELS, 1),
    Parameter("offline", "boolean", "Use only models that are on the server's machine.", False),
)
OF_TASK: dict[Task, tuple[Parameter, ...]] = {
    "upscale": (
        Parameter(
            "scale",
            "number",
            f"1 to {LARGEST_SCALE}, such as 2 or 2.5; left out, 4.",
            least=1,
            most=LARGEST_SCALE,
            plain=plain_factor,
        ),
        Parameter("width", "integer", "Of the result at most, in pixels, in place of a scale.", least=1),
        Parameter("height", "integer", "Of the result at most, in pixels, in place of a scale.", least=1),
        Parameter("megapixels", "number", "Of the result, in place of a scale.", least=1e-6),
    ),
    "denoise": (
        Parameter(
            "sigma",
            "number",
            "Standard deviation of the noise, of 255; left out, a camera's.",
            least=0,
            most=255,
        ),
    ),
    "dejpeg": (
        Parameter("jpeg_quality", "integer", "That it was saved with; left out, unknown.", least=1, most=100),
    ),
}


@dataclass(frozen=True)
class RestoreRequest:
    """What is to be done with an image.

    Attributes:
        task: "upscale", "denoise" or "dejpeg".
        scale: Of the network; None where it follows from the output's size, or is the default.
        level: Noise sigma of 255, or JPEG quality; None where it is unknown.
        model: By name, or "auto", "real" or "clean".
        precision: None for the server's own.
        tile: In pixels; None for the default.
        overlap: In pixels; None for the default.
        seed: Of the noise that MambaIRv2 draws.
        strength: Share of what the model does, 0 to 1.
        offline: Whether to fetch no model.
        format: Of the result; None for that of the image.
        output: How the result is written.
        policy: Which images are refused.
    """

    task: Task
    scale: int | None
    level: float | None
    model: str
    precision: Literal["auto", "fp32", "fp16"] | None
    tile: int | None
    overlap: int | None
    seed: int
    strength: float
    offline: bool
    format: str | None
    output: WriteOptions
    policy: RunPolicy


def read_request(task: Task, query: Iterable[tuple[str, str]]) -> RestoreRequest:
    """Read a query.

    Args:
        task: Of its path.
        query: Names and values.

    Raises:
        UsageError: A name is unknown or given twice, or a value is none.
    """
    known = {parameter.name: parameter for parameter in (*OF_TASK[task], *SHARED)}
    values: dict[str, Any] = {}
    for name, text in query:
        if name not in known:
            raise UsageError(f"{task} has no parameter {name}; {', '.join(known)} are known")
        if name in values:
            raise UsageError(f"{name} is given twice; give it once")
        values[name] = known[name].parse(text)
    values = {**{name: parameter.default for name, parameter in known.items()}, **values}
    wanted = (values.get(name) for name in ("scale", "width", "height", "megapixels"))
    scale, size = settle_scale(*wanted, may_differ=values["model"] == REAL or is_named(values["model"]))
    if size.scale is not None and not is_named(values["model"]):
        scale = network_scale(size.scale)  # what is told without an image is what will restore it
    level = values.get("sigma", values.get("jpeg_quality"))
    if level is not None and values["model"] != "auto":
        name = OF_TASK[task][0].name
        raise UsageError(f"{name} chooses a model, and {values['model']} is one; leave one out")
    return RestoreRequest(
        task=task,
        scale=scale,
        level=level,
        model=values["model"],
        precision=values["precision"],
        tile=values["tile"],
        overlap=values["overlap"],
        seed=values["seed"],
        strength=values["strength"],
        offline=values["offline"],
        format=values["format"],
        output=WriteOptions(
            quality=values["quality"],
            depth=None if values["depth"] == "auto" else int(values["depth"]),
            strip=values["strip"],
            background=None if values["background"] is None else parse_colour(values["background"]),
            size=size,
        ),
        policy=RunPolicy(max_pixels=values["max_pixels"], damaged=values["damaged"]),
    )
