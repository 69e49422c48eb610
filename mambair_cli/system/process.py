"""How the process of a command uses processors and memory: for a command to settle, not for a library."""

import ctypes
import gc
import os
import sys
from collections.abc import MutableMapping

# As OpenMP does by itself where it knows of more threads than processors. By default a thread that waits for
# others keeps its processor busy for 300,000 turns, some 8 ms; and where another program has taken one of two
# processors, the one that it waits for may wait for that very processor. Measured: benchmarks/README.md.
SPINS = "1000"

# Parameters of mallopt, as malloc.h numbers them, and their largest values.
TRIM_THRESHOLD, MOST_TO_TRIM = -1, 2**31 - 1
MMAP_THRESHOLD, MOST_TO_MMAP = -3, 2**30
MOST_TO_MMAP_BEFORE_2_35 = 2**25  # of glibc


def settle_process() -> None:
    """Have threads sleep while they wait, and freed memory stay with the process.

    To be called before PyTorch is imported, which is when OpenMP reads the environment.
    """
    _limit_spinning(os.environ)
    _keep_memory()


def leave_process() -> None:
    """Have Python end without looking for garbage: among PyTorch's objects that takes 0.4 seconds."""
    gc.freeze()


def _limit_spinning(environment: MutableMapping[str, str]) -> None:
    """Have threads of GNU's OpenMP sleep soon, unless the user says how they are to wait."""
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)


def _keep_memory() -> None:
    """Have the GNU C library give no freed memory back to the system.

    Every layer frees what the next one needs again. Fetched from the system each time, page by page and
    filled with zeros, it costs a network up to a third of its time.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(TRIM_THRESHOLD, MOST_TO_TRIM)
        if not mallopt(MMAP_THRESHOLD, MOST_TO_MMAP):
            mallopt(MMAP_THRESHOLD, MOST_TO_MMAP_BEFORE_2_35)
