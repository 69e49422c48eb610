"""A command whose images a server restores, with the same results and the same words as without it."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import list_files, read_files
from hypothesis import given
from hypothesis import strategies as st
from metadata import exif_block
from pictures import encode, noise
from PIL import Image
from restore_server import PHOTO, ask, connect, error_message, needs_unix_sockets, serving
from starlette.exceptions import HTTPException
from terminal import run_in_terminal

from mambair_cli.checkpoints.load import load_network
from mambair_cli.errors import MemoryLimitError
from mambair_cli.images.source import Source
from mambair_cli.restore.settings import ImageSettings
from mambair_cli.restore.tiling import Report, plan_tiles
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.server.bodies import BodyReader
from mambair_cli.server.network_cache import NetworkCache
from mambair_cli.server.protocol import (
    REPORT_HEADER,
    ResultReport,
    ServerInfo,
    describe_report,
    read_record,
    read_report,
)

pytestmark = needs_unix_sockets


def save_all_kinds(folder):
    """Save pictures of every kind: depth, alpha, gray, turned, of several frames."""
    Path(folder, "deep").mkdir(parents=True)
    Path(folder, "rgb.png").write_bytes(PHOTO)
    Path(folder, "alpha.png").write_bytes(encode(noise(9, 12, 4)))
    Path(folder, "gray.png").write_bytes(encode(noise(9, 12, 1)))
    Path(folder, "deep/gray.png").write_bytes(encode(noise(9, 12, 1, dtype=np.uint16)))
    Path(folder, "a.tif").write_bytes(encode(noise(9, 12, 1, dtype=np.uint16), "tiff"))
    Path(folder, "b.webp").write_bytes(encode(noise(9, 12, 3, seed=1), "webp", lossless=True))
    Path(folder, "c.bmp").write_bytes(encode(noise(9, 12, 3, seed=2), "bmp"))
    Path(folder, "turned.jpg").write_bytes(encode(noise(9, 12, 3, seed=3), "jpeg", exif=exif_block(6)))
    frames = [Image.fromarray(noise(9, 12, 3, seed=seed)) for seed in range(3)]
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
    assert read_files("served") == read_files("plain")
    assert len(read_files("served")) >= 7  # not each format has room for each picture

    def facts(lines):
        for event in map(json.loads, lines[1:-1]):
            for name in ("seconds", "peak_memory", "output", "message", "device"):
                assert event.pop(name, "") is not None
            yield event

    assert sorted(facts(served), key=str) == sorted(facts(plain), key=str)
    start = json.loads(served[0])
    assert start == {**json.loads(plain[0]), "device": f"cpu of {address}"}


def test_a_server_reports_what_is_damaged_and_refuses_what_is_missing(run, address):
    Path("photos").mkdir()
    whole = encode(noise(48, 64, 3), "jpeg")
    Path("photos/a.jpg").write_bytes(whole[:-2])
    Path("photos/b.jpg").write_bytes(whole[: len(whole) // 2])
    common = ["upscale", "photos", "-s", "2", "-o", "out", "--json", "--server", address]
    code, out, err = run(*common)
    done, failed, summary = (json.loads(line) for line in out[1:])
    assert (code, done["warnings"], summary["warned"]) == (1, ["the mark of its end is missing"], 1)
    assert "mambair: warning: photos/a.jpg: the mark of its end is missing" in err.splitlines()
    assert "--damaged of upscale, denoise and dejpeg restores what is there" in failed["message"]
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
    Path("photos/rgb.png").write_bytes(encode(noise(9, 12, 3, seed=9)))
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
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, "upscale", "-", "-s", "2", "-q"],
        env={**os.environ, "MAMBAIR_SERVER": str(address)},
        input=PHOTO,
        capture_output=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, b"[]\n")
    assert done.stdout == ask(address, "POST", "/v1/upscale?scale=2", PHOTO)[2]


def test_one_bad_file_costs_itself_alone(run, address):
    Path("in").mkdir()
    for name in ("a", "c"):
        Path(f"in/{name}.png").write_bytes(PHOTO)
    Path("in/b.png").write_bytes(PHOTO[:60])
    Path("in/e.png").write_bytes(b"")
    code, out, err = run("upscale", "in", "--server", address, "-q", "-o", "out", "--json")
    assert code == 1
    assert list_files("out") == ["a.png", "c.png"]
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
    Path("a.png").write_bytes(PHOTO)
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
    assert list_files() == ["a.png", "a_x4.png", "locked"]


def claim(png, width, height):
    """Have a PNG file's header tell another size."""
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def test_images_too_large_are_refused_by_either_side(run):
    with serving(max_pixels=10**6, max_bytes=10**5) as address:
        Path("long.png").write_bytes(encode(noise(200, 200, 3)))
        code, _, err = run("upscale", "long.png", "--server", address, "-q")
        assert (code, "it has more than 97.7 KiB, the most that the server accepts" in err) == (1, True)
        Path("bomb.png").write_bytes(claim(PHOTO, 30000, 30000))
        code, _, err = run("upscale", "bomb.png", "--server", address, "-q")
        assert (code, "30000×30000 pixels, more than 1000000" in err) == (1, True)
        Path("a.png").write_bytes(PHOTO)
        code, _, err = run("upscale", "a.png", "--server", address, "-q", "--max-pixels", "100")
        assert (code, "more than 100;" in err) == (1, True)


