"""Checkpoints of the user's: any file on the Hub or at an address, and names for them."""

import hashlib
import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from forked import run_forked
from hub_place import FILE, SOURCE, Place, open_place
from hub_server import COMMIT
from pictures import save_photo

from mambair_cli.checkpoints import mirror
from mambair_cli.checkpoints.source import CheckpointSource, is_safe_hop, parse_source
from mambair_cli.errors import DownloadError, UsageError


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with open_place(tmp_path) as place:
        yield place


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:a/b/c.pth", CheckpointSource(name="hf:a/b/c.pth", repo="a/b", files=("c.pth",))),
        ("HF:a/b/c d/e.pth", CheckpointSource(name="HF:a/b/c d/e.pth", repo="a/b", files=("c d/e.pth",))),
        (
            "hf:a/b/c/d.pth@refs/pr/1",
            CheckpointSource(
                name="hf:a/b/c/d.pth@refs/pr/1", repo="a/b", files=("c/d.pth",), revision="refs/pr/1"
            ),
        ),
        ("hf:a/b/x@2x.pth", CheckpointSource(name="hf:a/b/x@2x.pth", repo="a/b", files=("x@2x.pth",))),
        (
            "hf:a/b/x@2x.pth@v1",
            CheckpointSource(name="hf:a/b/x@2x.pth@v1", repo="a/b", files=("x@2x.pth",), revision="v1"),
        ),
        ("https://h/f.pth", CheckpointSource(name="https://h/f.pth", url="https://h/f.pth")),
        (
            f"https://h/f.pth?v=1#sha256={'AB' * 32}",
            CheckpointSource(name="https://h/f.pth?v=1", url="https://h/f.pth?v=1", sha256="ab" * 32),
        ),
        (
            "http://localhost:80/f",
            CheckpointSource(name="http://localhost:80/f", url="http://localhost:80/f"),
        ),
        (
            f"https://huggingface.co/a/b/blob/main/c/d.pth?download=true#sha256={'ab' * 32}",
            CheckpointSource(
                name="hf:a/b/c/d.pth@main", repo="a/b", files=("c/d.pth",), revision="main", sha256="ab" * 32
            ),
        ),
        *[
            (text, None)
            for text in (
                "hf:",
                "hf:a/b",
                "hf:a/b/",
                "hf:a//c.pth",
                "hf:a/b/../c.pth",
                "hf:../b/c.pth",
                "hf:a/b/c.pth@",
                "hf:a/b/c\\d.pth",
                "http://example.com/f.pth",
                "https://example.com",
                "https://example.com/folder/",
                "https://example.com/a/../../f.pth",
                "https://example.com/a/%2e%2e/f.pth",
                "https://user:secret@example.com/f.pth",
                "https://example.com:99999/f.pth",
                "https://[::1/f.pth",
                "https:///f.pth",
                "https://example.com/f.pth#sha256=12",
                "https://example.com/f.pth#md5=12",
                "https://example.com/f\n.pth",
                "https://example.com/f g.pth",
                "ftp://example.com/f.pth",
                "file:///etc/passwd",
                "",
            )
        ],
    ],
)
def test_a_source_is_read_or_refused_with_what_would_work(text: str, source: CheckpointSource | None) -> None:
    if source is not None:
        assert parse_source(text) == source
        return
    with pytest.raises(UsageError) as caught:
        parse_source(text)
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["a.pth", "./hf:a/b/c.pth", "/x/https:/y", "hf", "C:\\a.pth", "C:/a.pth"])
def test_what_is_no_source_is_a_file(text: str) -> None:
    assert parse_source(text) is None


