"""Send small numbers to the device that degrades pictures."""

import numpy as np
import torch
from torch import Tensor


def send(values: object, device: torch.device) -> Tensor:
    """Copy numbers to a device without waiting for its other work."""
    array = np.asarray(values)
    tensor = torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
