"""What is in the folder of a run."""

from pathlib import Path

from mambair_cli.runs.record import JOURNAL_FILE


def list_files(folder: str | Path = ".") -> list[str]:
    """Return the names of all files but the journals, from the folder on, sorted."""
    return sorted(read_files(folder))


def read_files(folder: str | Path = ".") -> dict[str, bytes]:
    """Return the content of all files but the journals, by their names from the folder on."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != JOURNAL_FILE)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
