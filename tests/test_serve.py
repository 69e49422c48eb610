"""A server restores as the command does, for nobody but its user, whatever it is sent."""

import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, fields, replace
from inspect import signature
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mambair_cli.checkpoints.catalog import load_catalog
from mambair_cli.checkpoints.load import load_network
from mambair_cli.cli import main, restore
from mambair_cli.cli.options import Options
from mambair_cli.errors import MemoryLimitError, UsageError
from mambair_cli.images import DEFAULT_QUALITY, MAX_PIXELS, WRITABLE_SUFFIXES
from mambair_cli.images.source import Source
from mambair_cli.restore.settings import Precision
from mambair_cli.restore.tiling import Report, plan_tiles
from mambair_cli.runs import parameters
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.journal import JOURNAL_FILE
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.parameters import SHARED, TASK_PARAMETERS
from mambair_cli.runs.run import PreparedJob
from mambair_cli.server.address import Address, find_default_socket, listen, parse_address
from mambair_cli.server.app import App, build_server
from mambair_cli.server.client import ServerClient
from mambair_cli.server.network_cache import NetworkCache
from mambair_cli.server.protocol import (
    REPORT_HEADER,
    ResultReport,
    ServerInfo,
    describe_report,
    read_record,
    read_report,
)
from mambair_cli.server.query import QUERIES, TASKS, read_request
from mambair_cli.server.service import RestoreService

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="has no Unix sockets")


@contextmanager
def serving(address=None, most=4, max_pixels=10**6, precision: Precision = "auto", **limits):
    """Serve in a thread, at a socket whose path is short enough."""
    with tempfile.TemporaryDirectory(prefix="mambair-") as folder:
        address = address or Address(Path(folder, "s"))
        service = RestoreService(NetworkCache("cpu", precision, offline=True, most=most), max_pixels)
        server = build_server(App(service, **limits))
        with listen(address) as listener:
            if address.path is None:
                address = Address(None, address.host, listener.getsockname()[1])
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                yield address
            finally:
                server.should_exit = True
                thread.join(60)
                service.close()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def address():
    with serving() as address:
        yield address


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder, and return (exit code, stdout lines, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    yield call
    signal.signal(signal.SIGTERM, handler)


def pixels(width=12, height=9, bands=3, seed=0, dtype="uint8"):
    shape = (height, width, bands) if bands > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def encode(array, format="png", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, format, **options)
    return file.getvalue()


def claim(png, width, height):
    """Have a PNG file's header tell another size."""
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def connect(address):
    link = (
        socket.socket(socket.AF_UNIX)
        if address.path
        else socket.create_connection((address.host, address.port))
    )
    if address.path:
        link.connect(str(address.path))
    link.settimeout(60)
    return link


class Link(http.client.HTTPConnection):
    def __init__(self, address):
        super().__init__("localhost")
        self.sock = connect(address)


def ask(address, method, path, body=None, headers=None):
    """Send a request; return the status, the headers and the body of the answer."""
    link = Link(address)
    try:
        link.request(method, path, body, headers or {})
        response = link.getresponse()
        return response.status, response.headers, response.read()
    finally:
        link.close()


def message(answer):
    facts = json.loads(answer[2])
    assert facts.keys() == {"kind", "message"}
    assert len(facts["message"].splitlines()) == 1
    return facts["message"]


def contents(folder):
    paths = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != JOURNAL_FILE)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def save_all_kinds(folder):
    """Save pictures of every kind: depth, alpha, gray, turned, of several frames."""
    Path(folder, "deep").mkdir(parents=True)
    Path(folder, "rgb.png").write_bytes(encode(pixels()))
    Path(folder, "alpha.png").write_bytes(encode(pixels(bands=4)))
    Path(folder, "gray.png").write_bytes(encode(pixels(bands=1)))
    Path(folder, "deep/gray.png").write_bytes(encode(pixels(bands=1, dtype="uint16")))
    Path(folder, "a.tif").write_bytes(encode(pixels(bands=1, dtype="uint16"), "tiff"))
    Path(folder, "b.webp").write_bytes(encode(pixels(seed=1), "webp", lossless=True))
    Path(folder, "c.bmp").write_bytes(encode(pixels(seed=2), "bmp"))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    Path(folder, "turned.jpg").write_bytes(encode(pixels(seed=3), "jpeg", exif=exif))
    frames = [Image.fromarray(pixels(seed=seed)) for seed in range(3)]
    frames[0].save(Path(folder, "d.gif"), save_all=True, append_images=frames[1:], duration=70)


