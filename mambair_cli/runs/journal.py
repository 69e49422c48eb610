"""What runs have done, kept next to their results, so that another run can continue where one stopped.

A folder of results holds a file with lines of JSON. The line of a result is on the disk before the result has
its name: whatever ends a run, and when, a file that the journal does not know was not written by a run. A
result is done where its line tells the same input and settings, and the file is still the one that was
written, or a copy of it; that a file is there proves nothing.

While a run lasts, each of its processes writes a part of its own, in a hidden folder: they may be on several
machines, whose lines in one file would mix on a network's file system. Parts are put together when the run
ends, or, where it was killed, when another begins or ends. Runs that write different results into a folder
do so side by side; of those that write the same one, the later waits.
"""

import json
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np

from mambair_cli.errors import ImageError
from mambair_cli.runs.claims import (
    LOOK_SECONDS,
    Claim,
    clear_away,
    digest_names,
    has_ended,
    hold_gate,
    is_claimed,
    seems_over,
)
from mambair_cli.runs.journal_entry import (
    JournalEntry,
    describe_entry,
    is_result,
    parse_entry,
)
from mambair_cli.runs.noted_inputs import NotedInputs
from mambair_cli.runs.record import JOURNAL_FILE, PARTS_FOLDER, Record, name_in, parse_line, read_lines
from mambair_cli.system.atomic import TEMPORARY_NAME, atomic_write, synchronize
from mambair_cli.system.disk_names import fold_name
from mambair_cli.system.file_errors import explain_closed, is_closed, lacks_space
from mambair_cli.system.new_folders import make_folders

CLOSED = ".closed"  # ends the name of a run's parts that nobody may add to any more

_PROCESS = secrets.token_hex(4)  # tells processes of one number apart
_WRITING = threading.Lock()  # mounted buckets lose lines that threads add at once, each by a file of its own


class Journal:
    """The journal of a folder of results, for one run; others may have theirs at the same time.

    What a run that was killed has left half-written is removed. Where another run will write one of the
    results, this one waits for its end.

    Args:
        folder: Folder of the results; it is made where it is missing.
        targets: The results that the run may write.
        notify: Called with a sentence when the run waits for another one.

    Attributes:
        pen: Adds to the journal, from any process that does jobs of the run.
        record: What runs before this one have done, and what others have done so far.

    Raises:
        ImageError: The folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        targets: Iterable[Path] = (),
        notify: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.pen = Pen(folder, secrets.token_hex(8))
        self.record: Record
        self._folder = folder
        self._path = folder / JOURNAL_FILE
        self._claim: Claim | None = None
        try:
            make_folders(folder)
            self._begin(_digest_targets(folder, targets), notify)
        except OSError as error:
            if self._claim:
                self._claim.release()
            raise _explain(folder, error) from error

    def _begin(self, names: np.ndarray, notify: Callable[[str], None]) -> None:
        is_announced = False
        while True:
            with hold_gate(self._folder, notify):
                if not is_claimed(self._folder / PARTS_FOLDER, names):
                    self._gather()
                    self.record = Record(self._folder)
                    if self.record.is_outdated:
                        self._remove_unfinished(self.record.others)
                        self._rewrite()
                    self._claim = Claim(self.pen.parts, names)
                    return
            if not is_announced:
                is_announced = True
                notify(f"{explain_wait(self._folder)}; waiting for it to end")
            time.sleep(LOOK_SECONDS)

    def close(self) -> None:
        """Clear away what a worker that died has left unfinished, and leave the results to other runs."""
        try:
            with suppress(OSError), hold_gate(self._folder):
                self.abandon()
                self._gather()
                if not any("result" in line for line in read_lines(self._path)):
                    self._path.unlink(missing_ok=True)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave everything as it is, as the system does with a run that is killed."""
        if self._claim:
            self._claim.release()

    def _remove_unfinished(self, lines: Iterable[dict[str, Any]]) -> None:
        """Remove what is half-written of the results that lines of the journal tell of."""
        left: dict[str, set[str]] = {}  # by folder: looked for one by one, a million would take their time
        for line in lines:
            match line:
                case {"begun": str(name), "temporary": str(temporary)} if _is_ours_to_remove(name, temporary):
                    parent = name.rpartition("/")[0]
                    if parent not in left:
                        left[parent] = _find_temporaries(self._folder / parent)
                    if temporary in left[parent]:
                        _remove_if_empty(self._folder / name)  # claimed by it where there are no hard links
                        (self._folder / parent / temporary).unlink(missing_ok=True)

    def _gather(self) -> None:
        """Add to the journal what runs have done that have ended, and remove what they left half-written."""
        folder = self._folder / PARTS_FOLDER
        for run in [path for path in folder.glob("*") if path.is_dir() and has_ended(path)]:
            closed = run.with_suffix(CLOSED)
            run.rename(closed)  # a worker that is still alive cannot note a result, and so publishes none
            for part in sorted(closed.glob("*.jsonl")):
                begun, is_cut = [], True  # the line before may have been cut off
                with self._path.open("ab") as file, part.open("rb") as lines:
                    while lines.tell() < os.fstat(lines.fileno()).st_size:  # it may have been at it just now
                        for line in lines:
                            if "begun" in (content := parse_line(line)):
                                begun.append(content)
                            elif is_cut or line != b"\n":
                                file.write(line)
                                is_cut = not line.endswith(b"\n")
                        file.flush()
                        os.fsync(file.fileno())
                self._remove_unfinished(begun)
                part.unlink()
            clear_away(closed)
        with suppress(OSError):  # other runs go on, or the user keeps a file there
            folder.rmdir()

    def _rewrite(self) -> None:
        """Write the journal again without outdated lines."""
        with atomic_write(self._path, self._path.with_suffix(".part")) as file:
            lines = (json.dumps(describe_entry(*item)) + "\n" for item in self.record.entries.items())
            file.writelines(line.encode() for line in lines)


