"""A network that waits for tasks in a process of its own, perhaps on another machine."""

import os
import queue
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mambair_cli.restore.engine import DEVICE_ERROR
from mambair_cli.restore.restorer import Restorer
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.pipeline import perform_alone
from mambair_cli.runs.run import PreparedJob
from mambair_cli.system.notices import telling


class Unseen(NamedTuple):
    """A file or folder of a task is not to be seen from the station."""

    path: Path


class Station:
    """Does tasks that come from any thread, in their order: read ahead, and written behind.

    Args:
        options: Of the ``Restorer``, all but its weights.
        checkpoint: The file of these.
        name: Of that file.
        threads: Of PyTorch.
        folder: In which relative paths begin.

    Attributes:
        fingerprint: All that pixels depend on besides the images.

    Raises:
        MambairError: As the ``Restorer`` does.
    """

    def __init__(
        self, options: dict[str, Any], checkpoint: bytes, name: str, threads: int, folder: str
    ) -> None:
        torch.set_num_threads(threads)
        self._remarks: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._telling = ExitStack()  # as long as the process lives: nobody reads what it prints
        self._telling.enter_context(telling(self._remarks.put))
        with suppress(OSError):  # where it matters, its tasks will not be seen
            os.chdir(folder)
        with tempfile.TemporaryDirectory(prefix="mambair-") as place:
            weights = Path(place, name)
            weights.write_bytes(checkpoint)
            self._restorer = Restorer(**options, weights=weights)
            self.fingerprint = Fingerprint.of(self._restorer)
        self._waiting: queue.SimpleQueue[tuple[PreparedJob, Future[Outcome]] | None] = queue.SimpleQueue()
        self._taken: deque[Future[Outcome]] = deque()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mambair-compute", daemon=True)
        self._thread.start()

    def perform(self, task: PreparedJob) -> Outcome | Unseen:
        """Do a task, and return when something has become of it."""
        source, root = task.job.source.path, task.job.root
        if root is not None and task.watch is not None and not task.watch.is_at_home():
            return Unseen(root)
        if source is not None and not os.path.lexists(source):
            return Unseen(source)
        future: Future[Outcome] = Future()
        self._waiting.put((task, future))
        outcome = future.result()
        remarks = []
        with suppress(queue.Empty):
            while True:
                remarks.append(self._remarks.get_nowait())
        return replace(outcome, remarks=tuple(remarks))

    def close(self) -> None:
        """Finish what is computed, and leave the rest as if it had not begun."""
        self._is_closed.set()
        self._waiting.put(None)
        self._thread.join()
        self._telling.close()

    def _take(self) -> Iterator[PreparedJob]:
        while (item := self._waiting.get()) is not None:
            task, future = item
            self._taken.append(future)
            yield task

    def _work(self) -> None:
        """Compute; this is the thread."""
        try:
            for outcome in perform_alone(
                self._take(), self._is_closed.is_set, self._restorer, on_tiles=self._leave_if_closed
            ):
                self._taken.popleft().set_result(outcome)
        except SystemExit:
            return
        except DEVICE_ERROR:  # it is of no use to this process any more; another will be started
            traceback.print_exc()
            os._exit(1)
        except Exception as error:
            for future in self._taken:
                future.set_exception(error)

    def _leave_if_closed(self, done: int, total: int) -> None:
        if self._is_closed.is_set():
            raise SystemExit
