"""Keep PyTorch alive in processes that are forked from one that has computed: its threads are gone there.

The threads of its OpenMP library do not survive a fork, and the child would wait for them for ever. With one
thread it needs none of them. A process of one thread loses none: so are those that fork workers, which keep
all of their threads.
"""

import os
from pathlib import Path

import torch

THREADS = Path("/proc/self/task")  # of this process, on Linux
_had_threads = True
_losses = 0


def settle_forks() -> None:
    """From now on have PyTorch use one thread in children that are forked from a process of several."""
    if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
        os.register_at_fork(before=_look_for_threads, after_in_child=_use_one_thread)


def count_losses() -> int:
    """Return how often threads were lost in a fork on the way to this process.

    Where the number is another one than when something was made that has threads, these are gone.
    """
    return _losses


def _look_for_threads() -> None:
    global _had_threads
    _had_threads = not THREADS.is_dir() or len(os.listdir(THREADS)) > 1


def _use_one_thread() -> None:
    global _losses
    if _had_threads:
        _losses += 1
        torch.set_num_threads(1)
