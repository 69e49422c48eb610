"""Where an image comes from and where its result goes: files, standard streams, and their errors."""

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from mambair_cli.errors import ImageError, NoRoomError
from mambair_cli.images import (
    DEFAULT_QUALITY,
    FORMATS,
    Colour,
    Header,
    InputFrames,
    Reader,
    Writer,
    choose_format,
    fit_header,
    open_picture,
    settle_format,
)
from mambair_cli.images.source import Source
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.output_size import Size
from mambair_cli.system.files import open_atomic, open_stream
from mambair_cli.system.own_errors import OwnErrors
from mambair_cli.system.result_folders import make_folder


@dataclass(frozen=True)
class WriteOptions:
    """How results are written.

    Attributes:
        quality: Quality, 1 to 100, of formats that have one; None for the default.
        depth: Bits per sample, 8 or 16; None for those of the input.
        strip: Whether to leave out all metadata.
        background: Colour behind transparent pixels, for formats without transparency.
        preserve_times: Whether files get the times of their inputs.
        size: Size that was asked for.
        note: Whether to note in the file what made it.
    """

    quality: int | None = None
    depth: int | None = None
    strip: bool = False
    background: Colour | None = None
    preserve_times: bool = False
    size: Size = field(default_factory=Size)
    note: bool = False


def leave_out_unused(output: WriteOptions, job: Job, scale: int | None = None) -> WriteOptions:
    """Return how the result of a job is written, with the defaults in place of what changes nothing in it.

    So a result is known as the same, whether or not such an option was given.

    Args:
        output: How results are written.
        job: The job.
        scale: Scale of the network; None where it is unknown.
    """
    if output.size == Size(scale=scale):
        output = replace(output, size=Size())
    if job.target is None or job.is_stream:  # no journal knows it
        return output
    try:
        format = settle_format(job.target, job.format)
    except ImageError:  # the job will fail
        return output
    row = FORMATS[format]
    if not row.has_quality and output.quality is not None:
        output = replace(output, quality=DEFAULT_QUALITY)
    if row.has_alpha:
        output = replace(output, background=None)
    if row.dtypes == (f"uint{output.depth}",):
        output = replace(output, depth=None)
    return output


def plan_result(
    job: Job, header: Header, output: WriteOptions, scale: int
) -> tuple[Header, str, tuple[int, int]]:
    """Say what the result of a job will be: its header, its format, and its size before any reduction.

    Args:
        job: The job.
        header: Header of the image.
        output: How the result is written.
        scale: Scale of the network.

    Returns:
        Header, format, and width and height in pixels; these are the image's own where no network is needed.

    Raises:
        ImageError: The format cannot hold it, or the network does not enlarge so far.
    """
    if job.target is None or job.is_stream:
        format = job.format or choose_format(header.format)
    else:
        format = settle_format(job.target, job.format)
    width, height = output.size.target(header.width, header.height, scale)
    restored = replace(header, width=width, height=height)
    try:
        restored = fit_header(
            restored, format, job.place, depth=output.depth, strip=output.strip, source=header
        )
    except NoRoomError as error:
        raise explain_misnamed(error, job, header.format) from error
    if not output.size.needs_network(header.width, header.height):
        scale = 1
    return restored, format, (header.width * scale, header.height * scale)


def explain_misnamed(error: NoRoomError, job: Job, format: str) -> NoRoomError:
    """Add to an error that the format of a result follows from the suffix of an input that is another file.

    Args:
        error: Why the result cannot be written.
        job: The job.
        format: Format of the image.
    """
    path, target = job.source.path, job.target
    if path is None or target is None or job.format is not None or target.suffix != path.suffix:
        return error
    if format not in FORMATS or path.suffix.lower() in FORMATS[format].suffixes:
        return error
    return NoRoomError(f"{error}; {path} is a {format} file: rename it, or give --format {format}")


