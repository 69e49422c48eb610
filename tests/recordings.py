"""Inputs and outputs of the official networks, recorded; see fixtures/README.md."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

FIXTURES = Path(__file__).parent / "fixtures"

# Recorded in float32 on a CPU; only the order of summation differs, more so in the deeper U-Net.
TOLERANCES = {"MambaIR": 5e-6, "MambaIRv2": 5e-6, "MambaIRv2Light": 5e-6, "MambaIRUNet": 2e-5}


@dataclass(frozen=True)
class Recording:
    """A network with random weights, and the outputs of its official code for some images.

    Attributes:
        network: Name of the class in the official code.
        settings: Arguments of that class.
        weights: State of the network.
        runs: Input, output, and the noise of each layer if the network draws any.
    """

    network: str
    settings: dict
    weights: dict[str, Tensor]
    runs: list[tuple[Tensor, Tensor, list[Tensor]]]

    @property
    def tolerance(self) -> float:
        return TOLERANCES[self.network]


def read_recording(path: Path) -> Recording:
    """Read a recording; weights are widened to float32."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        metadata = file.metadata()
    weights = {
        name.removeprefix("weights."): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if name.startswith("weights.")
    }
    runs = []
    for name, output in tensors.items():
        kind, _, j = name.partition(".")
        if kind == "output":
            runs.append((tensors[f"input.{j}"], output, []))
        elif kind == "output_noise":
            layers = sum(name.startswith(f"noise.{j}.") for name in tensors)
            noise = [tensors[f"noise.{j}.{layer}"] for layer in range(layers)]
            runs.append((tensors[f"input.{j}"], output, noise))
    return Recording(metadata["class"], json.loads(metadata["config"]), weights, runs)
