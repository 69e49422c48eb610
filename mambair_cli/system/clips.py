"""Names, times and rates of clips, as people write them; here since --help needs them."""

import re
from fractions import Fraction

from mambair_cli.errors import UsageError

CLIP_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".mts", ".m2ts", ".ts"),
    *(".wmv", ".flv", ".vob", ".3gp", ".ogv", ".dv", ".mxf", ".y4m"),
)


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
