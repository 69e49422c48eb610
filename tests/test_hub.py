"""Downloads, through huggingface_hub as it is, from a Hub on the loopback: see hub_server.py.

The library reads its environment when it is imported, so every call is made in a process of its own.
"""

import dataclasses
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, Fault, HubServer

from mambair_cli.checkpoints import hub
from mambair_cli.checkpoints.catalog import Model, find_model, load_catalog
from mambair_cli.checkpoints.hub import Verification, WrongFileError
from mambair_cli.errors import DownloadError

ROOT = Path(__file__).parents[1]
CONTENT = b"some weights " * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MODEL = Model(
    name="trial-x4",
    task="upscale",
    scale=4,
    channels=3,
    architecture="mambair",
    variant="light",
    repo="some/models",
    files=("ckpt/first.pth", "ckpt/second.pth"),
    certainty="likely",
    sha256=SHA256,
    license="Apache-2.0",
)

# Calls one function of mambair_cli.checkpoints.hub on a model and prints what came of it.
CHILD = """
import json, sys
from mambair_cli import hub
from mambair_cli.checkpoints.catalog import Model
from mambair_cli.errors import DownloadError
order = json.loads(sys.argv[1])
if order["file_limit"]:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], order["file_limit"]))
model = Model(**order["model"])
try:
    found = getattr(hub, order["function"])(model, **order["options"])
    path, notice = (found.path, found.notice) if isinstance(found, hub.Fetched) else (found, None)
    print(json.dumps({"path": path and str(path), "notice": notice}))
except DownloadError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}))
"""


@dataclass(frozen=True)
class Outcome:
    """What one call came to: a path, None, or an error; and what appeared on stderr."""

    path: Path | None
    notice: str | None
    error: str
    message: str
    stderr: str
    seconds: float


@dataclass
class Client:
    """A machine that knows the server as the Hub, with a cache of its own."""

    server: HubServer
    home: Path

    def call(
        self,
        function: str = "fetch",
        model: Model = MODEL,
        *,
        environment: dict[str, str] | None = None,
        terminal: bool = False,
        file_limit: int | None = None,
        **options: bool,
    ) -> Outcome:
        order = {"function": function, "options": options, "file_limit": file_limit}
        order["model"] = {**dataclasses.asdict(model), "files": list(model.files)}
        master, stderr = _open_terminal() if terminal else (None, subprocess.PIPE)
        start = time.monotonic()
        process = subprocess.run(
            [sys.executable, "-W", "error", "-c", CHILD, json.dumps(order)],
            cwd=ROOT,
            env=self.server.environment(self.home, **(environment or {})),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            timeout=60,
        )
        seconds = time.monotonic() - start
        shown = process.stderr
        if master is not None:
            os.close(stderr)
            shown = _drain(master)
        assert process.returncode == 0, shown
        result: dict[str, Any] = json.loads(process.stdout)
        if "error" in result:
            assert result["exit_code"] == 3
            assert "\n" not in result["message"]
        path = Path(result["path"]) if result.get("path") else None
        error, message = result.get("error", ""), result.get("message", "")
        return Outcome(path, result.get("notice"), error, message, shown, seconds)

    def blobs(self) -> list[Path]:
        """Return every file of the cache that passes for a whole one."""
        files = self.home.glob("hub/models--*/blobs/*")
        return [path for path in files if path.is_file() and path.suffix != ".incomplete"]

    def assets(self) -> list[Path]:
        """Return every file that came from elsewhere, whole or not."""
        files = self.home.glob("assets/**/*")
        return [path for path in files if path.is_file() and path.suffix != ".lock"]

    def links(self) -> list[Path]:
        """Return every name that the cache has for a file, dangling ones included."""
        return [path for path in self.home.glob("hub/models--*/snapshots/*/**/*") if path.is_symlink()]


def _open_terminal() -> tuple[int, int]:
    """Return both ends of a terminal of the usual size: without one, it would have no room for a bar."""
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    return master, terminal


