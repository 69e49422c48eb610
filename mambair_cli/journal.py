"""What runs have done, kept beside their results, so that another run can go on where one stopped.

A folder of results holds a file with lines of JSON. The line of a result is on the disk before the result has
its name: whatever ends a run, and when, a file that the journal does not know was not written by one. A
result is done where its line tells the same input and settings, and the file is still the one that was
written; that a file is there proves nothing.

While a run lasts, each of its processes writes a part of its own, in a hidden folder: they may be on several
machines, whose lines in one file would mix on a network's file system. Parts are put together when the run
ends, or, where it was killed, when the next one begins.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from mambair_cli.digest import hash_of
from mambair_cli.errors import ImageError, UsageError
from mambair_cli.images import TEMPORARY_NAME, lacks_space, synchronize

JOURNAL_FILE = ".mambair.jsonl"
LOCK_FILE = ".mambair.lock"
PARTS_FOLDER = ".mambair.parts"
CLOSED = ".closed"  # ends the name of a run's parts that nobody may add to any more

_PROCESS = secrets.token_hex(4)  # tells processes of one number apart
_WRITING = threading.Lock()  # mounted buckets lose lines that threads add at once, each by a file of its own


class Stamp(NamedTuple):
    """What changes with a file, without reading it: its size in bytes, and its time in nanoseconds."""

    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Entry:
    """How a result came about.

    Attributes:
        settings: All that its pixels depend on beside the input, in one word.
        content: SHA-256 of the input.
        source: The input, when it was read.
        result: The file, when it was written.
    """

    settings: str
    content: str
    source: Stamp
    result: Stamp


class Record:
    """What the journal of a folder tells; nothing is locked, written or removed.

    Of two lines for a result that which fits the file counts: who was taken for dead may have written one
    after the other, and published nothing.

    Args:
        folder: Of the results; it need not be there.

    Attributes:
        entries: How results came about, by their names within the folder.

    Raises:
        OSError: The journal cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.entries: dict[str, Entry] = {}
        for path in (folder / JOURNAL_FILE, *sorted((folder / PARTS_FOLDER).glob("*/*.jsonl"))):
            for line in _read(path):
                entry = _parse(line)
                if entry is not None:
                    name = str(line["result"])
                    before = self.entries.get(name)
                    if before in (None, entry) or not _is_result(folder / name, before):
                        self.entries[name] = entry

    def is_done(self, source: Path, target: Path, settings: str) -> bool:
        """Tell whether a result need not be made again."""
        entry = self.entries.get(self._name(target))
        if entry is None or entry.settings != settings or not self.is_ours(target):
            return False
        try:
            return stamp_of(source) == entry.source or hash_of(source) == entry.content
        except OSError:  # it cannot be read: whoever tries to will say why
            return False

    def is_ours(self, target: Path) -> bool:
        """Tell whether a file is a result that a run has written, and nobody has changed since."""
        return _is_result(target, self.entries.get(self._name(target)))

    def _name(self, target: Path) -> str:
        return _name_in(self._folder, target)


