"""Have work in another thread stop soon after nobody waits for it any more."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_own = threading.local()


class GivenUpError(Exception):
    """Nobody waits for what this thread computes."""


@contextmanager
def working_while(is_wanted: Callable[[], bool]) -> Iterator[None]:
    """In the block, have :func:`check_wanted` ask this; it is called in this thread."""
    _own.is_wanted = is_wanted
    try:
        yield
    finally:
        del _own.is_wanted


def check_wanted() -> None:
    """Raise :class:`GivenUpError` if nobody waits; long work calls this between its steps."""
    is_wanted = getattr(_own, "is_wanted", None)
    if is_wanted is not None and not is_wanted():
        raise GivenUpError
