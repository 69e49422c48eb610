"""A worker of a Ray cluster: a network that waits for jobs, perhaps on another machine."""

import os
import queue
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import torch

from mambair_cli.checkpoints.select import ChosenModel, PictureKind
from mambair_cli.inspection.need import Kind
from mambair_cli.restore.engine import DEVICE_ERROR
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.settings import RestoreSettings
from mambair_cli.runs.executors.messages import Done, NetworkLoaded, Unseen
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.pipeline import Pipeline
from mambair_cli.runs.run import PreparedJob
from mambair_cli.system.notices import telling


class RayWorker:
    """Does jobs that come from any thread, in their order: reads ahead, and writes behind.

    Args:
        settings: Settings of the restorer, except the weights.
        checkpoint: Content of the checkpoint's file.
        name: Name of that file.
        threads: Threads of PyTorch.
        folder: Folder in which relative paths begin.
        others: Kind, level, model and content of the checkpoint, for kinds of pictures with a model of their
            own.

    Attributes:
        loaded: Message that the network is loaded.

    Raises:
        MambairError: The network cannot be loaded.
    """

    def __init__(
        self,
        settings: RestoreSettings,
        checkpoint: bytes,
        name: str,
        threads: int,
        folder: str,
        others: Sequence[tuple[Kind, int | None, str, bytes]] = (),
    ) -> None:
        torch.set_num_threads(threads)
        self._remarks: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._warnings = ExitStack()  # open until the worker ends: nobody reads what it prints
        self._warnings.enter_context(telling(self._remarks.put))
        with suppress(OSError):  # if it matters, the worker does not see the files of its jobs
            os.chdir(folder)
        with tempfile.TemporaryDirectory(prefix="mambair-") as place:
            weights = Path(place, name)
            weights.write_bytes(checkpoint)
            models = {}
            for kind, level, model, content in others:
                path = Path(place, f"{kind}-{level}-{model}")
                path.write_bytes(content)
                models[PictureKind(kind, level)] = ChosenModel(model, path)
            settings = replace(settings, asked=settings.asked.by_file(weights), others=models)
            self._restorer = Restorer.from_settings(settings)
            for each in models:  # now, since the files are gone then
                self._restorer.for_kind(each)
            self.loaded = NetworkLoaded(self._restorer.info.scale, Fingerprint.of(self._restorer))
        self._waiting: queue.SimpleQueue[tuple[PreparedJob, Future[Outcome]] | None] = queue.SimpleQueue()
        self._taken: deque[Future[Outcome]] = deque()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mambair-compute", daemon=True)
        self._thread.start()

    def perform(self, job: PreparedJob) -> Done | Unseen:
        """Do a job, and return when its outcome is known."""
        source, root = job.job.source.path, job.job.root
        if root is not None and job.guard is not None and not job.guard.sees_journal():
            return Unseen(root)
        if source is not None and not os.path.lexists(source):
            return Unseen(source)
        future: Future[Outcome] = Future()
        self._waiting.put((job, future))
        outcome = future.result()
        remarks = []
        with suppress(queue.Empty):
            while True:
                remarks.append(self._remarks.get_nowait())
        return Done(replace(outcome, remarks=tuple(remarks)))

    def close(self) -> None:
        """Finish the images whose rows are computed; the others leave no result."""
        self._is_closed.set()
        self._waiting.put(None)
        self._thread.join()
        self._warnings.close()

    def _jobs(self) -> Iterator[PreparedJob]:
        while (item := self._waiting.get()) is not None:
            job, future = item
            self._taken.append(future)
            yield job

    def _work(self) -> None:
        """Do jobs; this is the thread."""
        pipeline = Pipeline(
            self._jobs(), self._is_closed.is_set, self._restorer, on_tiles=self._leave_if_closed
        )
        try:
            for outcome in pipeline.outcomes():
                self._taken.popleft().set_result(outcome)
        except SystemExit:
            return
        except DEVICE_ERROR:  # this process cannot use the device any more; another will be started
            traceback.print_exc()
            os._exit(1)
        except Exception as error:
            for future in self._taken:
                future.set_exception(error)

    def _leave_if_closed(self, done: int, total: int) -> None:
        if self._is_closed.is_set():
            raise SystemExit
