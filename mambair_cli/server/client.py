"""Run jobs on a server: send images to it, and write the results that it sends back.

Nothing here imports PyTorch: the server has it loaded, which is what makes a command start fast.
"""

import json
import os
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from mambair_cli.errors import ImageError, MambairError, ServerError
from mambair_cli.images import settle_format, show_colour
from mambair_cli.images.source import Source
from mambair_cli.restore.settings import IMAGE_SETTINGS
from mambair_cli.runs.executors.protocol import ExecutorInfo
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.job_files import WriteOptions, check_target, open_target
from mambair_cli.runs.jobs import Job, StartedImage
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.policy import RunPolicy
from mambair_cli.runs.run import IsStopped, PreparedJob
from mambair_cli.server.address import Address
from mambair_cli.server.protocol import (
    COMMAND_HEADER,
    REPORT_HEADER,
    ErrorReport,
    Query,
    ResultReport,
    ServerInfo,
    compose_target,
    read_error,
    read_record,
    read_report,
)
from mambair_cli.system.file_errors import explain_unreadable
from mambair_cli.system.wording import format_bytes

# What a request repeats of the first query, with what its answer has settled.
KEPT = ("precision", *IMAGE_SETTINGS)
AT_ONCE = 3  # images sent at a time: one to compute, one to decode, one to encode
BUSY_SECONDS = 600  # for which a server may refuse an image as one too many
GREETING_SECONDS = 10  # for which a server may take to accept a connection

_PIECE_BYTES = 2**20
_TOO_LATE = 408  # status of an image that did not arrive in time


class _Connection(HTTPConnection):
    """A connection by HTTP, through a Unix socket if the address is one."""

    def __init__(self, address: Address) -> None:
        super().__init__(
            "localhost" if address.path else address.host,
            address.port or None,
            timeout=GREETING_SECONDS,
            blocksize=_PIECE_BYTES,
        )
        self._address = address

    def connect(self) -> None:
        """Connect; an answer may take any time."""
        if self._address.path is None:
            super().connect()
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(GREETING_SECONDS)
            self.sock.connect(os.fspath(self._address.path))
        self.sock.settimeout(None)


class _AgainError(Exception):
    """The server has too many images, or one did not arrive in time, as from a slow disk."""

    def __init__(self, error: MambairError, seconds: float, is_late: bool) -> None:
        self.error, self.seconds, self.is_late = error, seconds, is_late


