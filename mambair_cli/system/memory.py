"""Tell errors that mean that memory ran out from all others, and put them into a line."""

import errno
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mambair_cli.errors import MemoryLimitError
from mambair_cli.system.process import return_memory

# PyTorch has a class for GPUs only. Its memory on a CPU, oneDNN, C++, and Python where the stack of a thread
# has no room, say it in the text of a RuntimeError. Without a descriptor oneDNN does not know an operation.
_FULL = re.compile(
    "DefaultCPUAllocator|can't allocate memory|could not create a primitive(?! descriptor)|std::bad_alloc"
    "|can't start new thread"
)
# Messages about libraries that cannot be mapped. With a reason behind it, the first has another cause, such
# as a disk mounted without the right to run programs; in a static TLS block, room is short, not memory.
_UNMAPPED = re.compile(
    r"failed to map segment from shared object$|cannot allocate memory(?! in static TLS)", re.IGNORECASE
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that the memory of a device, or of this machine, ran out."""
    torch = sys.modules.get("torch")  # without it there are no errors of it, and importing it takes seconds
    if isinstance(error, (MemoryError, getattr(torch, "OutOfMemoryError", MemoryError))):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, ImportError):
        return _UNMAPPED.search(str(error)) is not None
    return isinstance(error, RuntimeError) and _FULL.search(str(error)) is not None


def release_memory_of(error: BaseException) -> None:
    """Free the pictures and tensors of the calls that an error has ended, which would stay as long as it."""
    traceback.clear_frames(error.__traceback__)
    return_memory()


@contextmanager
def explaining_memory(
    what: str, advice: str = "close other programs, or lift the limits on this one (`ulimit -a`)"
) -> Iterator[None]:
    """Say in a line that memory ran out in the block.

    Args:
        what: For what there is too little, such as the name of an image.
        advice: What would help.

    Raises:
        MemoryLimitError: Memory ran out.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        release_memory_of(error)
        raise MemoryLimitError(f"out of memory for {what}; {advice}") from error


@contextmanager
def passing_over_memory() -> Iterator[None]:
    """End the block without an error where memory runs out: its work will be done in another way."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
