"""What is there of a clip that is not finished, in a hidden folder next to the target.

A segment has its name only when it is complete and on the disk. So whatever ends a run, and when, the
segments that are there are those of an undisturbed run, and the next one goes on after them. Where several
workers make them, some may be missing between others. Numbered images lie elsewhere, maybe among those of
other runs, so the folder counts those that are finished.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from itertools import count, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from mambair_cli.errors import ImageError
from mambair_cli.system.atomic import TEMPORARY_NAME, atomic_write
from mambair_cli.system.file_errors import lacks_space
from mambair_cli.system.wording import show

_PLAN, _LOCK = "plan.json", "lock"
_BEGUN, _DONE = "images_begun", "images_done"


class UnfinishedClip:
    """The segments of one clip, for one run at a time.

    Args:
        target: The clip.
        plan: All that the segments depend on, as JSON.

    Attributes:
        folder: Folder of the segments.
        segments: Segments that are complete, from the first one on.
        goes_on: Whether the run goes on with what an earlier one has left.

    Raises:
        ImageError: Another run writes this clip, or the system refuses to write.
    """

    def __init__(self, target: Path, plan: Mapping[str, Any]) -> None:
        self.folder = _folder_of(target)
        self.segments: list[Path] = []
        self.goes_on = False
        self._target, self._plan = target, json.loads(json.dumps(plan))
        self._lock = FileLock(self.folder / _LOCK, timeout=0, thread_local=False)

    def __enter__(self) -> "UnfinishedClip":
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as error:
            raise ImageError(
                f"cannot write {show(self._target)}: another run is writing it; wait for it, or name another"
            ) from error
        except OSError as error:
            remedy = "free some space" if lacks_space(error) else "choose another folder with -o"
            raise ImageError(f"cannot write {show(self._target)}: {error.strerror}; {remedy}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_over = kind is None or not (self.images_begun or any(self.folder.glob("*.mkv")))
        with suppress(OSError):
            self._remove_half_written()
            if is_over:  # else segments are in it, for the next run
                self._clear()
        self._lock.release()
        with suppress(OSError):  # another run may have taken the lock
            if is_over:
                (self.folder / _LOCK).unlink(missing_ok=True)
                self.folder.rmdir()

    def begin(self, resume: bool) -> bool:
        """Take up the segments that are there, or remove them.

        Args:
            resume: Whether to go on after them.

        Returns:
            Whether what there is was to be taken up, and belongs to another plan.
        """
        self._remove_half_written()
        before = self._read_plan()
        self.goes_on = resume and before == self._plan
        if self.goes_on:
            self.segments = self._list_segments()
        else:
            for path in (
                *self.folder.glob("*.mkv"),
                self.folder / _BEGUN,
                self.folder / _DONE,
            ):  # also those after a gap
                path.unlink(missing_ok=True)
        with atomic_write(self.folder / _PLAN, self.folder / f"{_PLAN}.part") as file:
            file.write(json.dumps(self._plan).encode())
        return resume and before is not None and not self.goes_on

    def path_of(self, number: int) -> Path:
        """Return the name of a segment by its number."""
        return self.folder / f"{number:06d}.mkv"

    def add(self) -> None:
        """Count the segment after those that are counted, which is complete."""
        self.segments.append(self.path_of(len(self.segments)))

    @property
    def images_begun(self) -> int:
        """Number of numbered images that are begun: these files are ours."""
        return self._count(_BEGUN)

    @property
    def images_done(self) -> int:
        """Number of numbered images that are finished."""
        return self._count(_DONE)

    def begin_image(self) -> None:
        """Count a numbered image that is written next."""
        with (self.folder / _BEGUN).open("ab") as file:
            file.write(b".")

    def finish_image(self) -> None:
        """Count a numbered image, which is complete and on the disk."""
        with (self.folder / _DONE).open("ab") as file:
            file.write(b".")
            file.flush()
            os.fsync(file.fileno())

    def _count(self, name: str) -> int:
        """Return the number of bytes in a file, one for each image."""
        with suppress(OSError):
            return (self.folder / name).stat().st_size
        return 0

    def _list_segments(self) -> list[Path]:
        return list(takewhile(os.path.exists, map(self.path_of, count())))

    def _read_plan(self) -> Any:
        with suppress(OSError, ValueError):
            return json.loads((self.folder / _PLAN).read_bytes())
        return None

    def _remove_half_written(self) -> None:
        """Remove what processes that were killed have left."""
        for path in self.folder.iterdir():
            if TEMPORARY_NAME.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Remove what is in the folder, but for the lock."""
        for path in self.folder.iterdir():
            if path.name != _LOCK:
                path.unlink()


def is_begun(target: Path) -> bool:
    """Tell whether there is something of a clip that is not finished."""
    return _folder_of(target).exists()


def _folder_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.mambair")
