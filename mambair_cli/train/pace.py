"""Time and memory of a step, measured before a slow run starts."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from mambair_cli.errors import MemoryLimitError
from mambair_cli.networks import MambaIRv2Config, Network
from mambair_cli.system.process import machine_memory
from mambair_cli.system.values import show_number
from mambair_cli.train.config import TrainConfig

TRIAL_SIDE = 8  # pixels; time and memory grow with the area of a crop
WARM_SECONDS = 5.0  # a faster trial is repeated, since the first one also compiles kernels
SAID_FROM_SECONDS = 600.0  # a shorter run needs no warning
_UNITS = {"days": 86400, "hours": 3600, "minutes": 60}  # in seconds
_SMALLER = "smaller or fewer crops (--crop, --batch), or a smaller network (--embed-dim, --depths, --d-inner)"


class Pace(NamedTuple):
    """Seconds of a step, and bytes of memory for the values that its gradients need."""

    seconds: float
    memory: int


def measure_pace(net: Network, config: TrainConfig, device: torch.device, batch: int) -> Pace:
    """Measure a step with smaller crops, and extrapolate; the network does not change.

    Args:
        net: Network in training.
        config: Settings of the run.
        device: Device of the network.
        batch: Crops in a step.
    """
    side = net.config.window_size if isinstance(net.config, MambaIRv2Config) else TRIAL_SIDE
    side = min(side, config.crop)
    x = torch.full((batch, net.info.channels, side, side), 0.5, device=device)
    seconds = memory = 0
    weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    for _ in range(2):
        begun = time.monotonic()
        with _counting_saved() as saved:
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                y = net(x)
            y.float().mean().backward()
        seconds = time.monotonic() - begun
        memory = sum(size for address, size in saved.items() if address not in weights)
        net.zero_grad(set_to_none=True)
        if seconds > WARM_SECONDS:
            break
    share = (config.crop / side) ** 2
    return Pace(seconds * share, int(memory * share))


@contextmanager
def _counting_saved() -> Iterator[dict[int, int]]:
    """Collect the sizes of the memory that is kept for gradients, by address."""
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes


def check_memory(pace: Pace, device: str) -> None:
    """Refuse a run whose steps need more memory than the machine has; else the system would end it.

    Raises:
        MemoryLimitError: They do.
    """
    available = machine_memory()
    if available is not None and pace.memory > available:
        raise MemoryLimitError(
            f"cannot train on {device}: a step takes over {pace.memory / 2**30:.1f} GiB of memory, and this "
            f"machine has {available / 2**30:.1f} GiB; {_SMALLER} would work"
        )


def explain_full(device: str) -> str:
    """Say that a step found no more memory."""
    return f"cannot train on {device}: its memory is full; {_SMALLER} would work"


def warn_if_slow(pace: Pace, steps: int, device: str) -> str | None:
    """Say how long a run will take and what makes it faster; None for a short run."""
    seconds = pace.seconds * steps
    if seconds < SAID_FROM_SECONDS:
        return None
    return (
        f"a step takes about {_show_time(pace.seconds)} on {device} and over {pace.memory / 2**30:.1f} GiB "
        f"of memory, {steps} steps {_show_time(seconds)}; a GPU is much faster; without one train a small "
        f"model further (--weights) over fewer --steps, or take {_SMALLER}"
    )


def _show_time(seconds: float) -> str:
    """Write a duration in a suitable unit."""
    unit = next((unit for unit in _UNITS if seconds >= 2 * _UNITS[unit]), None)
    if unit is None:
        return f"{show_number(seconds, 2 if seconds < 100 else 3)} s"
    return f"{seconds / _UNITS[unit]:.0f} {unit}"
