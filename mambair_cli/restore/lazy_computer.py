"""What computes tiles, made when it is first needed: a network goes to its device then."""

import threading
from collections.abc import Callable

from mambair_cli.restore.engine import TileComputer


class LazyComputer:
    """What computes tiles, made at its first use in any thread; copies of a restorer share it."""

    def __init__(self, make: Callable[[], TileComputer]) -> None:
        self._make = make
        self._made: TileComputer | None = None
        self._lock = threading.Lock()

    def get(self) -> TileComputer:
        """Return it, made now if it was not."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made
