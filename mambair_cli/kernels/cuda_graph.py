"""A function of tensors, recorded as a CUDA graph and replayed, to start many small kernels at once."""

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from mambair_cli.system.notices import SlowerWarning


@functools.cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream on which a card's graphs are recorded: libraries keep memory for each stream."""
    return torch.cuda.Stream(device)


class Replayed:
    """Calls a function; from the second call of the same kind in a row, replays a recording of it.

    Two calls are of the same kind if tensors have equal shapes and dtypes and are on the same device, and
    other arguments are equal. One graph is
    held at a time, with the memory that it works in; results are copies. The function must do the same for
    every call of a kind, and must not wait for the device.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._kind: object = None  # kind of the last call
        self._graph: torch.cuda.CUDAGraph | None = None
        self._refused = False

    def __call__(self, *arguments: Tensor | int | None) -> Tensor:
        """Call the function, or replay it; the first argument is a tensor on the card."""
        kind = tuple((x.shape, x.dtype, x.device) if isinstance(x, Tensor) else x for x in arguments)
        if kind != self._kind:
            self.release()
            self._kind = kind
            return self._function(*arguments)
        if self._graph is None and not self._refused:
            with torch.cuda.device_of(arguments[0]):
                self._record(arguments)
        if self._graph is None:
            return self._function(*arguments)
        for kept, x in zip(self._inputs, arguments, strict=True):
            if isinstance(kept, Tensor) and isinstance(x, Tensor):
                kept.copy_(x, non_blocking=True)
        self._graph.replay()
        return self._output.clone()  # the next replay writes over it

    def release(self) -> None:
        """Give back the graph and its memory."""
        self._graph = self._kind = None
        self._inputs, self._output = (), torch.empty(0, dtype=torch.float32, device="cpu")

    def _record(self, arguments: tuple[Tensor | int | None, ...]) -> None:
        device = next(x.device for x in arguments if isinstance(x, Tensor))
        self._inputs = tuple(x.to(device, copy=True) if isinstance(x, Tensor) else x for x in arguments)
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: other threads may use the card meanwhile
            with torch.cuda.graph(graph, stream=_stream_of(device), capture_error_mode="thread_local"):
                self._output = self._function(*self._inputs)
        except torch.OutOfMemoryError:
            self.release()
            raise
        except RuntimeError as error:
            self._refused = True
            text = f"CUDA graphs are not used, which costs some speed: {error}"
            warnings.warn(text, SlowerWarning, stacklevel=2)
        else:
            self._graph = graph
