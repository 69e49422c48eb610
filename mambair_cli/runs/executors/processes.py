"""Worker processes that restore images side by side, each with the network loaded once on its own device.

The images of a worker that dies go to others, and a new one takes its place. An image that is far larger than
the others is computed by all workers, tile by tile. Results depend neither on the worker nor on the number of
workers.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import torch

from mambair_cli.checkpoints.select import PictureKind
from mambair_cli.errors import MambairError
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.settings import RestoreSettings
from mambair_cli.runs.executors.kind_tiles import TilesOfKind
from mambair_cli.runs.executors.messages import (
    Advanced,
    ComputeTiles,
    Crashed,
    DeviceFailed,
    Died,
    DoJob,
    Done,
    FrameEncoded,
    Noticed,
    NotLoaded,
    Ready,
    SegmentFailed,
    SegmentFinished,
    Started,
    Stop,
    TilesComputed,
    TilesFailed,
)
from mambair_cli.runs.executors.protocol import describe_restorer
from mambair_cli.runs.executors.scheduler import AHEAD, MOST_DEATHS, MOST_LOSSES, Scheduler, cost_of
from mambair_cli.runs.executors.worker import LaunchedBatch, Worker, start_worker, warn
from mambair_cli.runs.jobs import StartedImage
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.pipeline import Pipeline
from mambair_cli.runs.run import IsStopped, PreparedJob

LARGE = 1.5  # times what a worker has to do on average: such an image is shared by all of them

OnWorkerStart = Callable[[int, StartedImage], None]
"""Called with the number of a worker, and the image that it begins."""

OnWorkerTiles = Callable[[int, int, int], None]
"""Called with the number of a worker, and the number of its image's tiles: of those done, and of all."""


