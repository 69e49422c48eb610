"""Processes that restore images side by side, each with the network loaded once on a device of its own.

A worker that dies hands its images to others. An image that would keep one busy after the others are done is
computed by all of them, tile by tile. What comes out does not depend on who did it, nor on how many.
"""

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from operator import itemgetter
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from mambair_cli.batch import IsStopped, Outcome, Task
from mambair_cli.engine import MEMORY, TileComputer
from mambair_cli.errors import MambairError, UsageError
from mambair_cli.jobs import Job
from mambair_cli.pipeline import MOST_AHEAD, perform_alone
from mambair_cli.restore import Restorer

AHEAD = 2  # tasks that a worker has at least: one to do, and the next
BYTES_AHEAD = 2**18  # up to which it has more of them, small ones
PATIENCE_SECONDS = 10  # for a worker that is to end, and may be writing a result
MOST_DEATHS = 2  # of workers that had an image in hand, before it is taken to be the cause

OnStart = Callable[[int, str, int], None]
"""Called with the number of a worker, and the name and pixels of an image that it begins with."""

OnTiles = Callable[[int, int, int], None]
"""Called with the number of a worker, and the tiles of its image that are done, of how many."""

# What PyTorch raises where a device fails; before 2.8 there was no name for it.
_DEVICE_ERROR: type[Exception] = getattr(torch, "AcceleratorError", type("NoError", (Exception,), {}))
_UNRESTORED = (torch.OutOfMemoryError, MemoryError, MambairError)  # an engine's errors for tiles


class _Started(NamedTuple):
    """A worker has begun with an image."""

    name: str
    pixels: int


class _Advanced(NamedTuple):
    """A worker has computed so many tiles of its image."""

    done: int
    total: int


class _Failed(NamedTuple):
    """A worker cannot go on, since its device fails."""

    reason: str


class _Crashed(NamedTuple):
    """A worker has come upon a bug of ours."""

    trace: str


class _Tiles(NamedTuple):
    """A batch of tiles that a worker is to compute, whose values follow."""

    shape: tuple[int, ...]
    corners: list[tuple[int, int]]
    seed: int | None


class _Restored(NamedTuple):
    """A worker has computed a batch of tiles, (b, s·h, s·w, c), or why it could not."""

    values: np.ndarray | None
    error: Exception | None = None


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
class _Worker:
    number: int
    device: str
    process: BaseProcess
    connection: Connection
    tasks: deque[Task] = field(default_factory=deque)  # in its hands, in their order
    batches: deque[_Batch] = field(default_factory=deque)
    is_on_trial: bool = False  # over the one task that it has

    def has_room(self) -> bool:
        """Tell whether it should be given a task more: it has little to do until it asks again."""
        count = len(self.tasks)
        return count < AHEAD or (count < MOST_AHEAD and sum(map(cost_of, self.tasks)) < BYTES_AHEAD)


class Crew:
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
        self._workers: list[_Worker] = []
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        try:
            for number, device in enumerate(devices):
                ours, theirs = context.Pipe()
                arguments = (theirs, os.getpid(), {**options, "device": device}, threads)
                process = context.Process(target=_serve, args=arguments, name=f"mambair-{device}")
                with _deaf_to_interrupts():  # so is the worker then, before it can say so itself
                    process.start()
                theirs.close()
                self._workers.append(_Worker(number, device, process, ours))
            for worker in self._workers:
                ready = _receive(worker)
                if ready is None:
                    raise UsageError(f"the worker on {worker.device} died at its start; use fewer workers")
                if isinstance(ready, MambairError):
                    raise ready
        except BaseException:
            self.close()
            raise

    def perform(self, tasks: Iterable[Task], is_stopped: IsStopped) -> Generator[Outcome]:
        """Share tasks out among the workers, large ones first; yield what becomes of each, as it is known."""
        ordered = sorted(((cost_of(task), task) for task in tasks), key=itemgetter(0), reverse=True)
        fair = sum(cost for cost, _ in ordered) / max(1, len(self._workers))
        large = [task for cost, task in ordered if cost > fair or task.job.source.path is None]
        if large:
            yield from perform_alone(
                large,
                is_stopped,
                self._restorer.by(self),
                partial(self._on_start, 0),
                partial(self._on_tiles, 0),
            )
        rest = (task for cost, task in ordered if cost <= fair and task.job.source.path is not None)
        yield from self._share_out(rest, is_stopped)

    def _share_out(self, tasks: Iterable[Task], is_stopped: IsStopped) -> Iterator[Outcome]:
        """Give each task to one worker."""
        waiting = iter(tasks)
        suspects: deque[Task] = deque()
        deaths: Counter[Job] = Counter()
        while True:
            for worker in self._workers:
                self._feed(worker, waiting, suspects, is_stopped)
            if not any(worker.tasks for worker in self._workers):
                break
            for worker, outcome in self._listen():
                if outcome is not None:
                    worker.tasks.popleft()
                    worker.is_on_trial = False
                    yield outcome
                    continue
                deaths.update(task.job for task in worker.tasks)
                if len(worker.tasks) == 1 and deaths[worker.tasks[0].job] == MOST_DEATHS:
                    task = worker.tasks.popleft()
                    yield _give_up(task, f"{MOST_DEATHS} workers died over it; leave it out")
                suspects.extend(map(_again, worker.tasks))
        if not is_stopped():
            for task in chain(suspects, waiting):
                yield _give_up(task, "all workers have died; see their messages, or use fewer")

    def _feed(
        self, worker: _Worker, waiting: Iterator[Task], suspects: deque[Task], is_stopped: IsStopped
    ) -> None:
        """Give a worker as much as it has room for; what one may have died over, alone."""
        while not worker.is_on_trial and worker.has_room() and not is_stopped():
            if suspects:
                if worker.tasks:
                    return
                task, worker.is_on_trial = suspects.popleft(), True
            else:
                task = next(waiting, None)
                if task is None:
                    return
            worker.tasks.append(task)
            with suppress(OSError):  # it has died, as it will be seen to have
                worker.connection.send(task)

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
            for worker, _ in self._listen():
                for batch in worker.batches:  # it has died
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
            worker.connection.send(_Tiles(batch.tiles.shape, batch.corners, batch.seed))
            _send_values(worker.connection, batch.tiles)

    def _listen(self) -> Iterator[tuple[_Worker, Outcome | None]]:
        """Wait for workers to say something; yield those that did a task, and, with None, those that died."""
        ready = wait([worker.connection for worker in self._workers])
        for worker in [worker for worker in self._workers if worker.connection in ready]:
            match _receive(worker):
                case Outcome() as outcome:
                    yield worker, outcome
                case _Started(name, pixels):
                    self._on_start(worker.number, name, pixels)
                case _Advanced(done, total):
                    self._on_tiles(worker.number, done, total)
                case _Restored(values, error):
                    batch = worker.batches.popleft()
                    batch.result, batch.error = values, error
                case _Crashed(trace):
                    raise RuntimeError(f"in the worker on {worker.device}:\n{trace}")
                case end:
                    self._workers.remove(worker)
                    names = ", ".join(str(task.job.source) for task in worker.tasks) or "tiles"
                    why = f": {end.reason}" if isinstance(end, _Failed) else ""
                    self._notify(f"the worker on {worker.device} died over {names}{why}")
                    worker.process.terminate()
                    _end(worker.process)
                    yield worker, None

    def close(self) -> None:
        """Send the workers home; what they have not finished is left as if it had not begun."""
        for worker in self._workers:
            if worker.tasks or worker.batches:
                worker.process.terminate()
            worker.connection.close()  # which tells one that has nothing to do
        for worker in self._workers:
            _end(worker.process)
        self._workers = []


