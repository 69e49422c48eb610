"""The command that keeps models loaded for other commands: serve."""

import signal
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mambair_cli.cli.options import Device, MaxPixels, Offline, Precision, Quiet
from mambair_cli.cli.output import say
from mambair_cli.errors import UsageError
from mambair_cli.runs import parameters
from mambair_cli.system.signals import SIGNALS, cleaning_up

if TYPE_CHECKING:
    import uvicorn


def serve(
    socket: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Unix socket to listen at.", show_default="one that only you can use"
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="N",
            help="Listen at a port of 127.0.0.1 instead; 0: any free port.",
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    models: Annotated[
        int, typer.Option(min=1, metavar="N", help="Maximum number of models to keep loaded.")
    ] = 4,
    waiting: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Maximum number of images at a time; the server refuses more."),
    ] = 32,
    max_pixels: MaxPixels = parameters.MAX_PIXELS.default,
    max_bytes: Annotated[int, typer.Option(min=1, metavar="BYTES", help="Refuse larger image files.")] = 2
    ** 30,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Keep models loaded for commands and other programs.

    Prints its address, for --server. Other programs use HTTP: see docs/serve.md.
    Ctrl-C, the signal TERM or closing the terminal ends it after the images that it has are done.

    Example: mambair serve --port 8765
    """
    if socket is not None and port is not None:
        raise UsageError(f"--socket {socket} and --port {port} exclude each other; give one")
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise UsageError(
                f"serve needs a package that is not installed: {package}; "
                '`pip install "mambair-cli[serve]"` installs it'
            )
    from mambair_cli.server.address import LOOPBACK, Address, find_default_socket, listen

    if port is not None:
        address = Address(None, LOOPBACK, port)
    else:
        address = Address(Path(socket) if socket else find_default_socket(make_folder=True))
    with ExitStack() as stack:
        listener = stack.enter_context(listen(address))  # before the slow imports: early clients wait
        if address.path is not None:
            stack.callback(_remove_socket, address.path, address.path.lstat().st_ino)
        else:
            address = Address(None, LOOPBACK, listener.getsockname()[1])
        print(address, flush=True)
        from mambair_cli.server.app import App, build_server
        from mambair_cli.server.network_cache import NetworkCache
        from mambair_cli.server.service import RestoreService

        notify = (lambda sentence: None) if quiet else say
        service = RestoreService(NetworkCache(device, precision, offline, models, notify), max_pixels)
        stack.callback(service.close)
        server = build_server(App(service, max_bytes, waiting))
        if not quiet:
            say(f"serving at {address} on {service.cache.device}; Ctrl-C ends it")
        with cleaning_up():
            _end_by_signals(server)
            server.run(sockets=[listener])


def _end_by_signals(server: "uvicorn.Server") -> None:
    """End the server in good order at TERM, and when its terminal is closed: neither is an error."""
    for number in SIGNALS:
        if number != signal.SIGINT and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, server.handle_exit)


def _remove_socket(path: Path, inode: int) -> None:
    """Remove a socket, unless another one has taken its place."""
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except OSError:
        pass
