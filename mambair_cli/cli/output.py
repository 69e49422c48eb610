"""Print: data as JSON lines on stdout, messages on stderr."""

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mambair_cli.errors import MambairError
from mambair_cli.system.wording import show, show_number

WIDEST_NAMES = 40  # characters of a column of names
_is_quiet = False
_BYTES = "\ud800-\udfff"  # stand for bytes of a path that are not UTF-8
_LINE_ENDS = "\u2028\u2029"  # end lines for some software, as do some control characters
# What may control a terminal, end a line, or turn the text after it around.
CONTROLS = re.compile(f"[\x00-\x1f\x7f-\x9f{_LINE_ENDS}\u202a-\u202e\u2066-\u2069{_BYTES}]")
_NOT_IN_JSON = re.compile(f"[\x7f-\x9f{_LINE_ENDS}{_BYTES}]")


def print_event(event: str, **facts: Any) -> None:
    """Print an event and its facts as a line of JSON."""
    print_json({"event": event, **facts})


def print_json(facts: dict[str, Any]) -> None:
    """Print a line of JSON, valid UTF-8 and one line whatever paths it contains."""
    is_ascii = (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")
    line = json.dumps(facts, ensure_ascii=is_ascii, allow_nan=False)
    print(_NOT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", line), flush=True)


def say(sentence: str) -> None:
    """Print a message on stderr, in one line whatever names it contains."""
    print(f"mambair: {escape(sentence)}", file=sys.stderr)


def escape(text: str) -> str:
    """Return a text that a terminal shows in one line and as it is: what would control it is escaped."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def hush(is_quiet: bool) -> bool:
    """Turn remarks off or on; the callback of --quiet."""
    global _is_quiet
    _is_quiet = is_quiet
    return is_quiet


def remark(sentence: str) -> None:
    """Print a message, unless the command is quiet."""
    if not _is_quiet:
        say(sentence)


def complain(error: MambairError) -> None:
    """Print an error on stderr."""
    show_traceback(error)
    say(f"error: {error}")


def report_failure(
    name: str, error: MambairError, as_json: bool, event: str = "failed", is_printed: bool = False
) -> None:
    """Print that an input failed: the error and, for JSON, an event.

    Args:
        name: Name of the input.
        error: Why it failed.
        as_json: Whether events are printed.
        event: Name of the event.
        is_printed: Whether the error was printed before, for another input.
    """
    if not is_printed:
        complain(error)
    if as_json:
        from mambair_cli.runs.outcomes import describe_error

        print_event(event, input=name, **describe_error(error))


def warn_of_clip(name: str, sentences: Sequence[str]) -> None:
    """Print what is damaged in a clip, in a line on stderr; nothing where nothing is.

    Args:
        name: Name of the clip, or "-" for standard input.
        sentences: Its warnings, most of which name it.
    """
    if sentences:
        shown = "standard input" if name == "-" else show(Path(name))
        is_named = all(shown in sentence for sentence in sentences)
        say(f"warning: {'' if is_named else f'{name}: '}{'; '.join(sentences)}")


def show_traceback(error: Exception) -> None:
    """Print the traceback behind an error, if MAMBAIR_DEBUG is set."""
    if os.environ.get("MAMBAIR_DEBUG", "0") not in ("", "0"):
        import traceback

        traceback.print_exception(error)


def format_rate(rate: float) -> str:
    """Return how many a second, or below one how many a minute, with two digits at least."""
    number, unit = (rate, "second") if rate > 1 else (60 * rate, "minute")
    return f"{number:.0f} a {unit}" if number >= 10 else f"{show_number(number)} a {unit}"


def column_width(names: Iterable[str]) -> int:
    """Return how wide a column of names is: one long name must not move all figures out of sight."""
    return min(WIDEST_NAMES, max(map(len, names)))
