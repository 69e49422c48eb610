"""Buffers in which computed tiles are blended into rows: on the device that computes them."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

_BITS = {"uint8": torch.uint8, "uint16": torch.int16}  # types of the same size that devices compute with


class DeviceBuffers:
    """Tensors of a device; on a GPU, in a stream of their own, while the next batch is computed.

    Args:
        device: The device that computes the tiles.
        stream: A stream of that GPU; None on other devices.
    """

    def __init__(self, device: torch.device, stream: "torch.cuda.Stream | None") -> None:
        self._device, self._stream = device, stream

    def zeros(self, shape: tuple[int, ...]) -> Tensor:
        """Make a tensor of zeros, float32."""
        return torch.zeros(shape, dtype=torch.float32, device=self._device)

    def put(self, values: np.ndarray) -> Tensor:
        """Copy values of the host to the device."""
        return torch.as_tensor(values, device=self._device)

    @contextmanager
    def blending(self) -> Iterator[None]:
        """Compute in the stream of these buffers."""
        with (
            torch.inference_mode(),
            nullcontext() if self._stream is None else torch.cuda.stream(self._stream),
        ):
            yield

    def fetch(self, rows: Tensor) -> np.ndarray:
        """Return rows in the host's memory, unchanged."""
        with self.blending():
            return self._copy(rows)

    def fetch_samples(self, rows: Tensor, dtype: np.dtype) -> np.ndarray:
        """Round on the device, which leaves as little as a quarter of the bytes to copy."""
        with self.blending():
            rows = rows.clamp(0, 1)
            if dtype != np.float32:  # devices hardly support uint16, but int16 has the same bits
                rows = (rows * float(np.iinfo(dtype).max)).round().to(torch.int32).to(_BITS[dtype.name])
            return self._copy(rows).view(dtype)

    def _copy(self, rows: Tensor) -> np.ndarray:
        """Copy rows to the host, through pinned memory where there is a stream."""
        if self._stream is None:
            return rows.cpu().numpy()
        copied = torch.empty(rows.shape, dtype=rows.dtype, device="cpu", pin_memory=True)
        copied.copy_(rows, non_blocking=True)
        self._stream.synchronize()
        return copied.numpy()
