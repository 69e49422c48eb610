"""Where a server listens and its clients find it: a Unix socket, or a port of this machine."""

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    """Address of a server.

    Attributes:
        path: Path of its Unix socket; None where it listens at a port.
        host: Name or number of the machine, where it listens at a port.
        port: Number of the port; 0 for any free port, and with a path.
    """

    path: Path | None
    host: str = LOOPBACK
    port: int = 0

    def __str__(self) -> str:
        """Write the address; :func:`parse_address` reads it."""
        return f"http://{self.host}:{self.port}" if self.path is None else f"unix:{self.path}"


def parse_address(text: str) -> Address:
    """Read the address of a server.

    Args:
        text: "auto" for the default socket of `mambair serve`, "unix:PATH" or "http://HOST:PORT".

    Raises:
        UsageError: It is not an address.
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
        f"not the address of a server: {text}; auto, unix:/a/path or http://{LOOPBACK}:8765 would work"
    )


def find_default_socket(make_folder: bool = False) -> Path:
    """Return the default socket of the user's server, in a folder that nobody else can use.

    Args:
        make_folder: Whether to make the folder if it is missing.

    Raises:
        UsageError: Others can use the folder, it cannot be made, or the system has no Unix sockets.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise UsageError("this system has no Unix sockets; use a port, e.g. http://127.0.0.1:8765")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and _is_private(Path(runtime)):
        return Path(runtime, _SOCKET_NAME)
    folder = Path(tempfile.gettempdir(), f"mambair-{os.getuid()}")
    if make_folder:
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot make the folder {folder}: {error.strerror}; choose a socket with --socket"
            ) from error
    if os.path.lexists(folder) and not _is_private(folder):
        raise UsageError(
            f"not yours alone: {folder}; others could put a server there, so choose another socket"
        )
    return folder / _SOCKET_NAME


def _is_private(folder: Path) -> bool:
    """Tell whether a folder belongs to the user, and nobody else can enter it."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def listen(address: Address) -> socket.socket:
    """Open a socket at an address; replace one that a killed server has left.

    Only the user can connect to a Unix socket; everybody on the machine can connect to a port.

    Raises:
        UsageError: Another server listens there, or the address cannot be used.
    """
    try:
        if address.path is None:
            return socket.create_server((address.host, address.port))
        with _alone_in(address.path.parent):
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
        reason = error.strerror or error  # an OSError for a long path has no strerror
        raise UsageError(
            f"cannot listen at {address}: {reason}; choose another with --socket or --port"
        ) from error


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """In the block, let no other server begin in a folder: each would take the other's socket for a left one.

    The folder itself is locked, so that no file of locks is left.
    """
    import fcntl  # not on Windows, which has no Unix sockets here either

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a disk that has no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _clear_away(path: Path) -> None:
    """Remove a socket where no server listens."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise UsageError(f"cannot listen at {path}: it is not a socket; choose another with --socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except (BlockingIOError, TimeoutError):  # its queue of connections is full
            pass
    raise UsageError(f"a server listens at {path} already; stop it, or choose another with --socket")
