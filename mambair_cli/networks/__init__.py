"""The networks of the MambaIR family, each as its paper and its official checkpoints define it.

Attribute names in this package are the keys of official checkpoints and stay as they are.

Glossary, from the papers' letters to the code:

==================  ===========================================================================
u                   a token: the channels of one pixel, as the scan sees them
h                   the states of a channel, updated at each token of a path
dt                  the step in low-rank form; the step, ``softplus(dt @ dt_weight.T + dt_bias)``, is
                    the time that passes from one token to the next
A, ``A_logs``       rate of a state's decay, ``A = -exp(A_logs)``; in one step: ``exp(step * A)``
B, C                weights with which a token is added to the states, and the states to the output
D, ``Ds``           weight with which a token is added to its output directly
y                   the scan's output
b, l, k             images of a batch;  pixels of an image, h·w;  paths of a scan
d, ``d_inner``      channels of the scan
n, ``d_state``      states per channel
r                   rank of dt
path                the order in which a scan visits the pixels (MambaIR: four; MambaIRv2: one)
SS2D, VSSBlock      MambaIR's scan along four paths, and the block around it
CAB                 channel attention block
ASSM                MambaIRv2's attentive state-space module: a router gives each pixel a token of a
                    learned dictionary (its label)
ASE                 attentive state-space equation: the label's row of the dictionary is added to C
SGN                 semantic guided neighbouring: the path visits pixels sorted by label
CPE                 the depthwise convolution before MambaIRv2's scan (conditional positional encoding)
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
    """Another form of a network, for inference on a GPU, with the same arguments."""

    def __call__(self, x: Tensor, origin: Tensor | None = None, seed: int | None = None) -> Tensor:
        """Restore images; see the ``forward`` of the networks."""
        ...

    def compare(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return this network's result for images, and that of the network it was made from."""
        ...


def build_network(config: Config, task: str | None = None) -> Network:
    """Make the network of a configuration, with fresh weights.

    Args:
        config: Configuration of the network.
        task: Task that the file of the weights names; ignored if it is unknown or contradicts ``config``.

    Returns:
        The network, with its facts in ``net.info``.
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
    """Return a faster form of a network for its GPU, or None if there is none.

    Args:
        net: Network, on its device.
        dtype: Type of matrix products and convolutions.
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