def _drain(descriptor: int) -> str:
    """Read all that was written to a terminal whose other end is closed."""
    shown = b""
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:  # how Linux says end of file here
            chunk = b""
        if not chunk:
            os.close(descriptor)
            return shown.decode()
        shown += chunk


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as server:
        server.add_repo(MODEL.repo, {"README.md": b"hello", "ckpt/first.pth": CONTENT})
        yield server


@pytest.fixture
def client(server: HubServer, tmp_path: Path) -> Client:
    return Client(server, tmp_path)


def test_a_model_is_downloaded_once(client: Client) -> None:
    assert client.call("cached").path is None
    assert client.server.requests == []

    fetched = client.call().path
    assert fetched is not None
    assert fetched.read_bytes() == CONTENT
    assert len(client.server.downloads()) == 1

    client.server.requests.clear()
    assert client.call().path == fetched
    assert client.call("cached").path == fetched
    assert client.server.requests == []


def test_the_cache_is_the_one_of_every_other_program(client: Client) -> None:
    script = "import huggingface_hub as h; print(h.hf_hub_download('some/models', 'ckpt/first.pth'))"
    environment = client.server.environment(client.home)
    other = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True)
    client.server.requests.clear()
    assert client.call().path == Path(other.stdout.decode().strip())
    assert client.server.requests == []


def test_a_revision_is_held_to(client: Client) -> None:
    path = client.call(model=dataclasses.replace(MODEL, revision=COMMIT)).path
    assert path is not None
    assert COMMIT in path.parts
    asked = [request.path for request in client.server.requests if "some/models" in request.path]
    assert asked
    assert all(COMMIT in path for path in asked)

    lost = client.call(model=dataclasses.replace(MODEL, revision="f" * 40))
    assert lost.error == "DownloadError"
    assert "no such revision" in lost.message
    assert "f" * 40 in lost.message


def test_the_first_candidate_that_the_repository_lists_is_taken(client: Client) -> None:
    client.server.add_repo(MODEL.repo, {"ckpt/second.pth": CONTENT, "ckpt/other.pth": b"x" * 2000})
    fetched = client.call().path
    assert fetched is not None
    assert fetched.name == "second.pth"
    assert client.call("cached").path == fetched


def test_the_model_for_photographs_is_fetched_by_its_name(client: Client) -> None:
    real = find_model("mambair-real-x4")
    client.server.add_repo(real.repo, {"MambaIRv1_ckpt/MambaIR_real.pth": CONTENT})
    refused = client.call(model=real)
    assert (
        refused.error == "WrongFileError"
    )  # the right file, by its name; but not the one with these tensors
    assert f"has sha256 {SHA256}, not a62ce36d" in refused.message
    path = client.call(model=dataclasses.replace(real, sha256=SHA256)).path
    assert path is not None
    assert path.read_bytes() == CONTENT


RELEASE = "/owner/name/releases/download/v1.0/first.pth"
BINARY = b"PK\x03\x04" + CONTENT  # no text, as checkpoints are none
BINARY_SHA256 = hashlib.sha256(BINARY).hexdigest()


@pytest.fixture
def released(server: HubServer) -> Model:
    """Return a model whose file has a second address, of which the repository has nothing."""
    server.add_repo(MODEL.repo, {"README.md": b"hello"})
    server.releases[RELEASE] = BINARY
    return dataclasses.replace(MODEL, sha256=None, url=server.release_host + RELEASE)


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ({"status": 503}, "cannot download trial-x4 from"),
        ({"gated": True}, "no access to some/models"),
        ({"page": b"<html>Welcome to our hotel</html>"}, "cannot download trial-x4 from"),
        ({"silent": True}, "cannot download trial-x4 from"),
        ({}, "some/models on the Hub lacks the file of trial-x4: ckpt/first.pth"),
    ],
)
@pytest.mark.parametrize("sha256", [None, BINARY_SHA256])
def test_the_second_address_helps_where_the_hub_does_not(
    client: Client, released: Model, trouble: dict[str, Any], told: str, sha256: str | None
) -> None:
    for attribute, value in trouble.items():
        setattr(client.server, attribute, value)
    model = dataclasses.replace(released, sha256=sha256)
    fetched = client.call(model=model, environment={"HF_HUB_ETAG_TIMEOUT": "1"})
    assert fetched.path is not None
    assert fetched.path.read_bytes() == BINARY
    assert fetched.notice is not None
    assert fetched.notice.startswith(f"using trial-x4 from {model.url}, not from the Hub: {told}")
    assert client.assets() == [fetched.path]
    source = "catalogue" if sha256 else "cache"
    assert hub.verify(fetched.path, model) == Verification(BINARY_SHA256, source)

    client.server.requests.clear()
    again = client.call(model=model)
    assert (again.path, again.notice) == (fetched.path, None)
    assert client.call(model=model, offline=True).path == fetched.path
    assert client.call(model=model, environment={"HF_HUB_OFFLINE": "1"}).path == fetched.path
    assert client.call("cached", model=model).path == fetched.path
    assert client.server.requests == []


