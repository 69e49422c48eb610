"""The protocol of executors: what does the jobs of a run, by which model, and where."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.run import IsStopped, PreparedJob

if TYPE_CHECKING:
    from mambair_cli.restore.restorer import Restorer


@dataclass(frozen=True)
class ExecutorInfo:
    """Facts about an executor.

    Attributes:
        model: Name of the model, or of that for most images where a look at each chooses one.
        scale: Output pixels per input pixel and side.
        place: Device or machines that compute, in a few words.
        fingerprint: All that pixels depend on besides the images.
        notice: Sentence about the choice of model for the user, if there is one.
        others: Names of the other models that a look at each image may choose; empty where none looks.
    """

    model: str
    scale: int
    place: str
    fingerprint: Fingerprint
    notice: str | None = None
    others: tuple[str, ...] = ()


class Executor(Protocol):
    """What does the jobs of a run: this process, worker processes, a Ray cluster, or a server."""

    @property
    def info(self) -> ExecutorInfo:
        """Return by which model images are restored, and where."""
        ...

    def perform(self, jobs: Iterable[PreparedJob], is_stopped: IsStopped) -> Generator[Outcome]:
        """Do jobs, and yield the outcome of each as soon as it is known.

        Args:
            jobs: Jobs to do.
            is_stopped: Tells whether no further job may begin.
        """
        ...

    def close(self) -> None:
        """Stop at once; jobs that are not finished leave no result. It may be called again."""
        ...


def describe_restorer(restorer: "Restorer", place: str) -> ExecutorInfo:
    """Return the facts about an executor that restores as a restorer of this process does."""
    others = tuple(dict.fromkeys(each.name for each in restorer.others.values()))
    return ExecutorInfo(
        restorer.model.name, restorer.info.scale, place, Fingerprint.of(restorer), restorer.notice, others
    )
