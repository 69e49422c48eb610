"""A function of tensors, recorded as a CUDA graph and replayed: no time lost between many small kernels."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor


class Replayed:
    """Calls a function; from the second call in a row with inputs of one shape on, replays what it did.

    One graph is held at a time, with the memory that it works in. Its result is overwritten by the next
    replay. The function must do the same for every input of a shape, and must not wait for the device.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self._shape: torch.Size | None = None  # of the last call
        self._graph: torch.cuda.CUDAGraph | None = None
        self._refused = False

    def __call__(self, x: Tensor) -> Tensor:
        """Call the function, or replay it."""
        if x.shape != self._shape:
            self.release()
            self._shape = x.shape
            return self._function(x)
        if self._graph is None and not self._refused:
            self._record(x)
        if self._graph is None:
            return self._function(x)
        self._input.copy_(x)
        self._graph.replay()
        return self._output

    def release(self) -> None:
        """Give back the graph and its memory."""
        self._graph = self._shape = None
        self._input = self._output = torch.empty(0)

    def _record(self, x: Tensor) -> None:
        self._input = x.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._output = self._function(self._input)
        except torch.OutOfMemoryError:
            self.release()
            raise
        except RuntimeError as error:
            self._refused = True
            warnings.warn(f"CUDA graphs are not used, which costs some speed: {error}", stacklevel=2)
        else:
            self._graph = graph
