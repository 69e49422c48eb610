"""Files of small networks, and why a file is refused."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from networks import V1
from torch import Tensor

from mambair_cli.checkpoints.load import load_network
from mambair_cli.errors import CheckpointError
from mambair_cli.networks import Config, build_network

SMALL = replace(V1, depths=(1,))


@cache
def shapes_of(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a network's tensors."""
    with torch.device("meta"):
        net = build_network(config)
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


@cache
def tensors_of(config: Config) -> dict[str, Tensor]:
    """Return the state of a network, the same at every call."""
    torch.manual_seed(0)
    return build_network(config).state_dict()


def write_zip(tensors, path) -> None:
    """Write tensors as PyTorch does."""
    torch.save(tensors, path)


def write_legacy(tensors, path) -> None:
    """Write tensors as versions of PyTorch before 1.6 do."""
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


def refusal(path) -> str:
    """Return why a file is not loaded, without the part that names it."""
    with pytest.raises(CheckpointError) as caught:
        load_network(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert message.startswith(f"cannot load {path}: ")
    return message.removeprefix(f"cannot load {path}: ")


def load_or_refuse(path):
    """Return the network of a file, or None where it is refused as it should be."""
    try:
        return load_network(path)
    except CheckpointError:
        refusal(path)
        return None
