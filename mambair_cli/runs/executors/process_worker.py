"""A worker process: it does the jobs, the segments of clips and the tiles that its parent sends."""

import multiprocessing
import os
import queue
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

from mambair_cli.errors import MambairError
from mambair_cli.restore.engine import DEVICE_ERROR, TileComputer
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.settings import RestoreSettings
from mambair_cli.runs.executors.messages import (
    Advanced,
    ComputeTiles,
    Crashed,
    DeviceFailed,
    DoJob,
    Done,
    Noticed,
    NotLoaded,
    Ready,
    RestoreSegment,
    Started,
    Stop,
    TilesComputed,
    TilesFailed,
    receive,
    send,
)
from mambair_cli.runs.executors.segment_worker import restore_segments
from mambair_cli.runs.pipeline import Pipeline
from mambair_cli.runs.run import PreparedJob
from mambair_cli.system.memory import explaining_memory, is_out_of_memory
from mambair_cli.system.notices import telling
from mambair_cli.system.process import leave_process


def serve(connection: Connection, settings: RestoreSettings, threads: int | None) -> None:
    """Do jobs as they come, until the parent is gone; this is the worker's whole life.

    A request to terminate ends it at once; the parent's journal removes what it leaves half-written.

    Args:
        connection: Pipe to the parent, which sends jobs and tiles, and closes it at the end.
        settings: Settings of the restorer.
        threads: Threads of PyTorch; None for its default.
    """
    threading.Thread(target=_end_with_parent, name="mambair-parent", daemon=True).start()
    if threads is not None:
        torch.set_num_threads(threads)
    sender = _Sender(connection)
    with telling(lambda sentence: sender.send(Noticed(sentence))):
        _work(connection, settings, sender)
    sender.close()


def _work(connection: Connection, settings: RestoreSettings, sender: "_Sender") -> None:
    """Load the network, and do jobs."""
    try:
        try:
            with explaining_memory("the network of a worker"):
                restorer = Restorer.from_settings(settings)
        except MambairError as error:
            sender.send(NotLoaded(error))
            return
        sender.send(Ready())
        dispatcher = _Dispatcher(connection, restorer, sender)
        first = dispatcher.take()  # a command has either images or clips
        if isinstance(first, RestoreSegment):
            restore_segments(first, dispatcher.take_segment, restorer, sender.send)
            leave_process()
            return
        pipeline = Pipeline(
            dispatcher.jobs(first),
            dispatcher.is_stopped.is_set,
            restorer,
            lambda image: sender.send(Started(image)),
            lambda done, total: sender.send(Advanced(done, total)),
        )
        for outcome in pipeline.outcomes():
            sender.send(Done(outcome))
        leave_process()
    except DEVICE_ERROR as error:
        sender.send(DeviceFailed(str(error).partition("\n")[0]))
    except Exception:
        sender.send(Crashed(traceback.format_exc()))


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, for any reason: another run may begin at once."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Sender:
    """Sends a worker's messages in a thread: while the parent sends, it does not receive."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, name="mambair-send", daemon=True)
        self._thread.start()

    def send(self, message: Any) -> None:
        """Send a message, without waiting until it arrives."""
        self._waiting.put(message)

    def close(self) -> None:
        """Wait until everything is sent."""
        self._waiting.put(None)
        self._thread.join()

    def _send_all(self) -> None:
        with suppress(OSError):  # the parent is gone
            while (message := self._waiting.get()) is not None:
                send(self._connection, message)


class _Dispatcher:
    """Receives the parent's messages in a thread: it queues jobs and segments, and computes tiles itself.

    Args:
        connection: Pipe to the parent.
        restorer: The restorer, with the network.
        sender: Sends computed tiles.

    Attributes:
        is_stopped: Whether no further job may begin.
    """

    def __init__(self, connection: Connection, restorer: Restorer, sender: _Sender) -> None:
        self.is_stopped = threading.Event()
        self._connection, self._restorer, self._sender = connection, restorer, sender
        self._queue: queue.SimpleQueue[PreparedJob | RestoreSegment | BaseException | None] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._dispatch, name="mambair-receive", daemon=True).start()

    def take(self, waits: bool = True) -> PreparedJob | RestoreSegment | None:
        """Return what is to be done next; raise what stopped the thread.

        Args:
            waits: Whether to wait for it.

        Returns:
            A job or a segment; None after the last one or, without waiting, if there is none yet.
        """
        try:
            item = self._queue.get(waits)
        except queue.Empty:
            return None
        if item is None or isinstance(item, BaseException):
            self._queue.put(item)  # nothing comes after it
        if isinstance(item, BaseException):
            raise item
        return item

    def jobs(self, first: PreparedJob | None) -> Iterator[PreparedJob]:
        """Yield jobs as they come, until the last one."""
        job = first
        while job is not None:
            yield job
            job = self.take()
            if isinstance(job, RestoreSegment):
                raise ValueError("a worker that was given jobs was given a segment of a clip")

    def take_segment(self, waits: bool) -> RestoreSegment | None:
        """Return the next segment of a clip, as :meth:`take` does."""
        segment = self.take(waits)
        if segment is not None and not isinstance(segment, RestoreSegment):
            raise ValueError("a worker that was given segments of a clip was given a job")
        return segment

    def _dispatch(self) -> None:
        """Receive messages until the last one; this is the thread."""
        try:
            with suppress(EOFError, ConnectionError):  # the parent is gone
                self._receive_all()
        except BaseException as error:
            self._queue.put(error)
        self._queue.put(None)

    def _receive_all(self) -> None:
        launched: deque[tuple[TileComputer, Any]] = deque()
        while True:
            match receive(self._connection):
                case DoJob(job):
                    self._queue.put(job)
                case RestoreSegment() as segment:
                    self._queue.put(segment)
                case Stop():
                    self.is_stopped.set()
                    return
                case ComputeTiles(values, corners, seed, kind):
                    restorer = self._restorer if kind is None else self._restorer.for_kind(kind)
                    computer = restorer.loaded.computer  # who sends tiles makes their forms
                    try:
                        launched.append((computer, computer.launch(values, corners, seed)))
                    except Exception as error:
                        launched.append((computer, _keep_error_of_tiles(error)))
                    while len(launched) > computer.ahead or (launched and not self._connection.poll()):
                        self._sender.send(_collect(*launched.popleft()))
                case message:
                    raise ValueError(f"no message to a worker: {message!r}")


def _collect(computer: TileComputer, launched: Any) -> TilesComputed | TilesFailed:
    """Wait for a batch of tiles, or for why there is none."""
    if isinstance(launched, Exception):
        return TilesFailed(launched)
    try:
        with computer.buffers.blending():
            restored = computer.collect(launched)
        return TilesComputed(computer.buffers.fetch(restored))
    except Exception as error:
        return TilesFailed(_keep_error_of_tiles(error))


def _keep_error_of_tiles(error: Exception) -> Exception:
    """Return an error if it is about tiles, and raise it if not."""
    if isinstance(error, MambairError) or is_out_of_memory(error):
        return error
    raise error
