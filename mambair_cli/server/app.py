"""The server's answers: an ASGI application."""

import asyncio
import json
import logging
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import ExitStack, suppress
from functools import partial
from importlib.metadata import version
from typing import BinaryIO

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from mambair_cli.checkpoints.catalog import Task
from mambair_cli.errors import (
    ImageError,
    MambairError,
    MemoryLimitError,
    ModelError,
    ServerError,
    UsageError,
)
from mambair_cli.server.origin_check import OriginCheck
from mambair_cli.server.page import describe_api, write_page
from mambair_cli.server.protocol import REPORT_HEADER, describe_error, describe_report
from mambair_cli.server.query import TASKS, read_request
from mambair_cli.server.service import RestoreService, ServiceResult

MAX_BYTES = 2**30
MOST_WAITING = 32
IDLE_SECONDS = 30.0
RETRY_SECONDS = 2  # as told to clients where too many wait

_PIECE_BYTES = 2**20
_STATUS = {UsageError: 400, ModelError: 404, ImageError: 422, ServerError: 503, MemoryLimitError: 507}
_GOODBYE = {"Connection": "close"}  # what is still to come is not read
_PLAIN_PAGE = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


class App:
    """Answers requests.

    Args:
        workshop: Does what is asked for.
        max_bytes: Of an image that is sent.
        most_waiting: Images that may be here at once; further ones are turned away.
        idle_seconds: After which a client that sends nothing is given up.

    Attributes:
        asgi: The application.
    """

    def __init__(
        self,
        workshop: RestoreService,
        max_bytes: int = MAX_BYTES,
        most_waiting: int = MOST_WAITING,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._workshop = workshop
        self._max_bytes = max_bytes
        self._most_waiting = most_waiting
        self._idle_seconds = idle_seconds
        self._waiting = 0
        self._api = describe_api(max_bytes)
        tasks = [
            Route(f"/v1/{task}", partial(answer, task), methods=[method])
            for task in TASKS
            for method, answer in (("GET", self._tell_means), ("POST", self._restore))
        ]
        self.asgi = Starlette(
            routes=[
                Route("/v1/health", self._tell_health),
                Route("/v1/models", self._tell_models),
                *tasks,
                Route("/openapi.json", self._tell_api),
                Route("/docs", self._show_page),
                Route("/", self._show_page),
            ],
            middleware=[Middleware(OriginCheck)],
            exception_handlers={
                MambairError: _answer_error,
                HTTPException: _answer_stranger,
                ClientDisconnect: _answer_nobody,
                Exception: _answer_bug,
            },
        )

    async def _tell_health(self, request: Request) -> Response:
        models = self._workshop.models
        return JSONResponse(
            {
                "version": version("mambair-cli"),
                "device": str(models.device),
                "loaded": models.names,
                "waiting": self._waiting,
            }
        )

    async def _tell_models(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self._workshop.models.describe))

    async def _tell_api(self, request: Request) -> Response:
        return JSONResponse(self._api)

    async def _show_page(self, request: Request) -> Response:
        return HTMLResponse(write_page(self._api), headers=_PLAIN_PAGE)

    async def _tell_means(self, task: Task, request: Request) -> Response:
        means = await self._workshop.prepare(read_request(task, request.query_params.multi_items()))
        return JSONResponse(
            {
                "version": version("mambair-cli"),
                "model": means.restorer.model.name,
                "scale": means.restorer.info.scale,
                "device": str(means.restorer.device),
                "computing": means.fingerprint.describe(),
                "notice": means.notice,
                "max_bytes": self._max_bytes,
            }
        )

    async def _restore(self, task: Task, request: Request) -> Response:
        order = read_request(task, request.query_params.multi_items())
        if self._waiting >= self._most_waiting:
            await self._take_in(request, None)  # a client that is still sending hears no answer
            raise ServerError(f"too many images wait: {self._waiting}; try again later")
        with ExitStack() as stack:
            self._waiting += 1
            stack.callback(self._let_go)
            image, result = await _open_temporary(stack), await _open_temporary(stack)
            await self._take_in(request, image)
            try:
                restored = await _until_gone(request, self._workshop.restore(order, image, result))
            except asyncio.CancelledError:
                return JSONResponse(describe_error(ServerError("the server was ended; start it anew")), 503)
            size = await asyncio.to_thread(result.seek, 0, os.SEEK_END)
            return _Answer(restored, result, size, stack.pop_all())

    def _let_go(self) -> None:
        self._waiting -= 1

    async def _take_in(self, request: Request, file: BinaryIO | None) -> None:
        """Write a request's body to a file.

        Raises:
            HTTPException: It is too large, or does not come.
            ImageError: There is no room for it.
        """
        told = request.headers.get("content-length", "0")
        if not told.isdecimal() or int(told) > self._max_bytes:
            raise self._too_large()
        taken, pieces = 0, aiter(request.stream())
        held = bytearray()  # what is not written yet: a thread for each small piece would take its time
        while True:
            try:
                piece = await asyncio.wait_for(anext(pieces, None), self._idle_seconds)
            except (asyncio.TimeoutError, TimeoutError) as error:  # two before Python 3.11
                raise HTTPException(
                    408, f"nothing came for {self._idle_seconds:g} s; send the image at once", _GOODBYE
                ) from error
            if piece is not None:
                held += piece
            if file is not None and (piece is None or len(held) >= _PIECE_BYTES):
                await asyncio.to_thread(_write, file, held)
            if file is None or len(held) >= _PIECE_BYTES:
                held = bytearray()
            if piece is None:
                return
            taken += len(piece)
            if taken > self._max_bytes:
                raise self._too_large()

    def _too_large(self) -> HTTPException:
        why = f"the image has more bytes than are taken: {self._max_bytes}; allow more with --max-bytes"
        return HTTPException(413, why, _GOODBYE)


