"""What a step takes where training is slow, measured before the first one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from mambair_cli.networks import MambaIRv2Config, Network
from mambair_cli.train.config import TrainConfig

TRIAL_SIDE = 8  # pixels; time and memory grow with the area of a crop
WARM_SECONDS = 1.0  # a trial that takes less is done again: the first time, memory is allocated
SAID_FROM_SECONDS = 600.0  # what takes less than this needs no word
_UNITS = {"days": 86400, "hours": 3600, "minutes": 60}  # in seconds


class Pace(NamedTuple):
    """What a step takes: seconds, and bytes of memory for what its gradients are found from."""

    seconds: float
    memory: int


def measure_pace(net: Network, config: TrainConfig, device: torch.device, batch: int) -> Pace:
    """Find out what a step takes by a trial with smaller crops; the network stays as it is.

    Args:
        net: In training.
        config: Of the run.
        device: On which it computes.
        batch: Crops in a step.
    """
    side = net.config.window_size if isinstance(net.config, MambaIRv2Config) else TRIAL_SIDE
    side = min(side, config.crop)
    x = torch.full((batch, net.info.channels, side, side), 0.5, device=device)
    seconds = memory = 0
    for _ in range(2):
        begun = time.monotonic()
        with _counting_saved() as saved:
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                y = net(x)
            y.float().mean().backward()
        seconds, memory = time.monotonic() - begun, sum(saved.values())
        net.zero_grad(set_to_none=True)
        if seconds > WARM_SECONDS:
            break
    share = (config.crop / side) ** 2
    return Pace(seconds * share, int(memory * share))


@contextmanager
def _counting_saved() -> Iterator[dict[int, int]]:
    """Collect, by their addresses, the sizes of what is kept for gradients."""
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes


def warn_of(pace: Pace, steps: int, device: str) -> str | None:
    """Say how long a run takes, and what would help; nothing of one that is soon done."""
    seconds = pace.seconds * steps
    if seconds < SAID_FROM_SECONDS:
        return None
    unit = next((unit for unit in _UNITS if seconds >= 2 * _UNITS[unit]), "minutes")
    return (
        f"a step takes about {pace.seconds:.2g} s on {device} and over {pace.memory / 2**30:.1f} GiB of "
        f"memory, {steps} steps {seconds / _UNITS[unit]:.0f} {unit}; training is meant for a GPU; "
        "without one take a smaller network (--embed-dim, --depths, --d-inner) or smaller or fewer crops "
        "(--crop, --batch)"
    )