class ServerClient:
    """Runs jobs on a server.

    Args:
        address: Address of the server.
        task: "upscale", "denoise" or "dejpeg".
        query: Parameters that choose the model and how it computes.
        on_start: Called with the number of each image among those sent at a time, and with the image.

    Attributes:
        info: How the server restores the images.

    Raises:
        ServerError: There is no server.
        MambairError: The server has no such model, or it does not fit the task.
    """

    def __init__(
        self,
        address: Address,
        task: str,
        query: Query,
        on_start: Callable[[int, StartedImage], None] = lambda number, image: None,
    ) -> None:
        self._address, self._path, self._on_start = address, f"/v1/{task}", on_start
        self._connections: set[HTTPConnection] = set()
        self._lock = threading.Lock()
        self._is_closed, self._is_lost = threading.Event(), threading.Event()
        found, fingerprint = self._ask(query)
        place = f"{found.device} of {address}"
        self.info = ExecutorInfo(found.model, found.scale, place, fingerprint, found.notice)
        if found.others:
            notices = {found.model: found.notice} if found.notice else {}
            self.info = replace(self.info, notice=None, others=tuple(found.others), notices=notices)
        self._max_bytes = found.max_bytes
        self._query: Query = {**{name: query.get(name) for name in KEPT}, "model": found.model}
        if found.others:
            self._query |= {name: query.get(name) for name in ("model", "offline")}
            self._query["network_scale"] = query.get("scale")
        self._computing = fingerprint.digest()

    def perform(self, jobs: Iterable[PreparedJob], is_stopped: IsStopped) -> Generator[Outcome]:
        """Send the images of jobs to the server, several at a time; yield their outcomes, in order.

        When the server is gone, send no more.
        """
        sent: deque[Future[Outcome]] = deque()
        with ThreadPoolExecutor(AT_ONCE, "mambair-client") as senders:
            try:
                for number, prepared in enumerate(jobs):
                    if is_stopped() or self._is_lost.is_set():
                        break
                    source, data = prepared.job.source, None
                    if source.path is None:  # read in the main thread, which Ctrl-C interrupts
                        data = bytes(source.hold().data or b"")
                    sent.append(senders.submit(self._restore, prepared, data))
                    self._on_start(number % AT_ONCE, StartedImage(prepared.job.source))
                    while sent and (len(sent) >= AT_ONCE or sent[0].done()):
                        yield sent.popleft().result()
                while sent:
                    yield sent.popleft().result()
            except BaseException:
                for future in sent:
                    future.cancel()
                self.close()
                raise

    def close(self) -> None:
        """Close all connections; the server then stops the work for this client."""
        self._is_closed.set()
        with self._lock:
            for connection in self._connections:
                if connection.sock is not None:
                    with suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)

    def _ask(self, query: Query) -> tuple[ServerInfo, Fingerprint]:
        """Ask the server how it will restore images."""
        with self._connect() as connection:
            with self._translated():
                connection.request("GET", compose_target(self._path, query), headers={COMMAND_HEADER: "1"})
                with connection.getresponse() as response:
                    body = response.read()
            try:
                sent = json.loads(body)
                if response.status != 200:
                    raise read_error(read_record(ErrorReport, sent))
                info = read_record(ServerInfo, sent)
                return info, Fingerprint.read(info.computing)
            except (ValueError, KeyError, TypeError) as error:
                raise self._strange() from error

    def _restore(self, prepared: PreparedJob, data: bytes | None) -> Outcome:
        """Have an image restored; try again while the server has too many, and once if it came too late."""
        begun = time.perf_counter()
        outcome, was_late = None, False
        try:
            check_target(prepared.job, prepared.overwrite)
            if prepared.guard:
                prepared.guard.look()
            if data is None:
                data = _read_pipe(prepared.job.source)
            while outcome is None:
                try:
                    outcome = self._exchange(prepared, data)
                except _AgainError as again:
                    is_over = was_late if again.is_late else time.perf_counter() - begun > BUSY_SECONDS
                    if is_over or self._is_closed.wait(again.seconds):
                        raise again.error from again
                    was_late |= again.is_late
        except MambairError as error:
            if isinstance(error, ServerError):
                self._is_lost.set()
            return Outcome.failed(prepared.job, error, time.perf_counter() - begun)
        sha256 = prepared.guard.sha256 if prepared.guard else None
        return replace(outcome, seconds=time.perf_counter() - begun, sha256=sha256)

    def _exchange(self, prepared: PreparedJob, data: bytes | None) -> Outcome:
        """Send an image, and write the result.

        Raises:
            _AgainError: The image may be sent again.
            MambairError: There is no result.
        """
        job = prepared.job
        format = job.format
        if job.target is not None and not job.is_stream:
            format = settle_format(job.target, format)
        query = {**self._query, **_query_of(prepared.output, prepared.policy), "format": format}
        guard = prepared.guard
        callbacks = {"on_begin": guard.begin, "on_end": guard.end} if guard else {}
        with _open_source(job.source, data) as (pieces, length):
            if length > self._max_bytes:
                raise ImageError(
                    f"cannot send {job.source}: it has more than {format_bytes(self._max_bytes)}, the most "
                    "that the server accepts; start the server with a larger --max-bytes"
                )
            about = f"{job.source}: " if job.source.path else ""
            with (
                # First, so that nothing is computed for a file that cannot be opened.
                open_target(job, overwrite=prepared.overwrite, **callbacks) as file,
                self._connect() as connection,
                self._send(connection, compose_target(self._path, query), pieces, length, about) as response,
            ):
                outcome = self._read_head(response, about, job)
                self._copy(response, file, about)
        return outcome

    def _send(
        self, connection: HTTPConnection, path: str, pieces: Iterator[bytes], length: int, about: str
    ) -> HTTPResponse:
        """Send a request; errors of reading the source are raised unchanged."""
        with self._translated(about):
            connection.putrequest("POST", path)
            connection.putheader("Content-Type", "application/octet-stream")
            connection.putheader(COMMAND_HEADER, "1")
            connection.putheader("Content-Length", str(length))
            connection.endheaders()
        for piece in pieces:
            try:
                connection.send(piece)
            except OSError:  # the server may have answered why
                break
        with self._translated(about):
            return connection.getresponse()

    def _read_head(self, response: HTTPResponse, about: str, job: Job) -> Outcome:
        """Read the headers of a result, or the error in its place.

        Raises:
            _AgainError: The image may be sent again.
            MambairError: There is no result.
        """
        try:
            if response.status == 200:
                report = read_record(ResultReport, json.loads(response.headers[REPORT_HEADER]))
                if report.computing != self._computing:
                    raise self._changed(about)
                return read_report(report, job)
            with self._translated(about):
                body = response.read()
            error = read_error(read_record(ErrorReport, json.loads(body)), about)
            is_late = response.status == _TOO_LATE
            if is_late or "Retry-After" in response.headers:
                raise _AgainError(error, float(response.headers.get("Retry-After", 0)), is_late)
        except (ValueError, KeyError, TypeError) as error:
            raise self._strange() from error
        raise error

    def _copy(self, response: HTTPResponse, file: BinaryIO, about: str) -> None:
        """Write a result as it arrives, all of it."""
        left = response.length
        if left is None:
            raise self._strange()
        while left:
            with self._translated(about):
                piece = response.read(min(left, _PIECE_BYTES))
            if not piece:
                raise self._gone(about)
            file.write(piece)
            left -= len(piece)

    @contextmanager
    def _connect(self) -> Iterator[HTTPConnection]:
        """Connect; :meth:`close` can end the connection."""
        connection = _Connection(self._address)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise ServerError(
                f"no server answers at {self._address}: {error.strerror or error}; "
                "start one with `mambair serve`"
            ) from error
        try:
            with self._lock:
                self._connections.add(connection)
            if self._is_closed.is_set():
                raise self._gone()
            yield connection
        finally:
            with self._lock:
                self._connections.discard(connection)
                connection.close()

    @contextmanager
    def _translated(self, about: str = "") -> Iterator[None]:
        """Turn errors of the connection into errors for the user."""
        try:
            yield
        except (OSError, HTTPException) as error:
            raise self._gone(about) from error

    def _gone(self, about: str = "") -> ServerError:
        return ServerError(
            f"{about}the server at {self._address} went away; see its messages, and start it again"
        )

    def _changed(self, about: str) -> ServerError:
        return ServerError(
            f"{about}the server at {self._address} was replaced by one with other settings or weights; "
            "start again with --resume"
        )

    def _strange(self) -> ServerError:
        return ServerError(f"no mambair server of this version answers at {self._address}; start one there")


