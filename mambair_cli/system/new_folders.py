"""New folders: made although others may remove them, and removed where something has left them empty."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_ATTEMPTS = 20


@contextmanager
def removing_empty(folders: Iterable[Path]) -> Iterator[None]:
    """Remove those of some folders, and of the ones above them, that the block makes and leaves empty.

    Args:
        folders: Folders that the block may make.
    """
    missing: set[Path] = set()
    for folder in dict.fromkeys(folders):
        for path in (folder, *folder.parents):
            if path in missing or os.path.lexists(path):
                break
            missing.add(path)
    try:
        yield
    finally:
        for path in sorted(missing, key=lambda path: -len(path.parts)):
            with suppress(OSError):  # it is not empty, or was not made
                path.rmdir()


def despite_removal(make: Callable[[], T]) -> T:
    """Make a folder, and perhaps a file in it, although another run may remove it as long as it is empty.

    Args:
        make: Makes them; it is called again where the folder was removed meanwhile.

    Raises:
        OSError: The system refuses.
    """
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError, FileExistsError):
            return make()
    return make()


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, where they are missing; errors as of :func:`despite_removal`."""
    despite_removal(lambda: folder.mkdir(parents=True, exist_ok=True))


def in_new_folder_of(path: Path, make: Callable[[], T]) -> T:
    """Make a file, by a function, and before it its folder where that is missing; errors as before."""

    def make_both() -> T:
        path.parent.mkdir(parents=True, exist_ok=True)
        return make()

    return despite_removal(make_both)
