"""Inputs -> jobs: which files are meant, and what their results are called."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mambair_cli.catalog import Task
from mambair_cli.errors import UsageError
from mambair_cli.images import READABLE_SUFFIXES, WRITABLE_SUFFIXES, format_of
from mambair_cli.size import Size

STANDARD_STREAM = "-"


@dataclass(frozen=True)
class Source:
    """An image to restore.

    Attributes:
        path: Of its file; None for standard input.
        folder: The folder among the inputs that it was found in; None where it was named itself.
    """

    path: Path | None
    folder: Path | None = None

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
    """

    source: Source
    target: Path | None
    format: str | None = None

    @property
    def place(self) -> str:
        """Where the result goes, in a word."""
        return STANDARD_STREAM if self.target is None else str(self.target)


def find_sources(inputs: Sequence[str]) -> list[Source]:
    """Find the images that are meant, in the order given, those of a folder by name.

    A folder stands for the images in it and below it; hidden files and folders are left out, and linked
    folders are not followed. A pattern that the shell has left alone is expanded.

    Args:
        inputs: Files, folders, patterns, or "-" for standard input.

    Raises:
        UsageError: A folder or pattern holds no image, or standard input is meant twice.
    """
    sources: list[Source] = []
    for name in inputs:
        if name == STANDARD_STREAM:
            sources.append(Source(None))
        elif os.path.isdir(name):
            sources.extend(_find_in_folder(Path(name)))
        elif glob.has_magic(name) and not os.path.lexists(name):
            matches = sorted(glob.glob(name, recursive=True))
            if not matches:
                raise UsageError(f"no file fits the pattern: {name}; check it")
            sources.extend(find_sources(matches))
        else:
            sources.append(Source(Path(name)))
    if [source.path for source in sources].count(None) > 1:
        raise UsageError("standard input can be read once: - is given twice; give it once")
    return sources


def _find_in_folder(folder: Path) -> list[Source]:
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in READABLE_SUFFIXES:
                found.append(Source(Path(root, name), folder))
    if not found:
        raise UsageError(
            f"no images in the folder: {folder}; it takes {', '.join(sorted(READABLE_SUFFIXES))}"
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
        jobs = [Job(sources[0], target, format or format_of(target))]
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
        target = Path(output) / (path.relative_to(source.folder) if source.folder else path.name)
    elif source.folder is not None:
        folder = source.folder.resolve()
        target = folder.with_name(folder.name + suffix) / path.relative_to(source.folder)
        if not source.folder.is_absolute():
            target = Path(os.path.relpath(target))
    else:
        target = path.with_name(path.stem + suffix + path.suffix)
    kept = {name for name in WRITABLE_SUFFIXES if path.suffix.lower() in WRITABLE_SUFFIXES[name]}
    if format is None and not kept:
        format = "png"
    if format is not None and format not in kept:
        target = target.with_name(target.name.removesuffix(path.suffix) + WRITABLE_SUFFIXES[format][0])
    return Job(source, target, format)


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
