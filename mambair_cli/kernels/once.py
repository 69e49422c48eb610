"""Compile a kernel once, however many threads need it at the same time."""

import functools
import os
import threading
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Made = TypeVar("Made")

# One for all, since LLVM has a single one, too. A fork waits for it: in a copy of a process that compiles,
# LLVM's own would never open.
_compiling = threading.RLock()
if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(
        before=_compiling.acquire, after_in_parent=_compiling.release, after_in_child=_compiling.release
    )


class Once(Generic[Arguments, Made]):
    """Decorates a function whose results are kept: threads that ask meanwhile wait, and get the same.

    Args:
        make: The function; its arguments have hashes.
    """

    def __init__(self, make: Callable[Arguments, Made]) -> None:
        functools.update_wrapper(self, make)
        self._make = make
        self._made: dict[object, Made] = {}
        self.cache_clear = self._made.clear

    def __call__(self, *arguments: Arguments.args, **named: Arguments.kwargs) -> Made:
        """Return what the function returned, or returns now."""
        key = arguments, tuple(named.items())
        if key not in self._made:
            with _compiling:
                if key not in self._made:
                    self._made[key] = self._make(*arguments, **named)
        return self._made[key]
