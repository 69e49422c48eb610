"""Start worker processes quickly: on Linux they are forked from one that has imported what they need."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess

from mambair_cli.system.process import settle_process
from mambair_cli.system.signals import held_back, ignore_terminals

# CUDA, threads and libraries that use them do not survive a fork of this process; the one that is forked
# here has one thread, and has only imported modules. On other systems no such process is safe.
_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
_context = multiprocessing.get_context(_METHOD)


def prepare(modules: list[str]) -> None:
    """Begin to import modules for processes that will be started soon.

    Args:
        modules: Names of modules, which start no thread when they are imported.
    """
    if _METHOD == "forkserver":
        from multiprocessing import forkserver  # it needs what only Unix has

        _context.set_forkserver_preload(modules)
        _start_tracker()
        with held_back():
            forkserver.ensure_running()


def start_process(target: Callable[..., None], arguments: tuple, name: str) -> BaseProcess:
    """Start a process that ignores interrupts from its first moment.

    Args:
        target: Function of a module, which is called in the process.
        arguments: Its arguments.
        name: Name of the process.
    """
    # As a daemon, it is ended with this one where an interrupt comes before anybody has it.
    process = _context.Process(
        target=_begin, args=(dict(os.environ), target, arguments), name=name, daemon=True
    )
    _start_tracker()
    with held_back():
        process.start()
    return process


def _start_tracker() -> None:
    """Start the process in which multiprocessing notes what is to be removed; it unblocks signals here."""
    if sys.platform != "win32":
        from multiprocessing import resource_tracker

        with held_back():
            resource_tracker.ensure_running()


def _begin(environment: dict[str, str], target: Callable[..., None], arguments: tuple) -> None:
    """Take the environment of the parent, which is newer than that of the process that was forked.

    What a command settles for itself is not inherited, either.
    """
    ignore_terminals()
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    settle_process()
    target(*arguments)
