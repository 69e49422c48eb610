"""Jobs: an image, and where its result goes."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from mambair_cli.images.source import STANDARD_STREAM, Source
from mambair_cli.system.wording import as_argument

if TYPE_CHECKING:
    from mambair_cli.inspection.need import Need


@dataclass(frozen=True)
class Job:
    """An image and where its result goes.

    Attributes:
        source: The image.
        target: File to write; None for standard output.
        format: Format of the result; None: that of the target's name, or on standard output of the source.
        root: Folder that the run's results lie in, at any depth; None for standard output and streams.
        result: Open file that receives a result that has no path.
        is_stream: Whether the target is a pipe, a device or an open file, which is written to as it is.
        replaces_input: Whether the target is among the inputs, as the result of an earlier run.
        namesakes: Other inputs of the run that would give a result of this name, and got another one.
        refusal: Why the job cannot be done, whatever becomes of the others; None if it can.
    """

    source: Source
    target: Path | None
    format: str | None = None
    root: Path | None = None
    result: BinaryIO | None = None
    is_stream: bool = False
    replaces_input: bool = False
    namesakes: tuple[Path, ...] = ()
    refusal: str | None = None

    @property
    def place(self) -> str:
        """Name the place that the result goes to."""
        if self.result is not None:
            return "the result"
        return STANDARD_STREAM if self.target is None else as_argument(self.target)


def name_of(source: Source) -> str:
    """Return the short name of an image."""
    return source.label or (source.path.name if source.path else STANDARD_STREAM)


def group_targets(jobs: Iterable[Job]) -> dict[Path, list[Path]]:
    """Return the files to write, by the folder that keeps the journal of them."""
    targets: dict[Path, list[Path]] = {}
    for job in jobs:
        if job.root and job.target:
            targets.setdefault(job.root, []).append(job.target)
    return targets


class StartedImage(NamedTuple):
    """An image whose turn has come.

    Attributes:
        source: The image.
        pixels: Number of its pixels, of all frames; 0 where it is unknown.
        need: What was seen of it, and what it needs; None where nobody looked.
        model: Name of the model that a look chose; None for the usual one.
    """

    source: Source
    pixels: int = 0
    need: "Need | None" = None
    model: str | None = None
