"""Where a server listens and its clients find it: a Unix socket, or a port of this machine."""

import os
import socket
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mambair_cli.errors import UsageError

LOOPBACK = "127.0.0.1"
AUTO = "auto"
_SOCKET_NAME = "mambair.sock"
_PROBE_SECONDS = 5


@dataclass(frozen=True)
class Address:
    """Of a server.

    Attributes:
        path: Of its Unix socket; None where it listens at a port.
        host: By name or number, with a port only.
        port: 0 for any that is free, and with a path.
    """

    path: Path | None
    host: str = LOOPBACK
    port: int = 0

    def __str__(self) -> str:
        """Write it as :func:`parse_address` reads it."""
        return f"http://{self.host}:{self.port}" if self.path is None else f"unix:{self.path}"


def parse_address(text: str) -> Address:
    """Read the address of a server.

    Args:
        text: "auto" for the socket where `mambair serve` listens by itself, "unix:PATH" or "http://HOST:PORT".

    Raises:
        UsageError: It is none.
    """
    if text == AUTO:
        return Address(find_default_socket())
    if text.startswith("unix:") and len(text) > len("unix:"):
        return Address(Path(text.removeprefix("unix:")))
    try:
        parts = urlsplit(text)
        if parts.scheme == "http" and parts.hostname and parts.port and parts.path in ("", "/"):
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            return Address(None, host, parts.port)
    except ValueError:  # a port that is no number
        pass
    raise UsageError(
        f"no address of a server: {text}; auto, unix:/a/path and http://{LOOPBACK}:8765 are such"
    )


def find_default_socket(make_folder: bool = False) -> Path:
    """Return the path of the socket where the user's server listens: in a folder that is nobody else's.

    Args:
        make_folder: Whether to make the folder where it is missing.

    Raises:
        UsageError: There is no such folder, or the system has no such sockets.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise UsageError("this system has no Unix sockets; use a port, as in http://127.0.0.1:8765")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and _is_private(Path(runtime)):
        return Path(runtime, _SOCKET_NAME)
    folder = Path(tempfile.gettempdir(), f"mambair-{os.getuid()}")
    if make_folder:
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot make {folder}: {error.strerror}; choose a socket of your own"
            ) from error
    if os.path.lexists(folder) and not _is_private(folder):
        raise UsageError(f"{folder} is not yours alone: whose server is in it? name another socket")
    return folder / _SOCKET_NAME


def _is_private(folder: Path) -> bool:
    """Tell whether this is a folder of the user's that nobody else gets into."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def listen(address: Address) -> socket.socket:
    """Open a socket at an address; one that a dead server has left is replaced.

    What the user alone may connect to is a Unix socket; to a port, everybody on the machine may.

    Raises:
        UsageError: Another server listens there, or nobody can.
    """
    try:
        if address.path is None:
            return socket.create_server((address.host, address.port))
        _clear_away(address.path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(os.fspath(address.path))
            listener.listen()
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(mask)
        return listener
    except OSError as error:
        reason = error.strerror or error  # a path that is too long has no number of an error
        raise UsageError(
            f"cannot listen at {address}: {reason}; choose another with --socket or --port"
        ) from error


def _clear_away(path: Path) -> None:
    """Remove a socket that nobody listens at."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise UsageError(f"cannot listen at {path}: it is no socket; choose another with --socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except (BlockingIOError, TimeoutError):  # so many wait there that it takes in no more
            pass
    raise UsageError(f"a server listens at {path} already; stop it, or choose another with --socket")
