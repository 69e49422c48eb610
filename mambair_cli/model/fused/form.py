"""Ways to compute the same on a GPU, of which a card tells which is the faster."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Form(NamedTuple):
    """How a fused network computes.

    Attributes:
        dtype: Of products and convolutions.
        streams: Parts of a batch that are at work at once: the scan leaves a card's memory idle, and all
            else its arithmetic.
    """

    dtype: torch.dtype = torch.float16
    streams: int = 1


class Streams:
    """Restores parts of a batch side by side."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.count = count
        on_gpu = device.type == "cuda" and count > 1
        self.streams = [torch.cuda.Stream(device) if on_gpu else None for _ in range(count)]

    def __call__(
        self, restore: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, origin: Tensor | None
    ) -> Tensor:
        """Call a function on parts of images and of what goes with them, and join its results."""
        if self.count == 1 or len(x) < self.count:
            return restore(x, origin)
        origins = [None] * self.count if origin is None else origin.tensor_split(self.count)
        parts = []
        for stream, images, corners in zip(self.streams, x.tensor_split(self.count), origins, strict=True):
            if stream is None:
                parts.append(restore(images, corners))
                continue
            stream.wait_stream(torch.cuda.current_stream(x.device))
            with torch.cuda.stream(stream):
                parts.append(restore(images, corners))
        for stream in self.streams:
            if stream is not None:
                torch.cuda.current_stream(x.device).wait_stream(stream)
        return torch.cat(parts)
