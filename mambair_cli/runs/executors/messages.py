"""The messages between a run and its workers, each of a type of its own, and how pipes carry them."""

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mambair_cli.checkpoints.select import PictureKind
from mambair_cli.errors import MambairError
from mambair_cli.runs.clip_sharing import ClipForWorkers, ClipSegment
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.jobs import StartedImage
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.run import PreparedJob


class DoJob(NamedTuple):
    """To a worker: do a job after those before it."""

    job: PreparedJob


class ComputeTiles(NamedTuple):
    """To a worker: compute a batch of tiles of an image, (b, h, w, c).

    Attributes:
        values: The tiles.
        corners: Row and column of each tile in the image.
        seed: Random seed of MambaIRv2's inference noise.
        kind: Kind of the image, where that has a model of its own.
    """

    values: np.ndarray
    corners: list[tuple[int, int]]
    seed: int | None
    kind: PictureKind | None = None


class RestoreSegment(NamedTuple):
    """To a worker: restore and encode a segment of a clip after those before it."""

    order: ClipForWorkers
    segment: ClipSegment


class Stop(NamedTuple):
    """To a worker: begin no further job, and end after those that have begun."""


class Ready(NamedTuple):
    """From a worker process: its network is loaded."""


class NetworkLoaded(NamedTuple):
    """From a worker on another machine: its network is loaded.

    Attributes:
        scale: Output pixels per input pixel and side.
        fingerprint: All that pixels depend on except the images.
    """

    scale: int
    fingerprint: Fingerprint


class NotLoaded(NamedTuple):
    """From a worker: it cannot load its network, and ends."""

    error: MambairError


class Started(NamedTuple):
    """From a worker: the turn of an image has come."""

    image: StartedImage


class Advanced(NamedTuple):
    """From a worker: that many tiles of its image are computed."""

    done: int
    total: int


class Done(NamedTuple):
    """From a worker: a job is done."""

    outcome: Outcome


class Unseen(NamedTuple):
    """From a worker on another machine: it does not see a file or folder of a job."""

    path: Path


class TilesComputed(NamedTuple):
    """From a worker: a batch of tiles, (b, s·h, s·w, c)."""

    values: np.ndarray


class TilesFailed(NamedTuple):
    """From a worker: why a batch of tiles could not be computed."""

    error: Exception


class FrameEncoded(NamedTuple):
    """From a worker: a frame of its segment is restored and encoded.

    Attributes:
        number: Number of the frame in the clip.
        is_repeated: Whether it is equal to the one before.
    """

    number: int
    is_repeated: bool


class SegmentFinished(NamedTuple):
    """From a worker: a segment is complete and on the disk.

    Attributes:
        number: Number of the segment.
        warnings: Sentences about what was damaged in it.
    """

    number: int
    warnings: tuple[str, ...]


class SegmentFailed(NamedTuple):
    """From a worker: why a segment cannot be made."""

    error: MambairError | OSError


class Noticed(NamedTuple):
    """From a worker: a sentence for the user, although nothing failed."""

    sentence: str


class DeviceFailed(NamedTuple):
    """From a worker: its device failed, and it ends."""

    reason: str


class Crashed(NamedTuple):
    """From a worker: it met a bug of mambair, and ends."""

    trace: str


class Died(NamedTuple):
    """In place of a message: a worker is dead, or cannot be reached.

    Attributes:
        reason: What happened, in a few words; empty if it is unknown.
    """

    reason: str = ""


class _Header(NamedTuple):
    """Ahead of the bytes of values: their shape, and the message without them."""

    kind: type
    shape: tuple[int, ...]
    others: tuple[Any, ...]


def send(connection: Connection, message: Any) -> None:
    """Send a message; values of tiles are sent as they lie in memory."""
    if isinstance(message, ComputeTiles | TilesComputed):
        values, *others = message
        connection.send(_Header(type(message), values.shape, tuple(others)))
        connection.send_bytes(np.ascontiguousarray(values).data.cast("B"))
    else:
        connection.send(message)


def receive(connection: Connection) -> Any:
    """Receive a message; values of tiles without a further copy.

    Raises:
        EOFError, OSError: The other side is gone.
    """
    message = connection.recv()
    if isinstance(message, _Header):
        values = np.empty(message.shape, np.float32)
        connection.recv_bytes_into(values.data.cast("B"))
        return message.kind(values, *message.others)
    return message
