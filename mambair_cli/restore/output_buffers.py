"""Buffers in which computed tiles are blended into rows: here in the host's memory, without PyTorch."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np

from mambair_cli.images import from_float


class OutputBuffers(Protocol):
    """Where computed tiles are blended: in the host's memory, or on the device that computes them."""

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """Make an array of zeros, float32."""
        ...

    def put(self, values: np.ndarray) -> Any:
        """Return values of the host as an array of these buffers."""
        ...

    def blending(self) -> AbstractContextManager:
        """Open a context in which arrays of these buffers are computed with."""
        ...

    def fetch(self, rows: Any) -> np.ndarray:
        """Return rows in the host's memory, unchanged."""
        ...

    def fetch_samples(self, rows: Any, dtype: np.dtype) -> np.ndarray:
        """Return rows in the host's memory, clipped to [0, 1] and rounded to samples of a dtype."""
        ...


class HostBuffers:
    """Numpy arrays."""

    def zeros(self, shape: tuple[int, ...]) -> np.ndarray:
        """Make an array of zeros, float32."""
        return np.zeros(shape, np.float32)

    def put(self, values: np.ndarray) -> np.ndarray:
        """Return the values themselves."""
        return values

    def blending(self) -> AbstractContextManager:
        """Open a context that does nothing."""
        return nullcontext()

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows themselves."""
        return rows

    def fetch_samples(self, rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Return rows clipped to [0, 1] and rounded to samples of a dtype."""
        return from_float(rows, dtype)
