"""The learning rate of each step of a run, which may be made longer while it lasts or when it is done."""

import dataclasses
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Up to the peak along a line, then down to nothing along a cosine.

    Attributes:
        peak: The highest rate.
        warmup: Steps up to it.
        steps: All of them.
        extended: Of a run that was made longer: when that was, in steps, and the rate of that moment. From
            there the rate goes to what it would be in a run that was meant to be as long from the start, in
            as many steps as the warm-up has.
    """

    peak: float
    warmup: int
    steps: int
    extended: tuple[int, float] | None = None

    def rate(self, step: int) -> float:
        """Return the rate of the step after so many that are done."""
        rate = self._plan(step)
        if self.extended is None:
            return rate
        begun, before = self.extended
        share = min(1.0, (step - begun + 1) / max(1, self.warmup))
        return before + share * (rate - before)

    def extend(self, step: int, steps: int) -> "Schedule":
        """Return the schedule of a run that gets more steps when so many are done."""
        return dataclasses.replace(self, steps=steps, extended=(step, self.rate(step)))

    def _plan(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.peak * 0.5 * (1 + math.cos(math.pi * progress))
