"""How a process uses processors and memory; only a command changes that, never a library."""

import ctypes
import gc
import os
import sys
import threading
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

# The value that OpenMP uses itself with more threads than processors. By default a waiting thread keeps its
# processor busy for 300,000 turns, about 8 ms; where another program uses one of two processors, the thread
# that it waits for may need that very one. Measured: benchmarks/README.md.
SPINS = "1000"

# Parameters of mallopt, as malloc.h numbers them, and their largest values.
TRIM_THRESHOLD, MOST_TO_TRIM = -1, 2**31 - 1
MMAP_THRESHOLD, MOST_TO_MMAP = -3, 2**30
MOST_ARENAS = -8
MOST_TO_MMAP_BEFORE_2_35 = 2**25  # in glibc before 2.35
USUAL_THRESHOLD = 2**17  # bytes, of both

_is_kept = threading.Event()  # whether freed memory stays in the process
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # a number of bytes, or "max"


def settle_process() -> None:
    """Have threads sleep while they wait, products not depend on their number, and freed memory be kept.

    Call it before PyTorch is imported, which is when OpenMP and MKL read the environment.
    """
    _limit_spinning(os.environ)
    # MKL's products may else round differently with three threads and more, and a router of MambaIRv2 that
    # hesitates between two routes then takes the other one.
    os.environ.setdefault("MKL_CBWR", "AUTO")
    _keep_memory()


def leave_process() -> None:
    """Have Python end without a garbage collection: among PyTorch's objects that takes 0.4 seconds.

    Triton's bindings, where they are loaded, print a page about all that was not freed.
    """
    if "triton" not in sys.modules:
        gc.freeze()


def count_processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_memory() -> int | None:
    """Return the memory of the machine, or of the container on it, in bytes; None where that is unknown."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:  # on Windows
        return None
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no container, or one without a limit
        memory = min(memory, int(_CONTAINER_LIMIT.read_text()))
    return memory


def peak_memory() -> int | None:
    """Return the most memory that the process has used so far, in bytes; None where that is unknown."""
    try:
        import resource
    except ModuleNotFoundError:  # on Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def return_memory() -> None:
    """Give freed memory back to the system, from now on, where :func:`settle_process` has it kept.

    Only the GNU C library can use what it keeps: there may be none for the stack of a thread.
    """
    if _is_kept.is_set():
        library = ctypes.CDLL(None)
        library.mallopt(TRIM_THRESHOLD, USUAL_THRESHOLD)
        library.mallopt(MMAP_THRESHOLD, USUAL_THRESHOLD)
        library.malloc_trim(0)


def _limit_spinning(environment: MutableMapping[str, str]) -> None:
    """Have waiting threads of GNU's OpenMP sleep soon, unless the user has set how they wait."""
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)


def _keep_memory() -> None:
    """Have the GNU C library keep freed memory in the process.

    Every layer frees memory that the next one needs again. Getting it from the system each time, page by page
    and filled with zeros, costs a network up to a third of its time.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        _is_kept.set()
        # A thread's own arena has pieces of 64 MiB at most; what is larger would be given back after all.
        mallopt(MOST_ARENAS, 1)
        mallopt(TRIM_THRESHOLD, MOST_TO_TRIM)
        if not mallopt(MMAP_THRESHOLD, MOST_TO_MMAP):
            mallopt(MMAP_THRESHOLD, MOST_TO_MMAP_BEFORE_2_35)
