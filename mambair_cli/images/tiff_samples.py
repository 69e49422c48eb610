"""What the samples of a pixel mean in TIFF files, and how to bring them to usual ones."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mambair_cli.images.tiff import EXTRA_SAMPLES, PHOTOMETRIC, Page, locate_value
from mambair_cli.images.tiff_directories import Buffer, read_directory, read_header

_PREMULTIPLIED, _STRAIGHT = 1, 2  # kinds of extra samples: both are alpha
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1  # photometric interpretations
_LARGEST = {"uchar": 255, "ushort": 65535}  # by libvips' format; of floats 1


@dataclass(frozen=True)
class Samples:
    """What the samples of a pixel mean.

    Attributes:
        colours: Number of colour samples.
        order: Numbers of the samples, sorted to colours, alpha, masks.
        has_alpha: Whether there is alpha.
        masks: Kinds of the masks.
        is_premultiplied: Whether colours are multiplied by alpha.
        is_negative: Whether white is 0, and nothing has changed that yet.
    """

    colours: int
    order: tuple[int, ...]
    has_alpha: bool
    masks: tuple[int, ...]
    is_premultiplied: bool = False
    is_negative: bool = False


def sort_samples(
    colours: int, extra: int, kinds: tuple[int, ...] | None, is_negative: bool = False
) -> Samples:
    """Return what the samples of a pixel mean.

    Args:
        colours: Number of colour samples.
        extra: Number of samples after them.
        kinds: Kinds of these samples, from the file. If the file lists none, a single sample is alpha.
        is_negative: Whether white is 0.
    """
    if kinds is None or len(kinds) != extra:
        kinds = (_STRAIGHT,) if extra == 1 else (0,) * extra
    alpha = next((at for at, kind in enumerate(kinds) if kind in (_PREMULTIPLIED, _STRAIGHT)), None)
    others = [number for number in range(extra) if number != alpha]
    order = [*range(colours), *(() if alpha is None else (colours + alpha,))]
    order += [colours + number for number in others]
    return Samples(
        colours=colours,
        order=tuple(order),
        has_alpha=alpha is not None,
        masks=tuple(kinds[number] for number in others),
        is_premultiplied=alpha is not None and kinds[alpha] == _PREMULTIPLIED,
        is_negative=is_negative,
    )


def settle_samples(image: Any, samples: Samples) -> Any:
    """Sort samples, divide colours by the alpha that they are multiplied by, and turn a negative.

    Args:
        image: Image of libvips, of 8 or 16 bits or floats.
        samples: What its samples mean.
    """
    if list(samples.order) != list(range(image.bands)):
        first, *more = (image[number] for number in samples.order)
        image = first.bandjoin(more)
    if not (samples.is_premultiplied or samples.is_negative):
        return image
    count, white = samples.colours, _LARGEST.get(image.format, 1)
    colours, others = image[:count], image[count:] if image.bands > count else None
    if samples.is_premultiplied and others is not None:
        colours = (others[0] > 0).ifthenelse(colours * (white / others[0]), 0)
    if samples.is_negative:
        colours = white - colours
    colours = (colours if white == 1 else colours.rint()).cast(image.format)
    settled = colours if others is None else colours.bandjoin(others)
    return settled.copy(interpretation=image.interpretation)


def must_settle(page: Page) -> bool:
    """Tell whether libvips would change samples of a page that :func:`settle_samples` is to change.

    It divides masks, too, by any premultiplied alpha, and its versions differ in negatives of floats.
    """
    return _PREMULTIPLIED in (page.extra or ()) or (page.is_float and is_negative(page))


def is_negative(page: Page) -> bool:
    """Tell whether white is 0 on a page."""
    return page.photometric == _WHITE_IS_ZERO


def restate_as_usual(data: Buffer, pages: Sequence[Page]) -> list[tuple[int, bytes]]:
    """Return the changes, offset and bytes, by which libvips takes samples of pages as they are.

    Alpha is called straight, and black 0.
    """
    layout, _ = read_header(data)
    changes = []
    for page in pages:
        directory, _ = read_directory(data, layout, page.at, wanted={EXTRA_SAMPLES, PHOTOMETRIC})
        kinds = [_STRAIGHT if kind == _PREMULTIPLIED else kind for kind in page.extra or ()]
        gray = [_BLACK_IS_ZERO] if is_negative(page) else []
        for tag, values in ((EXTRA_SAMPLES, kinds), (PHOTOMETRIC, gray)):
            if tag in directory and values:
                entry = directory[tag]
                kind = {1: "B", 2: "H", 4: "I", 8: "Q"}[len(entry.value) // entry.count]
                value = struct.pack(f"{layout.order}{len(values)}{kind}", *values)
                changes.append((locate_value(data, entry, layout), value))
    return changes
