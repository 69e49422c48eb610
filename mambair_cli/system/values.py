"""Read values that people write, in options and queries, with the same errors."""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

from mambair_cli.errors import UsageError

ValueKind = Literal["integer", "number", "boolean", "string"]
"""Type of a value, as JSON Schema names it."""
_PATTERNS = {"integer": r"[-+]?[0-9]{1,19}", "number": r"[-+.0-9e]{1,32}", "boolean": "true|false"}
_CONVERSIONS = {"integer": int, "number": float, "boolean": "true".__eq__}
_LARGEST_FACTOR = 10  # of factors and shares, which people also write in percent
_MOST_DIGITS = 100  # of a number; int() refuses 4301, and floats end at 309
_TIMES = re.compile(r"[x×]?\s*([^x×\s]+)\s*[x×]?")  # 2x, x2, ×2


def read_value(
    name: str,
    text: str,
    kind: ValueKind,
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
    if kind != "boolean" and len(text) > _MOST_DIGITS:
        wanted = describe_kind(kind, least, most)
        raise UsageError(f"{name} has too many digits: {len(text)}; it must be {wanted}")
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


def describe_kind(kind: ValueKind, least: float | None = None, most: float | None = None) -> str:
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


def plain_factor(text: str) -> str:
    """Return the number of a factor, which may be written 2x, x2 or ×2."""
    found = _TIMES.fullmatch(text.strip().lower())
    return found[1] if found else text


def read_percentage(text: str) -> float | None:
    """Return the number that a percentage means, such as 2 for 200%; None for other texts."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*%", text.strip())
    return float(found[1]) / 100 if found else None
