"""The processes that train one network together, a device each, by way of Accelerate.

A launcher, ``torchrun`` or ``accelerate launch``, starts them and says in the environment how many there are.
"""

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from mambair_cli.errors import UsageError


class Processes:
    """All processes of a run; one alone needs no engine.

    Attributes:
        count: How many there are.
        is_main: Whether this is the one that writes and talks.
        device: Where this one computes.
        part: Of each batch, which this one computes.

    Raises:
        UsageError: Where a batch cannot be shared out evenly, or there are several and Accelerate is not
            installed.
    """

    def __init__(self, device: str, batch: int) -> None:
        count = os.environ.get("WORLD_SIZE", "1")  # a launcher sets it
        if not count.isdecimal() or int(count) < 1:
            raise UsageError(f"WORLD_SIZE is no number of processes: {count}; unset it")
        self.count = int(count)
        self.device = torch.device(device)
        self._engine = None
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
            self._engine = accelerate.Accelerator(cpu=self.device.type == "cpu")
            rank = self._engine.process_index
            if self.device.type != "cpu":
                self.device = self._engine.device  # a GPU each
        self.is_main = rank == 0
        share = batch // self.count
        self.part = slice(rank * share, (rank + 1) * share)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes, which must all ask for it, the mean of their tensors.

        In one message: for networks this small the number of messages counts, not their size.
        """
        if self._engine is None:
            return
        whole = self._reduce(torch.cat([tensor.flatten() for tensor in tensors]))
        parts = whole.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def any(self, here: bool) -> bool:
        """Tell whether something is so in any process; all must ask."""
        if self._engine is None:
            return here
        return self._reduce(torch.tensor(float(here), device=self.device)).item() > 0

    def leave(self) -> None:
        """End what the processes share, once none of them needs it any more."""
        if self._engine is not None:
            self._engine.wait_for_everyone()
            self._engine.end_training()

    def _reduce(self, tensor: Tensor) -> Tensor:
        assert self._engine is not None
        mean = self._engine.reduce(tensor, reduction="mean")
        assert isinstance(mean, Tensor)
        return mean
