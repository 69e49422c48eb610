"""Tasks among several workers: how much each has in hand, and what is suspected where one dies."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from operator import itemgetter

from mambair_cli.errors import MambairError
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.pipeline import MOST_AHEAD
from mambair_cli.runs.run import IsStopped, PreparedJob

AHEAD = 2  # tasks that a worker has at least: one to do, and the next
BYTES_AHEAD = 2**18  # up to which it has more of them, small ones
NAMES_SHOWN = 3  # of the images that a worker has in hand
MOST_DEATHS = 2  # of workers that had an image in hand, before it is taken to be the cause


@dataclass
class InFlight:
    """What a worker was given and has not done.

    Attributes:
        tasks: In the order in which they were given.
        costs: Of each.
        is_on_trial: Whether it has a single task, over which another worker may have died.
    """

    tasks: list[PreparedJob] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)
    is_on_trial: bool = False

    def has_room(self) -> bool:
        """Tell whether the worker should be given a task more: it has little to do until it asks again."""
        count = len(self.tasks)
        return count < AHEAD or (count < MOST_AHEAD and sum(self.costs) < BYTES_AHEAD)

    def take(self, task: PreparedJob, cost: int) -> None:
        """Put a task into the hand."""
        self.tasks.append(task)
        self.costs.append(cost)

    def __str__(self) -> str:
        """Name the images, or some of them."""
        names = [str(task.job.source) for task in self.tasks]
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        return ", ".join(names[:NAMES_SHOWN]) + more

    def put_down(self, task: PreparedJob) -> None:
        """Take a task out of the hand: something has become of it."""
        index = next(index for index, other in enumerate(self.tasks) if other is task)
        del self.tasks[index], self.costs[index]
        self.is_on_trial = False

    def empty(self) -> list[tuple[int, PreparedJob]]:
        """Take all out of the hand, with their costs."""
        held = list(zip(self.costs, self.tasks, strict=True))
        self.tasks, self.costs, self.is_on_trial = [], [], False
        return held


class Scheduler:
    """Tasks that are to be shared out, large ones first.

    A worker that dies leaves its tasks to others. Each of them may have been the cause; so each is then given
    to a worker that has nothing else in hand, and given up where that dies, too.

    Args:
        tasks: All there are.
        is_stopped: Whether no further one is to begin.
    """

    def __init__(self, tasks: Iterable[PreparedJob], is_stopped: IsStopped) -> None:
        costs = ((cost_of(task), task) for task in tasks)
        self._waiting = deque(sorted(costs, key=itemgetter(0), reverse=True))
        self._suspects: deque[PreparedJob] = deque()
        self._deaths: Counter[Job] = Counter()
        self._is_stopped = is_stopped

    @property
    def is_stopped(self) -> bool:
        """Whether the run is to end with what is in work."""
        return self._is_stopped()

    @property
    def is_over(self) -> bool:
        """Whether no further task is to begin."""
        return self._is_stopped() or not (self._waiting or self._suspects)

    def draw(self, hand: InFlight) -> PreparedJob | None:
        """Put a task into the hand of a worker, and return it; None where there is none for it now."""
        if self.is_over or hand.is_on_trial or not hand.has_room() or (self._suspects and hand.tasks):
            return None
        if self._suspects:
            cost, task = 0, self._suspects.popleft()
            hand.is_on_trial = True
        else:
            cost, task = self._waiting.popleft()
        hand.take(task, cost)
        return task

    def bury(self, hand: InFlight) -> Outcome | None:
        """Take back what a worker had in hand that died; return the outcome of a task that is given up."""
        self._deaths.update(task.job for task in hand.tasks)
        held = [task for _, task in hand.empty()]
        if len(held) == 1 and self._deaths[held[0].job] >= MOST_DEATHS:
            return _fail(held[0].job, f"{MOST_DEATHS} workers died over it; leave it out")
        self._suspects.extend(map(renew, held))
        return None

    def is_suspect(self, task: PreparedJob) -> bool:
        """Tell whether a worker has died that had the task in hand."""
        return self._deaths[task.job] > 0

    def return_all(self, hand: InFlight) -> None:
        """Take back what a worker had in hand that is sent home for other reasons."""
        if hand.is_on_trial:
            self._suspects.extend(task for _, task in hand.empty())
        self._waiting.extendleft(reversed(hand.empty()))

    def retry(self, task: PreparedJob) -> None:
        """Have a task done once more."""
        self._suspects.append(renew(task))


def _fail(job: Job, why: str) -> Outcome:
    error = MambairError(f"cannot restore {job.source}: {why}")
    return Outcome.failed(job, error)


def renew(task: PreparedJob) -> PreparedJob:
    """Return a task to do again; its result may be there, if the worker died before it could say so."""
    is_written = task.watch is not None and task.watch.is_written()
    return replace(task, overwrite=task.overwrite or is_written)


def cost_of(task: PreparedJob) -> int:
    """Guess what a task costs, by the bytes of its image."""
    try:
        return task.job.source.path.stat().st_size if task.job.source.path else 0
    except OSError:  # whoever opens it will say why
        return 0
