"""Remove the folders that something has made and left empty, as when it fails or is interrupted."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
