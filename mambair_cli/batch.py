"""The run over jobs: each image restored and written, or its error kept."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

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
    """

    quality: int | None = None
    depth: int | None = None
    strip: bool = False
    preserve_times: bool = False
    overwrite: bool = False
    size: Size = field(default_factory=Size)
    max_pixels: int = MAX_PIXELS


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
    """

    job: Job
    error: MambairError | None
    size: tuple[int, int] | None
    reduced: bool
    report: Report | None
    seconds: float


def run_jobs(
    jobs: Sequence[Job],
    restorer: Restorer,
    output: Output | None = None,
    *,
    on_start: Callable[[str, int], None] = lambda name, pixels: None,
    on_tiles: OnTiles | None = None,
) -> Iterator[Outcome]:
    """Restore image after image; one that fails costs itself alone.

    Args:
        jobs: From ``name_targets``.
        restorer: Does the work.
        output: How the results are written.
        on_start: Told of each image that was opened, its name and number of pixels.
        on_tiles: Told of the progress within an image.

    Yields:
        An outcome per job, in order.
    """
    for job in jobs:
        start = time.perf_counter()
        size = report = error = None
        reduced = False
        try:
            size, reduced, report = _run(job, restorer, output or Output(), on_start, on_tiles)
        except MambairError as problem:
            error = problem
        yield Outcome(job, error, size, reduced, report, time.perf_counter() - start)


def _run(
    job: Job,
    restorer: Restorer,
    output: Output,
    on_start: Callable[[str, int], None],
    on_tiles: OnTiles | None,
) -> tuple[tuple[int, int], bool, Report]:
    if job.target is not None and not output.overwrite and os.path.lexists(job.target):
        raise ImageError(f"cannot write {job.target}: it exists already; --overwrite replaces it")
    with open_source(job.source, output.max_pixels) as reader:
        header = reader.header
        restored, format, size = plan_result(job, header, output, restorer.info.scale)
        on_start(name_of(job.source), header.width * header.height * header.frames)
        with _open_result(job, restored, format, size, output) as writer:
            report = restore_frames(reader, restorer, writer, on_tiles)
    if job.target is not None and job.source.path is not None and output.preserve_times:
        _copy_times(job.source.path, job.target)
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
def _open_result(
    job: Job, header: Header, format: str, size: tuple[int, int], output: Output
) -> Iterator[Writer]:
    """Open the target of a job; what goes to standard output goes there whole, too."""
    if job.target is not None:
        make_folder(job.target.parent)
        with open_writer(
            job.target,
            header,
            format,
            output.quality,
            overwrite=output.overwrite,
            strip=output.strip,
            size=size,
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


def _copy_times(source: Path, target: Path) -> None:
    """Give a result the times of access and change of its input."""
    try:
        status = source.stat()
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    except OSError as error:
        raise ImageError(
            f"cannot keep the times of {source} for {target}: {error.strerror}; leave --preserve-times out"
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
