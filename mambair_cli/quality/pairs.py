"""Pairs of a ground truth and the image that it is compared with: found by name, and brought to one shape."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from mambair_cli.checkpoints.catalog import NETWORK_SCALES
from mambair_cli.errors import ImageError, UsageError
from mambair_cli.images import is_gray
from mambair_cli.images.discovery import find_images
from mambair_cli.quality.degrade import modcrop

_MARK = re.compile(r"[_-](?!\d+(?:[_-]|\Z))|x(?=\d+\Z)")  # where one begins in a name


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
    such as ``babyx4.png`` or ``baby_denoised.jpg``, else one of these names in any folder. No image is the
    partner of two: ``baby_hr_x4.png`` is that of ``baby_hr.png``, not of ``baby.png``, where both are there.

    Returns:
        A pair for each image of the truth; those without a partner have a ``problem``.

    Raises:
        UsageError: A folder has no images, or no image has a partner.
    """
    truths = _list_images(truth)
    names = name_apart(truth, truths.values())
    if other is None:
        return [ImagePair(path, None, names[path]) for path in truths.values()]
    others = _list_images(other)
    partners = _find_partners(truths, others)
    uses = Counter(chain.from_iterable(partners.values()))
    pairs = []
    for place, path in truths.items():
        found = partners.get(place, [])
        if len(found) == 1 and uses[found[0]] == 1:
            pairs.append(ImagePair(path, others[found[0]], names[path]))
            continue
        which = ", ".join(str(each) for each in found) or "none"
        problem = f"{place} needs one partner in {other}: {which}; name it {place.with_suffix('.*')}"
        if len(found) == 1:
            problem = f"{place} needs its own partner in {other}: {which} fits another, too; name it {place}"
        pairs.append(ImagePair(path, None, names[path], problem))
    if all(pair.problem for pair in pairs):
        raise UsageError(pairs[0].problem)
    return pairs


def _list_images(folder: Path) -> dict[Path, Path]:
    """Find the images in a folder, or one image, by their paths within the folder."""
    return {_place_in(folder, path): path for path in find_images(folder)}


def name_apart(folder: Path, images: Iterable[Path]) -> dict[Path, str]:
    """Name images of a folder by their paths within it, without a suffix where that tells them apart.

    Args:
        folder: The folder, or the only image.
        images: The images.
    """
    places = {path: _place_in(folder, path) for path in images}
    count = Counter(place.with_suffix("") for place in places.values())
    stems = ((path, place, place.with_suffix("")) for path, place in places.items())
    return {path: (stem if count[stem] == 1 else place).as_posix() for path, place, stem in stems}


def _place_in(folder: Path, image: Path) -> Path:
    """Return the path of an image within a folder; its name if the folder is the image."""
    return image.relative_to(folder if folder.is_dir() else folder.parent)


def _find_partners(truths: Collection[Path], others: Collection[Path]) -> dict[Path, list[Path]]:
    """Return those paths that fit each path best, if any; more than one is too many."""
    found = {place: [place] for place in truths if place in others}
    for has_folder in (True, False):
        keys = {place: (place.parent if has_folder else None, place.stem) for place in truths}
        known = set(keys.values())
        owners: dict[Path, tuple[Path | None, str]] = {}
        for each in others:
            possible = ((each.parent if has_folder else None, stem) for stem in _list_stems(each.stem))
            if owner := next((key for key in possible if key in known), None):
                owners[each] = owner
        for is_marked in (False, True):
            taken = set(chain.from_iterable(found.values()))
            fitting: dict[tuple[Path | None, str], list[Path]] = defaultdict(list)
            for each, owner in owners.items():
                if each not in taken and (owner[1] != each.stem) == is_marked:
                    fitting[owner].append(each)
            left = {place: key for place, key in keys.items() if place not in found}
            found |= {place: fitting[key] for place, key in left.items() if key in fitting}
    return found


def _list_stems(stem: str) -> list[str]:
    """Return a name, and what it may be without a mark, the longest first.

    A mark is a word after _ or -, or x and a number. It does not begin with a number after _ or -: the next
    picture of a camera is named so.
    """
    marks = [found.start() for found in _MARK.finditer(stem)]
    return [stem, *(stem[:at] for at in reversed(marks) if at)]


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
