"""One image on its way through a run: opened, restored, and its result finished."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from mambair_cli.checkpoints.select import explain_gray
from mambair_cli.errors import MambairError, NoRoomError
from mambair_cli.images import Header, InputFrames, Writer, find_losses
from mambair_cli.images.picture import ReadRows
from mambair_cli.images.provenance import add_note
from mambair_cli.images.room import has_room_for_xmp
from mambair_cli.images.stretch import Stretch, find_stretch, read_bands, read_stretch
from mambair_cli.inspection.need import Need
from mambair_cli.inspection.picture import find_need_of
from mambair_cli.restore.engine import OnTiles
from mambair_cli.restore.restoration import Band
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.small_images import count_together
from mambair_cli.restore.tiling import Report, plan_nothing
from mambair_cli.runs.fingerprint import describe_maker
from mambair_cli.runs.job_files import (
    check_target,
    explain_misnamed,
    open_result,
    open_source,
    plan_result,
)
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.output_size import keep_scale
from mambair_cli.runs.run import PreparedJob
from mambair_cli.system.memory import explaining_memory
from mambair_cli.system.process import peak_memory

ROWS_AT_ONCE = 256  # of an image that needs no network
DECODED_BYTES = 2**26  # of samples; a larger image is decoded row after row, when its turn has come


class _Begun(NamedTuple):
    """A result that is being written.

    Attributes:
        writer: Encoder of the result.
        frames: Rows of each frame; the first frame is begun.
        height: Rows of a frame as they are written.
    """

    writer: Writer
    frames: Iterator[Iterable[Band]]
    height: int


class _AbandonedError(Exception):
    """Nobody wants the result any more."""


class ImageJob:
    """One image on its way: open, begin, rows and finish, in this order, each in any thread.

    An error in one of them is kept, and the later ones do nothing.

    Args:
        prepared: The job.
        restorer: The restorer, with the network, or with several to choose from.

    Attributes:
        prepared: The job.
        restorer: The restorer; once the image is open, the one that the image needs.
        need: What was seen of the image, and what it needs; None where nobody looked.
        error: Error of the job, if it has failed.
        samples: Decoded image, (h, w, c), if it is small enough and has one frame.
        together: Number of images that share a batch with it; 1 if it is computed alone.
        header: Header of the image, once it is open.
    """

    def __init__(self, prepared: PreparedJob, restorer: Restorer) -> None:
        self.prepared = prepared
        self.error: MambairError | None = None
        self.samples: np.ndarray | None = None
        self.together = 1
        self.header: Header | None = None
        self.restorer = restorer
        self.need: Need | None = None
        self._output, self._source = prepared.output, prepared.job.source
        self._read: ReadRows | None = None
        self._stretch: Stretch | None = None
        self._warnings: list[str] = []  # the reader's own list, to which it adds while rows are read
        self._open = ExitStack()
        self._begun: _Begun | None = None
        self._is_complete = False  # all rows are with the encoder
        self._losses: list[str] = []
        self._report: Report | None = None
        self._size: tuple[int, int] | None = None
        self._reduced = False
        self._seconds = 0.0

    @property
    def pixels(self) -> int:
        """Number of pixels in all frames."""
        return self.header.width * self.header.height * self.header.frames if self.header else 0

    @property
    def model(self) -> str | None:
        """Name of the model that a look chose; None for the usual one."""
        return None if self.need is None or self.restorer.others else self.restorer.model.name

    def open(self) -> None:
        """Look at the input, and decode it if it is small."""
        with self._stage():
            job, output, policy = self.prepared.job, self._output, self.prepared.policy
            check_target(job, self.prepared.overwrite)
            if self.prepared.guard:
                self.prepared.guard.look()
            with ExitStack() as opening:
                self._source = job.source.hold()
                reader = opening.enter_context(open_source(self._source, policy.max_pixels, policy.damaged))
                self.header = header = reader.header
                self._warnings = reader.warnings
                self._read = reader.read
                # Refuse early what cannot be written.
                result, format, _ = plan_result(job, header, output, self.restorer.info.scale)
                self._losses = find_losses(header, result, format, output.strip)
                if header.bands == 1 and not self.restorer.others:
                    self._losses += filter(None, [explain_gray(self.restorer.model)])
                if header.masks != result.masks:
                    kept = header.samples_per_pixel - len(header.masks)
                    self.header = header = replace(header, masks=())
                    self._read = lambda top, bottom: reader.read(top, bottom)[..., :kept]
                item = np.dtype(header.dtype).itemsize
                needs_network = output.size.needs_network(header.width, header.height)
                if self.pixels * header.samples_per_pixel * item > DECODED_BYTES:
                    if needs_network:
                        self._stretch = read_stretch(reader)
                        self._look(header, self._read)
                    self._open.push(opening.pop_all())
                    return
                rows = self._read(0, header.height * header.frames)
                self._read = lambda top, bottom: rows[top:bottom]
            if needs_network:
                self._stretch = find_stretch(
                    read_bands(self._read, len(rows)), header.bands, header.has_alpha
                )
                self._look(header, self._read)
            if header.frames == 1 and needs_network and self._stretch is None:
                self.samples = rows
                self.together = count_together(self.restorer, rows.shape, len(header.masks))

    def _look(self, header: Header, read: ReadRows) -> None:
        """Look at the image, where there are models to choose from, and choose the one that it needs."""
        if self.restorer.others:
            scale = self.restorer.info.scale
            self.need = find_need_of(
                self._source.path or self._source.data or b"", header, read, self._stretch
            )
            self.restorer = self.restorer.choose(self.need)
            if self.restorer.info.scale != scale:
                self._output = replace(self._output, size=keep_scale(self._output.size, scale))

    def begin(self, on_tiles: OnTiles | None = None, bands: Iterable[Band] | None = None) -> None:
        """Open the result, and give the device the first tiles, without waiting for them.

        Args:
            on_tiles: Called with the progress.
            bands: Rows that were computed together with other images; None to compute them here.
        """
        if self.error is not None:
            return
        with self._stage():
            header, _ = self._opened()
            prepared = self.prepared
            result, format, size = plan_result(prepared.job, header, self._output, self.restorer.info.scale)
            if self._output.note:
                noted = add_note(result.metadata.xmp, describe_maker(self.restorer, size))
                if has_room_for_xmp(format, noted):
                    result = replace(result, metadata=replace(result.metadata, xmp=noted))
                else:
                    self._losses.append(f"{format} has no room for the note of what made it; png has")
            guard = prepared.guard
            callbacks = {"on_begin": guard.begin, "on_end": guard.end} if guard else {}
            frames = InputFrames(*size, self.restorer.own.wrap)
            opened = open_result(
                prepared.job, self._output, result, format, frames, overwrite=prepared.overwrite, **callbacks
            )
            writer = self._open.enter_context(opened)
            self._size = (result.width, result.height)
            self._reduced = self._size != size
            all_bands = (
                self._begin_frame(frame, on_tiles, writer) if bands is None else bands
                for frame in range(header.frames)
            )
            self._begun = _Begun(writer, chain([next(all_bands)], all_bands), size[1])

    def rows(self) -> Iterator[Band]:
        """Restore the image and write its rows; yield these, so that the caller can do other work."""
        if self.error is not None:
            return
        with self._stage():
            if self._begun is None:
                raise ValueError("the rows of an image come after its begin")
            writer, frames, height = self._begun
            for number, frame in enumerate(frames):
                held: list[np.ndarray] = []
                for band in frame:
                    if self._opened()[0].frames == 1:
                        writer.write(band.top, band.rows)
                    else:  # a frame that starts again must not show
                        held = [*(held if band.top else []), band.rows]
                    self._report = band.report
                    yield band
                top = number * height
                for rows in held:
                    writer.write(top, rows)
                    top += len(rows)
            self._is_complete = True

    def _opened(self) -> tuple[Header, ReadRows]:
        if self.header is None or self._read is None:
            raise ValueError("an image is opened before it is begun")
        return self.header, self._read

    def _begin_frame(self, frame: int, on_tiles: OnTiles | None, writer: Writer) -> Iterator[Band]:
        """Begin a frame, and return its restored rows; if it needs no network, its own rows."""
        header, read = self._opened()
        start = frame * header.height
        count = _count_frames(on_tiles, frame, header.frames)

        def read_frame(top: int, bottom: int) -> np.ndarray:
            return read(start + top, start + bottom)

        if not self._output.size.needs_network(header.width, header.height):
            return _pass_rows(read_frame, header.height, header.width, count)
        shape = (header.height, header.width, header.samples_per_pixel)
        restoration = self.restorer.open_rows(
            read_frame, shape, count, writer.dtype, len(header.masks), self._stretch
        )
        restoration.begin()
        return restoration.rows()

    def finish(self) -> Outcome:
        """Wait until the result is written, and return the outcome."""
        job, guard = self.prepared.job, self.prepared.guard
        with self._stage():
            self._open.close()
        if self.error is not None:
            return Outcome.failed(job, self.error, self._seconds)
        return Outcome(
            job,
            size=self._size,
            reduced=self._reduced,
            report=self._describe_computing(),
            seconds=self._seconds,
            peak_memory=peak_memory(),
            sha256=guard.sha256 if guard else None,
            warnings=self._collect_warnings(),
        )

    def _describe_computing(self) -> Report | None:
        """Return how the result was computed, with the model where a look chose it."""
        if self._report is None or self.need is None:
            return self._report
        scale = None if self.model is None else self.restorer.info.scale
        return replace(self._report, model=self.model, scale=scale, need=self.need)

    def _collect_warnings(self) -> tuple[str, ...]:
        """Return the warnings about a result, after all rows have been read."""
        warnings = [*self._warnings, *self._losses]
        if self._report and self._report.shrunk:
            warnings.append(f"out of memory at first; done as {self._report.plan}")
        return tuple(warnings)

    def is_like(self, other: "ImageJob") -> bool:
        """Tell whether the two can share a batch."""
        if self.samples is None or other.samples is None:
            return False
        has_same_model = self.restorer.net is other.restorer.net
        is_alike = has_same_model and self.samples.shape == other.samples.shape
        return is_alike and min(self.together, other.together) > 1

    def abandon(self) -> None:
        """Close what is open: a result is finished if all its rows are there, and undone if not."""
        with suppress(_AbandonedError), self._stage():
            if self._begun is not None and not self._is_complete:
                raise _AbandonedError
            self._open.close()

    @contextmanager
    def _stage(self) -> Iterator[None]:
        """Measure the time of a stage; if it fails, undo what is open, and keep the error."""
        start = time.perf_counter()
        try:
            with explaining_memory(str(self.prepared.job.source)):
                try:
                    yield
                except BaseException as error:
                    # What is open undoes itself on the way out, and may raise a clearer error.
                    if not self._open.__exit__(type(error), error, error.__traceback__):
                        raise
        except NoRoomError as error:  # of rows; headers are checked before
            own = self.header.format if self.header else ""
            is_before_rows = self._begun is None
            self.error = error if is_before_rows else explain_misnamed(error, self.prepared.job, own)
        except MambairError as error:
            self.error = error
        finally:
            self._seconds += time.perf_counter() - start


def _pass_rows(read: ReadRows, height: int, width: int, on_tiles: OnTiles | None) -> Iterator[Band]:
    """Yield the rows of an image as they are, some at a time."""
    report = Report(plan_nothing(height, width), 0, False)
    for top in range(0, height, ROWS_AT_ONCE):
        yield Band(top, read(top, min(top + ROWS_AT_ONCE, height)), report)
    if on_tiles:
        on_tiles(1, 1)


def _count_frames(on_tiles: OnTiles | None, frame: int, frames: int) -> OnTiles | None:
    """Return a callback that counts the tiles of all frames together."""
    if on_tiles is None:
        return None
    return lambda done, total: on_tiles(frame * total + done, frames * total)
