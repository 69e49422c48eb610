"""Compile the kernels of a call side by side, before it runs: one after the other they take seconds."""

import os
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

MOST_THREADS = 16  # compilers work outside Python's lock for most of their time


class _Compilation:
    """Compiles in threads, each kernel once."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._begun: set[Hashable] = set()

    def begin(self, key: Hashable, compile: Callable[[], object]) -> None:
        if key not in self._begun:
            self._begun.add(key)
            self._pool.submit(compile)


_current: ContextVar[_Compilation | None] = ContextVar("compilation", default=None)


@contextmanager
def compiling_only() -> Iterator[None]:
    """Have the kernels compiled that are launched inside, and none run: their results are arbitrary memory.

    At the end all are compiled, or cannot be; then the next launch raises the error.
    """
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, "mambair-compile") as pool, _compiling_by_triton(pool):
        token = _current.set(_Compilation(pool))
        try:
            yield
        finally:
            _current.reset(token)


def is_compiling_only() -> bool:
    """Tell whether kernels are compiled and not run."""
    return _current.get() is not None


def compile_aside(key: Hashable, compile: Callable[[], object]) -> None:
    """Compile in a thread what is not being compiled already; only inside :func:`compiling_only`."""
    compilation = _current.get()
    if compilation is None:
        raise RuntimeError("kernels are compiled aside only where none is run")
    compilation.begin(key, compile)


def _compiling_by_triton(pool: Executor) -> Any:
    """Return a context in which Triton compiles in a pool what is warmed up."""
    try:
        from triton import AsyncCompileMode
    except ImportError:  # before 3.5; it compiles one after the other
        return nullcontext()
    return AsyncCompileMode(pool, ignore_errors=True)
