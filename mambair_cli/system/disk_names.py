"""Names that a disk takes for one: of other case, or with accents that are composed otherwise.

Systems do not tell that: a stick with exFAT or a share of Windows ignores case on Linux, too, and folders of
one disk may differ. So each folder is asked, by a name that is there.
"""

import os
import string
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mambair_cli.system.real_folders import RealFolders

_SWAPPED = str.maketrans(string.ascii_letters, string.ascii_letters.swapcase())


def fold_name(name: str) -> str:
    """Return the same text for all names that some disk takes for this one."""
    return _compose(name).lower()


def is_same_file(path: Path, other: Path) -> bool:
    """Tell whether two paths lead to one file that is there, by whatever names."""
    with suppress(OSError):
        return path.samefile(other)
    return False


class DiskNames:
    """Tells by which names a file is the same, for files that exist and for results; nothing is written."""

    def __init__(self) -> None:
        self._real = RealFolders()
        self._folders: dict[str, _Folder] = {}  # by their real paths

    def place(self, path: str | os.PathLike[str]) -> str:
        """Return the real path of a file, without links."""
        place = self._real.place(os.fspath(path))
        return os.path.realpath(place) if os.path.islink(place) else place

    def key(self, path: str | os.PathLike[str]) -> str:
        """Return a text that is the same for all names of a file, which need not exist.

        Where nothing tells, names that differ only in case count as one, since a refusal costs less than a
        file that another one replaces; accents count as they do on most disks that treat case so.
        """
        folder, name = os.path.split(self.place(path))
        return self._look(folder).key_of(name)

    def _look(self, folder: str) -> "_Folder":
        if folder not in self._folders:
            above, name = os.path.split(folder)
            try:
                status = os.stat(folder)
            except OSError:  # it is to be made, and will be like the one above
                found = self._look(above).below(name) if above != folder else _Folder(folder, folder)
            else:
                # By number, since its own name may be written in several ways; some disks have no numbers.
                number = f"{status.st_dev}:{status.st_ino}" if status.st_ino else folder
                found = _Folder(f"{number}/", folder)
            self._folders[folder] = found
        return self._folders[folder]


class _Folder:
    """A folder, or one that is to be made below it.

    Args:
        key: What the keys of all that is in it begin with.
        shown: The folder that is there.
    """

    def __init__(self, key: str, shown: str) -> None:
        self.key, self._shown = key, shown
        self._tells_case: bool | None = None
        self._tells_accents: bool | None = None

    def key_of(self, name: str) -> str:
        """Return the key of a file in the folder."""
        if self._tells_case is None:
            self._tells_case = _tells_apart(self._shown, _swap_case) or False
        if not name.isascii():
            if self._tells_accents is None:
                answer = _tells_apart(self._shown, _recompose)
                self._tells_accents = self._tells_case if answer is None else answer
            if not self._tells_accents:
                name = _compose(name)
        return self.key + (name if self._tells_case else name.lower())

    def below(self, name: str) -> "_Folder":
        """Return a folder in this one."""
        found = _Folder(f"{self.key_of(name)}/", self._shown)
        found._tells_case, found._tells_accents = self._tells_case, self._tells_accents
        return found


def _tells_apart(folder: str, vary: Callable[[str], str]) -> bool | None:
    """Tell whether a name and its variation are two files, by a name in a folder or above it on its disk."""
    with suppress(OSError):
        device = os.stat(folder).st_dev
        while os.stat(folder).st_dev == device:
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    other = vary(entry.name)
                    if other != entry.name:
                        answer = _are_two(entry.path, os.path.join(folder, other))
                        if answer is not None:
                            return answer
            above = os.path.dirname(folder)
            if above == folder:
                break
            folder = above
    return None


def _are_two(path: str, other: str) -> bool | None:
    """Tell whether two paths are not those of one file; None if the first is gone."""
    second = None
    with suppress(OSError):
        second = os.lstat(other)
    try:
        first = os.lstat(path)  # after the other: had it gone between, both would be missing
    except OSError:
        return None
    return second is None or not os.path.samestat(first, second)


def _swap_case(name: str) -> str:
    return name.translate(_SWAPPED)


def _compose(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _recompose(name: str) -> str:
    """Return a name with its accents composed if they are not, or the other way round."""
    composed = _compose(name)
    return unicodedata.normalize("NFD", name) if composed == name else composed
