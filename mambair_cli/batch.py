"""The run over jobs: each image restored and written, or its error kept."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mambair_cli.engine import OnTiles
from mambair_cli.errors import ImageError, MambairError
from mambair_cli.images import (
    MAX_PIXELS,
    WRITABLE_SUFFIXES,
    Header,
    Reader,
    Writer,
    fit_header,
    open_picture,
    open_writer,
    settle_format,
)
from mambair_cli.jobs import STANDARD_STREAM, Job, Source, name_of
from mambair_cli.journal import Entry, Journal, Pen, Stamp, digest_settings, hash_of, stamp_of
from mambair_cli.restore import Report, Restorer
from mambair_cli.size import Size


@dataclass(frozen=True)
class Output:
    """How results are written.

    Attributes:
        quality: 1 to 100, of JPEG, WebP and AVIF; None for the default.
        depth: Bits a sample, 8 or 16; None for those of the input.
        strip: Whether to leave out all metadata.
        preserve_times: Whether files get the times of their inputs.
        overwrite: Whether to replace results that exist.
        size: What was asked for.
        max_pixels: Larger images are refused.
        resume: Whether to leave alone what an earlier run has done, and to do what it has not.
    """

    quality: int | None = None
    depth: int | None = None
    strip: bool = False
    preserve_times: bool = False
    overwrite: bool = False
    size: Size = field(default_factory=Size)
    max_pixels: int = MAX_PIXELS
    resume: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: The job.
        error: Why there is no result, or None.
        size: Width and height of the result in pixels; None without one.
        reduced: Whether the result was reduced from what the network gave.
        report: How it was computed; None without a result.
        seconds: From the first byte read to the last one written.
        is_skipped: Whether an earlier run had done it.
    """

    job: Job
    error: MambairError | None
    size: tuple[int, int] | None
    reduced: bool
    report: Report | None
    seconds: float
    is_skipped: bool = False


@dataclass(frozen=True)
class Task:
    """A job, ready to be done by whoever has the network.

    Attributes:
        job: The job.
        output: How results are written.
        overwrite: Whether this result may replace what is there.
        watch: Looks after the result; None where a stream is read or written.
    """

    job: Job
    output: Output
    overwrite: bool
    watch: "Watch | None"


Perform = Callable[[Iterable[Task]], Iterator[Outcome]]
"""Does tasks, one after the other or side by side, and yields what became of each as it is known."""


def run_jobs(
    jobs: Sequence[Job], output: Output, settings: dict[str, Any], perform: Perform
) -> Generator[Outcome]:
    """Restore images; one that fails costs itself alone.

    A run of several images, or over a folder, keeps a journal beside its results; see ``journal``.

    Args:
        jobs: From ``name_targets``.
        output: How the results are written.
        settings: From ``settings_of``.
        perform: Does the work.

    Yields:
        An outcome per job: first of those that an earlier run has done.

    Raises:
        UsageError: Another run is writing into the same folder.
        ImageError: A folder of results cannot be written.
    """
    is_batch = output.resume or len(jobs) > 1 or any(job.source.folder for job in jobs)
    with ExitStack() as stack:
        journals: dict[Path, Journal] = {}
        for root in dict.fromkeys(job.root for job in jobs if job.root and is_batch):
            journals[root] = Journal(root)
            stack.callback(journals[root].close)
        tasks = []
        for job in jobs:
            start = time.perf_counter()
            watch, overwrite = None, output.overwrite
            if job.source.path is not None and job.target is not None:
                word = digest_settings({**settings, "format": job.format})
                journal = journals.get(job.root) if job.root else None
                pen = Pen(journal.folder) if journal else None
                watch = Watch(job.source.path, job.target, pen, word, output.preserve_times)
                if journal and output.resume:
                    if journal.is_done(job.source.path, job.target, word):
                        seconds = time.perf_counter() - start
                        yield Outcome(job, None, None, False, None, seconds, is_skipped=True)
                        continue
                    overwrite = overwrite or journal.is_ours(job.target)
            tasks.append(Task(job, output, overwrite, watch))
        yield from perform(tasks)


