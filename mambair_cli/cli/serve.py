"""The command that keeps networks loaded for others: serve."""

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from mambair_cli.cli.browser import open_page
from mambair_cli.cli.options import Device, MaxPixels, Offline, Precision, Quiet, with_options
from mambair_cli.cli.output import say
from mambair_cli.errors import UsageError
from mambair_cli.runs import parameters
from mambair_cli.server.limits import MAX_BYTES, MOST_MODELS, MOST_WAITING
from mambair_cli.system.signals import SIGNALS, cleaning_up, end_now, ending_by

if TYPE_CHECKING:
    import uvicorn

    from mambair_cli.server.address import Address


@dataclass(frozen=True)
class ServeOptions:
    """The options of ``serve``."""

    socket: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Unix socket to listen at.", show_default="one that only you can use"
        ),
    ] = None
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="N",
            help="Listen at a port of 127.0.0.1 instead; 0: any free port.",
        ),
    ] = None
    open: Annotated[
        bool,
        typer.Option("--open", help="Open the server's page in the browser; without --port, at a free port."),
    ] = False
    device: Device = "auto"
    precision: Precision = "auto"
    models: Annotated[
        int, typer.Option(min=1, metavar="N", help="Maximum number of models to keep loaded.")
    ] = MOST_MODELS
    waiting: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Maximum number of images at a time; the server refuses more."),
    ] = MOST_WAITING
    max_pixels: MaxPixels = parameters.MAX_PIXELS.default
    max_bytes: Annotated[int, typer.Option(min=1, metavar="BYTES", help="Refuse larger image files.")] = (
        MAX_BYTES
    )
    offline: Offline = False
    quiet: Quiet = False


@with_options
def serve(*, options: ServeOptions) -> None:
    """Keep models loaded for commands and other programs, and show a page for the browser.

    Prints its address, for --server. With a port, that address is also a page where pictures are dropped,
    restored, compared and saved. Other programs use HTTP: see docs/serve.md.
    Ctrl-C, the signal TERM or closing the terminal ends it after the images that it has are done.

    Example: mambair serve --port 8765 --open
    """
    _check(options)
    from mambair_cli.server.address import LOOPBACK, Address, listen

    address = _settle_address(options)
    with ExitStack() as stack:
        listener = stack.enter_context(listen(address))  # before the slow imports: early clients wait
        if address.path is not None:
            leave = partial(_remove_socket, address.path, address.path.lstat().st_ino)
        else:
            leave, address = _leave_nothing, Address(None, LOOPBACK, listener.getsockname()[1])
        # Before it serves, and while it waits for the threads of a server that has ended.
        stack.enter_context(ending_by(end := partial(_end_at_once, leave)))
        stack.callback(leave)
        print(address, flush=True)
        from mambair_cli.server.app import App
        from mambair_cli.server.network_cache import NetworkCache
        from mambair_cli.server.service import RestoreService
        from mambair_cli.server.serving import build_server
        from mambair_cli.server.shortage import raise_file_limit

        raise_file_limit()

        notify = (lambda sentence: None) if options.quiet else say
        networks = NetworkCache(options.device, options.precision, options.offline, options.models, notify)
        service = RestoreService(networks, options.max_pixels)
        stack.callback(service.close)
        server = build_server(App(service, options.max_bytes, options.waiting))
        if not options.quiet:
            say(f"serving at {address} on {service.cache.device}; Ctrl-C ends it")
        if options.open:
            open_page(str(address))
        with cleaning_up():
            _end_by_signals(server)
            try:
                server.run(sockets=[listener])
            finally:
                if server.force_exit:  # by a second Ctrl-C; threads may compute for minutes
                    end(signal.SIGINT)


def _check(options: ServeOptions) -> None:
    """Refuse two addresses, and a page where there is no port."""
    if options.socket is not None and options.port is not None:
        raise UsageError(f"--socket {options.socket} and --port {options.port} exclude each other; give one")
    if options.socket is not None and options.open:
        raise UsageError(
            f"--open shows a page at a port, and --socket {options.socket} has none; leave one out"
        )


def _settle_address(options: ServeOptions) -> "Address":
    """Return the address that the options ask for; a port of 0 is still to be replaced by a free one."""
    from mambair_cli.server.address import LOOPBACK, Address, find_default_socket

    if options.port is not None or options.open:
        return Address(None, LOOPBACK, options.port or 0)
    return Address(Path(options.socket) if options.socket else find_default_socket(make_folder=True))


def _end_by_signals(server: "uvicorn.Server") -> None:
    """Let a server finish its work and end without an error when TERM or HUP arrives."""
    for number in SIGNALS:
        if number != signal.SIGINT and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, server.handle_exit)


def _leave_nothing() -> None:
    pass


def _end_at_once(leave: Callable[[], None], number: int) -> NoReturn:
    """End the process after a signal: TERM and HUP are no errors of a server.

    Args:
        leave: Removes what it would leave.
        number: The signal.
    """
    leave()
    if number == signal.SIGINT:
        end_now(number)
    os._exit(0)


def _remove_socket(path: Path, inode: int) -> None:
    """Remove a socket, if nobody has put another in its place."""
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except OSError:
        pass
