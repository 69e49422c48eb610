"""Options that commands share: a name means the same in each of them."""

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal

import typer

from mambair_cli.cli.inputs import Exclude, FromFile, Include, Null
from mambair_cli.cli.output import hush
from mambair_cli.errors import UsageError
from mambair_cli.runs import parameters
from mambair_cli.runs.parameters import Parameter
from mambair_cli.system.geometry import Wrap
from mambair_cli.system.values import plain_factor, read_value

FOR_CLIPS, FOR_PAGES = "Options for clips", "Options for previews and comparisons"  # headings in a help


def finite(value: float | tuple[float, ...] | list[float] | None) -> Any:
    """Refuse infinity and NaN; a callback of options."""
    for number in value if isinstance(value, tuple | list) else (value,):
        if number is not None and not math.isfinite(number):
            raise typer.BadParameter(f"{number} is not a finite number")
    return value


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=hush, help="On stderr only errors: no progress, no notices.")
]


def option(parameter: Parameter, *names: str, **changes: Any) -> Any:
    """Return the option for a parameter, for ``Annotated``.

    Args:
        parameter: What it is made from.
        names: Short names, such as "-s".
        changes: Arguments of ``typer.Option`` that differ.
    """
    facts: dict[str, Any] = {
        "help": parameter.help,
        "metavar": parameter.metavar,
        "show_default": parameter.unset or True,
    }
    if parameter.kind in ("integer", "number"):
        facts |= {"min": parameter.least, "max": parameter.most}
    if parameter.kind == "number":
        facts["callback"] = finite
    if parameter.choices and parameter.metavar:  # else the annotation lists them

        def read(text: str) -> Any:
            return parameter.parse(text, parameter.option)

        facts["parser"] = read
    return typer.Option(parameter.option, *names, **(facts | changes))


def read_network_scale(text: str) -> int:
    """Read the scale of a network, as in 2x."""
    from mambair_cli.runs.output_size import NETWORK_SCALES

    ends = min(NETWORK_SCALES), max(NETWORK_SCALES)
    return read_value("--scale", plain_factor(text), "integer", *ends)


def network_scale(help: str, unset: str) -> Any:
    """Return the option for the scale of a network, for ``Annotated``.

    Args:
        help: What it sets.
        unset: What holds without it.
    """
    facts: dict[str, Any] = {"metavar": "FACTOR", "parser": read_network_scale, "show_default": unset}
    return typer.Option("--scale", "-s", help=help, **facts)


ModelName = Annotated[str, option(parameters.MODEL)]


def check_source(given: str | list[str] | None) -> Any:
    """Refuse an impossible address before anything is loaded; a callback of options."""
    for text in given if isinstance(given, list) else (given,):
        if text is not None:
            from mambair_cli.checkpoints.source import parse_source

            parse_source(text)
    return given


_WEIGHTS: dict[str, Any] = {
    "metavar": "FILE",
    "callback": check_source,
    "help": "Any MambaIR checkpoint, instead of --model: a file, hf:OWNER/REPO/FILE[@REVISION] on the Hub, "
    "or https://HOST/FILE[#sha256=HASH].",
}
Weights = Annotated[str | None, typer.Option("--weights", **_WEIGHTS)]
WeightsForModel = Annotated[  # where the model is an argument
    str | None,
    typer.Option("--weights", **_WEIGHTS | {"help": _WEIGHTS["help"].replace("--model", "MODEL")}),
]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="Device to compute on: auto, cpu, cuda, cuda:1 or mps.")
]
Precision = Annotated[Literal["auto", "fp32", "fp16"], option(parameters.PRECISION)]
Tile = Annotated[int | None, option(parameters.TILE)]
Overlap = Annotated[int | None, option(parameters.OVERLAP)]
Seed = Annotated[int, option(parameters.SEED)]
Ensemble = Annotated[bool, option(parameters.ENSEMBLE)]
MaxPixels = Annotated[int, option(parameters.MAX_PIXELS)]
Offline = Annotated[bool, option(parameters.OFFLINE)]


