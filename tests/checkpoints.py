"""Small checkpoints whose weights are chosen so that the result is known in advance."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from mambair_cli.networks import MambaIR, MambaIRConfig, build_network


def save_nearest(path: Path, scale: int) -> Path:
    """Save a MambaIR network that enlarges by repeating pixels."""
    net = MambaIR(MambaIRConfig(32, (1,), 4, 32, upscale=scale, upsampler="pixelshuffledirect"))
    weights = net.state_dict()
    for layer in ("conv_first", "conv_after_body", "upsample.0"):
        weights[f"{layer}.weight"].zero_()
        weights[f"{layer}.bias"].zero_()
    for channel in range(3):
        copies = slice(channel * scale**2, (channel + 1) * scale**2)
        weights["conv_first.weight"][channel, channel, 1, 1] = 1.0
        weights["upsample.0.weight"][copies, channel, 1, 1] = 1.0
    return _save(net, path)


def save_identity(path: Path, channels: int = 3, task: str | None = None) -> Path:
    """Save a MambaIR network that returns its input."""
    net = MambaIR(MambaIRConfig(32, (1,), 4, 32, in_chans=channels))
    net.state_dict()["conv_last.weight"].zero_()
    net.state_dict()["conv_last.bias"].zero_()
    return _save(net, path, task)


def save_random(path: Path, config, seed: int = 0) -> Path:
    """Save a network with random weights."""
    torch.manual_seed(seed)
    return _save(build_network(config), path)


def _save(net, path: Path, task: str | None = None) -> Path:
    save_file(net.state_dict(), path, metadata={"task": task} if task else None)
    return path
