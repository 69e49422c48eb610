"""Images one after another through one network: read ahead, computed, and written behind.

The next images are decoded while one is computed, and those before it are encoded and brought to the disk;
small ones of one size are computed together.
"""

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from itertools import takewhile

import torch

from mambair_cli.errors import MambairError
from mambair_cli.restore.engine import OnTiles
from mambair_cli.restore.restorer import Band, Restorer
from mambair_cli.runs.image_job import ImageJob
from mambair_cli.runs.jobs import name_of
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.run import IsStopped, PreparedJob

MOST_AHEAD = 16  # images that are opened before their turn
PIXELS_AHEAD = 2**22  # beyond which no further one is
MOST_BEHIND = min(8, os.cpu_count() or 1)  # images that are finished side by side
LEAVING_SECONDS = 1  # for the image that is being opened when nobody wants it any more
PATIENCE_SECONDS = 0.02  # for images that could share a batch with one whose turn has come

OnStart = Callable[[str, int], None]
"""Called with the name and the number of pixels of an image whose turn has come."""


def perform_alone(
    tasks: Iterable[PreparedJob],
    is_stopped: IsStopped,
    restorer: Restorer,
    on_start: OnStart = lambda name, pixels: None,
    on_tiles: OnTiles | None = None,
) -> Generator[Outcome]:
    """Do tasks by one network; broken off, it leaves the image in work undone and finishes those computed.

    Args:
        tasks: What is to be done; asked for in another thread, and ahead.
        is_stopped: Whether no further one is to begin.
        restorer: Does the work.
        on_start: Told of each image whose turn has come.
        on_tiles: Told of the progress within an image.

    Yields:
        What became of each, in their order.
    """
    begun: deque[tuple[list[ImageJob], Generator[None]]] = deque()
    finishing: deque[Future[Outcome]] = deque()

    def is_one_finished() -> bool:
        return bool(finishing) and finishing[0].done()

    works = (ImageJob(task, restorer) for task in tasks)
    with (
        ThreadPoolExecutor(MOST_BEHIND, "mambair-finish") as finishers,
        closing(_Ahead(works, is_stopped)) as ahead,
        ExitStack() as leaving,
    ):
        leaving.callback(_leave, begun)
        try:
            while True:
                while is_one_finished() or len(finishing) > MOST_BEHIND:
                    yield finishing.popleft().result()
                # On a GPU the next images are begun with before the first is done: it must not fall idle.
                while len(begun) <= (restorer.computer.ahead > 0) and not is_stopped():
                    group = ahead.take(lambda: bool(begun) or is_one_finished())
                    if not group:
                        break
                    begun.append((group, _compute(group, restorer, on_start, on_tiles)))
                    next(begun[-1][1], None)
                if begun:
                    group, steps = begun[0]
                    for _ in steps:
                        while is_one_finished():
                            yield finishing.popleft().result()
                    begun.popleft()
                    for work in group:
                        finishing.append(finishers.submit(work.finish))
                        finishing[-1].add_done_callback(lambda _: ahead.wake())
                elif not is_one_finished():
                    break
        except KeyboardInterrupt:  # what is computed is finished, and what is finished is told
            while finishing:
                yield finishing.popleft().result()
            raise
        while finishing:
            yield finishing.popleft().result()


def _leave(begun: Iterable[tuple[list[ImageJob], Generator[None]]]) -> None:
    """Undo what is begun, and finish what of it is computed."""
    for group, steps in begun:
        steps.close()
        for work in group:
            work.abandon()


def _compute(
    group: list[ImageJob], restorer: Restorer, on_start: OnStart, on_tiles: OnTiles | None
) -> Generator[None]:
    """Compute works, in one batch if they are several; yields at first when a GPU has something to do."""
    shared: list[Iterator[Band] | None] = [None] * len(group)
    if len(group) > 1:
        samples = [work.samples for work in group if work.samples is not None]
        try:
            collect = restorer.restore_together(samples)
            yield
            rows, report = collect()
            shared = [iter([Band(0, image, report)]) for image in rows]
        except (torch.OutOfMemoryError, MemoryError, MambairError):
            pass  # by itself, each has room, or an error of its own
    for work, bands in zip(group, shared, strict=True):
        if work.error is None:
            on_start(name_of(work.task.job.source), work.pixels)
            yield from work.compute(bands, on_tiles)


class _Ahead:
    """Opens works in a thread, some of them before their turn.

    What other threads have to tell comes through a queue: an interrupt may break the main thread off
    anywhere, and must not leave a lock behind that they wait for.

    Args:
        works: To be opened.
        is_stopped: Whether no further one is to be.
    """

    def __init__(self, works: Iterator[ImageJob], is_stopped: IsStopped) -> None:
        self._works, self._is_stopped = works, is_stopped
        self._events: queue.SimpleQueue[ImageJob | BaseException | _Over | None] = queue.SimpleQueue()
        self._ready: deque[ImageJob] = deque()
        self._is_over = False
        self._room = threading.Condition()
        self._count = self._pixels = 0  # of those that are opened and not taken
        # It may wait for standard input, and must not keep the process from ending.
        self._thread = threading.Thread(target=self._open_all, name="mambair-read", daemon=True)
        self._thread.start()

    def take(self, is_wanted: Callable[[], bool]) -> list[ImageJob]:
        """Wait for the next work; take it, or several that share a batch.

        Args:
            is_wanted: Whether the caller is wanted elsewhere, and waits no longer; see :meth:`wake`.

        Returns:
            None of them where there are no more, or the caller is wanted elsewhere.
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
            self._pixels -= sum(work.pixels for work in group)
            self._room.notify()
        return group

    def wake(self) -> None:
        """Have :meth:`take` look whether its caller is wanted elsewhere."""
        self._events.put(None)

    def close(self) -> None:
        """Open no more, and let go of those whose turn never came."""
        self._is_over = True
        with self._room:
            self._room.notify()
        with suppress(BaseException):  # of the other thread, which nobody asks for any more
            while self._hear(0):
                pass
        for work in self._ready:
            work.abandon()
        self._ready.clear()
        # Python ends threads that are left by unwinding them, which what decodes may not bear.
        self._thread.join(LEAVING_SECONDS)

    def _hear(self, seconds: float | None) -> bool:
        """Wait for what other threads tell; return whether they did."""
        try:
            event = self._events.get(timeout=None if seconds is None else max(seconds, 0))
        except queue.Empty:
            return False
        if isinstance(event, ImageJob):
            self._ready.append(event)
        elif isinstance(event, _Over):
            self._is_over = True
        elif event is not None:
            raise event
        return True

    def _alike(self) -> list[ImageJob]:
        """Return the first one, and those that follow it and could share its batch."""
        first = self._ready[0]
        return [first, *takewhile(first.is_like, list(self._ready)[1:])]

    def _has_room(self) -> bool:
        return self._is_over or (self._count < MOST_AHEAD and self._pixels < PIXELS_AHEAD)

    def _open_all(self) -> None:
        """Open one after the other; this is the thread."""
        try:
            for work in self._works:
                with self._room:
                    self._room.wait_for(self._has_room)
                if self._is_over or self._is_stopped():
                    break
                work.open()
                with self._room:
                    self._count += 1
                    self._pixels += work.pixels
                self._events.put(work)
        except BaseException as error:  # the main thread raises it
            self._events.put(error)
        self._events.put(_Over())


class _Over:
    """All is opened that is to be."""
