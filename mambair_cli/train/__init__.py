"""Train a network on folders of images: a checkpoint further, or a small network from scratch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mambair_cli.train.config import TrainConfig
    from mambair_cli.train.loop import LogLine, train

__all__ = ["LogLine", "TrainConfig", "train"]

_HOMES = {"LogLine": "loop", "TrainConfig": "config", "train": "loop"}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the command line takes its defaults without torch."""
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
