"""Inputs -> jobs: which files are meant, and what their results are called."""

import fnmatch
import glob
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

from mambair_cli.catalog import Task
from mambair_cli.errors import ImageError, UsageError
from mambair_cli.images import READABLE_SUFFIXES, WRITABLE_SUFFIXES, is_stream, settle_format
from mambair_cli.size import Size

STANDARD_STREAM = "-"
_RESULT = re.compile(r"(.+)_(?:x\d+(?:\.\d+)?|upscaled|denoised|dejpeg)")  # as suffix_of calls them


@dataclass(frozen=True)
class Source:
    """An image to restore.

    Attributes:
        path: Of its file; None for standard input.
        folder: The folder among the inputs that it was found in; None where it was named itself.
        data: What its file holds, of one that came without a path.
    """

    path: Path | None
    folder: Path | None = None
    data: bytes | mmap | None = None

    def __str__(self) -> str:
        """Name it as its user did."""
        return STANDARD_STREAM if self.path is None else str(self.path)


@dataclass(frozen=True)
class Job:
    """One image and where its result goes.

    Attributes:
        source: The image.
        target: File to write; None for standard output.
        format: Of the result; None: as the target's name says, or as the source is on standard output.
        root: The folder that the run's results lie in, at any depth; None for standard output and streams.
        result: Receives the file, of a result that has no path.
        is_stream: Whether the target is a pipe, a device or an open file, which is written to as it is.
    """

    source: Source
    target: Path | None
    format: str | None = None
    root: Path | None = None
    result: BinaryIO | None = None
    is_stream: bool = False

    @property
    def place(self) -> str:
        """Where the result goes, in a word."""
        if self.result is not None:
            return "the result"
        return STANDARD_STREAM if self.target is None else str(self.target)


