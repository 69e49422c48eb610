"""Locks that a forked process has anew: the threads that held them are not in it."""

import os
import threading
from collections.abc import Callable
from typing import Any


class ForkedLock:
    """A lock for a module; use it in ``with``.

    Args:
        make: Makes what is locked, also in each process that is forked.
    """

    def __init__(self, make: Callable[[], Any] = threading.Lock) -> None:
        self._make = make
        self._renew()
        if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = self._make()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()
