"""The tiles of pictures of one kind, computed by worker processes that have a network for each kind."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mambair_cli.checkpoints.select import PictureKind
from mambair_cli.restore.engine import split_evenly
from mambair_cli.restore.output_buffers import HostBuffers, OutputBuffers

if TYPE_CHECKING:
    from mambair_cli.runs.executors.processes import WorkerProcesses


class TilesOfKind:
    """Computes the tiles of pictures of one kind in the workers.

    Args:
        workers: The workers.
        kind: Kind of the pictures; None for those of no kind of their own.
        scale: Output pixels per input pixel and side.

    Attributes:
        scale: Output pixels per input pixel and side.
        ahead: Number of batches of tiles that may be under way while another is collected.
        buffers: Where tiles are blended: in the memory of this process.
    """

    def __init__(self, workers: "WorkerProcesses", kind: PictureKind | None, scale: int) -> None:
        self._workers, self._kind = workers, kind
        self.ahead, self.scale = workers.ahead, scale
        self.buffers: OutputBuffers = HostBuffers()

    def split(self, count: int, most: int) -> list[tuple[int, int]]:
        """Cut tiles into batches of one size."""
        return split_evenly(count, most)

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return memory for tiles, float32."""
        return np.empty(shape, np.float32)

    def launch(self, tiles: np.ndarray, corners: list[tuple[int, int]], seed: int | None) -> Any:
        """Give a batch of tiles, (b, h, w, c), to a worker."""
        return self._workers.launch(tiles, corners, seed, self._kind)

    def collect(self, launched: Any) -> np.ndarray:
        """Wait for a batch, (b, s·h, s·w, c).

        Raises:
            torch.OutOfMemoryError: The worker's device does not hold it.
            MambairError: The values are not finite, or workers died over the batch.
        """
        return self._workers.collect(launched)
