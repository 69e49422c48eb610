"""The progress, on stderr: bars on a terminal that can draw them, elsewhere a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column

from mambair_cli.cli.output import CONTROLS, format_rate, say
from mambair_cli.cli.streams import open_for_drawing
from mambair_cli.runs.jobs import StartedImage, name_of
from mambair_cli.system.terminals import begin_drawing, end_drawing, takes_controls
from mambair_cli.system.wording import show_count, show_number

if TYPE_CHECKING:
    from mambair_cli.images.source import Source
    from mambair_cli.runs.outcomes import Outcome

WIDE, NARROW = 100, 80  # columns of a terminal; a narrower one has no room for speeds
NAME_WIDTH, SHORT_NAME_WIDTH = 32, 20  # terminal cells, in a wide terminal and in others
IDLE_SECONDS = 1  # for which a row is shown after its image is done
SPEED_SECONDS = 3600  # to average speeds over: an image may take minutes
LINE_SECONDS = 10  # between two lines where there is no bar
MOST_LINES = 10  # for the images of a run, or for a clip


class Progress:
    """Shows the progress of a run: a bar for all images, and one for the image of each worker.

    Args:
        shown: Whether to show anything.
        on_start: Called with each image that is begun.
        in_lines: Whether lines tell the progress where there is no bar.
    """

    def __init__(
        self,
        shown: bool = True,
        on_start: Callable[[StartedImage], None] = lambda image: None,
        in_lines: bool = False,
    ) -> None:
        self._on_start = on_start
        console = Console(file=open_for_drawing())
        self._name_width = NAME_WIDTH if console.width >= WIDE else SHORT_NAME_WIDTH
        columns = [TextColumn("{task.fields[count]}"), TextColumn("{task.fields[speed]}")]
        self._bar = _make_bar(console, columns[: 1 if console.width < NARROW else 2], shown)
        self._files = self._done = self._failed = 0
        self._begun = 0.0
        self._rows: dict[int, _Row] = {}
        self._bytes: dict[Source, int] = {}  # predicts the time left better than the number of images
        self._all: TaskID | None = None
        self._total = 0  # bytes of the images that are not skipped
        self._lines = _Lines(shown and in_lines and self._bar.disable)

    def expect(self, sources: Sequence["Source"]) -> None:
        """Set the images of the run, before it begins, or those that come next."""
        if self._all is not None:  # of images before these
            self._bar.remove_task(self._all)
            self._all = None
        self._files, self._done, self._failed = len(sources), 0, 0
        self._lines.begin()
        self._bytes = {} if self._bar.disable else {source: _size_of(source) for source in sources}
        self._total = sum(self._bytes.values())
        if self._files > 1 and not self._bar.disable:
            self._all = self._bar.add_task(
                "all", total=self._total, count=f"0/{self._files} images", speed=""
            )

    @property
    def is_shown(self) -> bool:
        """Whether the bars are visible."""
        return not self._bar.disable

    def __enter__(self) -> "Progress":
        self._begun = time.perf_counter()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, worker: int, image: StartedImage) -> None:
        """Show that a worker has begun an image, and what was seen of it."""
        self._on_start(image)
        if worker not in self._rows:
            task = self._bar.add_task("", total=None, visible=False, count="", speed="")
            self._rows[worker] = _Row(task, image)
        row = self._rows[worker]
        row.image, row.share, row.done = image, 0, None
        row.begun = time.perf_counter()
        name = shorten(name_of(image.source), self._name_width)
        self._bar.reset(row.task, total=None, visible=True, description=name, count="", speed="")
        self._hide_idle()

    def advance(self, worker: int, done: int, total: int) -> None:
        """Show that a worker has computed that many tiles of its image."""
        row = self._rows[worker]
        row.share = done / total
        speed = row.image.pixels / 1e6 * row.share / max(time.perf_counter() - row.begun, 1e-9)
        self._bar.update(
            row.task,
            completed=done,
            total=total,
            visible=True,
            count=f"{done}/{total} tiles",
            speed=f"{show_number(speed)} MP/s",
        )
        row.done = time.perf_counter() if done == total else None
        self._hide_idle()
        self._tell(f"{name_of(row.image.source)}: {done}/{total} tiles")

    def count(self, outcome: "Outcome") -> None:
        """Show the outcome of an image."""
        self._end_row(outcome)
        self._failed += outcome.error is not None
        self._files -= outcome.is_skipped
        self._done += not outcome.is_skipped
        self._tell()
        if self._all is None:
            return
        size = self._bytes.get(outcome.job.source, 0)
        if outcome.is_skipped:  # an earlier run says nothing about the speed
            self._total -= size
            self._bar.reset(self._all, total=self._total)
        else:
            self._bar.advance(self._all, size)
        rate = self._done / (time.perf_counter() - self._begun)
        speed = format_rate(rate)
        failed = f", {self._failed} failed" if self._failed else ""
        self._bar.update(self._all, count=f"{self._done}/{self._files} images{failed}", speed=speed)
        self._hide_idle()

    def _end_row(self, outcome: "Outcome") -> None:
        """End the row of an image; hide it at once if the image failed, since a line above says so."""
        for row in self._rows.values():
            if row.image.source == outcome.job.source:
                row.share = 0  # it counts as a whole image now
                row.done = row.done or time.perf_counter()
                if outcome.error is not None:
                    self._bar.update(row.task, visible=False)

    def _tell(self, *tiles: str) -> None:
        """Tell the progress in a line, if one is due."""
        share = (self._done + sum(row.share for row in self._rows.values())) / max(1, self._files)
        images = [f"{self._done} of {self._files} images done"] if self._files > 1 else []
        self._lines.tell(share, "; ".join([*tiles, *images]))

    def _hide_idle(self) -> None:
        """Hide the rows of workers that are idle for a while; hidden at once, rows would flicker."""
        now = time.perf_counter()
        for row in self._rows.values():
            if row.done is not None and now - row.done > IDLE_SECONDS:
                self._bar.update(row.task, visible=False)


class _Row:
    """The row of a worker's image."""

    def __init__(self, task: TaskID, image: StartedImage) -> None:
        self.task = task
        self.image = image
        self.share = 0.0  # of the image that is done
        self.begun = 0.0
        self.done: float | None = None  # time when the image was done


