"""Have a model's programs compiled by other processes, while this one imports PyTorch.

That is for the first run of a model on a kind of card: a stamp next to Triton's results says that all are
there. Where anything fails, programs are compiled when they are first launched, as all others are.
"""

import hashlib
import os
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from mambair_cli.programs.cuda_source import find_torch
from mambair_cli.programs.forms import read_launches
from mambair_cli.system.disk_cache import cache_folder
from mambair_cli.system.forked_locks import ForkedLock
from mambair_cli.system.home import home_folder
from mambair_cli.system.process import count_processors

SWITCH = "MAMBAIR_COMPILE_AHEAD"  # "0" turns all this off
MOST_PROCESSES = 8
WAIT_SECONDS = 60
# Modules are found where this process finds them.
_PROGRAM = """
import sys
sys.path[:] = {path!r}
from {package}.compile import compile_launches
compile_launches({model!r}, {capability}, {processes}, {seconds})
"""


class _Work(NamedTuple):
    """What is under way.

    Attributes:
        process: The first process; all hold the other end of its pipe while they run.
        expected: Number of bytes that come through the pipe if all goes well.
        stamp: File that says so.
    """

    process: subprocess.Popen
    expected: int
    stamp: Path


_begun: list[_Work] = []
_waiting = ForkedLock()


def start(model: str, capability: tuple[int, int]) -> None:
    """Start to compile a model's programs for a card, unless that is done or cannot be done.

    Args:
        model: Name in the catalogue.
        capability: The card's compute capability.

    Raises:
        OSError: No process can be started, or Triton's folder cannot be written.
    """
    if sys.platform != "linux" or os.environ.get(SWITCH) == "0":
        return
    triton, launches = find_spec("triton"), read_launches(model)
    if not launches.triton or triton is None or triton.origin is None:
        return
    folder, kept = _triton_folder(), cache_folder()
    if folder is None or kept is None:
        return
    stamp = folder / f"mambair-{_digest(model, capability, Path(triton.origin))}"
    if stamp.exists() and kept.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        return
    program = _PROGRAM.format(
        path=sys.path,
        package=__package__,
        model=model,
        capability=capability[0] * 10 + capability[1],
        processes=max(2, min(MOST_PROCESSES, count_processors() - 1)),  # one imports PyTorch
        seconds=WAIT_SECONDS,
    )
    command = [sys.executable, "-c", program]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet)
    _begun.append(_Work(process, sum(map(len, launches)) + 1, stamp))


def wait() -> None:
    """Wait until what was started has ended, however it did; a minute at most."""
    with _waiting:
        while _begun:
            _finish(_begun.pop())


def _finish(work: _Work) -> None:
    with suppress(OSError):
        try:
            done, _ = work.process.communicate(timeout=WAIT_SECONDS)  # to the end of all its processes
        except subprocess.TimeoutExpired:
            work.process.kill()
            if work.process.stdout:
                work.process.stdout.close()  # which ends its forks, too
        else:
            if len(done) == work.expected:
                work.stamp.touch()


def _triton_folder() -> Path | None:
    """Return the folder where Triton keeps what it has compiled; None if the user has no home folder."""
    if folder := os.environ.get("TRITON_CACHE_DIR"):
        return Path(folder)
    home = os.environ.get("TRITON_HOME") or home_folder()
    return Path(home, ".triton", "cache") if home else None


def _digest(model: str, capability: tuple[int, int], triton: Path) -> str:
    """Return a digest of what the compiled programs depend on."""
    settings = sorted(item for item in os.environ.items() if item[0].startswith("TRITON_"))
    places = str(triton), triton.stat().st_mtime_ns, str(cache_folder()), find_torch()
    about = model, capability, places, sys.version, settings
    digest = hashlib.sha256(repr(about).encode())
    for file in sorted(Path(__file__).parent.iterdir()):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:32]
