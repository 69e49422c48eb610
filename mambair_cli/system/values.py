"""Read values that people write, in options and queries, with the same errors; write numbers and names."""

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mambair_cli.errors import UsageError

Kind = Literal["integer", "number", "boolean", "string"]
"""Type of a value, as JSON Schema names it."""

WITH_QUALITY = ("jpeg", "webp", "avif")  # formats of files that have a quality

# Names of clips; here since --help needs them.
CLIP_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".mts", ".m2ts", ".ts"),
    *(".wmv", ".flv", ".vob", ".3gp", ".ogv", ".dv", ".mxf", ".y4m"),
)

# Smallest and largest numbers of options that are also arguments of a restorer; None for no such bound.
RANGES: dict[str, tuple[int | None, int | None]] = {
    "sigma": (0, 255),
    "jpeg_quality": (1, 100),
    "tile": (16, None),
    "overlap": (0, None),
    "seed": (None, None),
    "strength": (0, 1),
}

_PATTERNS = {"integer": r"[-+]?[0-9]{1,19}", "number": r"[-+.0-9e]{1,32}", "boolean": "true|false"}
_CONVERSIONS = {"integer": int, "number": float, "boolean": "true".__eq__}
_LARGEST_FACTOR = 10  # of factors and shares, which people also write in percent
_TIMES = re.compile(r"[x×]?\s*([^x×\s]+)\s*[x×]?")  # 2x, x2, ×2


def read_value(
    name: str,
    text: str,
    kind: Kind,
    least: float | None = None,
    most: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """Read a value.

    Args:
        name: Name of the option or parameter, for the error.
        text: The value as it was written.
        kind: Its type.
        least: Smallest number allowed.
        most: Largest number allowed.
        choices: The only words allowed; empty for any.

    Returns:
        The value, of Python's type for that kind.

    Raises:
        UsageError: No such value is allowed.
    """
    if kind == "string":
        if not choices or text in choices:
            return text
        raise UsageError(f"{name} is {text or 'empty'}; {', '.join(choices)} would work")
    try:
        value = _CONVERSIONS[kind](text) if re.fullmatch(_PATTERNS[kind], text) else None
    except ValueError:
        value = None
    low, high = -math.inf if least is None else least, math.inf if most is None else most
    if value is None or math.isinf(value) or not low <= value <= high:
        wanted = f"it must be {describe_kind(kind, least, most)}"
        if kind == "number" and re.fullmatch(r"[-+]?[0-9]*,[0-9]+", text):
            wanted += f", written as {text.replace(',', '.')}"
        if most is not None and most <= _LARGEST_FACTOR and (share := read_percentage(text)) is not None:
            wanted += f", written as {share:g}" if low <= share <= high else ""
        raise UsageError(f"{name} is {text or 'empty'}; {wanted}")
    return value


def describe_kind(kind: Kind, least: float | None = None, most: float | None = None) -> str:
    """Write which values are allowed, in words, such as "a whole number from 1 to 100"."""
    if kind == "boolean":
        return "true or false"
    noun = "a whole number" if kind == "integer" else "a number"
    if least is None and most is None:
        return noun
    return f"{noun} {'of' if least is None or most is None else 'from'} {describe_range(least, most)}"


def describe_range(least: float | None, most: float | None) -> str:
    """Write a range of numbers, which may be open at one end."""
    if least is not None and most is not None:
        return f"{_plain(least)} to {_plain(most)}"
    return (
        f"{_plain(most)} or less" if least is None and most is not None else f"{_plain(least or 0)} or more"
    )


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def show_number(number: float, digits: int = 2) -> str:
    """Write a number with about so many digits, and never with an exponent: 1600, 17, 0.25."""
    return format(Decimal(f"{number:.{digits}g}"), "f")


def format_bytes(count: int) -> str:
    """Write a number of bytes in a suitable unit."""
    number = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{show_number(number, 3 if number < 1000 else 4)} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def show_count(count: int, noun: str) -> str:
    """Write how many there are of a thing whose name has an s in the plural: 1 frame, 2 frames."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def as_argument(path: Path) -> str:
    """Write a path as commands take it: ./-a.png in place of -a.png, which would be an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def plain_factor(text: str) -> str:
    """Return the number of a factor, which may be written 2x, x2 or ×2."""
    found = _TIMES.fullmatch(text.strip().lower())
    return found[1] if found else text


def read_percentage(text: str) -> float | None:
    """Return the number that a percentage means, such as 2 for 200%; None for other texts."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*%", text.strip())
    return float(found[1]) / 100 if found else None


def plain_format(text: str, suffixes: Mapping[str, Sequence[str]]) -> str:
    """Return the name of a format, which may be written in capitals or as the suffix of a file name.

    Args:
        text: The format as it was written.
        suffixes: Suffixes of each format, with their dots.
    """
    word = text.strip().lower().removeprefix(".")
    return next((name for name, ends in suffixes.items() if f".{word}" in ends), word)


Wrap = Literal["none", "x", "y", "both"]
"""Directions in which the edges of a picture meet: x for left and right, y for top and bottom."""


def wraps_x(wrap: Wrap) -> bool:
    """Tell whether what leaves a picture at the right comes back at the left."""
    return wrap in ("x", "both")


def wraps_y(wrap: Wrap) -> bool:
    """Tell whether what leaves a picture at the bottom comes back at the top."""
    return wrap in ("y", "both")


def read_time(text: str, name: str) -> Fraction:
    """Read a time in a clip: seconds, or minutes and seconds, or hours, minutes and seconds.

    Args:
        text: Numbers, separated by colons; seconds may have a fraction.
        name: Name of the option, for the error.

    Raises:
        UsageError: It is no such text.
    """
    found = re.fullmatch(r"\s*(?:(?:(\d{1,4}):)?(\d{1,4}):)?(\d{1,6}(?:\.\d{1,9})?)\s*", text)
    if found is None:
        raise UsageError(f"{name} is {text or 'empty'}; it must be a time, such as 83.5 or 00:01:23.5")
    hours, minutes, seconds = (Fraction(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + seconds


def read_rate(number: float) -> Fraction:
    """Return a rate of frames exactly; 23.976, 29.97 and 59.94 are the 1000/1001 of NTSC."""
    whole = round(number * 1.001)
    if abs(number - whole / 1.001) < 0.001 and number != whole:
        return Fraction(whole * 1000, 1001)
    return Fraction(number).limit_denominator(1001)


class Region(NamedTuple):
    """A part of a picture.

    Attributes:
        left: Its first column.
        top: Its first row.
        width: Its width, in pixels.
        height: Its height, in pixels.
    """

    left: int
    top: int
    width: int
    height: int

    def __str__(self) -> str:
        """Write it as people do."""
        return ",".join(map(str, self))


def read_region(text: str, name: str) -> Region:
    """Read a part of a picture: left column, top row, width and height, in pixels.

    Args:
        text: Four whole numbers, separated by commas.
        name: Name of the option or parameter, for the error.

    Raises:
        UsageError: It is no such text, or the part is empty.
    """
    found = re.fullmatch(r"\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*", text)
    region = Region(*map(int, found.groups())) if found else None
    if region is None or not region.width or not region.height:
        raise UsageError(
            f"{name} is {text or 'empty'}; it must be the left column, the top row, the width and the height "
            "in pixels, such as 120,80,256,256"
        )
    return region
