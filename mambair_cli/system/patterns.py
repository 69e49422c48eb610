"""Patterns of names, as shells expand them: ``**`` stands for folders of any depth, without linked ones."""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_SEPARATORS = re.escape(os.sep + (os.altsep or ""))
_SEPARATOR = re.compile(f"[{_SEPARATORS}]+")
_BRACES = re.compile(r"\{[^{}]*,[^{}]*\}")
# The first ** that is a whole part of a pattern, and those that follow it at once, which add nothing.
_ANY_DEPTH = re.compile(rf"(?:(?<=[{_SEPARATORS}])|^)\*\*(?:[{_SEPARATORS}]+\*\*)*(?:[{_SEPARATORS}]+|$)")


@dataclass
class Matches:
    """What a pattern matches.

    Attributes:
        names: Files and folders, by name, those that lie in linked folders last: these may be others of them
            again. For a pattern that ends in ``**``, a folder stands for all that is in it.
        links: Linked folders where ``**`` stands, which are left out: one that leads upwards has no end.
        unreadable: Errors of folders there that cannot be read.
    """

    names: list[str] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    unreadable: list[OSError] = field(default_factory=list)


def must_be_expanded(name: str) -> bool:
    """Tell whether a name is a pattern: one that exists, with ``[`` in it, is none, nor are its folders."""
    return glob.has_magic(name) and glob.has_magic(_split(name)[1])


def explain_no_match(pattern: str) -> str:
    """Say what would work where a pattern of inputs matches nothing."""
    brackets = "check it; a bracket itself is written [[]" if "[" in _split(pattern)[1] else "check it"
    return explain_braces(pattern) or brackets


def explain_braces(pattern: str, advice: str = "give each name in them, or leave the quotes out") -> str:
    """Say that braces, as in ``*.{jpg,png}``, are not expanded; an empty text for a pattern without any.

    Args:
        pattern: The pattern.
        advice: What would work.
    """
    return f"braces are not expanded here: {advice}" if _BRACES.search(pattern) else ""


def expand(pattern: str) -> Matches:
    """Find the files and folders that a pattern matches; what is hidden is matched by a dot alone.

    Folders at its beginning that exist as they are written are meant themselves, with the brackets in their
    names.
    """
    links: set[str] = set()
    errors: dict[str, OSError] = {}
    literal, rest = _split(pattern)
    found = sorted(_find(glob.escape(literal) + rest, links, errors))

    is_link = cache(os.path.islink)
    names = [name for name in found if links.isdisjoint(_with_folders(name))]
    names.sort(key=lambda name: any(map(is_link, _with_folders(os.path.dirname(name)))))
    return Matches(names, sorted(map(Path, links)), list(errors.values()))


def _split(name: str) -> tuple[str, str]:
    """Split a name behind the longest beginning that exists as it is written; only the rest is a pattern."""
    if os.path.lexists(name):
        return name, ""
    end = 0
    for separator in _SEPARATOR.finditer(name):
        before = name[: separator.start()]
        if glob.has_magic(before) and not os.path.isdir(before):
            break
        end = separator.end()
    return name[:end], name[end:]


def _with_folders(name: str) -> Iterator[str]:
    """Yield a name and those of the folders that it lies in."""
    while name:
        yield name
        above = os.path.dirname(name)
        name = "" if above == name else above


def _find(pattern: str, links: set[str], errors: dict[str, OSError]) -> set[str]:
    """Return what a pattern matches; collect linked folders, and errors by folder, where ``**`` stands."""
    place = _ANY_DEPTH.search(pattern)
    if place is None:
        return set(glob.glob(pattern))
    before, after = pattern[: place.start()], pattern[place.end() :]
    found: set[str] = set()
    for base in filter(os.path.isdir, glob.glob(before)) if before else [""]:
        if base and not after:
            found.add(base)  # which stands for all that is in it
            continue
        folders = _walk(base, links, errors)
        for folder in folders if after else folders[:1]:
            found |= _find(os.path.join(glob.escape(folder), after or "*"), links, errors)
    return found


def _walk(base: str, links: set[str], errors: dict[str, OSError]) -> list[str]:
    """Return a folder and all below it, without hidden and linked ones; an empty name is the current one."""
    walked = []

    def note(error: OSError) -> None:
        errors[str(error.filename)] = error

    for root, folders, _ in os.walk(base or os.curdir, onerror=note):
        folder = root if base else os.path.relpath(root)
        folder = "" if folder == os.curdir else folder
        walked.append(folder)
        folders[:] = [name for name in folders if not name.startswith(".")]
        links.update(name for each in folders if os.path.islink(name := os.path.join(folder, each)))
    return walked
