"""The parameters of a restoration, each described once: options of the commands, queries of the server.

Nothing heavy is imported here: ``--help`` needs this module. A test holds the constants to those of the
packages that use them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mambair_cli.checkpoints.catalog import Task
from mambair_cli.images.formats import DEFAULT_QUALITY, FORMATS, Format, find_format
from mambair_cli.restore.ranges import RANGES
from mambair_cli.runs.output_size import LARGEST_SCALE
from mambair_cli.system.values import ValueKind, plain_factor, read_value
from mambair_cli.system.wording import enumerate_names

LARGEST_SIDE = 2**31 - 1  # pixels of a result
MOST_PIXELS = 2**62


@dataclass(frozen=True)
class Parameter:
    """An option of the commands, and a parameter of a query.

    Attributes:
        name: Name in a query; the option is ``--name``, with dashes for underscores.
        kind: Type, as JSON Schema names it.
        help: What it means.
        metavar: Placeholder for the value in a command's help.
        default: Value where it is left out.
        unset: What happens where it is left out, if no single value says so.
        least: Smallest number allowed.
        most: Largest number allowed.
        choices: The only words allowed.
        plain: Turns other spellings of a value into the plain one.
    """

    name: str
    kind: ValueKind
    help: str
    metavar: str | None = None
    default: Any = None
    unset: str | None = None
    least: int | float | None = None
    most: int | float | None = None
    choices: tuple[str, ...] = ()
    plain: Callable[[str], str] = str

    @property
    def option(self) -> str:
        """Name on the command line."""
        return f"--{self.name.replace('_', '-')}"

    def parse(self, text: str, name: str | None = None) -> Any:
        """Read a value.

        Args:
            text: The value as it was written.
            name: Name for an error; that of a query by default.

        Raises:
            UsageError: No such value is allowed.
        """
        return read_value(name or self.name, self.plain(text), self.kind, self.least, self.most, self.choices)


def _plain_format(text: str) -> str:
    word = text.strip().lower().removeprefix(".")
    return find_format(f".{word}") or word


def _name(can: Callable[[Format], object], word: str = "and") -> str:
    """Name the formats that can do something, by a test of their rows, with a word before the last one."""
    return enumerate_names((row.title for row in FORMATS.values() if can(row)), word)


_OPAQUE = _name(lambda row: not row.has_alpha, "or")


def _range(name: str) -> dict[str, Any]:
    least, most = RANGES[name]
    return {"least": least, "most": most}


SCALE = Parameter(
    "scale",
    "number",
    f"Enlargement from 1 to {LARGEST_SCALE}, e.g. 2 or 2.5.",
    "FACTOR",
    unset="4",
    least=1,
    most=LARGEST_SCALE,
    plain=plain_factor,
)
WIDTH = Parameter(
    "width",
    "integer",
    "Width of the output, instead of --scale; with --height too, the output fits into both.",
    "PIXELS",
    least=1,
    most=LARGEST_SIDE,
)
HEIGHT = Parameter(
    "height",
    "integer",
    "Height of the output, instead of --scale.",
    "PIXELS",
    least=1,
    most=LARGEST_SIDE,
)
MEGAPIXELS = Parameter(
    "megapixels", "number", "Size of the output in megapixels, instead of --scale.", "N", least=1e-6
)
SIGMA = Parameter(
    "sigma",
    "number",
    "Strength of the noise: its standard deviation for samples from 0 to 255.",
    "SIGMA",
    unset="chosen by the image",
    **_range("sigma"),
)
JPEG_QUALITY = Parameter(
    "jpeg_quality",
    "integer",
    "JPEG quality that the image was saved with.",
    "QUALITY",
    unset="unknown, one model for all",
    **_range("jpeg_quality"),
)

MODEL = Parameter(
    "model",
    "string",
    "Model name from `mambair models list`; or real, clean or auto: chosen by the image.",
    "NAME",
    "auto",
)
PRECISION = Parameter(
    "precision",
    "string",
    "Precision of matrix products and convolutions; auto: fp16 on CUDA, else fp32.",
    default="auto",
    choices=("auto", "fp32", "fp16"),
)
TILE = Parameter(
    "tile",
    "integer",
    "Largest side of a tile of the input, in pixels.",
    "PIXELS",
    unset="256, on CUDA by image and model",
    **_range("tile"),
)
OVERLAP = Parameter(
    "overlap",
    "integer",
    "Pixels that neighbouring tiles share, so that no seam shows.",
    "PIXELS",
    unset="16",
    **_range("overlap"),
)
SEED = Parameter(
    "seed",
    "integer",
    "Random seed of MambaIRv2's inference noise.",
    "NUMBER",
    0,
    **_range("seed"),
)
STRENGTH = Parameter(
    "strength",
    "number",
    "How much of the model's result to use: 1.0 all, 0.7 leaves some grain.",
    "SHARE",
    1.0,
    **_range("strength"),
)
ENSEMBLE = Parameter(
    "ensemble",
    "boolean",
    "Average eight turned and mirrored forms: 0.1 dB better, eight times as slow.",
    default=False,
)
WRAP = Parameter(
    "wrap",
    "string",
    "Edges that meet, in textures (both) and 360° pictures (x): x for left and right, y for top and bottom.",
    default="none",
    choices=("none", "x", "y", "both"),
)
FORMAT = Parameter(
    "format",
    "string",
    f"Output format: {enumerate_names(FORMATS, 'or')}.",
    "FORMAT",
    unset="that of the input",
    choices=tuple(FORMATS),
    plain=_plain_format,
)
QUALITY = Parameter(
    "quality",
    "integer",
    f"Output quality of {_name(lambda row: row.has_quality)}; "
    f"100 is lossless for {_name(lambda row: row.is_lossless_at_100)}.",
    "QUALITY",
    DEFAULT_QUALITY,
    least=1,
    most=100,
)
DEPTH = Parameter(
    "depth",
    "string",
    "Bits per sample; auto: as the input, if the format can.",
    default="auto",
    choices=("auto", "8", "16"),
)
STRIP = Parameter("strip", "boolean", "Write no metadata; colours are converted to sRGB.", default=False)
NOTE = Parameter(
    "note",
    "boolean",
    "Note in the file what made it: version, model and its hash, options; `mambair inspect` shows it.",
    default=False,
)
BACKGROUND = Parameter(
    "background",
    "string",
    f"Colour behind transparent images saved as {_OPAQUE}: white or #rrggbb.",
    "COLOUR",
    unset="such an image fails",
)
DAMAGED = Parameter(
    "damaged", "boolean", "Restore what is left of truncated or damaged files.", default=False
)
MAX_PIXELS = Parameter(
    "max_pixels",
    "integer",
    "Refuse images with more pixels.",
    "PIXELS",
    2**30,
    least=1,
    most=MOST_PIXELS,
)
OFFLINE = Parameter("offline", "boolean", "Do not use the network: download no models.", default=False)

SHARED = (
    MODEL,
    PRECISION,
    TILE,
    OVERLAP,
    SEED,
    STRENGTH,
    ENSEMBLE,
    WRAP,
    FORMAT,
    QUALITY,
    DEPTH,
    STRIP,
    NOTE,
    BACKGROUND,
    DAMAGED,
    MAX_PIXELS,
    OFFLINE,
)
"""Parameters of all tasks."""

TASK_PARAMETERS: dict[Task, tuple[Parameter, ...]] = {
    "upscale": (SCALE, WIDTH, HEIGHT, MEGAPIXELS),
    "denoise": (SIGMA,),
    "dejpeg": (JPEG_QUALITY,),
}
"""Parameters that a task has of its own."""
