"""A network followed by PyTorch and written down as a graph, for tiles of one size."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from mambair_cli.errors import UsageError
from mambair_cli.networks import MambaIRv2, Network

FACTS = "mambair.json"  # name of the facts in a .pt2 file
_PRIVATE = (
    "stack_trace",
    "nn_module_stack",
    "source_fn_stack",
    "torch_fn",
)  # notes with paths of this machine


@dataclass(frozen=True)
class TileGraph:
    """A network that is to become a file, with what the file says of itself.

    Attributes:
        net: The network, in eval mode, float32, on the CPU.
        tile: Side of the tiles of the input, in pixels.
        facts: Name of the model and the like, as text.
    """

    net: Network
    tile: int
    facts: dict[str, str]

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of a picture, (1, ch, tile, tile)."""
        return 1, self.net.info.channels, self.tile, self.tile

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Shape of the result, (1, ch, s·tile, s·tile)."""
        side = self.tile * self.net.info.scale
        return 1, self.net.info.channels, side, side

    def make_picture(self) -> Tensor:
        """Return a random picture, always the same, to compare results for."""
        generator = torch.Generator("cpu").manual_seed(0)
        return torch.rand(self.input_shape, generator=generator, dtype=torch.float32, device="cpu")

    def trace(self) -> ExportedProgram:
        """Follow the network through a tile; MambaIRv2 without its noise."""
        with torch.no_grad(), hushed():
            tile = torch.zeros(self.input_shape, dtype=torch.float32, device="cpu")
            exported = torch.export.export(self.net, (tile,), strict=False)
        for module in exported.graph_module.modules():
            if isinstance(module, GraphModule):
                for node in module.graph.nodes:
                    for note in _PRIVATE:
                        node.meta.pop(note, None)
        return exported


def check_tile(net: Network, tile: int) -> None:
    """Refuse tiles that are smaller than the windows of a network.

    Raises:
        UsageError: A window is larger.
    """
    if isinstance(net, MambaIRv2) and tile < net.window:
        raise UsageError(
            f"--tile {tile} is smaller than the attention's windows of {net.window} pixels; "
            f"{net.window} or more would work"
        )


def write_pt2(graph: TileGraph) -> bytes:
    """Return the content of a .pt2 file, which PyTorch runs without this package."""
    buffer = io.BytesIO()
    with hushed():
        torch.export.save(graph.trace(), buffer, extra_files={FACTS: json.dumps(graph.facts)})
    return buffer.getvalue()


def run_pt2(content: bytes, picture: Tensor) -> Tensor:
    """Load a .pt2 file and run it on a picture."""
    with torch.no_grad(), hushed():
        return torch.export.load(io.BytesIO(content)).module()(picture)


@contextmanager
def hushed() -> Iterator[None]:
    """Keep to themselves what PyTorch's exporters say to their own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
