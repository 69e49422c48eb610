"""A server of this package, in a thread of the tests, and requests to it."""

import http.client
import json
import socket
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from pictures import encode, noise

from mambair_cli.restore.settings import Precision
from mambair_cli.server.address import Address, listen
from mambair_cli.server.app import App
from mambair_cli.server.network_cache import NetworkCache
from mambair_cli.server.service import RestoreService
from mambair_cli.server.serving import build_server

needs_unix_sockets = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="has no Unix sockets")

PHOTO = encode(noise(9, 12, 3))


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


def error_message(answer):
    """Return the one line of an answer that is an error."""
    facts = json.loads(answer[2])
    assert facts.keys() == {"kind", "message"}
    assert len(facts["message"].splitlines()) == 1
    return facts["message"]