@pytest.mark.parametrize(
    ("url", "start", "safe"),
    [
        ("https://b/f", "https://a/f", True),
        ("http://b/f", "https://a/f", False),
        ("http://localhost/f", "https://a/f", False),
        ("ftp://b/f", "https://a/f", False),
        ("https://b/f", "http://localhost/f", True),
        ("http://127.0.0.1:8/f", "http://localhost/f", True),
        ("http://b/f", "http://localhost/f", False),
    ],
)
def test_a_download_is_sent_on_only_to_protected_addresses(url: str, start: str, safe: bool) -> None:
    assert is_safe_hop(url, start) is safe


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
def test_a_file_on_the_hub_restores_and_then_needs_no_hub(place: Place, revision: str) -> None:
    source = SOURCE + revision
    code, out, _ = place.run("upscale", "in.png", "--weights", source)
    assert (code, out) == (0, ["in_x2.png"])
    np.testing.assert_array_equal(place.result(), place.doubled())
    asked = len(place.server.requests)
    for more in (["--offline"],) if revision else (["--offline"], ["--json"], ["--dry-run"]):
        code, out, _ = place.run("upscale", "in.png", "--weights", source, "--overwrite", *more)
        assert code == 0
    if not revision:
        assert place.run("upscale", "in.png", "--weights", source, "--overwrite", HF_HUB_OFFLINE="1")[0] == 0
    assert len(place.server.requests) == asked
    facts = json.loads(place.run("upscale", "in.png", "--weights", source, "--overwrite", "--json")[1][0])
    assert (facts["model"], facts["weights"]) == ("film_x2.safetensors", place.sha256)


def test_python_takes_a_source_too(place: Place) -> None:
    program = (
        "import sys, numpy, mambair_cli\n"
        "restore = mambair_cli.Restorer(weights=sys.argv[1])\n"
        "image = numpy.arange(48, dtype='uint8').reshape(4, 4, 3)\n"
        "assert (restore(image) == image.repeat(2, 0).repeat(2, 1)).all()\n"
        "print(restore.model.name)\n"
    )
    environment = place.server.environment(place.folder / "cache")
    for source in (SOURCE, place.url):
        done = run_forked("-c", program, source, env=environment)
        assert (done.returncode, done.stdout) == (0, "film_x2.safetensors\n"), done.stderr


def test_evaluate_and_preview_take_a_source(place: Place) -> None:
    truth = place.folder / "truth"
    truth.mkdir()
    save_photo(truth / "a.png", (32, 32))
    code, out, _ = place.run("evaluate", "truth", "--task", "upscale", "-s", 2, "--weights", SOURCE, "--json")
    assert (code, json.loads(out[-1])["model"]) == (0, "film_x2.safetensors")
    code, out, _ = place.run("upscale", "in.png", "--weights", SOURCE, "--preview")
    assert (code, out[-1]) == (0, "in_preview.html")


def test_training_begins_with_a_source(place: Place) -> None:
    photos = place.folder / "photos"
    photos.mkdir()
    save_photo(photos / "a.png", (64, 64))
    settings = ["--task", "upscale", "-s", "2", "--steps", "1", "--crop", "16", "--batch", "1"]
    code, out, _ = place.run("train", "photos", "-o", "run", "--weights", SOURCE, *settings)
    assert (code, out[-1]) == (0, "run/weights.safetensors")
    code, _, err = place.run("train", "photos", "-o", "no", "--weights", "hf:a", *settings)
    assert (code, len(err)) == (2, 1)


@pytest.mark.parametrize(
    ("source", "exit_code", "words"),
    [
        ("hf:some/films/film.pth", 3, f"no such file in some/films on the Hub: film.pth; it has {FILE}"),
        ("hf:some/nothing/film.pth", 3, "no such repository on"),
        (f"{SOURCE}@v9", 3, "no such revision of some/films on"),
        ("hf:some/films", 2, "hf:OWNER/REPO/FILE[@REVISION] would work"),
        ("http://example.com/a.pth", 2, "without TLS anybody could exchange the file"),
        ("ftp://example.com/a.pth", 2, "no checkpoints come from there"),
    ],
)
def test_what_is_not_there_is_named_in_a_line(place: Place, source: str, exit_code: int, words: str) -> None:
    code, out, err = place.run("upscale", "in.png", "--weights", source)
    assert (code, out, len(err)) == (exit_code, [], 1)
    assert words in err[0]
    assert not (place.folder / "in_x2.png").exists()


def test_no_other_spelling_stands_in_for_the_file_that_was_named(place: Place) -> None:
    code, _, err = place.run("upscale", "in.png", "--weights", SOURCE.replace("film_x2", "Film-x2"))
    assert code == 3
    assert "no such file in some/films" in err[0]


