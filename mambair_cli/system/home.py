"""Where the user's own files are: the home folder, which a user of a container or a service may not have."""

import os
from pathlib import Path


def home_folder() -> Path | None:
    """Return the user's home folder; None if the environment names none, and the system knows none."""
    home = os.path.expanduser("~")  # stays as it is where nobody knows the folder
    return Path(home) if os.path.isabs(home) else None
