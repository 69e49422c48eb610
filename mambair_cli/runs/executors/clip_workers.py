"""Whole segments of a clip, shared out among worker processes."""

from collections import Counter, deque

from mambair_cli.errors import MambairError
from mambair_cli.runs.clip_sharing import ClipSegment, SharedClip
from mambair_cli.runs.executors.messages import (
    Died,
    FrameEncoded,
    RestoreSegment,
    SegmentFailed,
    SegmentFinished,
)
from mambair_cli.runs.executors.processes import WorkerProcesses
from mambair_cli.runs.executors.scheduler import MOST_DEATHS
from mambair_cli.runs.executors.worker import Worker
from mambair_cli.system.wording import show

_LOOK_SECONDS = 0.05  # after which the parent looks whether a further segment is known


class ClipWorkers:
    """Worker processes that each restore whole segments of a clip.

    A worker is given its next segment in the second half of the one that it makes: early enough to go on
    without a pause, and late, so that all end at nearly the same time. The segments of a worker that dies go
    to others, each alone, and a segment over which several died is given up.

    Args:
        workers: The worker processes.
    """

    def __init__(self, workers: WorkerProcesses) -> None:
        self._workers = workers

    @property
    def count(self) -> int:
        """Number of workers."""
        return self._workers.count

    @property
    def are_gpus(self) -> bool:
        """Whether the workers compute on GPUs."""
        return self._workers.are_gpus

    def restore(self, shared: SharedClip) -> None:
        """Restore all segments of a clip; see :class:`mambair_cli.runs.clip_sharing.SegmentWorkers`."""
        self._workers.refill()
        try:
            _SegmentLoop(self._workers, shared).run()
        except BaseException:
            self._workers.end_busy()  # they would go on with what nobody wants
            raise


class _SegmentLoop:
    """The segments of one clip among the workers.

    Args:
        workers: The worker processes.
        shared: The segments.
    """

    def __init__(self, workers: WorkerProcesses, shared: SharedClip) -> None:
        self._workers, self._shared = workers, shared
        self._lost: deque[ClipSegment] = deque()
        self._deaths: Counter[int] = Counter()  # of workers that had a segment, by its number

    def run(self) -> None:
        """Hand out segments until all are finished."""
        while True:
            has_room = self._hand_out()
            if not any(worker.segments for worker in self._workers.present) and self._is_over:
                return
            self._workers.require_some()
            for worker, message in self._workers.listen(_LOOK_SECONDS if has_room else None):
                self._deal_with(worker, message)

    @property
    def _is_over(self) -> bool:
        return self._shared.is_over and not self._lost

    def _hand_out(self) -> bool:
        """Give segments to workers, to those first that have none; tell whether one could take more."""
        for worker in sorted(self._workers.present, key=lambda each: len(each.segments)):
            if self._has_room(worker) and (segment := self._next_for(worker)) is not None:
                worker.segments.append(segment)
                worker.frames_left += len(segment.marks)
                worker.send(RestoreSegment(self._shared.order, segment))
        return not self._is_over and any(map(self._has_room, self._workers.present))

    def _has_room(self, worker: Worker) -> bool:
        if not worker.segments:
            return True
        if self._lost:
            return False  # the worker that ends first takes a segment that was lost
        is_on_trial = any(self._deaths[segment.number] for segment in worker.segments)
        return not is_on_trial and worker.frames_left <= self._shared.order.length // 2

    def _next_for(self, worker: Worker) -> ClipSegment | None:
        if self._lost and not worker.segments:
            return self._lost.popleft()
        return self._shared.next_segment()

    def _deal_with(self, worker: Worker, message: object) -> None:
        match message:
            case FrameEncoded(number, is_repeated):
                worker.frames_left -= 1
                self._shared.frame_encoded(number, is_repeated)
            case SegmentFinished(number, warnings):
                worker.segments = [each for each in worker.segments if each.number != number]
                self._shared.segment_finished(number, warnings)
            case SegmentFailed(error):
                raise error
            case Died():
                self._lose(worker)
            case _:
                raise ValueError(f"a worker that was given only segments sent {message!r}")

    def _lose(self, worker: Worker) -> None:
        """Have others do what a worker had that has died."""
        for segment in worker.segments:
            self._deaths[segment.number] += 1
            self._shared.segment_lost(segment.number)
            if self._deaths[segment.number] == MOST_DEATHS:
                raise MambairError(
                    f"cannot restore {show(self._shared.order.source)}: {MOST_DEATHS} workers died over "
                    f"{segment.frames}; see their messages, use fewer, and go on with --resume"
                )
        self._lost.extend(worker.segments)
