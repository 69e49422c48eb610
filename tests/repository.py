"""Where things are: this repository, and the data next to it that not every machine has."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
