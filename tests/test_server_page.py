"""What the server's page needs: its files, a look at an image, its form for the screen, its progress."""

import asyncio
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from pictures import encode, noise
from PIL import Image
from restore_server import PHOTO, Link, ask, error_message, serving

from mambair_cli.cli import main
from mambair_cli.errors import ServerError
from mambair_cli.images import FORMATS, READABLE_SUFFIXES
from mambair_cli.inspection.need import SEEN_QUALITY
from mambair_cli.server import service
from mambair_cli.server.address import Address
from mambair_cli.server.progress import ImageProgress, ProgressBoard, State
from mambair_cli.server.service import RestoreService, ServiceResult

FILES = {
    "/": "text/html",
    "/page/style.css": "text/css",
    "/page/app.js": "text/javascript",
    "/page/requests.js": "text/javascript",
    "/page/looks.js": "text/javascript",
    "/page/incoming.js": "text/javascript",
    "/page/zip.js": "text/javascript",
    "/page/icon.svg": "image/svg+xml",
    "/page/viewer.js": "text/javascript",
    "/page/viewer.css": "text/css",
}
LARGE = encode(noise(150, 200, 3))


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    with serving() as address:
        yield address


class Follower:
    """Follows an image in a thread of its own; other threads can wait for what it hears."""

    def __init__(self, address: Address, name: str) -> None:
        self.events: list[dict] = []
        self._heard = threading.Condition()
        self._thread = threading.Thread(target=self._follow, args=(address, name))
        self._thread.start()
        self.wait_for({"state": "waiting", "done": 0, "total": 0, "arrived": False})  # nothing is sent

    def _follow(self, address: Address, name: str) -> None:
        link = Link(address)
        link.request("GET", f"/v1/progress/{name}")
        response = link.getresponse()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        for line in response:
            if line.startswith(b"data: "):
                with self._heard:
                    self.events.append(json.loads(line.removeprefix(b"data: ")))
                    self._heard.notify_all()
        link.close()

    def wait_for(self, event: dict) -> None:
        with self._heard:
            assert self._heard.wait_for(lambda: event in self.events, 60), (event, self.events)

    def wait_for_end(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


def test_the_page_offers_all_formats_and_knows_all_suffixes(address: Address) -> None:
    page = ask(address, "GET", "/")[2].decode()
    listed = re.search('<select id="format">(.*)</select>', page)
    assert listed
    assert re.findall('value="(.*?)"', listed[1]) == ["", *FORMATS]
    assert re.findall('data-suffix="(.*?)"', listed[1]) == [row.suffixes[0] for row in FORMATS.values()]
    suffixes = re.search('data-suffixes="(.*?)"', page)
    assert suffixes
    assert set(suffixes[1].split()) == READABLE_SUFFIXES


@pytest.mark.parametrize("path", FILES)
def test_the_page_loads_its_own_files_alone(address: Address, path: str) -> None:
    status, headers, body = ask(address, "GET", path)
    assert status == 200
    assert headers["Content-Type"].split(";")[0] == FILES[path]
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert b"http://" not in body.replace(b"http://www.w3.org/2000/svg", b"")
    assert b"https://" not in body


def test_a_look_is_that_of_the_command(
    address: Address, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = encode(noise(64, 80, 3))
    (tmp_path / "a.png").write_bytes(photo)
    assert main(["inspect", str(tmp_path / "a.png"), "--json"]) == 0
    wanted = json.loads(capsys.readouterr().out)
    status, _, body = ask(address, "POST", "/v1/inspect", photo)
    assert status == 200
    assert json.loads(body) == {key: value for key, value in wanted.items() if key != "event"} | {
        "input": "-"
    }


def test_the_page_knows_the_limit_by_which_the_server_sees_compression(address: Address) -> None:
    script = ask(address, "GET", "/page/looks.js")[2].decode()
    assert f"const SEEN_QUALITY = {SEEN_QUALITY};" in script


def test_any_image_is_shown_with_8_bits(address: Address) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30), dtype=np.uint16)
    file = io.BytesIO()
    Image.fromarray(deep).save(file, "TIFF")
    status, headers, body = ask(address, "POST", "/v1/show", file.getvalue())
    assert (status, headers["Content-Type"]) == (200, "image/webp")
    shown = np.asarray(Image.open(io.BytesIO(body)))
    assert shown.shape == (20, 30, 3)
    assert np.abs(shown[..., 0] - deep / 257).max() <= 0.5


def test_an_image_with_a_longer_side_than_webp_is_shown_smaller(address: Address) -> None:
    file = io.BytesIO()
    Image.new("RGB", (2, 20_000)).save(file, "PNG")
    status, _, body = ask(address, "POST", "/v1/show", file.getvalue())
    assert status == 200
    assert Image.open(io.BytesIO(body)).size == (2, 16383)