@dataclass(frozen=True)
class Options:
    """What every restoring command takes."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Output file or folder; - for standard output. For one input, end a folder's name with /.",
            show_default="next to the input",
        ),
    ] = None
    from_file: FromFile = None
    null: Null = False
    include: Include = None
    exclude: Exclude = None
    models: Annotated[list[str] | None, option(parameters.MODEL, show_default=parameters.MODEL.default)] = (
        None
    )
    weight_files: Annotated[list[str] | None, typer.Option("--weights", **_WEIGHTS)] = None
    mix: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            callback=finite,
            help="Mix two models of the same architecture, each by a --model or --weights: "
            "share of the second one.",
        ),
    ] = None
    device: Device = "auto"
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Use several devices: cuda:0,cuda:1 or all; one worker process each.",
        ),
    ] = None
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of worker processes on the CPU.")
    ] = None
    server: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            envvar="MAMBAIR_SERVER",
            help="Send images to a running `mambair serve`: auto, unix:/path or http://127.0.0.1:8765.",
        ),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Use all machines of a Ray cluster: auto, or HOST:PORT of its head.",
        ),
    ] = None
    precision: Precision = parameters.PRECISION.default
    tile: Tile = parameters.TILE.default
    overlap: Overlap = parameters.OVERLAP.default
    seed: Seed = parameters.SEED.default
    strengths: Annotated[
        list[float] | None, option(parameters.STRENGTH, show_default=str(parameters.STRENGTH.default))
    ] = None
    open: Annotated[
        bool,
        typer.Option(
            "--open",
            help="Open the page of --preview, --region or --compare in the browser.",
            rich_help_panel=FOR_PAGES,
        ),
    ] = False
    ensemble: Ensemble = parameters.ENSEMBLE.default
    wrap: Annotated[Wrap, option(parameters.WRAP)] = parameters.WRAP.default
    format: Annotated[str | None, option(parameters.FORMAT)] = parameters.FORMAT.default
    # None, since a quality that was given is refused where the format has none.
    quality: Annotated[
        int | None, option(parameters.QUALITY, show_default=str(parameters.QUALITY.default))
    ] = None
    depth: Annotated[Literal["auto", "8", "16"], option(parameters.DEPTH)] = parameters.DEPTH.default
    strip: Annotated[bool, option(parameters.STRIP)] = parameters.STRIP.default
    note: Annotated[bool, option(parameters.NOTE)] = parameters.NOTE.default
    codec: Annotated[
        Literal["h264", "hevc", "av1", "vp9", "ffv1", "prores"] | None,
        typer.Option(
            help="Codec of clips.",
            show_default="h264, or what holds bits and transparency",
            rich_help_panel=FOR_CLIPS,
        ),
    ] = None
    deinterlace: Annotated[
        bool,
        typer.Option(
            "--deinterlace",
            help="Remove the comb lines of interlaced clips.",
            rich_help_panel=FOR_CLIPS,
        ),
    ] = False
    fps: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1000,
            metavar="RATE",
            callback=finite,
            help="Frames a second of numbered images, such as frames/%06d.png, that become a clip.",
            show_default="25",
            rich_help_panel=FOR_CLIPS,
        ),
    ] = None
    raw: Annotated[
        str | None,
        typer.Option(
            metavar="WxH@RATE",
            help="Raw RGB frames come on standard input, such as 640x480@25; YUV4MPEG needs no such option.",
            rich_help_panel=FOR_CLIPS,
        ),
    ] = None
    background: Annotated[str | None, option(parameters.BACKGROUND)] = parameters.BACKGROUND.default
    preserve_times: Annotated[
        bool, typer.Option("--preserve-times", help="Give each output the file times of its input.")
    ] = False
    damaged: Annotated[bool, option(parameters.DAMAGED)] = parameters.DAMAGED.default
    max_pixels: MaxPixels = parameters.MAX_PIXELS.default
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip what an earlier run has finished, and do the rest.")
    ] = False
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Restore what is in the folders, then what arrives there, until Ctrl-C; implies --resume.",
        ),
    ] = False
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first image that fails.")] = (
        False
    )
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")] = False
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Also write a page for the browser that compares inputs and outputs.",
            rich_help_panel=FOR_PAGES,
        ),
    ] = False
    preview: Annotated[
        bool,
        typer.Option(
            "--preview",
            help="Write only a page for the browser that shows a part of one image before and after: 256×256 "
            "pixels with both fine detail and smooth areas. --model and --strength may be repeated.",
            rich_help_panel=FOR_PAGES,
        ),
    ] = False
    region: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,W,H",
            help="The same as --preview, for this part; in pixels of the input.",
            rich_help_panel=FOR_PAGES,
        ),
    ] = None
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="With --preview of a clip: show the frame at this time, such as 83.5 or 00:01:23.",
            show_default="a third of the clip",
            rich_help_panel=FOR_CLIPS,
        ),
    ] = None
    quiet: Quiet = False
    json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON per event instead of output paths.")
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")] = (
        False
    )
    offline: Offline = parameters.OFFLINE.default

    @property
    def model(self) -> str:
        """The model that was asked for; of several, the last one."""
        return self.asked_models[-1]

    @property
    def weights(self) -> str | None:
        """The checkpoint that was asked for; of several, the last one."""
        return self.weight_files[-1] if self.weight_files else None

    @property
    def strength(self) -> float:
        """The strength that was asked for; of several, the last one."""
        return self.asked_strengths[-1]

    @property
    def asked_models(self) -> tuple[str, ...]:
        """All models that were asked for, each once, or the default."""
        return tuple(dict.fromkeys(self.models or (parameters.MODEL.default,)))

    @property
    def asked_strengths(self) -> tuple[float, ...]:
        """All strengths that were asked for, each once, or the default."""
        return tuple(dict.fromkeys(self.strengths or (parameters.STRENGTH.default,)))

    @property
    def is_preview(self) -> bool:
        """Whether a part of an image is shown, and no result is written."""
        return self.preview or self.region is not None


def typed(context: typer.Context) -> dict[str, Any]:
    """Return the options given on the command line: names of parameters and values."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {
        name: context.params[name]
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    }


