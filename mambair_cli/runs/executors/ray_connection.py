"""The way into a Ray cluster, and what can be wrong with it."""

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mambair_cli.errors import UsageError

CONNECT_SECONDS = 5  # for the head of the cluster to answer


def join_cluster(address: str) -> Any:
    """Connect this process with a Ray cluster.

    Args:
        address: "auto" for the cluster that this machine is part of, or HOST:PORT of its head.

    Returns:
        The package ``ray``.

    Raises:
        UsageError: There is no such cluster, or it cannot be used from here.
    """
    # Ray would print on stdout what it has to say of its nodes; here the same is said on stderr.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    try:
        import ray  # pyright: ignore[reportMissingImports]: optional
    except ImportError as error:
        raise UsageError('--ray needs the package ray: pip install "mambair-cli[ray]"') from error
    address = _find_address() if address == "auto" else address
    _check_address(address)
    try:
        with _keeping_handlers():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address == "auto" and isinstance(error, ConnectionError):
            raise UsageError(
                "no Ray cluster runs on this machine: auto; start one with `ray start --head`"
            ) from error
        why = " ".join(str(error).split())
        raise UsageError(f"cannot join the Ray cluster: {address}; {why}") from error
    return ray


def _find_address() -> str:
    """Return the address that "auto" means, or "auto" itself, where Ray is to look for it."""
    noted = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")  # by `ray start`
    with suppress(OSError):
        return os.environ.get("RAY_ADDRESS") or noted.read_text().strip() or "auto"
    return "auto"


def _check_address(address: str) -> None:
    """Refuse an address where nobody answers: Ray would wait for minutes.

    Raises:
        UsageError: It is one.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    host = host.strip("[]")  # of IPv6
    if not host or not port.isdecimal() or "/" in host:
        raise UsageError(
            f"no address of a Ray cluster: {address}; use auto, or HOST:PORT of its head, on one of its nodes"
        )
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"no Ray cluster answers at {address}: {error}; start one with `ray start --head`"
        ) from error


@contextmanager
def _keeping_handlers() -> Iterator[None]:
    """Keep the process's answer to a request to terminate, which Ray replaces."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, handler)
