"""A server whose clients do nothing, and one that lacks files, space or a home."""

import errno
import json
import os
import resource
import signal
import socket
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from select import select

import pytest
from file_limit import WITHOUT_BYTECODE
from forked import start_forked
from pictures import encode, noise
from restore_server import PHOTO, ask, connect, error_message, needs_unix_sockets, serving

from mambair_cli.errors import ImageError
from mambair_cli.server.address import parse_address
from mambair_cli.server.answers import find_folders
from mambair_cli.server.shortage import find_shortage

pytestmark = needs_unix_sockets

HEAD = b"POST /v1/upscale?scale=2&format=tiff HTTP/1.1\r\nHost: localhost\r\n"
SERVE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_{0}, {1})
sys.argv[1:] = ["serve", "--offline", "--device", "cpu", "--port", "0"]
from mambair_cli.__main__ import main
main()
"""


@contextmanager
def process(limit="CORE", values=(0, 0), **environment):
    """Run `mambair serve` in a process with a limit; give it, and its address."""
    env = {**os.environ, **WITHOUT_BYTECODE, **environment}
    with start_forked("-c", SERVE.format(limit, values), env=env) as server:
        assert server.stdout
        try:
            address = parse_address(server.stdout.readline().strip())
            ask(address, "GET", "/v1/health")  # it is answered once all is imported
            yield server, address
        finally:
            server.kill()


def count_waiting(address):
    return json.loads(ask(address, "GET", "/v1/health")[2])["waiting"]


def trickle(link, piece=b"x"):
    """Send a little again and again, until the server answers or closes the connection, or for long."""
    begun = time.monotonic()
    with suppress(OSError):
        while time.monotonic() - begun < 300 and not select([link], [], [], 0.2)[0]:
            link.sendall(piece)


def ask_much(link):
    """Ask for the longest page until no more is taken, and read nothing."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    link.settimeout(2)
    with suppress(OSError):
        while True:
            link.sendall(b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n")


def test_a_server_that_ends_waits_neither_for_a_trickle_nor_for_a_client_that_takes_nothing():
    with process() as (server, address), ExitStack() as stack:
        links = [stack.enter_context(connect(address)) for _ in range(4)]
        links[0].sendall(HEAD + b"Content-Length: 9000\r\n\r\n")
        links[1].sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        while count_waiting(address) < 2:
            time.sleep(0.01)
        pieces = (b"x", b"1\r\nx\r\n")
        senders = [
            threading.Thread(target=trickle, args=(links[each], pieces[each]), daemon=True) for each in (0, 1)
        ]
        for sender in senders:
            sender.start()
        ask_much(links[2])
        body = encode(noise(300, 300, 3))
        links[3].sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert links[3].recv(1) == b"H"  # of a result of 1 MB
        server.send_signal(signal.SIGTERM)
        assert server.wait(120) == 0
        for sender in senders:
            sender.join()
        assert links[0].recv(100).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("sent", [b"", b"GET /v1/health HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX: "])
def test_a_connection_that_brings_no_request_is_closed(sent):
    with serving(idle_seconds=1) as address, connect(address) as link:
        link.sendall(sent)
        if sent.endswith(b"X: "):
            trickle(link)
        with suppress(ConnectionResetError):
            assert link.recv(100) == b""


def test_clients_that_trickle_or_take_nothing_keep_no_place():
    with serving(idle_seconds=1) as address:
        with connect(address) as link:
            link.sendall(HEAD + b"Content-Length: 9000\r\n\r\n")
            trickle(link)
            assert link.recv(100).startswith(b"HTTP/1.1 408 ")
        with connect(address) as link:
            body = encode(noise(300, 300, 3))
            link.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert link.recv(1) == b"H"
            begun = time.monotonic()
            while count_waiting(address):
                assert time.monotonic() - begun < 120, "the client keeps its place"
                time.sleep(0.05)
        with connect(address) as link:
            ask_much(link)
            link.settimeout(120)
            with pytest.raises(ConnectionError):  # once it is closed; until then there is no room
                link.sendall(bytes(2**20))


def test_idle_connections_do_not_keep_others_out_and_are_reported_in_a_line():
    with process("NOFILE", (64, 64)) as (server, address), ExitStack() as stack:
        for _ in range(90):
            stack.enter_context(connect(address))
        assert ask(address, "GET", "/v1/health")[0] == 200
        for _ in range(90):
            stack.enter_context(connect(address))
        server.send_signal(signal.SIGTERM)
        assert server.wait(120) == 0
        assert server.stderr
        lines = server.stderr.read().splitlines()
        notice = "mambair: no connection is taken in, since too many files are open; start it with a larger"
        assert 1 <= len([line for line in lines if line.startswith(notice)]) <= 10  # once a minute
        assert all(line.startswith("mambair: ") for line in lines)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="cannot ask for limits")