def test_a_private_file_needs_a_token(place: Place) -> None:
    place.server.token = "hf_secret"
    code, _, err = place.run("upscale", "in.png", "--weights", SOURCE)
    assert code == 3
    assert "no access to some/films" in err[0]
    assert place.run("upscale", "in.png", "--weights", SOURCE, HF_TOKEN="hf_secret")[0] == 0
    assert all(request.token is None for request in place.server.downloads())


@pytest.mark.parametrize("kind", ["hub", "address"])
def test_offline_and_in_a_dry_run_nothing_is_downloaded(place: Place, kind: str) -> None:
    source = SOURCE if kind == "hub" else place.url
    ways = [(["--offline"], {}), (["--dry-run"], {})]
    if kind == "hub":
        ways += [([], {"HF_HUB_OFFLINE": "1"}), (["--dry-run", "--offline"], {})]
    for more, environment in ways:
        code, out, err = place.run("upscale", "in.png", "--weights", source, *more, **environment)
        assert (code, out, len(err)) == (3, [], 1)
        assert f"`mambair models download {source}` d" in err[0]
    assert place.server.requests == []
    code, (path,), _ = place.run("models", "download", source)
    assert code == 0
    assert Path(path).read_bytes() == place.content
    assert place.run("models", "path", source)[1] == [path]
    assert place.run("upscale", "in.png", "--weights", source, "--dry-run", "--offline")[0] == 0


def test_a_file_at_an_address_is_kept_with_the_hash_that_it_had(place: Place) -> None:
    code, out, err = place.run("upscale", "in.png", "--weights", place.url)
    assert (code, out) == (0, ["in_x2.png"])
    assert f"#sha256={place.sha256}" in err[0]
    np.testing.assert_array_equal(place.result(), place.doubled())
    asked = len(place.server.requests)
    for source in (place.url, f"{place.url}#sha256={place.sha256.upper()}"):
        code, _, err = place.run("upscale", "in.png", "--weights", source, "--overwrite")
        assert (code, [line for line in err if "sha256" in line]) == (0, [])
    assert len(place.server.requests) == asked

    (kept,) = place.downloads()
    kept.write_bytes(place.content[:-1] + b"!")
    code, _, err = place.run("upscale", "in.png", "--weights", place.url, "--overwrite")
    assert code == 3
    assert "(the file has been removed)" in err[0]
    assert place.downloads() == []
    assert place.run("upscale", "in.png", "--weights", place.url, "--overwrite")[0] == 0


def test_a_wrong_hash_does_not_cost_others_their_file(place: Place) -> None:
    pinned = f"{place.url}#sha256={place.sha256}"
    assert place.run("models", "download", pinned)[0] == 0
    (kept,) = place.downloads()
    code, _, err = place.run("models", "download", f"{place.url}#sha256={'0' * 64}")
    assert (code, len(err)) == (3, 1)
    assert f"what {place.url} gives has sha256 {place.sha256}, not {'0' * 64}" in err[0]
    assert place.downloads() == [kept]
    assert place.run("models", "path", pinned) == (0, [str(kept)], [])


def test_a_wrong_hash_of_a_file_on_the_hub_leaves_it_in_the_cache(place: Place) -> None:
    assert place.run("models", "download", SOURCE)[0] == 0
    page = f"https://huggingface.co/some/films/resolve/main/{FILE}"
    code, _, err = place.run("models", "download", f"{page}#sha256={'0' * 64}")
    assert (code, len(err)) == (3, 1)
    assert f"has sha256 {place.sha256}, not {'0' * 64}" in err[0]
    assert place.run("models", "path", SOURCE)[0] == 0
    place.server.repos["some/films"].files[FILE] = other = place.content + b" "
    page += f"#sha256={hashlib.sha256(other).hexdigest()}"
    place.server.repos["some/films"].commit = "f" * 40
    code, (path,), _ = place.run("models", "download", page)
    assert Path(path).read_bytes() == other


def test_a_file_with_another_hash_than_demanded_is_removed(place: Place) -> None:
    code, out, err = place.run("upscale", "in.png", "--weights", f"{place.url}#sha256={'0' * 64}")
    assert (code, out, len(err)) == (3, [], 1)
    assert f"has sha256 {place.sha256}, not {'0' * 64}" in err[0]
    assert place.downloads() == []
    assert not (place.folder / "in_x2.png").exists()


