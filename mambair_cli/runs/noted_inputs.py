"""Which input a line of the journal tells of: its path as seen from the folder of results."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

Noted = str | tuple[str, str]
"""An input as it was named and, where that leads over links, the file itself."""


class NotedInputs:
    """Notes inputs as the journal of a folder does, and finds them again.

    A path is relative to the folder of results, so that a project can be moved, or mounted elsewhere. It is
    absolute where the two have no folder in common but the root. An input is known by its name, also as a
    link that is made to point to another file: then it is an input with new content.

    Args:
        folder: Folder of the results; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._place = os.path.realpath(folder)  # ".." behind a link would lead elsewhere
        self._folders: dict[str, tuple[str, str]] = {}  # as named, and without links; inputs are in few

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is remembered of folders: each job takes this to another process."""
        return {**vars(self), "_folders": {}}

    def note(self, source: Path) -> Noted:
        """Return what the journal notes of an input."""
        parent, name = os.path.split(os.path.abspath(source))
        if parent not in self._folders:
            self._folders[parent] = self._see(parent), self._see(os.path.realpath(parent))
        named, real = (f"{folder}/{name}" for folder in self._folders[parent])
        if os.path.islink(source):
            folder, name = os.path.split(os.path.realpath(source))
            real = f"{self._see(folder)}/{name}"
        return named if named == real else (named, real)

    def is_same_file(self, noted: Noted, source: Path) -> bool:
        """Tell whether an input is the file that was noted, by this name or another one."""
        if noted == self.note(source):
            return True
        with suppress(OSError):
            return os.path.samefile(self._find(_names_of(noted)[-1]), source)
        return False

    def is_same(self, noted: Noted, source: Path) -> bool:
        """Tell whether an input is the one that was noted, whatever file its name leads to now."""
        return _names_of(noted)[0] == _names_of(self.note(source))[0] or self.is_same_file(noted, source)

    def find(self, noted: Noted) -> Path | None:
        """Return the path of an input that was noted; None where it is there no more."""
        return next(filter(os.path.isfile, map(self._find, _names_of(noted))), None)

    def find_file(self, noted: Noted) -> Path | None:
        """Return the file itself that was noted, whatever its name leads to now; None where it is gone."""
        path = self._find(_names_of(noted)[-1])
        return path if os.path.isfile(path) else None

    def _find(self, name: str) -> Path:
        return Path(os.path.normpath(os.path.join(self._place, name)))

    def _see(self, folder: str) -> str:
        """Return the path of a folder as seen from the results."""
        with suppress(ValueError):  # on other drives
            shared = os.path.commonpath([folder, self._place])
            if os.path.dirname(shared) != shared:
                return os.path.relpath(folder, self._place).replace(os.sep, "/")
        return folder.replace(os.sep, "/").rstrip("/")


def parse_noted(value: object) -> Noted | None:
    """Return what a line of the journal notes of an input; None where it notes none."""
    match value:
        case str():
            return value
        case [str(named), str(real)]:
            return named, real
    return None


def _names_of(noted: Noted) -> tuple[str, ...]:
    return (noted,) if isinstance(noted, str) else noted
