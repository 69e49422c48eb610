"""The networks of the MambaIR family, each as its paper and its official checkpoints define it.

Attribute names in this package are the keys of official checkpoints and stay as they are.

Glossary, from the papers to the code:

==================  ===========================================================================
u                   a token: the channels of one pixel, as the scan sees them
dt                  low-rank step; ``softplus(dt @ dt_weight.T + dt_bias)`` is how far the state moves
A, ``A_logs``       rate at which a state decays, ``A = -exp(A_logs)``
B, C                how a token enters the states, and how the states leave
D, ``Ds``           weight of the token's own way around the states
d, ``d_inner``      channels of the scan;  n, ``d_state``: states per channel;  r: rank of dt
path                an order in which a scan visits the pixels (MambaIR: four; MambaIRv2: one)
SS2D, VSSBlock      MambaIR's four-way scan, and the block around it
CAB                 channel attention block
ASSM, ASE, SGN      MambaIRv2's attentive state-space module: its dictionary of tokens enters C
                    (attentive state-space equation), and pixels are sorted by token before the
                    scan (semantic guided neighbouring)
==================  ===========================================================================
"""

from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from mambair_cli.networks.config import (
    Config,
    MambaIRConfig,
    MambaIRUNetConfig,
    MambaIRv2Config,
    NetworkInfo,
    NetworkTask,
)
from mambair_cli.networks.mambair import MambaIR
from mambair_cli.networks.mambair_v2 import MambaIRv2
from mambair_cli.networks.unet import MambaIRUNet

__all__ = [
    "Config",
    "FusedNetwork",
    "MambaIR",
    "MambaIRConfig",
    "MambaIRUNet",
    "MambaIRUNetConfig",
    "MambaIRv2",
    "MambaIRv2Config",
    "Network",
    "NetworkInfo",
    "build_network",
    "fuse_network",
]

Network = MambaIR | MambaIRv2 | MambaIRUNet


class FusedNetwork(Protocol):
    """A network in another form, for a GPU, called as the network is."""

    def __call__(self, x: Tensor, origin: Tensor | None = None, seed: int | None = None) -> Tensor:
        """Restore images; see the networks."""
        ...

    def compare(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what this makes of images, and what the network itself does."""
        ...


def build_network(config: Config, task: str | None = None) -> Network:
    """Make the network of a configuration, with fresh weights.

    Args:
        config: What makes it different from others of the family.
        task: What the one who made the weights says they are for; what contradicts the configuration or
            is no task is passed over.

    Returns:
        The network; ``net.info`` says what it is.
    """
    if isinstance(config, MambaIRConfig):
        net = MambaIR(config)
    elif isinstance(config, MambaIRv2Config):
        net = MambaIRv2(config)
    else:
        net = MambaIRUNet(config)
    scale = 1 if isinstance(config, MambaIRUNetConfig) else config.upscale
    net.info = NetworkInfo(
        architecture=type(net).__name__,
        task=_task_of(config, scale, task),
        scale=scale,
        channels=config.in_chans,
        config=config,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
    )
    return net


def fuse_network(net: Network, dtype: torch.dtype = torch.float16) -> FusedNetwork | None:
    """Return a form of a network that is faster on its GPU, in 16 bits, if there is one.

    Args:
        net: On its device.
        dtype: Of products and convolutions.
    """
    if isinstance(net, MambaIRUNet) or find_spec("triton") is None:
        return None
    from mambair_cli.networks.fused import FusedMambaIR, FusedMambaIRv2

    if isinstance(net, MambaIR):
        return FusedMambaIR(net, dtype)
    return FusedMambaIRv2(net, dtype)


def _task_of(config: Config, scale: int, claimed: str | None) -> NetworkTask:
    if scale > 1:
        return "upscale"
    if claimed == "denoise" or isinstance(config, MambaIRUNetConfig):
        return "denoise"
    return "dejpeg" if claimed == "dejpeg" else "restore"
