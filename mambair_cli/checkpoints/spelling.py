"""Find a model's file in a repository that has none of the names in the catalogue."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from mambair_cli.checkpoints.catalog import Model, Task

# Words in a name that stand for a task; without any it is upscale. ``car``: compression artefact removal.
_TASKS: tuple[tuple[Task, str], ...] = (("denoise", r"dn|nois"), ("dejpeg", r"jpe?g|car(?=q?\d)|art[ei]fact"))
# Words that distinguish models of one task; others, such as ``classic``, are only in some names.
_KINDS: dict[Task, str] = {
    "upscale": r"light|small|base|large|real",
    "denoise": r"real|gr[ae]y",
    "dejpeg": r"colou?r",
}


class _Reading(NamedTuple):
    """The parts of a name that describe a model.

    Attributes:
        task: Task of the model.
        kinds: Words that distinguish models of the task.
        numbers: Scale or level, if it is a usual name.
    """

    task: Task
    kinds: frozenset[str]
    numbers: tuple[int, ...]


def find_alike(model: Model, listed: Iterable[str]) -> list[str]:
    """Find the files that are most likely the model's in a repository without its known paths.

    They are in the same folder. Names that differ only in ``-``, ``_``, case and a leading ``mambair`` come
    first; if there are none, names with the same task, kind, and scale or level.

    Returns:
        Paths in the repository; if there are several, the user has to choose.
    """
    folders = {PurePosixPath(file).parent for file in model.files}
    files = [
        file
        for file in listed
        if PurePosixPath(file).parent in folders and PurePosixPath(file).suffix.lower() == ".pth"
    ]
    wanted = {_fold(file) for file in model.files}
    same = [file for file in files if _fold(file) in wanted]
    return same or [file for file in files if _fits(_read(file), model)]


def _fold(file: str) -> str:
    """Return a file's name without the parts in which spellings differ."""
    return re.sub(r"[-_ ]", "", PurePosixPath(file).stem).lower().removeprefix("mambair")


def _read(file: str) -> _Reading:
    name = re.sub(r"(mambair)?v\d(?!\d)|mambair", "", _fold(file))
    named: list[Task] = [task for task, words in _TASKS if re.search(words, name)]
    task: Task = named[0] if named else "upscale"
    kinds = frozenset(re.findall(_KINDS[task], name))
    return _Reading(task, kinds, tuple(int(number) for number in re.findall(r"\d+", name)))


def _fits(found: _Reading, model: Model) -> bool:
    """Tell whether a name describes the same model as the model's own names."""
    if not found.kinds and not found.numbers:
        return False
    number = model.scale if model.task == "upscale" else model.level
    for known in map(_read, model.files):
        numbers = {known.numbers, () if number is None else (number,)}
        if (found.task, found.kinds) == (known.task, known.kinds) and found.numbers in numbers:
            return True
    return False
