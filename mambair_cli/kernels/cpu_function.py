"""A function that was compiled for this processor, and the jobs that it does."""

import ctypes
from collections.abc import Mapping, Sequence

import llvmlite.binding as llvm
from torch import Tensor


class CpuFunction:
    """A compiled function. Its job is a row of addresses and numbers.

    Attributes:
        address: Address of the function in memory.
    """

    def __init__(
        self, engine: llvm.ExecutionEngine, address: int, pointers: Sequence[str], numbers: Sequence[str]
    ) -> None:
        self._engine = engine  # it owns the memory that the function lies in
        self.address = address
        self._pointers, self._numbers = pointers, numbers
        self._function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)

    def make_job(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, int]) -> ctypes.Array:
        """Return a job.

        Args:
            tensors: Tensor of each address, by the name that the function's code has for it; they must live
                until the job is done.
            numbers: Each number, by its name.
        """
        addresses = (tensors[name].data_ptr() for name in self._pointers)
        values = [*addresses, *(numbers[name] for name in self._numbers)]
        return (ctypes.c_int64 * len(values))(*values)

    def __call__(self, job: ctypes.Array) -> None:
        """Do a job, with Python's global lock released."""
        self._function(ctypes.addressof(job))