class WorkerProcesses:
    """Worker processes that wait for jobs, or for tiles of an image that all of them compute.

    Args:
        devices: Device of each worker, all of one kind.
        restorer: Restorer of this process; the workers compute its tiles where they share an image.
        settings: Settings of the restorer that each worker makes, except its device.
        threads: Threads of PyTorch in each worker; None for its default.
        notify: Called with a sentence about a worker that died.
        on_start: Called with each image that a worker begins.
        on_tiles: Called with the progress of each worker.

    Attributes:
        info: The model, and the devices.
        ahead: Number of batches of tiles that may be under way while another is collected.
        are_gpus: Whether all devices are GPUs.
        present: The workers that are alive, also those that load the network in place of others.

    Raises:
        UsageError: A worker died at its start.
        MambairError: A worker cannot load the network.
    """

    def __init__(
        self,
        devices: Sequence[str],
        restorer: Restorer,
        settings: RestoreSettings,
        threads: int | None = None,
        notify: Callable[[str], None] = lambda sentence: None,
        on_start: OnWorkerStart = lambda number, image: None,
        on_tiles: OnWorkerTiles = lambda number, done, total: None,
    ) -> None:
        place = f"{', '.join(dict.fromkeys(devices))} ({len(devices)} workers)"
        self.info = describe_restorer(restorer, place)
        self.ahead = AHEAD * len(devices)
        self.present: list[Worker] = []
        self._restorer = restorer
        self._settings, self._threads = settings, threads
        self.are_gpus = all(torch.device(device).type == "cuda" for device in devices)
        self._missing = list(enumerate(devices))
        self._losses: Counter[int] = Counter()  # of each worker, by its number, since it has done something
        self._notify, self._on_start, self._on_tiles = notify, on_start, on_tiles
        self.refill()

    @property
    def count(self) -> int:
        """Number of workers, also of those that have ended and start again."""
        return len(self.present) + len(self._missing)

    def refill(self) -> None:
        """Start the workers that have not begun, that :meth:`end_busy` has ended, or that have died.

        Raises:
            UsageError: A worker died at its start.
            MambairError: A worker cannot load the network.
        """
        started: list[Worker] = []
        try:
            while self._missing:
                number, device = self._missing.pop(0)
                started.append(start_worker(number, device, self._settings, self._threads))
                self.present.append(started[-1])
            for worker in started:
                worker.wait_until_ready()
        except BaseException:
            self._missing += [(worker.number, worker.device) for worker in self.present]
            for worker in self.present:  # nothing has begun
                worker.process.terminate()
            self.close()
            raise

    def require_some(self) -> None:
        """Raise a MambairError if no worker is left."""
        if not self.present:
            raise MambairError(
                "all workers have died; see their messages, use fewer, and go on with --resume"
            )

    def end_busy(self) -> None:
        """End the workers that write images or segments; nothing half-written gets a name."""
        busy = self._end_writers()
        self.present = [worker for worker in self.present if worker not in busy]
        self._missing += [(worker.number, worker.device) for worker in busy]
        for worker in busy:
            worker.connection.close()

    def _end_writers(self) -> list[Worker]:
        """End the workers that have images or segments; return them: what they have sent can be received."""
        busy = [worker for worker in self.present if worker.jobs or worker.segments]
        for worker in busy:
            worker.process.terminate()
        for worker in busy:
            worker.end()
        return busy

    def perform(self, jobs: Iterable[PreparedJob], is_stopped: IsStopped) -> Generator[Outcome]:
        """Share jobs out among the workers, large ones first; yield the outcome of each as it is known."""
        costs = [(job, cost_of(job)) for job in jobs]
        fair = sum(cost for _, cost in costs) / max(1, len(self.present))
        large = [job for job, cost in costs if cost > LARGE * fair or job.job.source.path is None]
        if large:
            yield from Pipeline(
                large,
                is_stopped,
                self._restorer.by(self.computer_for(None), self.computer_for),
                partial(self._on_start, 0),
                partial(self._on_tiles, 0),
            ).outcomes()
        rest = (job for job, cost in costs if cost <= LARGE * fair and job.job.source.path is not None)
        yield from self._share_out(Scheduler(rest, is_stopped))

    def _share_out(self, scheduler: Scheduler) -> Iterator[Outcome]:
        """Give each job to one worker.

        Whatever ends this early, no worker writes afterwards: the journals close next, and remove what is
        half-written then.
        """
        try:
            while not scheduler.is_over or any(worker.jobs for worker in self.present):
                self.require_some()
                ready = [worker for worker in self.present if worker.is_ready]
                for place, job in scheduler.hand_out([worker.jobs for worker in ready]):
                    ready[place].send(DoJob(job))
                if scheduler.is_stopped:
                    self._stop()
                for worker, message in self.listen():
                    match message:
                        case Done(outcome):
                            worker.jobs.remove(worker.jobs.jobs[0])  # they are done in their order
                            yield outcome
                        case Died() if not scheduler.is_stopped:
                            given_up = scheduler.worker_died(worker.jobs)
                            if given_up is not None:
                                self._losses.clear()  # this was the cause
                                yield given_up
                            self._replace(worker)
        except KeyboardInterrupt:
            self._end_writers()
            yield from self._last_outcomes()
            raise
        finally:
            self.end_busy()

    def _stop(self) -> None:
        """Have the workers begin no further job; they end after those that have begun."""
        for worker in self.present:
            if not worker.is_stopping:
                worker.is_stopping = True
                worker.send(Stop())

    def _last_outcomes(self) -> Iterator[Outcome]:
        """Yield the outcomes that workers have sent already: what is done is reported."""
        for worker in self.present:
            while worker.connection.poll():
                match worker.receive():
                    case Done(outcome):
                        yield outcome
                    case Died():
                        break

    def computer_for(self, kind: PictureKind | None) -> TilesOfKind:
        """Return what computes the tiles of pictures of a kind; None: of those of no kind of their own."""
        restorer = self._restorer if kind is None else self._restorer.for_kind(kind)
        return TilesOfKind(self, kind, restorer.info.scale)

    def launch(
        self,
        tiles: np.ndarray,
        corners: list[tuple[int, int]],
        seed: int | None,
        kind: PictureKind | None = None,
    ) -> LaunchedBatch:
        """Give a batch of tiles, (b, h, w, c), to the worker that has the fewest batches."""
        batch = LaunchedBatch(tiles, corners, seed, kind)
        self._give(batch)
        return batch

    def collect(self, launched: LaunchedBatch) -> np.ndarray:
        """Wait for a batch, (b, s·h, s·w, c).

        Raises:
            torch.OutOfMemoryError: The worker's device does not hold it.
            MambairError: The values are not finite, or workers died over the batch.
        """
        while launched.result is None and launched.error is None:
            for worker, message in self.listen():
                match message:
                    case Died():
                        self._replace(worker)
                        for batch in worker.batches:
                            batch.deaths += 1
                            self._give(batch)
                    case _:
                        raise ValueError(f"a worker that was given only tiles sent {message!r}")
        if launched.result is None:
            raise launched.error or ValueError("a batch has a result or an error")
        return launched.result

    def _give(self, batch: LaunchedBatch) -> None:
        """Give a batch to a worker; if it has killed some, or none is left, give it up."""
        if batch.deaths == MOST_DEATHS or not self.present:
            batch.error = MambairError("workers died over its tiles; see their messages, or use one device")
            return
        worker = min(self.present, key=lambda worker: (not worker.is_ready, len(worker.batches)))
        worker.batches.append(batch)
        batch.worker = worker.number
        worker.send(ComputeTiles(batch.tiles, batch.corners, batch.seed, batch.kind))

    def listen(self, seconds: float | None = None) -> Iterator[tuple[Worker, Any]]:
        """Wait for messages; yield what is done and deaths, and deal with the others here.

        Args:
            seconds: How long to wait at most; None for ever.
        """
        ready = wait([worker.connection for worker in self.present], seconds)
        for worker in [worker for worker in self.present if worker.connection in ready]:
            match worker.receive():
                case Ready():
                    worker.is_ready = True
                case Done() | FrameEncoded() | SegmentFinished() | SegmentFailed() as done:
                    self._losses[worker.number] = 0
                    yield worker, done
                case Started(image):
                    self._on_start(worker.number, image)
                case Advanced(done, total):
                    self._on_tiles(worker.number, done, total)
                case TilesComputed(values):
                    self._losses[worker.number] = 0
                    worker.batches.popleft().result = values
                case TilesFailed(error):
                    worker.batches.popleft().error = error
                case Noticed() as notice:
                    warn(notice)
                case Crashed(trace):
                    raise RuntimeError(f"in the worker on {worker.device}:\n{trace}")
                case DeviceFailed(reason) | Died(reason) | NotLoaded(reason):
                    self._lose(worker, str(reason))
                    yield worker, Died(str(reason))
                case message:
                    raise ValueError(f"no message of a worker: {message!r}")

    def _lose(self, worker: Worker, reason: str) -> None:
        """Go on without a worker that has died."""
        self.present.remove(worker)
        self._missing.append((worker.number, worker.device))
        self._losses[worker.number] += 1
        if not worker.is_stopping:
            why = f": {reason}" if reason else ""
            self._notify(f"the worker on {worker.device} died {worker.describe_work()}{why}")
        worker.process.terminate()
        worker.end()

    def _replace(self, lost: Worker) -> None:
        """Start a worker in place of one that died; others go on while it loads the network."""
        if lost.is_stopping:
            return
        if self._losses[lost.number] >= MOST_LOSSES:
            self._notify(f"no further worker is started on {lost.device}: {MOST_LOSSES} were lost")
            return
        with suppress(OSError):  # the system has no room for it
            worker = start_worker(lost.number, lost.device, self._settings, self._threads)
            self._missing.remove((lost.number, lost.device))
            self.present.append(worker)

    def close(self) -> None:
        """End the workers; what they have not finished leaves no result."""
        for worker in self.present:
            if worker.is_busy or not worker.is_ready:
                worker.process.terminate()
            worker.connection.close()  # which ends a worker that has nothing to do
        for worker in self.present:
            worker.end()
        self.present = []