@pytest.mark.parametrize(
    "command",
    [
        ["upscale"],
        ["upscale", "-s", "2.5", "--depth", "8", "--tile", "16", "--overlap", "4"],
        ["upscale", "--width", "30", "--format", "avif", "--quality", "60"],
        ["upscale", "-s", "2", "--format", "png", "--strip"],
        ["upscale", "-s", "2", "--real", "--strength", "0.5", "--depth", "8"],
        ["denoise", "--sigma", "20", "--seed", "5", "--format", "webp"],
        ["dejpeg", "--jpeg-quality", "30", "--format", "tiff"],
        ["dejpeg", "--model", "tiny-dejpeg", "--depth", "8"],
    ],
)
def test_a_server_gives_the_same_bytes(run, address, command):
    save_all_kinds("photos")
    command = (*command, "photos", "--offline", "--json", "-q")
    code, plain, _ = run(*command, "-o", "plain")
    got, served, _ = run(*command, "-o", "served", "--server", address)
    assert got == code
    assert contents("served") == contents("plain")
    assert len(contents("served")) >= 7  # not each format has room for each picture

    def facts(lines):
        for event in map(json.loads, lines[1:-1]):
            for name in ("seconds", "peak_memory", "output", "message", "device"):
                assert event.pop(name, "") is not None
            yield event

    assert sorted(facts(served), key=str) == sorted(facts(plain), key=str)
    start = json.loads(served[0])
    assert start == {**json.loads(plain[0]), "device": f"cpu of {address}"}


def test_a_server_tells_what_is_damaged_and_refuses_what_is_missing(run, address):
    Path("photos").mkdir()
    whole = encode(pixels(64, 48), "jpeg")
    Path("photos/a.jpg").write_bytes(whole[:-2])
    Path("photos/b.jpg").write_bytes(whole[: len(whole) // 2])
    common = ["upscale", "photos", "-s", "2", "-o", "out", "--json", "--server", address]
    code, out, err = run(*common)
    done, failed, summary = (json.loads(line) for line in out[1:])
    assert (code, done["warnings"], summary["warned"]) == (1, ["the mark of its end is missing"], 1)
    assert "mambair: warning: photos/a.jpg: the mark of its end is missing" in err.splitlines()
    assert "--damaged restores what is there" in failed["message"]
    code, out, _ = run(*common, "--resume", "--damaged")
    assert code == 0
    (done,) = (json.loads(line) for line in out if '"done"' in line and "b.jpg" in line)
    assert done["warnings"][0] == "the mark of its end is missing"
    assert done["warnings"][1].startswith("damaged from about row ")


def test_what_was_begun_without_a_server_is_resumed_with_it_and_back(run, address):
    save_all_kinds("photos")
    common = ["upscale", "photos", "--json", "-q", "--resume", "-o", "out"]
    run(*common, "--offline", "--include", "a*", "--include", "b*")
    code, out, _ = run(*common, "--server", address)
    events = [json.loads(line)["event"] for line in out]
    assert (code, events.count("skipped"), events.count("done")) == (0, 3, 6)
    code, out, _ = run(*common, "--offline")
    assert (code, json.loads(out[-1])["skipped"]) == (0, 9)
    Path("photos/rgb.png").write_bytes(encode(pixels(seed=9)))
    code, out, _ = run(*common, "--server", address)
    assert json.loads(out[-1]) | {"done": 1, "skipped": 8, "failed": 0} == json.loads(out[-1])


CLIENT = """
import sys
from mambair_cli.cli import main
code = main(sys.argv[1:])
heavy = {"torch", "huggingface_hub", "starlette", "uvicorn"} & sys.modules.keys()
print([*heavy], file=sys.stderr)
sys.exit(code)
"""


def test_pipes_go_through_a_client_that_imports_nothing_heavy(address, tmp_path):
    picture = encode(pixels())
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, "upscale", "-", "-s", "2", "-q"],
        env={**os.environ, "MAMBAIR_SERVER": str(address)},
        input=picture,
        capture_output=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, b"[]\n")
    assert done.stdout == ask(address, "POST", "/v1/upscale?scale=2", picture)[2]


def test_a_server_looks_at_a_compressed_picture_by_itself(address):
    file = io.BytesIO()
    Image.fromarray(pixels()).save(file, "JPEG", quality=60)
    compressed, width = file.getvalue(), pixels().shape[1]
    for query, model, scale in (
        ("scale=2", "tiny-real-x2", 2),
        ("scale=3", "tiny-real-x4", 4),
        ("scale=2&model=clean", "tiny-x2", 2),
        (f"width={3 * width}", "tiny-real-x4", 4),
    ):
        status, headers, body = ask(address, "POST", f"/v1/upscale?offline=true&{query}", compressed)
        assert status == 200
        report = json.loads(headers[REPORT_HEADER])
        assert (report["model"], report["scale"]) == (model, scale)
        with Image.open(io.BytesIO(body)) as image:
            assert image.width == width * (int(query[6]) if query.startswith("scale") else 3)