def refuse(options: dict[str, Any], names: Iterable[str], why: str) -> None:
    """Refuse options that would do nothing.

    Args:
        options: Options that were given, from :func:`typed`.
        names: Names of parameters that have no effect.
        why: Reason, for the error.

    Raises:
        UsageError: One of them was given.
    """
    for name in names:
        if name in options:
            raise UsageError(f"{why}: {show_option(name, options[name])}; leave it out")


def show_option(name: str, value: Any) -> str:
    """Write an option as on the command line."""
    values = () if value is True else value if isinstance(value, tuple) else (value,)
    shown = [f"{number:g}" if isinstance(number, float) else str(number) for number in values]
    return " ".join([f"--{name.replace('_', '-')}", *shown])


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option of the dataclass of its argument ``options``, and collect them in it."""
    parameters = inspect.signature(command).parameters
    kind = parameters["options"].annotation
    own = [p for p in parameters.values() if p.name != "options"]
    options = [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if f.default is MISSING else f.default,
            annotation=f.type,
        )
        for f in fields(kind)
    ]

    @functools.wraps(command)
    def collect(**values: Any) -> None:
        collected = kind(**{f.name: values.pop(f.name) for f in fields(kind)})
        command(**values, options=collected)

    collect.__annotations__ = {p.name: p.annotation for p in own + options}
    # typer reads the signature that a function carries (PEP 362); the type of functions does not declare it.
    collect.__signature__ = inspect.Signature(own + options)  # pyright: ignore[reportAttributeAccessIssue]
    return collect
