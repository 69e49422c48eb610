"""Frames of a clip on their way through a network: read ahead, restored one after the other."""

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

import numpy as np

from mambair_cli.images.resize_and_convert import reduce_samples
from mambair_cli.restore.restoration import Restoration
from mambair_cli.restore.restorer import Restorer
from mambair_cli.video import VideoFrame

FRAMES_AHEAD = 4  # that wait to be restored, and to be encoded
_LOOK_SECONDS = 0.1  # after which the reading thread sees that nobody wants more


@dataclass(frozen=True, eq=False)
class RestoredFrame:
    """A frame and what became of it.

    Attributes:
        frame: The frame.
        pixels: The result, (h, w, 3 or 4) float32 in [0, 1].
        is_repeated: Whether it is that of the frame before, which is equal.
    """

    frame: VideoFrame
    pixels: np.ndarray
    is_repeated: bool


def restore_frames(
    frames: Iterator[VideoFrame], restorer: Restorer, size: tuple[int, int]
) -> Generator[RestoredFrame]:
    """Restore frames one by one; a GPU begins the next one before the result of one is fetched.

    Args:
        frames: Frames of one clip.
        restorer: The restorer, which looks at no frame.
        size: Height and width of the results.
    """
    waiting: deque[tuple[VideoFrame, Restoration | None]] = deque()
    before: np.ndarray | None = None
    result: np.ndarray | None = None

    def finish() -> RestoredFrame:
        nonlocal result
        frame, opened = waiting.popleft()
        if opened is not None or result is None:
            assert opened is not None
            result = _collect(opened, frame.pixels.shape, restorer, size)
        return RestoredFrame(frame, result, opened is None)

    for frame in frames:
        opened = None
        if before is None or not np.array_equal(frame.pixels, before):
            opened = _open(restorer, frame.pixels)
            opened.begin()
        before = frame.pixels
        waiting.append((frame, opened))
        if len(waiting) > 1:
            yield finish()
    while waiting:
        yield finish()


def _open(restorer: Restorer, pixels: np.ndarray) -> Restoration:
    return restorer.open_rows(lambda top, bottom: pixels[top:bottom], pixels.shape)


def _collect(
    opened: Restoration, shape: tuple[int, ...], restorer: Restorer, size: tuple[int, int]
) -> np.ndarray:
    """Return the result of a frame, in the size that was asked for."""
    scale = restorer.info.scale
    result = np.empty((scale * shape[0], scale * shape[1], shape[2]), np.float32)
    for band in opened.rows():
        result[band.top : band.top + len(band.rows)] = band.rows
    if result.shape[:2] != size:
        result = reduce_samples(result, *size, restorer.own.wrap)
    return result


@contextmanager
def read_ahead(frames: Generator[VideoFrame]) -> Iterator[Iterator[VideoFrame]]:
    """Read frames ahead in a thread, which ends with the block and closes what they come from."""
    queue: Queue[Any] = Queue(FRAMES_AHEAD)
    is_over = Event()

    def put(item: object) -> None:
        while not is_over.is_set():
            with suppress(Full):
                queue.put(item, timeout=_LOOK_SECONDS)
                return

    def read() -> None:
        try:
            with closing(frames):
                for frame in frames:
                    put(frame)
                    if is_over.is_set():
                        return
            put(None)
        except BaseException as error:  # the other thread raises it
            put(error)

    def take() -> Iterator[VideoFrame]:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    reader = Thread(target=read, name="mambair-decode")
    try:
        reader.start()
        yield take()
    finally:
        is_over.set()
        if reader.ident is not None:  # else it never began
            reader.join()
