"""Runs that write into one folder at the same time: which of them go on, and which results each will write.

Each run holds a lock of its own until it ends, so that others see its end even where it was killed. What
changes for all of them is done by one at a time, which holds the lock of the folder, its gate.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from mambair_cli.system.new_folders import despite_removal

GATE_FILE = ".mambair.lock"
GATE_SECONDS = 2.0  # after which a run that waits for the gate says so: others hold it for a moment only
LOOK_SECONDS = 0.2  # between two looks whether another has ended
_LOCK, _TARGETS = ".lock", "targets"
_DIGEST_BYTES = 8  # of a name; where two names have one digest, a run waits without need


@contextmanager
def hold_gate(folder: Path, notify: Callable[[str], None] = lambda sentence: None) -> Iterator[None]:
    """Hold the gate of a folder of results in the block, once it is free.

    Args:
        folder: Folder of the results.
        notify: Called with a sentence when the gate is not free for long.

    Raises:
        OSError: The folder cannot be written.
    """
    gate = FileLock(folder / GATE_FILE)
    try:
        despite_removal(partial(gate.acquire, timeout=GATE_SECONDS, poll_interval=LOOK_SECONDS / 10))
    except Timeout:
        notify(f"another run is writing into {folder}; waiting for it")
        despite_removal(partial(gate.acquire, timeout=-1, poll_interval=LOOK_SECONDS))
    try:
        yield
    finally:
        with suppress(OSError):  # a run that waits with the file open sees that it is gone, and opens another
            (folder / GATE_FILE).unlink()
        gate.release()


def digest_names(names: Iterable[str]) -> np.ndarray:
    """Return a number for each name, sorted, (names,) uint64."""
    data = b"".join(
        hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).digest()
        for name in names
    )
    return np.unique(np.frombuffer(data, np.uint64))


class Claim:
    """The results that a run will write, from now until it ends; the caller holds the gate.

    Args:
        run: Folder for what the run notes; it is made.
        names: Digests of the results' names, from :func:`digest_names`.
    """

    def __init__(self, run: Path, names: np.ndarray) -> None:
        run.mkdir(parents=True)
        (run / _TARGETS).write_bytes(names.tobytes())
        # Any thread may end the run and release it.
        self._lock = FileLock(run.with_suffix(_LOCK), timeout=0, thread_local=False)
        self._lock.acquire()

    def release(self) -> None:
        """Let others see that the run has ended."""
        self._lock.release()


def is_claimed(runs: Path, names: np.ndarray, is_over: Callable[[Path], bool] | None = None) -> bool:
    """Tell whether a run that has not ended will write one of the results.

    Args:
        runs: Folder with the folders of all runs.
        names: Digests of the results' names, from :func:`digest_names`.
        is_over: Tells whether the run of a folder has ended; by default :func:`has_ended`.
    """
    for path in runs.glob(f"*/{_TARGETS}"):
        claimed = np.fromfile(path, np.uint64)
        if len(np.intersect1d(claimed, names)) and not (is_over or has_ended)(path.parent):
            return True
    return False


def has_ended(run: Path) -> bool:
    """Tell whether a run has ended, by itself or killed; the caller holds the gate."""
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
    """Remove what is left of a run that has ended, except foreign files; the caller holds the gate."""
    for path in (*run.glob(_TARGETS), run.with_suffix(_LOCK)):
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        run.rmdir()
