"""The processes that train one network together with Accelerate, each on its own device.

A launcher, ``torchrun`` or ``accelerate launch``, starts them and sets their number in the environment.
"""

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from mambair_cli.errors import UsageError


def is_first_process() -> bool:
    """Tell whether this is the only process of a run or, by the launcher's numbers, the first one."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


class ProcessGroup:
    """All processes of a run, seen from one of them; a single process does not need Accelerate.

    Attributes:
        count: Number of processes.
        is_main: Whether this process writes files and prints.
        device: Device of this process.
        share: Crops of each batch that this process computes.

    Raises:
        UsageError: A batch cannot be shared evenly, or there are several processes and Accelerate is not
            installed.
    """

    def __init__(self, device: str, batch: int) -> None:
        count = os.environ.get("WORLD_SIZE", "1")  # a launcher sets it
        if not count.isdecimal() or int(count) < 1:
            raise UsageError(f"WORLD_SIZE is not a number of processes: {count}; unset it")
        self.count = int(count)
        self.device = torch.device(device)
        self._accelerator = None
        rank = 0
        if batch % self.count:
            raise UsageError(
                f"cannot share {batch} crops a step among {self.count} processes; "
                f"take a multiple of {self.count}"
            )
        if self.count > 1:
            try:
                import accelerate
            except ImportError as error:
                raise UsageError(
                    f"cannot train with {self.count} processes: accelerate is not installed; "
                    "pip install mambair-cli[distributed]"
                ) from error
            self._accelerator = accelerate.Accelerator(cpu=self.device.type == "cpu")
            rank = self._accelerator.process_index
            if self.device.type != "cpu":
                self.device = self._accelerator.device  # one GPU for each process
        self.is_main = rank == 0
        size = batch // self.count
        self.share = slice(rank * size, (rank + 1) * size)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over all processes, which must all call this.

        They are sent in one message: for networks this small the number of messages counts, not their size.
        """
        if self._accelerator is None:
            return
        whole = self._reduce(torch.cat([tensor.flatten() for tensor in tensors]))
        parts = whole.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def any(self, here: bool) -> bool:
        """Tell whether something is true in any process; all processes must call this."""
        if self._accelerator is None:
            return here
        return self._reduce(torch.tensor(float(here), device=self.device)).item() > 0

    def close(self) -> None:
        """Wait for all processes, and end their communication."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()
            self._accelerator.end_training()

    def _reduce(self, tensor: Tensor) -> Tensor:
        assert self._accelerator is not None
        mean = self._accelerator.reduce(tensor, reduction="mean")
        assert isinstance(mean, Tensor)
        return mean
