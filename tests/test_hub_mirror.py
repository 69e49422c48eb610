"""The second address of a checkpoint, for where the Hub does not have it or cannot be reached."""

import dataclasses
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hub_client import CONTENT, MODEL, Client
from hub_server import Fault

from mambair_cli.checkpoints import hub
from mambair_cli.checkpoints.catalog import Model
from mambair_cli.checkpoints.hub import Verification

RELEASE = "/owner/name/releases/download/v1.0/first.pth"
BINARY = b"\x80\x02" + CONTENT  # no text, as checkpoints are none
BINARY_SHA256 = hashlib.sha256(BINARY).hexdigest()


@pytest.fixture
def released(client: Client) -> Model:
    """Return a model whose file has a second address, of which the repository has nothing."""
    client.server.add_repo(MODEL.repo, {"README.md": b"hello"})
    client.server.releases[RELEASE] = BINARY
    return dataclasses.replace(MODEL, sha256=None, url=client.server.release_host + RELEASE)


@pytest.mark.parametrize(
    ("trouble", "reason"),
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
    client: Client, released: Model, trouble: dict[str, Any], reason: str, sha256: str | None
) -> None:
    for attribute, value in trouble.items():
        setattr(client.server, attribute, value)
    model = dataclasses.replace(released, sha256=sha256)
    fetched = client.call(model=model, environment={"HF_HUB_ETAG_TIMEOUT": "1"})
    assert fetched.path is not None
    assert fetched.path.read_bytes() == BINARY
    assert fetched.notice is not None
    assert fetched.notice.startswith(f"using trial-x4 from {model.url}, not from the Hub: {reason}")
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


def test_two_addresses_that_fail_are_both_named(client: Client, released: Model) -> None:
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


def test_a_wrong_file_at_the_second_address_leaves_the_right_one(client: Client, released: Model) -> None:
    path = client.call(model=released).path
    assert path is not None
    for sha256 in ("0" * 64, BINARY_SHA256[::-1]):
        assert client.call(model=dataclasses.replace(released, sha256=sha256)).error == "WrongFileError"
        assert client.assets() == [path]


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


def test_a_full_disk_is_reported_and_the_second_address_leaves_no_file(
    client: Client, released: Model
) -> None:
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
