"""How long a run takes where it is slow, as its first steps tell."""

import time

from mambair_cli.train.config import TrainConfig

MEASURED_SECONDS = (
    5.0  # the first step is slower than others: in that time it weighs little, or is slow itself
)
SAID_FROM_SECONDS = 600.0  # what takes less than this needs no word
_UNITS = {"days": 86400, "hours": 3600, "minutes": 60}  # in seconds


class Pace:
    """Measures the first steps of a run.

    Args:
        config: The run.
        step: Steps that were done before.
    """

    def __init__(self, config: TrainConfig, step: int) -> None:
        self._steps = config.steps
        self._device = config.device
        # With torch.compile the first step is half a minute of compiling.
        self._first = step + config.compile
        self._begun = time.monotonic()
        self._is_known = config.device.startswith("cuda")  # what training is meant for

    def warn(self, step: int) -> str | None:
        """Say once, as soon as it is known, how long a slow run will take.

        Args:
            step: Steps that are done.
        """
        if self._is_known:
            return None
        if step <= self._first:
            self._begun = time.monotonic()
            return None
        seconds = time.monotonic() - self._begun
        if seconds < MEASURED_SECONDS:
            return None
        self._is_known = True
        pace = seconds / (step - self._first)
        total = pace * (self._steps - step)
        if total < SAID_FROM_SECONDS:
            return None
        return (
            f"a step takes {pace:.2g} s on {self._device}, the {self._steps - step} steps left about "
            f"{_show(total)}; training is meant for a GPU; here take a smaller network "
            "(--embed-dim, --depths, --d-inner), smaller or fewer crops (--crop, --batch), or fewer --steps"
        )


def _show(seconds: float) -> str:
    name = next((name for name in _UNITS if seconds >= 2 * _UNITS[name]), "minutes")
    return f"{seconds / _UNITS[name]:.0f} {name}"
