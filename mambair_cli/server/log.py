"""What the server says on stderr: bugs, with their tracebacks, and now and then what it lacks."""

import logging
import sys
import time
from contextlib import suppress

SELDOM_SECONDS = 60.0  # between two lines that say the same

_LOGGER = logging.getLogger("uvicorn.error")
_said: dict[str, float] = {}


class _ErrorLog(logging.Handler):
    """Prints what is logged on stderr, with tracebacks, after ``mambair:``."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, if there is still a stderr."""
        with suppress(OSError):
            sys.stderr.write(f"mambair: {self.format(record)}\n")
            sys.stderr.flush()


_ERROR_LOG = _ErrorLog(logging.ERROR)  # anybody can cause the levels below, as often as they like


def open_log() -> None:
    """Print from now on what uvicorn and :func:`say_seldom` log."""
    _LOGGER.addHandler(_ERROR_LOG)


def say_seldom(sentence: str) -> None:
    """Log a sentence about what requests cause, which can be many: once a minute.

    Args:
        sentence: One of a few, since all are remembered.
    """
    now = time.monotonic()
    if now - _said.get(sentence, -SELDOM_SECONDS) >= SELDOM_SECONDS:
        _said[sentence] = now
        _LOGGER.error(sentence)
