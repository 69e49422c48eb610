"""`mambair serve`: how it begins and ends, and where it listens."""

import json
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from folders import list_files
from forked import start_forked
from hypothesis import given
from hypothesis import strategies as st
from pictures import encode, noise
from restore_server import PHOTO, ask, connect, needs_unix_sockets, serving

from mambair_cli.errors import UsageError
from mambair_cli.images.source import Source
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.run import PreparedJob
from mambair_cli.server import address as server_address
from mambair_cli.server.address import Address, find_default_socket, listen, parse_address
from mambair_cli.server.client import ServerClient

pytestmark = needs_unix_sockets


@contextmanager
def process(*arguments):
    """Run `mambair serve` in a process; give it, and the line that tells its address."""
    with start_forked("-m", "mambair_cli", "serve", "--offline", *arguments) as server:
        assert server.stdout
        try:
            printed = server.stdout.readline().strip()
            ask(parse_address(printed), "GET", "/v1/health")  # it is answered once all is imported
            yield server, printed
        finally:
            server.kill()


@pytest.fixture
def place():
    with tempfile.TemporaryDirectory(prefix="mambair-") as folder:
        yield Path(folder, "s")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_server_lives_and_ends_as_it_should(run, place, number):
    with process("--socket", place) as (server, printed):
        assert printed == f"unix:{place}"
        with connect(parse_address(printed)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert stranger.recv(100).startswith(b"HTTP/1.1 400 ")  # and the server says nothing of it
        assert place.stat().st_mode & 0o777 == 0o600
        code, _, err = run("serve", "--socket", place)
        assert (code, "listens at" in err) == (2, True)
        body = encode(noise(150, 150, 3))
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, parse_address(printed), "POST", "/v1/upscale?scale=2", body)
            while json.loads(ask(parse_address(printed), "GET", "/v1/health")[2])["waiting"] == 0:
                time.sleep(0.01)
            server.send_signal(number)
            assert answer.result()[0] == 200
        out, err = server.communicate(timeout=60)
    assert (server.returncode, out) == (0, "")
    assert err.splitlines() == [
        f"mambair: serving at unix:{place} on cpu; Ctrl-C ends it",
        "mambair: loaded tiny-x2 on cpu",
        "mambair: loaded tiny-real-x2 on cpu",  # after a look at the noise
    ]
    assert not place.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)])
def test_a_server_that_is_ended_before_it_serves_leaves_no_socket(place, number, code):
    with start_forked("-m", "mambair_cli", "serve", "--offline", "--socket", place) as server:
        assert server.stdout
        server.stdout.readline()
        server.send_signal(number)
        server.communicate(timeout=60)
    assert (server.returncode, place.exists()) == (code, False)


COMPUTING_FOR_EVER = """
import sys, time
from mambair_cli.__main__ import main
from mambair_cli.server import service
service._compute = lambda *given: time.sleep(600)
sys.exit(main())
"""


def test_a_second_ctrl_c_ends_a_server_while_it_computes(place):
    command = ("-c", COMPUTING_FOR_EVER, "serve", "--offline", "--socket", place)
    with ThreadPoolExecutor(1) as pool, start_forked(*command) as server:
        assert server.stdout
        try:
            address = parse_address(server.stdout.readline().strip())
            lost = pool.submit(ask, address, "POST", "/v1/upscale?scale=2", PHOTO)
            while json.loads(ask(address, "GET", "/v1/health")[2])["loaded"] == []:
                time.sleep(0.01)
            for _ in range(120):
                if server.poll() is None:
                    server.send_signal(signal.SIGINT)
                    time.sleep(0.5)
        finally:
            server.kill()
        assert lost.exception() is not None or lost.result()[0] == 503
    assert (server.returncode, place.exists()) == (130, False)