class _Lines:
    """Lines that tell how far the work is: at most one in some seconds, and one for each tenth of it.

    Args:
        shown: Whether there are any.
    """

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self.begin()

    def begin(self) -> None:
        """Begin new work."""
        self._printed, self._part = time.perf_counter(), 0

    def tell(self, share: float, sentence: str) -> None:
        """Print a sentence, if it is due.

        Args:
            share: Share of the work that is done, from 0 to 1.
            sentence: How far it is, in words.
        """
        now, part = time.perf_counter(), int(MOST_LINES * share)
        if self._shown and self._part < part < MOST_LINES and now - self._printed >= LINE_SECONDS:
            self._printed, self._part = now, part
            say(sentence)


def _size_of(source: "Source") -> int:
    try:
        return source.path.stat().st_size if source.path else 0
    except OSError:  # opening it will raise the same error
        return 0


def shorten(name: str, width: int) -> str:
    """Shorten a name to that many cells in its middle: numbers of files are at the end."""
    name = CONTROLS.sub("\N{REPLACEMENT CHARACTER}", name)
    if cell_len(name) <= width:
        return name
    half = (width - 1) // 2
    return f"{set_cell_size(name, half).rstrip()}…{set_cell_size(name[::-1], half)[::-1].lstrip()}"


@contextmanager
def show_training(steps: int, shown: bool = True) -> Iterator["TrainingProgress"]:
    """Show the progress of a training while the block runs.

    Args:
        steps: Number of steps of the whole training.
        shown: Whether to show anything.
    """
    columns = [MofNCompleteColumn(), TextColumn("steps {task.fields[loss]}")]
    with _make_bar(Console(file=open_for_drawing()), columns, shown) as bar:
        yield TrainingProgress(bar, steps)