class Journal:
    """The journal of a folder of results, for one run at a time.

    What a run that was killed has left half-written is removed.

    Args:
        folder: Of the results; it is made where it is missing.

    Attributes:
        pen: Of those who do the run's work, in whatever process.
        record: Of runs before this one.

    Raises:
        UsageError: Another run is writing into the folder.
        ImageError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.pen = Pen(folder, secrets.token_hex(8))
        self._folder = folder
        self._path = folder / JOURNAL_FILE
        self._lock = FileLock(folder / LOCK_FILE, timeout=0)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            self._gather()
            self._remove_unfinished()
            self.record = Record(folder)
            self._rewrite()
            self.pen.parts.mkdir(parents=True)
        except Timeout as error:
            raise UsageError(
                f"another run is writing into {folder}; wait for it, or choose another folder with -o"
            ) from error
        except OSError as error:
            self._unlock()
            # In another folder, all that is done here would be done again.
            remedy = "free some space" if lacks_space(error) else "choose another folder with -o"
            raise ImageError(f"cannot keep a journal in {folder}: {error.strerror}; {remedy}") from error

    def close(self) -> None:
        """Clear away what a worker that died has left unfinished, and leave the folder to other runs."""
        with suppress(OSError):
            self._gather()
            self._remove_unfinished()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock.is_locked:
            with suppress(OSError):
                (self._folder / LOCK_FILE).unlink()
            self._lock.release()

    def _remove_unfinished(self) -> None:
        left: dict[str, set[str]] = {}  # by folder: looked for one by one, a million would take their time
        for line in _read(self._path):
            match line:
                case {"begun": str(name), "temporary": str(temporary)} if _is_ours_to_remove(name, temporary):
                    parent = name.rpartition("/")[0]
                    if parent not in left:
                        left[parent] = _find_temporaries(self._folder / parent)
                    if temporary in left[parent]:
                        _remove_if_empty(self._folder / name)  # claimed by it where there are no hard links
                        (self._folder / parent / temporary).unlink(missing_ok=True)

    def _gather(self) -> None:
        """Add the parts of this run, and of runs that were killed, to the journal, and remove them."""
        folder = self._folder / PARTS_FOLDER
        for run in folder.glob("*"):
            if run.suffix != CLOSED:  # who lives on finds nowhere to note its result, and publishes none
                run.rename(run.with_suffix(CLOSED))
        for part in sorted(folder.glob("*/*.jsonl")):
            with self._path.open("ab") as file, part.open("rb") as lines:
                while lines.tell() < os.fstat(lines.fileno()).st_size:  # it may have been at it just now
                    shutil.copyfileobj(lines, file)
                    file.flush()
                    os.fsync(file.fileno())
            part.unlink()
        for empty in (*folder.glob("*"), folder):
            with suppress(OSError):  # somebody else keeps something there
                empty.rmdir()

    def _rewrite(self) -> None:
        """Write the journal anew without what is past."""
        part = self._path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(_describe(*item)) + "\n" for item in self.record.entries.items())
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
        synchronize(self._folder)


class Pen:
    """Adds to the journal of a folder, from any process; each writes a part of its own.

    Args:
        folder: Of the results, for which somebody holds the ``Journal``.
        run: Its name.

    Attributes:
        parts: Where the parts of the journal lie during the run.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._folder = folder
        self.parts = folder / PARTS_FOLDER / run

    def begin(self, target: Path, temporary: Path) -> None:
        """Note that a result is being written, under a name that means nothing yet."""
        self._write({"begun": _name_in(self._folder, target), "temporary": temporary.name})

    def finish(self, target: Path, entry: Entry) -> None:
        """Note a result that is whole and on the disk, and is about to be given its name."""
        self._write(_describe(_name_in(self._folder, target), entry), to_disk=True)

    def has_written(self, target: Path) -> bool:
        """Tell whether a file is a result that somebody has written in this run."""
        name = _name_in(self._folder, target)
        return any(
            line.get("result") == name and _is_result(target, _parse(line))
            for part in self.parts.glob("*.jsonl")
            for line in _read(part, json.dumps(name).encode())
        )

    def _write(self, line: dict[str, Any], to_disk: bool = False) -> None:
        part = self.parts / f"{socket.gethostname()}-{os.getpid()}-{_PROCESS}.jsonl"
        data = b"\n" + json.dumps(line).encode() + b"\n"  # the line before may have been cut off
        with _WRITING:
            is_new = not part.exists()
            with part.open("ab", buffering=0) as file:  # a line is one write
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if to_disk:
                    os.fsync(file.fileno())
            if is_new:
                synchronize(self.parts)


def stamp_of(path: Path) -> Stamp:
    """Take down a file's size and time.

    Raises:
        OSError: It is not there.
    """
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns)


def digest_settings(settings: dict[str, Any]) -> str:
    """Put all that pixels depend on into one word."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _is_ours_to_remove(name: str, temporary: str) -> bool:
    """Tell whether a line of the journal means a file that was being written; anybody can write lines."""
    within = not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
    return within and bool(PurePosixPath(name).name) and TEMPORARY_NAME.fullmatch(temporary) is not None


def _remove_if_empty(path: Path) -> None:
    with suppress(OSError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            path.unlink()


def _find_temporaries(folder: Path) -> set[str]:
    """Return the names in a folder that files have while they are being written."""
    with suppress(OSError), os.scandir(folder) as entries:  # it may be gone
        return {entry.name for entry in entries if TEMPORARY_NAME.fullmatch(entry.name)}
    return set()


def _read(path: Path, wanted: bytes = b"") -> Iterator[dict[str, Any]]:
    """Yield the lines that are whole: the last one may have been cut off, and others may be damaged.

    Args:
        path: Of a journal, or a part of one.
        wanted: What the lines have in them.
    """
    with suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            if wanted in line:
                with suppress(ValueError, RecursionError):
                    content = json.loads(line)
                    if isinstance(content, dict):
                        yield content


def _parse(line: dict[str, Any]) -> Entry | None:
    match line:
        case {
            "result": str(),
            "settings": str(settings),
            "content": str(content),
            "source": [int(), int()] as source,
            "written": [int(), int()] as written,
        }:
            return Entry(sys.intern(settings), content, Stamp(*source), Stamp(*written))
    return None


def _is_result(target: Path, entry: Entry | None) -> bool:
    try:
        return entry is not None and stamp_of(target) == entry.result
    except OSError:
        return False


def _name_in(folder: Path, target: Path) -> str:
    return Path(os.path.relpath(target, folder)).as_posix()


def _describe(name: str, entry: Entry) -> dict[str, Any]:
    return {
        "result": name,
        "settings": entry.settings,
        "content": entry.content,
        "source": entry.source,
        "written": entry.result,
    }
