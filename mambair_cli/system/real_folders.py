"""Real paths of many files in few folders."""

import os
from pathlib import Path


class RealFolders:
    """Finds the real folders of files, each once: a million files are in few."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def place(self, path: Path | str) -> str:
        """Return the path of a file in its real folder; a link stays that is the file itself."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)
