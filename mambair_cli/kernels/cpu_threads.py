"""Run a compiled job in several threads."""

import ctypes
import sys
import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mambair_cli.kernels.cpu_function import CpuFunction
from mambair_cli.kernels.forks import count_losses

SHARES_PER_THREAD = 4
COUNTER = "shares_taken"  # the number of a job with which threads count the shares they take
LINE = 16  # floats of a cache line


def new_on_lines(like: Tensor, *shape: int) -> Tensor:
    """Return a float32 tensor without values, the last dimension of which begins on a cache line each time.

    Threads that write to one line wait for each other, and a vector that lies on two lines needs both.
    """
    *rest, c = shape
    return like.new_empty(*rest, -(-c // LINE) * LINE, dtype=torch.float32)[..., :c]


def run_in_threads(
    kernel: CpuFunction, tensors: Mapping[str, Tensor], numbers: Mapping[str, int], threads: int
) -> None:
    """Run a job in threads that share it among themselves.

    PyTorch's own threads are used where possible: after each operation they spin for some milliseconds
    before they sleep, and other threads would have to share the cores with them.

    Args:
        kernel: The kernel.
        tensors: Tensor of each address of the job.
        numbers: Each number of the job.
        threads: Number of threads.
    """
    job = kernel.make_job(tensors, numbers)
    if threads == 1:
        kernel(job)
    elif _run_in_team and not count_losses():  # else OpenMP would wait for threads that are gone
        _run_in_team(kernel.address, ctypes.addressof(job), torch.get_num_threads(), 0)
    else:

        def take_part(_: Mapping[str, Tensor]) -> None:
            kernel(job)

        # Each thread holds the tensors: if one cannot be started, or at Ctrl-C, this call ends before others.
        others = [threading.Thread(target=take_part, args=(tensors,)) for _ in range(threads - 1)]
        for thread in others:
            thread.start()
        kernel(job)
        for thread in others:
            thread.join()


def run_shares(
    kernel: CpuFunction, operands: Mapping[str, Tensor], numbers: Mapping[str, int], threads: int
) -> None:
    """Run a kernel whose threads take shares of the work, several each, so that none waits long for others.

    Args:
        kernel: The kernel.
        operands: Tensor of each address of the job.
        numbers: Each number of the job, but for the counter of shares and their number, ``"shares"``.
        threads: Number of threads.

    Raises:
        ValueError: A tensor is not of float32 in the CPU's memory.
    """
    for name, operand in operands.items():
        if operand.dtype != torch.float32 or operand.device.type != "cpu":
            raise ValueError(f"{name} must be float32 on the CPU, not {operand.dtype} on {operand.device}")
    shares = threads if threads == 1 else SHARES_PER_THREAD * threads
    run_in_threads(kernel, operands, {COUNTER: 0, "shares": shares, **numbers}, threads)


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
