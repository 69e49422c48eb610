"""Frames of a clip on their way through a network: read ahead, restored in their order."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

import numpy as np

from mambair_cli.images.resize_and_convert import reduce_samples
from mambair_cli.restore.restoration import Restoration
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.small_images import count_together, restore_together
from mambair_cli.restore.tiling import Report
from mambair_cli.system.memory import passing_over_memory
from mambair_cli.video import VideoFrame

FRAMES_AHEAD = 4  # that wait to be restored, and to be encoded
_LOOK_SECONDS = 0.1  # after which the reading thread sees that nobody wants more

Item = TypeVar("Item")

OnFrame = Callable[[int, int | None, int], None]
"""Called after every frame: how many are done, how many there are, if it is known, and how many an earlier
run has made."""


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


class Counter:
    """Counts the frames of a clip.

    Args:
        all_frames: Number of all, if it is known.
        on_frame: Called with the progress.

    Attributes:
        frames: Number of frames so far, those of an earlier run among them.
        repeated: Number of those that are equal to the one before.
    """

    def __init__(self, all_frames: int | None, on_frame: OnFrame) -> None:
        self.frames = self.repeated = self._resumed = 0
        self._all, self._on_frame = all_frames, on_frame

    def skip(self, frames: int) -> None:
        """Count frames that an earlier run has made."""
        self.frames += frames
        self._resumed += frames
        self._tell()

    def add(self, is_repeated: bool) -> None:
        """Count a frame."""
        self.frames += 1
        self.repeated += is_repeated
        self._tell()

    def take_back(self, repeated: Sequence[bool]) -> None:
        """Take back frames that are lost, of which each was repeated or not."""
        self.frames -= len(repeated)
        self.repeated -= sum(repeated)
        self._tell()

    def _tell(self) -> None:
        all_frames = None if self._all is None else max(self._all, self.frames)
        self._on_frame(self.frames, all_frames, self._resumed)


def restore_frames(
    frames: Iterator[VideoFrame], restorer: Restorer, size: tuple[int, int], segment: int | None = None
) -> Generator[RestoredFrame]:
    """Restore frames; a GPU begins the next ones before the results of some are fetched.

    Small frames share a batch, as small images do. A frame that is equal to the one before is not computed.
    Neither goes beyond a segment: to restore one needs no frame of another.

    Args:
        frames: Frames of one clip.
        restorer: The restorer, which looks at no frame.
        size: Height and width of the results.
        segment: Number of frames of a segment; None where there are none.
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

    for batch in _batches(frames, restorer, segment):
        batch.begin()
        waiting.append(batch)
        if len(waiting) > 1:
            yield from finish()
    while waiting:
        yield from finish()


def _batches(frames: Iterator[VideoFrame], restorer: Restorer, segment: int | None) -> Iterator["_Batch"]:
    """Yield frames in batches as large as the device takes, and what repeats frames of the last one."""
    before: np.ndarray | None = None
    batch = _Batch(restorer)
    for frame in frames:
        if segment is not None and frame.number % segment == 0:
            if batch.frames:
                yield batch
                batch = _Batch(restorer)
            before = None
        is_new = before is None or not np.array_equal(frame.pixels, before)
        before = frame.pixels
        batch.frames.append((frame, is_new))
        if not batch.new or len(batch.new) == count_together(restorer, before.shape):
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
            with passing_over_memory():  # computed alone, each has room
                self._collect = restore_together(self._restorer, new)
                return
        self._open(new)

    def results(self, size: tuple[int, int]) -> Iterator[np.ndarray]:
        """Yield the result of each frame that is computed, in the size that was asked for."""
        results: list[np.ndarray] | None = None
        if self._collect is not None:
            with passing_over_memory():
                results, _ = self._collect()
            if results is None:
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


class Ahead(Iterator[Item]):
    """Items that a thread reads ahead; from :func:`read_ahead`.

    Args:
        queue: Has the items, and at last None or an error.
    """

    def __init__(self, queue: Queue[Any]) -> None:
        self._queue = queue
        self._is_over = False

    def has_next(self) -> bool:
        """Tell whether the next item, or the end, is there already."""
        return self._is_over or not self._queue.empty()

    def __next__(self) -> Item:
        item = None if self._is_over else self._queue.get()
        self._is_over = item is None or isinstance(item, BaseException)
        if item is None:
            raise StopIteration
        if isinstance(item, BaseException):
            raise item
        return item


@contextmanager
def read_ahead(items: Generator[Item], most: int = FRAMES_AHEAD) -> Iterator[Ahead[Item]]:
    """Read items ahead in a thread, which ends with the block and closes what they come from.

    Args:
        items: Items, such as the frames of a clip.
        most: Number of items that wait at most.
    """
    queue: Queue[Any] = Queue(most)
    is_over = Event()

    def put(item: object) -> None:
        while not is_over.is_set():
            with suppress(Full):
                queue.put(item, timeout=_LOOK_SECONDS)
                return

    def read() -> None:
        try:
            with closing(items):
                for item in items:
                    put(item)
                    if is_over.is_set():
                        return
            put(None)
        except BaseException as error:  # the other thread raises it
            put(error)

    reader = Thread(target=read, name="mambair-decode")
    try:
        reader.start()
        yield Ahead(queue)
    finally:
        is_over.set()
        if reader.ident is not None:  # else it never began
            reader.join()
