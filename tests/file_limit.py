"""A limit of the sizes of files, as a full disk has it."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Python would leave the compiled form of a module cut off, and no later process could import it.
WITHOUT_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def limited_files(bytes: int) -> Iterator[None]:
    """Let the system refuse to write files beyond some bytes."""
    limits, writes_none = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        sys.dont_write_bytecode = writes_none
