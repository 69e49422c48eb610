"""Write files whole or not at all, hash them, and say in a line why one cannot be read or written."""

import errno
import hashlib
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

from mambair_cli.errors import ImageError, UsageError
from mambair_cli.system.new_folders import make_folders, open_in_new_folder

TEMPORARY_NAME = re.compile(r"\.mambair-[0-9a-f]{16}\.tmp")
"""Name of a file while it is written."""

_DESCRIPTORS = re.compile(r"(/proc/\d+(/task/\d+)?|/dev)/fd")  # folders of open files
_MOST_LINKS = 40  # the limit of Linux

_WHY_UNREADABLE = {
    errno.ENOENT: "it does not exist; check its name",
    errno.EISDIR: "it is a folder; name a file in it",
    errno.EACCES: "its permissions forbid it; change them",
    errno.ENAMETOOLONG: "its name is too long; shorten it",
    errno.ELOOP: "its links lead in a circle; repair them",
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
_WHY_CLOSED = {
    errno.EACCES: "its permissions forbid it; change them",
    errno.EPERM: "the system forbids it; ask who runs it",
    errno.EROFS: "its disk can only be read; make it writable",
}
_WHY_UNSENT = {
    **_WHY_UNWRITABLE,
    errno.EACCES: "its permissions forbid it; change them",
    errno.EBADF: "no such file is open; open it in the shell, as in 3>out.png",
    errno.EPIPE: "the program that reads it has ended; look at its messages",
}


@contextmanager
def atomic_write(
    target: Path,
    temporary: Path | None = None,
    *,
    overwrite: bool = True,
    in_new_folder: bool = False,
    on_begin: Callable[[Path], None] = lambda temporary: None,
    on_end: Callable[[Path], None] = lambda temporary: None,
) -> Iterator[BinaryIO]:
    """Open a file that appears under its name when the block ends well, complete and on disk, or never.

    A file that is replaced hands on its permissions and, where the system allows it, its owner and group.

    Args:
        target: The file.
        temporary: Its name while it is written, on the same disk; None for a name that nobody else uses.
            With a fixed name, what a killed process has left is replaced by the next one.
        overwrite: Whether to replace a file of the target's name, also one that appears during the block.
        in_new_folder: Whether to make its folder where that is missing.
        on_begin: Called with the temporary name before the file is opened.
        on_end: Called with it when the file is complete and on disk, before it gets its name.

    Raises:
        FileExistsError: There is a file of that name, and it must not be replaced.
        OSError: The system refuses to write.
    """
    # The temporary name must not grow with the target's, which may be as long as names can be.
    temporary = temporary or target.parent / f".mambair-{secrets.token_hex(8)}.tmp"
    try:
        on_begin(temporary)
        with open_in_new_folder(temporary) if in_new_folder else temporary.open("w+b") as file:
            yield file
            file.flush()
            if overwrite:
                _take_over_access(file.fileno(), target)
            os.fsync(file.fileno())
        on_end(temporary)
        _publish(temporary, target, overwrite)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def open_atomic(
    target: Path,
    temporary: Path | None = None,
    *,
    overwrite: bool = False,
    in_new_folder: bool = False,
    on_begin: Callable[[Path], None] = lambda temporary: None,
    on_end: Callable[[Path], None] = lambda temporary: None,
) -> Iterator[BinaryIO]:
    """Open a file as :func:`atomic_write` does, for a result; say in a sentence why it cannot be written.

    Without ``overwrite`` an existing file is left alone, also one that appears during the block. A link
    that is replaced is replaced itself; the file that it points to stays.

    Args:
        target: The file.
        temporary: Same as in :func:`atomic_write`.
        overwrite: Whether to replace an existing one.
        in_new_folder: Same as in :func:`atomic_write`; :func:`make_folder` before tells errors better.
        on_begin: Same as in :func:`atomic_write`.
        on_end: Same as in :func:`atomic_write`.

    Raises:
        ImageError: The name is taken, or the system refuses to write.
    """
    if os.path.exists(target) and not target.is_file():  # never replace /dev/null
        kind = "a folder; name a file in it" if target.is_dir() else "no ordinary file; choose another name"
        raise ImageError(f"cannot write {show(target)}: it is {kind}")
    if not overwrite and os.path.lexists(target):
        raise _taken(target)
    try:
        how = {"overwrite": overwrite, "in_new_folder": in_new_folder}
        with atomic_write(target, temporary, **how, on_begin=on_begin, on_end=on_end) as file:
            yield file
    except FileExistsError as error:
        raise _taken(target) from error
    except OSError as error:
        raise _explain("write", target, _WHY_UNWRITABLE, error) from error


def _take_over_access(number: int, target: Path) -> None:
    """Give a file the owner, group and permissions of the file that it will replace."""
    try:
        old = target.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(old.st_mode) or os.name != "posix":
        return
    mode = stat.S_IMODE(old.st_mode) & 0o777
    with suppress(OSError):  # only root may change the owner; the group, only a member of both
        os.fchown(number, -1, old.st_gid)
        os.fchown(number, old.st_uid, -1)
    if os.fstat(number).st_gid != old.st_gid:  # permissions of one group are not for another
        mode = mode & ~0o070 | (mode & 0o007) << 3
    with suppress(OSError):  # FAT and some network drives have no permissions
        os.fchmod(number, mode)


def is_stream(path: Path) -> bool:
    """Tell whether a path is a pipe, a device or a file that is already open: written to, never replaced.

    ``/dev/stdout`` and ``/dev/fd/3`` are links on Linux, which would be replaced like any other.
    """
    with suppress(OSError):
        mode = path.stat().st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return True
    return find_descriptor(path) is not None


def refuse_input(target: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write a file in the place of an input, also one of another name: a link to it.

    Args:
        target: The file.
        inputs: Files that are read.

    Raises:
        UsageError: It is one of them.
    """
    if not os.path.exists(target):
        return
    for path in inputs:
        with suppress(OSError):  # an input that is gone; whoever reads it says so
            if os.path.samefile(target, path):
                raise UsageError(f"cannot write {show(target)}: it is an input; choose another name")


def is_special(path: str | Path) -> bool:
    """Tell whether a path is neither file nor folder: a pipe, a socket or a device, which may have no end."""
    return not os.path.isfile(path) and os.path.exists(path) and not os.path.isdir(path)


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
    """Open a temporary file that is copied to a pipe, a device or an open file when the block ends well.

    Args:
        target: Path of the pipe, device or open file.
        on_end: Called with the name of the temporary file when it is complete, before it is copied.

    Raises:
        ImageError: The system refuses to write.
    """
    try:
        number = find_descriptor(target)
        # Opened first: the reader at the other end of a pipe is there before anything is computed.
        # An open file is continued at its position: opened again, it would begin at its start.
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
    """Give a finished file its name in one step, which fails without ``overwrite`` if the name is taken."""
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
    """Write the names in a folder to disk, where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def require_folder(folder: Path, option: str = "-o") -> None:
    """Refuse a folder for what a command names alone, as :func:`check_folder` does for one of many results.

    Args:
        folder: The folder.
        option: Option that chose it.

    Raises:
        UsageError: A file stands where it, or a folder above it, would be.
        ImageError: It, or the one that it would be made in, cannot be written to.
    """
    there = _find_nearest(folder)
    if not there.is_dir():
        raise UsageError(_explain_no_folder(there, option))
    check_folder(folder, option)


def check_folder(place: Path, option: str = "-o") -> None:
    """Refuse a folder of results that cannot be written to or made; nothing is made to find out.

    The message names the folder that is in the way, and so is one for all results.

    Args:
        place: The folder.
        option: Option that chose it.

    Raises:
        ImageError: The folder, or the one that it would be made in, cannot be written to.
    """
    folder = _find_nearest(place)
    by_effect = os.access in os.supports_effective_ids
    if not folder.is_dir():
        raise ImageError(_explain_no_folder(folder, option))
    if os.access(folder, os.W_OK | os.X_OK, effective_ids=by_effect):
        return
    is_read_only = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
    raise explain_closed(folder, errno.EROFS if is_read_only else errno.EACCES, option)


def _find_nearest(place: Path) -> Path:
    """Return a path if anything is there, or else the nearest one above it where something is."""
    return next(path for path in (place, *place.parents, Path.cwd()) if os.path.lexists(path))


def _explain_no_folder(path: Path, option: str) -> str:
    return f"cannot write results: {show(path)} is no folder; choose another folder with {option}"


def make_folder(folder: Path, option: str = "-o") -> None:
    """Make a folder and those above it, where they are missing.

    Args:
        folder: The folder.
        option: Option that chose it.

    Raises:
        ImageError: The system refuses to make it.
    """
    try:
        make_folders(folder)
    except OSError as error:
        above = next((path for path in folder.parents if os.path.lexists(path)), folder)
        if is_closed(error):
            raise explain_closed(above, error.errno or 0, option) from error
        remedy = "free some space" if lacks_space(error) else f"choose another folder with {option}"
        raise ImageError(f"cannot make the folder {folder}: {error.strerror}; {remedy}") from error


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def explain_unreadable(path: Path, error: OSError) -> ImageError:
    """Phrase why the system did not let a file be read."""
    if error.errno != errno.ELOOP and os.path.islink(path) and not os.path.exists(path):
        gone = show(os.readlink(path))
        return ImageError(
            f"cannot read {show(path)}: it is a link to {gone}, which is missing; repair the link"
        )
    return _explain("read", path, _WHY_UNREADABLE, error)


def explain_unwritable(path: Path, error: OSError) -> ImageError:
    """Phrase why the system did not let a file be written."""
    return _explain("write", path, _WHY_UNWRITABLE, error)


def is_closed(error: OSError) -> bool:
    """Tell whether permissions or a disk that can only be read forbade to write."""
    return error.errno in _WHY_CLOSED


def explain_closed(
    place: Path, number: int, option: str = "-o", action: str = "write into the folder"
) -> ImageError:
    """Phrase why nothing can be written into a folder of results, or to a file in it.

    Args:
        place: The folder, or the file.
        number: One of the system's errors for which :func:`is_closed` is true.
        option: Option that chose the folder.
        action: What cannot be done with the place.
    """
    why = _WHY_CLOSED[number]
    return ImageError(f"cannot {action} {show(place)}: {why}, or choose another folder with {option}")


def lacks_space(error: OSError) -> bool:
    """Tell whether the disk, or the user's quota of it, was full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _taken(target: Path) -> ImageError:
    return ImageError(f"cannot write {show(target)}: it exists already; --overwrite replaces it")


def _explain(action: str, path: Path, reasons: dict[int, str], error: OSError) -> ImageError:
    reason = reasons.get(error.errno or 0, f"{error.strerror or error}; check the path")
    return ImageError(f"cannot {action} {show(path)}: {reason}")


def show(path: Path | str) -> str:
    """Return a path as a message of one line shows it."""
    return str(path) if str(path).isprintable() else repr(str(path))


def enumerate_names(names: Iterable[str]) -> str:
    """Join names with commas and "and"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