@contextmanager
def open_source(source: Source, max_pixels: int, damaged: bool = False) -> Iterator[Reader]:
    """Open an image in its file, in memory or on standard input; see ``images.open_picture``.

    Raises:
        ImageError: The image cannot be read.
    """
    held = source.hold()
    with open_picture(held.path or held.data or b"", max_pixels=max_pixels, damaged=damaged) as reader:
        yield reader


def check_target(job: Job, overwrite: bool) -> None:
    """Refuse a result whose name a file has that may not be replaced, before anything is computed.

    Raises:
        ImageError: There is such a file.
    """
    if job.target is None or job.is_stream:
        return
    if not overwrite and os.path.lexists(job.target):
        raise ImageError(f"cannot write {job.target}: it exists already; --overwrite replaces it")


@contextmanager
def open_result(
    job: Job,
    output: WriteOptions,
    header: Header,
    format: str,
    frames: InputFrames,
    *,
    overwrite: bool = False,
    on_begin: Callable[[Path], None] = lambda temporary: None,
    on_end: Callable[[Path], None] = lambda temporary: None,
) -> Iterator[Writer]:
    """Open the target of a job for the rows of its result.

    Args:
        job: The job.
        output: How the result is written.
        header: Header of the result, from :func:`plan_result`, like the format.
        format: Format of the file.
        frames: The frames that are written, before any reduction.
        overwrite: Whether the result may replace a file.
        on_begin: Called with the temporary name, before anything is written.
        on_end: Called with the temporary name, when the file is complete.

    Raises:
        ImageError: The result cannot be written.
    """
    with (
        open_target(job, overwrite=overwrite, on_begin=on_begin, on_end=on_end) as file,
        Writer(
            file,
            header,
            format,
            output.quality,
            job.place,
            strip=output.strip,
            frames=frames,
            background=output.background,
        ) as writer,
    ):
        yield writer
        writer.finish()


@contextmanager
def open_target(
    job: Job,
    *,
    overwrite: bool = False,
    on_begin: Callable[[Path], None] = lambda temporary: None,
    on_end: Callable[[Path], None] = lambda temporary: None,
) -> Iterator[BinaryIO]:
    """Open the target of a job; standard output, too, gets the complete result or nothing.

    Args:
        job: The job.
        overwrite: Whether the result may replace a file.
        on_begin: Called with the temporary name, before anything is written.
        on_end: Called with the temporary name, when the file is complete.

    Raises:
        ImageError: The target cannot be written.
    """
    if job.target is not None and job.is_stream:
        with open_stream(job.target, on_end) as file:
            yield file
        return
    if job.target is not None:
        make_folder(job.target.parent)
        with open_atomic(
            job.target, overwrite=overwrite, in_new_folder=True, on_begin=on_begin, on_end=on_end
        ) as file:
            yield file
        return
    errors = OwnErrors()
    try:
        with errors.again(job.result) if job.result is not None else errors.open_temporary() as file:
            yield file
            if job.result is None:
                file.seek(0)
                with errors.noting():
                    shutil.copyfileobj(file, sys.stdout.buffer)
                    sys.stdout.buffer.flush()
    except OSError as error:
        if error not in errors:
            raise
        remedy = "free some space" if job.result is not None else "give -o a file"
        if error.errno == errno.EFBIG:
            remedy = "write where larger files may be, or raise `ulimit -f`"
        raise ImageError(f"cannot write {job.place}: {error.strerror or error}; {remedy}") from error


def largest_factor(sources: Sequence[Source], size: Size, max_pixels: int) -> float | None:
    """Return the largest factor that an image is enlarged by; None where it is not known beforehand.

    Args:
        sources: The images.
        size: Size of the results that was asked for.
        max_pixels: Most pixels of an image; larger ones are left to the run, which refuses them.
    """
    factors = []
    for source in sources:
        if source.path is None and source.data is None:  # it can be read only once
            return None
        try:
            with open_source(source, max_pixels) as reader:
                factors.append(size.factor(reader.header.width, reader.header.height))
        except ImageError:  # the run will say so
            continue
    return max((factor for factor in factors if factor is not None), default=None)
