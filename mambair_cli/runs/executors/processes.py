"""Worker processes that restore images side by side, each with the network loaded once on its own device.

The images of a worker that dies go to others. An image that would take longer than all the others is computed
by all workers, tile by tile. Results depend neither on the worker nor on the number of workers.
"""

import multiprocessing
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from mambair_cli.checkpoints.select import PictureKind
from mambair_cli.errors import MambairError, UsageError
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
    Noticed,
    NotLoaded,
    Ready,
    Started,
    Stop,
    TilesComputed,
    TilesFailed,
    receive,
    send,
)
from mambair_cli.runs.executors.process_worker import serve
from mambair_cli.runs.executors.protocol import describe_restorer
from mambair_cli.runs.executors.scheduler import AHEAD, MOST_DEATHS, InFlight, Scheduler, cost_of
from mambair_cli.runs.executors.starting import start_process
from mambair_cli.runs.jobs import StartedImage
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.pipeline import Pipeline
from mambair_cli.runs.run import IsStopped, PreparedJob
from mambair_cli.system.notices import SlowerWarning

PATIENCE_SECONDS = 10  # to wait for a worker to end, before it is killed

OnStart = Callable[[int, StartedImage], None]
"""Called with the number of a worker, and the image that it begins."""

OnTiles = Callable[[int, int, int], None]
"""Called with the number of a worker, and the number of its image's tiles: of those done, and of all."""


@dataclass
class _Batch:
    """Tiles of an image that several workers compute.

    Attributes:
        tiles: (b, h, w, c).
        corners: Row and column of each tile in the image.
        seed: Random seed of MambaIRv2's inference noise.
        kind: Kind of the image, where that has a model of its own.
        worker: Number of the worker that computes it.
        result: (b, s·h, s·w, c), once it is computed.
        error: Error, if it cannot be computed.
        deaths: Number of workers that died while they had it.
    """

    tiles: np.ndarray
    corners: list[tuple[int, int]]
    seed: int | None
    kind: PictureKind | None = None
    worker: int = -1
    result: np.ndarray | None = None
    error: Exception | None = None
    deaths: int = 0


