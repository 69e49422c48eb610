"""The guard of a result: its input must stay as it was read, and the journal notes the result."""

import os
import stat
from pathlib import Path

from mambair_cli.errors import ImageError
from mambair_cli.runs.journal import Pen
from mambair_cli.runs.journal_entry import JournalEntry
from mambair_cli.runs.stamps import Stamp, hash_result, stamp_of
from mambair_cli.system.disk_names import is_same_file
from mambair_cli.system.file_errors import explain_input, explain_unreadable
from mambair_cli.system.files import hash_of


class ResultGuard:
    """Makes sure that a result is that of its input as it is now, and notes it in the journal, if any.

    It can be pickled: the process that does the job calls it.

    Args:
        source: The input; None for standard input, of which nothing is seen again.
        target: File of the result.
        pen: Writes to the journal; None where there is none.
        settings: Digest of all that the result depends on except the input.
        takes_digest: Whether to take the SHA-256 of the result's file.
        preserve_times: Whether the file gets the times of its input.

    Attributes:
        sha256: SHA-256 of the result's file, once it is written and if it was asked for.
    """

    def __init__(
        self,
        source: Path | None,
        target: Path,
        pen: Pen | None,
        settings: str,
        takes_digest: bool = False,
        preserve_times: bool = False,
    ) -> None:
        self.sha256: str | None = None
        self._source, self._target = source, target
        self._pen, self._settings = pen, settings
        self._input = pen.inputs.note(source) if pen and source else None
        self._takes_digest, self._preserve_times = takes_digest, preserve_times
        self._is_file = True
        self._before: os.stat_result | None = None
        self._content = ""

    def look(self, before: os.stat_result | None = None) -> None:
        """Look at the input, before it is read.

        Args:
            before: Its status, from the system, when it was opened; None if it is still to be opened.

        Raises:
            ImageError: The input cannot be read, or has changed since then.
        """
        if self._source is None:
            return
        try:
            self._before = before or self._source.stat()
            self._is_file = stat.S_ISREG(self._before.st_mode)  # a pipe can be read once
            self._content = hash_of(self._source) if self._pen and self._is_file else ""
        except OSError as error:
            raise explain_unreadable(self._source, error) from error
        if before is not None:
            self.check()

    def begin(self, temporary: Path) -> None:
        """Note that the result is being written, under a temporary name."""
        if self._pen:
            self._pen.begin(self._target, temporary)

    def sees_journal(self) -> bool:
        """Tell whether this process sees the journal: on another machine the folder may be another one."""
        return self._pen is None or self._pen.parts.is_dir()

    def is_written(self) -> bool:
        """Tell whether a process of this run has written the result."""
        return self._pen is not None and self._pen.has_written(self._target)

    def end(self, temporary: Path, images: int | None = None) -> None:
        """Look at the input again, and note the result, which is complete and has only a temporary name yet.

        Args:
            temporary: The file, or the pattern of numbered images, which have their names already.
            images: Number of images; None for a file.

        Raises:
            ImageError: The input has changed or vanished, or has the name of the result.
        """
        self.check()
        if self._is_file and self._source and is_same_file(self._target, self._source):
            raise explain_input(self._target)  # under another name, for the disk
        sha256 = hash_result(temporary, images) if self._takes_digest or self._pen else None
        self.sha256 = sha256 if self._takes_digest else None
        before = self._before
        if before is None:
            return
        if self._preserve_times:
            os.utime(temporary, ns=(before.st_atime_ns, before.st_mtime_ns))
        if self._pen:
            source = Stamp(before.st_size, before.st_mtime_ns)
            result = stamp_of(temporary, images)
            input = self._input if self._is_file else None  # the next pipe may have the same name
            entry = JournalEntry(self._settings, self._content, source, result, images, sha256, input)
            self._pen.finish(self._target, entry)

    def check(self) -> None:
        """Look at the input again.

        Raises:
            ImageError: The input has changed or vanished.
        """
        source, before = self._source, self._before
        if source is None:
            return
        if before is None:
            raise ValueError("what has not begun cannot end")
        try:
            is_same = not self._is_file or stamp_of(source) == (before.st_size, before.st_mtime_ns)
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise ImageError(f"cannot restore {source}: it changed or vanished meanwhile; try it again")
