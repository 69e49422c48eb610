"""How a process uses processors and memory; only a command changes that, never a library."""

import ctypes
import gc
import math
import os
import sys
import threading
from collections.abc import MutableMapping

from mambair_cli.system.control_groups import read_limits

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

# What tells PyTorch the number of its threads; the first one tells other libraries, too.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

_set_here: set[str] = set()
_is_kept = threading.Event()  # whether freed memory stays in the process


def settle_process() -> None:
    """Have no more threads than processors, which sleep while they wait, and freed memory be kept.

    Products do not depend on their number.

    Call it before PyTorch is imported, which is when OpenMP and MKL read the environment.
    """
    _limit_spinning(os.environ)
    limit_threads(os.environ)
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
    """Return the number of processors that this process may use; a part of one counts as one."""
    own, allowed = count_own_processors(), read_limits().processors
    return own if allowed is None else min(own, max(1, math.ceil(allowed)))


def count_own_processors() -> int:
    """Return the number of processors that this process may run on, for whatever time."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_threads(environment: MutableMapping[str, str]) -> None:
    """Have PyTorch take as many threads as a container has processors, unless the user has set a number.

    It counts those that threads may run on, and does not see that a container may use two of 64 at a time:
    64 threads would then be stopped for most of each period, and the others wait for them.
    """
    is_given = any(name in environment for name in THREAD_VARIABLES)
    if not is_given and count_processors() < count_own_processors():
        environment[THREAD_VARIABLES[0]] = str(count_processors())
        _set_here.add(THREAD_VARIABLES[0])


def is_set_here(name: str) -> bool:
    """Tell whether a variable of the environment was set by :func:`limit_threads`, and not by the user."""
    return name in _set_here


def machine_memory() -> int | None:
    """Return the memory of the machine, or of the container on it, in bytes; None where that is unknown."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:  # on Windows
        return None
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    allowed = read_limits().memory
    return memory if allowed is None else min(memory, allowed)


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
