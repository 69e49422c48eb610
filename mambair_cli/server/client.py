"""The run over tasks by a server: images are sent to it, and what it sends back is written here.

Nothing here needs PyTorch: that it is loaded already is what a server is for.
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
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlencode

from mambair_cli.errors import ImageError, MambairError, ServerError
from mambair_cli.images import explain_unreadable, settle_format, show_colour
from mambair_cli.images.source import Source
from mambair_cli.runs.executors.protocol import ExecutorInfo
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.job_files import WriteOptions, check_target, open_target
from mambair_cli.runs.jobs import Job, name_of
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.policy import RunPolicy
from mambair_cli.runs.run import IsStopped, PreparedJob
from mambair_cli.server.address import Address
from mambair_cli.server.protocol import REPORT_HEADER, read_error, read_report

AT_ONCE = 3  # images at the server: one to compute, one to decode, one to encode
BUSY_SECONDS = 600  # that a server may be too busy, before it is given up
GREETING_SECONDS = 10  # that it may take to accept a connection

_PIECE_BYTES = 2**20


class ServerInfo(NamedTuple):
    """By what a server restores.

    Attributes:
        model: Name of the model.
        scale: Output pixels per input pixel and side.
        device: Where it computes.
        fingerprint: All that pixels depend on besides the images.
        notice: What the user should know of the choice of model, if anything.
        max_bytes: Of an image that it takes.
    """

    model: str
    scale: int
    device: str
    fingerprint: Fingerprint
    notice: str | None
    max_bytes: int


class _Connection(HTTPConnection):
    """Speaks HTTP, through a Unix socket where the address has one."""

    def __init__(self, address: Address) -> None:
        super().__init__(
            "localhost" if address.path else address.host,
            address.port or None,
            timeout=GREETING_SECONDS,
            blocksize=_PIECE_BYTES,
        )
        self._address = address

    def connect(self) -> None:
        """Connect; what comes then may take any time."""
        if self._address.path is None:
            super().connect()
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(GREETING_SECONDS)
            self.sock.connect(os.fspath(self._address.path))
        self.sock.settimeout(None)


class _BusyError(Exception):
    """The server has too much to do."""

    def __init__(self, seconds: float, error: MambairError) -> None:
        self.seconds = seconds
        self.error = error


class ServerClient:
    """Has a server do a task.

    Args:
        address: Of the server.
        task: "upscale", "denoise" or "dejpeg".
        query: Parameters of the choice of model and of the computing, those that are not None.
        on_start: Told of each image that is sent: which of those sent at once it is, and its name.

    Attributes:
        means: By what it is done.

    Raises:
        ServerError: There is no server.
        MambairError: The server has no such model, or it does not do the task.
    """

    def __init__(
        self,
        address: Address,
        task: str,
        query: dict[str, Any],
        on_start: Callable[[int, str], None] = lambda number, name: None,
    ) -> None:
        self._address = address
        self._path = f"/v1/{task}"
        self._on_start = on_start
        self._connections: set[HTTPConnection] = set()
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._is_lost = threading.Event()
        self.means = means = self._ask(query)
        place = f"{means.device} of {address}"
        self.info = ExecutorInfo(means.model, means.scale, place, means.fingerprint, means.notice)
        kept = ("precision", "tile", "overlap", "seed", "strength")
        self._query = {**{name: query.get(name) for name in kept}, "model": self.means.model}
        self._computing = self.means.fingerprint.digest()

    def perform(self, jobs: Iterable[PreparedJob], is_stopped: IsStopped) -> Generator[Outcome]:
        """Send tasks to the server, several at once; yield what became of each, in their order.

        Where there is no server any more, no further one is begun.
        """
        sent: deque[Future[Outcome]] = deque()
        with ThreadPoolExecutor(AT_ONCE, "mambair-client") as senders:
            try:
                for number, task in enumerate(jobs):
                    if is_stopped() or self._is_lost.is_set():
                        break
                    held = task.job.source.hold().data  # here, where an interrupt is heard
                    data = None if held is None else bytes(held)
                    sent.append(senders.submit(self._do, task, data))
                    self._on_start(number % AT_ONCE, name_of(task.job.source))
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
        """Hang up: the server leaves what it is doing for this client."""
        self._is_closed.set()
        with self._lock:
            for connection in self._connections:
                if connection.sock is not None:
                    with suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)

    def _ask(self, query: dict[str, Any]) -> ServerInfo:
        """Ask by what images will be restored."""
        with self._connect() as connection:
            with self._speaking():
                connection.request("GET", _compose(self._path, query))
                with connection.getresponse() as response:
                    body = response.read()
            try:
                facts = json.loads(body)
                if response.status != 200:
                    raise read_error(facts)
                fingerprint = Fingerprint.read(facts["computing"])
                facts = {**facts, "fingerprint": fingerprint}
                return ServerInfo(*(facts[name] for name in ServerInfo._fields))
            except (ValueError, KeyError, TypeError) as error:
                raise self._strange() from error

    def _do(self, task: PreparedJob, data: bytes | None) -> Outcome:
        """Have a task done, however often the server is too busy at first."""
        begun = time.perf_counter()
        outcome = None
        try:
            check_target(task.job, task.overwrite)
            if task.watch:
                task.watch.look()
            if data is None:
                data = _read_pipe(task.job.source)
            while outcome is None:
                try:
                    outcome = self._exchange(task, data)
                except _BusyError as busy:
                    if time.perf_counter() - begun > BUSY_SECONDS or self._is_closed.wait(busy.seconds):
                        raise busy.error from busy
        except MambairError as error:
            if isinstance(error, ServerError):
                self._is_lost.set()
            return Outcome.failed(task.job, error, time.perf_counter() - begun)
        sha256 = task.watch.sha256 if task.watch else None
        return replace(outcome, seconds=time.perf_counter() - begun, sha256=sha256)

    def _exchange(self, task: PreparedJob, data: bytes | None) -> Outcome:
        """Send an image, and write what comes back.

        Raises:
            _BusyError: The server turns it away.
            MambairError: There is no result.
        """
        job = task.job
        format = job.format
        if job.target is not None and not job.is_stream:
            format = settle_format(job.target, format)
        query = {**self._query, **_query_of(task.output, task.policy), "format": format}
        told = {"on_begin": task.watch.begin, "on_end": task.watch.end} if task.watch else {}
        with _open_source(job.source, data) as (pieces, length):
            if length > self.means.max_bytes:
                raise ImageError(
                    f"cannot send {job.source}: it has {length} bytes, and the server takes "
                    f"{self.means.max_bytes}; have it take more with --max-bytes"
                )
            about = f"{job.source}: " if job.source.path else ""
            with (
                open_target(job, overwrite=task.overwrite, **told) as file,  # before any work
                self._connect() as connection,
                self._send(connection, _compose(self._path, query), pieces, length, about) as response,
            ):
                outcome = self._read_head(response, about, job)
                self._copy(response, file, about)
        return outcome

    def _send(
        self, connection: HTTPConnection, path: str, pieces: Iterator[bytes], length: int, about: str
    ) -> HTTPResponse:
        """Send a request; what the source's own reading raises is passed on."""
        with self._speaking(about):
            connection.putrequest("POST", path)
            connection.putheader("Content-Type", "application/octet-stream")
            connection.putheader("Content-Length", str(length))
            connection.endheaders()
        for piece in pieces:
            try:
                connection.send(piece)
            except OSError:  # it may have said why
                break
        with self._speaking(about):
            return connection.getresponse()

    def _read_head(self, response: HTTPResponse, about: str, job: Job) -> Outcome:
        """Read what comes before a result.

        Raises:
            _BusyError: There is none yet.
            MambairError: There is none.
        """
        try:
            if response.status == 200:
                facts = json.loads(response.headers[REPORT_HEADER])
                if facts["computing"] != self._computing:
                    raise self._changed(about)
                return read_report(facts, job)
            with self._speaking(about):
                body = response.read()
            error = read_error(json.loads(body), about)
            if "Retry-After" in response.headers:
                raise _BusyError(float(response.headers["Retry-After"]), error)
        except (ValueError, KeyError, TypeError) as error:
            raise self._strange() from error
        raise error

    def _copy(self, response: HTTPResponse, file: BinaryIO, about: str) -> None:
        """Write a result as it comes, all of it."""
        left = response.length
        if left is None:
            raise self._strange()
        while left:
            with self._speaking(about):
                piece = response.read(min(left, _PIECE_BYTES))
            if not piece:
                raise self._gone(about)
            file.write(piece)
            left -= len(piece)

    @contextmanager
    def _connect(self) -> Iterator[HTTPConnection]:
        """Connect, such that :meth:`close` can end it."""
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
    def _speaking(self, about: str = "") -> Iterator[None]:
        """Translate what can go wrong between here and there."""
        try:
            yield
        except (OSError, HTTPException) as error:
            raise self._gone(about) from error

    def _gone(self, about: str = "") -> ServerError:
        return ServerError(
            f"{about}the server at {self._address} went away; see its messages, and start it anew"
        )

    def _changed(self, about: str) -> ServerError:
        return ServerError(
            f"{about}the server at {self._address} is another one now, with other settings or weights; "
            "start again with --resume"
        )

    def _strange(self) -> ServerError:
        return ServerError(f"no mambair server of this version answers at {self._address}; start one there")