@dataclass
class _Worker:
    """A worker process as its parent sees it.

    Attributes:
        number: Number of the worker, from 0.
        device: Device that it computes on.
        process: The process.
        connection: Pipe to it.
        jobs: Jobs that it was given and has not done.
        batches: Batches of tiles that it was given and has not computed.
        is_stopping: Whether it begins no further job.
    """

    number: int
    device: str
    process: BaseProcess
    connection: Connection
    jobs: InFlight = field(default_factory=InFlight)
    batches: deque[_Batch] = field(default_factory=deque)
    is_stopping: bool = False


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
        on_start: OnStart = lambda number, image: None,
        on_tiles: OnTiles = lambda number, done, total: None,
    ) -> None:
        place = f"{', '.join(dict.fromkeys(devices))} ({len(devices)} workers)"
        self.info = describe_restorer(restorer, place)
        self.ahead = AHEAD * len(devices)
        self._restorer = restorer
        self._notify, self._on_start, self._on_tiles = notify, on_start, on_tiles
        self._workers: list[_Worker] = []
        try:
            for number, device in enumerate(devices):
                self._workers.append(_start_worker(number, device, settings, threads))
            for worker in self._workers:
                _wait_until_ready(worker)
        except BaseException:
            for worker in self._workers:  # nothing has begun
                worker.process.terminate()
            self.close()
            raise

    def perform(self, jobs: Iterable[PreparedJob], is_stopped: IsStopped) -> Generator[Outcome]:
        """Share jobs out among the workers, large ones first; yield the outcome of each as it is known."""
        costs = [(job, cost_of(job)) for job in jobs]
        fair = sum(cost for _, cost in costs) / max(1, len(self._workers))
        large = [job for job, cost in costs if cost > fair or job.job.source.path is None]
        if large:
            yield from Pipeline(
                large,
                is_stopped,
                self._restorer.by(self.computer_for(None), self.computer_for),
                partial(self._on_start, 0),
                partial(self._on_tiles, 0),
            ).outcomes()
        rest = (job for job, cost in costs if cost <= fair and job.job.source.path is not None)
        yield from self._share_out(Scheduler(rest, is_stopped))

    def _share_out(self, scheduler: Scheduler) -> Iterator[Outcome]:
        """Give each job to one worker."""
        try:
            while not scheduler.is_over or any(worker.jobs for worker in self._workers):
                if not self._workers:
                    raise MambairError(
                        "all workers have died; see their messages, use fewer, and go on with --resume"
                    )
                for worker in self._workers:
                    while (job := scheduler.next_job(worker.jobs)) is not None:
                        _send(worker, DoJob(job))
                if scheduler.is_stopped:
                    self._stop()
                for worker, message in self._listen():
                    match message:
                        case Done(outcome):
                            worker.jobs.remove(worker.jobs.jobs[0])  # they are done in their order
                            yield outcome
                        case Died() if not scheduler.is_stopped:
                            given_up = scheduler.worker_died(worker.jobs)
                            if given_up is not None:
                                yield given_up
        except KeyboardInterrupt:
            yield from self._last_outcomes()
            raise

    def _stop(self) -> None:
        """Have the workers begin no further job; they end after those that have begun."""
        for worker in self._workers:
            if not worker.is_stopping:
                worker.is_stopping = True
                _send(worker, Stop())

    def _last_outcomes(self) -> Iterator[Outcome]:
        """Yield the outcomes that workers have sent already: what is done is reported."""
        for worker in self._workers:
            while worker.connection.poll():
                match _receive(worker):
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
    ) -> _Batch:
        """Give a batch of tiles, (b, h, w, c), to the worker that has the fewest batches."""
        batch = _Batch(tiles, corners, seed, kind)
        self._give(batch)
        return batch

    def collect(self, launched: _Batch) -> np.ndarray:
        """Wait for a batch, (b, s·h, s·w, c).

        Raises:
            torch.OutOfMemoryError: The worker's device does not hold it.
            MambairError: The values are not finite, or workers died over the batch.
        """
        while launched.result is None and launched.error is None:
            for worker, message in self._listen():
                match message:
                    case Died():
                        for batch in worker.batches:
                            batch.deaths += 1
                            self._give(batch)
                    case _:
                        raise ValueError(f"a worker that was given only tiles sent {message!r}")
        if launched.result is None:
            raise launched.error or ValueError("a batch has a result or an error")
        return launched.result

    def _give(self, batch: _Batch) -> None:
        """Give a batch to a worker; if it has killed some, or none is left, give it up."""
        if batch.deaths == MOST_DEATHS or not self._workers:
            batch.error = MambairError("workers died over its tiles; see their messages, or use one device")
            return
        worker = min(self._workers, key=lambda worker: len(worker.batches))
        worker.batches.append(batch)
        batch.worker = worker.number
        _send(worker, ComputeTiles(batch.tiles, batch.corners, batch.seed, batch.kind))

    def _listen(self) -> Iterator[tuple[_Worker, Done | Died]]:
        """Wait for messages of workers; yield done jobs and deaths, and deal with the others here."""
        ready = wait([worker.connection for worker in self._workers])
        for worker in [worker for worker in self._workers if worker.connection in ready]:
            match _receive(worker):
                case Done() as done:
                    yield worker, done
                case Started(image):
                    self._on_start(worker.number, image)
                case Advanced(done, total):
                    self._on_tiles(worker.number, done, total)
                case TilesComputed(values):
                    worker.batches.popleft().result = values
                case TilesFailed(error):
                    worker.batches.popleft().error = error
                case Noticed() as notice:
                    _warn(notice)
                case Crashed(trace):
                    raise RuntimeError(f"in the worker on {worker.device}:\n{trace}")
                case DeviceFailed(reason) | Died(reason):
                    self._lose(worker, reason)
                    yield worker, Died(reason)
                case message:
                    raise ValueError(f"no message of a worker: {message!r}")

    def _lose(self, worker: _Worker, reason: str) -> None:
        """Go on without a worker that has died."""
        self._workers.remove(worker)
        if not worker.is_stopping:
            what, why = str(worker.jobs) or "tiles of an image", f": {reason}" if reason else ""
            self._notify(f"the worker on {worker.device} died while it had {what}{why}")
        worker.process.terminate()
        _end(worker.process)

    def close(self) -> None:
        """End the workers; what they have not finished leaves no result."""
        for worker in self._workers:
            if worker.jobs or worker.batches:
                worker.process.terminate()
            worker.connection.close()  # which ends a worker that has nothing to do
        for worker in self._workers:
            _end(worker.process)
        self._workers = []


def _start_worker(number: int, device: str, settings: RestoreSettings, threads: int | None) -> _Worker:
    """Start a worker process; it loads its network meanwhile."""
    ours, theirs = multiprocessing.Pipe()
    arguments = theirs, replace(settings, device=device), threads
    process = start_process(serve, arguments, f"mambair-{number}-{device}")
    theirs.close()
    return _Worker(number, device, process, ours)


def _wait_until_ready(worker: _Worker) -> None:
    """Wait until a worker has loaded its network.

    Raises:
        UsageError: It died.
        MambairError: It cannot load the network.
    """
    while True:
        match _receive(worker):
            case Ready():
                return
            case Noticed() as notice:
                _warn(notice)
            case NotLoaded(error):
                raise error
            case Crashed(trace):
                raise RuntimeError(f"in the worker on {worker.device}:\n{trace}")
            case DeviceFailed(reason) | Died(reason):
                why = f": {reason}" if reason else ""
                raise UsageError(f"the worker on {worker.device} died at its start{why}; use fewer workers")
            case message:
                raise ValueError(f"no message of a worker that starts: {message!r}")


def _warn(notice: Noticed) -> None:
    """Repeat here what a worker says; a warning is shown once for all of them."""
    warnings.warn(notice.sentence, SlowerWarning, stacklevel=2)


def _end(process: BaseProcess) -> None:
    """Wait for a process to end; kill it if it does not."""
    process.join(PATIENCE_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()


def _send(worker: _Worker, message: Any) -> None:
    """Send a message; if the worker has died, receiving will show it."""
    with suppress(OSError):
        send(worker.connection, message)


def _receive(worker: _Worker) -> Any:
    """Receive a message of a worker, or its death."""
    try:
        return receive(worker.connection)
    except (EOFError, OSError):
        return Died()
