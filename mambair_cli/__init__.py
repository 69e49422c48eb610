"""Restore images with the MambaIR family of networks; ``mambair --help`` on the command line.

::

    net = mambair_cli.load_network("any_checkpoint.pth")
    restore = mambair_cli.Restorer(task="upscale", scale=4)

What callers can mend is a ``MambairError``; its classes are in ``mambair_cli.errors``.
"""

TYPE_CHECKING = False  # type checkers take it as true; importing typing would make each command start later

if TYPE_CHECKING:
    from mambair_cli import errors, spandrel_support
    from mambair_cli.checkpoints.load import load_network
    from mambair_cli.errors import MambairError
    from mambair_cli.restore.restorer import Restorer

    __version__: str

__all__ = ["MambairError", "Restorer", "errors", "load_network", "spandrel_support"]

_HOMES = {"load_network": "checkpoints.load", "MambairError": "errors", "Restorer": "restore.restorer"}
_MODULES = ("errors", "spandrel_support")


def __getattr__(name: str) -> object:
    """Return a public name, imported at its first use: torch takes seconds, and not every use needs it."""
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("mambair-cli")
        except PackageNotFoundError as error:
            raise AttributeError("mambair has no version: it is not installed") from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
