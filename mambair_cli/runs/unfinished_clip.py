"""What is there of a clip that is not finished, in a hidden folder next to the target.

A segment has its name only when it is complete and on the disk. So whatever ends a run, and when, the
segments that are there are those of an undisturbed run, and the next one goes on after them. Where several
workers make them, some may be missing between others. Numbered images lie elsewhere, maybe among those of
other runs, so the folder counts those that are finished.
"""

import filecmp
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from mambair_cli.errors import ImageError, UsageError, VideoError
from mambair_cli.runs.noted_inputs import NotedInputs, parse_noted
from mambair_cli.system.atomic import TEMPORARY_NAME, atomic_write
from mambair_cli.system.file_errors import lacks_space
from mambair_cli.system.wording import show, show_count
from mambair_cli.video import name_frame
from mambair_cli.video.segments import read_times

_LONGEST = 255  # bytes of a name, on most disks
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

    Raises:
        ImageError: Another run writes this clip, or the system refuses to write.
    """

    def __init__(self, target: Path, plan: Mapping[str, Any]) -> None:
        self.folder = _folder_of(target)
        self.segments: list[Path] = []
        self._target, self._plan = target, plan
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
        is_over = kind is None or not (_count(self.folder / _BEGUN) or any(self.folder.glob("*.mkv")))
        with suppress(OSError):
            self._remove_half_written()
            if is_over:  # else segments are in it, for the next run
                self._clear()
                # Removed while it is held: a run that waits with the file open sees that it is gone. Windows
                # removes no open file; there the lock does it itself.
                (self.folder / _LOCK).unlink()
        self._lock.release()
        with suppress(OSError):  # another run may have begun in it
            if is_over:
                self.folder.rmdir()

    def begin(self, left: "LeftOver") -> None:
        """Take up what there is, or remove it.

        Args:
            left: What there is, from :func:`find_left_over`.
        """
        self._remove_half_written()
        self.segments = list(left.segments)
        if not left.goes_on:
            for path in (
                *self.folder.glob("*.mkv"),
                self.folder / _BEGUN,
                self.folder / _DONE,
            ):  # also those after a gap
                path.unlink(missing_ok=True)
        with atomic_write(self.folder / _PLAN, self.folder / f"{_PLAN}.part") as file:
            file.write(json.dumps(self._plan).encode())

    def path_of(self, number: int) -> Path:
        """Return the name of a segment by its number."""
        return _segment(self.folder, number)

    def add(self) -> None:
        """Count the segment after those that are counted, which is complete."""
        self.segments.append(self.path_of(len(self.segments)))

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


@dataclass(frozen=True)
class LeftOver:
    """What an earlier run has left of a clip, as far as this one goes on with it.

    Attributes:
        goes_on: Whether this run goes on with it.
        is_other: Whether this run was to go on, and what there is belongs to another plan.
        segments: Segments that are complete, from the first one on.
        images_begun: Number of numbered images that are begun: these files are ours.
        images_done: Number of numbered images that are finished.
    """

    goes_on: bool = False
    is_other: bool = False
    segments: tuple[Path, ...] = ()
    images_begun: int = 0
    images_done: int = 0

    @property
    def frames(self) -> int:
        """Number of frames in the segments.

        Raises:
            VideoError: One of them is damaged.
        """
        return sum(len(read_times(path).pts) for path in self.segments)

    def count_images(self, pattern: Path) -> int:
        """Return how many of the finished images are still there, from the first one on."""
        there = takewhile(lambda number: name_frame(pattern, number).exists(), range(self.images_done))
        return sum(1 for _ in there)


def find_left_over(target: Path, plan: Mapping[str, Any], resume: bool) -> LeftOver:
    """Find what an earlier run has left of a clip; nothing is written.

    Args:
        target: The clip.
        plan: All that the segments depend on, as JSON.
        resume: Whether the run goes on with it.
    """
    folder = _folder_of(target)
    before = None
    with suppress(OSError, ValueError):
        before = json.loads((folder / _PLAN).read_bytes())
    if not resume or not _is_same(before, json.loads(json.dumps(plan)), NotedInputs(target.parent)):
        return LeftOver(is_other=resume and before is not None)
    segments = takewhile(os.path.exists, (_segment(folder, number) for number in count()))
    return LeftOver(
        goes_on=True,
        segments=tuple(segments),
        images_begun=_count(folder / _BEGUN),
        images_done=_count(folder / _DONE),
    )


def _is_same(before: Any, plan: dict[str, Any], inputs: NotedInputs) -> bool:
    """Tell whether two plans give the same segments; those of earlier versions do not note the input."""
    if not isinstance(before, dict):
        return False
    noted = [parse_noted(each.pop("input", None)) for each in (before, plan)]
    if before != plan:
        return False
    first, second = (None if each is None else inputs.find_file(each) for each in noted)
    if first is None or second is None:  # it was moved, or is a pipe
        return True
    with suppress(OSError):
        return first.samefile(second) or filecmp.cmp(first, second, shallow=False)
    return False


def is_begun(target: Path) -> bool:
    """Tell whether there is something of a clip that is not finished."""
    return _folder_of(target).exists()


def count_finished(target: Path) -> int:
    """Return how many frames of an unfinished clip are finished, whatever their plan."""
    folder = _folder_of(target)
    images = LeftOver(images_done=_count(folder / _DONE)).count_images(target)
    return images + sum(map(_count_frames, folder.glob("*.mkv")))


def check_finished(target: Path) -> None:
    """Refuse to begin a clip anew of which an earlier run has finished frames.

    Raises:
        UsageError: There are some.
    """
    if finished := count_finished(target):
        frames = show_count(finished, "finished frame")
        raise UsageError(
            f"cannot begin {show(target)} anew: an earlier run has left {frames}; "
            "--resume goes on with them, --overwrite begins anew"
        )


def _count_frames(segment: Path) -> int:
    with suppress(VideoError):  # it is damaged
        return len(read_times(segment).pts)
    return 0


def _segment(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.mkv"


def _count(path: Path) -> int:
    """Return the number of bytes in a file, one for each image."""
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _folder_of(target: Path) -> Path:
    """Return the hidden folder of a clip; where its name would be too long, it is named by a digest."""
    folder = target.with_name(f".{target.name}.mambair")
    name = os.fsencode(folder.name)
    if len(name) <= _LONGEST or os.path.exists(folder):  # some disks count letters, not bytes
        return folder
    return target.with_name(f".{hashlib.sha256(name).hexdigest()[:32]}.mambair")