class Pen:
    """Adds to the journal of a folder, from any process; each writes a part of its own.

    Args:
        folder: Folder of the results; the run holds its ``Journal``.
        run: Name of the run.

    Attributes:
        parts: Folder with the parts of the journal during the run.
        inputs: What the journal notes of inputs.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._folder = folder
        self.inputs = NotedInputs(folder)
        self.parts = folder / PARTS_FOLDER / run

    def begin(self, target: Path, temporary: Path) -> None:
        """Note that a result is being written, under a temporary name.

        Raises:
            ImageError: The system refuses to write into the journal; so with :meth:`finish`.
        """
        self._write({"begun": name_in(self._folder, target), "temporary": temporary.name})

    def finish(self, target: Path, entry: JournalEntry) -> None:
        """Note a result that is complete and on the disk, and will be given its name next."""
        self._write(describe_entry(name_in(self._folder, target), entry), to_disk=True)

    def has_written(self, target: Path) -> bool:
        """Tell whether a file is a result that a process of this run has written."""
        name = name_in(self._folder, target)
        return any(
            line.get("result") == name and is_result(target, parse_entry(line))
            for part in self.parts.glob("*.jsonl")
            for line in read_lines(part, json.dumps(name).encode())
        )

    def _write(self, line: dict[str, Any], to_disk: bool = False) -> None:
        part = self.parts / f"{socket.gethostname()}-{os.getpid()}-{_PROCESS}.jsonl"
        data = b"\n" + json.dumps(line).encode() + b"\n"  # the line before may have been cut off
        with _WRITING:
            is_new = not part.exists()
            try:
                with part.open("ab", buffering=0) as file:  # a line is one write
                    while data:  # where only a part of it was written, the rest brings the system's error
                        data = data[file.write(data) :]
                    if to_disk:
                        os.fsync(file.fileno())
            except OSError as error:
                raise _explain(self._folder, error) from error
            if is_new:
                synchronize(self.parts)


def _digest_targets(folder: Path, targets: Iterable[Path]) -> np.ndarray:
    """Return numbers for the names of results in a folder, from ``claims.digest_names``."""
    return digest_names(fold_name(name_in(folder, target)) for target in targets)


def is_waiting(folder: Path, targets: Iterable[Path]) -> bool:
    """Tell whether a run would wait for another one, as far as that is seen without a change of any file."""
    with suppress(OSError):
        return is_claimed(folder / PARTS_FOLDER, _digest_targets(folder, targets), seems_over)
    return False


def explain_wait(folder: Path) -> str:
    """Say why a run waits for another one before it writes into a folder."""
    return f"another run is writing the same results into {folder}"


def _explain(folder: Path, error: OSError) -> ImageError:
    """Phrase why the system does not let a run keep its journal in a folder of results."""
    if not is_closed(error):
        # In another folder, all that is done here would be done again.
        remedy = "free some space" if lacks_space(error) else "choose another folder with -o"
        return ImageError(f"cannot keep a journal in {folder}: {error.strerror}; {remedy}")
    number, file = error.errno or 0, os.fsdecode(error.filename or "")
    if os.path.lexists(file) and Path(file) != folder:  # it alone cannot be used, as another user's
        return explain_closed(Path(file), number, action="use the journal")
    return explain_closed(folder, number)


def _is_ours_to_remove(name: str, temporary: str) -> bool:
    """Tell whether a line names a temporary file of a run: anybody can write lines into a journal."""
    paths = PurePosixPath(name), PurePath(name)  # Windows' own has drives, and further separators
    is_within = not any(path.anchor or ".." in path.parts or not path.name for path in paths)
    return is_within and TEMPORARY_NAME.fullmatch(temporary) is not None


def _remove_if_empty(path: Path) -> None:
    with suppress(OSError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            path.unlink()


def _find_temporaries(folder: Path) -> set[str]:
    """Return the names in a folder that files have while they are being written."""
    with suppress(OSError), os.scandir(folder) as entries:  # the folder may be gone
        return {entry.name for entry in entries if TEMPORARY_NAME.fullmatch(entry.name)}
    return set()
