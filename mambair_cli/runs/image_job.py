"""One task on its way through: its image opened, restored, and its result finished."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import DTypeLike

from mambair_cli.errors import MambairError
from mambair_cli.images import Header, find_losses
from mambair_cli.restore.engine import OnTiles
from mambair_cli.restore.restorer import Band, Restorer
from mambair_cli.restore.row_window import ReadRows
from mambair_cli.restore.tiling import Report, plan_nothing
from mambair_cli.runs.job_files import check_target, open_result, open_source, plan_result
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.run import PreparedJob
from mambair_cli.system.process import peak_memory

ROWS_AT_ONCE = 256  # of an image that goes past the network
DECODED_BYTES = 2**26  # of samples; a larger image is decoded row after row, when its turn has come


class ImageJob:
    """A task on its way: opened, computed, finished, each stage in whatever thread.

    Args:
        task: What is to be done.
        restorer: Does it.

    Attributes:
        task: What is to be done.
        error: Why it has failed, if it has.
        samples: The decoded image, (h, w, c), if it is small enough and of one frame.
        together: Images of which it shares a batch; 1 where it is computed by itself.
        header: Of the image, once it is open.
    """

    def __init__(self, task: PreparedJob, restorer: Restorer) -> None:
        self.task = task
        self.error: MambairError | None = None
        self.samples: np.ndarray | None = None
        self.together = 1
        self.header: Header | None = None
        self._restorer = restorer
        self._read: ReadRows | None = None
        self._warnings: list[str] = []  # the reader's own list, to which it adds while rows are read
        self._open = ExitStack()
        self._losses: list[str] = []
        self._report: Report | None = None
        self._size: tuple[int, int] | None = None
        self._reduced = False
        self._seconds = 0.0

    @property
    def pixels(self) -> int:
        """Of all frames."""
        return self.header.width * self.header.height * self.header.frames if self.header else 0

    def open(self) -> None:
        """Look at the input, and decode it if it is small."""
        with self._stage():
            job, output, policy = self.task.job, self.task.output, self.task.policy
            check_target(job, self.task.overwrite)
            if self.task.watch:
                self.task.watch.look()
            with ExitStack() as opening:
                reader = opening.enter_context(open_source(job.source, policy.max_pixels, policy.damaged))
                self.header = header = reader.header
                self._warnings = reader.warnings
                self._read = reader.read
                # What cannot be is said early.
                result, format, _ = plan_result(job, header, output, self._restorer.info.scale)
                self._losses = find_losses(header, format, output.strip)
                if header.masks != result.masks:
                    kept = header.samples - len(header.masks)
                    self.header = header = replace(header, masks=())
                    self._read = lambda top, bottom: reader.read(top, bottom)[..., :kept]
                item = np.dtype(header.dtype).itemsize
                if self.pixels * header.samples * item > DECODED_BYTES:
                    self._open.push(opening.pop_all())
                    return
                rows = self._read(0, header.height * header.frames)
                self._read = lambda top, bottom: rows[top:bottom]
            if header.frames == 1 and output.size.needs_network(header.width, header.height):
                self.samples = rows
                self.together = self._restorer.count_together(rows.shape, len(header.masks))

    def compute(self, bands: Iterator[Band] | None, on_tiles: OnTiles | None) -> Iterator[None]:
        """Restore the image, and hand its rows to the encoder.

        Args:
            bands: What was computed with others; None where it is still to be computed.
            on_tiles: Told of progress.

        Yields:
            As soon as a GPU has something to do, and then from time to time.
        """
        with self._stage():
            header, task, read = self.header, self.task, self._read
            if header is None or read is None:
                raise ValueError("what is computed was opened before")
            result, format, size = plan_result(task.job, header, task.output, self._restorer.info.scale)
            told = {"on_begin": task.watch.begin, "on_end": task.watch.end} if task.watch else {}
            writer = self._open.enter_context(
                open_result(task.job, task.output, result, format, size, overwrite=task.overwrite, **told)
            )
            shape = (header.height, header.width, header.samples)
            needs_network = task.output.size.needs_network(header.width, header.height)
            restore = self._restorer.restore_rows if needs_network else _pass_rows
            for frame in range(header.frames):
                start = frame * header.height
                held: list[np.ndarray] = []
                for band in bands or restore(
                    lambda top, bottom, start=start: read(start + top, start + bottom),
                    shape,
                    _count_frames(on_tiles, frame, header.frames),
                    writer.dtype,
                    len(header.masks),
                ):
                    if band is None:
                        pass
                    elif header.frames == 1:
                        writer.write(band.top, band.rows)
                    else:  # a frame that begins anew must not show
                        held = [*(held if band.top else []), band.rows]
                    self._report = band.report if band else self._report
                    yield
                top = frame * size[1]
                for rows in held:
                    writer.write(top, rows)
                    top += len(rows)
            self._size = (result.width, result.height)
            self._reduced = self._size != size

    def finish(self) -> Outcome:
        """Wait until the result is written, and tell what became of the task."""
        with self._stage():
            self._open.close()
        if self.error is not None:
            return Outcome.failed(self.task.job, self.error, self._seconds)
        return Outcome(
            self.task.job,
            size=self._size,
            reduced=self._reduced,
            report=self._report,
            seconds=self._seconds,
            peak_memory=peak_memory(),
            sha256=self.task.watch.sha256 if self.task.watch else None,
            warnings=self._collect_warnings(),
        )

    def _collect_warnings(self) -> tuple[str, ...]:
        """Return what is to be said of a result, when all rows have been read."""
        warnings = [*self._warnings, *self._losses]
        if self._report and self._report.shrunk:
            warnings.append(f"out of memory at first; done as {self._report.plan}")
        return tuple(warnings)

    def is_like(self, other: "ImageJob") -> bool:
        """Tell whether the two could share a batch."""
        if self.samples is None or other.samples is None:
            return False
        return min(self.together, other.together) > 1 and self.samples.shape == other.samples.shape

    def abandon(self) -> None:
        """Let go of what is open: of an image whose turn never comes, or of a result that is whole."""
        self._open.close()

    @contextmanager
    def _stage(self) -> Iterator[None]:
        """Take the time of a stage; where it fails, undo what is open, and keep why.

        What has failed already stays failed, and no stage of it is run.
        """
        start = time.perf_counter()
        try:
            try:
                yield
            except BaseException as error:
                # On the way out, what is open undoes itself, and says in its own words what was the matter.
                if not self._open.__exit__(type(error), error, error.__traceback__):
                    raise
        except MambairError as error:
            self.error = error
        finally:
            self._seconds += time.perf_counter() - start


def _pass_rows(
    read: ReadRows, shape: tuple[int, ...], on_tiles: OnTiles | None, dtype: DTypeLike, masks: int
) -> Iterator[Band]:
    """Hand an image on as it is, some rows at a time; else as ``Restorer.restore_rows``."""
    height, width, _ = shape
    report = Report(plan_nothing(height, width), 0, False)
    for top in range(0, height, ROWS_AT_ONCE):
        yield Band(top, read(top, min(top + ROWS_AT_ONCE, height)), report)
    if on_tiles:
        on_tiles(1, 1)


def _count_frames(on_tiles: OnTiles | None, frame: int, frames: int) -> OnTiles | None:
    """Count the tiles of all frames together."""
    if on_tiles is None:
        return None
    return lambda done, total: on_tiles(frame * total + done, frames * total)
