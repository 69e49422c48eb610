"""Inputs -> images: which files are meant, and what of the inputs is left out."""

import fnmatch
import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from mambair_cli.errors import UsageError
from mambair_cli.images import READABLE_SUFFIXES
from mambair_cli.images.left_out import LeftOut, describe_kinds
from mambair_cli.images.source import STANDARD_STREAM, Source

_RESULT = re.compile(r"(.+)_(?:x\d+(?:\.\d+)?|upscaled|denoised|dejpeg)")  # as jobs.suffix_of calls them


@dataclass(frozen=True)
class FileFilter:
    """Which of the images in folders are meant, and what there was to choose from.

    Patterns are held against names, of files and of the folders that they lie in; those with a slash,
    against paths below the folder that was given.

    Attributes:
        include: Patterns, one of which each image must fit; without one all do.
        exclude: Patterns that none may fit.
        output: Where results go, which are no inputs.
        fitted: Patterns that something has fitted.
        left_out: What is not restored.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    output: str | None = None
    fitted: set[str] = field(default_factory=set)
    left_out: LeftOut = field(default_factory=LeftOut)

    def excludes(self, path: PurePath) -> bool:
        """Tell whether a file or folder, by its path below the folder that was given, is left out."""
        return self._fits_one(path, self.exclude)

    def fits(self, path: PurePath) -> bool:
        """Tell whether an image is meant."""
        is_included = not self.include or self._fits_one(path, self.include)
        return not self.excludes(path) and is_included

    def _fits_one(self, path: PurePath, patterns: tuple[str, ...]) -> bool:
        fitted = {pattern for pattern in patterns if _fits(path, pattern)}
        self.fitted.update(fitted)
        return bool(fitted)

    def remarks(self) -> Iterator[str]:
        """Say what a user might not expect of the choice."""
        yield from self.left_out.remarks()
        for option, patterns in (("--include", self.include), ("--exclude", self.exclude)):
            for pattern in patterns:
                if pattern not in self.fitted:
                    yield f"nothing in a folder fits {option} {pattern}"


def _fits(path: PurePath, pattern: str) -> bool:
    """Hold a pattern against a path: against the names in it, or against the path and those above it."""
    if "/" not in pattern.rstrip("/"):
        return any(fnmatch.fnmatch(part, pattern.rstrip("/")) for part in path.parts)
    plain = PurePosixPath(pattern).as_posix()  # without ./ and without / at its end
    return any(fnmatch.fnmatch(part.as_posix(), plain) for part in (path, *path.parents))


def is_there(name: str) -> bool:
    """Tell whether an input is there, as far as its name tells: a pattern may fit something."""
    return name == STANDARD_STREAM or glob.has_magic(name) or os.path.lexists(name)


def find_sources(inputs: Sequence[str], choice: FileFilter | None = None) -> list[Source]:
    """Find the images that are meant, in the order given, those of a folder by name.

    A folder stands for the images in it and below it; hidden files and folders are left out, and so are
    results: what lies in the output folder, and ``a_x4.png`` where there is an ``a.png`` or ``a.jpg``.
    Linked folders are not followed. A pattern that the shell has left alone is expanded, to no results
    either. What is left out is counted.

    Args:
        inputs: Files, folders, patterns, or "-" for standard input.
        choice: Of the images in folders; by default all.

    Raises:
        UsageError: A folder or pattern holds no image, a name is empty, or standard input is meant twice.
    """
    choice = choice or FileFilter()
    sources: list[Source] = []
    for name in inputs:
        if not name:
            raise UsageError("an input has an empty name; see what the shell makes of the command")
        if name == STANDARD_STREAM:
            sources.append(Source(None))
        elif os.path.isdir(name):
            sources.extend(_find_in_folder(Path(name), choice))
        elif glob.has_magic(name) and not os.path.lexists(name):
            matches = sorted(glob.glob(name, recursive=True))
            if not matches:
                raise UsageError(f"no file fits the pattern: {name}; check it")
            sources.extend(find_sources(_leave_out_results(matches, choice), choice))
        else:
            sources.append(Source(Path(name)))
    if [source.path for source in sources].count(None) > 1:
        raise UsageError("standard input can be read once: - is given twice; give it once")
    return sources


def read_names(list_file: str, null: bool = False, choice: FileFilter | None = None) -> list[Source]:
    """Read names of images and folders from a file; each is taken as it stands.

    Args:
        list_file: The file, or "-" for standard input.
        null: Whether names end with a NUL, as ``find -print0`` has it, not with a line.
        choice: Of the images in folders; by default all.

    Raises:
        UsageError: The file cannot be read, or names nothing.
    """
    try:
        data = sys.stdin.buffer.read() if list_file == STANDARD_STREAM else Path(list_file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the names in {list_file}: {error.strerror}; check its name") from error
    names = data.split(b"\0") if null else data.splitlines()
    sources: list[Source] = []
    for name in map(os.fsdecode, filter(None, names)):
        if os.path.isdir(name):
            sources.extend(_find_in_folder(Path(name), choice or FileFilter()))
        else:
            sources.append(Source(Path(name)))
    if not sources:
        raise UsageError(f"no names in {list_file}; write one a line")
    return sources


def take_once(sources: Sequence[Source], left_out: LeftOut) -> list[Source]:
    """Keep the first of several sources that are the same file of the same name."""
    folders: dict[str, str] = {}  # a million images lie in few
    seen: set[str] = set()
    taken: list[Source] = []
    for source in sources:
        if source.path is not None:
            folder, name = os.path.split(source.path)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            place = os.path.join(folders[folder], name)
            if place in seen:
                left_out.repeated.append(source.path)
                continue
            seen.add(place)
        taken.append(source)
    return taken


def _leave_out_results(names: Sequence[str], choice: FileFilter) -> list[str]:
    """Leave out of what fits a pattern the results of others that fit it."""
    images: dict[str, set[str]] = {}
    for name in names:
        folder, file = os.path.split(name)
        images.setdefault(folder, set()).update((file, Path(file).stem))
    kept = []
    for name in names:
        folder, file = os.path.split(name)
        if _is_result(file, images[folder]) and os.path.isfile(name):
            choice.left_out.results.append(Path(name))
        else:
            kept.append(name)
    return kept


def _is_result(name: str, images: Collection[str]) -> bool:
    """Tell whether a file is called as the result of one of these images, by their names and stems."""
    result = _RESULT.fullmatch(Path(name).stem)
    return result is not None and result[1] in images


def _find_in_folder(folder: Path, choice: FileFilter) -> list[Source]:
    found: list[Source] = []
    is_empty, left_out = True, choice.left_out
    kinds_before = left_out.kinds.copy()
    results = os.path.realpath(choice.output) if choice.output else None
    for root, folders, files in os.walk(folder, onerror=left_out.unreadable.append):
        below = Path(root).relative_to(folder)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and os.path.realpath(os.path.join(root, name)) != results
            and not choice.excludes(below / name)
        )
        left_out.links += [Path(root, name) for name in folders if os.path.islink(os.path.join(root, name))]
        shown = [name for name in sorted(files) if not name.startswith(".")]
        images = [name for name in shown if Path(name).suffix.lower() in READABLE_SUFFIXES]
        is_empty = is_empty and not images
        known = {*images, *(Path(name).stem for name in images)}
        for name in shown:
            if not choice.fits(below / name):
                continue
            if Path(name).suffix.lower() not in READABLE_SUFFIXES:
                left_out.add_unread(Path(root, name))
            elif _is_result(name, known):
                left_out.results.append(Path(root, name))
            else:
                found.append(Source(Path(root, name), folder))
    if not found:
        why = _explain_nothing(choice, is_empty, left_out.kinds - kinds_before)
        raise UsageError(f"no images in the folder: {folder}; {why}")
    return found


def find_images(folder: Path) -> list[Path]:
    """List all images in a folder and below it, found as those to restore are, results among them.

    Args:
        folder: A folder, or an image alone.

    Raises:
        UsageError: There is no such folder, nothing in it, or something that cannot be looked into.
    """
    if not folder.is_dir():
        if not folder.exists():
            raise UsageError(f"no such file or folder: {folder}; check its name")
        return [folder]
    choice = FileFilter()
    found = [Path(str(source)) for source in _find_in_folder(folder, choice)]
    for error in choice.left_out.unreadable:
        raise UsageError(f"cannot look into {error.filename}: {error.strerror}; change its permissions")
    return sorted(found + choice.left_out.results)


def _explain_nothing(choice: FileFilter, is_empty: bool, kinds: Counter[str]) -> str:
    if choice.left_out.unreadable:
        error = choice.left_out.unreadable[-1]
        return f"cannot look into {error.filename}: {error.strerror}; change its permissions"
    if kinds:
        return f"it holds only files of kinds that are not read: {describe_kinds(kinds)}"
    patterns = [f"--include {pattern}" for pattern in choice.include]
    patterns += [f"--exclude {pattern}" for pattern in choice.exclude]
    if patterns:
        return f"nothing is left by {' and '.join(patterns)}"
    if is_empty:
        return f"it takes {', '.join(sorted(READABLE_SUFFIXES))}"
    return "all are results themselves; name those to restore"
