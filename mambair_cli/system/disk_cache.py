"""A cache on disk of compiled kernels and of checks that passed, each of which takes seconds.

One process makes a file while others that need it wait. A file that was not used for three months is removed.
If the disk cannot be written, or the user has no home folder, files are made again each time, without an
error.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from mambair_cli.system.atomic import atomic_write
from mambair_cli.system.home import home_folder

LIFETIME_SECONDS = 90 * 86400  # after a file's last use
NOTED_SECONDS = 86400  # precision of the time of a file's last use
WAIT_SECONDS = 120  # for another process to make a file; after that this process makes it as well
_LOCK = ".lock"
_OURS = (
    ".cubin",
    ".right",
    _LOCK,
    ".part",
    ".tmp",
)  # endings of all names in the folder, older versions' too


def cache_folder() -> Path | None:
    """Return the folder of the cache; None if the user has no home folder."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base, "mambair", "kernels")
    home = home_folder()
    return home and home / ".cache" / "mambair" / "kernels"


def find_or_make(name: str, make: Callable[[], bytes]) -> bytes:
    """Return the bytes stored under a name; if there are none, make and store them."""
    folder = cache_folder()
    if folder is None:
        return make()
    path = folder / name
    data = _read(path)
    if data is not None:
        return data
    with _alone(path):
        data = _read(path)  # another process may have made it meanwhile
        if data is None:
            data = make()
            store(name, data)
    return data


def is_stored(name: str) -> bool:
    """Tell whether anything is stored under a name."""
    folder = cache_folder()
    if folder is None:
        return False
    _note_use(folder / name)
    return (folder / name).exists()


def store(name: str, data: bytes = b"") -> None:
    """Store bytes under a name, if the disk can be written, and remove files that were long unused."""
    folder = cache_folder()
    if folder is None:
        return
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / name) as file:  # another process sees all of it or nothing
            file.write(data)
    _remove_old(folder)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock for making a file; without it where the disk or the wait does not allow it."""
    lock = FileLock(path.with_name(path.name + _LOCK), timeout=WAIT_SECONDS)
    with suppress(OSError):  # the folder cannot be written, or the other process takes too long
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                Path(lock.lock_file).unlink()
            lock.release()


def _read(path: Path) -> bytes | None:
    with suppress(OSError):
        data = path.read_bytes()
        _note_use(path)
        return data
    return None


def _note_use(path: Path) -> None:
    """Note in a file's time that it is used."""
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > NOTED_SECONDS:
            os.utime(path)


def _remove_old(folder: Path) -> None:
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):  # another process has removed it
                if path.suffix in _OURS and time.time() - path.stat().st_mtime > LIFETIME_SECONDS:
                    path.unlink()