def test_one_bad_file_costs_itself_alone(run, address):
    Path("in").mkdir()
    for name in ("a", "c"):
        Path(f"in/{name}.png").write_bytes(encode(pixels()))
    Path("in/b.png").write_bytes(encode(pixels())[:60])
    Path("in/e.png").write_bytes(b"")
    code, out, err = run("upscale", "in", "--server", address, "-q", "-o", "out", "--json")
    assert code == 1
    assert sorted(contents("out")) == ["a.png", "c.png"]
    failed = {json.loads(line)["input"]: json.loads(line) for line in out if '"failed"' in line[:20]}
    assert {name: event["kind"] for name, event in failed.items()} == {
        "in/b.png": "ImageError",
        "in/e.png": "ImageError",
    }
    assert "mambair: error: in/b.png: cannot read the image: its png data is corrupt" in err
    code, out, err = run("upscale", "in", "--server", address, "--fail-fast", "-o", "other", "-q", "--json")
    assert (code, len(err.splitlines())) == (1, json.loads(out[-1])["failed"])
    assert json.loads(out[-1])["left"] >= 0


def test_what_the_client_sees_itself_is_said_as_ever(run, address):
    Path("a.png").write_bytes(encode(pixels()))
    Path("a_x4.png").write_text("precious")
    Path("locked").write_text("no folder")
    for arguments in (["a.png"], ["missing.png"], ["a.png", "-o", "x.xyz"], ["a.png", "-o", "locked/b.png"]):
        plain = run("upscale", *arguments, "--model", "tiny-x4", "-q")
        assert run("upscale", *arguments, "--model", "tiny-x4", "-q", "--server", address) == plain
        assert plain[0] > 0
    for arguments, code, words in (
        (["a.png", "--model", "tiny-x5"], 3, "unknown model: tiny-x5"),
        (["a.png", "--model", "tiny-x2", "-s", "4"], 3, "does not fit the scale"),
        (["a.png", "--weights", "w.pth"], 2, "--weights exclude each other"),
        (["a.png", "--device", "cpu"], 2, "--device exclude each other"),
        (["a.png", "--workers", "2"], 2, "--workers exclude each other"),
        (["a.png", "--dry-run"], 2, "--dry-run exclude each other"),
    ):
        got, out, err = run("upscale", *arguments, "--server", address, "-q")
        assert (got, out) == (code, [])
        assert len(err.splitlines()) == 1
        assert err.startswith("mambair: error: ")
        assert words in err
    assert sorted(contents(".")) == ["a.png", "a_x4.png", "locked"]


def test_images_too_large_are_refused_by_either_side(run):
    with serving(max_pixels=10**6, max_bytes=10**5) as address:
        Path("long.png").write_bytes(encode(pixels(200, 200)))
        code, _, err = run("upscale", "long.png", "--server", address, "-q")
        assert (code, "the server accepts 100000" in err) == (1, True)
        Path("bomb.png").write_bytes(claim(encode(pixels()), 30000, 30000))
        code, _, err = run("upscale", "bomb.png", "--server", address, "-q")
        assert (code, "30000×30000 pixels, more than 1000000" in err) == (1, True)
        Path("a.png").write_bytes(encode(pixels()))
        code, _, err = run("upscale", "a.png", "--server", address, "-q", "--max-pixels", "100")
        assert (code, "more than 100;" in err) == (1, True)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("weights=/etc/passwd", "no parameter weights"),
        ("path=/etc/passwd", "no parameter path"),
        ("output=x", "no parameter output"),
        ("scale=2&scale=3", "given twice"),
        ("scale=nan", "scale is nan"),
        ("scale=5", "from 1 to 4"),
        ("width=0", "of 1 or more"),
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
    answer = ask(address, "POST", f"/v1/upscale?{query}", encode(pixels()))
    assert answer[0] == 400
    assert words in message(answer)


def test_the_strength_of_damage_chooses_a_model_and_goes_with_none(address):
    for query in ("denoise?sigma=15&model=tiny-denoise", "dejpeg?jpeg_quality=5&model=tiny-dejpeg"):
        answer = ask(address, "GET", f"/v1/{query}")
        assert (answer[0], "leave one out" in message(answer)) == (400, True)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "tiny-x4.safetensors", "weights/x4", ""])
def test_a_model_is_a_name_and_no_path(address, name):
    answer = ask(address, "GET", f"/v1/upscale?model={name}")
    assert answer[0] == 404
    assert "unknown model" in message(answer)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "//etc/passwd", "/v1/../../etc/passwd", "/v1/%2e%2e/%2e%2e/etc/passwd", "/v1/sharpen"],
)
def test_there_are_no_other_pages(address, path):
    answer = ask(address, "GET", path)
    assert answer[0] == 404
    assert "see /docs" in message(answer)
    assert ask(address, "DELETE", "/v1/upscale")[0] == 405


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
    assert ask(address, "POST", "/v1/upscale?scale=2", encode(pixels()), headers)[0] == status


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
        body = encode(pixels())
        assert ask(address, "POST", "/v1/upscale?scale=2", iter([body[:50], body[50:]]))[0] == 200


