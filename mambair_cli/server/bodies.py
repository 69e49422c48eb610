"""The bodies of requests: received into files, and read to their end where an answer comes earlier."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from typing import BinaryIO, Literal

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mambair_cli.errors import ServerError
from mambair_cli.server.answers import PIECE_BYTES
from mambair_cli.server.shortage import explain_unstored
from mambair_cli.system.wording import format_bytes

LEAST_BYTES = 2**16  # of a body that must arrive while the server waits for idle_seconds, if it has as many

# What is read and thrown away after an answer. Most clients stop soon; those that read no answer before
# they have sent all must be heard out, since a connection that is closed on them is reset.
_REST_BYTES = 2**30
_REST_SECONDS = 20.0
_REST_IDLE_SECONDS = 0.5
_GOODBYE = {"Connection": "close"}  # the rest of the request is not read for ever


class BodyReader:
    """Receives the bodies of requests.

    Args:
        max_bytes: Largest body that is accepted.
        idle_seconds: Time after which a client that sends nothing, or next to nothing, is given up.
        too_late: Set when the server ends, and takes nothing more.
    """

    def __init__(self, max_bytes: int, idle_seconds: float, too_late: asyncio.Event) -> None:
        self._max_bytes = max_bytes
        self._idle_seconds = idle_seconds
        self._too_late = too_late

    async def receive(self, request: Request, file: BinaryIO | None) -> None:
        """Write a request's body to a file, or throw it away.

        Raises:
            HTTPException: It is too large, or does not arrive.
            ShortageError: There is no space for it.
            ServerError: It does not arrive, and the server ends; or too many files are open.
        """
        announced = request.headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced) > self._max_bytes:
            raise self._too_large()
        received, pace = 0, _Pace(self._idle_seconds)
        pieces = aiter(request.stream())
        unwritten = bytearray()  # collected, since a thread for each small piece would be slow
        too_late = asyncio.ensure_future(self._too_late.wait())
        try:
            while True:
                with pace:
                    piece = await self._wait(pieces, too_late)
                if piece is not None:
                    unwritten += piece
                if file is not None and (piece is None or len(unwritten) >= PIECE_BYTES):
                    await asyncio.to_thread(_write, file, unwritten)
                if file is None or len(unwritten) >= PIECE_BYTES:
                    unwritten = bytearray()
                if piece is None:
                    return
                received += len(piece)
                if received > self._max_bytes:
                    raise self._too_large()
                if pace.is_too_slow(received):
                    least = format_bytes(LEAST_BYTES)
                    why = f"less than {least} in {self._idle_seconds:g} s; send the image faster"
                    raise HTTPException(408, why, _GOODBYE)
        finally:
            too_late.cancel()

    async def _wait(
        self, pieces: AsyncIterator[bytes], too_late: "asyncio.Task[Literal[True]]"
    ) -> bytes | None:
        """Return the next piece; None after the last one."""
        piece = asyncio.ensure_future(_next(pieces))
        try:
            if too_late.done():
                await asyncio.wait({piece}, timeout=0)  # what has arrived may be all
            else:
                waited = {piece, too_late}
                await asyncio.wait(waited, timeout=self._idle_seconds, return_when=asyncio.FIRST_COMPLETED)
            if piece.done():
                return piece.result()
        finally:
            piece.cancel()
        if too_late.done():
            raise ServerError("the server ends, and the image does not arrive; start the server again")
        raise HTTPException(408, f"no data for {self._idle_seconds:g} s; send it without pauses", _GOODBYE)

    def _too_large(self) -> HTTPException:
        most = format_bytes(self._max_bytes)
        why = f"the image has more than {most}; start the server with a larger --max-bytes"
        return HTTPException(413, why, _GOODBYE)


class _Pace:
    """The pace of a client, by the time that the server has waited for it; the block waits.

    Args:
        seconds: Time in which it must send ``LEAST_BYTES``.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waited = self._begun = 0.0
        self._received = 0

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._waited += time.monotonic() - self._begun

    def is_too_slow(self, received: int) -> bool:
        """Tell whether too little has arrived.

        Args:
            received: Number of all bytes so far.
        """
        if self._waited < self._seconds:
            return False
        newer, self._received, self._waited = received - self._received, received, 0.0
        return newer < LEAST_BYTES


def check_body(request: Request) -> None:
    """Refuse a body that is no plain file, which would be no image of a known kind.

    Raises:
        HTTPException: It is a form, or compressed as a whole.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        raise HTTPException(
            415, "the body is a multipart form; send the file itself, as curl --data-binary @photo.jpg does"
        )
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise HTTPException(
            415, f"the body has Content-Encoding: {coding}, which is not taken; send the file as it is"
        )


class ReadToEnd:
    """Hears clients out: an answer that comes before the end of a body ends after it, within limits.

    Args:
        app: Application that gets all requests.
        too_late: Set when the server ends, and hears nobody any more.
    """

    def __init__(self, app: ASGIApp, too_late: asyncio.Event) -> None:
        self._app = app
        self._too_late = too_late

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; read on before the last byte of the answer."""
        names = {name for name, value in scope.get("headers", ()) if value != b"0"}
        is_at_end = not names & {b"content-length", b"transfer-encoding"}

        async def listen() -> Message:
            nonlocal is_at_end
            message = await receive()
            is_at_end = is_at_end or not message.get("more_body", False)
            return message

        async def read_on() -> None:
            size, end = 0, time.monotonic() + _REST_SECONDS
            while not (
                is_at_end or size >= _REST_BYTES or time.monotonic() >= end or self._too_late.is_set()
            ):
                message = await asyncio.wait_for(listen(), _REST_IDLE_SECONDS)
                size += len(message.get("body", b""))

        async def answer(message: Message) -> None:
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not is_last or is_at_end:
                await send(message)
                return
            await send({**message, "more_body": True})  # clients that read meanwhile stop sending
            with suppress(asyncio.TimeoutError, TimeoutError):  # two before Python 3.11
                await read_on()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, listen, answer)


async def open_temporary(stack: ExitStack) -> BinaryIO:
    """Open a temporary file, which is closed with the stack; in threads, since a disk may be slow.

    Raises:
        ShortageError: There is no space for it.
        ServerError: Too many files are open.
    """
    try:
        file = await asyncio.to_thread(tempfile.TemporaryFile)
    except OSError as error:
        raise explain_unstored(error) from error
    stack.callback(lambda: asyncio.get_running_loop().run_in_executor(None, _close, file))
    return file


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


def _write(file: BinaryIO, data: bytearray) -> None:
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        raise explain_unstored(error) from error


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # of what could not be written, which has been reported
        file.close()