def test_the_second_address_is_not_asked_where_the_hub_has_the_file(client: Client, released: Model) -> None:
    client.server.add_repo(MODEL.repo, {"ckpt/first.pth": CONTENT})
    fetched = client.call(model=released)
    assert fetched.path is not None
    assert (fetched.path.read_bytes(), fetched.notice) == (CONTENT, None)
    assert {request.where for request in client.server.requests} == {"hub", "storage"}
    assert client.assets() == []


def test_the_second_address_helps_where_a_transfer_fails(client: Client, released: Model) -> None:
    pytest.importorskip("hf_xet")
    client.server.add_repo(MODEL.repo, {"ckpt/first.pth": CONTENT})
    client.server.xet = True
    fetched = client.call(model=released)
    assert fetched.path is not None
    assert fetched.path.read_bytes() == BINARY


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_offline_the_second_address_is_not_asked(
    client: Client, released: Model, environment: dict[str, str]
) -> None:
    refused = client.call(model=released, environment=environment, offline=environment == {})
    assert refused.error == "DownloadError"
    assert "trial-x4 is not in the cache, and this is offline" in refused.message
    assert client.server.requests == []


def test_two_addresses_that_fail_are_both_told(client: Client, released: Model) -> None:
    client.server.releases.clear()
    outcome = client.call(model=released)
    assert outcome.error == "DownloadError"
    assert "some/models on the Hub lacks the file of trial-x4" in outcome.message
    assert (
        f" ({client.server.release_host.split('/')[2]}: HTTP 404); it has no checkpoint at all"
        in outcome.message
    )

    nobody = dataclasses.replace(released, url="http://127.0.0.1:9/first.pth")
    outcome = client.call(model=nobody, environment={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert outcome.message.startswith("cannot download trial-x4 from http://127.0.0.1:9: ")
    assert "(127.0.0.1:9: " in outcome.message
    assert outcome.message.endswith(
        "; check the connection, the proxy settings and HF_ENDPOINT, and try again"
    )
    assert outcome.seconds < 20
    assert client.assets() == []


def test_a_wrong_file_at_the_second_address_is_removed(client: Client, released: Model) -> None:
    outcome = client.call(model=dataclasses.replace(released, sha256="0" * 64))
    assert outcome.error == "WrongFileError"
    assert BINARY_SHA256 in outcome.message
    assert client.assets() == []
    assert client.call("cached", model=released).path is None


def test_a_file_from_the_second_address_that_was_damaged_is_removed(client: Client, released: Model) -> None:
    path = client.call(model=released).path
    assert path is not None
    path.write_bytes(BINARY[:-1] + b"!")
    assert client.call(model=released).error == "WrongFileError"
    assert client.assets() == []
    assert client.call(model=released).path == path


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>Welcome to our hotel</html>", b"Not Found", b""])
def test_a_page_in_place_of_the_file_is_no_checkpoint(client: Client, released: Model, page: bytes) -> None:
    client.server.releases[RELEASE] = page
    outcome = client.call(model=released)
    assert outcome.error == "DownloadError"
    assert ": it is a web page or other text, not a checkpoint)" in outcome.message
    assert client.assets() == []


def test_a_transfer_from_the_second_address_goes_on_where_it_was_cut(client: Client, released: Model) -> None:
    content = os.urandom(12_000_000)
    client.server.releases[RELEASE] = content
    client.server.faults.append(Fault(after=11_000_000))
    path = client.call(model=released).path
    assert path is not None
    assert path.read_bytes() == content
    assert [request.headers.get("range") for request in client.server.downloads()] == [
        None,
        "bytes=10485760-",
    ]


def test_a_transfer_from_the_second_address_that_stays_cut_leaves_no_file(
    client: Client, released: Model
) -> None:
    client.server.faults.extend([Fault(after=5000, how="reset")] * 20)
    outcome = client.call(model=released)
    assert outcome.error == "DownloadError"
    assert f" ({client.server.release_host.split('/')[2]}: " in outcome.message
    assert client.assets() == []
    client.server.faults.clear()
    assert client.call(model=released).path is not None


def test_what_a_killed_process_left_of_a_transfer_does_not_count(client: Client, released: Model) -> None:
    path = client.call(model=released).path
    assert path is not None
    partial = path.with_name("first.pth.incomplete")
    partial.write_bytes(BINARY[:500])
    path.unlink()
    assert client.call("cached", model=released).path is None
    assert client.call(model=released).path == path
    assert path.read_bytes() == BINARY
    assert client.assets() == [path]


def test_processes_that_want_the_same_file_fetch_it_once(client: Client, released: Model) -> None:
    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(lambda _: client.call(model=released), range(3)))
    assert {outcome.path for outcome in outcomes} == set(client.assets())
    assert len(client.assets()) == len(client.server.downloads()) == 1


def test_a_full_disk_is_told_and_the_second_address_leaves_no_file(client: Client, released: Model) -> None:
    pytest.importorskip("resource")
    outcome = client.call(model=released, file_limit=5000)
    assert outcome.error == "DownloadError"
    assert "cannot use the cache" in outcome.message
    assert client.assets() == []


def test_the_second_address_is_reached_by_a_proxy_and_never_sees_the_token(
    client: Client, released: Model
) -> None:
    model = dataclasses.replace(released, url=f"http://releases.invalid{RELEASE}")
    proxy = {"HTTP_PROXY": client.server.release_host, "NO_PROXY": "127.0.0.1"}
    fetched = client.call(model=model, environment={**proxy, "HF_TOKEN": "hf_secret"})
    assert fetched.path is not None
    assert fetched.path.read_bytes() == BINARY
    assert "releases.invalid" in fetched.path.parts
    assert {request.token for request in client.server.requests if request.where != "hub"} == {None}


def test_progress_of_the_second_address_is_for_terminals(client: Client, released: Model) -> None:
    assert client.call(model=released).stderr == ""
    for path in client.assets():
        path.unlink()
    shown = client.call(model=released, terminal=True).stderr
    assert "first.pth" in shown
    assert "100%" in shown
    for path in client.assets():
        path.unlink()
    assert client.call(model=released, terminal=True, quiet=True).stderr == ""


ALIKE = dataclasses.replace(find_model("mambair-real-x4"), sha256=None)


def test_a_file_of_another_spelling_is_taken_and_found_offline(client: Client) -> None:
    file = "MambaIRv1_ckpt/MambaIR-Real.pth"
    others = [
        "MambaIRv1_ckpt/MambaIR_realDN.pth",
        "MambaIRv1_ckpt/MambaIR_classicSRx4.pth",
        "MambaIR-real.pth",
    ]
    client.server.add_repo(ALIKE.repo, {file: CONTENT, **dict.fromkeys(others, b"x" * 2000)})
    assert client.call("cached", ALIKE).path is None
    fetched = client.call(model=ALIKE)
    assert fetched.path is not None
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.notice == (
        f"using {file} as mambair-real-x4: the known file names are missing, and only this one is similar"
    )
    client.server.requests.clear()
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        again = client.call(model=ALIKE, environment=environment, offline=environment == {})
        assert (again.path, again.notice) == (fetched.path, fetched.notice)
    assert client.call("cached", ALIKE).path == fetched.path
    assert client.call("cached", dataclasses.replace(ALIKE, revision=COMMIT)).path == fetched.path
    assert client.call("cached", dataclasses.replace(ALIKE, revision="f" * 40)).path is None
    assert client.server.requests == []


def test_two_files_of_other_spellings_are_named_and_not_taken(client: Client) -> None:
    files = ["MambaIRv1_ckpt/MambaIR-real.pth", "MambaIRv1_ckpt/real.pth"]
    client.server.add_repo(ALIKE.repo, dict.fromkeys(files, CONTENT))
    outcome = client.call(model=ALIKE)
    assert outcome.error == "DownloadError"
    assert f"several files that may be mambair-real-x4: {files[0]}, {files[1]}; pass" in outcome.message
    assert "--weights" in outcome.message
    assert client.server.downloads() == []


def test_a_file_of_another_spelling_is_held_to_the_hash(client: Client) -> None:
    client.server.add_repo(ALIKE.repo, {"MambaIRv1_ckpt/MambaIR-real.pth": CONTENT})
    outcome = client.call(model=find_model("mambair-real-x4"))
    assert outcome.error == "WrongFileError"
    assert client.blobs() == client.links() == []


def test_the_second_address_goes_before_another_spelling(client: Client, released: Model) -> None:
    client.server.add_repo(MODEL.repo, {"ckpt/First.pth": CONTENT})
    path = client.call(model=released).path
    assert path is not None
    assert path.read_bytes() == BINARY
    client.server.releases.clear()
    other = Client(client.server, client.home / "other").call(model=released)
    assert other.path is not None
    assert other.path.read_bytes() == CONTENT
    assert other.notice is not None
    assert "using ckpt/First.pth as trial-x4" in other.notice


def test_a_missing_file_is_answered_by_what_there_is(client: Client) -> None:
    names = [f"ckpt/{name}.pth" for name in ("frist", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j")]
    client.server.add_repo(MODEL.repo, dict.fromkeys(["README.md", *names], b"x"))
    outcome = client.call()
    assert outcome.error == "DownloadError"
    assert "lacks the file of trial-x4: ckpt/first.pth (or 1 other spelling)" in outcome.message
    assert "it has ckpt/frist.pth, " in outcome.message
    assert outcome.message.count(".pth") == 1 + 8
    assert "and 3 more" in outcome.message
    assert "README" not in outcome.message
    assert "--weights" in outcome.message

    client.server.add_repo(MODEL.repo, {"README.md": b"x"})
    assert "it has no checkpoint at all" in client.call().message


def test_a_file_with_another_hash_is_removed(client: Client) -> None:
    expected = "0" * 64
    outcome = client.call(model=dataclasses.replace(MODEL, sha256=expected))
    assert outcome.error == "WrongFileError"
    assert SHA256 in outcome.message
    assert expected in outcome.message
    assert client.blobs() == client.links() == []
    assert client.call().path is not None


def test_a_file_that_was_damaged_in_the_cache_is_removed(client: Client) -> None:
    model = dataclasses.replace(MODEL, sha256=None)  # then the hash that the Hub gave is held against it
    assert client.call(model=model).path is not None
    (blob,) = client.blobs()
    blob.write_bytes(CONTENT[:-1] + b"!")
    assert client.call(model=model).error == "WrongFileError"
    assert client.blobs() == client.links() == []
    repaired = client.call(model=model).path
    assert repaired is not None
    assert repaired.read_bytes() == CONTENT


def test_a_download_that_was_cut_goes_on_where_it_was(client: Client) -> None:
    content = os.urandom(12_000_000)  # huggingface_hub writes and resumes by pieces of 10 MiB
    client.server.add_repo(MODEL.repo, {"ckpt/first.pth": content})
    client.server.faults.append(Fault(after=11_000_000))
    path = client.call(model=dataclasses.replace(MODEL, sha256=None)).path
    assert path is not None
    assert path.read_bytes() == content
    assert [request.headers.get("range") for request in client.server.downloads()] == [
        None,
        "bytes=10485760-",
    ]


def test_a_line_that_stays_bad_is_an_error_and_leaves_no_file(client: Client) -> None:
    client.server.faults.extend([Fault(after=5000, how="reset")] * 20)
    outcome = client.call()
    assert outcome.error == "DownloadError"
    assert outcome.message.startswith(f"cannot download trial-x4 from {client.server.endpoint}: ")
    assert client.blobs() == client.links() == []
    client.server.faults.clear()
    assert client.call().path is not None


def test_a_token_opens_a_private_repository_and_stays_on_the_hub(client: Client) -> None:
    client.server.token = "hf_secret"
    refused = client.call()
    assert refused.error == "DownloadError"
    assert "no access to some/models" in refused.message
    assert "HTTP 401" in refused.message
    assert "`hf auth login` or in HF_TOKEN" in refused.message

    assert client.call(environment={"HF_TOKEN": "hf_secret"}).path is not None
    downloads = client.server.downloads()
    assert [request.token for request in downloads] == [None]


def test_access_that_was_not_granted_is_told(client: Client) -> None:
    client.server.gated = True
    outcome = client.call(environment={"HF_TOKEN": "hf_valid"})
    assert outcome.error == "DownloadError"
    assert "HTTP 403; ask for it at" in outcome.message


def test_a_repository_that_is_gone_is_told(client: Client) -> None:
    outcome = client.call(model=dataclasses.replace(MODEL, repo="some/other"))
    assert outcome.error == "DownloadError"
    assert "no such repository" in outcome.message
    assert "some/other" in outcome.message


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ({"status": 503}, "HTTP 503; try again later"),
        ({"page": b"<html>Welcome to our hotel</html>"}, "check the connection, the proxy settings"),
        ({"silent": True}, "check the connection, the proxy settings"),
    ],
)
def test_a_hub_that_makes_no_sense_is_an_error_soon(
    client: Client, trouble: dict[str, Any], told: str
) -> None:
    for attribute, value in trouble.items():
        setattr(client.server, attribute, value)
    outcome = client.call(environment={"HF_HUB_ETAG_TIMEOUT": "1"})
    assert outcome.error == "DownloadError"
    assert told in outcome.message
    assert outcome.seconds < 20


def test_a_hub_out_of_reach_is_an_error_soon(client: Client) -> None:
    nobody = "http://127.0.0.1:9"  # the discard port: nothing listens there
    outcome = client.call(environment={"HF_ENDPOINT": nobody})
    assert outcome.error == "DownloadError"
    assert nobody in outcome.message
    assert outcome.seconds < 20


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_offline_means_the_cache_and_nothing_else(client: Client, environment: dict[str, str]) -> None:
    offline = environment == {}
    refused = client.call(environment=environment, offline=offline)
    assert refused.error == "DownloadError"
    assert "trial-x4 is not in the cache, and this is offline" in refused.message
    assert "`mambair models download trial-x4`" in refused.message
    assert client.server.requests == []

    fetched = client.call().path
    client.server.requests.clear()
    assert client.call(environment=environment, offline=offline).path == fetched
    assert client.server.requests == []


def test_a_full_disk_is_an_error_and_leaves_no_file(client: Client) -> None:
    pytest.importorskip("resource")
    outcome = client.call(file_limit=5000)  # no file can grow beyond that: EFBIG where a full disk has ENOSPC
    assert outcome.error == "DownloadError"
    assert "cannot use the cache" in outcome.message
    assert "make room or set HF_HOME" in outcome.message
    assert client.blobs() == client.links() == []


def test_a_cache_that_cannot_be_is_an_error(client: Client, tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("not a folder")
    outcome = client.call(environment={"HF_HOME": str(occupied)})
    assert outcome.error == "DownloadError"
    assert "cannot use the cache" in outcome.message
    assert str(occupied) in outcome.message


def test_xet_that_is_shut_is_an_error(client: Client) -> None:
    pytest.importorskip("hf_xet")
    client.server.xet = True
    outcome = client.call()
    assert outcome.error == "DownloadError"
    assert "cannot download trial-x4" in outcome.message
    assert "/xet-token" in [request.path for request in client.server.requests]
    assert client.server.downloads() == []


def test_progress_is_for_terminals(client: Client) -> None:
    assert client.call().stderr == ""
    for blob in client.blobs():
        hub.discard(blob)
    shown = client.call(terminal=True).stderr
    assert "first.pth" in shown
    assert "100%" in shown
    for blob in client.blobs():
        hub.discard(blob)
    assert client.call(terminal=True, quiet=True).stderr == ""
    assert len(client.server.downloads()) == 3


def test_a_small_file_has_no_hash_but_the_catalogues(client: Client) -> None:
    small = b"few weights"
    client.server.add_repo(MODEL.repo, {"ckpt/first.pth": small})
    model = dataclasses.replace(MODEL, sha256=None)
    path = client.call(model=model).path
    assert path is not None
    sha256 = hashlib.sha256(small).hexdigest()
    assert hub.verify(path, model) == Verification(sha256, None)
    assert hub.verify(path, dataclasses.replace(MODEL, sha256=sha256)) == Verification(sha256, "catalogue")


def test_verify_names_who_knew_the_hash(tmp_path: Path) -> None:
    blob = tmp_path / SHA256
    blob.write_bytes(CONTENT)
    link = tmp_path / "model.pth"
    link.symlink_to(SHA256)
    assert hub.verify(link, MODEL) == Verification(SHA256, "catalogue")
    unknown = dataclasses.replace(MODEL, sha256=None)
    assert hub.verify(link, unknown) == Verification(SHA256, "hub")
    assert hub.verify(blob, unknown) == Verification(SHA256, None)

    blob.write_bytes(b"other")
    with pytest.raises(WrongFileError, match=r"`mambair models download trial-x4` downloads it again"):
        hub.verify(link, unknown)
    assert link.exists()
    with pytest.raises(DownloadError, match=r"cannot read: .*nowhere.pth: No such file"):
        hub.verify(tmp_path / "nowhere.pth", MODEL)


def test_discard_follows_every_link(tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    bystander = tmp_path / "bystander"
    bystander.write_bytes(b"stays")
    shared = tmp_path / "shared"
    shared.write_bytes(CONTENT)
    blob = tmp_path / "blob"
    blob.symlink_to("shared")
    link = tmp_path / "snapshot" / "model.pth"
    link.symlink_to("../blob")
    hub.discard(link)
    assert [path for path in tmp_path.rglob("*") if path.is_symlink() or path.is_file()] == [bystander]
    with pytest.raises(DownloadError, match="cannot remove"):
        hub.discard(tmp_path)


def test_a_bundled_model_is_read_from_the_package(tmp_path: Path) -> None:
    package = Path(hub.__file__).parents[1]
    file = tmp_path / "tiny.safetensors"
    bundled = dataclasses.replace(
        MODEL, repo="", files=(), certainty=None, bundled=os.path.relpath(file, package)
    )
    assert hub.cached(bundled) is None
    with pytest.raises(DownloadError, match="reinstall mambair-cli"):
        hub.fetch(bundled)

    file.write_bytes(CONTENT)
    assert hub.fetch(bundled, offline=True).path.samefile(file)
    with pytest.raises(WrongFileError, match="reinstall mambair-cli"):
        hub.fetch(dataclasses.replace(bundled, sha256="0" * 64))
    assert file.exists()


def test_the_library_is_imported_when_it_is_needed() -> None:
    script = (
        "import sys, mambair_cli.checkpoints.hub; "
        "print([name for name in sys.modules if name.startswith('hugging')])"
    )
    process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True)
    assert process.stdout.decode().strip() == "[]"


@pytest.mark.hub
def test_the_real_hub_has_every_model() -> None:
    from huggingface_hub import list_repo_files

    missing = []
    for repo in {model.repo for model in load_catalog() if model.repo}:
        listed = list_repo_files(repo)
        missing += [
            model.name
            for model in load_catalog()
            if model.repo == repo and not any(file in listed for file in model.files)
        ]
    assert missing == []


@pytest.mark.hub
def test_the_real_second_address_has_every_file_it_is_for() -> None:
    from huggingface_hub import get_session

    urls = [model.url for model in load_catalog() if model.url]
    assert urls
    missing = [url for url in urls if get_session().head(url, follow_redirects=True).status_code != 200]
    assert missing == []


@pytest.mark.hub
def test_the_real_hub_gives_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = find_model("mambairv2-light-x4")
    path = hub.fetch(model).path
    assert hub.verify(path, model).source is not None
    assert hub.cached(model) == path
    assert re.fullmatch(r"[0-9a-f]{40}", path.relative_to(tmp_path).parts[2])
