"""The progress bars, on stderr, and only where that is a terminal."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress:
    """Shows how far a run is: images, tiles of the present one, megapixels per second, time left.

    Args:
        files: Images of the run.
        shown: Whether the user wants it at all.
    """

    def __init__(self, files: int, shown: bool = True) -> None:
        self._files = files
        self._number = 0
        self._bar = _make_bar(TextColumn("{task.fields[unit]} {task.fields[speed]}"), shown)
        self._task = self._bar.add_task("", total=None, speed="", unit="tiles", start=False)
        self._megapixels = 0.0
        self._began = 0.0

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, name: str, pixels: int) -> None:
        """Begin with the next image, of so many pixels."""
        self._number += 1
        self._megapixels, self._began = pixels / 1e6, time.perf_counter()
        count = f"[{self._number}/{self._files}] " if self._files > 1 else ""
        self._bar.reset(self._task, total=None, description=count + name, speed="", unit="tiles")

    def advance(self, done: int, total: int) -> None:
        """Show that so many tiles of all of the image's are done."""
        speed = self._megapixels * done / total / max(time.perf_counter() - self._began, 1e-9)
        self._bar.update(self._task, completed=done, total=total, speed=f"{speed:.2f} MP/s")

    def count(self, files: int) -> None:
        """Show that so many images are done, of a run whose images are done side by side."""
        if not self._number:
            self._bar.reset(self._task, total=self._files, speed="", unit="images")
        self._number = files
        self._bar.update(self._task, completed=files)


class TrainingProgress:
    """Shows how far a training is: steps, the last loss, time left.

    Args:
        steps: Of the whole training.
        shown: Whether the user wants it at all.
    """

    def __init__(self, steps: int, shown: bool = True) -> None:
        self._bar = _make_bar(TextColumn("steps {task.fields[loss]}"), shown)
        self._task = self._bar.add_task("training", total=steps, loss="", start=False)
        self._done: int | None = None

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, step: int) -> None:
        """Show that so many steps are done."""
        if self._done is None:  # where a training goes on, what was done before tells nothing of its speed
            self._bar.reset(self._task, completed=step)
        self._done = step
        self._bar.update(self._task, completed=step)

    def report(self, loss: float) -> None:
        """Show the loss of the last steps."""
        self._bar.update(self._task, loss=f"loss {loss:.4f}")


def _make_bar(column: ProgressColumn, shown: bool) -> RichProgress:
    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        column,
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
        transient=True,
        # What is printed moves above the bar; but never from a pipe on stdout to the bar's stderr.
        redirect_stdout=sys.stdout.isatty(),
        disable=not (shown and sys.stderr.isatty()),
    )