def test_too_many_are_turned_away_and_the_command_waits(run):
    with serving(most_waiting=1) as address, connect(address) as first:
        body = PHOTO
        first.sendall(
            b"POST /v1/upscale?scale=2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        while json.loads(ask(address, "GET", "/v1/health")[2])["waiting"] == 0:
            time.sleep(0.01)
        answer = ask(address, "POST", "/v1/upscale", bytes(10**6))
        assert (answer[0], answer[1]["Retry-After"]) == (503, "2")
        assert "too many images" in error_message(answer)
        pipe, end = os.pipe()  # which can be read once
        os.write(end, body)
        os.close(end)
        later = threading.Timer(0.5, first.sendall, [body])
        later.start()
        assert run("upscale", f"/dev/fd/{pipe}", "-s", "2", "--server", address, "-q", "-o", "a.png")[0] == 0
        later.join()
        os.close(pipe)


@pytest.mark.parametrize(
    ("status", "times", "code", "tries"), [(408, 1, 0, 2), (408, 9, 1, 2), (413, 9, 1, 1)]
)
def test_an_image_that_came_too_late_is_sent_once_more(run, address, monkeypatch, status, times, code, tries):
    receive, tried = BodyReader.receive, []

    async def refuse(self, request, file):
        await receive(self, request, file)
        tried.append(request)
        if len(tried) <= times:
            raise HTTPException(status, "no data for 30 s")

    monkeypatch.setattr(BodyReader, "receive", refuse)
    Path("a.png").write_bytes(PHOTO)
    got, _, err = run("upscale", "a.png", "-s", "2", "--server", address, "-q", "-o", "b.png")
    assert (got, len(tried)) == (code, tries)
    assert err == ("" if code == 0 else "mambair: error: a.png: no data for 30 s\n")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("could not create a primitive")]
)
def test_too_little_memory_is_said_and_so_is_a_bug(run, monkeypatch, caplog, capsys, error):
    def load(path):
        net = load_network(path)

        def refuse(x, **options):
            raise error

        monkeypatch.setattr(net, "forward", refuse)
        return net

    def refuse_to_load(*_):
        raise error

    Path("a.png").write_bytes(encode(noise(100, 100, 3)))
    with serving() as address:
        with monkeypatch.context() as patch:
            patch.setattr("mambair_cli.restore.restorer.load_network", load)
            code, _, err = run("upscale", "a.png", "--server", address, "-q")
        assert (code, len(err.splitlines())) == (MemoryLimitError.exit_code, 1)
        assert "a.png: out of memory on cpu even with one tile" in err
        with monkeypatch.context() as patch:
            patch.setattr(NetworkCache, "load", refuse_to_load)
            answer = ask(address, "POST", "/v1/denoise", PHOTO)
            message = "out of memory for this request; send a smaller image, or try again later"
            assert (answer[0], error_message(answer)) == (507, message)
        monkeypatch.setattr("mambair_cli.runs.image_job.plan_result", lambda *_: 1 / 0)
        answer = ask(address, "POST", "/v1/denoise", PHOTO)
        assert (answer[0], error_message(answer)) == (500, "internal error; see the server's log")
        for _ in range(500):  # it is logged after the answer
            if "ZeroDivisionError" in caplog.text:
                break
            time.sleep(0.01)
        else:
            pytest.fail("the server's log has no traceback")
    printed = capsys.readouterr().err.splitlines()
    assert printed[0].startswith("mambair: Exception in ASGI application")
    assert printed[-1].startswith("ZeroDivisionError")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_the_image_that_the_server_has_is_shown(address, tmp_path):
    Path(tmp_path, "slow.png").write_bytes(encode(noise(200, 200, 3)))
    seen = run_in_terminal(["upscale", "slow.png", "--server", str(address)], tmp_path)
    assert seen.code == 0
    assert b"slow.png" in seen.shown.partition(b"using")[2]


def test_no_server_is_one_line(run):
    Path("a.png").write_bytes(PHOTO)
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
    Path("a.png").write_bytes(PHOTO)
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
    fingerprint = Fingerprint("w", "cpu", "fp32", ImageSettings(16, 0), 0)
    info = ServerInfo("0", "m", 2, "cpu", fingerprint.describe(), None, 10**6)
    made = Report(plan_tiles(4, 4, 16, 0), 1, False)
    outcome = Outcome(Job(Source(None), None), size=(8, 8), report=made)
    report = describe_report(outcome, info.model, info.scale, fingerprint.digest())
    first = b"\r\n\r\n" + json.dumps(asdict(info)).encode()
    then = f"\r\n{REPORT_HEADER}: {json.dumps(asdict(report))}\r\n".encode() + length + b"\r\nresult"
    Path("a.png").write_bytes(PHOTO)
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def meet():
            for end, answer in ((b"\r\n\r\n", first), (PHOTO[-8:], then)):
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
    assert list_files() == ["a.png"]


@given(
    st.integers(1, 900),
    st.integers(1, 900),
    st.integers(16, 300),
    st.integers(0, 15),
    st.booleans(),
)
def test_the_report_of_a_result_comes_through(height, width, tile, overlap, shrunk):
    plan = plan_tiles(height, width, tile, overlap)
    plan = replace(plan, overlap=plan.shared)  # that of a tile without neighbours means nothing
    job, report = Job(Source(None), None), Report(plan, 2, shrunk)
    outcome = Outcome(job, None, (3, 4), shrunk, report, 1.5, warnings=("gain map left out",))
    sent = json.loads(json.dumps(asdict(describe_report(outcome, "tiny-x2", 2, "digest"))))
    assert read_report(read_record(ResultReport, sent), job) == outcome
