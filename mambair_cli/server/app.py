"""Answer HTTP requests: an ASGI application."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import BinaryIO, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from mambair_cli.checkpoints.catalog import Task
from mambair_cli.errors import (
    MambairError,
    ServerError,
)
from mambair_cli.inspection.inspect_image import describe_inspection
from mambair_cli.server.answers import (
    ResultAnswer,
    answer_bug,
    answer_error,
    answer_http_error,
    answer_nobody,
    answer_system_error,
    find_folders,
    refuse,
)
from mambair_cli.server.bodies import BodyReader, ReadToEnd, check_body, open_temporary
from mambair_cli.server.browser_page import make_answers
from mambair_cli.server.docs_page import write_page
from mambair_cli.server.limits import MAX_BYTES, MOST_WAITING
from mambair_cli.server.openapi import describe_api
from mambair_cli.server.origin_check import OriginCheck
from mambair_cli.server.progress import PROGRESS_HEADER, ImageProgress, ProgressBoard
from mambair_cli.server.protocol import (
    Health,
    ServerInfo,
)
from mambair_cli.server.query import QUERIES, TASKS, read_request
from mambair_cli.server.routes import make_route
from mambair_cli.server.service import RestoreService

T = TypeVar("T")

IDLE_SECONDS = 30.0
ENDING_SECONDS = 3.0  # for the rest of the images that arrive while the server ends

_PLAIN_PAGE = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


class App:
    """Answers requests.

    Args:
        service: Restores the images.
        max_bytes: Largest file that is accepted.
        most_waiting: Number of images at a time; more are refused.
        idle_seconds: Time for which the server waits for a client that sends or takes nothing.

    Attributes:
        asgi: The application.
        most_waiting: Number of images at a time.
        idle_seconds: Time for which the server waits for a client.
    """

    def __init__(
        self,
        service: RestoreService,
        max_bytes: int = MAX_BYTES,
        most_waiting: int = MOST_WAITING,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._service = service
        self._max_bytes = max_bytes
        self.most_waiting = most_waiting
        self.idle_seconds = idle_seconds
        self._too_late = asyncio.Event()
        self._bodies = BodyReader(max_bytes, idle_seconds, self._too_late)
        self._waiting = 0
        self._board = ProgressBoard()
        self._api = describe_api(max_bytes)
        tasks = [
            make_route(
                f"/v1/{task}",
                {"GET": partial(self._describe, task), "POST": partial(self._restore, task)},
                QUERIES[task].model_fields,
            )
            for task in TASKS
        ]
        application = Starlette(
            routes=[
                make_route("/v1/health", {"GET": self._show_health}),
                make_route("/v1/models", {"GET": self._list_models}),
                *tasks,
                make_route("/openapi.json", {"GET": self._show_api}),
                make_route("/docs", {"GET": self._show_page}),
                make_route("/v1/inspect", {"POST": self._inspect}),
                make_route("/v1/show", {"POST": self._show_image}),
                make_route("/v1/progress/{name}", {"GET": self._tell_progress}),
                *(make_route(address, {"GET": answer}) for address, answer in make_answers().items()),
            ],
            middleware=[Middleware(OriginCheck)],
            exception_handlers={
                MambairError: answer_error,
                HTTPException: answer_http_error,
                ClientDisconnect: answer_nobody,
                OSError: answer_system_error,
                Exception: answer_bug,
            },
        )
        application.router.redirect_slashes = False  # an answer without a body looks like a result to curl
        # Also of answers to bugs, which Starlette gives outside of all.
        self.asgi = ReadToEnd(application, self._too_late)
        find_folders()

    def begin_to_end(self) -> None:
        """Finish the images that have arrived or arrive now, and wait for nothing else."""
        asyncio.get_running_loop().call_later(ENDING_SECONDS, self._too_late.set)
        self._board.end_waiting()

    async def _show_health(self, request: Request) -> Response:
        cache = self._service.cache
        health = Health(version("mambair-cli"), str(cache.device), cache.names, self._waiting)
        return JSONResponse(asdict(health))

    async def _list_models(self, request: Request) -> Response:
        models = await asyncio.to_thread(self._service.cache.describe)
        return JSONResponse([asdict(model) for model in models])

    async def _show_api(self, request: Request) -> Response:
        return JSONResponse(self._api)

    async def _show_page(self, request: Request) -> Response:
        return HTMLResponse(write_page(self._api), headers=_PLAIN_PAGE)

    async def _describe(self, task: Task, request: Request) -> Response:
        loaded = await self._service.prepare(read_request(task, request.query_params.multi_items()))
        info = ServerInfo(
            version=version("mambair-cli"),
            model=loaded.restorer.model.name,
            others=list(dict.fromkeys(each.name for each in loaded.restorer.others.values())),
            scale=loaded.restorer.info.scale,
            device=str(loaded.restorer.device),
            computing=loaded.fingerprint.describe(),
            notice=loaded.notice,
            max_bytes=self._max_bytes,
        )
        return JSONResponse(asdict(info))

    async def _restore(self, task: Task, request: Request) -> Response:
        restore_request = read_request(task, request.query_params.multi_items())
        with ExitStack() as stack:
            image = await self._accept(request, stack)
            result = await open_temporary(stack)
            with self._tell(request) as progress:
                try:
                    restoring = self._service.restore(restore_request, image, result, progress)
                    restored = await _until_gone(request, restoring)
                except asyncio.CancelledError:
                    return refuse(ServerError("the server was stopped; start it again"), 503)
            size = await asyncio.to_thread(result.seek, 0, os.SEEK_END)
            return ResultAnswer(restored, result, size, stack.pop_all())

    async def _inspect(self, request: Request) -> Response:
        with ExitStack() as stack:
            inspecting = self._service.inspect(await self._accept(request, stack))
            inspection = await _until_gone(request, inspecting)
            return JSONResponse(describe_inspection(inspection))

    async def _show_image(self, request: Request) -> Response:
        with ExitStack() as stack:
            shown = await _until_gone(request, self._service.show(await self._accept(request, stack)))
            return Response(shown, media_type="image/webp")

    async def _tell_progress(self, request: Request) -> Response:
        events = self._board.follow(request.path_params["name"])
        first = await anext(events)  # a name that is not allowed is refused before the stream begins
        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(_chain(first, events), headers=headers, media_type="text/event-stream")

    @contextmanager
    def _tell(self, request: Request) -> Iterator[ImageProgress]:
        """Send the progress of an image to those who ask for the name that its client gave it."""
        name, state = request.headers.get(PROGRESS_HEADER), "failed"
        progress = self._board.begin(name)
        try:
            yield progress
            state = "done"
        finally:
            self._board.end(name, state)

    async def _accept(self, request: Request, stack: ExitStack) -> BinaryIO:
        """Receive an image, unless there are too many.

        Args:
            request: The request, whose body is the image.
            stack: Its end frees the place of the image and its file.

        Raises:
            ServerError: There are too many images.
            HTTPException: The body is no plain file.
        """
        check_body(request)
        if self._waiting >= self.most_waiting:
            await self._bodies.receive(request, None)  # a client reads no answer while it sends
            raise ServerError(f"the server has too many images: {self._waiting}; try again later")
        self._waiting += 1
        stack.callback(self._count_down)
        image = await open_temporary(stack)
        await self._bodies.receive(request, image)
        return image

    def _count_down(self) -> None:
        self._waiting -= 1


async def _chain(first: str, others: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for each in others:
        yield each


async def _until_gone(request: Request, result: Awaitable[T]) -> T:
    """Wait for a result, but no longer than the client does.

    Raises:
        ClientDisconnect: The client is gone.
    """

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(result), asyncio.ensure_future(watch())
    working.add_done_callback(lambda done: done.cancelled() or done.exception())  # else asyncio warns of it
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
