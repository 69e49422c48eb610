"""A network on its device, which copies of a restorer share."""

import threading
from copy import copy

import torch

from mambair_cli.networks import Network
from mambair_cli.restore.engine import Engine, TileComputer
from mambair_cli.restore.settings import Precision
from mambair_cli.restore.tile_cost import choose_batch
from mambair_cli.restore.tile_threads import TileThreads, count_side_by_side
from mambair_cli.restore.tiling import Plan


class LoadedNetwork:
    """A network, and what computes tiles by it; it goes to its device at the first use, in any thread.

    Args:
        net: The network.
        device: Device that computes.
        precision: "auto", "fp32" or "fp16".
        bare: Whether results are the network's own.

    Attributes:
        threads: Threads that compute tiles side by side; 1 where these are computed together, as on a GPU.
        is_neutral: Whether images of one batch do not affect each other, by their shape.
    """

    def __init__(self, net: Network, device: torch.device, precision: Precision, bare: bool) -> None:
        self.net = net
        self.threads = torch.get_num_threads() if device.type == "cpu" else 1
        self.is_neutral: dict[tuple[int, ...], bool] = {}
        self._device, self._bare = device, bare
        self._precision: Precision = precision
        self._computer: TileComputer | None = None
        self._lock = threading.Lock()

    @property
    def computer(self) -> TileComputer:
        """What computes each tile once, made now if it was not."""
        with self._lock:
            if self._computer is None:
                engine = Engine(self.net, self._device, self._precision, self._bare)
                self._computer = TileThreads(engine, self.threads) if self.threads > 1 else engine
            return self._computer

    def by(self, computer: TileComputer) -> "LoadedNetwork":
        """Return the same network, computed by somebody else."""
        other = copy(self)
        other._computer, other.threads = computer, 1
        return other

    def choose_batch(self, plan: Plan) -> int:
        """Return the number of an image's tiles that are computed at once."""
        if self.threads > 1:
            tile = plan.tile_height, plan.tile_width
            return max(1, min(len(plan), count_side_by_side(tile, self.net.info.config, self.threads)))
        return choose_batch(plan, self.net.info.config, self._device.type)
