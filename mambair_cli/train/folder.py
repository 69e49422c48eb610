"""The folder that a run writes into: for one run at a time, and no file of another is lost."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mambair_cli.errors import MambairError, UsageError
from mambair_cli.system.atomic import atomic_write
from mambair_cli.system.result_folders import require_folder
from mambair_cli.system.signals import SIGNALS, held_back
from mambair_cli.system.wording import enumerate_names, show

STATE_FILE = "state.pt"
WEIGHTS_FILE = "weights.safetensors"
LOG_FILE = "log.jsonl"
PICTURES_FILE = "pictures.txt"  # the digest of those that are trained on
REPORT_FILE = "report.html"
EXAMPLES_FOLDER = "examples"
EXAMPLE_SUFFIX = ".webp"
NAMES_FILE = "names.json"  # of the images that have examples, by their numbers
INPUT, TRUTH = "input", "truth"  # kinds of examples; results have the number of their step
LOCK_FILE = ".mambair.train.lock"


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder in the block; it is made, and removed again if it stays empty.

    The system ends the lock of a run that was killed.

    Raises:
        UsageError: Another run holds it, or it is no folder.
        MambairError: It cannot be written.
    """
    require_folder(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        with held_back(SIGNALS):
            _take(folder, lock)
        yield
    finally:
        with held_back(SIGNALS):
            if lock.is_locked:
                with suppress(OSError):
                    (folder / LOCK_FILE).unlink()
                lock.release()
            for path in made:
                with suppress(OSError):  # of a run that was refused nothing stays
                    path.rmdir()


def _take(folder: Path, lock: FileLock) -> None:
    """Make a folder, and lock it."""
    try:
        with explaining_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except Timeout as error:
        raise UsageError(
            f"cannot train into {show(folder)}: another run writes there; wait for its end, "
            "or choose another folder"
        ) from error


def note_pictures(folder: Path, digest: str, step: int) -> str | None:
    """Note which pictures a run is trained on, and say if they are not those from before a break.

    Args:
        folder: The run's folder.
        digest: Digest of the pictures.
        step: Number of steps done.

    Raises:
        MambairError: It cannot be written.
    """
    path = folder / PICTURES_FILE
    with explaining_write_errors(path):
        before = path.read_text().strip() if step and path.exists() else digest
    write_file(path, f"{digest}\n".encode())
    if before == digest:
        return None
    return (
        f"the pictures are not those of the first {step} steps, or stand in another order: the run goes on "
        "with them, and becomes another one than without the break"
    )


def refuse_older_run(folder: Path) -> None:
    """Refuse to begin a run where its files would replace others.

    Raises:
        UsageError: There are files of its names.
    """
    names = (STATE_FILE, WEIGHTS_FILE, LOG_FILE, REPORT_FILE)
    found = [name for name in names if _can_be_lost(folder / name)]
    if next((folder / EXAMPLES_FOLDER).glob(f"*{EXAMPLE_SUFFIX}"), None):
        found.append(EXAMPLES_FOLDER)
    if STATE_FILE in found:
        raise UsageError(
            f"cannot train into {show(folder)}: it holds a run; continue it with --resume, "
            "or choose another folder"
        )
    if found:
        raise UsageError(
            f"cannot train into {show(folder)}: it holds {enumerate_names(found)}, which would be replaced; "
            "choose another folder"
        )


def refuse_no_run(folder: Path) -> None:
    """Refuse to continue a run where there is none.

    Raises:
        UsageError: There is no state.
    """
    if not (folder / STATE_FILE).exists():
        raise UsageError(
            f"cannot resume {show(folder)}: it holds no {STATE_FILE}; begin a run without --resume"
        )


def _can_be_lost(path: Path) -> bool:
    """Tell whether there is a file; an empty log is what a run leaves that ends before it has a state."""
    return path.exists() and (not path.is_file() or path.stat().st_size > 0)


def is_example(path: Path) -> bool:
    """Tell whether a picture is an example that a run has kept in its folder."""
    return (
        re.fullmatch(rf"({INPUT}|{TRUTH}|\d+)_.*{re.escape(EXAMPLE_SUFFIX)}", path.name) is not None
        and path.absolute().parent.name == EXAMPLES_FOLDER
        and any((path.absolute().parent.parent / name).is_file() for name in (LOG_FILE, STATE_FILE))
    )


@contextmanager
def explaining_write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a sentence on why a file or folder of the run cannot be written.

    Raises:
        MambairError: The system refuses to write.
    """
    try:
        yield
    except Timeout:  # an OSError, too, of a lock
        raise
    except OSError as error:
        raise MambairError(
            f"cannot write {path}: {error.strerror}; free some space, or choose another folder"
        ) from error


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Replace a file of the run in one step: whatever happens, it is the old one or the new one.

    Raises:
        MambairError: It cannot be written.
    """
    with explaining_write_errors(path), atomic_write(path, path.with_name(path.name + ".part")) as file:
        file.write(content)
