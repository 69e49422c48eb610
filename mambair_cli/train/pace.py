"""Time and memory of a step, measured before a slow run starts."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from mambair_cli.errors import MemoryLimitError
from mambair_cli.networks import MambaIRv2Config, Network
from mambair_cli.system.process import machine_memory
from mambair_cli.system.wording import show_number
from mambair_cli.train.config import TrainConfig

TRIAL_SIDE = 8  # pixels of the smallest crop that is tried
LONG_TRIAL = 5.0  # seconds; a shorter trial is repeated, and a larger crop tried, too
LONGEST_TRIAL = 60.0  # seconds; a first trial that takes longer, mostly to compile kernels, is the only one
SAID_FROM_SECONDS = 600.0  # a shorter run needs no warning
SAID_FROM_GIB = 0.1  # less memory is no news
_UNITS = {"days": 86400, "hours": 3600, "minutes": 60}  # in seconds
_SMALLER = "smaller or fewer crops (--crop, --batch), or a smaller network (--embed-dim, --depths, --d-inner)"


class Pace(NamedTuple):
    """Seconds of a step, and bytes of memory for the values that its gradients need."""

    seconds: float
    memory: int


def measure_pace(net: Network, config: TrainConfig, device: torch.device, batch: int) -> Pace:
    """Measure a step with smaller crops, and extrapolate; the network does not change.

    What grows with the area of crops is separated from what does not by crops of two sizes.

    Args:
        net: Network in training.
        config: Settings of the run.
        device: Device of the network.
        batch: Crops in a step.
    """
    side = net.config.window_size if isinstance(net.config, MambaIRv2Config) else TRIAL_SIDE
    side = min(side, config.crop)

    def attempt(side: int) -> Pace:
        x = torch.full((batch, net.info.channels, side, side), 0.5, device=device)
        return _time_step(net, x, config.precision == "bf16")

    first = attempt(side)
    if first.seconds > LONGEST_TRIAL:
        return _extrapolate(Pace(0, 0), 0, first, side, config.crop)
    small, larger = _repeat(attempt, side), min(2 * side, config.crop)
    growth, available = (larger / side) ** 2, machine_memory()
    is_full = available is not None and small.memory * growth > available
    if side == larger or small.seconds > LONG_TRIAL or is_full:
        return _extrapolate(Pace(0, 0), 0, small, side, config.crop)
    return _extrapolate(small, side, _repeat(attempt, larger), larger, config.crop)


def _time_step(net: Network, x: torch.Tensor, is_bfloat16: bool) -> Pace:
    """Compute the gradients of a batch, and drop them."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    begun = time.monotonic()
    with _counting_saved() as saved:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=is_bfloat16):
            y = net(x)
        y.float().mean().backward()
    seconds = time.monotonic() - begun
    net.zero_grad(set_to_none=True)
    return Pace(seconds, sum(size for address, size in saved.items() if address not in weights))


def _repeat(attempt: Callable[[int], Pace], side: int) -> Pace:
    """Return the faster of two steps; other programs make a step slower, none makes it faster."""
    pace = attempt(side)
    return pace if pace.seconds > LONG_TRIAL else min(pace, attempt(side))


def _extrapolate(small: Pace, small_side: int, large: Pace, large_side: int, side: int) -> Pace:
    """Return what crops of a side take, from two sizes: a part is fixed, the rest grows with the area."""
    more = (side**2 - large_side**2) / (large_side**2 - small_side**2)
    seconds, memory = (b + max(0, b - a) * more for a, b in zip(small, large, strict=True))
    return Pace(seconds, int(memory))


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
    needed = pace.memory / 2**30
    memory = f" and over {needed:.1f} GiB of memory" if needed >= SAID_FROM_GIB else ""
    return (
        f"a step takes about {_show_time(pace.seconds)} on {device}{memory}, {steps} steps "
        f"{_show_time(seconds)}; a GPU is much faster; without one train a small model further (--weights) "
        f"over fewer --steps, or take {_SMALLER}"
    )


def _show_time(seconds: float) -> str:
    """Write a duration in a suitable unit."""
    unit = next((unit for unit in _UNITS if seconds >= 2 * _UNITS[unit]), None)
    if unit is None:
        return f"{show_number(seconds, 2 if seconds < 100 else 3)} s"
    return f"{seconds / _UNITS[unit]:.0f} {unit}"
