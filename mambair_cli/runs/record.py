"""What the journal of a folder of results says: which results are done, and of which inputs."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mambair_cli.errors import ImageError
from mambair_cli.runs.journal_entry import (
    Fit,
    JournalEntry,
    compare_stamps,
    is_result,
    parse_entry,
)
from mambair_cli.runs.noted_inputs import NotedInputs
from mambair_cli.runs.stamps import stamp_of
from mambair_cli.system.files import hash_of
from mambair_cli.system.result_folders import check_folder

JOURNAL_FILE = ".mambair.jsonl"
PARTS_FOLDER = ".mambair.parts"


class Record:
    """What the journal of a folder says; nothing is locked, written or removed.

    If a result has two lines, the one that fits the file counts: a worker that was taken for dead may have
    written the other one later, without a file.

    Args:
        folder: Folder of the results; it need not exist.

    Attributes:
        entries: How results came about, by their names within the folder.
        inputs: Finds inputs by what is noted of them.
        others: Lines of the journal that tell of no result that is complete; damaged ones tell nothing.
        is_outdated: Whether the journal has lines that nobody needs any more: those, and of two for a result
            one.

    Raises:
        OSError: The journal cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.inputs = NotedInputs(folder)
        self.entries: dict[str, JournalEntry] = {}
        self._copies: dict[str, bool] = {}  # whether they are results; each is read once
        self.others: list[dict[str, Any]] = []
        entries = 0
        for line in read_lines(folder / JOURNAL_FILE):
            if self._add(line):
                entries += 1
            else:
                self.others.append(line)
        self.is_outdated = bool(self.others) or entries > len(self.entries)
        for path in sorted((folder / PARTS_FOLDER).glob("*/*.jsonl")):
            for line in read_lines(path):
                self._add(line)

    def _add(self, line: dict[str, Any]) -> bool:
        """Take a line of the journal; tell whether it tells of a result."""
        entry = parse_entry(line)
        if entry is None:
            return False
        name = str(line["result"])
        before = self.entries.get(name)
        if before in (None, entry) or not _is_better(before, entry, self._folder / name):
            self.entries[name] = entry
        return True

    def is_done(self, source: Path, target: Path, settings: str) -> bool:
        """Tell whether a result need not be made again.

        Another file than the noted input is compared by its content: two may have one size and one time.

        Args:
            source: The input.
            target: The result.
            settings: Digest of all that the result depends on except the input.
        """
        entry = self.entries.get(self._name(target))
        if entry is None or entry.settings != settings or not self.is_ours(target):
            return False
        try:
            is_same = entry.input is None or self.inputs.is_same_file(entry.input, source)
            return (is_same and stamp_of(source) == entry.source) or hash_of(source) == entry.content
        except OSError:  # it cannot be read: the attempt to restore it will say why
            return False

    def is_ours(self, target: Path) -> bool:
        """Tell whether a result is one that a run has written, and nobody has changed since."""
        name = self._name(target)
        if name not in self._copies:
            entry = self.entries.get(name)
            fit = compare_stamps(target, entry)
            if fit is not Fit.MAYBE:
                return fit is Fit.SAME
            self._copies[name] = is_result(target, entry)
        return self._copies[name]

    def other_input(self, source: Path, target: Path) -> Path | None:
        """Return the input that a result was made of, if that is another one, and still there.

        None for a copy of that input, which has its content.
        """
        entry = self.entries.get(self._name(target))
        if entry is None or entry.input is None or not self.is_ours(target):
            return None
        other = self.inputs.find(entry.input)
        if other is None or self.inputs.is_same(entry.input, source):
            return None
        with suppress(OSError):
            return None if hash_of(source) == entry.content else other
        return None

    def is_changed(self, target: Path) -> bool:
        """Tell whether a result that a run has written is another file now.

        False where nothing tells, and for numbered images, of which each is looked at when its turn comes.
        """
        entry = self.entries.get(self._name(target))
        if entry is None or not os.path.lexists(target) or self.is_ours(target):
            return False
        return entry.sha256 is not None or compare_stamps(target, entry) is Fit.OTHER

    def entry_of(self, target: Path) -> JournalEntry | None:
        """Return how a result came about; None where ``is_ours`` is false."""
        return self.entries[self._name(target)] if self.is_ours(target) else None

    def _name(self, target: Path) -> str:
        return name_in(self._folder, target)


def read_record(folder: Path) -> Record:
    """Read what the journal of a folder says.

    Raises:
        ImageError: It cannot be read, or the folder is none.
    """
    try:
        return Record(folder)
    except OSError as error:
        check_folder(folder)
        raise ImageError(f"cannot read the journal in {folder}: {error.strerror}") from error


def read_lines(path: Path, wanted: bytes = b"") -> Iterator[dict[str, Any]]:
    """Yield the lines; an empty dictionary for one that is damaged, or that was cut off.

    Args:
        path: Journal, or a part of one.
        wanted: Bytes that a line must contain.
    """
    with suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            if wanted in line and not line.isspace():
                yield parse_line(line)


def parse_line(line: bytes) -> dict[str, Any]:
    """Return what a line says; an empty dictionary where it is damaged."""
    with suppress(ValueError, RecursionError):
        content = json.loads(line)
        if isinstance(content, dict):
            return content
    return {}


def _is_better(before: JournalEntry | None, entry: JournalEntry, target: Path) -> bool:
    """Tell whether the earlier one of two lines is that of the file; it is read only where no time tells."""
    fit = compare_stamps(target, before)
    if fit is Fit.MAYBE and compare_stamps(target, entry) is not Fit.SAME:
        return is_result(target, before)
    return fit is Fit.SAME


def name_in(folder: Path, target: Path) -> str:
    """Return the path of a result as lines of the journal have it: from the folder, with slashes."""
    inside = str(target).removeprefix(f"{folder}{os.sep}")
    if inside == str(target):
        inside = os.path.relpath(target, folder)
    return inside.replace(os.sep, "/")