def test_queries_of_one_address_are_different_files(place: Place) -> None:
    first = mirror._place_of("https://h/get/f.pth?id=1")
    second = mirror._place_of("https://h/get/f.pth?id=2")
    assert first.name == second.name == "f.pth"
    assert len({first, second, mirror._place_of("https://h/get/f.pth")}) == 3


def test_a_page_or_a_missing_file_at_an_address_is_recognised(place: Place) -> None:
    place.server.releases["/files/page.pth"] = b"<html>log in first</html>"
    code, _, err = place.run("upscale", "in.png", "--weights", f"{place.server.release_host}/files/page.pth")
    assert (code, len(err)) == (3, 1)
    assert "it is a web page or other text, not a checkpoint; check the address" in err[0]
    code, _, err = place.run("upscale", "in.png", "--weights", f"{place.server.release_host}/no.pth")
    assert (code, len(err)) == (3, 1)
    assert "/no.pth: HTTP 404; check the address" in err[0]
    assert place.downloads() == []


def _half_checkpoints() -> dict[str, bytes]:
    """Return the first halves of checkpoints, by their paths."""
    tensors, file = {"a": torch.zeros(100)}, io.BytesIO()
    torch.save(tensors, file)
    wholes = {"/cut.safetensors": safetensors.torch.save(tensors), "/cut.pth": file.getvalue()}
    return {path: whole[: len(whole) // 2] for path, whole in wholes.items()}


class _Elsewhere(BaseHTTPRequestHandler):
    """A server that knows no HEAD, sends clients to an address without TLS, or sends without an end."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        has_size = self.path == "/sized.pth"
        self.send_response(200 if has_size else 405)
        self.send_header("Content-Length", "600" if has_size else "0")
        self.end_headers()

    def do_GET(self) -> None:
        if self.path == "/away.pth":
            self.send_response(302)
            self.send_header("Location", "http://example.invalid/f.pth")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        if self.path == "/large.pth":
            self.send_header("Content-Length", "2000000")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        content = {"/small.pth": b"\0" * 500, "/sized.pth": b"\0" * 500, **_half_checkpoints()}
        self.wfile.write(content.get(self.path, b"\0" * 2_000_000))

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(mirror, "MOST_BYTES", 1_000_000)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("away.pth", "it is redirected to an address without TLS, http://example.invalid/f.pth"),
        ("large.pth", "the file has 0.0 GB, and checkpoints may have 0.0 GB"),
        ("endless.pth", "the file has 0.0 GB, and checkpoints may have 0.0 GB"),
    ],
)
def test_a_download_that_leaves_tls_or_is_too_large_stops(elsewhere: str, file: str, words: str) -> None:
    from huggingface_hub import get_session

    before = get_session().event_hooks
    start = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        mirror.download(f"{elsewhere}/{file}")
    assert str(caught.value) == words
    assert time.monotonic() - start < 10
    assert mirror.find(f"{elsewhere}/{file}") is None
    assert get_session().event_hooks == before


def test_a_server_that_says_nothing_before_it_sends_is_no_obstacle(elsewhere: str) -> None:
    path = mirror.download(f"{elsewhere}/small.pth")
    assert path.read_bytes() == b"\0" * 500
    assert mirror.find(f"{elsewhere}/small.pth") == path
    assert mirror.find(f"{elsewhere}/small.pth", "0" * 64) is None


@pytest.mark.parametrize("file", ["sized.pth", "cut.safetensors", "cut.pth"])
def test_a_download_that_ends_too_early_is_not_kept(elsewhere: str, file: str) -> None:
    with pytest.raises(DownloadError, match=r"of size 600 but has size 500|it ends too early, or is damaged"):
        mirror.download(f"{elsewhere}/{file}")
    assert mirror.find(f"{elsewhere}/{file}") is None


def test_a_file_on_the_hub_that_is_too_large_is_not_downloaded(place: Place) -> None:
    program = (
        "import sys\n"
        "from mambair_cli.checkpoints import mirror\n"
        "mirror.MOST_BYTES = 1000\n"
        "from mambair_cli.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    environment = place.server.environment(place.folder / "cache")
    done = run_forked("-c", program, "models", "download", SOURCE, env=environment)
    assert done.returncode == 3
    assert "cannot download hf:some/films/nets/film_x2.safetensors: the file has" in done.stderr
    assert place.server.downloads() == []
