"""Workers on all machines of a Ray cluster, each with the network loaded once.

Ray starts the workers, carries jobs and outcomes, and reports lost workers; the order of jobs, and what is
done again, is decided here. Images do not travel: all machines see the same files.
"""

import errno
import math
import os
import pickle
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

from mambair_cli.checkpoints.select import ChosenModel, PictureKind
from mambair_cli.errors import ImageError, MambairError, UsageError
from mambair_cli.restore.settings import RestoreSettings
from mambair_cli.runs.executors.messages import Died, Done, NetworkLoaded, NotLoaded, Unseen
from mambair_cli.runs.executors.protocol import ExecutorInfo, describe_choice
from mambair_cli.runs.executors.ray_actor import make_actor_class
from mambair_cli.runs.executors.ray_connection import join_cluster
from mambair_cli.runs.executors.scheduler import MOST_LOSSES, InFlight, Scheduler
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.pipeline import MOST_AHEAD
from mambair_cli.runs.run import IsStopped, PreparedJob
from mambair_cli.system.file_errors import explain_unreadable

CPUS_EACH = 4  # of a worker without a GPU; more threads hardly make one image faster
START_SECONDS = 300  # for a first worker to start
OTHERS_SECONDS = 30  # for others, once one has started
LOOK_SECONDS = 5  # between two looks at the nodes of the cluster
STOP_SECONDS = 10  # for workers to undo what they have begun

_REASONS = {
    "ActorDiedError": "it died",
    "ActorUnavailableError": "it does not answer",
    "OutOfMemoryError": "its machine ran out of memory",
}  # Ray's errors in a few words


@dataclass(eq=False)
class _Worker:
    """A worker as this process sees it.

    Attributes:
        node: Node that it runs on.
        place: Address of that node.
        actor: Ray's handle of the worker.
        jobs: Jobs that it was given and has not done.
        is_ready: Whether it has loaded the network.
    """

    node: str
    place: str
    actor: Any
    jobs: InFlight = field(default_factory=InFlight)
    is_ready: bool = False


class _Loading(NamedTuple):
    """What each worker loads.

    Attributes:
        version: Version of mambair that the worker needs.
        settings: Settings of its restorer, except the weights; pickled, since a node may lack mambair.
        checkpoint: Ray's reference to the content of the checkpoint's file.
        name: Name of that file.
        folder: Folder in which relative paths begin.
        kinds: Kind, level and model, for each kind of pictures with a model of its own; plain tuples, too.
        contents: Ray's references to the checkpoints of these.
    """

    version: str
    settings: bytes
    checkpoint: Any
    name: str
    folder: str
    kinds: list[tuple[str, int | None, str]]
    contents: list[Any]


