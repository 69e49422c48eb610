"""Keep PyTorch alive in processes that are forked from one that has computed: its threads are gone there.

The threads of its OpenMP library do not survive a fork, and the child would wait for them for ever. With one
thread it needs none of them.
"""

import os
from pathlib import Path

import torch

THREADS = Path("/proc/self/task")  # of this process, on Linux
_had_threads = True


def settle_forks() -> None:
    """From now on have PyTorch use one thread in children that are forked from a process of several."""
    if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
        os.register_at_fork(before=_look_for_threads, after_in_child=_use_one_thread)


def _look_for_threads() -> None:
    # A process of one thread loses none: so are those that fork workers, which keep all of their threads.
    global _had_threads
    _had_threads = not THREADS.is_dir() or len(os.listdir(THREADS)) > 1


def _use_one_thread() -> None:
    if _had_threads:
        torch.set_num_threads(1)
