"""Pairs of a ground truth and the image that it is compared with: found by name, and brought to one shape."""

from collections import Counter
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
        name: The truth's path within its folder, without a suffix where that is enough to tell it apart.
        problem: Why it has no partner, though it should have one; "" if that is not so.
    """

    truth: Path
    other: Path | None = None
    name: str = ""
    problem: str = ""

    @property
    def is_made(self) -> bool:
        """Whether the input is made from the truth."""
        return self.other is None and not self.problem

    def require_partner(self) -> None:
        """Refuse a pair that has none.

        Raises:
            ImageError: It has none, though it should.
        """
        if self.problem:
            raise ImageError(self.problem)


def find_pairs(truth: Path, other: Path | None = None) -> list[ImagePair]:
    """Pair the images of the truth with those of another folder, by their paths within the folders.

    The partner of ``x/baby.png`` is ``x/baby.png``, else ``x/baby.*``, else ``x/`` and a name with a mark,
    such as ``babyx4.png`` or ``baby_denoised.jpg``, else one of these names in any folder.

    Returns:
        A pair for each image of the truth; those without a partner have a ``problem``.

    Raises:
        UsageError: A folder has no images, or no image has a partner.
    """
    truths = _list_images(truth)
    stems = {place: place.with_suffix("") for place in truths}
    count = Counter(stems.values())
    names = {place: str(stem if count[stem] == 1 else place) for place, stem in stems.items()}
    if other is None:
        return [ImagePair(path, None, names[place]) for place, path in truths.items()]
    others = _list_images(other)
    pairs = []
    for place, path in truths.items():
        free = [each for each in others if each == place or each not in truths]
        found = _find_partners(place, free)
        if len(found) == 1:
            pairs.append(ImagePair(path, others[found[0]], names[place]))
            continue
        which = ", ".join(str(each) for each in found) or "none"
        problem = f"{place} needs one partner in {other}: {which}; name it {place.with_suffix('.*')}"
        pairs.append(ImagePair(path, None, names[place], problem))
    if all(pair.problem for pair in pairs):
        raise UsageError(pairs[0].problem)
    return pairs


def _list_images(folder: Path) -> dict[Path, Path]:
    """Find the images in a folder, or one image, by their paths within the folder."""
    within = folder if folder.is_dir() else folder.parent
    return {path.relative_to(within): path for path in find_images(folder)}


def _find_partners(place: Path, others: Sequence[Path]) -> list[Path]:
    """Return those paths that fit a path best; more than one is too many."""
    same = [other for other in others if other == place]
    beside = [other for other in others if other.parent == place.parent]
    for candidates in (same, beside, others):
        exact = [other for other in candidates if other.stem == place.stem]
        marked = [other for other in candidates if _is_marked(other.stem, place.stem)]
        if exact or marked:
            return exact or marked
    return []


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