@pytest.mark.parametrize(
    ("path", "name"), [("/v1/inspect", "inspect_image"), ("/v1/show", "read_for_screen")]
)
def test_work_on_an_image_ends_when_its_client_is_gone(
    address: Address, path: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(*given: Any, check: Callable[[], None] | None = None) -> None:
        begun.set()
        is_needed = check or given[-1]
        try:
            for _ in range(600):
                is_needed()
                time.sleep(0.1)
        except Exception:
            ended.set()
            raise

    monkeypatch.setattr(service, name, work)
    link = Link(address)
    link.request("POST", path, PHOTO)
    assert begun.wait(60)
    link.close()
    assert ended.wait(60)


@pytest.mark.parametrize("path", ["/v1/inspect", "/v1/show"])
def test_what_is_no_image_is_refused_in_a_line(address: Address, path: str) -> None:
    answer = ask(address, "POST", path, b"no image")
    assert answer[0] == 422
    assert "it is no image of a known kind" in error_message(answer)
    assert ask(address, "GET", path)[0] == 405


def test_a_message_names_no_folder_of_the_server(address: Address) -> None:
    answer = ask(address, "POST", "/v1/upscale?scale=2&model=mambair-light-x2&offline=true", PHOTO)
    assert answer[0] == 404
    message = error_message(answer)
    assert "is not in the cache, and this is offline; `mambair models download" in message
    assert "/" not in message


def test_limits_hold_for_every_image(tmp_path) -> None:
    with serving(max_bytes=100, max_pixels=50) as address:
        for path in ("/v1/inspect", "/v1/show"):
            assert ask(address, "POST", path, bytes(101))[0] == 413
    with serving(max_pixels=50) as address:
        for path in ("/v1/inspect", "/v1/show"):
            assert "more than 50" in error_message(ask(address, "POST", path, PHOTO))


def test_progress_is_reported_by_tile(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = Follower(address, "picture-1")
    tell = ImageProgress.tell

    def tell_and_wait(self: ImageProgress, state: State, done: int = 0, total: int = 0) -> None:
        tell(self, state, done, total)
        if total:  # a busy machine could come to the next tile before this one is heard
            follower.wait_for({"state": state, "done": done, "total": total, "arrived": True})

    monkeypatch.setattr(ImageProgress, "tell", tell_and_wait)
    answer = ask(address, "POST", "/v1/upscale?scale=2&tile=32", LARGE, {"Mambair-Progress": "picture-1"})
    assert answer[0] == 200
    follower.wait_for_end()
    tiles = json.loads(answer[1]["Mambair-Report"])["tiles"]
    counts = [(event["done"], event["total"]) for event in follower.events if event["total"]]
    assert {total for _, total in counts} == {tiles}
    assert counts == sorted(set(counts))
    assert counts[-1] == (tiles, tiles)
    assert len(counts) > 3  # the threads of a CPU compute some tiles side by side
    assert follower.events[-1]["state"] == "done"


def test_progress_says_whether_an_image_that_waits_has_arrived() -> None:
    with serving() as address:
        service_is_free = threading.Event()
        first, second = Follower(address, "picture-a"), Follower(address, "picture-b")
        restore = RestoreService.restore

        async def hold(self: RestoreService, *arguments: Any) -> ServiceResult:
            await asyncio.to_thread(service_is_free.wait, 60)
            return await restore(self, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RestoreService, "restore", hold)
            names = ("picture-a", "picture-b")
            senders = [
                threading.Thread(
                    target=ask,
                    args=(address, "POST", "/v1/upscale?scale=2", PHOTO, {"Mambair-Progress": name}),
                )
                for name in names
            ]
            for sender in senders:
                sender.start()
            for follower in (first, second):
                follower.wait_for({"state": "waiting", "done": 0, "total": 0, "arrived": True})
                assert not any(event["total"] for event in follower.events)
            service_is_free.set()
            for sender in senders:
                sender.join(60)
        for follower in (first, second):
            follower.wait_for_end()
            assert [event["arrived"] for event in follower.events][:2] == [False, True]


def test_followers_of_images_that_nobody_sends_make_room() -> None:
    async def follow_many() -> None:
        board = ProgressBoard()
        board.begin("used-0000")
        idle = [board.follow(f"idle-{number:04}") for number in range(127)]
        for each in idle:
            await anext(each)
        board.begin("used-0001")
        assert [line async for line in idle[0]] == []  # the oldest has ended
        board.end("used-0000", "done")
        for number in range(2, 129):
            board.begin(f"used-{number:04}")
        with pytest.raises(ServerError, match="too many images are followed"):
            board.begin("used-9999")

    asyncio.run(follow_many())


def test_a_failure_ends_the_progress(address: Address) -> None:
    follower = Follower(address, "picture-2")
    assert ask(address, "POST", "/v1/upscale", b"no image", {"Mambair-Progress": "picture-2"})[0] == 422
    follower.wait_for_end()
    assert follower.events[-1]["state"] == "failed"


@pytest.mark.parametrize("name", ["short", "a" * 65, "with%20space", "..%2F..%2Fetc"])
def test_a_name_that_is_not_allowed_is_refused(address: Address, name: str) -> None:
    assert ask(address, "GET", f"/v1/progress/{name}")[0] in (400, 404)
    sent = {"Mambair-Progress": name.replace("%20", " ")}
    assert "8 to 64 letters" in error_message(ask(address, "POST", "/v1/upscale", PHOTO, sent))


def test_a_name_is_free_again_after_its_image(address: Address) -> None:
    for _ in range(2):
        headers = {"Mambair-Progress": "picture-3"}
        assert ask(address, "POST", "/v1/upscale?scale=2", PHOTO, headers)[0] == 200
