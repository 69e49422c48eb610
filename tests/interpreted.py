"""Triton's programs on a GPU where there is one, else interpreted; to import before Triton."""

import os
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

if DEVICE.type == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # before the first import of Triton, which reads it then

interpreter = pytest.importorskip("triton.runtime.interpreter")


def scan_in_slices(self: Any, operands: tuple[Any, ...]) -> list[Any]:
    """Scan along an axis, all values of a step at once; the interpreter calls Python for each value."""
    shape, kinds = operands[0].handle.data.shape, [x.dtype for x in operands]
    values = [np.moveaxis(x.handle.data, self.axis, 0) for x in operands]
    steps = [tuple(map(self.to_tensor, step, kinds)) for step in zip(*values, strict=True)]
    done = accumulate(steps, lambda before, step: self.combine_fn.fn(*before, *step))
    scanned = [np.stack([x.handle.data for x in each], self.axis) for each in zip(*done, strict=True)]
    return [self.to_tensor(x.reshape(shape), kind) for x, kind in zip(scanned, kinds, strict=True)]


if hasattr(interpreter.ScanOps, "generic_scan"):  # else it takes its own time
    interpreter.ScanOps.generic_scan = scan_in_slices
