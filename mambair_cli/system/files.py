"""Write files whole or not at all, and say in a line why one cannot be read or written."""

import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mambair_cli.errors import ImageError

TEMPORARY_NAME = re.compile(r"\.mambair-[0-9a-f]{16}\.tmp")
"""What a file is called while it is being written."""

_DESCRIPTORS = re.compile(r"(/proc/\d+(/task/\d+)?|/dev)/fd")  # folders of open files
_MOST_LINKS = 40  # as Linux has it

_WHY_UNREADABLE = {
    errno.ENOENT: "it does not exist; check its name",
    errno.EISDIR: "it is a folder; name a file in it",
    errno.EACCES: "its permissions forbid it; change them",
    errno.ENAMETOOLONG: "its name is too long; shorten it",
}
_WHY_UNWRITABLE = {
    errno.ENOENT: "its folder does not exist; create it first",
    errno.ENOTDIR: "its folder is a file; name another",
    errno.EACCES: "the permissions of its folder forbid it; change them or write elsewhere",
    errno.EROFS: "the disk can only be read; write elsewhere",
    errno.ENOSPC: "the disk is full; free some space or write elsewhere",
    errno.EDQUOT: "your quota of the disk is used up; free some space or write elsewhere",
    errno.EFBIG: "it would be larger than files may be here; write elsewhere",
    errno.ENAMETOOLONG: "its name is too long; shorten it",
}
_WHY_UNSENT = {
    **_WHY_UNWRITABLE,
    errno.EACCES: "its permissions forbid it; change them",
    errno.EBADF: "no such file is open; open it in the shell, as in 3>out.png",
    errno.EPIPE: "the program that reads it has ended; look at its messages",
}


@contextmanager
def open_atomic(
    target: Path,
    *,
    overwrite: bool = False,
    on_begin: Callable[[Path], None] = lambda temporary: None,
    on_end: Callable[[Path], None] = lambda temporary: None,
) -> Iterator[BinaryIO]:
    """Open a file that appears under its name when the block ends well, complete and on disk, or never.

    Without ``overwrite`` a file of that name is left alone, also one that appears while the block runs. One
    that is replaced hands on its permissions and, where the system allows it, its owner and group. A link
    that is replaced is replaced itself; what it points to stays.

    Args:
        target: The file.
        overwrite: Whether to replace one that is there.
        on_begin: Given the name under which it is written, before it is.
        on_end: Given that name when the file is whole and on the disk, before it is published.

    Raises:
        ImageError: The name is taken, or the system refuses to write.
    """
    if os.path.exists(target) and not target.is_file():  # never replace /dev/null
        kind = "a folder; name a file in it" if target.is_dir() else "no ordinary file; choose another name"
        raise ImageError(f"cannot write {show(target)}: it is {kind}")
    if not overwrite and os.path.lexists(target):
        raise _taken(target)
    # Its name must not grow with the target's, which may be as long as names can be.
    temporary = target.parent / f".mambair-{secrets.token_hex(8)}.tmp"
    try:
        on_begin(temporary)
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            if overwrite:
                _take_over_access(file.fileno(), target)
            os.fsync(file.fileno())
        on_end(temporary)
        _publish(temporary, target, overwrite)
    except FileExistsError as error:
        raise _taken(target) from error
    except OSError as error:
        raise _explain("write", target, _WHY_UNWRITABLE, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _take_over_access(number: int, target: Path) -> None:
    """Give a file the owner, group and permissions of the one that it is to replace."""
    try:
        old = target.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(old.st_mode) or os.name != "posix":
        return
    mode = stat.S_IMODE(old.st_mode) & 0o777
    with suppress(OSError):  # only root may give a file away; its group, one who is in it
        os.fchown(number, -1, old.st_gid)
        os.fchown(number, old.st_uid, -1)
    if os.fstat(number).st_gid != old.st_gid:  # what one group may do, another may not
        mode = mode & ~0o070 | (mode & 0o007) << 3
    with suppress(OSError):  # FAT and some network drives have none
        os.fchmod(number, mode)


def is_stream(path: Path) -> bool:
    """Tell whether a path is a pipe, a device or a file that is open already: written to, never replaced.

    ``/dev/stdout`` and ``/dev/fd/3`` are links on Linux, which would be replaced like any other.
    """
    with suppress(OSError):
        mode = path.stat().st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return True
    return find_descriptor(path) is not None


def find_descriptor(path: Path) -> int | None:
    """Return the number of the open file of this process that a path stands for, if it does."""
    name = os.path.abspath(path)
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(os.path.dirname(name))
        own = folder.startswith(("/dev/", f"/proc/{os.getpid()}/"))
        if own and _DESCRIPTORS.fullmatch(folder) and os.path.basename(name).isdecimal():
            return int(os.path.basename(name))
        if not os.path.islink(name):
            return None
        name = os.path.join(os.path.dirname(name), os.readlink(name))
    return None


@contextmanager
def open_stream(target: Path, on_end: Callable[[Path], None] = lambda temporary: None) -> Iterator[BinaryIO]:
    """Open a file that goes to a pipe, a device or an open file, whole, when the block ends well.

    Args:
        target: Where to.
        on_end: Given the name of the file when it is whole, before any of it goes there.

    Raises:
        ImageError: The system refuses to write.
    """
    try:
        number = find_descriptor(target)
        # Opened first: whoever waits at the other end of a pipe is there before anything is computed.
        # An open file is written on where it stands: opening it anew would begin at its start.
        stream = target.open("wb") if number is None else os.fdopen(os.dup(number), "wb")
        with stream, tempfile.TemporaryDirectory(prefix="mambair-") as folder:
            temporary = Path(folder, "result")
            with temporary.open("x+b") as file:
                yield file
                file.flush()
                on_end(temporary)
                file.seek(0)
                shutil.copyfileobj(file, stream)
    except OSError as error:
        raise _explain("write", target, _WHY_UNSENT, error) from error


def _publish(temporary: Path, target: Path, overwrite: bool) -> None:
    """Give a finished file its name, in one step; without ``overwrite`` one that fails if it is taken."""
    if overwrite:
        temporary.replace(target)
    else:
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise
        except OSError:  # no hard links on FAT and some network drives: claim the name, then replace it
            target.open("xb").close()
            temporary.replace(target)
    synchronize(target.parent)


def synchronize(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def explain_unreadable(path: Path, error: OSError) -> ImageError:
    """Phrase why the system did not let a file be read."""
    if os.path.islink(path) and not os.path.exists(path):
        gone = show(os.readlink(path))
        return ImageError(
            f"cannot read {show(path)}: it is a link to {gone}, which is missing; mend the link"
        )
    return _explain("read", path, _WHY_UNREADABLE, error)


def lacks_space(error: OSError) -> bool:
    """Tell whether the disk, or the part of it that a user may have, was full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _taken(target: Path) -> ImageError:
    return ImageError(f"cannot write {show(target)}: it exists already; --overwrite replaces it")


def _explain(action: str, path: Path, reasons: dict[int, str], error: OSError) -> ImageError:
    reason = reasons.get(error.errno or 0, f"{error.strerror or error}; check the path")
    return ImageError(f"cannot {action} {show(path)}: {reason}")


def show(path: Path | str) -> str:
    """Give a path as it goes into a message of one line."""
    return str(path) if str(path).isprintable() else repr(str(path))


def enumerate_names(names: Iterable[str]) -> str:
    """Join two or more names as a sentence does."""
    *others, last = names
    return f"{', '.join(others)} and {last}"
