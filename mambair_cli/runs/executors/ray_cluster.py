"""Workers on all machines of a Ray cluster, each with the network loaded once.

Ray starts them, carries tasks to them and outcomes back, and tells which of them are lost; who does what, and
what is done again, is decided here. The images do not travel: all machines see the same files.
"""

import errno
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mambair_cli.errors import ImageError, MambairError, UsageError
from mambair_cli.images import explain_unreadable
from mambair_cli.runs.executors.ray_connection import join_cluster
from mambair_cli.runs.executors.ray_worker import Unseen
from mambair_cli.runs.executors.scheduler import InFlight, Scheduler
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.pipeline import MOST_AHEAD
from mambair_cli.runs.run import IsStopped, PreparedJob

CPUS_EACH = 4  # of a worker without a GPU; more threads hardly make one image faster
MOST_LOSSES = 3  # of workers on a node, one after the other with nothing done, before it is left alone

START_SECONDS = 300  # for a worker to start, where there is none
OTHERS_SECONDS = 30  # for further ones, once one has
LOOK_SECONDS = 5  # between two looks at which nodes there are
STOP_SECONDS = 10  # for workers to put down what they have in hand

_REASONS = {
    "ActorDiedError": "it died",
    "ActorUnavailableError": "it does not answer",
    "OutOfMemoryError": "its machine ran out of memory",
}  # of Ray's errors, in a few words


class _LostJob(NamedTuple):
    """A worker, or the way to it, is no more."""

    reason: str


@dataclass(eq=False)
class _RayWorker:
    """A worker as it is known here.

    Attributes:
        node: On which it runs.
        place: That node's address.
        actor: Ray's handle.
        hand: Its tasks.
        is_ready: Whether it has loaded the network.
    """

    node: str
    place: str
    actor: Any
    hand: InFlight = field(default_factory=InFlight)
    is_ready: bool = False


