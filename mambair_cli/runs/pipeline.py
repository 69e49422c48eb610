"""Images one after another through one network: read ahead, computed, and written behind."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import takewhile

import numpy as np

from mambair_cli.errors import MambairError
from mambair_cli.restore.engine import OnTiles
from mambair_cli.restore.restoration import Band
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.small_images import restore_together
from mambair_cli.restore.tiling import Report
from mambair_cli.runs.image_job import ImageJob
from mambair_cli.runs.jobs import StartedImage
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.run import IsStopped, PreparedJob
from mambair_cli.system.memory import passing_over_memory
from mambair_cli.system.process import count_processors

MOST_AHEAD = 16  # images that are opened before their turn
PIXELS_AHEAD = 2**22  # of opened images, beyond which no further one is opened
MOST_BEHIND = min(8, count_processors())  # images that are finished side by side
LEAVING_SECONDS = 1  # to wait at the end for an image that is being opened
PATIENCE_SECONDS = 0.02  # to wait for images that could share a batch with the next one


OnStart = Callable[[StartedImage], None]
"""Called with each image whose turn has come: the progress that follows is its own."""


class Pipeline:
    """A run of images through one network, in which the stages of neighbouring images overlap.

    On a GPU, with time from left to right::

        reading thread      open 1   open 2    open 3    open 4
        calling thread               begin 1   begin 2   rows 1   begin 3   rows 2   begin 4   rows 3
        GPU                          [ tiles of 1      ] [ tiles of 2     ] [ tiles of 3     ] [ ...
        finishing threads                                         finish 1           finish 2

    ``begin`` gives the GPU its first tiles and returns; ``rows`` waits for tiles and hands blended rows to
    the encoder. The next image is begun before the rows of one are taken, so that the GPU is never idle. On a
    CPU only reading and finishing overlap with the computing: begin 1, rows 1, begin 2, rows 2.

    Small images of one size are computed together, and count as one image above. A reader is at most
    ``MOST_AHEAD`` images ahead; at most ``MOST_BEHIND`` images are being finished.

    Args:
        jobs: Jobs to do; the reading thread takes them from the iterator, ahead of their turn.
        is_stopped: Tells whether no further job may begin.
        restorer: The restorer, with the network, or with several to choose from.
        on_start: Called with each image whose turn has come.
        on_tiles: Called with the progress within an image.
    """

    def __init__(
        self,
        jobs: Iterable[PreparedJob],
        is_stopped: IsStopped,
        restorer: Restorer,
        on_start: OnStart = lambda image: None,
        on_tiles: OnTiles | None = None,
    ) -> None:
        self._jobs, self._is_stopped, self._restorer = jobs, is_stopped, restorer
        self._on_start, self._on_tiles = on_start, on_tiles
        self._begun: deque[_Group] = deque()
        self._finishing: deque[Future[Outcome]] = deque()

    def outcomes(self) -> Generator[Outcome]:
        """Do the jobs, and yield the outcome of each, in their order.

        After an interrupt, or when the caller stops early, images whose rows are all there are finished, and
        the others leave no result.
        """
        jobs = (ImageJob(job, self._restorer) for job in self._jobs)
        with (
            ThreadPoolExecutor(MOST_BEHIND, "mambair-finish") as finishers,
            closing(_Reader(jobs, self._is_stopped)) as reader,
        ):
            try:
                yield from self._work(reader, finishers)
            except KeyboardInterrupt:  # what is finished is reported, too
                yield from self._finished(wait=True)
                raise
            finally:
                for group in self._begun:
                    group.abandon()
            yield from self._finished(wait=True)

    def _work(self, reader: "_Reader", finishers: ThreadPoolExecutor) -> Iterator[Outcome]:
        """Begin images, compute the rows of the first one, and send it to be finished, until all are."""
        while True:
            yield from self._finished()
            self._begin_next(reader)
            if self._begun:
                for _ in self._begun[0].rows():
                    yield from self._finished()
                for job in self._begun[0].jobs:
                    self._finishing.append(finishers.submit(job.finish))
                    self._finishing[-1].add_done_callback(lambda _: reader.wake())
                self._begun.popleft()  # last: an interrupt before it must find the images somewhere
            elif not self._is_one_finished():
                return

    def _begin_next(self, reader: "_Reader") -> None:
        """Begin the next images; wait for the reader only if there is nothing else to do."""
        most = 2 if self._restorer.computer.ahead > 0 else 1
        while len(self._begun) < most and not self._is_stopped():
            jobs = reader.take(lambda: bool(self._begun) or self._is_one_finished())
            if not jobs:
                return
            self._begun.append(_Group(jobs, self._on_start, self._on_tiles))
            self._begun[-1].begin()

    def _is_one_finished(self) -> bool:
        return bool(self._finishing) and self._finishing[0].done()

    def _finished(self, wait: bool = False) -> Iterator[Outcome]:
        """Yield the outcomes that are there; wait where too many images are being finished, or for all."""
        while self._finishing and (wait or self._is_one_finished() or len(self._finishing) > MOST_BEHIND):
            yield self._finishing.popleft().result()


class _Group:
    """Images that are computed in one batch, or a single image."""

    def __init__(self, jobs: list[ImageJob], on_start: OnStart, on_tiles: OnTiles | None) -> None:
        self.jobs = jobs
        self._on_start, self._on_tiles = on_start, on_tiles
        self._collect: Callable[[], tuple[list[np.ndarray], Report]] | None = None

    def begin(self) -> None:
        """Give the device something to do, without waiting for it."""
        if len(self.jobs) == 1:
            self.jobs[0].begin(self._on_tiles)
            return
        samples = [job.samples for job in self.jobs if job.samples is not None]
        with suppress(MambairError), passing_over_memory():  # computed alone, each has room, or its own error
            self._collect = restore_together(self.jobs[0].restorer, samples)

    def rows(self) -> Iterator[Band]:
        """Compute the images and write their rows; yield these, so that the caller can do other work."""
        self._start(self.jobs[0])
        if len(self.jobs) == 1:
            yield from self.jobs[0].rows()
            return
        for job, bands in zip(self.jobs, self._collect_bands(), strict=True):
            if job is not self.jobs[0]:
                self._start(job)
            job.begin(self._on_tiles, bands)
            yield from job.rows()

    def abandon(self) -> None:
        """Undo the images whose rows are not all there, and finish the others."""
        for job in self.jobs:
            job.abandon()

    def _start(self, job: ImageJob) -> None:
        """Tell that the turn of an image has come, not before: begun ahead, it waits for others."""
        if job.error is None:
            self._on_start(StartedImage(job.prepared.job.source, job.pixels, job.need, job.model))

    def _collect_bands(self) -> Sequence[list[Band] | None]:
        """Wait for the batch; return None for images that are to be computed alone."""
        if self._collect is not None:
            with suppress(MambairError), passing_over_memory():
                images, report = self._collect()
                return [[Band(0, image, report)] for image in images]
        return [None] * len(self.jobs)


class _End:
    """The reader's last event: it opens no further image."""


class _Reader:
    """Opens images in a thread, some of them before their turn.

    Other threads report through a queue: an interrupt may stop the main thread anywhere, and must not leave
    a lock behind that they wait for.

    Args:
        jobs: Images to open.
        is_stopped: Tells whether no further one may begin.
    """

    def __init__(self, jobs: Iterator[ImageJob], is_stopped: IsStopped) -> None:
        self._jobs, self._is_stopped = jobs, is_stopped
        self._events: queue.SimpleQueue[ImageJob | BaseException | _End | None] = queue.SimpleQueue()
        self._ready: deque[ImageJob] = deque()
        self._is_over = False
        self._room = threading.Condition()
        self._count = self._pixels = 0  # of images that are opened and not taken
        # A daemon: it may wait for standard input, and must not keep the process from ending.
        self._thread = threading.Thread(target=self._open_all, name="mambair-read", daemon=True)
        self._thread.start()

    def take(self, is_wanted: Callable[[], bool]) -> list[ImageJob]:
        """Wait for the next image; return it, or several that share a batch.

        Args:
            is_wanted: Tells whether the caller has other work, and should not wait; see :meth:`wake`.

        Returns:
            The images; empty if there are no more, or the caller has other work.
        """
        while self._hear(0):
            pass
        while not (self._ready or self._is_over or is_wanted()):
            self._hear(None)
        if not self._ready:
            return []
        most = self._ready[0].together
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._is_over and len(self._ready) == len(self._alike()) < most:
            if not self._hear(deadline - time.monotonic()):
                break
        group = self._alike()[:most]
        for _ in group:
            self._ready.popleft()
        with self._room:
            self._count -= len(group)
            self._pixels -= sum(job.pixels for job in group)
            self._room.notify()
        return group

    def wake(self) -> None:
        """Have :meth:`take` ask again whether its caller has other work."""
        self._events.put(None)

    def close(self) -> None:
        """Open no more images, and close those whose turn never came."""
        self._is_over = True
        with self._room:
            self._room.notify()
        with suppress(BaseException):  # an error of the other thread, which is too late to matter
            while self._hear(0):
                pass
        for job in self._ready:
            job.abandon()
        self._ready.clear()
        # Python ends daemon threads by unwinding them, which decoders may not survive.
        self._thread.join(LEAVING_SECONDS)

    def _hear(self, seconds: float | None) -> bool:
        """Wait for an event of another thread; return whether there was one."""
        try:
            event = self._events.get(timeout=None if seconds is None else max(seconds, 0))
        except queue.Empty:
            return False
        if isinstance(event, ImageJob):
            self._ready.append(event)
        elif isinstance(event, _End):
            self._is_over = True
        elif event is not None:
            raise event
        return True

    def _alike(self) -> list[ImageJob]:
        """Return the first image, and those after it that could share its batch."""
        first = self._ready[0]
        return [first, *takewhile(first.is_like, list(self._ready)[1:])]

    def _has_room(self) -> bool:
        return self._is_over or (self._count < MOST_AHEAD and self._pixels < PIXELS_AHEAD)

    def _open_all(self) -> None:
        """Open one image after the other; this is the thread."""
        try:
            for job in self._jobs:
                with self._room:
                    self._room.wait_for(self._has_room)
                if self._is_over or self._is_stopped():
                    break
                job.open()
                with self._room:
                    self._count += 1
                    self._pixels += job.pixels
                self._events.put(job)
        except BaseException as error:  # the calling thread raises it
            self._events.put(error)
        self._events.put(_End())
