"""Requests of any program over HTTP: what is answered, and what is refused."""

import errno
import gzip
import json
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from pictures import encode, noise
from restore_server import PHOTO, ask, connect, error_message, needs_unix_sockets, serving

from mambair_cli.runs.parameters import SHARED, TASK_PARAMETERS
from mambair_cli.server.protocol import (
    REPORT_HEADER,
)
from mambair_cli.server.query import TASKS

pytestmark = needs_unix_sockets


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("weights=/etc/passwd", "no parameter weights"),
        ("path=/etc/passwd", "no parameter path"),
        ("output=x", "no parameter output"),
        ("scale=2&scale=3", "given twice"),
        ("scale=nan", "scale is nan"),
        ("scale=5", "from 1 to 4"),
        ("width=0", "from 1 to"),
        ("megapixels=1e999", "megapixels is 1e999"),
        ("width=5&height=5&megapixels=1", "asked for more than once"),
        ("tile=1", "tile is 1"),
        ("tile=32&overlap=32", "the overlap must be"),
        ("seed=9999999999999999999", "seed is"),
        ("seed=%D9%A3", "seed is"),
        ("strip=yes", "true or false"),
        ("format=svg", "format is svg"),
        ("precision=fp8", "precision is fp8"),
        ("model=tiny-x4&model=tiny-x2", "given twice"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(address, query, words):
    answer = ask(address, "POST", f"/v1/upscale?{query}", PHOTO)
    assert answer[0] == 400
    assert words in error_message(answer)


def test_the_strength_of_damage_chooses_a_model_and_goes_with_none(address):
    for query in ("denoise?sigma=15&model=tiny-denoise", "dejpeg?jpeg_quality=5&model=tiny-dejpeg"):
        answer = ask(address, "GET", f"/v1/{query}")
        assert (answer[0], "leave one out" in error_message(answer)) == (400, True)


@pytest.mark.parametrize("query", ["upscale?model=tiny-denoise", "denoise?model=tiny-x2"])
def test_a_model_that_does_something_else_is_a_wrong_parameter(address, query):
    for method, body in (("GET", None), ("POST", PHOTO)):
        answer = ask(address, method, f"/v1/{query}", body)
        assert (answer[0], json.loads(answer[2])["kind"]) == (400, "ModelError")
        assert "the model does not fit" in error_message(answer)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "tiny-x4.safetensors", "weights/x4", ""])
