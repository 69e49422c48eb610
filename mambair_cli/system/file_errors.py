"""Say in a line why a file or a folder cannot be read or written."""

import errno
import os
from pathlib import Path

from mambair_cli.errors import ImageError
from mambair_cli.system.wording import show

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


def explain_unsent(target: Path, error: OSError) -> ImageError:
    """Phrase why the system did not let a pipe, a device or an open file be written to."""
    return _explain("write", target, _WHY_UNSENT, error)


def explain_taken(target: Path) -> ImageError:
    """Say that a file has the name of a result."""
    return ImageError(f"cannot write {show(target)}: it exists already; --overwrite replaces it")


def explain_input(target: Path) -> ImageError:
    """Say that a result would take the place of an input."""
    return ImageError(f"cannot write {show(target)}: it is an input; choose another output with -o")


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


def _explain(action: str, path: Path, reasons: dict[int, str], error: OSError) -> ImageError:
    reason = reasons.get(error.errno or 0, f"{error.strerror or error}; check the path")
    return ImageError(f"cannot {action} {show(path)}: {reason}")
