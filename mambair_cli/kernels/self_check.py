"""What was found right on this machine before, remembered on disk, since finding out takes time."""

import hashlib
from functools import cache
from pathlib import Path

import torch

from mambair_cli.kernels.disk_cache import is_kept, keep


def is_known(what: str, device: torch.device) -> bool:
    """Tell whether it was found right, by these very sources, on such a card, with this PyTorch."""
    return is_kept(_name_of(what, device))


def remember(what: str, device: torch.device) -> None:
    """Keep that it was found right; where nothing can be written, it is found out again next time."""
    keep(_name_of(what, device))


def _name_of(what: str, device: torch.device) -> str:
    card: tuple[object, ...] = (device.type,)
    if device.type == "cuda":
        card = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    about = (what, card, torch.__version__, torch.version.cuda, torch.version.hip, _triton(), _sources())
    return f"{hashlib.sha256(repr(about).encode()).hexdigest()[:32]}.right"


def _triton() -> str:
    try:
        import triton
    except ImportError:
        return ""
    return triton.__version__


@cache
def _sources() -> str:
    """Digest all that a result depends on: the networks and the kernels."""
    package = Path(__file__).parent.parent
    files = sorted(
        file
        for folder in ("kernels", "networks")
        for file in (package / folder).rglob("*")
        if file.suffix in (".py", ".cu", ".cuh")
    )
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
