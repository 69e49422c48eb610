"""Pairs of a ground truth and the image that it is compared with: found by name, and brought to one shape."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mambair_cli.checkpoints.catalog import NETWORK_SCALES
from mambair_cli.errors import ImageError, UsageError
from mambair_cli.images import is_gray
from mambair_cli.images.discovery import find_images
from mambair_cli.quality.degrade import modcrop


@dataclass(frozen=True)
class ImagePair:
    """A ground truth image and its input or finished image.

    Attributes:
        truth: File of the ground truth.
        other: File of the input or of the finished image; None: the input is made from the truth.
    """

    truth: Path
    other: Path | None = None


def find_pairs(truth: Path, other: Path | None = None) -> list[ImagePair]:
    """Pair the images of the truth with those of another folder, by their names.

    The partner of ``baby.png`` is ``baby.*`` or a name with a mark, such as ``babyx4.png`` or
    ``baby_denoised.jpg``.

    Raises:
        UsageError: A folder has no images, or an image has no partner or more than one.
    """
    truths = find_images(truth)
    if other is None:
        return [ImagePair(path) for path in truths]
    others = find_images(other)
    return [ImagePair(path, _partner(path, others, other)) for path in truths]


def _partner(truth: Path, others: Sequence[Path], folder: Path) -> Path:
    exact = [path for path in others if path.stem == truth.stem]
    marked = [path for path in others if _is_marked(path.stem, truth.stem)]
    partners = exact or marked
    if len(partners) != 1:
        count = "none" if not partners else ", ".join(path.name for path in partners)
        raise UsageError(f"{truth.name} needs one partner in {folder}: {count}; name it {truth.stem}.*")
    return partners[0]


def _is_marked(stem: str, truth: str) -> bool:
    """Tell whether a name is the truth's name with a mark: a word after _ or -, or x and a number."""
    mark = stem.removeprefix(truth)
    return stem != mark and (mark[:1] in "_-" or (mark[:1] == "x" and mark[1:].isdigit()))


def check_input(pair: ImagePair, given: np.ndarray, truth: np.ndarray, scale: int) -> None:
    """Refuse an input whose result would not have the size of the truth, before it is restored.

    Args:
        pair: The pair; an input that is made fits.
        given: The input, (h, w, c).
        truth: The truth, (h, w, c), cut to multiples of the scale.
        scale: Size of the result divided by the size of the input.

    Raises:
        ImageError: It has another size than the truth divided by the scale.
    """
    height, width = (side // scale for side in truth.shape[:2])
    if pair.other is not None and given.shape[:2] != (height, width):
        raise ImageError(
            f"cannot measure {pair.truth}: its input {pair.other} is {_size(given)}, where {width}×{height} "
            + (f"are enlarged {scale} times to the truth" if scale > 1 else "are needed")
            + "; give inputs of that size, or leave that image out"
        )


def fit_result(
    pair: ImagePair, image: np.ndarray, truth: np.ndarray, scale: int, is_finished: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Bring a result and the truth to one shape, where that changes no colour.

    The truth is cut to multiples of the scale. Equal channels become one if the truth is gray, and a gray
    result gets three if the truth has colours.

    Args:
        pair: The pair, for its names.
        image: The result, (h, w, 1 or 3).
        truth: The whole truth, (h, w, 1 or 3).
        scale: Size of the truth divided by the size of the input.
        is_finished: Whether the result was in a file, not made from an input.

    Returns:
        Result and truth, of one shape.

    Raises:
        ImageError: They differ in size, or the truth is gray, and the result is not.
    """
    name = f"its result {pair.other}" if is_finished else "the result of its input"
    whole, truth = truth, modcrop(truth, scale)
    if image.shape[:2] != truth.shape[:2]:
        raise ImageError(
            f"cannot measure {pair.truth}: it is {_size(whole)}"
            + (f", cut to {_size(truth)} for --scale {scale}" if truth.shape != whole.shape else "")
            + f", and {name} is {_size(image)}; {_advise_size(image, whole, scale)}"
        )
    if image.shape[2] > truth.shape[2]:
        if not is_gray(image):
            raise ImageError(
                f"cannot measure {pair.truth}: it is gray, and {name} has colours; "
                "make that gray, or give the truth in colours"
            )
        image = image[:, :, :1]
    elif image.shape[2] < truth.shape[2]:
        image = image.repeat(3, axis=2)
    return image, truth


def _advise_size(image: np.ndarray, truth: np.ndarray, scale: int) -> str:
    """Say what would make a result of another size comparable."""
    for other in (1, *NETWORK_SCALES):
        if other != scale and image.shape[:2] == modcrop(truth, other).shape[:2]:
            return (
                f"give --scale {other}, which cuts the truth to that size"
                if other > 1
                else "leave out --scale"
            )
    return "give results of the truth's size, or leave that image out"


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}×{image.shape[0]}"