@pytest.mark.parametrize("body", [b"", b"text", b"\x89PNG\r\n\x1a\n" + bytes(99), b"GIF89a", b"<svg/>"])
def test_what_is_no_image_is_refused(address, body):
    answer = ask(address, "POST", "/v1/upscale", body)
    assert answer[0] == 422
    assert message(answer).startswith("cannot read the image: ")
    assert json.loads(answer[2])["kind"] == "ImageError"


def test_a_client_that_stops_sending_is_given_up_and_keeps_nobody_waiting():
    with serving(idle_seconds=1) as address, connect(address) as slow:
        slow.sendall(b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nhalf")
        assert ask(address, "POST", "/v1/upscale?scale=2", encode(pixels()))[0] == 200
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
        assert json.loads(ask(address, "GET", "/v1/health")[2])["waiting"] == 0


def test_a_client_that_does_not_read_keeps_nobody_waiting(address):
    body = encode(pixels(300, 300))
    with connect(address) as slow:
        slow.sendall(
            b"POST /v1/upscale?scale=2&format=tiff HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
            % len(body)
        )
        slow.sendall(body)
        assert slow.recv(1) == b"H"
        assert ask(address, "POST", "/v1/upscale?scale=2", encode(pixels()))[0] == 200
        assert json.loads(ask(address, "GET", "/v1/health")[2])["waiting"] == 1
        slow.settimeout(60)
        got = 1
        while got < 600 * 600:  # of noise, which is not made smaller
            got += len(slow.recv(2**16))


def test_twenty_at_once_get_each_its_own(address):
    images = [encode(pixels(10 + index, 8, seed=index)) for index in range(20)]
    alone = [ask(address, "POST", "/v1/upscale?scale=2", image) for image in images]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda image: ask(address, "POST", "/v1/upscale?scale=2", image), images))
    assert [answer[2] for answer in together] == [answer[2] for answer in alone]
    assert len({answer[2] for answer in together}) == 20
    report = json.loads(together[5][1][REPORT_HEADER])
    assert (report["model"], report["width"], report["input"]) == ("tiny-x2", 30, [15, 8])
    assert together[5][1]["Content-Type"] == "image/png"


