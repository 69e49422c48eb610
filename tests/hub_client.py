"""A machine that uses the server of hub_server.py as the Hub, and downloads a model from it.

huggingface_hub reads its environment when it is imported, so every call is made in a process of its own.
"""

import dataclasses
import hashlib
import json
import os
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked import start_forked
from hub_server import HubServer
from repository import ROOT

from mambair_cli.checkpoints.catalog import Model

CONTENT = b"some weights " * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MODEL = Model(
    name="trial-x4",
    task="upscale",
    scale=4,
    channels=3,
    architecture="mambair",
    variant="light",
    repo="some/models",
    files=("ckpt/first.pth", "ckpt/second.pth"),
    certainty="likely",
    sha256=SHA256,
    license="Apache-2.0",
)


# Calls one function of mambair_cli.checkpoints.hub on a model and prints the result.
CHILD = """
import json, sys, warnings
warnings.simplefilter("error")
from mambair_cli.checkpoints import hub
from mambair_cli.checkpoints.catalog import Model
from mambair_cli.errors import DownloadError
order = json.loads(sys.argv[1])
if order["file_limit"]:
    import resource
    sys.dont_write_bytecode = True  # Python would leave modules cut off
    resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], order["file_limit"]))
model = Model(**order["model"])
try:
    found = getattr(hub, order["function"])(model, **order["options"])
    path, notice = (found.path, found.notice) if isinstance(found, hub.Fetched) else (found, None)
    print(json.dumps({"path": path and str(path), "notice": notice}))
except DownloadError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}))
"""


@dataclass(frozen=True)
class Outcome:
    """Result of a call: a path, None, or an error; and what appeared on stderr."""

    path: Path | None
    notice: str | None
    error: str
    message: str
    stderr: str
    seconds: float


@dataclass
class Client:
    """A machine that uses the server as the Hub, with its own cache."""

    server: HubServer
    home: Path

    def call(
        self,
        function: str = "fetch",
        model: Model = MODEL,
        *,
        environment: dict[str, str] | None = None,
        terminal: bool = False,
        file_limit: int | None = None,
        **options: bool,
    ) -> Outcome:
        order = {"function": function, "options": options, "file_limit": file_limit}
        order["model"] = {**dataclasses.asdict(model), "files": list(model.files)}
        master, stderr = _open_terminal() if terminal else (None, subprocess.PIPE)
        start = time.monotonic()
        variables = self.server.environment(self.home, **(environment or {}))
        with start_forked("-c", CHILD, json.dumps(order), cwd=ROOT, env=variables, stderr=stderr) as process:
            printed, shown = process.communicate()
        seconds = time.monotonic() - start
        if master is not None:
            os.close(stderr)
            shown = _drain(master)
        assert process.returncode == 0, shown
        result: dict[str, Any] = json.loads(printed)
        if "error" in result:
            assert result["exit_code"] == 3
            assert "\n" not in result["message"]
        path = Path(result["path"]) if result.get("path") else None
        error, message = result.get("error", ""), result.get("message", "")
        return Outcome(path, result.get("notice"), error, message, shown, seconds)

    def blobs(self) -> list[Path]:
        """Return every file of the cache that counts as complete."""
        files = self.home.glob("hub/models--*/blobs/*")
        return [path for path in files if path.is_file() and path.suffix != ".incomplete"]

    def assets(self) -> list[Path]:
        """Return every file from the second address, complete or not."""
        files = self.home.glob("assets/**/*")
        return [path for path in files if path.is_file() and path.suffix != ".lock"]

    def links(self) -> list[Path]:
        """Return every link of the cache to a file, also those to a missing one."""
        return [path for path in self.home.glob("hub/models--*/snapshots/*/**/*") if path.is_symlink()]


def _open_terminal() -> tuple[int, int]:
    """Return both ends of a terminal of the usual size; a terminal without a size has no room for a bar."""
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    return master, terminal


def _drain(descriptor: int) -> str:
    """Read all that was written to a terminal whose other end is closed."""
    shown = b""
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:  # how Linux says end of file here
            chunk = b""
        if not chunk:
            os.close(descriptor)
            return shown.decode()
        shown += chunk
