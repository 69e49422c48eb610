"""Restore images with the MambaIR family of networks; ``mambair --help`` on the command line.

::

    net = mambair_cli.load_network("any_checkpoint.pth")
    restore = mambair_cli.Restorer(task="upscale", scale=4)
"""

TYPE_CHECKING = False  # type checkers take it as true; importing typing would make each command start later

if TYPE_CHECKING:
    from mambair_cli.checkpoints.load import load_network
    from mambair_cli.errors import MambairError
    from mambair_cli.restore.restorer import Restorer

__all__ = ["MambairError", "Restorer", "load_network"]

_HOMES = {"load_network": "checkpoints.load", "MambairError": "errors", "Restorer": "restore.restorer"}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: torch takes seconds, and not every use needs it."""
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
