"""The end of a run, in a sentence for people and an event for scripts."""

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from mambair_cli.system.process import peak_memory

if TYPE_CHECKING:
    from mambair_cli.runs.outcomes import Outcome

NAMES_SHOWN = 5  # of warned and of failed images each, in the sentence


class Summary:
    """Counts what became of the images of a run.

    Args:
        files: Number of images of the run.

    Attributes:
        files: Number of images of the run so far.
    """

    def __init__(self, files: int) -> None:
        self.files = files
        self._start = time.perf_counter()
        self._done = self._skipped = 0
        self._failed: list[str] = []
        self._warned: list[str] = []
        self._slowest: tuple[float, str] = (0.0, "")
        self._models: Counter[str] = Counter()

    def add(self, outcome: "Outcome", model: str | None = None) -> None:
        """Count an image.

        Args:
            outcome: What became of it.
            model: Name of the model, where no look at the image chose another.
        """
        name = str(outcome.job.source)
        if outcome.error is not None:
            self._failed.append(name)
        elif outcome.is_skipped:
            self._skipped += 1
        else:
            self._done += 1
            own = outcome.report and outcome.report.model
            self._models[own or model or ""] += 1
            self._warned += [name] * bool(outcome.warnings)
            self._slowest = max(self._slowest, (outcome.seconds, name))

    def fail(self, name: str) -> None:
        """Count a folder that cannot be read, as an image that failed."""
        self.files += 1
        self._failed.append(name)

    def expect(self, files: int) -> None:
        """Count more images to the run."""
        self.files += files

    @property
    def counted(self) -> int:
        """Number of images that are done, skipped or failed."""
        return self._done + self._skipped + len(self._failed)

    def facts(self) -> dict[str, Any]:
        """Return the counts, for JSON."""
        return {
            "done": self._done,
            "skipped": self._skipped,
            "failed": len(self._failed),
            "warned": len(self._warned),
            "left": self.files - self.counted,
            "seconds": round(time.perf_counter() - self._start, 3),
            "peak_memory": peak_memory(),
            "models": dict(self._models),
        }

    def __str__(self) -> str:
        """Return the summary in a sentence, for people."""
        seconds = time.perf_counter() - self._start
        counts = {"done": self._done, "done before": self._skipped, "failed": len(self._failed)}
        parts = [", ".join(f"{count} {what}" for what, count in counts.items() if count or what == "done")]
        parts[0] += f" of {self.files} images in {seconds:.0f} s"
        if self._done > 1:
            parts.append(f"{self._done / seconds:.2f} a second")
            parts.append(f"the slowest {self._slowest[1]}, {self._slowest[0]:.1f} s")
        if len(self._models) > 1:
            parts.append(", ".join(f"{count} by {model}" for model, count in self._models.most_common()))
        if self._warned:
            parts.append(f"{len(self._warned)} with warnings: {_enumerate(self._warned)}")
        if self._failed:
            parts.append(f"failed: {_enumerate(self._failed)}")
        return "; ".join(parts)


def _enumerate(names: list[str]) -> str:
    """Name the first of them, and count the rest."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
