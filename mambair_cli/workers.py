"""Processes that restore images side by side, each with the network loaded once on a device of its own.

A worker that dies hands its image to another. What an image comes out as does not depend on who did it.
"""

import multiprocessing
import os
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

import torch

from mambair_cli.batch import Outcome, Task, perform_alone
from mambair_cli.errors import MambairError, UsageError
from mambair_cli.jobs import Job
from mambair_cli.restore import Restorer

AHEAD = 2  # tasks that a worker is given: one to do, and the next
MOST_DEATHS = 2  # of workers over one image, before it is taken to be the cause


@dataclass
class _Worker:
    device: str
    process: BaseProcess
    connection: Connection
    tasks: deque[Task] = field(default_factory=deque)


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

    def perform(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Share tasks out among the workers and yield what becomes of each, as it is known."""
        waiting = deque(tasks)
        deaths: Counter[Job] = Counter()
        while waiting or any(worker.tasks for worker in self._workers):
            if not self._workers:
                for task in waiting:
                    yield _give_up(task, "all workers have died; see their messages, or use fewer")
                return
            for worker in self._workers:
                while waiting and len(worker.tasks) < AHEAD:
                    worker.tasks.append(waiting.popleft())
                    with suppress(OSError):  # it has died, as it will be seen to have
                        worker.connection.send(worker.tasks[-1])
            ready = wait([worker.connection for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.connection in ready]:
                outcome = _receive(worker)
                if outcome is not None:
                    worker.tasks.popleft()
                    yield outcome
                    continue
                self._workers.remove(worker)
                self._notify(f"the worker on {worker.device} died over {worker.tasks[0].job.source}")
                deaths[worker.tasks[0].job] += 1
                if deaths[worker.tasks[0].job] == MOST_DEATHS:
                    yield _give_up(
                        worker.tasks.popleft(), f"{MOST_DEATHS} workers died over it; leave it out"
                    )
                waiting.extendleft(map(_again, reversed(worker.tasks)))

    def close(self) -> None:
        """Send the workers home; what they have not finished is left as if it had not begun."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers = []


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
        while True:
            for outcome in perform_alone([connection.recv()], restorer, on_tiles=_stay_with(parent)):
                connection.send(outcome)
    except (EOFError, ConnectionError):
        return
    except Exception:
        connection.send(traceback.format_exc())


def _stay_with(parent: int) -> Callable[[int, int], None]:
    """Return what ends a worker between two batches of tiles where its parent was killed."""

    def check(done: int, total: int) -> None:
        if os.getppid() != parent:
            raise SystemExit

    return check


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit
