"""The order of jobs among several workers: how many each is given, and what happens when one dies."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

from mambair_cli.errors import MambairError
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.pipeline import MOST_AHEAD
from mambair_cli.runs.run import IsStopped, PreparedJob

AHEAD = 2  # jobs that a worker is given at least: one to do, and the next
BYTES_AHEAD = 2**18  # of small images, up to which a worker is given more
NAMES_SHOWN = 3  # images of a worker that a message names
MOST_LOSSES = 3  # of a worker, or on a node, with nothing done between, before none is started there any more
MOST_DEATHS = 2  # workers that die while they have an image, before the image is taken for the cause


@dataclass
class InFlight:
    """Jobs that a worker was given and has not done.

    Attributes:
        jobs: Jobs in the order in which they were given.
        costs: Cost of each job.
        is_on_trial: Whether it has a single job, over which another worker may have died.
    """

    jobs: list[PreparedJob] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)
    is_on_trial: bool = False

    def __len__(self) -> int:
        """Count the jobs."""
        return len(self.jobs)

    def __str__(self) -> str:
        """Name the images, or some of them."""
        names = [str(job.job.source) for job in self.jobs]
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        return ", ".join(names[:NAMES_SHOWN]) + more

    def has_room(self, most: int) -> bool:
        """Tell whether the worker should be given one more job, so that it need not wait for the next.

        Args:
            most: Number of small images that it may have.
        """
        count = len(self.jobs)
        return count < AHEAD or (count < most and sum(self.costs) < BYTES_AHEAD)

    def add(self, job: PreparedJob, cost: int) -> None:
        """Add a job that the worker is given."""
        self.jobs.append(job)
        self.costs.append(cost)

    def remove(self, job: PreparedJob) -> None:
        """Remove a job that the worker has done."""
        index = next(index for index, other in enumerate(self.jobs) if other is job)
        del self.jobs[index], self.costs[index]
        self.is_on_trial = False

    def clear(self) -> list[tuple[int, PreparedJob]]:
        """Remove all jobs, and return them with their costs."""
        removed = list(zip(self.costs, self.jobs, strict=True))
        self.jobs, self.costs, self.is_on_trial = [], [], False
        return removed


class Scheduler:
    """Jobs to share out among workers, large ones first.

    When a worker dies, any of its jobs may have been the cause. Each of them is then given to a worker that
    has nothing else to do, and given up if that worker dies, too.

    Args:
        jobs: All jobs.
        is_stopped: Tells whether no further job may begin.
    """

    def __init__(self, jobs: Iterable[PreparedJob], is_stopped: IsStopped) -> None:
        costs = ((cost_of(job), job) for job in jobs)
        self._waiting = deque(sorted(costs, key=itemgetter(0), reverse=True))
        self._suspects: deque[PreparedJob] = deque()
        self._deaths: Counter[Job] = Counter()
        self._is_stopped = is_stopped

    @property
    def is_stopped(self) -> bool:
        """Whether the run ends after the jobs that have begun."""
        return self._is_stopped()

    @property
    def is_over(self) -> bool:
        """Whether no further job begins."""
        return self._is_stopped() or not (self._waiting or self._suspects)

    def hand_out(self, given: Sequence[InFlight]) -> Iterator[tuple[int, PreparedJob]]:
        """Give jobs to workers in turns, so that none is idle while another has several.

        Args:
            given: What each worker has.

        Yields:
            Place of a worker in that sequence, and a job for it.
        """
        is_given = bool(given)
        while is_given:
            is_given = False
            for place, each in enumerate(given):
                share = -(-(len(self._waiting) + sum(map(len, given))) // len(given))
                job = self.next_job(each, min(share, MOST_AHEAD))
                if job is not None:
                    is_given = True
                    yield place, job

    def next_job(self, given: InFlight, most: int = MOST_AHEAD) -> PreparedJob | None:
        """Give a worker the next job, and return it; None if the worker should get none now.

        Args:
            given: What the worker has.
            most: Number of small images that it may have.
        """
        if self.is_over or given.is_on_trial or not given.has_room(most) or (self._suspects and given.jobs):
            return None
        if self._suspects:
            cost, job = 0, self._suspects.popleft()
            given.is_on_trial = True
        else:
            cost, job = self._waiting.popleft()
        given.add(job, cost)
        return job

    def worker_died(self, given: InFlight) -> Outcome | None:
        """Take back the jobs of a worker that died; return the outcome of a job that is given up."""
        self._deaths.update(job.job for job in given.jobs)
        jobs = [job for _, job in given.clear()]
        if len(jobs) == 1 and self._deaths[jobs[0].job] >= MOST_DEATHS:
            return _give_up(jobs[0].job)
        self._suspects.extend(map(renew, jobs))
        return None

    def is_suspect(self, job: PreparedJob) -> bool:
        """Tell whether a worker died while it had the job."""
        return self._deaths[job.job] > 0

    def take_back(self, given: InFlight) -> None:
        """Take back the jobs of a worker that is not used any more, for other reasons than its death."""
        is_on_trial = given.is_on_trial
        jobs = [(cost, renew(job)) for cost, job in given.clear()]
        if is_on_trial:
            self._suspects.extend(job for _, job in jobs)
        else:
            self._waiting.extendleft(reversed(jobs))

    def retry(self, job: PreparedJob) -> None:
        """Have a job done once more."""
        self._suspects.append(renew(job))


def _give_up(job: Job) -> Outcome:
    error = MambairError(f"cannot restore {job.source}: {MOST_DEATHS} workers died over it; leave it out")
    return Outcome.failed(job, error)


def renew(job: PreparedJob) -> PreparedJob:
    """Return a job to do again; its result may exist, if the worker died before it could say so."""
    is_written = job.guard is not None and job.guard.is_written()
    return replace(job, overwrite=job.overwrite or is_written)


def cost_of(job: PreparedJob) -> int:
    """Estimate the cost of a job: the bytes of its image."""
    try:
        return job.job.source.path.stat().st_size if job.job.source.path else 0
    except OSError:  # opening it will report why
        return 0