def _compose(path: str, query: dict[str, Any]) -> str:
    """Write the target of a request, without what is None."""
    words = {True: "true", False: "false"}
    given = {
        name: words.get(value, value) if isinstance(value, bool) else value for name, value in query.items()
    }
    return f"{path}?{urlencode({name: value for name, value in given.items() if value is not None})}"


def _query_of(output: WriteOptions, policy: RunPolicy) -> dict[str, Any]:
    """Name how a result is written."""
    return {
        "scale": output.size.scale,
        "width": output.size.width,
        "height": output.size.height,
        "megapixels": output.size.megapixels,
        "quality": output.quality,
        "depth": output.depth,
        "strip": output.strip,
        "background": output.background and show_colour(output.background),
        "max_pixels": policy.max_pixels,
        "damaged": policy.damaged or None,
    }


def _read_pipe(source: Source) -> bytes | None:
    """Read what can be read once; None for a file.

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
    """Open an image to be sent: its bytes, and how many they are.

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
    """Read as many bytes as were announced."""
    while length:
        try:
            piece = file.read(min(length, _PIECE_BYTES))
        except OSError as error:
            raise explain_unreadable(path, error) from error
        if not piece:
            raise ImageError(f"cannot read {path}: it changes while it is read; try again")
        length -= len(piece)
        yield piece
