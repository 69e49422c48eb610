"""Restore images: the network computes one at a time, others are decoded and encoded meanwhile."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from mmap import ACCESS_READ, mmap
from typing import Any, BinaryIO, NamedTuple, TypeVar

from mambair_cli.checkpoints.catalog import is_named
from mambair_cli.images.source import Source
from mambair_cli.inspection.inspect_image import Inspection, inspect_image
from mambair_cli.pages.screen import encode_for_screen, read_for_screen
from mambair_cli.runs.image_job import ImageJob
from mambair_cli.runs.job_files import largest_factor, plan_result
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.output_size import NETWORK_SCALES, Size, network_scale
from mambair_cli.runs.run import PreparedJob
from mambair_cli.server.network_cache import LoadedModel, NetworkCache
from mambair_cli.server.progress import ImageProgress
from mambair_cli.server.query import RestoreRequest
from mambair_cli.system.memory import explaining_memory
from mambair_cli.system.process import count_processors

T = TypeVar("T")


class ServiceResult(NamedTuple):
    """A restored image.

    Attributes:
        outcome: Outcome of its job, as in a run.
        format: Format of the result.
        loaded: Model that restored it.
    """

    outcome: Outcome
    format: str
    loaded: LoadedModel


class _AbandonedError(Exception):
    """The client no longer waits for the result."""


class RestoreService:
    """Restores images of several requests at a time; the network computes one after another.

    Args:
        cache: Networks that are loaded.
        max_pixels: Images with more pixels are refused.

    Attributes:
        cache: Networks that are loaded.
    """

    def __init__(self, cache: NetworkCache, max_pixels: int) -> None:
        self.cache = cache
        self._max_pixels = max_pixels
        # One thread is a queue; and OpenMP starts its own threads for each thread that computes.
        self._fetcher = ThreadPoolExecutor(1, "mambair-fetch")
        self._network = ThreadPoolExecutor(1, "mambair-network")
        self._screen = ThreadPoolExecutor(1, "mambair-screen")  # what it does takes much memory
        self._files = ThreadPoolExecutor(count_processors() + 2, "mambair-files")

    async def prepare(self, request: RestoreRequest) -> LoadedModel:
        """Return the model for a request, loaded now if it was not.

        Raises:
            MambairError: There is no such model, or it does not fit the request.
        """
        found = self.cache.find(request)
        if found is not None:
            return found
        model = await _run(self._fetcher, self.cache.choose, request)
        return await _run(self._network, self.cache.load, request, model)

    async def inspect(self, image: BinaryIO) -> Inspection:
        """Tell what an image is, and what it needs; when cancelled, stop soon.

        Args:
            image: File of the image.

        Raises:
            ImageError: It cannot be read.
        """
        source = Source(None, data=await _run(self._files, _map, image))
        with _stopping() as check:
            return await _run(self._files, inspect_image, source, self._max_pixels, check)

    async def show(self, image: BinaryIO) -> bytes:
        """Convert an image to one that every browser shows: WebP, of 8 bits, in sRGB.

        When cancelled, stop soon.

        Args:
            image: File of the image.

        Raises:
            ImageError: It cannot be read.
        """
        data = await _run(self._files, _map, image)
        with _stopping() as check:
            return await _run(self._screen, _show, data, self._max_pixels, check)

    async def restore(
        self, request: RestoreRequest, image: BinaryIO, result: BinaryIO, progress: ImageProgress
    ) -> ServiceResult:
        """Restore an image; when cancelled, stop soon.

        Args:
            request: How to restore it.
            image: File of the image.
            result: Receives the file of the result.
            progress: Receives how far the image is.

        Raises:
            MambairError: There is no result.
        """
        output = request.output
        policy = replace(request.policy, max_pixels=min(request.policy.max_pixels, self._max_pixels))
        source = Source(None, data=await _run(self._files, _map, image))
        asked = request.asked
        if output.size != Size() and not is_named(asked.model) and not request.is_scale_fixed:
            factor = await _run(self._files, largest_factor, [source], output.size, policy.max_pixels)
            scale = NETWORK_SCALES[-1] if factor is None else network_scale(factor)
            request = replace(request, asked=replace(asked, scale=scale))
        progress.tell("loading")
        loaded = await self.prepare(request)
        progress.tell("waiting")
        job = Job(source, None, request.format, result=result)
        image_job = ImageJob(PreparedJob(job, output, policy), loaded.restorer)
        with _stopping() as check:
            await _run(self._files, image_job.open)
            await _run(self._network, _compute, image_job, check, progress)
            progress.tell("saving")
            outcome = await _run(self._files, image_job.finish)
        if outcome.error is not None:
            raise outcome.error
        if image_job.header is None:
            raise ValueError("an image that has a result was opened")
        format = plan_result(job, image_job.header, output, loaded.restorer.info.scale)[1]
        return ServiceResult(outcome, format, loaded)

    def close(self) -> None:
        """End the threads after their current work."""
        for executor in (self._fetcher, self._network, self._screen, self._files):
            executor.shutdown(cancel_futures=True)


@contextmanager
def _stopping() -> Iterator[Callable[[], None]]:
    """Yield what threads call now and then; once the block is cancelled, it raises an error in them."""
    is_abandoned = threading.Event()

    def check() -> None:
        if is_abandoned.is_set():
            raise _AbandonedError

    try:
        yield check
    except asyncio.CancelledError:
        is_abandoned.set()
        raise


async def _run(executor: ThreadPoolExecutor, action: Callable[..., T], *arguments: Any) -> T:
    with explaining_memory("this request", "send a smaller image, or try again later"):
        return await asyncio.get_running_loop().run_in_executor(executor, partial(action, *arguments))


def _map(file: BinaryIO) -> mmap | bytes:
    """Return the content of a file without reading it into memory."""
    size = os.fstat(file.fileno()).st_size
    return mmap(file.fileno(), 0, access=ACCESS_READ) if size else b""


def _show(data: bytes | mmap, max_pixels: int, check: Callable[[], None]) -> bytes:
    return encode_for_screen(read_for_screen(data, "the image", max_pixels, check=check).pixels)


def _compute(image_job: ImageJob, check: Callable[[], None], progress: ImageProgress) -> None:
    """Run the network; stop between two batches of tiles when the client no longer waits."""

    def tell(done: int = 0, total: int = 0) -> None:
        check()
        progress.tell("restoring", done, total)

    tell()
    image_job.begin(tell)
    for _ in image_job.rows():
        check()
