"""A small Hugging Face Hub on this machine: the protocol of downloads, and the ways in which it fails.

Point ``HF_ENDPOINT`` at it (``environment()`` does) in a process that has not imported huggingface_hub yet::

    with HubServer() as hub:
        hub.add_repo("owner/name", {"folder/model.pth": b"..."})
        subprocess.run([...], env=hub.environment(cache_folder))

Large files are redirected to a second address, as on the Hub: a storage that must never see the user's token.
Small files come from the Hub itself, after a relative redirect.

A third address plays GitHub, whose releases are redirected to the storage too. It is also a proxy, which
refuses to connect to any other host, so that no test leaves this machine.
"""

import hashlib
import json
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_BYTES = (
    1000  # files from this size on are in the storage; on the Hub, binary files and those from 10 MB
)


@dataclass
class Repo:
    """One commit of one repository."""

    files: dict[str, bytes]
    commit: str = COMMIT


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    headers: Mapping[str, str]
    where: Literal["hub", "storage", "releases"]

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization")


@dataclass(frozen=True)
class Fault:
    """A failure of one transfer from the storage: the connection ends after some bytes of the body."""

    after: int
    how: Literal["closed", "reset"] = "closed"


@dataclass
class HubServer:
    """The three servers and what they serve; a context manager.

    Attributes:
        repos: Repositories by name.
        releases: Files by the path of their address.
        token: Token that every request to the Hub must carry; None if none is needed.
        gated: Whether every repository needs permission, which the user does not have.
        status: Status of every answer of the Hub; None for the right one.
        page: Web page that the Hub answers every request with; None for the right answer.
        silent: Whether the Hub accepts requests and never answers.
        xet: Whether large files are offered by Xet, the Hub's other way of transfer, which refuses access.
        faults: Failures of the next transfers from the storage, in order.
        requests: All requests received.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    releases: dict[str, bytes] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False
    status: int | None = None
    page: bytes | None = None
    silent: bool = False
    xet: bool = False
    faults: deque[Fault] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> "HubServer":
        self._stopped = threading.Event()
        self._servers = [self._serve(handler) for handler in (_HubHandler, _StorageHandler, _ReleasesHandler)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _serve(self, handler: "type[_Handler]") -> ThreadingHTTPServer:
        bound = type(handler.__name__, (handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def storage(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    @property
    def release_host(self) -> str:
        return f"http://127.0.0.1:{self._servers[2].server_port}"

    def environment(self, cache: Path, **more: str) -> dict[str, str]:
        """Return the environment of a process that uses this as the Hub and a folder as its cache.

        The caller's own settings of the Hub, its token and its proxies are left out.
        """
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HUGGING")) and not name.lower().endswith("_proxy")
        }
        ours = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(cache), "HTTPS_PROXY": self.release_host}
        return {**inherited, **ours, **more}

    def add_repo(self, name: str, files: Mapping[str, bytes], commit: str = COMMIT) -> None:
        """Add a repository, or replace the one of that name."""
        self.repos[name] = Repo(dict(files), commit)

    def downloads(self) -> list[Request]:
        """Return the requests for transfers of large files."""
        return [request for request in self.requests if (request.where, request.method) == ("storage", "GET")]

    def wait_for_stop(self) -> None:
        """Block until the server is being shut down."""
        self._stopped.wait()


class _Handler(BaseHTTPRequestHandler):
    """The common part of the three servers."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    where: Literal["hub", "storage", "releases"] = "hub"

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(Request(self.command, path, headers, self.where))
        self.answer(path)

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, path: str) -> None:
        raise NotImplementedError

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean: everything is in ``requests``."""

    def send(self, status: int, body: bytes = b"", fault: Fault | None = None, /, **headers: str) -> None:
        """Send an answer, or the part that a fault lets pass; ``_`` in names of headers stands for ``-``."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: fault.after] if fault else body)
        if fault:
            self.close_connection = True
            if fault.how == "reset":  # closing a socket that lingers for no time sends RST in place of FIN
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

    def send_json(self, document: object) -> None:
        self.send(200, json.dumps(document).encode(), Content_Type="application/json")


