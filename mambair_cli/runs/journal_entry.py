"""A line of the journal: how a result came about, and whether a file is still that result."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mambair_cli.runs.noted_inputs import Noted, parse_noted
from mambair_cli.runs.stamps import Stamp, hash_result, stamp_of


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """How a result came about.

    Attributes:
        settings: Digest of all that the result depends on except the input.
        content: SHA-256 of the input.
        source: The input, when it was read.
        result: The file, when it was written.
        images: Number of images, where the result is numbered images; None for a file.
        sha256: SHA-256 of the result, from ``stamps.hash_result``; None in lines of earlier versions.
        input: Which input it is, from ``noted_inputs``; None for a pipe, and in lines of earlier versions.
    """

    settings: str
    content: str
    source: Stamp
    result: Stamp
    images: int | None = None
    sha256: str | None = None
    input: Noted | None = None


class Fit(Enum):
    """How far a file is known to be the result that a line tells of.

    Attributes:
        SAME: Size and time are those of the line.
        MAYBE: The size is, the time is not, as with a copy: the content tells.
        OTHER: It is another file, or there is none.
    """

    SAME = "same"
    MAYBE = "maybe"
    OTHER = "other"


def compare_stamps(target: Path, entry: JournalEntry | None) -> Fit:
    """Tell how far a file, or numbered images, are the result of a line, without reading them."""
    if entry is not None:
        with suppress(OSError):
            stamp = stamp_of(target, entry.images)
            if stamp == entry.result:
                return Fit.SAME
            if stamp.size == entry.result.size:
                return Fit.MAYBE
    return Fit.OTHER


def is_result(target: Path, entry: JournalEntry | None) -> bool:
    """Tell whether a file is the result of a line; it is read only where its time has changed alone.

    Copies, archives and some disks keep no time, or only a part of it.
    """
    fit = compare_stamps(target, entry)
    if fit is Fit.MAYBE and entry is not None and entry.sha256 is not None:
        with suppress(OSError):
            return hash_result(target, entry.images) == entry.sha256
    return fit is Fit.SAME


def parse_entry(line: dict[str, Any]) -> JournalEntry | None:
    """Return what a line of the journal tells of a result; None for other lines."""
    match line:
        case {
            "result": str(),
            "settings": str(settings),
            "content": str(content),
            "source": [int(), int()] as source,
            "written": [int(), int()] as written,
            **others,
        }:
            images, sha256 = others.get("images"), others.get("sha256")
            images = images if isinstance(images, int) else None
            sha256 = sha256 if isinstance(sha256, str) else None
            input = parse_noted(others.get("input"))
            stamps = Stamp(*source), Stamp(*written)
            return JournalEntry(sys.intern(settings), content, *stamps, images, sha256, input)
    return None


def describe_entry(name: str, entry: JournalEntry) -> dict[str, Any]:
    """Return the line for a result.

    Args:
        name: Name of the result within the folder.
        entry: How it came about.
    """
    optional = {"images": entry.images, "sha256": entry.sha256, "input": entry.input}
    return {
        **{key: value for key, value in optional.items() if value is not None},
        "result": name,
        "settings": entry.settings,
        "content": entry.content,
        "source": entry.source,
        "written": entry.result,
    }
