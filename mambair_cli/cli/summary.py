"""The end of a run, in a sentence for people and an event for scripts."""

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from mambair_cli.system.process import peak_memory
from mambair_cli.system.wording import show_count

if TYPE_CHECKING:
    from mambair_cli.runs.outcomes import Outcome

NAMES_SHOWN = 5  # of warned and of failed images each, in the sentence


class Summary:
    """Counts what became of the images, or the clips, of a run.

    Args:
        files: Number of images or clips of the run.
        what: What they are: "image" or "clip".

    Attributes:
        files: Number of images or clips of the run so far.
    """

    def __init__(self, files: int, what: str = "image") -> None:
        self.files = files
        self._what = what
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
            self.fail(name)
        elif outcome.is_skipped:
            self.skip()
        else:
            own = outcome.report and outcome.report.model
            self.finish(name, own or model or "", outcome.seconds, bool(outcome.warnings))

    def finish(self, name: str, model: str, seconds: float, is_warned: bool) -> None:
        """Count an image or a clip that is done.

        Args:
            name: Its name.
            model: Name of the model that restored it.
            seconds: Time that it took.
            is_warned: Whether there is a warning about it.
        """
        self._done += 1
        self._models[model] += 1
        self._warned += [name] * is_warned
        self._slowest = max(self._slowest, (seconds, name))

    def skip(self) -> None:
        """Count an image or a clip that an earlier run has done."""
        self._skipped += 1

    def fail(self, name: str) -> None:
        """Count an image or a clip that failed."""
        self._failed.append(name)

    def fail_folder(self, name: str) -> None:
        """Count a folder that cannot be read, as an image that failed."""
        self.files += 1
        self.fail(name)

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
        parts[0] += f" of {show_count(self.files, self._what)} in {seconds:.0f} s"
        if self._done > 1:
            if self._what == "image":
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
