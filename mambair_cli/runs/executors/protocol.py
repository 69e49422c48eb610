"""The protocol of executors: what does the jobs of a run, by which model, and where."""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.run import IsStopped, PreparedJob

if TYPE_CHECKING:
    from mambair_cli.checkpoints.select import ChosenModel
    from mambair_cli.restore.restorer import Restorer


@dataclass(frozen=True)
class ExecutorInfo:
    """Facts about an executor.

    Attributes:
        model: Name of the model, or of the first choice where a look at each image chooses one.
        scale: Output pixels per input pixel and side.
        place: Device or machines that compute, in a few words.
        fingerprint: All that pixels depend on except the images.
        notice: Sentence about the choice of model for the user, if there is one.
        others: Names of the other models that a look at each image may choose; empty where none looks.
        notices: Where a look chooses, sentences about models by their names, for when one is chosen.
    """

    model: str
    scale: int
    place: str
    fingerprint: Fingerprint
    notice: str | None = None
    others: tuple[str, ...] = ()
    notices: Mapping[str, str] = field(default_factory=dict)


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
    fingerprint, scale = Fingerprint.of(restorer), restorer.info.scale
    others = restorer.others.values()
    if not others:
        return ExecutorInfo(restorer.model.name, scale, place, fingerprint, restorer.notice)
    return describe_choice(restorer.model, others, scale, place, fingerprint, restorer.is_offline)


def describe_choice(
    model: "ChosenModel",
    others: "Iterable[ChosenModel]",
    scale: int,
    place: str,
    fingerprint: Fingerprint,
    is_offline: bool,
) -> ExecutorInfo:
    """Return the facts about an executor in which a look at each image chooses among models.

    Args:
        model: The first choice, for what the others are not chosen for.
        others: The other models.
        scale: Scale of the first one.
        place: Device or machines that compute, in a few words.
        fingerprint: All that pixels depend on except the images.
        is_offline: Whether nothing is downloaded, so that a fall-back is no news.
    """
    others = list(others)
    notices = {each.name: each.tell(is_offline) for each in (model, *others)}
    given = {name: notice for name, notice in notices.items() if notice is not None}
    names = tuple(dict.fromkeys(each.name for each in others))
    return ExecutorInfo(model.name, scale, place, fingerprint, None, names, given)