def perform_alone(
    tasks: Iterable[Task],
    restorer: Restorer,
    on_start: Callable[[str, int], None] = lambda name, pixels: None,
    on_tiles: OnTiles | None = None,
) -> Iterator[Outcome]:
    """Do tasks one after the other.

    Args:
        tasks: What is to be done.
        restorer: Does the work.
        on_start: Told of each image that was opened, its name and number of pixels.
        on_tiles: Told of the progress within an image.
    """
    for task in tasks:
        start = time.perf_counter()
        size = report = error = None
        reduced = False
        try:
            size, reduced, report = _run(task, restorer, on_start, on_tiles)
        except MambairError as problem:
            error = problem
        yield Outcome(task.job, error, size, reduced, report, time.perf_counter() - start)


class Watch:
    """Sees that a result is that of its input as it is now, and notes it in the journal, if there is one."""

    def __init__(
        self, source: Path, target: Path, pen: Pen | None, settings: str, preserve_times: bool
    ) -> None:
        self._source, self._target = source, target
        self._pen, self._settings = pen, settings
        self._preserve_times = preserve_times
        self._before: os.stat_result | None = None
        self._content = ""

    def begin(self, temporary: Path) -> None:
        """Look at the input, before it is read."""
        try:
            self._before = self._source.stat()
            self._content = hash_of(self._source) if self._pen else ""
        except OSError as error:
            raise self._meddled() from error
        if self._pen:
            self._pen.begin(self._target, temporary)

    def _meddled(self) -> ImageError:
        return ImageError(f"cannot restore {self._source}: it changed or vanished meanwhile; try it again")

    def is_written(self) -> bool:
        """Tell whether somebody has written the result since this run began."""
        return self._pen is not None and self._pen.has_written(self._target)

    def end(self, temporary: Path) -> None:
        """Look at the input again, and note the result, which is whole and has not got its name yet.

        Raises:
            ImageError: The input has changed or vanished.
        """
        before = self._before
        if before is None:
            raise ValueError("what has not begun cannot end")
        try:
            is_same = stamp_of(self._source) == (before.st_size, before.st_mtime_ns)
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise self._meddled()
        if self._preserve_times:
            os.utime(temporary, ns=(before.st_atime_ns, before.st_mtime_ns))
        if self._pen:
            source = Stamp(before.st_size, before.st_mtime_ns)
            entry = Entry(self._settings, self._content, source, stamp_of(temporary))
            self._pen.finish(self._target, entry)


def settings_of(restorer: Restorer, output: Output) -> dict[str, Any]:
    """Collect all that the pixels of results depend on beside their inputs."""
    return {
        "weights": hash_of(restorer.model.path),
        "device": restorer.device.type,
        "precision": restorer.precision,
        "tile": restorer.tile,
        "overlap": restorer.overlap,
        "seed": restorer.seed,
        "quality": output.quality,
        "depth": output.depth,
        "strip": output.strip,
        "size": asdict(output.size),
    }


def _run(
    task: Task,
    restorer: Restorer,
    on_start: Callable[[str, int], None],
    on_tiles: OnTiles | None,
) -> tuple[tuple[int, int], bool, Report]:
    job, output = task.job, task.output
    if job.target is not None and not task.overwrite and os.path.lexists(job.target):
        raise ImageError(f"cannot write {job.target}: it exists already; --overwrite replaces it")
    with open_source(job.source, output.max_pixels) as reader:
        header = reader.header
        restored, format, size = plan_result(job, header, output, restorer.info.scale)
        on_start(name_of(job.source), header.width * header.height * header.frames)
        with _open_result(task, restored, format, size) as writer:
            report = restore_frames(reader, restorer, writer, on_tiles)
    final = (restored.width, restored.height)
    return final, final != size, report


