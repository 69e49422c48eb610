"""Inputs -> jobs: which files are meant, and what their results are called."""

import fnmatch
import glob
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path, PurePath
from typing import BinaryIO

from mambair_cli.catalog import Task
from mambair_cli.errors import UsageError
from mambair_cli.images import READABLE_SUFFIXES, WRITABLE_SUFFIXES, format_of
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
        root: The folder that the run's results lie in, at any depth; None for standard output.
        result: Receives the file, of a result that has no path.
    """

    source: Source
    target: Path | None
    format: str | None = None
    root: Path | None = None
    result: BinaryIO | None = None

    @property
    def place(self) -> str:
        """Where the result goes, in a word."""
        if self.result is not None:
            return "the result"
        return STANDARD_STREAM if self.target is None else str(self.target)


@dataclass(frozen=True)
class Choice:
    """Which of the images in folders are meant.

    Attributes:
        include: Patterns, one of which each must fit; without one all do.
        exclude: Patterns that none may fit. Patterns are held against a name, or, where they have a slash,
            against the path below the folder.
        output: Where results go, which are no inputs.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    output: str | None = None

    def fits(self, path: PurePath) -> bool:
        """Tell whether a path below a folder is meant."""

        def fits_one(patterns: tuple[str, ...]) -> bool:
            return any(
                fnmatch.fnmatch(path.as_posix() if "/" in pattern else path.name, pattern)
                for pattern in patterns
            )

        return (not self.include or fits_one(self.include)) and not fits_one(self.exclude)


def find_sources(inputs: Sequence[str], choice: Choice | None = None) -> list[Source]:
    """Find the images that are meant, in the order given, those of a folder by name.

    A folder stands for the images in it and below it; hidden files and folders are left out, and so are
    results: what lies in the output folder, and ``a_x4.png`` where there is an ``a.png`` or ``a.jpg``.
    Linked folders are not followed. A pattern that the shell has left alone is expanded.

    Args:
        inputs: Files, folders, patterns, or "-" for standard input.
        choice: Of the images in folders; by default all.

    Raises:
        UsageError: A folder or pattern holds no image, or standard input is meant twice.
    """
    choice = choice or Choice()
    sources: list[Source] = []
    for name in inputs:
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
    found = []
    results = os.path.realpath(choice.output) if choice.output else None
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(root, name)) != results
        )
        images = [name for name in sorted(files) if Path(name).suffix.lower() in READABLE_SUFFIXES]
        stems = {Path(name).stem for name in images}
        for name in images:
            result = _RESULT.fullmatch(Path(name).stem)
            path = Path(root, name)
            is_result = result is not None and result[1] in stems
            if not name.startswith(".") and not is_result and choice.fits(path.relative_to(folder)):
                found.append(Source(path, folder))
    if not found:
        wanted = " and ".join(f"--include {pattern}" for pattern in choice.include)
        raise UsageError(
            f"no images in the folder: {folder}; "
            + (f"nothing fits {wanted}" if wanted else f"it takes {', '.join(sorted(READABLE_SUFFIXES))}")
        )
    return found


def suffix_of(task: Task, scale: int, size: Size) -> str:
    """Say what is added to the names of results of a task, by a network of that scale."""
    if task == "upscale" and size.depends_on_image:
        return "_upscaled"
    if task == "upscale" and size.scale is not None:
        return f"_x{size.scale:g}"
    return {"upscale": f"_x{scale}", "denoise": "_denoised", "dejpeg": "_dejpeg"}[task]


def name_targets(
    sources: Sequence[Source], output: str | None, suffix: str, format: str | None = None
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

    Raises:
        UsageError: Two results of one name, a result over an input, or several into one file.
        ImageError: The output's suffix names no format.
    """
    if output == STANDARD_STREAM or (output is None and sources[0].path is None):
        if len(sources) > 1:
            raise UsageError(f"standard output takes one image: {len(sources)} inputs; give -o a folder")
        return [Job(sources[0], None, format)]

    if output is not None and _is_one_file(sources, output):
        target = Path(output)
        jobs = [Job(sources[0], target, format or format_of(target), target.parent)]
    else:
        jobs = [_name_target(source, output, suffix, format) for source in sources]
    _refuse_collisions(jobs)
    return jobs


def _is_one_file(sources: Sequence[Source], output: str) -> bool:
    if len(sources) != 1 or sources[0].folder is not None:
        return False
    return not (output.endswith(("/", os.sep)) or os.path.isdir(output))


def _name_target(source: Source, output: str | None, suffix: str, format: str | None) -> Job:
    if source.path is None:
        raise UsageError("the result of standard input needs a name: give -o a file, or - alone")
    path = source.path
    if output is not None:
        root = Path(output)
        target = root / (path.relative_to(source.folder) if source.folder else path.name)
    elif source.folder is not None:
        folder = source.folder.resolve()
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
            raise UsageError(
                f"two results of one name: {other.source} and {job.source} both become {job.target}; "
                "restore them into different folders"
            )


def name_of(source: Source) -> str:
    """Name an image in a word."""
    return source.path.name if source.path else STANDARD_STREAM
