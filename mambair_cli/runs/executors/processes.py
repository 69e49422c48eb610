"""Processes that restore images side by side, each with the network loaded once on a device of its own.

A worker that dies hands its images to others. An image that would keep one busy after the others are done is
computed by all of them, tile by tile. What comes out does not depend on who did it, nor on how many.
"""

import multiprocessing
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np

from mambair_cli.errors import MambairError, UsageError
from mambair_cli.restore.engine import MEMORY
from mambair_cli.restore.restorer import Restorer
from mambair_cli.runs.executors.process_worker import (
    Advanced,
    Crashed,
    Failed,
    Noticed,
    Started,
    Stop,
    TileBatch,
    TileResult,
    receive_values,
    send_values,
    serve,
)
from mambair_cli.runs.executors.scheduler import AHEAD, MOST_DEATHS, InFlight, Scheduler, cost_of
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.pipeline import perform_alone
from mambair_cli.runs.run import IsStopped, PreparedJob
from mambair_cli.system.notices import SlowerWarning
from mambair_cli.system.signals import OF_TERMINALS

PATIENCE_SECONDS = 10  # for a worker that is told to end

OnStart = Callable[[int, str, int], None]
"""Called with the number of a worker, and the name and pixels of an image that it begins with."""

OnTiles = Callable[[int, int, int], None]
"""Called with the number of a worker, and the tiles of its image that are done, of how many."""


@dataclass
class _Batch:
    """Tiles of an image that several workers compute.

    Attributes:
        tiles: (b, h, w, c).
        corners: Of each in the image.
        seed: Of the noise that MambaIRv2 draws.
        result: (b, s·h, s·w, c), once there is one.
        error: Why there is none.
        deaths: Of workers that had it in hand.
    """

    tiles: np.ndarray
    corners: list[tuple[int, int]]
    seed: int | None
    result: np.ndarray | None = None
    error: Exception | None = None
    deaths: int = 0


@dataclass
class _Process:
    number: int
    device: str
    process: BaseProcess
    connection: Connection
    hand: InFlight = field(default_factory=InFlight)  # its tasks
    batches: deque[_Batch] = field(default_factory=deque)  # of tiles
    is_stopping: bool = False  # it begins with no further task


class _Died(NamedTuple):
    """A worker is no more; what it had in hand is to be done by others."""


