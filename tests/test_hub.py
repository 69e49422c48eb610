"""Downloads, through huggingface_hub as it is, from a Hub on the loopback."""

import dataclasses
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_client import CONTENT, MODEL, SHA256, Client
from hub_server import COMMIT, Fault
from repository import ROOT

from mambair_cli.checkpoints import hub, mirror
from mambair_cli.checkpoints.catalog import find_model, load_catalog
from mambair_cli.checkpoints.hub import Verification, WrongFileError
from mambair_cli.checkpoints.source import parse_source
from mambair_cli.errors import DownloadError


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


def test_access_that_was_not_granted_is_explained(client: Client) -> None:
    client.server.gated = True
    outcome = client.call(environment={"HF_TOKEN": "hf_valid"})
    assert outcome.error == "DownloadError"
    assert "HTTP 403; ask for it at" in outcome.message


def test_a_repository_that_is_gone_is_named(client: Client) -> None:
    outcome = client.call(model=dataclasses.replace(MODEL, repo="some/other"))
    assert outcome.error == "DownloadError"
    assert "no such repository" in outcome.message
    assert "some/other" in outcome.message


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"status": 503}, "HTTP 503; try again later"),
        ({"page": b"<html>Welcome to our hotel</html>"}, "check the connection, the proxy settings"),
        ({"silent": True}, "check the connection, the proxy settings"),
    ],
)
def test_a_hub_that_makes_no_sense_is_an_error_soon(
    client: Client, trouble: dict[str, Any], message: str
) -> None:
    for attribute, value in trouble.items():
        setattr(client.server, attribute, value)
    outcome = client.call(environment={"HF_HUB_ETAG_TIMEOUT": "1"})
    assert outcome.error == "DownloadError"
    assert message in outcome.message
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


def test_without_a_home_nothing_is_downloaded_into_the_working_folder(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = client.call(environment={"HF_HOME": "~no-such-user"})  # stays so, as ~ does without a home
    assert outcome.error == "DownloadError"
    assert outcome.message == (
        "cannot download trial-x4 to the cache: ~no-such-user/hub, where no home folder is known; set HOME, "
        "or HF_HOME to another folder"
    )
    assert not client.server.requests
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", "~/assets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    source = parse_source("https://models.example/a.pth")
    assert source
    with pytest.raises(DownloadError, match=r"cannot download .* to the cache: ~/assets, where no home"):
        hub.fetch(source)
    with pytest.raises(DownloadError, match="where no home folder is known"):
        mirror.download("https://models.example/a.pth")


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
