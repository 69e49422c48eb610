"""The package spandrel, also where there is no torchvision for this PyTorch."""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import pytest

TORCHVISION = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
TAKEN = ("InterpolationMode", "rotate", "normalize")  # what spandrel imports from it


def import_spandrel() -> ModuleType:
    """Import spandrel; without it, skip the test or the whole module that calls this."""
    if "spandrel" not in sys.modules and find_spec("spandrel") is None:
        reason = "needs spandrel: pip install --no-deps spandrel einops"
        pytest.skip(reason, allow_module_level=True)
    with _torchvision():
        return import_module("spandrel")


@contextmanager
def _torchvision() -> Iterator[None]:
    """Put empty modules in the place of torchvision, if it is missing, and take them away again."""
    if "torchvision" in sys.modules or find_spec("torchvision"):
        yield
        return
    empty = {name: types.ModuleType(name) for name in TORCHVISION}
    for name in TAKEN:
        setattr(empty[TORCHVISION[-1]], name, None)
    sys.modules.update(empty)
    try:
        yield
    finally:
        for name in empty:
            del sys.modules[name]
