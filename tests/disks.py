"""Disks that take several names for one, such as those of macOS and Windows, and sticks with exFAT."""

import os
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest


def ignore_case(name: str) -> str:
    """Return a name as a disk sees it that ignores case."""
    return name.lower()


def ignore_both(name: str) -> str:
    """Return a name as a disk sees it that ignores case, and how accents are composed."""
    return unicodedata.normalize("NFC", name).lower()


def take_for_one(monkeypatch: pytest.MonkeyPatch, fold: Callable[[str], str]) -> None:
    """Have files be found by all names that a disk takes for theirs, as far as the system's status tells."""
    for name in ("stat", "lstat"):
        monkeypatch.setattr(os, name, _finding(getattr(os, name), fold))


def _finding(ask: Callable[..., Any], fold: Callable[[str], str]) -> Callable[..., Any]:
    def find(path: Any, *given: Any, **named: Any) -> Any:
        try:
            return ask(path, *given, **named)
        except FileNotFoundError:
            folder, name = os.path.split(os.fsdecode(path))
            for other in os.listdir(folder or "."):
                if fold(other) == fold(name):
                    return ask(os.path.join(folder, other), *given, **named)
            raise

    return find
