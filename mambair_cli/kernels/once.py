"""Compile a kernel once, however many threads need it at the same time."""

import functools
import threading
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Made = TypeVar("Made")


class Once(Generic[Arguments, Made]):
    """Decorates a function whose results are kept: threads that ask meanwhile wait, and get the same.

    Args:
        make: The function; its arguments have hashes.
    """

    def __init__(self, make: Callable[Arguments, Made]) -> None:
        functools.update_wrapper(self, make)
        self._make, self._lock = functools.cache(make), threading.Lock()
        self.cache_clear = self._make.cache_clear

    def __call__(self, *arguments: Arguments.args, **named: Arguments.kwargs) -> Made:
        """Return what the function returned, or returns now."""
        with self._lock:
            return self._make(*arguments, **named)
