"""Patterns of names, as shells expand them: ``**`` stands for folders of any depth, without linked ones."""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_SEPARATORS = re.escape(os.sep + (os.altsep or ""))
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


def expand(pattern: str) -> Matches:
    """Find the files and folders that a pattern matches; what is hidden is matched by a dot alone."""
    links: set[str] = set()
    errors: dict[str, OSError] = {}
    found = sorted(_find(pattern, links, errors))

    is_link = cache(os.path.islink)
    names = [name for name in found if links.isdisjoint(_with_folders(name))]
    names.sort(key=lambda name: any(map(is_link, _with_folders(os.path.dirname(name)))))
    return Matches(names, sorted(map(Path, links)), list(errors.values()))


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
