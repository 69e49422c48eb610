"""Open files of results, and tell files, pipes and devices apart; hash files."""

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mambair_cli.errors import ImageError, UsageError
from mambair_cli.system.atomic import atomic_write
from mambair_cli.system.file_errors import explain_taken, explain_unsent, explain_unwritable
from mambair_cli.system.own_errors import OwnErrors
from mambair_cli.system.wording import show

_DESCRIPTORS = re.compile(r"(/proc/\d+(/task/\d+)?|/dev)/fd")  # folders of open files
_MOST_LINKS = 40  # the limit of Linux


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

    Errors of the block that are not of this file stay as they are, such as those of other files.
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
        raise explain_taken(target)
    errors = OwnErrors()
    try:
        how = {"overwrite": overwrite, "in_new_folder": in_new_folder, "errors": errors}
        with atomic_write(target, temporary, **how, on_begin=on_begin, on_end=on_end) as file:
            yield file
    except OSError as error:
        if error not in errors:
            raise
        if isinstance(error, FileExistsError) and os.path.lexists(target):
            raise explain_taken(target) from error
        raise explain_unwritable(target, error) from error


def is_stream(path: Path) -> bool:
    """Tell whether a path is a pipe, a device or a file that is already open: written to, never replaced.

    ``/dev/stdout`` and ``/dev/fd/3`` are links on Linux, which would be replaced like any other.
    """
    with suppress(OSError):
        mode = path.stat().st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return True
    return find_descriptor(path) is not None


FileIds = frozenset[tuple[int, int]]
"""Device and number of each file: what tells files apart, whatever their names."""


def identify_files(paths: Iterable[Path]) -> FileIds:
    """Return what tells files apart; nothing of those that are gone, for which an error follows."""
    found = set()
    for path in paths:
        with suppress(OSError):
            status = os.stat(path)
            found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def refuse_input(target: Path, inputs: FileIds) -> None:
    """Refuse to write a file in the place of an input, also one of another name: a link to it.

    Args:
        target: The file.
        inputs: Files that are read, by :func:`identify_files`.

    Raises:
        UsageError: It is one of them.
    """
    if identify_files([target]) & inputs:
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

    Errors of the block that are not of these files stay as they are.

    Args:
        target: Path of the pipe, device or open file.
        on_end: Called with the name of the temporary file when it is complete, before it is copied.

    Raises:
        ImageError: The system refuses to write.
    """
    errors = OwnErrors()
    try:
        with ExitStack() as opened:
            with errors.noting():
                number = find_descriptor(target)
                # Opened first: the reader at the other end of a pipe is there before anything is computed.
                # An open file is continued at its position: opened again, it would begin at its start.
                stream = opened.enter_context(errors.open(target if number is None else os.dup(number), "w"))
                folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="mambair-"))
                temporary = Path(folder, "result")
                file = opened.enter_context(errors.open(temporary, "x+"))
            yield file
            with errors.noting():
                file.flush()
                on_end(temporary)
                file.seek(0)
                shutil.copyfileobj(file, stream)
    except OSError as error:
        if error not in errors:
            raise
        raise explain_unsent(target, error) from error


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