class TrainingProgress:
    """A bar with steps, the last loss and the time left; from :func:`show_training`."""

    def __init__(self, bar: RichProgress, steps: int) -> None:
        self._bar = bar
        self._task = bar.add_task("training", total=steps, loss="", start=False)
        self._done: int | None = None

    def advance(self, step: int) -> None:
        """Show that that many steps are done."""
        if self._done is None:  # steps of an earlier run say nothing about the speed
            self._bar.reset(self._task, completed=step)
        self._done = step
        self._bar.update(self._task, completed=step)

    def report(self, loss: float) -> None:
        """Show the loss of the last steps."""
        self._bar.update(self._task, loss=f"loss {loss:.4f}")


class _Bar(RichProgress):
    """Bars that give way to the lines that are printed, which stand above them, unchanged.

    Rich would print these lines itself: cut to the terminal's width, without tabs, and on stderr.
    """

    _is_hidden = False

    def start(self) -> None:
        super().start()
        if not self.disable:
            begin_drawing(self._erase, self._draw)

    def stop(self) -> None:
        if not self.disable:
            end_drawing()
        super().stop()

    def get_renderable(self) -> RenderableType:
        return Group() if self._is_hidden else super().get_renderable()

    def _erase(self) -> None:
        self._is_hidden = True
        self.live.stop()

    def _draw(self) -> None:
        self._is_hidden = False
        self.live.vertical_overflow = "ellipsis"  # as before it was stopped
        self.live.start(refresh=True)


def _make_bar(console: Console, columns: Sequence[ProgressColumn], shown: bool) -> RichProgress:
    return _Bar(
        TextColumn("{task.description}", markup=False),  # brackets in a name are no markup
        BarColumn(bar_width=30),
        *columns,
        # In a narrow terminal, only the bar becomes shorter.
        TimeRemainingColumn(elapsed_when_finished=True, table_column=Column(no_wrap=True)),
        console=console,
        speed_estimate_period=SPEED_SECONDS,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not (shown and takes_controls(sys.stderr)),
    )


@contextmanager
def show_clip(name: str, shown: bool = True, in_lines: bool = False) -> Iterator["ClipProgress"]:
    """Show the progress of a clip while the block runs.

    Args:
        name: Name of the clip.
        shown: Whether to show anything.
        in_lines: Whether lines tell the progress where there is no bar.
    """
    console = Console(file=open_for_drawing())
    columns = [TextColumn("{task.fields[count]}"), TextColumn("{task.fields[speed]}")]
    with _make_bar(console, columns[: 1 if console.width < NARROW else 2], shown) as bar:
        width = NAME_WIDTH if console.width >= WIDE else SHORT_NAME_WIDTH
        yield ClipProgress(bar, name, width, shown and in_lines and bar.disable)


class ClipProgress:
    """A bar with the frames of a clip, their rate and the time left; from :func:`show_clip`."""

    def __init__(self, bar: RichProgress, name: str, width: int, in_lines: bool = False) -> None:
        self._bar, self._name, self._lines = bar, name, _Lines(in_lines)
        self._task = bar.add_task(shorten(name, width), total=None, count="", speed="")
        self._resumed = -1
        self._begun = 0.0

    def advance(self, done: int, all_frames: int | None, resumed: int) -> None:
        """Show that that many frames are done, of which an earlier run has made some."""
        now = time.perf_counter()
        if resumed != self._resumed:  # frames of an earlier run say nothing about the speed
            self._begun = self._begun or now
            self._resumed = resumed
            self._bar.reset(self._task, completed=done, total=all_frames)
        rate = (done - resumed) / max(now - self._begun, 1e-9)
        speed = format_rate(rate) if done > resumed else ""
        count = f"{done}/{all_frames} frames" if all_frames else show_count(done, "frame")
        self._bar.update(self._task, completed=done, total=all_frames, count=count, speed=speed)
        if all_frames:
            self._lines.tell(done / all_frames, ", ".join(filter(None, (f"{self._name}: {count}", speed))))
