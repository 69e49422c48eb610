"""The learning rate of each step; a run can be extended while it lasts or after its end."""

import dataclasses
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A linear rise to the peak, then a cosine down to zero.

    Attributes:
        peak: Highest rate.
        warmup: Steps up to the peak.
        steps: Number of all steps.
        extended: Step at which the run was extended, and the rate of that step; None if it was not. Then
            the rate moves, over as many steps as the warm-up has, to that of a run with this length from the
            start.
    """

    peak: float
    warmup: int
    steps: int
    extended: tuple[int, float] | None = None

    def rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0."""
        rate = self._plan(step)
        if self.extended is None:
            return rate
        begun, before = self.extended
        share = min(1.0, (step - begun + 1) / max(1, self.warmup))
        return before + share * (rate - before)

    def extend(self, step: int, steps: int) -> "Schedule":
        """Return the schedule of a run that is extended to ``steps`` after ``step`` steps."""
        return dataclasses.replace(self, steps=steps, extended=(step, self.rate(step)))

    def _plan(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.peak * 0.5 * (1 + math.cos(math.pi * progress))