def test_a_server_asks_for_as_many_files_as_it_may_open():
    with process("NOFILE", (128, 256)) as (server, _):
        assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (256, 256)


@pytest.mark.parametrize("place", ["bodies.tempfile.TemporaryFile", "service.mmap"])
def test_too_many_open_files_are_no_fault_of_the_image_and_end_soon(monkeypatch, place):
    def refuse(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    with serving() as address:
        with monkeypatch.context() as patch:
            patch.setattr(f"mambair_cli.server.{place}", refuse)
            answer = ask(address, "POST", "/v1/upscale?scale=2", PHOTO)
        assert (answer[0], "Retry-After" in answer[1]) == (503, True)
        assert "too many files open; try again later" in error_message(answer)
        assert ask(address, "POST", "/v1/upscale?scale=2", PHOTO)[0] == 200


def test_a_disk_without_space_is_reported_as_the_server_s_own(run):
    """Both where an image arrives and where its result is written; other images are restored."""
    Path("photos").mkdir()
    Path("photos/a.png").write_bytes(encode(noise(60, 60, 3)))
    Path("photos/b.png").write_bytes(encode(noise(9, 9, 3)))
    with process("FSIZE", (8192, 8192)) as (server, address):
        why = "the server cannot store the image: File too large; start it with a larger `ulimit -f`"
        for body in (encode(noise(60, 60, 3)), encode(noise(40, 40, 3))):
            answer = ask(address, "POST", "/v1/upscale?scale=2&format=tiff", body)
            assert answer[0] == 507
            assert json.loads(answer[2]) == {"kind": "ShortageError", "message": why}
        code, out, err = run("upscale", "photos", "-s", "2", "-q", "--server", address)
        assert (code, out) == (1, ["photos_x2/b.png"])
        assert err == f"mambair: error: photos/a.png: {why}\n"
        server.send_signal(signal.SIGTERM)
        assert server.communicate(120)[1].splitlines()[1:] == [
            "mambair: cannot store an image: File too large; start it with a larger `ulimit -f`",
            "mambair: loaded tiny-x2 on cpu",
        ]


def test_an_error_that_is_its_own_cause_lacks_nothing():
    error, other = ImageError("no"), ValueError("why")
    error.__cause__, other.__cause__ = other, error
    assert find_shortage(error) is None


@pytest.mark.parametrize("home", ["/", "", ".", None])
def test_errors_are_sent_in_whole_whatever_the_home_folder_is(monkeypatch, home):
    def find_none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("HOME", home or "")
    if home is None:
        monkeypatch.setattr(Path, "home", find_none)
    find_folders.cache_clear()
    try:
        with serving() as address:
            answer = ask(address, "POST", "/v1/upscale?model=a/b", PHOTO)
            assert answer[0] == 404
            assert " a/b;" in error_message(answer)
    finally:
        find_folders.cache_clear()


def test_folders_are_left_out_of_messages_at_the_borders_of_their_names(monkeypatch):
    from mambair_cli.server.answers import _without_folders

    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setattr(tempfile, "tempdir", "/srv/t")
    find_folders.cache_clear()
    try:
        for message, shown in (
            ("cannot read /home/ann/a.png: no", "cannot read ~/a.png: no"),
            ("it is in /home/ann.", "it is in ~."),
            ("in '/home/ann', not /home/anna or /home/ann.old", "in '~', not /home/anna or /home/ann.old"),
            ("in /data/home/ann/x", "in /data/home/ann/x"),
            ("no space: /srv/t/x1; free some", "no space; free some"),
            ("in /srv/tea", "in /srv/tea"),
        ):
            assert _without_folders(message) == shown
    finally:
        find_folders.cache_clear()
