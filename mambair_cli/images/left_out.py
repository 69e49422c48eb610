"""What is among the inputs and is not restored, reported to the user so that no file is missing unnoticed."""

import errno
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mambair_cli.errors import ImageError
from mambair_cli.system.clips import CLIP_SUFFIXES

KINDS_SHOWN = 8  # in one sentence


@dataclass
class LeftOut:
    """What was left out of a run.

    Attributes:
        kinds: Number of files in folders that cannot be read, by suffix in small letters.
        unread: One of these files.
        clips: Clips among images, which are restored only in commands of their own.
        special: Pipes, sockets and devices, which are read only where they are named.
        links: Linked folders, which are not followed.
        results: Images that are results of other inputs.
        repeated: Images that were named several times, and are restored once.
        unreadable: Errors of folders that cannot be read, which are failures.
        hidden: A hidden image or folder. These are not read and not reported, since systems make many; where
            a folder has nothing else, an error names it.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    unread: Path | None = None
    clips: list[Path] = field(default_factory=list)
    special: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    repeated: list[Path] = field(default_factory=list)
    unreadable: list[OSError] = field(default_factory=list)
    hidden: Path | None = None

    def update(self, other: "LeftOut") -> None:
        """Add what was left out elsewhere."""
        self.kinds.update(other.kinds)
        self.unread = self.unread or other.unread
        self.hidden = self.hidden or other.hidden
        self.clips += other.clips
        self.special += other.special
        self.links += other.links
        self.results += other.results
        self.repeated += other.repeated
        self.unreadable += other.unreadable

    def settle(self) -> None:
        """Keep each folder once: several patterns, as for several suffixes, may have found it."""
        self.links = list(dict.fromkeys(self.links))
        self.unreadable = list({error.filename: error for error in self.unreadable}.values())

    def add_unread(self, path: Path) -> None:
        """Count a file that is not read as an image, by its suffix."""
        if path.suffix.lower() in CLIP_SUFFIXES:
            self.clips.append(path)
            return
        self.kinds[path.suffix.lower()] += 1
        self.unread = self.unread or path

    def remarks(self) -> Iterator[str]:
        """Yield a sentence for each reason that is no failure."""
        if self.kinds.total() == 1:
            yield f"left out a file of a format that is not supported: {self.unread}"
        elif self.kinds:
            yield (
                f"left out {self.kinds.total()} files of formats that are not supported: "
                f"{describe_kinds(self.kinds)}; such as {self.unread}"
            )
        if self.clips:
            clips = _count(self.clips, "a clip", "clips")
            whose = "its" if len(self.clips) == 1 else "their"
            yield f"left out {clips}; name {_them(self.clips)} in a command of {whose} own"
        if self.special:
            special = _count(self.special, "a pipe or device", "pipes or devices")
            yield f"left out {special}; name {_them(self.special)} to read from {_them(self.special)}"
        if self.links:
            folders = _count(self.links, "a linked folder", "linked folders")
            yield f"left out {folders}; name {_them(self.links)} to restore what is in {_them(self.links)}"
        if self.results:
            images = _count(self.results, "an image that is a result", "images that are results")
            yield f"left out {images}; name {_them(self.results)} alone to restore {_them(self.results)}, too"
        if self.repeated:
            several = len(self.repeated) > 1
            images = (
                f"{len(self.repeated)} images, such as {self.repeated[0]}" if several else self.repeated[0]
            )
            yield f"named several times, restored once: {images}"

    def failures(self) -> Iterator[tuple[str, ImageError]]:
        """Yield the name of each folder that cannot be read, and the error that tells of it."""
        for error in self.unreadable:
            yield str(error.filename), ImageError(explain_unreadable(error))

    def facts(self) -> Iterator[dict[str, Any]]:
        """Yield a record for each reason, for JSON."""
        found: list[tuple[str, int, object, dict[str, int]]] = [
            (why, len(paths), paths[0], {})
            for why, paths in (
                ("unreadable_folder", [error.filename for error in self.unreadable]),
                ("clip", self.clips),
                ("special", self.special),
                ("linked_folder", self.links),
                ("result", self.results),
                ("repeated", self.repeated),
            )
            if paths
        ]
        if self.kinds:
            found.append(("kind", self.kinds.total(), self.unread, dict(self.kinds.most_common())))
        for why, count, example, kinds in found:
            yield {"why": why, "count": count, "example": str(example), "kinds": kinds}


def explain_unreadable(error: OSError) -> str:
    """Say in a sentence that a folder cannot be read, and what would work."""
    is_forbidden = error.errno in (errno.EACCES, errno.EPERM)
    remedy = "change its permissions" if is_forbidden else "check its disk"
    return f"cannot read the folder {error.filename}: {error.strerror}; {remedy}"


def describe_kinds(kinds: Counter[str]) -> str:
    """Return the number of files by kind as text, the most frequent kinds first."""
    shown = [f"{count} {kind or 'without a suffix'}" for kind, count in kinds.most_common(KINDS_SHOWN)]
    more = sum(kinds.values()) - sum(count for _, count in kinds.most_common(KINDS_SHOWN))
    return ", ".join([*shown, f"{more} of other kinds"] if more else shown)


def _count(paths: Sequence[Path], one: str, several: str) -> str:
    return f"{one}: {paths[0]}" if len(paths) == 1 else f"{len(paths)} {several}, such as {paths[0]}"


def _them(paths: Sequence[Path]) -> str:
    return "it" if len(paths) == 1 else "them"
