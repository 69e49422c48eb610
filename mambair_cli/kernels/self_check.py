"""Results of checks that this machine has passed, remembered on disk, since a check takes time."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch

from mambair_cli.kernels import nvrtc
from mambair_cli.programs.cuda_source import compiler_version
from mambair_cli.system.disk_cache import is_stored, store

_ROOT = __name__.split(".")[0]
PACKAGES = tuple(f"{_ROOT}.{name}" for name in ("kernels", "networks", "programs"))  # all that a result needs
SUFFIXES = (".py", ".cu", ".cuh")


def is_known(what: str, device: torch.device) -> bool:
    """Tell whether a check has passed before, with the same sources, software and kind of card."""
    return is_stored(_name_of(what, device))


def remember(what: str, device: torch.device) -> None:
    """Remember that a check has passed; if the disk cannot be written, it is done again next time."""
    store(_name_of(what, device))


def source_files() -> list[Path]:
    """Return the files of the networks and the kernels.

    Raises:
        ImportError: A package of ``PACKAGES`` does not exist.
    """
    files: list[Path] = []
    for name in PACKAGES:
        package = find_spec(name)  # by name: to import the networks here would be an import upwards
        if package is None:
            raise ImportError(f"no package is called {name}, though results depend on it")
        for folder in package.submodule_search_locations or ():
            files += (file for file in Path(folder).rglob("*") if file.suffix in SUFFIXES)
    return sorted(files)


def _name_of(what: str, device: torch.device) -> str:
    card: tuple[object, ...] = (device.type,)
    if device.type == "cuda":
        card = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    software = torch.__version__, torch.version.cuda, torch.version.hip, _triton(), *_libraries(device)
    about = what, card, software, _sources()
    return f"{hashlib.sha256(repr(about).encode()).hexdigest()[:32]}.right"


def _libraries(device: torch.device) -> tuple[object, ...]:
    """Return the versions of a card's libraries, which are updated without PyTorch: cuDNN, driver, NVRTC."""
    if device.type != "cuda":
        return ()
    return torch.backends.cudnn.version(), nvrtc.driver_version(), compiler_version()


def _triton() -> str:
    try:
        import triton
    except ImportError:
        return ""
    return triton.__version__


def _sources() -> str:
    digest = hashlib.sha256()
    for file in source_files():
        digest.update(file.read_bytes())
    return digest.hexdigest()
