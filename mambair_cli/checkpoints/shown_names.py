"""Names of tensors in messages: few, short, printable."""

from collections.abc import Iterable

MOST_NAMES = 3  # in one message
LONGEST_NAME = 200  # characters


def list_names(names: Iterable[object]) -> str:
    """Return the first few names and the number of the others, as text."""
    names = list(names)
    rest = len(names) - MOST_NAMES
    return ", ".join(map(show_name, names[:MOST_NAMES])) + (f" and {rest} more" if rest > 0 else "")


def show_name(name: object) -> str:
    """Return a name from a file as short, printable text of one line."""
    if not isinstance(name, str):
        return type(name).__name__
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name[: LONGEST_NAME + 1])
    return shown if len(name) <= LONGEST_NAME else f"{shown[:LONGEST_NAME]}…"
