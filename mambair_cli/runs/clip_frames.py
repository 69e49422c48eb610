"""Frames of a clip on their way through a network: read ahead, restored in their order."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

import numpy as np

from mambair_cli.images.resize_and_convert import reduce_samples
from mambair_cli.restore.restoration import OUT_OF_MEMORY, Restoration
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.tiling import Report
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
    """Restore frames; a GPU begins the next ones before the results of some are fetched.

    Small frames share a batch, as small images do. A frame that is equal to the one before is not computed.

    Args:
        frames: Frames of one clip.
        restorer: The restorer, which looks at no frame.
        size: Height and width of the results.
    """
    waiting: deque[_Batch] = deque()
    result: np.ndarray | None = None

    def finish() -> Iterator[RestoredFrame]:
        nonlocal result
        batch = waiting.popleft()
        results = batch.results(size)
        for frame, is_new in batch.frames:
            result = next(results) if is_new else result
            assert result is not None  # the first frame is new
            yield RestoredFrame(frame, result, not is_new)

    for batch in _batches(frames, restorer):
        batch.begin()
        waiting.append(batch)
        if len(waiting) > 1:
            yield from finish()
    while waiting:
        yield from finish()


def _batches(frames: Iterator[VideoFrame], restorer: Restorer) -> Iterator["_Batch"]:
    """Yield frames in batches as large as the device takes, and what repeats frames of the last one."""
    before: np.ndarray | None = None
    batch = _Batch(restorer)
    for frame in frames:
        is_new = before is None or not np.array_equal(frame.pixels, before)
        before = frame.pixels
        batch.frames.append((frame, is_new))
        if not batch.new or len(batch.new) == restorer.count_together(before.shape):
            yield batch
            batch = _Batch(restorer)
    if batch.frames:
        yield batch


class _Batch:
    """Frames that are computed at once.

    Attributes:
        frames: The frames, and whether each differs from the one before.
    """

    def __init__(self, restorer: Restorer) -> None:
        self.frames: list[tuple[VideoFrame, bool]] = []
        self._restorer = restorer
        self._collect: Callable[[], tuple[list[np.ndarray], Report]] | None = None
        self._opened: list[Restoration] = []

    @property
    def new(self) -> list[np.ndarray]:
        """Pixels of the frames that are computed."""
        return [frame.pixels for frame, is_new in self.frames if is_new]

    def begin(self) -> None:
        """Give the device something to do, without waiting for it."""
        new = self.new
        if len(new) > 1:
            with suppress(*OUT_OF_MEMORY):  # computed alone, each has room
                self._collect = self._restorer.restore_together(new)
                return
        self._open(new)

    def results(self, size: tuple[int, int]) -> Iterator[np.ndarray]:
        """Yield the result of each frame that is computed, in the size that was asked for."""
        results: list[np.ndarray] | None = None
        if self._collect is not None:
            try:
                results, _ = self._collect()
            except OUT_OF_MEMORY:
                self._open(self.new)
        scale = self._restorer.info.scale
        for number, pixels in enumerate(self.new):
            result = results[number] if results else _join(self._opened[number], pixels.shape, scale)
            if result.shape[:2] != size:
                result = reduce_samples(result, *size, self._restorer.own.wrap)
            yield result

    def _open(self, new: list[np.ndarray]) -> None:
        self._opened = [_open(self._restorer, pixels) for pixels in new]
        for opened in self._opened[:1]:
            opened.begin()


def _open(restorer: Restorer, pixels: np.ndarray) -> Restoration:
    return restorer.open_rows(lambda top, bottom: pixels[top:bottom], pixels.shape)


def _join(opened: Restoration, shape: tuple[int, ...], scale: int) -> np.ndarray:
    """Return the rows of a frame in one piece."""
    result = np.empty((scale * shape[0], scale * shape[1], shape[2]), np.float32)
    for band in opened.rows():
        result[band.top : band.top + len(band.rows)] = band.rows
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
