"""The process of a worker: what it is told and what it says, and how it goes about its tasks."""

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import torch

from mambair_cli.errors import MambairError
from mambair_cli.restore.engine import DEVICE_ERROR, TileComputer
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.settings import RestoreSettings
from mambair_cli.runs.pipeline import perform_alone
from mambair_cli.runs.run import PreparedJob
from mambair_cli.system.notices import telling
from mambair_cli.system.process import leave_process
from mambair_cli.system.signals import OF_TERMINALS

_UNRESTORED = (torch.OutOfMemoryError, MemoryError, MambairError)  # an engine's errors for tiles


class Started(NamedTuple):
    """A worker has begun with an image."""

    name: str
    pixels: int


class Advanced(NamedTuple):
    """A worker has computed so many tiles of its image."""

    done: int
    total: int


class Noticed(NamedTuple):
    """The user should know something, although nothing failed."""

    sentence: str


class Failed(NamedTuple):
    """A worker cannot go on, since its device fails."""

    reason: str


class Crashed(NamedTuple):
    """A worker has come upon a bug of ours."""

    trace: str


class TileBatch(NamedTuple):
    """A batch of tiles that a worker is to compute, whose values follow."""

    shape: tuple[int, ...]
    corners: list[tuple[int, int]]
    seed: int | None


class Stop(NamedTuple):
    """A worker is to begin with no further task, and to end when those in work are done."""


class TileResult(NamedTuple):
    """A worker has computed a batch of tiles, (b, s·h, s·w, c), or why it could not."""

    values: np.ndarray | None
    error: Exception | None = None


def receive_values(connection: Connection, shape: tuple[int, ...]) -> np.ndarray:
    """Receive float32 values, without a copy."""
    values = np.empty(shape, np.float32)
    connection.recv_bytes_into(values.data.cast("B"))
    return values


def send_values(connection: Connection, values: np.ndarray) -> None:
    """Send float32 values, whose shape the other side knows."""
    connection.send_bytes(np.ascontiguousarray(values).data.cast("B"))


def serve(connection: Connection, settings: RestoreSettings, threads: int | None) -> None:
    """Do tasks as they come, until there is nobody to send them; this is the worker.

    Who asks it to terminate ends it at once: what it leaves half-written, its parent's journal clears away.

    Args:
        connection: To the parent, which sends tasks and tiles, and closes it at the end.
        settings: Settings of its restorer.
        threads: Of PyTorch; None for its own choice.
    """
    for number in OF_TERMINALS:
        signal.signal(number, signal.SIG_IGN)  # the parent hears it too, and ends its workers
    threading.Thread(target=_end_with_parent, name="mambair-parent", daemon=True).start()
    if threads is not None:
        torch.set_num_threads(threads)
    out = _Mouth(connection)
    with telling(lambda sentence: out.send(Noticed(sentence))):
        _work(connection, settings, out)
    out.close()


def _work(connection: Connection, settings: RestoreSettings, out: "_Mouth") -> None:
    """Load the network, and do tasks."""
    try:
        try:
            restorer = Restorer.from_settings(settings)
        except MambairError as error:
            out.send(error)
            return
        out.send(True)

        is_stopped = threading.Event()
        for outcome in perform_alone(
            _receive_tasks(connection, restorer, out, is_stopped),
            is_stopped.is_set,
            restorer,
            lambda name, pixels: out.send(Started(name, pixels)),
            lambda done, total: out.send(Advanced(done, total)),
        ):
            out.send(outcome)
        leave_process()
    except DEVICE_ERROR as error:
        out.send(Failed(str(error).partition("\n")[0]))
    except Exception:
        out.send(Crashed(traceback.format_exc()))


def _end_with_parent() -> None:
    """End this process as soon as its parent has, however that came about: another run may begin at once."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


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
                if isinstance(message, TileResult) and message.values is not None:
                    self._connection.send(message.values.shape)
                    send_values(self._connection, message.values)
                else:
                    self._connection.send(message)


def _receive_tasks(
    connection: Connection, restorer: Restorer, out: _Mouth, is_stopped: threading.Event
) -> Iterator[PreparedJob]:
    """Yield the tasks that come, until none is to begin any more; batches of tiles are computed here."""
    computer = restorer.computer
    launched: deque[Any] = deque()
    with suppress(EOFError, ConnectionError):  # nobody sends any more
        while True:
            message = connection.recv()
            if isinstance(message, PreparedJob):
                yield message
                continue
            if isinstance(message, Stop):
                is_stopped.set()
                return
            tiles = receive_values(connection, message.shape)
            try:
                launched.append(computer.launch(tiles, message.corners, message.seed))
            except _UNRESTORED as error:
                launched.append(error)
            while len(launched) > computer.ahead or (launched and not connection.poll()):
                out.send(_collect(computer, launched.popleft()))


def _collect(computer: TileComputer, launched: Any) -> TileResult:
    try:
        if isinstance(launched, Exception):
            raise launched
        with computer.bench.at_work():
            restored = computer.collect(launched)
        return TileResult(computer.bench.fetch(restored, None))
    except _UNRESTORED as error:
        return TileResult(None, error)
