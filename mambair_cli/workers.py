"""Processes that restore images side by side, each with the network loaded once on a device of its own.

A worker that dies hands its image to another. What an image comes out as does not depend on who did it.
"""

import multiprocessing
import os
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

import torch

from mambair_cli.batch import IsStopped, Outcome, Task
from mambair_cli.errors import MambairError, UsageError
from mambair_cli.jobs import Job
from mambair_cli.pipeline import MOST_AHEAD, perform_alone
from mambair_cli.restore import Restorer

AHEAD = 2  # tasks that a worker has at least: one to do, and the next
BYTES_AHEAD = 2**18  # up to which it has more of them, small ones
MOST_DEATHS = 2  # of workers that had an image in hand, before it is taken to be the cause


@dataclass
class _Worker:
    device: str
    process: BaseProcess
    connection: Connection
    tasks: deque[Task] = field(default_factory=deque)  # in its hands, in their order
    is_on_trial: bool = False  # over the one task that it has

    def has_room(self) -> bool:
        """Tell whether it should be given a task more: it has little to do until it asks again."""
        count = len(self.tasks)
        return count < AHEAD or (count < MOST_AHEAD and sum(map(_cost, self.tasks)) < BYTES_AHEAD)


class Crew:
    """Workers that wait for tasks.

    Args:
        devices: Of the workers, one each.
        options: Of the ``Restorer`` that each makes, all but its device.
        threads: Of PyTorch in each worker; None for its own choice.
        notify: Told in a sentence of a worker that died.

    Raises:
        MambairError: As the ``Restorer`` does.
    """

    def __init__(
        self,
        devices: Sequence[str],
        options: dict[str, Any],
        threads: int | None = None,
        notify: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._notify = notify
        self._workers: list[_Worker] = []
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        try:
            for device in devices:
                ours, theirs = context.Pipe()
                arguments = (theirs, os.getpid(), {**options, "device": device}, threads)
                process = context.Process(target=_serve, args=arguments, name=f"mambair-{device}")
                process.start()
                theirs.close()
                self._workers.append(_Worker(device, process, ours))
            for worker in self._workers:
                ready = _receive(worker)
                if ready is None:
                    raise UsageError(f"the worker on {worker.device} died at its start; use fewer workers")
        except BaseException:
            self.close()
            raise

    def perform(self, tasks: Iterable[Task], is_stopped: IsStopped) -> Generator[Outcome]:
        """Share tasks out among the workers, large ones first; yield what becomes of each, as it is known."""
        waiting = iter(sorted(tasks, key=_cost, reverse=True))
        suspects: deque[Task] = deque()
        deaths: Counter[Job] = Counter()
        while True:
            for worker in self._workers:
                self._feed(worker, waiting, suspects, is_stopped)
            if not any(worker.tasks for worker in self._workers):
                break
            ready = wait([worker.connection for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.connection in ready]:
                outcome = _receive(worker)
                if outcome is not None:
                    worker.tasks.popleft()
                    worker.is_on_trial = False
                    yield outcome
                    continue
                self._workers.remove(worker)
                names = ", ".join(str(task.job.source) for task in worker.tasks)
                self._notify(f"the worker on {worker.device} died over {names}")
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

    def close(self) -> None:
        """Send the workers home; what they have not finished is left as if it had not begun."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers = []


def _cost(task: Task) -> int:
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
    """Return what a worker sends; None where it has died. Raise what it could not deal with."""
    try:
        message = worker.connection.recv()
    except (EOFError, ConnectionError):
        worker.process.join()
        return None
    if isinstance(message, MambairError):
        raise message
    if isinstance(message, str):
        raise RuntimeError(f"in the worker on {worker.device}:\n{message}")
    return message


def _give_up(task: Task, why: str) -> Outcome:
    error = MambairError(f"cannot restore {task.job.source}: {why}")
    return Outcome(task.job, error, None, False, None, 0.0)


def _serve(connection: Connection, parent: int, options: dict[str, Any], threads: int | None) -> None:
    """Do tasks as they come, until there is nobody to send them; this is the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends its workers
    signal.signal(signal.SIGTERM, _leave)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        try:
            restorer = Restorer(**options)
        except MambairError as error:
            connection.send(error)
            return
        connection.send(True)
        tasks = _receive_tasks(connection)
        for outcome in perform_alone(tasks, lambda: False, restorer, on_tiles=_stay_with(parent)):
            connection.send(outcome)
    except ConnectionError:
        return
    except Exception:
        connection.send(traceback.format_exc())


def _receive_tasks(connection: Connection) -> Iterator[Task]:
    with suppress(EOFError, ConnectionError):  # nobody sends any more
        while True:
            yield connection.recv()


def _stay_with(parent: int) -> Callable[[int, int], None]:
    """Return what ends a worker between two batches of tiles where its parent was killed."""

    def check(done: int, total: int) -> None:
        if os.getppid() != parent:
            raise SystemExit

    return check


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit
