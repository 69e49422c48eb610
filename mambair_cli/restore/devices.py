"""The devices of this machine: by name, by default, and several of them."""

import torch

from mambair_cli.errors import UsageError


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first of CUDA, MPS and the CPU that this machine has.

    Raises:
        UsageError: There is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, dtype=torch.float32, device=device)
    # PyTorch's ways to say it: no such name or number, built without CUDA, a kind that it cannot compute on.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        present = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        present += ["mps"] if torch.backends.mps.is_available() else []
        raise UsageError(f"no such device: {name}; this machine has {', '.join(present)}") from error
    return device


def choose_devices(names: str | None, workers: int | None) -> list[str]:
    """Return the device of each of several workers; empty where one process does all the work.

    Args:
        names: Devices separated by commas, or "all" for every CUDA device.
        workers: Number of worker processes on the CPU.

    Raises:
        UsageError: There is no such device, or both arguments are given.
    """
    if names is None:
        return ["cpu"] * (workers or 0)
    if workers is not None:
        raise UsageError(f"--devices {names} and --workers {workers} exclude each other; give one")
    devices = [name.strip() for name in names.split(",")]
    if names == "all":
        devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if not devices:
        raise UsageError(
            "no such device: all; there is no GPU, but --workers runs several processes on the CPU"
        )
    if len({choose_device(device).type for device in devices}) > 1:
        raise UsageError(f"--devices must be of one kind: {names}; results differ between kinds")
    return devices
