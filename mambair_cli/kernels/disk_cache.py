"""What was compiled or found out on this machine, kept on disk, since it takes seconds.

A file is made by one process, while others that want it wait; one that nobody has used for a season is
removed. Where nothing can be written, it is made anew each time, and that is all.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from mambair_cli.system.files import atomic_write

KEPT_SECONDS = 90 * 86400  # after its last use
NOTED_SECONDS = 86400  # a file's last use need not be known better than that
WAIT_SECONDS = 120  # for another process to make a file, after which this one makes it, too
_LOCK = ".lock"
_OURS = (".cubin", ".right", _LOCK, ".part", ".tmp")  # what names of files that are kept end with


def cache_folder() -> Path:
    """Name the folder of all that is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mambair" / "kernels"


def find_or_make(name: str, make: Callable[[], bytes]) -> bytes:
    """Read what is kept under a name; make and keep it, where there is nothing."""
    path = cache_folder() / name
    data = _read(path)
    if data is not None:
        return data
    with _alone(path):
        data = _read(path)  # perhaps somebody has made it meanwhile
        if data is None:
            data = make()
            keep(name, data)
    return data


def is_kept(name: str) -> bool:
    """Tell whether there is something under a name."""
    path = cache_folder() / name
    _note_use(path)
    return path.exists()


def keep(name: str, data: bytes = b"") -> None:
    """Keep something under a name, if that can be, and remove what nobody has used for long."""
    folder = cache_folder()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / name) as file:  # another process sees all of it or nothing
            file.write(data)
    _remove_old(folder)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Be the only one that makes a file, as far as that can be had."""
    lock = FileLock(path.with_name(path.name + _LOCK), timeout=WAIT_SECONDS)
    with suppress(OSError):  # a home that cannot be written; or the other one takes for ever
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
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > NOTED_SECONDS:
            os.utime(path)


def _remove_old(folder: Path) -> None:
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):  # another process is at it
                if path.suffix in _OURS and time.time() - path.stat().st_mtime > KEPT_SECONDS:
                    path.unlink()
