"""Notices to the user: Python's warnings, passed on as sentences.

Inner modules do not know how to reach the user. They warn, as libraries do; a command, or a worker process,
decides here where its warnings go.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class SlowerWarning(UserWarning):
    """A slower path is used than the machine could offer."""


@contextmanager
def telling(notify: Callable[[str], None]) -> Iterator[None]:
    """Pass on the warnings of all threads during the block, each sentence once.

    Args:
        notify: Called with the sentence.
    """
    before = warnings.showwarning
    known: set[str] = set()

    def tell(message: Warning | str, category: type[Warning], *place: Any) -> None:
        text = " ".join(str(message).split())
        sentence = text if issubclass(category, SlowerWarning) else f"{category.__name__}: {text}"
        if sentence not in known:
            known.add(sentence)
            notify(sentence)

    warnings.showwarning = tell
    try:
        yield
    finally:
        warnings.showwarning = before