class _Complaints(logging.Handler):
    """Puts what uvicorn logs, with tracebacks, on stderr in mambair's name."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; where stderr is gone, nobody can be told."""
        with suppress(OSError):
            sys.stderr.write(f"mambair: {self.format(record)}\n")
            sys.stderr.flush()


_COMPLAINTS = _Complaints(logging.ERROR)  # what is below that, strangers can cause as often as they like


def build_server(app: App) -> uvicorn.Server:
    """Return what serves the application at sockets that are listened at, by ``run(sockets=[...])``."""
    config = uvicorn.Config(
        app.asgi,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    logging.getLogger("uvicorn.error").addHandler(_COMPLAINTS)
    return uvicorn.Server(config)


async def _until_gone(request: Request, work: Awaitable[ServiceResult]) -> ServiceResult:
    """Wait for an image, but no longer than the client does.

    Raises:
        ClientDisconnect: It is gone.
    """

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(watch())
    working.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is known of
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        watching.cancel()


async def _open_temporary(stack: ExitStack) -> BinaryIO:
    """Open a temporary file, which is closed with the stack; all others would wait for a slow disk."""
    try:
        file = await asyncio.to_thread(tempfile.TemporaryFile)
    except OSError as error:
        raise _no_room(error) from error
    stack.callback(lambda: asyncio.get_running_loop().run_in_executor(None, file.close))
    return file


def _write(file: BinaryIO, data: bytearray) -> None:
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        raise _no_room(error) from error


def _no_room(error: OSError) -> ImageError:
    return ImageError(
        f"cannot keep the image: {error.strerror or error}; free some space for temporary files"
    )


class _Answer(StreamingResponse):
    """A result, and how it came about.

    Args:
        restored: What became of the image.
        result: File of the result.
        size: Of that file, in bytes.
        held: What to let go of when it is sent.
    """

    def __init__(self, restored: ServiceResult, result: BinaryIO, size: int, held: ExitStack) -> None:
        outcome, format, means = restored
        restorer = means.restorer
        digest = means.fingerprint.digest()
        facts = describe_report(outcome, restorer.model.name, restorer.info.scale, digest)
        headers = {"Content-Length": str(size), REPORT_HEADER: json.dumps(facts)}
        super().__init__(_read(result, size), headers=headers, media_type=f"image/{format}")
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, to whoever is still there."""
        with self._held:
            await super().__call__(scope, receive, send)


async def _read(file: BinaryIO, size: int) -> AsyncIterator[bytes]:
    """Yield what a file of that size holds, and end with the last of it: who has all may ask at once."""
    await asyncio.to_thread(file.seek, 0)
    while size > 0 and (piece := await asyncio.to_thread(file.read, _PIECE_BYTES)):
        size -= len(piece)
        yield piece


async def _answer_error(request: Request, error: Exception) -> Response:
    """Say what failed: a request can cause it."""
    assert isinstance(error, MambairError)
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 422)
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else {}
    return JSONResponse(describe_error(error), status, headers)


async def _answer_stranger(request: Request, error: Exception) -> Response:
    """Say what is wrong with a request as HTTP has it."""
    assert isinstance(error, HTTPException)
    why = {
        404: f"there is no {request.url.path}; see /docs",
        405: f"{request.url.path} knows no {request.method}; see /docs",
    }
    facts = {"kind": "UsageError", "message": why.get(error.status_code, error.detail)}
    return JSONResponse(facts, error.status_code, error.headers)


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


async def _answer_bug(request: Request, error: Exception) -> Response:
    """Say no more than that: the server's own stderr has the rest."""
    facts = {"kind": "MambairError", "message": "a bug of mambair's; its server's messages tell where"}
    return JSONResponse(facts, 500)