class RayCluster:
    """Workers on the nodes of a running Ray cluster: one a GPU, or, if there is none, one for four CPUs.

    Nodes that come later are used, too. A worker that is lost is replaced, and its tasks are done again.

    Args:
        address: "auto" for the cluster that this machine is part of, or HOST:PORT of its head.
        notify: Told in a sentence of workers that are lost.

    Attributes:
        kind: "cuda" or "cpu", on which the workers compute.

    Raises:
        UsageError: There is no such cluster, or it cannot be used from here.
    """

    def __init__(self, address: str, notify: Callable[[str], None] = lambda sentence: None) -> None:
        self._ray = join_cluster(address)
        self._notify = notify
        self._workers: list[_RayWorker] = []
        self._refs: dict[
            Any, tuple[_RayWorker, PreparedJob | None]
        ] = {}  # what is waited for; None: that it loads
        self._losses: Counter[str] = Counter()
        self._refused: set[str] = set()
        self._passed_on: set[tuple[str, str]] = set()  # nodes and what they have said
        self._looked = -math.inf
        self._actor_class = self._ray.remote(_make_actor_class())
        self._loading: tuple[Any, ...] = ()
        has_gpu = any(node["Resources"].get("GPU", 0) >= 1 for node in self._nodes())
        self.kind: Literal["cuda", "cpu"] = "cuda" if has_gpu else "cpu"

    @property
    def place(self) -> str:
        """Where it computes, in a word."""
        ready = [worker for worker in self._workers if worker.is_ready]
        workers, nodes = len(ready), len({worker.node for worker in ready})
        return f"{self.kind} ({workers} worker{'s' * (workers > 1)} on {nodes} Ray node{'s' * (nodes > 1)})"

    def start(self, options: dict[str, Any], checkpoint: Path) -> Fingerprint:
        """Start the workers, and have them load the network.

        Args:
            options: Of the ``Restorer`` that each makes, all but its device and weights.
            checkpoint: These; workers are sent the file.

        Returns:
            All that pixels depend on besides the images.

        Raises:
            UsageError: No worker starts, or one cannot work with this process.
            MambairError: As the ``Restorer`` does.
        """
        self._loading = (
            version("mambair-cli"),
            {**options, "device": self.kind},
            self._ray.put(checkpoint.read_bytes()),
            checkpoint.name,
            os.getcwd(),
        )
        fingerprint: Fingerprint | None = None
        begun = time.monotonic()
        while True:
            self._look()
            waited = time.monotonic() - begun
            if not self._workers:
                raise UsageError("no worker starts on the Ray cluster; see the logs of its nodes")
            if fingerprint and (waited > OTHERS_SECONDS or all(worker.is_ready for worker in self._workers)):
                return fingerprint
            if waited > START_SECONDS:
                raise UsageError(
                    f"no worker has started within {START_SECONDS} s: the cluster is busy; see `ray status`"
                )
            for worker, _, message in self._listen():
                if isinstance(message, Fingerprint):
                    fingerprint = message
                elif isinstance(message, _LostJob):
                    self._lose(worker, message.reason)
                else:
                    raise message

    def perform(self, tasks: Iterable[PreparedJob], is_stopped: IsStopped) -> Generator[Outcome]:
        """Share tasks out among the workers, large ones first; yield what becomes of each, as it is known.

        Raises:
            UsageError: A task is to read or write where only this process can.
            MambairError: All workers are lost.
        """
        tasks = list(tasks)
        jobs = [task.job for task in tasks]
        if any(job.source.path is None or job.target is None or job.is_stream for job in jobs):
            raise UsageError(
                "other machines reach no standard input or output, no pipes and no devices; leave out --ray"
            )
        shares = Scheduler(tasks, is_stopped)
        del tasks
        alive = time.monotonic()
        while True:
            for worker in [worker for worker in self._workers if worker.is_ready]:
                alive = time.monotonic()
                while (task := shares.draw(worker.hand)) is not None:
                    self._refs[worker.actor.perform.remote(task)] = worker, task
            if shares.is_over and not any(worker.hand.tasks for worker in self._workers):
                return
            if not self._workers or time.monotonic() - alive > START_SECONDS:
                raise MambairError(
                    "all workers of the cluster are lost; start others, and go on with --resume"
                )
            for worker, task, message in self._listen():
                if task is not None:
                    yield from self._settle(shares, worker, task, message)
                elif isinstance(message, _LostJob):
                    self._lose(worker, message.reason)
                elif isinstance(message, MambairError):
                    self._dismiss(worker, shares, str(message))
            self._look()

    def close(self) -> None:
        """Send the workers home; what they have not finished is left as if it had not begun."""
        if not self._ray.is_initialized():
            return
        try:
            stopping = [worker.actor.stop.remote() for worker in self._workers if worker.is_ready]
            if stopping:
                self._ray.wait(stopping, num_returns=len(stopping), timeout=STOP_SECONDS)
        finally:
            for worker in self._workers:
                self._kill(worker)
            self._workers, self._refs = [], {}
            self._ray.shutdown()

    def _settle(
        self, shares: Scheduler, worker: _RayWorker, task: PreparedJob, message: Outcome | Unseen | _LostJob
    ) -> Iterator[Outcome]:
        """Deal with what a worker says of a task."""
        if isinstance(message, _LostJob):
            self._lose(worker, message.reason)
            given_up = shares.bury(worker.hand)
            if given_up is not None:
                yield given_up
        elif isinstance(message, Unseen) and os.path.lexists(message.path):
            self._dismiss(worker, shares, f"it does not see {message.path} as this machine does")
        else:
            worker.hand.put_down(task)
            self._losses[worker.node] = 0
            if isinstance(message, Outcome):
                self._pass_on(worker, message.remarks)
            if isinstance(message, Unseen):
                error = explain_unreadable(message.path, FileNotFoundError(errno.ENOENT, ""))
                message = Outcome.failed(task.job, error)
            if isinstance(message.error, ImageError) and shares.is_suspect(task) and _is_finished(task):
                shares.retry(task)  # who was taken for dead has written it meanwhile
            else:
                yield replace(message, job=task.job)

    def _pass_on(self, worker: _RayWorker, remarks: Iterable[str]) -> None:
        """Tell what a node has to say of how it computes, once."""
        for sentence in remarks:
            if (worker.node, sentence) not in self._passed_on:
                self._passed_on.add((worker.node, sentence))
                self._notify(f"on the node {worker.place}: {sentence}")

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _look(self) -> None:
        """Start the workers that are missing on the nodes that there are."""
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
            max_concurrency=MOST_AHEAD + 2,  # a thread for each task in hand, and one to be stopped by
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote()
        worker = _RayWorker(node["NodeID"], node["NodeManagerAddress"], actor)
        self._workers.append(worker)
        self._refs[actor.load.remote(threads, *self._loading)] = worker, None

    def _listen(self) -> Iterator[tuple[_RayWorker, PreparedJob | None, Any]]:
        """Wait for workers to say something; yield what was waited for, and what is said, losses last."""
        refs = list(self._refs)
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=LOOK_SECONDS)
        if ready:
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        said = [(*self._refs.pop(ref), self._receive(ref)) for ref in ready]
        for worker, task, message in sorted(said, key=lambda item: isinstance(item[2], _LostJob)):
            if worker not in self._workers:  # it is done without, and what it had is with others
                continue
            if isinstance(message, Fingerprint):
                worker.is_ready = True
            elif isinstance(message, str):  # what its node lacks
                message = UsageError(f"{message}: {worker.place}; install the same as here")
            elif isinstance(message, MambairError):  # the model is right, as was seen here
                message = type(message)(f"on the node {worker.place}: {message}")
            yield worker, task, message

    def _receive(self, ref: Any) -> Any:
        """Return what a worker has said."""
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"in a worker of the Ray cluster:\n{error}") from error
        except self._ray.exceptions.RayError as error:
            name = type(error).__name__
            return _LostJob(_REASONS.get(name, name))

    def _lose(self, worker: _RayWorker, reason: str) -> None:
        """Do without a worker from now on."""
        self._losses[worker.node] += 1
        held = f" with {worker.hand} in hand" if worker.hand.tasks else ""
        if worker.is_ready:  # Ray may still know of a node that is gone, where none will start
            self._notify(f"the worker on {worker.place} was lost{held}: {reason}")
        if self._losses[worker.node] == MOST_LOSSES:
            self._notify(f"no further worker is started on the node {worker.place}: {MOST_LOSSES} were lost")
        self._forget(worker)

    def _dismiss(self, worker: _RayWorker, shares: Scheduler, reason: str) -> None:
        """Do without the workers of a node, on which there is no working."""
        self._notify(f"the node {worker.place} is left out: {reason}")
        self._refused.add(worker.node)
        for other in [other for other in self._workers if other.node == worker.node]:
            shares.return_all(other.hand)
            self._forget(other)

    def _forget(self, worker: _RayWorker) -> None:
        self._workers.remove(worker)
        self._refs = {ref: item for ref, item in self._refs.items() if item[0] is not worker}
        self._kill(worker)
        self._looked = -math.inf  # it may be replaced at once

    def _kill(self, worker: _RayWorker) -> None:
        with suppress(self._ray.exceptions.RayError, ValueError):  # it is dead
            self._ray.kill(worker.actor)


