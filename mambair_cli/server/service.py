"""Where images are restored: one at a time by the network, others decoded and encoded meanwhile."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from mmap import ACCESS_READ, mmap
from typing import Any, BinaryIO, NamedTuple, TypeVar

from mambair_cli.checkpoints.catalog import AUTO, REAL, is_named
from mambair_cli.images.jpeg_quality import is_compressed
from mambair_cli.images.source import Source
from mambair_cli.runs.image_job import ImageJob
from mambair_cli.runs.job_files import largest_factor, plan_result
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.output_size import NETWORK_SCALES, Size, network_scale, size_for_real
from mambair_cli.runs.run import PreparedJob
from mambair_cli.server.network_cache import LoadedModel, NetworkCache
from mambair_cli.server.query import RestoreRequest

T = TypeVar("T")


class ServiceResult(NamedTuple):
    """What became of an image.

    Attributes:
        outcome: As of a run.
        format: Of the result.
        means: By what it was done.
    """

    outcome: Outcome
    format: str
    means: LoadedModel


class _AbandonedError(Exception):
    """Nobody waits for the result any more."""


class RestoreService:
    """Does orders, several at once as far as the network is not concerned.

    Args:
        models: Has the networks.
        max_pixels: Larger images are refused.

    Attributes:
        models: Has the networks.
    """

    def __init__(self, models: NetworkCache, max_pixels: int) -> None:
        self.models = models
        self._max_pixels = max_pixels
        # One thread each: that is a queue, and OpenMP keeps threads for every one that computes.
        self._fetcher = ThreadPoolExecutor(1, "mambair-fetch")
        self._network = ThreadPoolExecutor(1, "mambair-network")
        self._files = ThreadPoolExecutor((os.cpu_count() or 1) + 2, "mambair-files")

    async def prepare(self, order: RestoreRequest) -> LoadedModel:
        """Load what an order needs.

        Raises:
            MambairError: There is no such model, or it does not do it.
        """
        found = self.models.find(order)
        if found is not None:
            return found
        choice = await _run(self._fetcher, self.models.choose, order)
        return await _run(self._network, self.models.load, order, choice)

    async def restore(self, order: RestoreRequest, image: BinaryIO, result: BinaryIO) -> ServiceResult:
        """Restore an image; cancelled, it stops soon.

        Args:
            order: What is to be done.
            image: File of the image.
            result: Receives the file of the result.

        Raises:
            MambairError: There is no result.
        """
        output = order.output
        policy = replace(order.policy, max_pixels=min(order.policy.max_pixels, self._max_pixels))
        source = Source(None, data=await _run(self._files, _map, image))
        if (
            order.task == "upscale"
            and order.model == AUTO
            and await _run(self._files, is_compressed, source.data)
        ):
            output = replace(output, size=size_for_real(output.size, order.scale))
            order = replace(order, model=REAL)
        if output.size != Size() and not is_named(order.model):
            factor = await _run(self._files, largest_factor, [source], output.size, policy.max_pixels)
            order = replace(order, scale=NETWORK_SCALES[-1] if factor is None else network_scale(factor))
        means = await self.prepare(order)
        job = Job(source, None, order.format, result=result)
        work = ImageJob(PreparedJob(job, output, policy), means.restorer)
        is_left = threading.Event()
        try:
            await _run(self._files, work.open)
            await _run(self._network, _compute, work, is_left)
            outcome = await _run(self._files, work.finish)
        except asyncio.CancelledError:
            is_left.set()
            raise
        if outcome.error is not None:
            raise outcome.error
        if work.header is None:
            raise ValueError("what has a result was opened")
        format = plan_result(job, work.header, output, means.restorer.info.scale)[1]
        return ServiceResult(outcome, format, means)

    def close(self) -> None:
        """Let the threads go, once they are done with what they have."""
        for executor in (self._fetcher, self._network, self._files):
            executor.shutdown(cancel_futures=True)


async def _run(executor: ThreadPoolExecutor, action: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(executor, partial(action, *arguments))


def _map(file: BinaryIO) -> mmap | bytes:
    """Return what a file holds, such that it need not be in memory."""
    size = os.fstat(file.fileno()).st_size
    return mmap(file.fileno(), 0, access=ACCESS_READ) if size else b""


def _compute(work: ImageJob, is_left: threading.Event) -> None:
    """Run the network; give up between two batches of tiles where nobody waits any more."""

    def check(done: int = 0, total: int = 0) -> None:
        if is_left.is_set():
            raise _AbandonedError

    check()
    work.begin(check)
    for _ in work.rows():
        check()
