"""Check what programs give a restorer; commands and the server have checked theirs."""

import os
from collections.abc import Mapping
from dataclasses import replace
from math import inf, isinf
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch

from mambair_cli.checkpoints.catalog import NETWORK_SCALES, Asked, Task
from mambair_cli.checkpoints.select import ChosenModel, PictureKind
from mambair_cli.checkpoints.source import ALLOWED
from mambair_cli.errors import ImageError, UsageError
from mambair_cli.images.samples import explain_not_finite, fit_range
from mambair_cli.networks import NetworkInfo
from mambair_cli.restore.ranges import RANGES
from mambair_cli.restore.settings import ImageSettings, Precision
from mambair_cli.system.values import describe_kind, read_value

_ADVICE = {  # for samples of other types, by numpy's kinds of types
    "f": "; astype(numpy.float32) makes them that; they must lie between 0 and 1",
    "b": "; astype(numpy.uint8) * 255 makes them that",
    "i": "; astype(numpy.uint8) makes them that if they lie between 0 and 255, numpy.uint16 up to 65535",
}
_ADVICE["u"] = _ADVICE["i"]
_CHANNELS = range(1, 5)  # numbers of them that an image has
_ONE_BY_ONE = "numpy.stack([restore(each) for each in {}]{})"
_LEVELS = {"denoise": RANGES["sigma"], "dejpeg": RANGES["jpeg_quality"]}
_UPRIGHT = "numpy.asarray(PIL.ImageOps.exif_transpose({}){})"  # as its EXIF wants it turned
# Conversions of pictures of PIL, by their modes, where RGB and RGBA are not what they need.
_CONVERSIONS = {"1": "L", "L": "L", "LA": "LA", "La": "LA"}


def check_arguments(asked: Asked, device: object, precision: object, own: ImageSettings) -> ImageSettings:
    """Refuse words that name nothing, numbers outside the ranges of options, and scales between networks'.

    Args:
        asked: What is asked for, of any types.
        device: Name of the device.
        precision: Precision of the computation.
        own: Settings that may differ from image to image.

    Returns:
        These settings, with Python's own numbers.

    Raises:
        UsageError: The message says what would work.
    """
    task, scale, model = asked.task, asked.scale, asked.model
    for name, value, kinds in (("task", task, Task), ("precision", precision, Precision)):
        read_value(name, str(value), "string", choices=get_args(kinds))
    if not isinstance(model, str):
        raise UsageError(f"model is {model!r}; it must be a name, or 'auto'")
    if not isinstance(device, str | torch.device):
        raise UsageError(f"device is {device!r}; it must be a name such as 'cpu', or 'auto'")
    _check_number("scale", scale, "number", (1, None))
    _check_number("level", asked.level, "number", _LEVELS.get(str(task), (None, None)))
    kinds = get_type_hints(ImageSettings)
    checked = {name: _check_setting(name, value, kinds[name]) for name, value in vars(own).items()}
    if task == "upscale" and scale is not None and scale % 1 and scale < NETWORK_SCALES[-1]:
        *most, last = NETWORK_SCALES
        scales = f"{', '.join(map(str, most))} or {last}"
        raise UsageError(
            f"cannot enlarge by scale {scale:g}: a network has {scales}; the command's -s {scale:g} takes "
            "the next one and reduces its result, as you can"
        )
    return replace(own, **checked)


def _check_setting(name: str, value: Any, kind: Any) -> Any:
    """Return a setting as Python's own value; its range or its words follow from its name and its type."""
    if get_origin(kind) is Literal:
        read_value(name, str(value), "string", choices=get_args(kind))
        return value
    if kind is bool:
        check_flags(**{name: value})
        return bool(value)
    if kind is float:
        return float(_check_number(name, value, "number", RANGES[name], is_optional=False))
    return _check_number(name, value, "integer", RANGES[name], NoneType in get_args(kind))


def check_flags(**flags: object) -> None:
    """Refuse what is neither true nor false.

    Args:
        flags: Values of arguments, by their names.

    Raises:
        UsageError: One of them is something else.
    """
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise UsageError(f"{name} is {value!r}; it must be True or False")


def check_checkpoints(weights: object, others: object) -> None:
    """Refuse what names no checkpoints.

    Args:
        weights: Checkpoint to use; None for a model by name.
        others: Checkpoints for kinds of pictures; None to choose them.

    Raises:
        UsageError: They are something else.
    """
    if weights is not None and not isinstance(weights, str | os.PathLike):
        raise UsageError(f"weights is {weights!r}; {ALLOWED}, or None")
    if others is None:
        return
    items = others.items() if isinstance(others, Mapping) else [(None, None)]
    if not all(isinstance(kind, PictureKind) and isinstance(model, ChosenModel) for kind, model in items):
        raise UsageError(f"others is {others!r}; it must be what a restorer has under that name, or None")


