"""Options that commands share: a name means the same everywhere."""

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal

import typer

from mambair_cli.cli.output import hush
from mambair_cli.errors import UsageError
from mambair_cli.system.values import plain_factor, plain_format, read_value


def finite(value: float | tuple[float, ...] | None) -> Any:
    """Refuse numbers that are none; for options, as their callback."""
    for number in value if isinstance(value, tuple) else (value,):
        if number is not None and not math.isfinite(number):
            raise typer.BadParameter(f"{number} is no number to compute with")
    return value


Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT", help="Images, folders, patterns, or - for standard input."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=hush, help="No progress and no notices; errors only.")
]


def _read_format(text: str) -> str:
    """Read the name of a format, also where it is written as the end of a file's name."""
    from mambair_cli.images import WRITABLE_SUFFIXES

    return read_value(
        "--format", plain_format(text, WRITABLE_SUFFIXES), "string", choices=[*WRITABLE_SUFFIXES]
    )


def _read_network_scale(text: str) -> int:
    """Read the scale of a network, as in 2x."""
    from mambair_cli.runs.output_size import NETWORK_SCALES

    ends = min(NETWORK_SCALES), max(NETWORK_SCALES)
    return read_value("--scale", plain_factor(text), "integer", *ends)


NetworkScale = Annotated[
    int | None,
    typer.Option(
        "--scale",
        "-s",
        metavar="FACTOR",
        parser=_read_network_scale,
        help="Of upscale: 2, 3 or 4. [default: 4]",
    ),
]
ModelName = Annotated[str, typer.Option(metavar="NAME", help="Model by name; see `mambair models list`.")]
Weights = Annotated[
    str | None, typer.Option(metavar="FILE", help="Any MambaIR checkpoint in place of a model.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[
    Literal["auto", "fp32", "fp16"],
    typer.Option(help="Of products and convolutions; auto is fp16 on CUDA, else fp32."),
]
Tile = Annotated[
    int | None,
    typer.Option(
        min=16,
        metavar="PIXELS",
        help="Largest side of a tile. [default: 256; on CUDA by image and model]",
    ),
]
Overlap = Annotated[
    int | None, typer.Option(min=0, metavar="PIXELS", help="What neighbouring tiles share. [default: 16]")
]
Seed = Annotated[int, typer.Option(metavar="NUMBER", help="Of the noise that MambaIRv2 draws.")]


@dataclass(frozen=True)
class Options:
    """What every restoring command takes."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File (one input), folder, or - for standard output; with --from-file a folder. "
            "[default: beside the input]",
        ),
    ] = None
    from_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Names of images, one a line; - for standard input."),
    ] = None
    null: Annotated[bool, typer.Option("--null", help="Names there end with a NUL, not with a line.")] = False
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Of a folder take only these, as in *.jpg or raw/*."),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Of a folder leave these out, files or folders in it."),
    ] = None
    model: ModelName = "auto"
    weights: Weights = None
    device: Device = "auto"
    devices: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Several, as in cuda:0,cuda:1, or all: a worker on each."),
    ] = None
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes side by side on the CPU.")
    ] = None
    server: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            envvar="MAMBAIR_SERVER",
            help="Have `mambair serve` do it: auto, unix:/path, http://127.0.0.1:8765.",
        ),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Workers on all machines of a Ray cluster: auto, or HOST:PORT of its head.",
        ),
    ] = None
    precision: Precision = "auto"
    tile: Tile = None
    overlap: Overlap = None
    seed: Seed = 0
    strength: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            callback=finite,
            help="Share of what the model does; the rest is the input: 0.7 keeps some grain.",
        ),
    ] = 1.0
    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            parser=_read_format,
            help="Of the results: png, jpeg, webp, tiff, avif or gif. [default: as the input]",
        ),
    ] = None
    quality: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            metavar="QUALITY",
            help="Of JPEG, WebP and AVIF; 100 is lossless for the last two. [default: 95]",
        ),
    ] = None
    depth: Annotated[
        Literal["auto", "8", "16"], typer.Option(help="Bits a sample; auto: as the input, if the format can.")
    ] = "auto"
    strip: Annotated[bool, typer.Option("--strip", help="Leave out all metadata; colours become sRGB.")] = (
        False
    )
    background: Annotated[
        str | None,
        typer.Option(
            metavar="COLOUR",
            help="Behind transparent pictures in JPEG: white or #rrggbb. [default: such a picture fails]",
        ),
    ] = None
    preserve_times: Annotated[
        bool, typer.Option("--preserve-times", help="Give results the times of their inputs.")
    ] = False
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Restore what is there of files that are cut short.")
    ] = False
    max_pixels: Annotated[int, typer.Option(min=1, metavar="PIXELS", help="Refuse larger images.")] = 2**30
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out what an earlier run has done, and finish the rest.")
    ] = False
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first image that fails.")] = (
        False
    )
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False
    quiet: Quiet = False
    json: Annotated[bool, typer.Option("--json", help="Print one JSON line per event, not paths.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = (
        False
    )
    offline: Offline = False


def typed(context: typer.Context) -> dict[str, Any]:
    """Return the options that stand on the command line, and their values, by the names of parameters."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {
        name: context.params[name]
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    }


def refuse(options: dict[str, Any], names: Iterable[str], why: str) -> None:
    """Refuse options that would do nothing.

    Args:
        options: From :func:`typed`.
        names: Of parameters that mean nothing here.
        why: That is so.

    Raises:
        UsageError: One of them stands on the command line.
    """
    for name in names:
        if name in options:
            raise UsageError(f"{why}: {_show(name, options[name])}; leave it out")


def _show(name: str, value: Any) -> str:
    """Show an option as it was typed."""
    values = () if value is True else value if isinstance(value, tuple) else (value,)
    shown = [f"{number:g}" if isinstance(number, float) else str(number) for number in values]
    return " ".join([f"--{name.replace('_', '-')}", *shown])


def check_options(options: Options) -> None:
    """Refuse what contradicts itself or would do nothing, whatever the inputs are."""
    if options.output == "":
        raise UsageError("-o has an empty name; give it a file, a folder or -")
    if options.null and options.from_file is None:
        raise UsageError("--null is of names that come from a list; give one with --from-file")
    several = None if options.workers is None else f"--workers {options.workers}"
    if options.devices is not None:
        several = f"--devices {options.devices}"
    is_repeated = options.device == "cpu" and options.devices is None  # workers are there anyway
    if several and options.device != "auto" and not is_repeated:
        raise UsageError(f"--device {options.device} and {several} exclude each other; give one")
    if options.ray is not None:
        device = None if options.device == "auto" else f"--device {options.device}"
        other = "--dry-run" if options.dry_run else several or device
        if other:
            raise UsageError(f"--ray {options.ray} and {other} exclude each other; give one")
    if options.format is not None:
        check_format(options.format, options)
        # Not where the name alone says the format: scripts go through formats by that.
        if options.quality is not None and options.format not in ("jpeg", "webp", "avif"):
            raise UsageError(f"{options.format} has no quality: --quality {options.quality}; leave it out")
        if options.background is not None and options.format != "jpeg":
            raise UsageError(
                f"{options.format} keeps transparency: --background {options.background}; leave it out"
            )


def check_format(format: str, options: Options) -> None:
    """Refuse what the format of all results has not."""
    if options.depth == "16" and format not in ("png", "tiff", "avif"):
        raise UsageError(f"{format} has no 16 bits a sample; png, tiff and avif have")


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
    collect.__signature__ = inspect.Signature(own + options)  # pyright: ignore[reportAttributeAccessIssue] PEP 362
    return collect
