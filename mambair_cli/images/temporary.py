"""The system's folder for temporary files, which libraries use that read images."""

import errno
import os
import shutil
import tempfile

from mambair_cli.errors import ShortageError
from mambair_cli.system.wording import show

_MIB = 2**20
_NUMBERS = {os.strerror(number): number for number in errno.errorcode}


def find_temporary_folder() -> str:
    """Return the folder that was asked for, or else the usual one; it may be missing."""
    return os.environ.get("TMPDIR") or tempfile.gettempdir()


def restore_error(reason: str) -> OSError:
    """Return the system's error that a library tells only in words."""
    return OSError(_NUMBERS.get(reason, 0), reason)


def try_to_keep(size: int) -> OSError | None:
    """Find out whether the folder has room for a file of some bytes; return the error if it has none."""
    folder = find_temporary_folder()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # which knows limits and quotas, too
                os.posix_fallocate(file.fileno(), 0, size)
            elif shutil.disk_usage(folder).free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        return error
    return None


def explain_unkept(folder: str, error: OSError, size: int | None) -> ShortageError:
    """Phrase why a temporary file was not written, which is no fault of the image.

    Args:
        folder: Its folder.
        error: The system's error.
        size: Its size, in bytes; None where that is not known.
    """
    enough = "enough space" if size is None else f"{-(-size // _MIB)} MiB"
    remedy = f"set TMPDIR to a folder with {enough} free"
    if error.errno == errno.EFBIG:
        remedy = f"allow larger files with `ulimit -f`, or {remedy}"
    return ShortageError(
        f"cannot write to the temporary folder {show(folder)} ({error.strerror or error}); {remedy}"
    )