def test_a_model_is_a_name_and_no_path(address, name):
    answer = ask(address, "GET", f"/v1/upscale?model={name}")
    assert answer[0] == 404
    assert "unknown model" in error_message(answer)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "//etc/passwd", "/v1/../../etc/passwd", "/v1/%2e%2e/%2e%2e/etc/passwd", "/v1/sharpen"],
)
def test_there_are_no_other_pages(address, path):
    answer = ask(address, "GET", path)
    assert answer[0] == 404
    assert "see /docs" in error_message(answer)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/upscale/?scale=2", "there is no /v1/upscale/; /v1/upscale would work; see /docs"),
        ("/v1/health//", "there is no /v1/health//; /v1/health would work; see /docs"),
        ("/docs/", "there is no /docs/; /docs would work; see /docs"),
        ("/v1/sharpen/", "there is no /v1/sharpen/; see /docs"),
    ],
)
def test_a_slash_at_the_end_is_an_error_with_a_body(address, method, path, meant):
    answer = ask(address, method, path, PHOTO if method == "POST" else None)
    assert (answer[0], error_message(answer)) == (404, meant)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/upscale", "GET, HEAD, POST"),
        ("/v1/dejpeg", "GET, HEAD, POST"),
        ("/v1/inspect", "POST"),
        ("/v1/health", "GET, HEAD"),
        ("/", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_answered_with_all_that_the_path_has(address, path, methods):
    for method in ("PUT", "DELETE"):
        answer = ask(address, method, path, PHOTO)
        assert (answer[0], answer[1]["Allow"]) == (405, methods)
        assert error_message(answer) == f"{path} has no method {method}, but {methods}; see /docs"
    if "HEAD" in methods:
        assert (ask(address, "HEAD", path)[0], ask(address, "HEAD", path)[2]) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/health"),
        ("GET", "/v1/models"),
        ("POST", "/v1/inspect"),
        ("POST", "/v1/show"),
        ("GET", "/v1/progress/picture-9"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/"),
    ],
)
def test_a_parameter_that_would_do_nothing_is_refused(address, method, path):
    answer = ask(address, method, f"{path}?max_pixels=10", PHOTO if method == "POST" else None)
    assert answer[0] == 400
    assert error_message(answer) == f"{path} has no parameter max_pixels; it takes none"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "127.0.0.1:8765"}, 200),
        ({"Host": "[::1]"}, 200),
        ({"Host": "localhost:80", "Origin": "http://localhost:80", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost@evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_pages_of_other_sites_are_refused(address, headers, status):
    assert ask(address, "GET", "/v1/health", headers=headers)[0] == status
    assert ask(address, "POST", "/v1/upscale?scale=2", PHOTO, headers)[0] == status


def test_what_is_announced_or_sent_beyond_the_limit_is_refused():
    with serving(max_bytes=1000) as address:
        head = b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\n"
        for length in (b"1001", b"99999999999999999999"):
            with connect(address) as link:
                link.sendall(head + b"Content-Length: " + length + b"\r\n\r\n")
                assert link.recv(100).startswith(b"HTTP/1.1 413 ")
        with connect(address) as link:
            link.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            with suppress(OSError):
                for _ in range(20):
                    link.sendall(b"64\r\n" + bytes(100) + b"\r\n")
            assert link.recv(100).startswith(b"HTTP/1.1 413 ")
        for broken in (b"Content-Length: -1", b"Content-Length: x", b"no header", bytes(100)):
            with connect(address) as link:
                link.sendall(head + broken + b"\r\n\r\n")
                assert link.recv(100).startswith(b"HTTP/1.1 400 ")
        body = PHOTO
        assert ask(address, "POST", "/v1/upscale?scale=2", iter([body[:50], body[50:]]))[0] == 200


def read_all(link):
    """Return an answer up to the end of the connection."""
    return b"".join(iter(lambda: link.recv(2**16), b""))


CHUNKED = b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("announced", [True, False])
def test_a_client_that_sends_all_before_it_reads_gets_its_answer(announced):
    body = bytes(6 * 2**20)
    head = CHUNKED.replace(b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(body))
    sent = head + body if announced else CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with serving(max_bytes=100_000) as address:
        for _ in range(5):
            with connect(address) as link:
                link.sendall(sent)
                head, _, message = read_all(link).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 413 ")
            assert "larger --max-bytes" in json.loads(message)["message"]


def test_an_error_in_the_middle_of_a_body_reaches_its_client(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving() as address:
        for failing, status in (("write", 507), ("open", 507)):
            with monkeypatch.context() as patch:
                if failing == "open":
                    patch.setattr("mambair_cli.server.bodies.tempfile.TemporaryFile", refuse)
                else:
                    patch.setattr("mambair_cli.server.bodies.PIECE_BYTES", 1000)
                    patch.setattr(
                        "mambair_cli.server.bodies.tempfile.TemporaryFile",
                        lambda: SimpleNamespace(write=refuse, close=lambda: None),
                    )
                answer = ask(address, "POST", "/v1/upscale", bytes(6 * 2**20))
            assert answer[0] == status
            assert "cannot store the image: No space left on device" in error_message(answer)
        answer = ask(address, "POST", "/v1/upscale?no=1", bytes(6 * 2**20))
        assert (answer[0], "no parameter no" in error_message(answer)) == (400, True)


def test_an_error_reaches_the_client_of_a_server_without_a_home(monkeypatch):
    with serving() as address:
        monkeypatch.setattr("os.path.expanduser", lambda path: path)
        answer = ask(address, "POST", "/v1/upscale?no=1", PHOTO)
    assert (answer[0], "no parameter no" in error_message(answer)) == (400, True)


def test_a_client_that_never_stops_sending_is_given_up(monkeypatch):
    monkeypatch.setattr("mambair_cli.server.bodies._REST_SECONDS", 1)
    with serving(max_bytes=1000) as address, connect(address) as link:
        link.sendall(CHUNKED + b"7d0\r\n" + bytes(2000) + b"\r\n")
        begun = time.monotonic()
        with suppress(OSError):  # the connection is closed
            while time.monotonic() - begun < 30:
                link.sendall(b"1\r\n0\r\n")
                time.sleep(0.05)
        assert time.monotonic() - begun < 20


FORM = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + PHOTO + b"\r\n--x--\r\n"


@pytest.mark.parametrize("path", ["/v1/upscale", "/v1/inspect", "/v1/show"])
@pytest.mark.parametrize(
    ("headers", "body", "status", "words"),
    [
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            FORM,
            415,
            "a multipart form; send the file",
        ),
        (
            {"Content-Encoding": "gzip"},
            gzip.compress(PHOTO),
            415,
            "Content-Encoding: gzip, which is not",
        ),
        ({}, b"\0\0\0\x20ftypisom" + bytes(40), 422, "it is a clip, and a server takes no clips"),
        ({}, b"\x1aE\xdf\xa3" + bytes(40), 422, "it is a clip, and a server takes no clips"),
    ],
)
def test_a_body_that_is_no_plain_image_is_refused_with_what_works(
    address, path, headers, body, status, words
):
    answer = ask(address, "POST", path, body, headers)
    assert (answer[0], words in error_message(answer)) == (status, True)
    for plain in ({"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Encoding": "identity"}):
        assert ask(address, "POST", f"{path}?scale=2"[: None if "up" in path else -8], PHOTO, plain)[0] == 200


def test_messages_name_what_the_client_has(address):
    """Programs and the page have parameters; a command has options."""
    clear = encode(noise(20, 20, 4))
    cut = encode(noise(60, 60, 3))[:-2000]
    size = "it has 12×9 pixels, more than 50; cut it into parts, or "
    for query, body, words, options in (
        ("format=jpeg", clear, "and background=white fills it", "and --background white fills it"),
        ("", cut, "damaged=true of upscale, denoise and dejpeg", "--damaged of upscale, denoise and dejpeg"),
        (
            "max_pixels=50",
            PHOTO,
            f"{size}give a larger max_pixels, up to the server's --max-pixels",
            f"{size}allow more with --max-pixels",
        ),
        ("width=9&megapixels=1", PHOTO, "once: width, megapixels;", "once: --width, --megapixels;"),
        ("model=none", PHOTO, "; /v1/models shows all names", "; `mambair models list` shows all names"),
    ):
        for headers, expected in (({}, words), ({"Mambair-Command": "1"}, options)):
            answer = ask(address, "POST", f"/v1/upscale?{query}", body, headers)
            assert answer[0] >= 400
            assert expected in error_message(answer)
    with serving(max_pixels=50) as small:
        for path in ("upscale", "inspect", "show"):
            message = error_message(ask(small, "POST", f"/v1/{path}", PHOTO))
            assert message.endswith(f"{size}start the server with a larger --max-pixels")


@pytest.mark.parametrize("body", [b"", b"text", b"\x89PNG\r\n\x1a\n" + bytes(99), b"GIF89a", b"<svg/>"])
def test_what_is_no_image_is_refused(address, body):
    answer = ask(address, "POST", "/v1/upscale", body)
    assert answer[0] == 422
    assert error_message(answer).startswith("cannot read the image: ")
    assert json.loads(answer[2])["kind"] == "ImageError"


def test_a_client_that_stops_sending_is_given_up_and_keeps_nobody_waiting():
    with serving(idle_seconds=1) as address, connect(address) as slow:
        slow.sendall(b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nhalf")
        assert ask(address, "POST", "/v1/upscale?scale=2", PHOTO)[0] == 200
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
        assert json.loads(ask(address, "GET", "/v1/health")[2])["waiting"] == 0


def test_a_client_that_does_not_read_keeps_nobody_waiting(address):
    body = encode(noise(200, 240, 3))
    with connect(address) as slow:
        slow.sendall(
            b"POST /v1/upscale?scale=2&format=tiff HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
            % len(body)
        )
        slow.sendall(body)
        assert slow.recv(1) == b"H"
        assert ask(address, "POST", "/v1/upscale?scale=2", PHOTO)[0] == 200
        assert json.loads(ask(address, "GET", "/v1/health")[2])["waiting"] == 1
        slow.settimeout(60)
        got = 1
        while got < 400 * 480:  # of noise, which is not made smaller
            got += len(slow.recv(2**16))


def test_twenty_at_once_get_each_its_own(address):
    images = [encode(noise(8, 10 + index, 3, seed=index)) for index in range(20)]
    alone = [ask(address, "POST", "/v1/upscale?scale=2", image) for image in images]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda image: ask(address, "POST", "/v1/upscale?scale=2", image), images))
    assert [answer[2] for answer in together] == [answer[2] for answer in alone]
    assert len({answer[2] for answer in together}) == 20
    report = json.loads(together[5][1][REPORT_HEADER])
    assert (report["model"], report["width"], report["input"]) == ("tiny-x2", 30, [15, 8])
    assert together[5][1]["Content-Type"] == "image/png"


def test_a_client_that_leaves_is_worked_for_no_longer(address):
    body = encode(noise(1000, 1000, 3))
    with connect(address) as link:
        link.sendall(
            b"POST /v1/upscale?tile=32&scale=2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
            % len(body)
        )
        link.sendall(body)
        time.sleep(1)  # a minute's work has begun
    begun = time.perf_counter()
    assert ask(address, "POST", "/v1/upscale?scale=2", PHOTO)[0] == 200
    assert time.perf_counter() - begun < 20
    assert json.loads(ask(address, "GET", "/v1/health")[2])["waiting"] == 0


def test_a_slow_disk_keeps_nobody_waiting_but_whom_it_concerns(monkeypatch):
    """Files are opened, written, read and closed in threads of their own, not in that of the event loop."""
    used: dict[str, set[str]] = {}
    opened = tempfile.TemporaryFile

    class Noting:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            used.setdefault(name, set()).add(threading.current_thread().name)
            return getattr(self.file, name)

    def open_noting():
        used.setdefault("open", set()).add(threading.current_thread().name)
        return Noting(opened())

    with serving() as address:
        loop = next(thread.name for thread in threading.enumerate() if thread.name.endswith("(run)"))
        monkeypatch.setattr("mambair_cli.server.bodies.tempfile.TemporaryFile", open_noting)
        assert ask(address, "POST", "/v1/upscale?scale=2", encode(noise(200, 200, 3)))[0] == 200
        monkeypatch.undo()
    assert {"open", "write", "flush", "fileno", "seek", "read", "close"} <= used.keys()
    assert loop not in set().union(*used.values())


def test_noise_does_not_hurt_the_server(address):
    random = np.random.default_rng(0)
    start = b"POST /v1/upscale?scale=2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300\r\n\r\n"
    image = PHOTO[:300].ljust(300, b"\0")
    for number in range(60):
        message = np.frombuffer(start + image, np.uint8).copy()
        end = len(message) if number % 2 else len(start)
        places = random.integers(0, end, 4)
        message[places] = random.integers(0, 256, 4)
        with connect(address) as link:
            link.sendall(message.tobytes())
            link.shutdown(socket.SHUT_WR)
            answer = link.recv(12)
            assert answer == b"" or int(answer[9:12]) in (200, 400, 403, 404, 405, 413, 422)
    assert ask(address, "GET", "/v1/health")[0] == 200


def test_the_page_needs_no_other_and_names_all(address):
    api = json.loads(ask(address, "GET", "/openapi.json")[2])
    assert api["openapi"] == "3.1.0"
    assert set(api["paths"]) == {
        f"/v1/{name}" for name in ("health", "models", "inspect", "show", "progress/{name}", *TASKS)
    }
    posted = api["paths"]["/v1/upscale"]["post"]
    assert posted["parameters"][0]["schema"] == {"type": "number", "minimum": 1, "maximum": 4}
    status, headers, page = ask(address, "GET", "/docs")
    assert status == 200
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert b"<script" not in page
    for parameter in (*SHARED, *TASK_PARAMETERS["upscale"]):
        assert f"<code>{parameter.name}</code>".encode() in page
    models = json.loads(ask(address, "GET", "/v1/models")[2])
    assert {"tiny-x4", "mambair-real-x4"} <= {model["name"] for model in models}
    assert not any("/" in str(value) for model in models for value in model.values())
