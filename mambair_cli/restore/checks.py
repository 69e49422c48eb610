"""Check what programs give a restorer; commands and the server have checked theirs."""

from typing import get_args

import numpy as np

from mambair_cli.checkpoints.catalog import NETWORK_SCALES, Task
from mambair_cli.errors import ImageError, UsageError
from mambair_cli.images.samples import explain_range
from mambair_cli.networks import NetworkInfo
from mambair_cli.restore.settings import Precision
from mambair_cli.system.values import Wrap, read_value


def check_arguments(task: str, scale: float | None, precision: str, wrap: str) -> None:
    """Refuse words that name nothing, and scales between those of networks.

    Args:
        task: Task to do.
        scale: Output pixels per input pixel and side; None for the default.
        precision: Precision of the computation.
        wrap: Directions in which the edges of images meet.

    Raises:
        UsageError: The message says what would work.
    """
    for name, value, kinds in (
        ("task", task, Task),
        ("precision", precision, Precision),
        ("wrap", wrap, Wrap),
    ):
        read_value(name, str(value), "string", choices=get_args(kinds))
    if task == "upscale" and scale is not None and scale % 1 and scale < NETWORK_SCALES[-1]:
        *most, last = NETWORK_SCALES
        scales = f"{', '.join(map(str, most))} or {last}"
        raise UsageError(
            f"cannot enlarge by scale {scale:g}: a network has {scales}; the command's -s {scale:g} takes "
            "the next one and reduces its result, as you can"
        )


def check_image(image: object, any_range: bool) -> None:
    """Refuse what is no image.

    Args:
        image: What was given.
        any_range: Whether floats may lie outside [0, 1].

    Raises:
        TypeError: It is no array.
        ValueError: Its shape or its dtype is none of an image.
        ImageError: Its floats do not lie between 0 and 1.
    """
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"an image is a numpy array (h, w) or (h, w, c), not {type(image).__name__}; numpy.asarray makes "
            "one of a picture of PIL, and numpy.asarray(PIL.Image.open(path)) of a file"
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and not 1 <= image.shape[2] <= 4):
        raise ValueError(f"an image is (h, w) or (h, w, c) with c from 1 to 4, not {image.shape}")
    if not image.size:
        raise ValueError(f"an image has at least one pixel, not {image.shape}")
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"samples are uint8, uint16 or float32, not {image.dtype}")
    if image.dtype == np.float32 and not any_range and (reason := explain_range(image)):
        raise ImageError(f"cannot restore the image: {reason}")


def check_samples(samples: int, info: NetworkInfo, model: str) -> None:
    """Refuse a colour image for a network that enlarges luma alone.

    Args:
        samples: Number of the image's colours and its alpha.
        info: Facts about the network.
        model: Name of the model.

    Raises:
        UsageError: It is one.
    """
    if samples > 2 and info.channels == 1 and info.scale > 1:
        raise UsageError(f"{model} enlarges gray images alone; choose a colour model")
