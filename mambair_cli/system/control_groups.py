"""What Linux allows the groups of processes that this one is in, as in containers and services.

A group lies in others, each with its own limits, and the least one holds. Version 1 of these control groups
has a tree for each resource, version 2 one tree for all; a machine may have both.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_ROOT = Path("/")
_NO_LIMIT = 2**60  # bytes from which a limit is none: version 1 writes nearly 2**63


class Limits(NamedTuple):
    """What a process may use.

    Attributes:
        processors: Number of processors' time, which may be a fraction; None without a limit.
        memory: Memory in bytes; None without a limit.
    """

    processors: float | None = None
    memory: int | None = None


class _Mount(NamedTuple):
    """A tree of groups: its root among all groups, where that is mounted, and what it limits."""

    root: PurePosixPath
    place: Path
    is_unified: bool
    controllers: frozenset[str]


@lru_cache
def read_limits(root: Path = _ROOT) -> Limits:
    """Read the limits of this process, once.

    Args:
        root: Folder in which /proc and /sys are looked up.

    Returns:
        The limits; none on other systems, and of groups that cannot be read.
    """
    processors: list[float] = []
    memory: list[int] = []
    for mount, folder in _find_folders(root):
        while True:
            if mount.is_unified:
                processors += _read_share(folder / "cpu.max")
                memory += _read_numbers(folder / "memory.max")
            if "cpu" in mount.controllers:
                quota = _read_numbers(folder / "cpu.cfs_quota_us")  # -1 without a limit
                period = _read_numbers(folder / "cpu.cfs_period_us")
                processors += [own / each for own in quota for each in period if own > 0 and each > 0]
            if "memory" in mount.controllers:
                memory += _read_numbers(folder / "memory.limit_in_bytes")
            if folder == mount.place:
                break
            folder = folder.parent
    sizes = (size for size in memory if 0 < size < _NO_LIMIT)
    return Limits(min(processors, default=None), min(sizes, default=None))


def _find_folders(root: Path) -> Iterator[tuple[_Mount, Path]]:
    """Find the folder of this process in each tree; that of the tree itself where it is not to be seen."""
    mounts = list(_find_mounts(root))
    for line in _read_lines(root / "proc/self/cgroup"):
        parts = line.split(":", 2)  # such as 4:cpu,cpuacct:/a/group, and 0::/a/group for version 2
        if len(parts) < 3:
            continue
        number, names, group = parts[0], frozenset(parts[1].split(",")), PurePosixPath(parts[2])
        for mount in mounts:
            if mount.is_unified != (number == "0" and not parts[1]):
                continue
            if not mount.is_unified and not names & mount.controllers:
                continue
            is_inside = group.is_relative_to(mount.root) and ".." not in group.parts
            folder = mount.place / group.relative_to(mount.root) if is_inside else mount.place
            yield mount, folder if folder.is_dir() else mount.place


def _find_mounts(root: Path) -> Iterator[_Mount]:
    for line in _read_lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, (kind, *others) = before.split(), after.split() or [""]
        if kind in ("cgroup", "cgroup2") and len(fields) > 4 and others:
            inside, place = map(_plain, fields[3:5])
            options = frozenset(others[-1].split(","))
            yield _Mount(PurePosixPath(inside), root / place.lstrip("/"), kind == "cgroup2", options)


def _plain(text: str) -> str:
    """Return a path whose blanks and similar signs are written as a backslash and an octal number."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _read_lines(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text(errors="surrogateescape").splitlines()
    return []


def _read_numbers(path: Path) -> list[int]:
    """Return the number in a file, if there is one; "max" means that there is no limit."""
    return [int(line) for line in _read_lines(path)[:1] if re.fullmatch(r"-?\d+", line.strip())]


def _read_share(path: Path) -> list[float]:
    """Return the processors that ``cpu.max`` allows: microseconds of their time, in a period of so many."""
    found = re.fullmatch(r"(\d+) (\d+)\s*", "".join(_read_lines(path)[:1]))
    return [int(found[1]) / int(found[2])] if found and int(found[2]) else []
