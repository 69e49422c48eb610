"""A network whose results are targets, too: a smaller one learns from them what it is to become.

The truth of a crop is one of many that its input could have come from; a teacher's result is near their
mean, which is what a network of the highest PSNR gives. So less of what is learned in a step is chance. Each
crop is turned or mirrored at random before the teacher sees it: a network that learns from itself then learns
the mean of its results in all eight forms.

Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (arXiv:1503.02531); for the
eight forms: Timofte, Rothe and Van Gool, Seven Ways to Improve Example-Based Single Image Super-Resolution
(arXiv:1511.02228).
"""

import numpy as np
import torch
from torch import Tensor

from mambair_cli.checkpoints.load import load_network
from mambair_cli.errors import UsageError
from mambair_cli.networks import Network
from mambair_cli.restore.ensemble import SYMMETRIES, turn
from mambair_cli.train.config import TrainConfig


class Teacher:
    """Mixes targets with the results of a network.

    Args:
        net: The network, in eval mode.
        share: Share of its results in the targets, 0 to 1.
        crop: Side of the inputs, in pixels.
    """

    def __init__(self, net: Network, share: float, crop: int) -> None:
        self.net, self.share = net, share
        device = next(net.parameters()).device
        self._turned = _turns(crop).to(device)
        self._turned_back = _turns(crop * net.info.scale).argsort(dim=1).to(device)

    @torch.no_grad()
    def mix(self, x: Tensor, target: Tensor, forms: Tensor) -> Tensor:
        """Mix targets with the teacher's results.

        Args:
            x: Inputs, (b, c, crop, crop).
            target: Their targets, (b, c, s·crop, s·crop).
            forms: How to turn each input before the teacher sees it, (b,) int64 from 0 to 7; its result is
                turned back.

        Returns:
            (b, c, s·crop, s·crop) float32
        """
        seen = _rearrange(x, self._turned[forms])
        y = _rearrange(self.net(seen).float(), self._turned_back[forms])
        return torch.lerp(target, y.clamp(0, 1), self.share)


def load_teacher(config: TrainConfig, channels: int, device: torch.device) -> Teacher | None:
    """Load the teacher of a run; None if it has none.

    Args:
        config: Settings of the run.
        channels: Channels of the network that learns.
        device: Device of the run.

    Raises:
        CheckpointError: It cannot be loaded.
        UsageError: It is for another scale or number of channels.
    """
    if config.teacher is None:
        return None
    net = load_network(config.teacher)
    theirs, ours = (net.info.scale, net.info.channels), (config.scale, channels)
    if theirs != ours:
        raise UsageError(
            f"cannot learn from {config.teacher}: it is for scale {theirs[0]} and {theirs[1]} channels; "
            f"a teacher here needs scale {ours[0]} and {ours[1]}"
        )
    return Teacher(net.to(device).eval().requires_grad_(False), config.teacher_share, config.crop)


def _turns(side: int) -> Tensor:
    """Return the pixels of a square image in the order of each of its eight forms, (8, side²) int64."""
    pixels = np.arange(side * side).reshape(1, side, side, 1)
    return torch.from_numpy(np.stack([turn(pixels, form).ravel() for form in range(SYMMETRIES)]))


def _rearrange(x: Tensor, order: Tensor) -> Tensor:
    """Rearrange the pixels of each image: x (b, c, n, n), order (b, n²)."""
    return x.flatten(2).gather(2, order[:, None].expand(-1, x.shape[1], -1)).view(x.shape)
