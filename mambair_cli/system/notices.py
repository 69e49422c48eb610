"""What users should know although nothing failed: Python's warnings, as sentences for whoever talks to them.

What is deep inside knows nobody to tell. It warns, as libraries do; a process that talks to somebody, or is
some other's worker, says here where its warnings go.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class SlowerWarning(UserWarning):
    """Something is computed in a slower way than it could be."""


@contextmanager
def telling(notify: Callable[[str], None]) -> Iterator[None]:
    """In the block, in whatever thread, pass warnings on in a sentence; each is told once.

    Args:
        notify: Given the sentence.
    """
    before = warnings.showwarning
    told: set[str] = set()

    def tell(message: Warning | str, category: type[Warning], *place: Any) -> None:
        text = " ".join(str(message).split())
        sentence = text if issubclass(category, SlowerWarning) else f"{category.__name__}: {text}"
        if sentence not in told:
            told.add(sentence)
            notify(sentence)

    warnings.showwarning = tell
    try:
        yield
    finally:
        warnings.showwarning = before
