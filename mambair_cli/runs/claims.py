"""Runs that write into one folder at the same time: which of them last, and which results each will write.

Each run holds a lock of its own as long as it lasts, so that it is seen to have ended however it did. What
changes for all of them is done behind a gate, by one at a time.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

GATE_FILE = ".mambair.lock"
GATE_SECONDS = 2.0  # after which whoever waits at the gate says so: it is held for a moment
LOOK_SECONDS = 0.2  # between two looks whether another has ended
_LOCK, _TARGETS = ".lock", "targets"
_DIGEST_BYTES = 8  # of a name; where two names have one digest, a run waits that need not


@contextmanager
def hold_gate(folder: Path, notify: Callable[[str], None] = lambda sentence: None) -> Iterator[None]:
    """Be alone behind the gate of a folder of results, once it is free.

    Args:
        folder: Of the results.
        notify: Told in a sentence that others are in the way for long.

    Raises:
        OSError: The folder cannot be written.
    """
    gate = FileLock(folder / GATE_FILE)
    try:
        gate.acquire(timeout=GATE_SECONDS, poll_interval=LOOK_SECONDS / 10)
    except Timeout:
        notify(f"another run is writing into {folder}; waiting for it")
        gate.acquire(timeout=-1, poll_interval=LOOK_SECONDS)
    try:
        yield
    finally:
        with suppress(OSError):  # who waits with the file open sees that it is gone, and opens another
            (folder / GATE_FILE).unlink()
        gate.release()


def digest_names(names: Iterable[str]) -> np.ndarray:
    """Return a number for each name, sorted, (names,) uint64."""
    data = b"".join(
        hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=_DIGEST_BYTES).digest()
        for name in names
    )
    return np.unique(np.frombuffer(data, np.uint64))


class Claim:
    """The results that a run will write, from now on until it ends; the gate is held.

    Args:
        run: Folder of what the run notes; it is made.
        names: From :func:`digest_names`.
    """

    def __init__(self, run: Path, names: np.ndarray) -> None:
        run.mkdir(parents=True)
        (run / _TARGETS).write_bytes(names.tobytes())
        # Whichever thread ends the run releases it.
        self._lock = FileLock(run.with_suffix(_LOCK), timeout=0, thread_local=False)
        self._lock.acquire()

    def release(self) -> None:
        """Let others see that the run has ended."""
        self._lock.release()


def is_claimed(runs: Path, names: np.ndarray, is_over: Callable[[Path], bool] | None = None) -> bool:
    """Tell whether a run that lasts will write one of the results.

    Args:
        runs: Where the folders of all runs lie.
        names: From :func:`digest_names`.
        is_over: Tells of a run's folder whether it has ended; by default :func:`has_ended`.
    """
    for path in runs.glob(f"*/{_TARGETS}"):
        claimed = np.fromfile(path, np.uint64)
        if len(np.intersect1d(claimed, names)) and not (is_over or has_ended)(path.parent):
            return True
    return False


def has_ended(run: Path) -> bool:
    """Tell whether a run has ended, as itself or killed; the gate is held."""
    lock = FileLock(run.with_suffix(_LOCK), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return False
    lock.release()
    return True


def seems_over(run: Path) -> bool:
    """Tell whether a run has ended, without the gate, and without a change of any file."""
    try:
        import fcntl
    except ImportError:  # not on Windows, where it cannot be seen
        return True
    with suppress(OSError), run.with_suffix(_LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def clear_away(run: Path) -> None:
    """Remove what is left of a run that has ended, but for files that are not ours; the gate is held."""
    for path in (*run.glob(_TARGETS), run.with_suffix(_LOCK)):
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        run.rmdir()
