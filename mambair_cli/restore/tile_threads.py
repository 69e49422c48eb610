"""Tiles side by side on a CPU, each in a thread with a share of the processors."""

import functools
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from mambair_cli.kernels.forks import count_losses
from mambair_cli.networks import Config
from mambair_cli.restore.engine import Engine
from mambair_cli.restore.tile_cost import count_channels
from mambair_cli.system.process import machine_memory
from mambair_cli.system.wanted import check_wanted, working_while

# With fewer a thread gains nothing, and products of so few rows are added up in an order that depends on the
# number of threads: in a U-Net, these rows are an eighth of the picture's, and as many columns.
PIXELS_PER_THREAD = 1024
MOST_TILES = 8  # side by side: more are no faster, and take more memory; measured: benchmarks/README.md
# Part of a tile's time by which each further thread lengthens the others' share: 8 threads are 4.7 times as
# fast as one.
WAITING = 0.1
MEMORY_SHARE = 1 / 3  # of the machine's memory, for all tiles at work
VALUES = 25  # float32 of a tile at work, for each of its pixels and channels; measured: benchmarks/README.md
UNKNOWN_MEMORY = 2**33  # bytes of a machine that does not tell


# Python waits for the threads of executors before it calls what atexit has. This function, which executors
# use themselves, comes before that.
_is_at_end = threading.Event()
_register = getattr(threading, "_register_atexit", None)
if _register:
    _register(_is_at_end.set)


class TileThreads:
    """Computes tiles on a CPU, those of a batch side by side.

    Threads that share a tile wait for each other after each of its operations; threads that each have one do
    not. The result is the same.

    Args:
        engine: The network, on a CPU.
        threads: Number of threads that compute at a time.

    Attributes:
        scale: Output pixels per input pixel and side.
        ahead: Number of batches that may be under way while another is collected.
        buffers: Where results are blended.
    """

    def __init__(self, engine: Engine, threads: int) -> None:
        self.scale, self.ahead, self.buffers = engine.scale, 1, engine.buffers
        self._engine, self._threads = engine, threads
        self._pool = self._make_pool()
        self._losses = count_losses()

    def split(self, count: int, most: int) -> list[tuple[int, int]]:
        """Cut tiles into batches; see :meth:`~mambair_cli.restore.engine.TileComputer.split`."""
        return [(size, size) for size in share_out(count, most, self._threads)]

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return memory for tiles, float32."""
        return self._engine.allocate(shape)

    def launch(self, tiles: np.ndarray, corners: list[tuple[int, int]], seed: int | None) -> "_Batch":
        """Begin a batch of tiles, (b, h, w, c), without waiting for it."""
        if self._losses != count_losses():  # the threads are gone, and OpenMP would wait for its own
            self._threads, self._losses = 1, count_losses()
            self._pool = self._make_pool()
        pool, processors = self._pool
        threads = max(1, self._threads // len(tiles))
        batch = _Batch()
        compute = functools.partial(self._compute, processors, threads, batch.is_given_up, seed)
        batch.results = [
            pool.submit(compute, tiles[place : place + 1], corners[place : place + 1])
            for place in range(len(tiles))
        ]
        return batch

    def collect(self, launched: "_Batch") -> np.ndarray:
        """Wait for a batch, (b, s·h, s·w, c).

        Raises:
            MambairError: The network gives values that are not finite.
        """
        try:
            results = [result.result() for result in launched.results]
        except Exception:
            launched.is_given_up.set()
            wait(launched.results)  # then their memory is free
            raise
        return results[0] if len(results) == 1 else np.concatenate(results)

    def _make_pool(self) -> tuple[ThreadPoolExecutor, "_Processors"]:
        most = min(MOST_TILES, self._threads)
        return ThreadPoolExecutor(most, "mambair-tile"), _Processors(self._threads)

    def _compute(
        self,
        processors: "_Processors",
        threads: int,
        is_given_up: threading.Event,
        seed: int | None,
        tile: np.ndarray,
        corner: list[tuple[int, int]],
    ) -> Any:
        """Compute one tile in this thread and others that share it."""
        with (
            processors.taken(threads),
            working_while(lambda: not (is_given_up.is_set() or _is_at_end.is_set())),
        ):
            check_wanted()
            pixels = tile.shape[1] * tile.shape[2]
            _use_threads(max(1, min(threads, pixels // PIXELS_PER_THREAD)), self._threads)
            return self._engine.collect(self._engine.launch(tile, corner, seed))


class _Batch:
    """A batch under way; when nothing refers to it any more, its tiles are given up."""

    def __init__(self) -> None:
        self.is_given_up = threading.Event()
        self.results: list[Future[Any]] = []

    def __del__(self) -> None:
        self.is_given_up.set()


class _Processors:
    """Hands the processors out to tiles, in the order in which they come."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Wait for some processors, and have them in the block."""
        own = object()
        with self._changed:
            self._waiting.append(own)
            self._changed.wait_for(lambda: self._waiting[0] is own and self._free >= count)
            self._waiting.popleft()
            self._free -= count
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += count
                self._changed.notify_all()


def count_side_by_side(tile: tuple[int, int], config: Config, threads: int) -> int:
    """Return the number of tiles, or of small images, that this machine has threads and memory for.

    Args:
        tile: Height and width of each.
        config: Configuration of the network.
        threads: Number of threads that compute at a time.
    """
    tile_bytes = 4 * VALUES * count_channels(config) * tile[0] * tile[1]
    memory = MEMORY_SHARE * (machine_memory() or UNKNOWN_MEMORY)
    return max(1, min(threads, MOST_TILES, int(memory / tile_bytes)))


@functools.lru_cache
def share_out(count: int, most: int, threads: int) -> tuple[int, ...]:
    """Cut tiles into batches that are estimated to take the least time, the tiles of each side by side.

    Args:
        count: Number of tiles.
        most: Largest number of tiles in a batch.
        threads: Number of threads that compute at a time.

    Returns:
        The number of tiles of each batch.
    """
    costs = {size: _estimate_seconds(size, threads) for size in range(1, most + 1)}
    best = min(costs, key=lambda size: costs[size] / size)
    many = max(0, count // best - 2)  # the others are few enough to try all ways
    sizes: list[list[int]] = [[]]
    for rest in range(1, count - many * best + 1):
        ways = [[size, *sizes[rest - size]] for size in range(min(most, rest), 0, -1)]
        sizes.append(min(ways, key=lambda way: sum(costs[size] for size in way)))
    return (*[best] * many, *sorted(sizes[-1], reverse=True))


def _estimate_seconds(size: int, threads: int) -> float:
    """Estimate the time of a batch of that many tiles, in that of one tile by one thread."""
    each = max(1, threads // size)
    return (1 + WAITING * (each - 1)) / each


def _use_threads(count: int, usual: int) -> None:
    """Have PyTorch use that many threads for what this thread computes."""
    if torch.get_num_threads() == count:
        return
    # That is the number of this thread, and of all that ask for the first time later.
    torch.set_num_threads(count)
    other = threading.Thread(target=torch.set_num_threads, args=(usual,))
    other.start()
    other.join()
