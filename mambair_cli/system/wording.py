"""Write names, numbers and paths in messages."""

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path


def show(path: Path | str) -> str:
    """Return a path as a message of one line shows it."""
    return str(path) if str(path).isprintable() else repr(str(path))


def enumerate_names(names: Iterable[str], word: str = "and") -> str:
    """Join names with commas and a word before the last one."""
    *others, last = names
    return f"{', '.join(others)} {word} {last}" if others else last


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
