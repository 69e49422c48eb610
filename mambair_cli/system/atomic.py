"""Write files whole or not at all."""

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from mambair_cli.system.new_folders import in_new_folder_of
from mambair_cli.system.own_errors import OwnErrors

TEMPORARY_NAME = re.compile(r"\.mambair-[0-9a-f]{16}\.tmp")
"""Name of a file while it is written."""


def new_temporary(folder: Path) -> Path:
    """Return a name in a folder that nobody else uses, for a file while it is written."""
    return folder / f".mambair-{secrets.token_hex(8)}.tmp"


@contextmanager
def atomic_write(
    target: Path,
    temporary: Path | None = None,
    *,
    overwrite: bool = True,
    in_new_folder: bool = False,
    on_begin: Callable[[Path], None] = lambda temporary: None,
    on_end: Callable[[Path], None] = lambda temporary: None,
    errors: OwnErrors | None = None,
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
        errors: Collects the errors of all this, which are not those of the block.

    Raises:
        FileExistsError: There is a file of that name, and it must not be replaced.
        OSError: The system refuses to write.
    """
    # The temporary name must not grow with the target's, which may be as long as names can be.
    temporary = temporary or new_temporary(target.parent)
    errors = errors or OwnErrors()
    try:
        with errors.noting():
            on_begin(temporary)
            open_file = partial(errors.open, temporary, "w+")
            opened = in_new_folder_of(temporary, open_file) if in_new_folder else open_file()
        with opened as file:
            yield file
            with errors.noting():
                file.flush()
                if overwrite:
                    _take_over_access(file.fileno(), target)
                os.fsync(file.fileno())
        with errors.noting():
            on_end(temporary)
            _publish(temporary, target, overwrite)
    finally:
        with suppress(OSError):
            temporary.unlink()


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
