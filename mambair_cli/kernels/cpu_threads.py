"""Run a compiled job in several threads."""

import ctypes
import os
import sys
import threading
from typing import Any

import torch

from mambair_cli.kernels.llvm_builder import Program


def run_in_threads(kernel: Program, job: ctypes.Array, threads: int) -> None:
    """Run a job in threads that share it among themselves.

    PyTorch's own threads are used where possible: after each operation they spin for some milliseconds
    before they sleep, and other threads would have to share the cores with them.
    """
    if threads == 1:
        kernel(job)
    elif _run_in_team and _has_team():
        _run_in_team(kernel.address, ctypes.addressof(job), torch.get_num_threads(), 0)
    else:
        others = [threading.Thread(target=kernel, args=(job,)) for _ in range(threads - 1)]
        for thread in others:
            thread.start()
        kernel(job)
        for thread in others:
            thread.join()


def _has_team() -> bool:
    """Tell whether OpenMP can be used: in a fork of a process that did, it would wait for ever."""
    global _process
    _process = _process or os.getpid()
    return _process == os.getpid()


def _find_team() -> Any:
    """Return OpenMP's function that runs a function in each thread of a team, or None.

    Its arguments are the address of the function, its one argument, the number of threads, and flags.
    """
    if sys.platform != "linux":
        return None
    run_in_team = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if run_in_team:
        run_in_team.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        run_in_team.restype = None
    return run_in_team


_run_in_team = _find_team()
_process: int | None = None  # the first that used a team
