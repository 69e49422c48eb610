"""Vectors of another width than the processor's, for tests of what is compiled for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest


@contextmanager
def emulated_lanes(module: ModuleType, lanes: int) -> Iterator[None]:
    """Have a module's kernels compiled with so many floats in a vector, whatever the processor has."""
    kernels = [value for value in vars(module).values() if hasattr(value, "cache_clear")]

    def forget() -> None:
        for kernel in kernels:
            kernel.cache_clear()

    assert kernels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LANES", lanes)
        forget()
        yield
    forget()