def test_a_server_that_ends_waits_for_images_alone(place):
    """Neither for a follower of an image that nobody sends nor for a body that stalls."""
    body, head = encode(noise(150, 150, 3)), b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\n"
    with ThreadPoolExecutor(3) as pool, process("--socket", place) as (server, printed):
        address = parse_address(printed)
        with connect(address) as stalled:
            stalled.sendall(head + b"Content-Length: 500\r\n\r\nhalf")
            follower = pool.submit(ask, address, "GET", "/v1/progress/nobody-sends-it")
            named = {"Mambair-Progress": "somebody-sends-it"}
            restored = pool.submit(ask, address, "POST", "/v1/upscale?scale=2", body, named)
            while json.loads(ask(address, "GET", "/v1/health")[2])["waiting"] < 2:
                time.sleep(0.01)
            followed = pool.submit(ask, address, "GET", "/v1/progress/somebody-sends-it")
            time.sleep(0.3)
            server.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            answer = b"".join(iter(lambda: stalled.recv(1000), b""))
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"the server ends, and the image does not arrive" in answer
            assert follower.result()[2].startswith(b"data: ")
            assert time.monotonic() - begun < 10  # 14 and 30 seconds if nothing ended them
            assert restored.result()[0] == 200
            assert b'"done"' in followed.result()[2]
        assert server.wait(60) == 0


def upscale_while_the_server_is_killed(run, place, *options):
    """Send eight images to a server, and kill it meanwhile; return what ``run`` does."""
    Path("photos").mkdir()
    for index in range(8):
        Path(f"photos/{index}.png").write_bytes(encode(noise(500, 500, 3)))
    with process("--socket", place) as (server, printed):
        timer = threading.Timer(1.5, server.kill)
        timer.start()
        finished = run("upscale", "photos", "--server", printed, "-o", "out", *options)
        timer.join()
    return finished


def test_a_server_that_is_killed_leaves_a_line_and_no_half_results(run, place):
    code, out, err = upscale_while_the_server_is_killed(run, place, "-q", "--json")
    assert code == 3
    summary = json.loads(out[-1])
    assert summary["left"] >= 1  # three are sent at once, and others before all of them have failed
    assert summary["left"] + summary["failed"] == 8
    assert all("went away" in line or "no server answers" in line for line in err.splitlines())
    assert list_files("out") == []
    assert place.exists()
    with process("--socket", place) as (server, printed):
        Path("photos/0.png").write_bytes(PHOTO)
        arguments = [
            "upscale",
            "photos",
            "--include",
            "0.png",
            "--resume",
            "--server",
            printed,
            "-q",
            "-o",
            "out",
        ]
        assert run(*arguments)[:2] == (0, ["out/0.png"])
        server.send_signal(signal.SIGINT)
        assert server.communicate(timeout=60)[1].endswith("mambair: interrupted\n")
    assert server.returncode == 130
    assert not place.exists()


def test_images_that_a_lost_server_leaves_are_counted(run, place):
    code, _, err = upscale_while_the_server_is_killed(run, place)
    assert code == 3
    assert re.search(r"\nmambair: [1-5] not begun; --resume does them when the server is back\n$", err)


@pytest.mark.parametrize(("precision", "is_same"), [("fp32", True), ("fp16", False)])
def test_a_server_that_was_started_anew_is_known_by_what_it_computes(tmp_path, place, precision, is_same):
    source = Path(tmp_path, "a.png")
    source.write_bytes(PHOTO)
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
        assert list_files(tmp_path) == ["0.png", "a.png"]


def test_a_port_is_of_this_machine_only(run):
    Path("a.png").write_bytes(PHOTO)
    with serving(Address(None)) as address:
        assert str(address).startswith("http://127.0.0.1:")
        assert run("upscale", "a.png", "-s", "2", "-q", "--server", address)[0] == 0


def test_what_is_no_socket_is_left_alone(run, place, monkeypatch):
    place.write_text("precious")
    code, _, err = run("serve", "--socket", place)
    assert (code, "it is not a socket" in err, place.read_text()) == (2, True, "precious")
    assert run("serve", "--socket", "x" * 200)[0] == 2
    assert run("serve", "--socket", place, "--port", "0")[0] == 2
    assert run("serve", "--socket", place, "--device", "toaster")[0] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue is a refusal")
def test_servers_that_begin_together_do_not_take_each_others_socket(place, monkeypatch):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(place))
    clear_away = server_address._clear_away

    def clear_slowly(path):
        clear_away(path)
        time.sleep(0.3)  # without a lock, the other one has found the same left socket by now

    monkeypatch.setattr(server_address, "_clear_away", clear_slowly)

    def begin(_):
        try:
            return listen(Address(place))
        except UsageError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(begin, range(2)))
    (refused,) = (each for each in found if isinstance(each, str))
    (listener,) = (each for each in found if not isinstance(each, str))
    assert refused.startswith(f"a server listens at {place} already")
    with listener, connect(Address(place)):
        pass


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
