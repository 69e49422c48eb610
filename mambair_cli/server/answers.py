"""Answers of the server: results with their reports, and errors as one line."""

import asyncio
import json
import os
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from functools import cache
from typing import BinaryIO

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from mambair_cli.checkpoints.select import MisfitError
from mambair_cli.errors import (
    ImageError,
    MambairError,
    MemoryLimitError,
    ModelError,
    ServerError,
    ShortageError,
    UsageError,
)
from mambair_cli.server.protocol import REPORT_HEADER, ErrorReport, describe_report, report_error
from mambair_cli.server.service import ServiceResult
from mambair_cli.server.shortage import find_shortage
from mambair_cli.server.wording import phrase_error
from mambair_cli.system.home import home_folder

PIECE_BYTES = 2**20
RETRY_SECONDS = 2  # that clients wait when the server has too many images

_STATUS = {
    UsageError: 400,
    MisfitError: 400,
    ModelError: 404,
    ImageError: 422,
    ServerError: 503,
    ShortageError: 507,
    MemoryLimitError: 507,
}


class ResultAnswer(StreamingResponse):
    """A result, and a report of how it was made.

    Args:
        restored: What the service returned.
        result: File of the result.
        size: Size of that file, in bytes.
        stack: Closed when the result is sent.
    """

    def __init__(self, restored: ServiceResult, result: BinaryIO, size: int, stack: ExitStack) -> None:
        outcome, format, loaded = restored
        restorer = loaded.restorer
        digest = loaded.fingerprint.digest()
        report = describe_report(outcome, restorer.model.name, restorer.info.scale, digest)
        headers = {"Content-Length": str(size), REPORT_HEADER: json.dumps(asdict(report))}
        super().__init__(_read(result, size), headers=headers, media_type=f"image/{format}")
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the result, unless the client is gone."""
        with self._stack:
            await super().__call__(scope, receive, send)


async def _read(file: BinaryIO, size: int) -> AsyncIterator[bytes]:
    """Yield the content of a file of that size; end with its last byte, when the client may go on."""
    await asyncio.to_thread(file.seek, 0)
    while size > 0 and (piece := await asyncio.to_thread(file.read, PIECE_BYTES)):
        size -= len(piece)
        yield piece


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer an error that a request can cause."""
    assert isinstance(error, MambairError)
    error = find_shortage(error) or error
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 422)
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else {}
    report = replace(report_error(error), message=phrase_error(error, request))
    return _answer_report(report, status, headers)


async def answer_system_error(request: Request, error: Exception) -> Response:
    """Answer that the server has too many files open; every other error of the system is a bug."""
    shortage = find_shortage(error)
    if shortage is None:
        raise error
    return await answer_error(request, shortage)


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Answer an error of HTTP itself, such as an unknown path."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if "Allow" in headers:
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
    path = request.url.path
    why = {
        404: f"there is no {path}; {_find_meant(request)}see /docs",
        405: f"{path} has no method {request.method}, but {headers.get('Allow')}; see /docs",
    }
    # An image that is too large, or comes too late, is one that fails among others, and no wrong request.
    kind = {408: MambairError, 413: ImageError}.get(error.status_code, UsageError)
    return refuse(kind(why.get(error.status_code, error.detail)), error.status_code, headers)


def _find_meant(request: Request) -> str:
    """Name the path that was meant by one with a slash at its end, if there is one."""
    path = request.url.path.rstrip("/")
    if path == request.url.path or not path:
        return ""
    scope = dict(request.scope) | {"path": path}
    is_known = any(route.matches(scope)[0] is not Match.NONE for route in request.app.routes)
    return f"{path} would work; " if is_known else ""


async def answer_nobody(request: Request, error: Exception) -> Response:
    """Answer a client that is gone; nobody reads it."""
    return Response(status_code=499)


async def answer_bug(request: Request, error: Exception) -> Response:
    """Answer a bug without details: the traceback is on the server's stderr."""
    return refuse(MambairError("internal error; see the server's log"), 500)


def refuse(error: MambairError, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Answer an error as JSON of one line."""
    return _answer_report(report_error(error), status, headers)


def _answer_report(report: ErrorReport, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(asdict(replace(report, message=_without_folders(report.message))), status, headers)


def _without_folders(message: str) -> str:
    """Take the folders of this machine out of a message: pages and their readers need not know them."""
    for folder, shown in find_folders():
        message = folder.sub(shown, message)
    return message


@cache
def find_folders() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Find the folders that no message may name, and what it has in their place.

    Call it before the first request: an error can be that no file can be opened, and no module imported.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    unnamed, home = [HF_HUB_CACHE], str(home_folder() or "")
    with suppress(OSError):  # there is none to write into
        unnamed.append(tempfile.gettempdir())
    found = [(rf"(: )?{_at_borders(each)}(/[^\s;:,]*)?", "") for each in unnamed if _is_below_root(each)]
    if _is_below_root(home):
        found.append((_at_borders(home), "~"))
    return tuple((re.compile(pattern), shown) for pattern, shown in found)


def _is_below_root(folder: str) -> bool:
    """Tell whether a folder can be recognised in a text: ``/`` or ``.`` is in all of them."""
    return os.path.isabs(folder) and os.path.dirname(folder) != folder


def _at_borders(folder: str) -> str:
    """Write a pattern of a path that is neither part of a longer name nor the end of a longer path."""
    return rf"(?<![\w.~-]){re.escape(folder.rstrip('/'))}(?![\w-]|\.\w)"