def _query_of(output: WriteOptions, policy: RunPolicy) -> Query:
    """Return the parameters for how a result is written."""
    return {
        "scale": output.size.scale,
        "width": output.size.width,
        "height": output.size.height,
        "megapixels": output.size.megapixels,
        "quality": output.quality,
        "depth": output.depth,
        "strip": output.strip,
        "note": output.note or None,
        "background": output.background and show_colour(output.background),
        "max_pixels": policy.max_pixels,
        "damaged": policy.damaged or None,
    }


def _read_pipe(source: Source) -> bytes | None:
    """Read an image that can be read only once, from a pipe; None for a file.

    Raises:
        ImageError: It cannot be read.
    """
    if source.path is None:
        return None
    try:
        return None if stat.S_ISREG(source.path.stat().st_mode) else source.path.read_bytes()
    except OSError as error:
        raise explain_unreadable(source.path, error) from error


@contextmanager
def _open_source(source: Source, data: bytes | None) -> Iterator[tuple[Iterator[bytes], int]]:
    """Open an image to send: pieces of its bytes, and how many bytes there are.

    Raises:
        ImageError: It cannot be read, or becomes shorter meanwhile.
    """
    if source.path is None or data is not None:
        data = data or b""
        yield iter([data]), len(data)
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(source.path.open("rb"))
            length = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise explain_unreadable(source.path, error) from error
        yield _read_pieces(file, source.path, length), length


def _read_pieces(file: BinaryIO, path: Path, length: int) -> Iterator[bytes]:
    """Read exactly as many bytes as were announced."""
    while length:
        try:
            piece = file.read(min(length, _PIECE_BYTES))
        except OSError as error:
            raise explain_unreadable(path, error) from error
        if not piece:
            raise ImageError(f"cannot read {path}: it changes while it is read; try again")
        length -= len(piece)
        yield piece