class NodeNotices:
    """Shows what nodes say of how they compute, each sentence once per node."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._shown: set[tuple[str, str]] = set()

    def show(self, place: str, sentences: Iterable[str]) -> None:
        """Show the sentences of the node at an address that are new."""
        for sentence in sentences:
            if (place, sentence) not in self._shown:
                self._shown.add((place, sentence))
                self._notify(f"on the node {place}: {sentence}")


class RayCluster:
    """Workers on the nodes of a running Ray cluster: one per GPU, or, if there is none, one per four CPUs.

    Nodes that join later are used, too. A lost worker is replaced, and its jobs are done again.

    Args:
        address: "auto" for the cluster that this machine is part of, or HOST:PORT of its head.
        notify: Called with a sentence about lost workers.

    Attributes:
        kind: "cuda" or "cpu", which the workers compute on.

    Raises:
        UsageError: There is no such cluster, or it cannot be used from here.
    """

    def __init__(self, address: str, notify: Callable[[str], None] = lambda sentence: None) -> None:
        self._ray = join_cluster(address)
        self._notify = notify
        self._notices = NodeNotices(notify)
        self._workers: list[_Worker] = []
        # What is waited for, by Ray's references: the job of a worker, or None while it loads.
        self._refs: dict[Any, tuple[_Worker, PreparedJob | None]] = {}
        self._losses: Counter[str] = Counter()
        self._refused: set[str] = set()
        self._looked = -math.inf
        self._actor_class = self._ray.remote(make_actor_class())
        self._loading: _Loading | None = None
        self._info: ExecutorInfo | None = None
        has_gpu = any(node["Resources"].get("GPU", 0) >= 1 for node in self._nodes())
        self.kind: Literal["cuda", "cpu"] = "cuda" if has_gpu else "cpu"

    @property
    def info(self) -> ExecutorInfo:
        """Return the model, and the number of workers and nodes; only after :meth:`start`."""
        if self._info is None:
            raise ValueError("a cluster is started before it has a model")
        ready = [worker for worker in self._workers if worker.is_ready]
        workers, nodes = len(ready), len({worker.node for worker in ready})
        place = f"{self.kind} ({workers} worker{'s' * (workers > 1)} on {nodes} Ray node{'s' * (nodes > 1)})"
        return replace(self._info, place=place)

    def start(
        self,
        settings: RestoreSettings,
        model: ChosenModel,
        others: Mapping[PictureKind, ChosenModel] | None = None,
    ) -> None:
        """Start the workers, and have them load the network.

        Args:
            settings: Settings of the restorer that each worker makes, except its device and its model.
            model: Model to load; workers are sent its file.
            others: Models for kinds of pictures that it does not suit.

        Raises:
            UsageError: No worker starts, or one cannot work with this process.
            MambairError: A worker cannot load the network.
        """
        self._loading = _Loading(
            version("mambair-cli"),
            pickle.dumps(replace(settings, device=self.kind, asked=settings.asked.by_file(None))),
            self._ray.put(model.path.read_bytes()),
            model.path.name,
            os.getcwd(),
            [(kind, level, one.name) for (kind, level), one in (others or {}).items()],
            [self._ray.put(one.path.read_bytes()) for one in (others or {}).values()],
        )
        begun = time.monotonic()
        while True:
            self._look()
            waited = time.monotonic() - begun
            if not self._workers:
                raise UsageError("no worker starts on the Ray cluster; see the logs of its nodes")
            if self._info and (waited > OTHERS_SECONDS or all(worker.is_ready for worker in self._workers)):
                return
            if waited > START_SECONDS:
                raise UsageError(
                    f"no worker has started within {START_SECONDS} s: the cluster is busy; see `ray status`"
                )
            for worker, _, message in self._listen():
                match message:
                    case NetworkLoaded(scale, fingerprint):
                        self._info = ExecutorInfo(
                            model.name, scale, "", fingerprint, model.tell(settings.offline)
                        )
                        if others:
                            self._info = describe_choice(
                                model, others.values(), scale, "", fingerprint, settings.offline
                            )
                    case NotLoaded(error):
                        raise error
                    case Died(reason):
                        self._lose(worker, reason)

    def perform(self, jobs: Iterable[PreparedJob], is_stopped: IsStopped) -> Generator[Outcome]:
        """Share jobs out among the workers, large ones first; yield the outcome of each as it is known.

        Raises:
            UsageError: A job reads or writes where only this process can.
            MambairError: All workers are lost.
        """
        jobs = list(jobs)
        if any(job.job.source.path is None or job.job.target is None or job.job.is_stream for job in jobs):
            raise UsageError(
                "other machines cannot use standard input or output, pipes or devices; leave out --ray"
            )
        scheduler = Scheduler(jobs, is_stopped)
        del jobs
        try:
            yield from self._share_out(scheduler)
        finally:
            if any(worker.jobs for worker in self._workers):  # the journals close next: nobody writes then
                self._end_workers()

    def _share_out(self, scheduler: Scheduler) -> Iterator[Outcome]:
        """Give each job to one worker.

        Raises:
            MambairError: All workers are lost.
        """
        alive = time.monotonic()
        while True:
            ready = [worker for worker in self._workers if worker.is_ready]
            if ready:
                alive = time.monotonic()
            for place, job in scheduler.hand_out([worker.jobs for worker in ready]):
                self._refs[ready[place].actor.perform.remote(job)] = ready[place], job
            if scheduler.is_over and not any(worker.jobs for worker in self._workers):
                return
            if not self._workers or time.monotonic() - alive > START_SECONDS:
                raise MambairError(
                    "all workers of the cluster are lost; start others, and go on with --resume"
                )
            for worker, job, message in self._listen():
                yield from self._deal_with(scheduler, worker, job, message)
            self._look()

    def close(self) -> None:
        """Stop the workers; what they have not finished leaves no result."""
        if not self._ray.is_initialized():
            return
        try:
            self._end_workers()
        finally:
            self._ray.shutdown()

    def _end_workers(self) -> None:
        try:
            stopping = [worker.actor.stop.remote() for worker in self._workers if worker.is_ready]
            if stopping:
                self._ray.wait(stopping, num_returns=len(stopping), timeout=STOP_SECONDS)
        finally:
            for worker in self._workers:
                self._kill(worker)
            self._workers, self._refs = [], {}

    def _deal_with(
        self, scheduler: Scheduler, worker: _Worker, job: PreparedJob | None, message: Any
    ) -> Iterator[Outcome]:
        """Deal with a message of a worker, about a job or about its loading; yield what is decided by it."""
        match message:
            case Died(reason):
                self._lose(worker, reason)
                if job is not None and (given_up := scheduler.worker_died(worker.jobs)) is not None:
                    yield given_up
            case NotLoaded(error):
                self._refuse_node(worker, scheduler, str(error))
            case Unseen(path) if os.path.lexists(path):
                self._refuse_node(worker, scheduler, f"it does not see {path} as this machine does")
            case Unseen(path) if job is not None:
                error = explain_unreadable(path, FileNotFoundError(errno.ENOENT, ""))
                yield from self._settle(scheduler, worker, job, Outcome.failed(job.job, error))
            case Done(outcome) if job is not None:
                self._notices.show(worker.place, outcome.remarks)
                yield from self._settle(scheduler, worker, job, outcome)

    def _settle(
        self, scheduler: Scheduler, worker: _Worker, job: PreparedJob, outcome: Outcome
    ) -> Iterator[Outcome]:
        """Yield the outcome of a job, unless the job is to be done once more."""
        worker.jobs.remove(job)
        self._losses[worker.node] = 0
        if isinstance(outcome.error, ImageError) and scheduler.is_suspect(job) and _is_finished(job):
            scheduler.retry(job)  # a worker that was taken for dead has written it meanwhile
        else:
            yield replace(outcome, job=job.job)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _look(self) -> None:
        """Start the workers that are missing on the nodes of the cluster."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for node in self._nodes():
            name = node["NodeID"]
            if name not in self._refused and self._losses[name] < MOST_LOSSES:
                present = sum(worker.node == name for worker in self._workers)
                for _ in range(present, _count_workers(node["Resources"], self.kind)):
                    self._start_worker(node)

    def _start_worker(self, node: dict[str, Any]) -> None:
        from ray.util.scheduling_strategies import (  # pyright: ignore[reportMissingImports]: optional
            NodeAffinitySchedulingStrategy,
        )

        count = _count_workers(node["Resources"], self.kind)
        threads = max(1, int(node["Resources"].get("CPU", 1)) // count)
        actor = self._actor_class.options(
            num_cpus=threads if self.kind == "cpu" else 0,
            num_gpus=0 if self.kind == "cpu" else 1,
            max_concurrency=MOST_AHEAD + 2,  # a thread for each job, and one to stop it by
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote()
        worker = _Worker(node["NodeID"], node["NodeManagerAddress"], actor)
        self._workers.append(worker)
        if self._loading is None:
            raise ValueError("a worker starts when it is known what to load")
        *loading, contents = self._loading
        # Ray fetches what a reference stands for only where that is an argument itself.
        self._refs[actor.load.remote(threads, *loading, *contents)] = worker, None

    def _listen(self) -> Iterator[tuple[_Worker, PreparedJob | None, Any]]:
        """Wait for messages of workers; yield them with the jobs that they are about, deaths last."""
        refs = list(self._refs)
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=LOOK_SECONDS)
        if ready:
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        received = []
        for ref in ready:
            worker, job = self._refs.pop(ref)
            received.append((worker, job, self._receive(ref, worker)))
        for worker, job, message in sorted(received, key=lambda item: isinstance(item[2], Died)):
            if worker not in self._workers:  # it is not used any more, and its jobs are with others
                continue
            worker.is_ready = worker.is_ready or isinstance(message, NetworkLoaded)
            yield worker, job, message

    def _receive(self, ref: Any, worker: _Worker) -> NetworkLoaded | NotLoaded | Done | Unseen | Died:
        """Return the message of a worker; errors about loading name its node."""
        try:
            message = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"in a worker of the Ray cluster:\n{error}") from error
        except self._ray.exceptions.RayError as error:
            name = type(error).__name__
            return Died(_REASONS.get(name, name))
        match message:
            case str():  # a node without this version of mambair knows none of its messages
                return NotLoaded(UsageError(f"{message}: {worker.place}; install the same as here"))
            case NotLoaded(error):  # the model itself is right: this process has loaded it
                return NotLoaded(type(error)(f"on the node {worker.place}: {error}"))
        return message

    def _lose(self, worker: _Worker, reason: str) -> None:
        """Go on without a worker."""
        self._losses[worker.node] += 1
        jobs = f" while it had {worker.jobs}" if worker.jobs else ""
        if worker.is_ready:  # otherwise its node may be gone, while Ray still lists it
            self._notify(f"the worker on {worker.place} was lost{jobs}: {reason}")
        if self._losses[worker.node] == MOST_LOSSES:
            self._notify(f"no further worker is started on the node {worker.place}: {MOST_LOSSES} were lost")
        self._forget(worker)

    def _refuse_node(self, worker: _Worker, scheduler: Scheduler, reason: str) -> None:
        """Go on without the workers of a node that cannot do the jobs."""
        self._notify(f"the node {worker.place} is left out: {reason}")
        self._refused.add(worker.node)
        for other in [other for other in self._workers if other.node == worker.node]:
            scheduler.take_back(other.jobs)
            self._forget(other)

    def _forget(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._refs = {ref: item for ref, item in self._refs.items() if item[0] is not worker}
        self._kill(worker)
        self._looked = -math.inf  # it may be replaced at once

    def _kill(self, worker: _Worker) -> None:
        with suppress(self._ray.exceptions.RayError, ValueError):  # it is dead
            self._ray.kill(worker.actor)


def _count_workers(resources: dict[str, float], kind: str) -> int:
    """Return the number of workers for a node, by the resources that Ray lists."""
    if kind == "cuda":
        return int(resources.get("GPU", 0))
    cpus = int(resources.get("CPU", 0))
    return min(cpus, max(1, cpus // CPUS_EACH))


def _is_finished(job: PreparedJob) -> bool:
    """Tell whether this run has written the result already, of a job that may not replace one."""
    return not job.overwrite and job.guard is not None and job.guard.is_written()