class _HubHandler(_Handler):
    """The Hub: facts about repositories, and the addresses of their files."""

    def answer(self, path: str) -> None:
        hub = self.hub
        if hub.silent:
            hub.wait_for_stop()
            self.close_connection = True
        elif hub.status is not None:
            self.send(hub.status)
        elif hub.page is not None:
            self.send(200, hub.page, Content_Type="text/html")
        elif hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self.send(401, X_Error_Message="Invalid username or password.")
        elif hub.gated:
            self.send(403, X_Error_Code="GatedRepo", X_Error_Message="Access to this model is restricted.")
        else:
            self.route(path.strip("/").split("/"))

    def route(self, parts: list[str]) -> None:
        match parts:
            case ["api", "models", owner, name]:
                self.tell(f"{owner}/{name}", "main")
            case ["api", "models", owner, name, "revision", revision]:
                self.tell(f"{owner}/{name}", revision)
            case [owner, name, "resolve", revision, *inner]:
                self.resolve(f"{owner}/{name}", revision, "/".join(inner))
            case ["api", "resolve-cache", "models", owner, name, revision, *inner]:
                self.give(f"{owner}/{name}", revision, "/".join(inner))
            case _:
                self.send(404)

    def find(self, name: str, revision: str) -> Repo | None:
        """Return the repository, or answer that no repository has that name or revision."""
        repo = self.hub.repos.get(name)
        if repo is None:
            self.send(404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif revision not in ("main", repo.commit):
            self.send(404, X_Error_Code="RevisionNotFound", X_Error_Message=f"Invalid rev id: {revision}")
        else:
            return repo
        return None

    def tell(self, name: str, revision: str) -> None:
        """Describe a repository."""
        if repo := self.find(name, revision):
            siblings = [{"rfilename": path} for path in repo.files]
            self.send_json({"id": name, "sha": repo.commit, "private": False, "siblings": siblings})

    def resolve(self, name: str, revision: str, path: str) -> None:
        """Redirect to a file."""
        repo = self.find(name, revision)
        if repo is None:
            return
        content = repo.files.get(path)
        if content is None:
            self.send(404, X_Error_Code="EntryNotFound", X_Repo_Commit=repo.commit)
        elif len(content) < LARGE_BYTES:
            self.send(307, Location=f"/api/resolve-cache/models/{name}/{repo.commit}/{path}")
        else:
            sha256 = hashlib.sha256(content).hexdigest()
            headers = {
                "Location": f"{self.hub.storage}/{sha256}",
                "X_Repo_Commit": repo.commit,
                "X_Linked_Size": str(len(content)),
                "X_Linked_Etag": f'"{sha256}"',
            }
            if self.hub.xet:
                headers |= {"X_Xet_Hash": sha256, "X_Xet_Refresh_Route": f"{self.hub.endpoint}/xet-token"}
            self.send(302, **headers)

    def give(self, name: str, revision: str, path: str) -> None:
        """Send a small file, named by its git hash."""
        if repo := self.find(name, revision):
            content = repo.files[path]
            git_hash = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self.send(200, content, ETag=f'"{git_hash}"', X_Repo_Commit=repo.commit)


class _StorageHandler(_Handler):
    """The storage: large files by their hash, whole or from some byte on."""

    where = "storage"

    def answer(self, path: str) -> None:
        files = [file for repo in self.hub.repos.values() for file in repo.files.items()]
        files += self.hub.releases.items()
        stored = {f"/{hashlib.sha256(content).hexdigest()}": (name, content) for name, content in files}
        if path not in stored:
            self.send(404)
            return
        name, content = stored[path]
        fault = self.hub.faults.popleft() if self.hub.faults and self.command == "GET" else None
        disposition = f'inline; filename="{name.rpartition("/")[2]}";'
        wanted = self.headers.get("Range")
        if wanted is None:
            self.send(200, content, fault, Content_Disposition=disposition)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(206, content[start:], fault, Content_Disposition=disposition, Content_Range=span)


class _ReleasesHandler(_Handler):
    """Releases: redirects to their files, also for names of other hosts; this is the proxy too."""

    where = "releases"

    def answer(self, path: str) -> None:
        content = self.hub.releases.get(path)
        if content is None:
            self.send(404)
        else:
            self.send(302, Location=f"{self.hub.storage}/{hashlib.sha256(content).hexdigest()}")

    def do_CONNECT(self) -> None:
        self.hub.requests.append(Request(self.command, self.path, {}, self.where))
        self.send(403)
