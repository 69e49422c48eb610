"""Run a network over an image, tile by tile; knows no files and no names of models."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mambair_cli.errors import MambairError
from mambair_cli.model import Network
from mambair_cli.tiling import Plan, blend_tiles
from mambair_cli.window import Pixels

Precision = Literal["auto", "fp32", "fp16"]
OnTiles = Callable[[int, int], None]
"""Called with the number of tiles that are done and of all tiles, after every batch."""


class Engine:
    """A network on a device, ready for images of any size.

    Attributes:
        net: The network, in eval mode.
        device: Where it computes.
        half: Whether products and convolutions are in float16. The scan's recurrence, the norms and the
            residual stream are in float32 always.
    """

    def __init__(self, net: Network, device: torch.device, precision: Precision = "auto") -> None:
        self.net = net.to(device)
        self.device = device
        self.half = precision == "fp16" or (precision == "auto" and device.type == "cuda")

    def restore_rows(
        self, image: Pixels, plan: Plan, batch: int, seed: int | None, on_tiles: OnTiles | None = None
    ) -> Iterator[np.ndarray]:
        """Restore an image and yield its rows as they are done.

        Args:
            image: (h, w, c) float32 in [0, 1], with as many channels as the network has.
            plan: Tiles of that image.
            batch: Tiles computed at once. A last batch that is short is filled up with its last tile, so
                that a tile's result does not depend on how many others there are.
            seed: Of the noise that MambaIRv2 draws; None for none.
            on_tiles: Told of progress.

        Yields:
            (rows, s·w, c) float32, from top to bottom, not clipped.

        Raises:
            torch.OutOfMemoryError: Where the device does not hold a batch.
            MambairError: Where even float32 gives values that are not finite.
        """
        tiles = self.restore_tiles(image, plan, list(plan), batch, seed, on_tiles)
        return blend_tiles(plan, tiles, self.net.info.scale)

    def restore_tiles(
        self,
        image: Pixels,
        plan: Plan,
        corners: list[tuple[int, int]],
        batch: int,
        seed: int | None,
        on_tiles: OnTiles | None = None,
    ) -> Iterator[np.ndarray]:
        """Restore some tiles of a plan, those of the given corners; else as :meth:`restore_rows`.

        Yields:
            (s·h, s·w, c) float32 for each, not blended.
        """
        batch = min(batch, len(corners))
        for start in range(0, len(corners), batch or 1):
            group = corners[start : start + batch]
            filled = group + group[-1:] * (batch - len(group))
            tiles = np.stack([image[y : y + plan.tile_height, x : x + plan.tile_width] for y, x in filled])
            yield from self._infer(tiles, filled, seed)[: len(group)]
            if on_tiles:
                on_tiles(start + len(group), len(corners))

    def _infer(self, tiles: np.ndarray, corners: list[tuple[int, int]], seed: int | None) -> np.ndarray:
        """Run the network on a batch of tiles, (b, h, w, c) -> (b, s·h, s·w, c)."""
        with torch.inference_mode(), _exact_convolutions(self.device):
            x = torch.from_numpy(tiles).to(self.device).permute(0, 3, 1, 2)
            origin = torch.tensor(corners)
            with self._autocast():
                y = self.net(x, seed=seed, origin=origin).float()
            bad = _not_finite(y)
            if self.half and bad.any():
                again = self.net(x, seed=seed, origin=origin)
                y = torch.where(bad, again, y)
                bad = _not_finite(y)
            if bad.any():
                raise MambairError(
                    "the network gives values that are not finite, even in float32; "
                    "is the checkpoint meant for this task?"
                )
            return y.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.float16) if self.half else nullcontext()


def _not_finite(y: Tensor) -> Tensor:
    """Tell for each tile whether it holds a NaN or an infinity, (b, 1, 1, 1)."""
    return ~y.isfinite().flatten(1).all(1)[:, None, None, None]


def _exact_convolutions(device: torch.device) -> AbstractContextManager:
    """Keep cuDNN from rounding float32 to 19 bits and from choosing algorithms by the clock."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