def test_too_many_are_turned_away_and_the_command_waits(run):
    with serving(most_waiting=1) as address, connect(address) as first:
        body = encode(pixels())
        first.sendall(
            b"POST /v1/upscale?scale=2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        while json.loads(ask(address, "GET", "/v1/health")[2])["waiting"] == 0:
            time.sleep(0.01)
        answer = ask(address, "POST", "/v1/upscale", bytes(10**6))
        assert (answer[0], answer[1]["Retry-After"]) == (503, "2")
        assert "too many images" in message(answer)
        pipe, end = os.pipe()  # which can be read once
        os.write(end, body)
        os.close(end)
        later = threading.Timer(0.5, first.sendall, [body])
        later.start()
        assert run("upscale", f"/dev/fd/{pipe}", "-s", "2", "--server", address, "-q", "-o", "a.png")[0] == 0
        later.join()
        os.close(pipe)


def test_a_client_that_leaves_is_worked_for_no_longer(address):
    body = encode(pixels(1000, 1000))
    with connect(address) as link:
        link.sendall(
            b"POST /v1/upscale?tile=32&scale=2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
            % len(body)
        )
        link.sendall(body)
        time.sleep(1)  # a minute's work has begun
    begun = time.perf_counter()
    assert ask(address, "POST", "/v1/upscale?scale=2", encode(pixels()))[0] == 200
    assert time.perf_counter() - begun < 20
    assert json.loads(ask(address, "GET", "/v1/health")[2])["waiting"] == 0


def test_too_little_memory_is_said_and_so_is_a_bug(run, monkeypatch, caplog, capsys):
    def load(path):
        net = load_network(path)

        def refuse(x, **options):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(net, "forward", refuse)
        return net

    Path("a.png").write_bytes(encode(pixels(100, 100)))
    with serving() as address:
        with monkeypatch.context() as patch:
            patch.setattr("mambair_cli.restore.restorer.load_network", load)
            code, _, err = run("upscale", "a.png", "--server", address, "-q")
        assert (code, len(err.splitlines())) == (MemoryLimitError.exit_code, 1)
        assert "a.png: out of memory on cpu even with one tile" in err
        monkeypatch.setattr("mambair_cli.runs.image_job.plan_result", lambda *_: 1 / 0)
        answer = ask(address, "POST", "/v1/denoise", encode(pixels()))
        assert (answer[0], message(answer)) == (500, "internal error; see the server's log")
        for _ in range(500):  # it is logged after the answer
            if "ZeroDivisionError" in caplog.text:
                break
            time.sleep(0.01)
        else:
            pytest.fail("the server's log has no traceback")
    printed = capsys.readouterr().err.splitlines()
    assert printed[0].startswith("mambair: Exception in ASGI application")
    assert printed[-1].startswith("ZeroDivisionError")


@pytest.mark.parametrize("scale", ["4", "3", "2", "1.5"])
def test_real_pictures_become_as_large_as_asked(address, scale):
    image = encode(pixels())
    status, _, body = ask(address, "POST", f"/v1/upscale?model=real&scale={scale}&format=png", image)
    assert status == 200
    before = Image.open(io.BytesIO(image)).size
    assert Image.open(io.BytesIO(body)).size == tuple(round(float(scale) * side) for side in before)


@pytest.mark.parametrize(
    ("query", "model"),
    [
        ("model=real&scale=2", "tiny-real-x2"),
        ("model=real&scale=3", "tiny-real-x4"),
        ("scale=2.5", "tiny-x3"),
    ],
)
def test_the_model_that_is_told_is_the_one_that_restores(address, query, model):
    scale = query.rpartition("scale=")[2]
    image = encode(pixels())
    assert json.loads(ask(address, "GET", f"/v1/upscale?{query}")[2])["model"] == model
    named = ask(address, "POST", f"/v1/upscale?model={model}&scale={scale}", image)
    chosen = ask(address, "POST", f"/v1/upscale?{query}", image)
    assert (chosen[0], chosen[2]) == (200, named[2])


def test_a_server_keeps_a_share_of_the_input(address):
    image = encode(pixels())
    whole, none = (
        np.array(Image.open(io.BytesIO(ask(address, "POST", f"/v1/denoise?strength={share}", image)[2])))
        for share in (1, 0)
    )
    np.testing.assert_array_equal(none, np.array(Image.open(io.BytesIO(image))))
    assert (whole != none).any()
    answer = ask(address, "POST", "/v1/denoise?strength=2", image)
    assert (answer[0], "strength" in message(answer)) == (400, True)


def test_networks_that_were_used_last_stay(monkeypatch):
    told = []
    models = NetworkCache("cpu", offline=True, most=2, notify=told.append)
    requests = {scale: read_request("upscale", [("scale", str(scale))]) for scale in (2, 3, 4)}
    for scale in (2, 3, 2, 4, 2):
        models.load(requests[scale], models.choose(requests[scale]))
    assert told == ["loaded tiny-x2 on cpu", "loaded tiny-x3 on cpu", "loaded tiny-x4 on cpu"]
    assert models.names == ["tiny-x4", "tiny-x2"]
    assert models.find(requests[3]) is None
    loaded = models.find(read_request("upscale", [("scale", "2"), ("tile", "64"), ("seed", "7")]))
    assert loaded is not None
    assert (*loaded.restorer.tiles[:2], loaded.restorer.seed) == (64, 16, 7)
    assert loaded.notice is not None
    assert "tiny-x2" in loaded.notice
    monkeypatch.setattr("mambair_cli.server.network_cache.FALLBACK_SECONDS", -1)
    assert models.find(requests[2]) is None


@pytest.mark.parametrize("is_fallback", [False, True])
def test_a_choice_is_made_anew_only_if_it_was_a_fallback(monkeypatch, is_fallback):
    monkeypatch.setattr("mambair_cli.server.network_cache.FALLBACK_SECONDS", -1)
    request = read_request("denoise", [("model", "tiny-denoise")])
    models = NetworkCache("cpu", offline=True)
    choice = models.choose(request)
    models.load(request, choice)
    (key,) = models._choices
    told = replace(choice, notice="using some/file.pth as tiny-denoise", is_fallback=is_fallback)
    models._choices[key] = told, time.monotonic()
    found = models.find(request)
    assert (found is None) == is_fallback
    assert found is None or found.notice == told.notice


def test_what_is_remembered_of_requests_does_not_grow_with_them():
    models = NetworkCache("cpu", offline=True)
    for number in range(1, 500):
        request = read_request("denoise", [("sigma", f"{number / 10}")])
        assert models.choose(request).name == "tiny-denoise"
        request = read_request("upscale", [("model", "tiny-x2"), ("scale", f"{2 + number % 2}")])
        assert models.choose(request).name == "tiny-x2"
    assert len(models._choices) <= len(load_catalog())


KINDS = {int: "integer", float: "number", bool: "boolean", str: "string"}


def read_annotation(annotation):
    """Return the kind of an option, as JSON Schema names it, the words it may be, and its typer option."""
    hint, option = get_args(annotation)
    (hint,) = (
        [each for each in get_args(hint) if each is not type(None)]
        if type(None) in get_args(hint)
        else [hint]
    )
    words = get_args(hint)
    return KINDS[type(words[0]) if words else hint], words, option


@pytest.mark.parametrize("task", TASKS)
def test_options_of_a_command_and_parameters_of_a_query_agree(task):
    shared = {field.name: (field.type, field.default) for field in fields(Options)}
    own = {
        name: (parameter.annotation, parameter.default)
        for name, parameter in signature(getattr(restore, task)).parameters.items()
        if name not in {*shared, "inputs", "real", "clean"}
    }
    assert own.keys() == {parameter.name for parameter in TASK_PARAMETERS[task]}
    schemas = QUERIES[task].model_json_schema()["properties"]
    assert [*schemas] == [parameter.name for parameter in (*TASK_PARAMETERS[task], *SHARED)]
    for parameter in (*TASK_PARAMETERS[task], *SHARED):
        annotation, default = {**shared, **own}[parameter.name]
        kind, words, option = read_annotation(annotation)
        schema = schemas[parameter.name]
        assert (kind, option.help) == (schema["type"], parameter.help)
        assert schema["description"].startswith(parameter.help.replace("--", ""))
        assert parameter.option in (option.default, *option.param_decls)
        assert words in ((), parameter.choices)
        assert schema.get("enum", []) == list(parameter.choices)
        if parameter.name not in ("tile", "overlap", "seed"):  # a server's limits are narrower
            assert (parameter.least, parameter.most) == (schema.get("minimum"), schema.get("maximum"))
        if option.parser is None:
            assert (option.min, option.max) == (parameter.least, parameter.most)
        if parameter.name == "quality":  # a command has to know whether it was given
            assert (default, option.show_default, schema["default"]) == (None, "95", parameter.default)
        else:
            assert default == parameter.default
            assert schema["default"] == (None if parameter.name == "precision" else parameter.default)


def test_parameters_are_those_of_the_modules_that_use_them():
    assert tuple(WRITABLE_SUFFIXES) == parameters.FORMATS
    assert parameters.QUALITY.default == DEFAULT_QUALITY
    assert parameters.MAX_PIXELS.default == MAX_PIXELS
    for task in TASKS:
        request = read_request(task, [])
        assert (request.seed, request.policy.max_pixels) == (Options().seed, Options().max_pixels)


NAMES = st.sampled_from([parameter.name for parameter in (*SHARED, *TASK_PARAMETERS["upscale"])]) | st.text(
    max_size=5
)
VALUES = (
    st.text(max_size=5) | st.floats().map(str) | st.integers().map(str) | st.sampled_from(["png", "true"])
)


@given(st.sampled_from(TASKS), st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_any_query_is_a_request_or_an_error(task, query):
    with suppress(UsageError):
        request = read_request(task, query)
        assert request.output.quality in range(1, 101)
        assert request.tile is None or request.tile >= 16


def test_noise_does_not_hurt_the_server(address):
    random = np.random.default_rng(0)
    start = b"POST /v1/upscale?scale=2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300\r\n\r\n"
    image = encode(pixels())[:300].ljust(300, b"\0")
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
    assert set(api["paths"]) == {f"/v1/{name}" for name in ("health", "models", *TASKS)}
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


def test_a_port_is_of_this_machine_only(run):
    Path("a.png").write_bytes(encode(pixels()))
    with serving(Address(None)) as address:
        assert str(address).startswith("http://127.0.0.1:")
        assert run("upscale", "a.png", "-s", "2", "-q", "--server", address)[0] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_the_image_that_the_server_has_is_shown(address, tmp_path):
    import pty

    Path(tmp_path, "slow.png").write_bytes(encode(pixels(200, 200)))
    terminal, stderr = pty.openpty()
    command = [sys.executable, "-m", "mambair_cli", "upscale", "slow.png", "--server", str(address)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=stderr
    ) as client:
        os.close(stderr)
        shown = b""
        with suppress(OSError):  # how Linux says that the other end is closed
            while piece := os.read(terminal, 4096):
                shown += piece
        os.close(terminal)
    assert client.returncode == 0
    assert b"slow.png" in shown.partition(b"using")[2]


def test_no_server_is_one_line(run):
    Path("a.png").write_bytes(encode(pixels()))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for address in ("unix:/nowhere/s", f"http://127.0.0.1:{port}"):
        code, out, err = run("upscale", "a.png", "--server", address)
        assert (code, out) == (3, [])
        assert err.startswith(f"mambair: error: no server answers at {address}: ")
        assert err.endswith("; start one with `mambair serve`\n")
    for address in ("https://127.0.0.1:1", "unix:", "8765", "http://a:b", "http://h:1/path"):
        code, _, err = run("upscale", "a.png", "--server", address)
        assert (code, len(err.splitlines())) == (2, 1)


def test_a_stranger_at_the_address_is_one_line(run):
    Path("a.png").write_bytes(encode(pixels()))
    for answer in (b"SSH-2.0\r\n", b"HTTP/1.0 200 OK\r\n\r\n[1]", b"HTTP/1.0 404 No\r\n\r\n<html>", b""):
        with socket.create_server(("127.0.0.1", 0)) as stranger:

            def meet(stranger=stranger, answer=answer):
                link, _ = stranger.accept()
                with link:
                    link.recv(10000)
                    link.sendall(answer)

            thread = threading.Thread(target=meet)
            thread.start()
            port = stranger.getsockname()[1]
            code, out, err = run("upscale", "a.png", "--server", f"http://127.0.0.1:{port}")
            thread.join()
        assert (code, out, len(err.splitlines())) == (3, [], 1)


@pytest.mark.parametrize("length", [b"", b"Content-Length: x\r\n", b"Content-Length: -1\r\n"])
def test_a_result_of_unknown_length_is_one_line(run, length):
    fingerprint = Fingerprint("w", "cpu", "fp32", 16, 0, 0, None, 0)
    info = ServerInfo("0", "m", 2, "cpu", fingerprint.describe(), None, 10**6)
    made = Report(plan_tiles(4, 4, 16, 0), 1, False)
    outcome = Outcome(Job(Source(None), None), size=(8, 8), report=made)
    report = describe_report(outcome, info.model, info.scale, fingerprint.digest())
    first = b"\r\n\r\n" + json.dumps(asdict(info)).encode()
    then = f"\r\n{REPORT_HEADER}: {json.dumps(asdict(report))}\r\n".encode() + length + b"\r\nresult"
    Path("a.png").write_bytes(encode(pixels()))
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def meet():
            for end, answer in ((b"\r\n\r\n", first), (encode(pixels())[-8:], then)):
                link, _ = stranger.accept()
                with link:
                    request = b""
                    while not request.endswith(end):
                        request += link.recv(10000)
                    link.sendall(b"HTTP/1.0 200 OK" + answer)

        thread = threading.Thread(target=meet)
        thread.start()
        server = f"http://127.0.0.1:{stranger.getsockname()[1]}"
        code, out, err = run("upscale", "a.png", "--server", server, "-q", "-o", "b.png")
        thread.join()
    assert (code, out, len(err.splitlines())) == (3, [], 1)
    assert "no mambair server of this version answers" in err
    assert contents(".").keys() == {"a.png"}


@contextmanager
def process(*arguments):
    """Run `mambair serve` in a process; give it, and the line that tells its address."""
    command = [sys.executable, "-m", "mambair_cli", "serve", "--offline", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            told = server.stdout.readline().strip()
            ask(parse_address(told), "GET", "/v1/health")  # it is answered once all is imported
            yield server, told
        finally:
            server.kill()


@pytest.fixture
def place():
    with tempfile.TemporaryDirectory(prefix="mambair-") as folder:
        yield Path(folder, "s")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_server_lives_and_ends_as_it_should(run, place, number):
    with process("--socket", place) as (server, told):
        assert told == f"unix:{place}"
        with connect(parse_address(told)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert stranger.recv(100).startswith(b"HTTP/1.1 400 ")  # and the server says nothing of it
        assert place.stat().st_mode & 0o777 == 0o600
        code, _, err = run("serve", "--socket", place)
        assert (code, "listens at" in err) == (2, True)
        body = encode(pixels(150, 150))
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, parse_address(told), "POST", "/v1/upscale?scale=2", body)
            while json.loads(ask(parse_address(told), "GET", "/v1/health")[2])["waiting"] == 0:
                time.sleep(0.01)
            server.send_signal(number)
            assert answer.result()[0] == 200
        out, err = server.communicate(timeout=60)
    assert (server.returncode, out) == (0, "")
    assert err.splitlines() == [
        f"mambair: serving at unix:{place} on cpu; Ctrl-C ends it",
        "mambair: loaded tiny-x2 on cpu",
    ]
    assert not place.exists()


def test_a_server_that_is_killed_leaves_a_line_and_no_half_results(run, place):
    Path("photos").mkdir()
    for index in range(8):
        Path(f"photos/{index}.png").write_bytes(encode(pixels(500, 500)))
    with process("--socket", place) as (server, told):
        timer = threading.Timer(1.5, server.kill)
        timer.start()
        code, out, err = run("upscale", "photos", "--server", told, "-q", "-o", "out", "--json")
        timer.join()
    assert code == 3
    summary = json.loads(out[-1])
    assert summary["left"] >= 1  # three are sent at once, and others before all of them have failed
    assert summary["left"] + summary["failed"] == 8
    assert all("went away" in line or "no server answers" in line for line in err.splitlines())
    assert contents("out") == {}
    assert place.exists()
    with process("--socket", place) as (server, told):
        Path("photos/0.png").write_bytes(encode(pixels()))
        arguments = [
            "upscale",
            "photos",
            "--include",
            "0.png",
            "--resume",
            "--server",
            told,
            "-q",
            "-o",
            "out",
        ]
        assert run(*arguments)[:2] == (0, ["out/0.png"])
        server.send_signal(signal.SIGINT)
        assert server.communicate(timeout=60)[1].endswith("mambair: interrupted\n")
    assert server.returncode == 130
    assert not place.exists()


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
        monkeypatch.setattr("mambair_cli.server.app.tempfile.TemporaryFile", open_noting)
        assert ask(address, "POST", "/v1/upscale?scale=2", encode(pixels(700, 700)))[0] == 200
        monkeypatch.undo()
    assert {"open", "write", "flush", "fileno", "seek", "read", "close"} <= used.keys()
    assert loop not in set().union(*used.values())


@pytest.mark.parametrize(("precision", "is_same"), [("fp32", True), ("fp16", False)])
def test_a_server_that_was_started_anew_is_known_by_what_it_computes(tmp_path, place, precision, is_same):
    source = Path(tmp_path, "a.png")
    source.write_bytes(encode(pixels()))
    jobs = [Job(Source(source), Path(tmp_path, f"{number}.png")) for number in range(9)]
    tasks = [PreparedJob(job) for job in jobs]
    with serving(Address(place), precision="fp32"):
        client = ServerClient(Address(place), "upscale", {"model": "tiny-x2"})
        done = list(client.perform(tasks[:1], lambda: False))
    place.unlink()
    with serving(Address(place), precision=precision):
        done += client.perform(tasks[1:], lambda: False)
    errors = [str(outcome.error) for outcome in done if outcome.error]
    assert done[0].error is None
    if is_same:
        assert (len(done), errors) == (9, [])
    else:
        assert 1 <= len(errors) == len(done) - 1 <= 3  # are sent at once
        assert all(" was replaced by one " in error and "--resume" in error for error in errors)
        assert sorted(contents(tmp_path)) == ["0.png", "a.png"]


def test_what_is_no_socket_is_left_alone(run, place, monkeypatch):
    place.write_text("precious")
    code, _, err = run("serve", "--socket", place)
    assert (code, "it is not a socket" in err, place.read_text()) == (2, True, "precious")
    assert run("serve", "--socket", "x" * 200)[0] == 2
    assert run("serve", "--socket", place, "--port", "0")[0] == 2
    assert run("serve", "--socket", place, "--device", "toaster")[0] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue is a refusal")
def test_a_server_that_takes_in_nobody_is_left_alone(place):
    with ExitStack() as stack:
        stopped = stack.enter_context(socket.socket(socket.AF_UNIX))
        stopped.bind(str(place))
        stopped.listen(0)
        with suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(str(place))
        with pytest.raises(UsageError, match="a server listens at"):
            listen(Address(place))
    assert place.exists()


def test_the_default_socket_lies_where_nobody_else_gets(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tmp_path.chmod(0o700)
    assert find_default_socket() == tmp_path / "mambair.sock"
    tmp_path.chmod(0o755)
    own = tmp_path / f"mambair-{os.getuid()}"
    assert find_default_socket(make_folder=True) == own / "mambair.sock"
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)
    with pytest.raises(UsageError, match="not yours alone"):
        find_default_socket()
    own.rmdir()
    own.symlink_to(tmp_path)
    with pytest.raises(UsageError, match="not yours alone"):
        find_default_socket(make_folder=True)


@given(st.from_regex(r"/[ -~]{1,50}", fullmatch=True), st.integers(1, 65535))
def test_addresses_are_read_as_they_are_written(path, port):
    for address in (Address(Path(path)), Address(None, "127.0.0.1", port), Address(None, "[::1]", port)):
        assert parse_address(str(address)) == address


@given(
    st.integers(1, 900),
    st.integers(1, 900),
    st.integers(16, 300),
    st.integers(0, 15),
    st.booleans(),
)
def test_the_report_of_a_result_comes_through(height, width, tile, overlap, shrunk):
    job, report = Job(Source(None), None), Report(plan_tiles(height, width, tile, overlap), 2, shrunk)
    outcome = Outcome(job, None, (3, 4), shrunk, report, 1.5, warnings=("gain map left out",))
    sent = json.loads(json.dumps(asdict(describe_report(outcome, "tiny-x2", 2, "digest"))))
    assert read_report(read_record(ResultReport, sent), job) == outcome
