"""Folders of results: refused where they cannot be written to, and made."""

import errno
import os
from pathlib import Path

from mambair_cli.errors import ImageError, UsageError
from mambair_cli.system.file_errors import explain_closed, is_closed, lacks_space
from mambair_cli.system.new_folders import make_folders
from mambair_cli.system.wording import show


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