def plan_result(job: Job, header: Header, output: Output, scale: int) -> tuple[Header, str, tuple[int, int]]:
    """Say what the result of a job will be: its header, its format, and its size before any reduction.

    Raises:
        ImageError: The format cannot hold it, or the network does not enlarge so far.
    """
    if job.target is None:
        format = job.format or (header.format if header.format in WRITABLE_SUFFIXES else "png")
    else:
        format = settle_format(job.target, job.format)
    width, height = output.size.target(header.width, header.height, scale)
    restored = replace(header, width=width, height=height)
    restored = fit_header(restored, format, job.place, depth=output.depth, strip=output.strip)
    return restored, format, (header.width * scale, header.height * scale)


def restore_frames(
    reader: Reader, restorer: Restorer, writer: Writer, on_tiles: OnTiles | None = None
) -> Report:
    """Restore an image, each frame of it for itself, from a reader to a writer; return how, for the last."""
    header = reader.header
    shape = (header.height, header.width, header.samples)
    report = None
    for frame in range(header.frames):
        start = frame * header.height
        bands: list[np.ndarray] = []
        for band in restorer.restore_rows(
            lambda top, bottom, start=start: reader.read(start + top, start + bottom),
            shape,
            _count_frames(on_tiles, frame, header.frames),
        ):
            if header.frames == 1:
                writer.write(band.top, band.rows)
            else:  # a frame that begins anew must not show
                bands = [*(bands if band.top else []), band.rows]
            report = band.report
        top = start * restorer.info.scale
        for rows in bands:
            writer.write(top, rows)
            top += len(rows)
    if report is None:
        raise ValueError("an image has a frame")
    return report


def _count_frames(on_tiles: OnTiles | None, frame: int, frames: int) -> OnTiles | None:
    """Count the tiles of all frames together."""
    if on_tiles is None:
        return None
    return lambda done, total: on_tiles(frame * total + done, frames * total)


@contextmanager
def open_source(source: Source, max_pixels: int) -> Iterator[Reader]:
    """Open an image in its file or on standard input."""
    data = source.path if source.path is not None else sys.stdin.buffer.read()
    with open_picture(data, max_pixels=max_pixels) as reader:
        yield reader


@contextmanager
def _open_result(task: Task, header: Header, format: str, size: tuple[int, int]) -> Iterator[Writer]:
    """Open the target of a job; what goes to standard output goes there whole, too."""
    job, output, watch = task.job, task.output, task.watch
    if job.target is not None:
        make_folder(job.target.parent)
        told = {"on_begin": watch.begin, "on_end": watch.end} if watch else {}
        with open_writer(
            job.target,
            header,
            format,
            output.quality,
            overwrite=task.overwrite,
            strip=output.strip,
            size=size,
            **told,
        ) as writer:
            yield writer
        return
    try:
        with tempfile.TemporaryFile() as file:
            with Writer(
                file, header, format, output.quality, STANDARD_STREAM, strip=output.strip, size=size
            ) as writer:
                yield writer
                writer.finish()
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ImageError(
            f"cannot write {STANDARD_STREAM}: {error.strerror or error}; give -o a file"
        ) from error


def largest_factor(sources: Sequence[Source], size: Size, max_pixels: int) -> float | None:
    """Return how often the image that is enlarged most is enlarged; None where nobody can tell beforehand."""
    factors = []
    for source in sources:
        if source.path is None:  # it can be read once
            return None
        try:
            with open_source(source, max_pixels) as reader:
                factors.append(size.factor(reader.header.width, reader.header.height))
        except ImageError:  # the run will say so
            continue
    return max((factor for factor in factors if factor is not None), default=None)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, as far as they are missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(
            f"cannot make the folder {folder}: {error.strerror}; choose another with -o"
        ) from error