def _end(process: BaseProcess) -> None:
    """Wait for a process that was told to end, and make it end where it does not."""
    process.join(PATIENCE_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()


def cost_of(task: Task) -> int:
    """Guess what a task costs, by the bytes of its image."""
    try:
        return task.job.source.path.stat().st_size if task.job.source.path else 0
    except OSError:  # whoever opens it will say why
        return 0


def _again(task: Task) -> Task:
    """Return a task to do again; its result may be there, if the worker died before it could say so."""
    is_written = task.watch is not None and task.watch.is_written()
    return replace(task, overwrite=task.overwrite or is_written)


def _receive(worker: _Worker) -> Any:
    """Return what a worker sends; None where it has died."""
    try:
        message = worker.connection.recv()
        return _Restored(_receive_values(worker.connection, message)) if type(message) is tuple else message
    except (EOFError, OSError):
        return None


def _receive_values(connection: Connection, shape: tuple[int, ...]) -> np.ndarray:
    values = np.empty(shape, np.float32)
    connection.recv_bytes_into(values.data.cast("B"))
    return values


def _send_values(connection: Connection, values: np.ndarray) -> None:
    connection.send_bytes(np.ascontiguousarray(values).data.cast("B"))


def _give_up(task: Task, why: str) -> Outcome:
    error = MambairError(f"cannot restore {task.job.source}: {why}")
    return Outcome(task.job, error, None, False, None, 0.0)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Start processes that ignore interrupts from their first moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, parent: int, options: dict[str, Any], threads: int | None) -> None:
    """Do tasks as they come, until there is nobody to send them; this is the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends its workers
    signal.signal(signal.SIGTERM, _leave)
    if threads is not None:
        torch.set_num_threads(threads)
    out = _Mouth(connection)
    try:
        try:
            restorer = Restorer(**options)
        except MambairError as error:
            out.send(error)
            out.close()
            return
        out.send(True)

        def advance(done: int, total: int) -> None:
            if os.getppid() != parent:  # it was killed
                raise SystemExit
            out.send(_Advanced(done, total))

        for outcome in perform_alone(
            _receive_tasks(connection, restorer, out),
            lambda: False,
            restorer,
            lambda name, pixels: out.send(_Started(name, pixels)),
            advance,
        ):
            out.send(outcome)
    except _DEVICE_ERROR as error:
        out.send(_Failed(str(error).partition("\n")[0]))
    except Exception:
        out.send(_Crashed(traceback.format_exc()))
    out.close()  # not where it is sent home: then nobody listens


class _Mouth:
    """Sends what a worker has to say, in a thread: while the parent speaks, it does not listen."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, name="mambair-send", daemon=True)
        self._thread.start()

    def send(self, message: Any) -> None:
        """Send a message, without waiting for it to arrive."""
        self._waiting.put(message)

    def close(self) -> None:
        """Wait until everything is sent."""
        self._waiting.put(None)
        self._thread.join()

    def _send_all(self) -> None:
        with suppress(OSError):  # nobody listens any more
            while (message := self._waiting.get()) is not None:
                if isinstance(message, _Restored) and message.values is not None:
                    self._connection.send(message.values.shape)
                    _send_values(self._connection, message.values)
                else:
                    self._connection.send(message)


def _receive_tasks(connection: Connection, restorer: Restorer, out: _Mouth) -> Iterator[Task]:
    """Yield the tasks that come; batches of tiles are computed here."""
    computer = restorer.computer
    launched: deque[Any] = deque()
    with suppress(EOFError, ConnectionError):  # nobody sends any more
        while True:
            message = connection.recv()
            if isinstance(message, Task):
                yield message
                continue
            tiles = _receive_values(connection, message.shape)
            try:
                launched.append(computer.launch(tiles, message.corners, message.seed))
            except _UNRESTORED as error:
                launched.append(error)
            while len(launched) > computer.ahead or (launched and not connection.poll()):
                out.send(_collect(computer, launched.popleft()))


def _collect(computer: TileComputer, launched: Any) -> _Restored:
    try:
        if isinstance(launched, Exception):
            raise launched
        with computer.bench.at_work():
            restored = computer.collect(launched)
        return _Restored(computer.bench.fetch(restored, None))
    except _UNRESTORED as error:
        return _Restored(None, error)


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit
