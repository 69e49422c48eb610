"""Images that arrive in folders: found by looking again and again, and taken once they are complete.

Folders are looked through rather than announced by the system: that works alike on a disk, on a network's
file system, where another machine's changes are not announced, and for a folder that is moved away and back.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from mambair_cli.images.discovery import FileFilter, look_into
from mambair_cli.images.source import Source
from mambair_cli.runs.stamps import Stamp, find_stamp

REST_SECONDS = 4.0  # for which a complete file stays as it is; NFS may tell changes 3 seconds late
LOOK_SECONDS = 1.0  # between two looks
MOST_LOOKING = 0.05  # share of the time that looking may take; a million files take seconds


class _Seen(NamedTuple):
    """A file that may be incomplete, and since when it has been as it is."""

    stamp: Stamp
    since: float


class Arrivals:
    """Finds the images in folders that are new, or have changed since they were taken.

    Args:
        folders: The folders.
        make_filter: Returns a filter for the images in them.
        now: Returns the time in seconds.

    Attributes:
        folders: The folders.
        found: All images that the last look has found, complete or not.
        file_filter: Filter of the last look, which knows what was left out.
        pause: Seconds until the next look should be taken.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        make_filter: Callable[[], FileFilter],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folders = folders
        self._make_filter, self._now = make_filter, now
        self._seen: dict[Path, _Seen] = {}
        self._taken: dict[Path, Stamp] = {}
        self.found: list[Source] = []
        self.file_filter = make_filter()
        self.pause = LOOK_SECONDS

    @property
    def missing(self) -> list[Path]:
        """Folders that are not there now."""
        return [folder for folder in self.folders if not folder.is_dir()]

    def take(self) -> list[Source]:
        """Look through the folders, and return the images that are new and complete, each state once."""
        begun = time.perf_counter()
        self.file_filter = self._make_filter()
        self.found = [source for folder in self.folders for source in look_into(folder, self.file_filter)]
        now, seen, complete = self._now(), {}, []
        for source in self.found:
            stamp = find_stamp(source.path)
            if source.path is None or stamp is None or self._taken.get(source.path) == stamp:
                continue
            before = self._seen.get(source.path)
            since = before.since if before is not None and before.stamp == stamp else now
            if now - since >= REST_SECONDS and stamp.size > 0:
                self._taken[source.path] = stamp
                complete.append(source)
            else:
                seen[source.path] = _Seen(stamp, since)
        self._seen = seen
        self._forget({source.path for source in self.found if source.path is not None})
        self.pause = max(LOOK_SECONDS, (time.perf_counter() - begun) / MOST_LOOKING)
        return complete

    def _forget(self, found: Iterable[Path]) -> None:
        """Forget files that are gone; not those of a folder that is gone as a whole and may come back."""
        missing = self.missing
        gone = self._taken.keys() - found
        for path in gone:
            if not any(folder in path.parents for folder in missing):
                del self._taken[path]