def _check_number(
    name: str,
    value: Any,
    kind: Literal["integer", "number"],
    limits: tuple[int | None, int | None],
    is_optional: bool = True,
) -> Any:
    """Return a number of a range as Python's own; None where the argument may be left out."""
    if value is None and is_optional:
        return None
    least = -inf if limits[0] is None else limits[0]
    most = inf if limits[1] is None else limits[1]
    number = value.item() if isinstance(value, np.generic) else value
    is_other = isinstance(number, bool) or (kind == "integer" and not isinstance(number, int))
    if is_other or not isinstance(number, int | float) or not least <= number <= most or isinf(number):
        more = ", or None" if is_optional else ""
        raise UsageError(f"{name} is {value!r}; it must be {describe_kind(kind, *limits)}{more}")
    return number


def check_image(image: object, any_range: bool) -> np.ndarray:
    """Refuse what is no image.

    Args:
        image: What was given.
        any_range: Whether floats may lie outside [0, 1].

    Returns:
        The image, in the machine's order of bytes; floats that rounding has moved past 0 or 1 are clipped.

    Raises:
        TypeError: It is no array.
        ValueError: Its shape or its dtype is none of an image.
        ImageError: Its floats are not finite, or do not lie between 0 and 1.
    """
    if isinstance(image, np.matrix | np.ma.MaskedArray):
        remedy = "numpy.asarray(image)" if isinstance(image, np.matrix) else "image.filled(0)"
        raise TypeError(f"an image is a plain numpy array, not {type(image).__name__}; call {remedy} first")
    if isinstance(image, torch.Tensor):
        one = "tensor[0]" if image.ndim == 4 else "tensor"
        how = f"{one}.movedim(-3, -1).numpy(force=True) makes one of channels first"
        if image.ndim < 3:
            how = "tensor.numpy(force=True) makes one"
        raise TypeError(
            f"an image is a numpy array (h, w) or (h, w, c), not a tensor {tuple(image.shape)}; {how}"
        )
    if not isinstance(image, np.ndarray):
        raise TypeError(f"an image is a numpy array (h, w) or (h, w, c), not {_explain_other(image)}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in _CHANNELS):
        raise ValueError(
            f"an image is (h, w) or (h, w, c) with c from 1 to 4, not {image.shape}{_explain_stack(image)}"
        )
    if not image.size:
        raise ValueError(f"an image has at least one pixel, not {image.shape}")
    if image.dtype.newbyteorder("=") not in (np.uint8, np.uint16, np.float32):
        advice = _ADVICE.get(image.dtype.kind, "")
        raise ValueError(f"samples are uint8, uint16 or float32, not {image.dtype}{advice}")
    if image.dtype.kind == "f":
        image, reason = (image, explain_not_finite(image)) if any_range else fit_range(image)
        if reason:
            raise ImageError(f"cannot restore the image: {reason}")
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def _explain_other(image: object) -> str:
    """Name what is no array, and say how to make one of it."""
    from PIL import Image  # only for this message

    kind = type(image).__name__
    if isinstance(image, str | os.PathLike):
        call = _UPRIGHT.format("PIL.Image.open(path)", '.convert("RGB")')
        return f"{kind}; {call} makes one of a file"
    if not isinstance(image, Image.Image):
        return f"{kind}; numpy.asarray makes one of lists and of most other arrays"
    kind, mode, conversion = f"{kind} of mode {image.mode}", image.mode, ""
    if mode == "I":
        call = _UPRIGHT.format("image", "") + ".astype(numpy.uint16)"
        return f"{kind}; {call} makes one if its values lie between 0 and 65535"
    if not mode.startswith("I;"):
        wanted = _CONVERSIONS.get(mode, "RGB")
        if image.has_transparency_data:
            wanted = "LA" if wanted.startswith("L") else "RGBA"
        is_plain = mode == wanted or mode == "F"
        conversion = "" if is_plain else f'.convert("{wanted}")'
    return f"{kind}; {_UPRIGHT.format('image', conversion)} makes one"


def _explain_stack(image: np.ndarray) -> str:
    """Say how to restore an array that may be several images, or has its channels in another place."""
    if not image.size:
        return ""
    if image.ndim == 4 and image.shape[-1] in _CHANNELS:
        return f"; for a stack of images, {_ONE_BY_ONE.format('image', '')}"
    if image.ndim != 3:
        return ""
    if image.shape[-1] < min(image.shape[:2]):
        each = _ONE_BY_ONE.format("numpy.moveaxis(image, -1, 0)", ", -1")
        return f"; for planes other than gray, RGB and transparency, {each}"
    planes = f"for a stack of planes, {_ONE_BY_ONE.format('image', '')}"
    is_planar = image.shape[0] in _CHANNELS
    colours = "for colours that come first, numpy.moveaxis(image, 0, -1); " if is_planar else ""
    return f"; {colours}{planes}"


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