class WorkerProcesses:
    """Workers that wait for tasks, or for tiles of an image that all of them compute.

    Args:
        devices: Of the workers, one each, all of one kind.
        restorer: Leaves its tiles to them where an image is shared out.
        options: Of the ``Restorer`` that each makes, all but its device.
        threads: Of PyTorch in each worker; None for its own choice.
        notify: Told in a sentence of a worker that died.
        on_start: Told of each image that a worker begins with.
        on_tiles: Told of the progress of each.

    Attributes:
        scale: Output pixels per input pixel and side.
        ahead: Batches of tiles that may be under way at once.
        bench: Where their results are blended: here.

    Raises:
        MambairError: As the ``Restorer`` does.
    """

    def __init__(
        self,
        devices: Sequence[str],
        restorer: Restorer,
        options: dict[str, Any],
        threads: int | None = None,
        notify: Callable[[str], None] = lambda sentence: None,
        on_start: OnStart = lambda number, name, pixels: None,
        on_tiles: OnTiles = lambda number, done, total: None,
    ) -> None:
        self.scale = restorer.info.scale
        self.ahead = AHEAD * len(devices)
        self.bench = MEMORY
        self._restorer = restorer
        self._notify, self._on_start, self._on_tiles = notify, on_start, on_tiles
        self._workers: list[_Process] = []
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        try:
            for number, device in enumerate(devices):
                ours, theirs = context.Pipe()
                arguments = (theirs, {**options, "device": device}, threads)
                process = context.Process(target=serve, args=arguments, name=f"mambair-{device}")
                with _deaf_to_interrupts():  # so is the worker then, before it can say so itself
                    process.start()
                theirs.close()
                self._workers.append(_Process(number, device, process, ours))
            for worker in self._workers:
                while isinstance(ready := _receive(worker), Noticed):
                    _pass_on(ready)
                if ready is None:
                    raise UsageError(f"the worker on {worker.device} died at its start; use fewer workers")
                if isinstance(ready, MambairError):
                    raise ready
        except BaseException:
            for worker in self._workers:  # nothing is begun
                worker.process.terminate()
            self.close()
            raise

    def perform(self, tasks: Iterable[PreparedJob], is_stopped: IsStopped) -> Generator[Outcome]:
        """Share tasks out among the workers, large ones first; yield what becomes of each, as it is known."""
        costs = [(task, cost_of(task)) for task in tasks]
        fair = sum(cost for _, cost in costs) / max(1, len(self._workers))
        large = [task for task, cost in costs if cost > fair or task.job.source.path is None]
        if large:
            yield from perform_alone(
                large,
                is_stopped,
                self._restorer.by(self),
                partial(self._on_start, 0),
                partial(self._on_tiles, 0),
            )
        rest = (task for task, cost in costs if cost <= fair and task.job.source.path is not None)
        yield from self._share_out(Scheduler(rest, is_stopped))

    def _share_out(self, shares: Scheduler) -> Iterator[Outcome]:
        """Give each task to one worker."""
        try:
            while not shares.is_over or any(worker.hand.tasks for worker in self._workers):
                if not self._workers:
                    raise MambairError(
                        "all workers have died; see their messages, use fewer, and go on with --resume"
                    )
                for worker in self._workers:
                    while (task := shares.draw(worker.hand)) is not None:
                        with suppress(OSError):  # it has died, as it will be seen to have
                            worker.connection.send(task)
                if shares.is_stopped:
                    self._stop()
                for worker, message in self._listen():
                    if isinstance(message, Outcome):
                        worker.hand.put_down(worker.hand.tasks[0])  # they are done in their order
                        yield message
                    elif not shares.is_stopped and (given_up := shares.bury(worker.hand)) is not None:
                        yield given_up
        except KeyboardInterrupt:
            yield from self._hear_last()
            raise

    def _stop(self) -> None:
        """Have the workers begin with no further task; they end when those in work are done."""
        for worker in self._workers:
            if not worker.is_stopping:
                worker.is_stopping = True
                with suppress(OSError):
                    worker.connection.send(Stop())

    def _hear_last(self) -> Iterator[Outcome]:
        """Yield what workers have said already: what is done is told."""
        for worker in self._workers:
            while worker.connection.poll():
                message = _receive(worker)
                if message is None:
                    break
                if isinstance(message, Outcome):
                    yield message

    def launch(self, tiles: np.ndarray, corners: list[tuple[int, int]], seed: int | None) -> _Batch:
        """Give a batch of tiles, (b, h, w, c), to the worker that has the least to do."""
        batch = _Batch(tiles, corners, seed)
        self._give(batch)
        return batch

    def collect(self, launched: _Batch) -> np.ndarray:
        """Wait for a batch, (b, s·h, s·w, c).

        Raises:
            torch.OutOfMemoryError: The worker's device does not hold it.
            MambairError: As an engine does; or workers died over it.
        """
        while launched.result is None and launched.error is None:
            for worker, message in self._listen():
                if not isinstance(message, _Died):
                    raise ValueError(f"a worker that has tiles alone did a task: {message}")
                for batch in worker.batches:
                    batch.deaths += 1
                    self._give(batch)
        if launched.result is None:
            raise launched.error or ValueError("a batch has a result or an error")
        return launched.result

    def _give(self, batch: _Batch) -> None:
        if batch.deaths == MOST_DEATHS or not self._workers:
            batch.error = MambairError("workers died over its tiles; see their messages, or use one device")
            return
        worker = min(self._workers, key=lambda worker: len(worker.batches))
        worker.batches.append(batch)
        with suppress(OSError):  # it has died, as it will be seen to have
            worker.connection.send(TileBatch(batch.tiles.shape, batch.corners, batch.seed))
            send_values(worker.connection, batch.tiles)

    def _listen(self) -> Iterator[tuple[_Process, "Outcome | _Died"]]:
        """Wait for workers to say something; yield those that did a task, and those that died."""
        ready = wait([worker.connection for worker in self._workers])
        for worker in [worker for worker in self._workers if worker.connection in ready]:
            match _receive(worker):
                case Outcome() as outcome:
                    yield worker, outcome
                case Started(name, pixels):
                    self._on_start(worker.number, name, pixels)
                case Advanced(done, total):
                    self._on_tiles(worker.number, done, total)
                case TileResult(values, error):
                    batch = worker.batches.popleft()
                    batch.result, batch.error = values, error
                case Noticed() as notice:
                    _pass_on(notice)
                case Crashed(trace):
                    raise RuntimeError(f"in the worker on {worker.device}:\n{trace}")
                case Failed(reason):
                    self._lose(worker, f": {reason}")
                    yield worker, _Died()
                case None:
                    self._lose(worker, "")
                    yield worker, _Died()
                case message:
                    raise ValueError(f"a worker says what nobody knows: {message!r}")

    def _lose(self, worker: _Process, why: str) -> None:
        """Do without a worker that has died."""
        self._workers.remove(worker)
        if not worker.is_stopping:
            what = str(worker.hand) or "tiles of an image"
            self._notify(f"the worker on {worker.device} died with {what} in hand{why}")
        worker.process.terminate()
        _end(worker.process)

    def close(self) -> None:
        """Send the workers home; what they have not finished is left as if it had not begun."""
        for worker in self._workers:
            if worker.hand.tasks or worker.batches:
                worker.process.terminate()
            worker.connection.close()  # which tells one that has nothing to do
        for worker in self._workers:
            _end(worker.process)
        self._workers = []


def _pass_on(notice: Noticed) -> None:
    """Say here what a worker says, once for all of them."""
    warnings.warn(notice.sentence, SlowerWarning, stacklevel=2)


def _end(process: BaseProcess) -> None:
    """Wait for a process that was told to end, and make it end where it does not."""
    process.join(PATIENCE_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()


def _receive(worker: _Process) -> Any:
    """Return what a worker sends; None where it has died."""
    try:
        message = worker.connection.recv()
        return TileResult(receive_values(worker.connection, message)) if type(message) is tuple else message
    except (EOFError, OSError):
        return None


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Start processes that ignore interrupts from their first moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in OF_TERMINALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