def _make_actor_class() -> type:
    """Return the class of which each worker is one.

    Ray sends it as it stands, since it is no module's: so it can tell what the machine lacks.
    """

    class MambairWorker:
        def load(
            self,
            threads: int,
            wanted: str,
            options: dict[str, Any],
            checkpoint: bytes,
            name: str,
            folder: str,
        ) -> Any:
            import importlib.metadata

            try:
                from mambair_cli.system.process import settle_process

                found = importlib.metadata.version("mambair-cli")
            except ImportError:
                return f"mambair {wanted} is not installed on a node of the Ray cluster"
            if found != wanted:
                return f"mambair is {found}, not {wanted}, on a node of the Ray cluster"
            settle_process()  # before PyTorch is imported
            from mambair_cli.errors import MambairError
            from mambair_cli.runs.executors.ray_worker import Station

            try:
                self._station = Station(options, checkpoint, name, threads, folder)
            except MambairError as error:
                return error
            return self._station.fingerprint

        def perform(self, task: Any) -> Any:
            return self._station.perform(task)

        def stop(self) -> None:
            self._station.close()

    return MambairWorker


def _count_workers(resources: dict[str, float], kind: str) -> int:
    """Say how many workers a node has, by what Ray knows of it."""
    if kind == "cuda":
        return int(resources.get("GPU", 0))
    cpus = int(resources.get("CPU", 0))
    return min(cpus, max(1, cpus // CPUS_EACH))


def _is_finished(task: PreparedJob) -> bool:
    """Tell whether a result is there that this run has written, of a task that may not replace one."""
    return not task.overwrite and task.watch is not None and task.watch.is_written()
