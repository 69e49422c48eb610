"""Start worker processes quickly: on Linux they are forked from one that has imported what they need."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

from mambair_cli.system.process import settle_process
from mambair_cli.system.signals import OF_TERMINALS

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
        with _ignoring_interrupts():
            forkserver.ensure_running()


def start_process(target: Callable[..., None], arguments: tuple, name: str) -> BaseProcess:
    """Start a process that ignores interrupts from its first moment.

    Args:
        target: Function of a module, which is called in the process.
        arguments: Its arguments.
        name: Name of the process.
    """
    process = _context.Process(target=_begin, args=(dict(os.environ), target, arguments), name=name)
    with _ignoring_interrupts():  # the process inherits it, before it can do so itself
        process.start()
    return process


def _begin(environment: dict[str, str], target: Callable[..., None], arguments: tuple) -> None:
    """Take the environment of the parent, which is newer than that of the process that was forked.

    What a command settles for itself is not inherited, either.
    """
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    settle_process()
    target(*arguments)


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in OF_TERMINALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
