"""A worker process as its parent sees it: what it was given, and the pipe to it."""

import multiprocessing
import warnings
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from mambair_cli.checkpoints.select import PictureKind
from mambair_cli.errors import UsageError
from mambair_cli.restore.settings import RestoreSettings
from mambair_cli.runs.clip_sharing import ClipSegment
from mambair_cli.runs.executors.messages import (
    Crashed,
    DeviceFailed,
    Died,
    Noticed,
    NotLoaded,
    Ready,
    receive,
    send,
)
from mambair_cli.runs.executors.process_worker import serve
from mambair_cli.runs.executors.scheduler import InFlight
from mambair_cli.runs.executors.starting import start_process
from mambair_cli.system.notices import SlowerWarning

PATIENCE_SECONDS = 10  # to wait for a worker to end, before it is killed


@dataclass
class LaunchedBatch:
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
class Worker:
    """A worker process as its parent sees it.

    Attributes:
        number: Number of the worker, from 0.
        device: Device that it computes on.
        process: The process.
        connection: Pipe to it.
        jobs: Jobs that it was given and has not done.
        batches: Batches of tiles that it was given and has not computed.
        segments: Segments of a clip that it was given and has not finished.
        frames_left: Number of frames of those that are not encoded yet.
        is_ready: Whether it has loaded its network.
        is_stopping: Whether it begins no further job.
    """

    number: int
    device: str
    process: BaseProcess
    connection: Connection
    jobs: InFlight = field(default_factory=InFlight)
    batches: deque[LaunchedBatch] = field(default_factory=deque)
    segments: list[ClipSegment] = field(default_factory=list)
    frames_left: int = 0
    is_ready: bool = False
    is_stopping: bool = False

    @property
    def is_busy(self) -> bool:
        """Whether it was given something that it has not done."""
        return bool(self.jobs or self.batches or self.segments)

    def describe_work(self) -> str:
        """Say in a few words what it was doing."""
        if not self.is_ready:
            return "at its start"
        if self.segments:
            return f"while it had {' and '.join(segment.frames for segment in self.segments)}"
        return f"while it had {self.jobs if self.jobs else 'tiles of an image'}"

    def send(self, message: Any) -> None:
        """Send a message; if the worker has died, receiving will show it."""
        with suppress(OSError):
            send(self.connection, message)

    def receive(self) -> Any:
        """Receive a message, or the worker's death."""
        try:
            return receive(self.connection)
        except (EOFError, OSError):
            return Died()

    def wait_until_ready(self) -> None:
        """Wait until the worker has loaded its network.

        Raises:
            UsageError: It died.
            MambairError: It cannot load the network.
        """
        while True:
            match self.receive():
                case Ready():
                    self.is_ready = True
                    return
                case Noticed() as notice:
                    warn(notice)
                case NotLoaded(error):
                    raise error
                case Crashed(trace):
                    raise RuntimeError(f"in the worker on {self.device}:\n{trace}")
                case DeviceFailed(reason) | Died(reason):
                    why = f": {reason}" if reason else ""
                    raise UsageError(f"the worker on {self.device} died at its start{why}; use fewer workers")
                case message:
                    raise ValueError(f"no message of a worker that starts: {message!r}")

    def end(self) -> None:
        """Wait for the process to end; kill it if it does not."""
        self.process.join(PATIENCE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def start_worker(number: int, device: str, settings: RestoreSettings, threads: int | None) -> Worker:
    """Start a worker process; it loads its network meanwhile.

    Args:
        number: Number of the worker, from 0.
        device: Device that it computes on.
        settings: Settings of its restorer, except the device.
        threads: Threads of PyTorch; None for its default.
    """
    ours, theirs = multiprocessing.Pipe()
    arguments = theirs, replace(settings, device=device), threads
    process = start_process(serve, arguments, f"mambair-{number}-{device}")
    theirs.close()
    return Worker(number, device, process, ours)


def warn(notice: Noticed) -> None:
    """Repeat here what a worker says; a warning is shown once for all of them."""
    warnings.warn(notice.sentence, SlowerWarning, stacklevel=2)