@dataclass(frozen=True)
class Choice:
    """Which of the images in folders are meant, and what there was to choose from.

    Patterns are held against names, of files and of the folders that they lie in; those with a slash,
    against paths below the folder that was given.

    Attributes:
        include: Patterns, one of which each image must fit; without one all do.
        exclude: Patterns that none may fit.
        output: Where results go, which are no inputs.
        results: Images that were left out since they are results themselves.
        fitted: Patterns that something has fitted.
        unreadable: Folders that cannot be looked into, and why.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    output: str | None = None
    results: list[Path] = field(default_factory=list)
    fitted: set[str] = field(default_factory=set)
    unreadable: list[OSError] = field(default_factory=list)

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
        for error in self.unreadable:
            yield f"cannot look into {error.filename}: {error.strerror}; what is in it is left out"
        if self.results:
            count = len(self.results)
            images = "an image that is a result" if count == 1 else f"{count} images that are results"
            yield f"left out {images}, such as {self.results[0]}; name it to restore it, too"
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


def find_sources(inputs: Sequence[str], choice: Choice | None = None) -> list[Source]:
    """Find the images that are meant, in the order given, those of a folder by name.

    A folder stands for the images in it and below it; hidden files and folders are left out, and so are
    results: what lies in the output folder, and ``a_x4.png`` where there is an ``a.png`` or ``a.jpg``.
    Linked folders are not followed. A pattern that the shell has left alone is expanded.

    Args:
        inputs: Files, folders, patterns, or "-" for standard input.
        choice: Of the images in folders; by default all.

    Raises:
        UsageError: A folder or pattern holds no image, a name is empty, or standard input is meant twice.
    """
    choice = choice or Choice()
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
            sources.extend(find_sources(matches, choice))
        else:
            sources.append(Source(Path(name)))
    if [source.path for source in sources].count(None) > 1:
        raise UsageError("standard input can be read once: - is given twice; give it once")
    return sources


def read_names(list_file: str, null: bool = False, choice: Choice | None = None) -> list[Source]:
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
            sources.extend(_find_in_folder(Path(name), choice or Choice()))
        else:
            sources.append(Source(Path(name)))
    if not sources:
        raise UsageError(f"no names in {list_file}; write one a line")
    return sources


def _find_in_folder(folder: Path, choice: Choice) -> list[Source]:
    found: list[Source] = []
    is_empty = True
    results = os.path.realpath(choice.output) if choice.output else None
    for root, folders, files in os.walk(folder, onerror=choice.unreadable.append):
        below = Path(root).relative_to(folder)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and os.path.realpath(os.path.join(root, name)) != results
            and not choice.excludes(below / name)
        )
        images = [name for name in sorted(files) if Path(name).suffix.lower() in READABLE_SUFFIXES]
        stems = {Path(name).stem for name in images}
        for name in images:
            if name.startswith("."):
                continue
            is_empty = False
            result = _RESULT.fullmatch(Path(name).stem)
            if not choice.fits(below / name):
                continue
            if result is not None and result[1] in stems:
                choice.results.append(Path(root, name))
            else:
                found.append(Source(Path(root, name), folder))
    if not found:
        raise UsageError(f"no images in the folder: {folder}; {_explain_nothing(choice, is_empty)}")
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
    choice = Choice()
    found = [Path(str(source)) for source in _find_in_folder(folder, choice)]
    for error in choice.unreadable:
        raise UsageError(f"cannot look into {error.filename}: {error.strerror}; change its permissions")
    return sorted(found + choice.results)


def _explain_nothing(choice: Choice, is_empty: bool) -> str:
    if choice.unreadable:
        error = choice.unreadable[-1]
        return f"cannot look into {error.filename}: {error.strerror}; change its permissions"
    patterns = [f"--include {pattern}" for pattern in choice.include]
    patterns += [f"--exclude {pattern}" for pattern in choice.exclude]
    if patterns:
        return f"nothing is left by {' and '.join(patterns)}"
    if is_empty:
        return f"it takes {', '.join(sorted(READABLE_SUFFIXES))}"
    return "all are results themselves; name those to restore"


def suffix_of(task: Task, scale: int, size: Size) -> str:
    """Say what is added to the names of results of a task, by a network of that scale."""
    if task == "upscale" and size.depends_on_image:
        return "_upscaled"
    if task == "upscale" and size.scale is not None:
        return f"_x{size.scale:g}"
    return {"upscale": f"_x{scale}", "denoise": "_denoised", "dejpeg": "_dejpeg"}[task]


def name_targets(
    sources: Sequence[Source],
    output: str | None,
    suffix: str,
    format: str | None = None,
    is_list: bool = False,
) -> list[Job]:
    """Say where each result goes.

    Without an output, ``in.png`` becomes ``in_x4.png`` beside it, and a folder ``photos`` becomes
    ``photos_x4`` beside it, its tree and names kept. An output that is a folder receives results under
    their inputs' names.

    Args:
        sources: The images.
        output: A file (one input), a folder, "-" for standard output, or None.
        suffix: Added to names where there is no output, such as ``_x4``.
        format: Of all results; by default each is written as its input is, or as PNG.
        is_list: Whether they come from a list, which may be of any length: then an output is a folder,
            also for one image.

    Raises:
        UsageError: Two results of one name, a result over an input, several into one file, or a file whose
            name asks for another format or for none.
    """
    if output == STANDARD_STREAM or (output is None and sources[0].path is None):
        if len(sources) > 1:
            raise UsageError(f"standard output takes one image: {len(sources)} inputs; give -o a folder")
        return [Job(sources[0], None, format)]

    file = target_file(sources, output, is_list)
    if file is not None and is_stream(file):
        jobs = [Job(sources[0], file, settle_file(file, format), is_stream=True)]
    elif file is not None:
        jobs = [Job(sources[0], file, settle_file(file, format), file.parent)]
    else:
        jobs = [_name_target(source, output, suffix, format) for source in sources]
    _refuse_collisions(jobs)
    return jobs


def target_file(sources: Sequence[Source], output: str | None, is_list: bool = False) -> Path | None:
    """Return the one file that an output means; None where it is a folder or a stream, or there is none."""
    if output in (None, STANDARD_STREAM) or is_list or len(sources) != 1 or sources[0].folder is not None:
        return None
    is_folder = output.endswith(("/", os.sep)) or os.path.isdir(output)
    path = sources[0].path
    if path is not None and not os.path.lexists(path):  # that is to be said, not what its result lacks
        is_folder = is_folder or not Path(output).suffix
    return None if is_folder else Path(output)


def settle_file(target: Path, format: str | None) -> str | None:
    """Name the format of a file that an output means; None for a stream whose name says nothing of it.

    Raises:
        UsageError: Its name asks for another, or for none.
    """
    suffixes = {suffix for suffixes in WRITABLE_SUFFIXES.values() for suffix in suffixes}
    if format is None and target.suffix.lower() not in suffixes and is_stream(target):
        return None
    try:
        return settle_format(target, format)
    except ImageError as error:
        raise UsageError(str(error)) from error


def _name_target(source: Source, output: str | None, suffix: str, format: str | None) -> Job:
    if source.path is None:
        raise UsageError("the result of standard input needs a name: give -o a file, or - alone")
    path = source.path
    if output is not None:
        root = Path(output)
        target = root / (path.relative_to(source.folder) if source.folder else path.name)
    elif source.folder is not None:
        folder = source.folder.resolve()
        if not folder.name:
            raise UsageError(f"nothing is beside {folder}, where its results could be; give -o a folder")
        root = folder.with_name(folder.name + suffix)
        if not source.folder.is_absolute():
            root = Path(os.path.relpath(root))
        target = root / path.relative_to(source.folder)
    else:
        root = path.parent
        target = path.with_name(path.stem + suffix + path.suffix)
    kept = {name for name in WRITABLE_SUFFIXES if path.suffix.lower() in WRITABLE_SUFFIXES[name]}
    if format is None and not kept:
        format = "png"
    if format is not None and format not in kept:
        target = target.with_name(target.name.removesuffix(path.suffix) + WRITABLE_SUFFIXES[format][0])
    return Job(source, target, format, root)


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    """Raise where two results would have one name, or a result its own or another input's."""
    inputs = {os.path.realpath(job.source.path): job.source for job in jobs if job.source.path}
    taken: dict[str, Job] = {}
    for job in jobs:
        if job.target is None:
            continue
        place = os.path.realpath(job.target)
        if place in inputs:
            raise UsageError(f"an input is never overwritten: {job.target}; choose another output with -o")
        other = taken.setdefault(os.path.normcase(place), job)
        if other is not job:
            if _is_same(other.source, job.source):
                raise UsageError(f"an image is named twice: {job.source}; name it once")
            raise UsageError(
                f"two results of one name: {other.source} and {job.source} both become {job.target}; "
                "restore them into different folders"
            )


def _is_same(one: Source, other: Source) -> bool:
    paths = [source.path for source in (one, other) if source.path is not None]
    return len({os.path.realpath(path) for path in paths}) < len(paths)


def name_of(source: Source) -> str:
    """Name an image in a word."""
    return source.path.name if source.path else STANDARD_STREAM
