"""What the samples of a pixel mean in TIFF files."""

from dataclasses import dataclass

_ALPHAS = (1, 2)  # kinds of extra samples: premultiplied and straight alpha


@dataclass(frozen=True)
class Samples:
    """What the samples of a pixel mean.

    Attributes:
        order: Numbers of the samples, sorted to colours, alpha, masks.
        has_alpha: Whether there is alpha.
        masks: Kinds of the masks.
    """

    order: tuple[int, ...]
    has_alpha: bool
    masks: tuple[int, ...]


def sort_samples(colours: int, extra: int, kinds: tuple[int, ...] | None) -> Samples:
    """Return what the samples of a pixel mean.

    Args:
        colours: Number of colour samples.
        extra: Number of samples after them.
        kinds: Kinds of these samples, from the file. If the file lists none, a single sample is alpha.
    """
    if kinds is None or len(kinds) != extra:
        kinds = (_ALPHAS[-1],) if extra == 1 else (0,) * extra
    alpha = next((number for number, kind in enumerate(kinds) if kind in _ALPHAS), None)
    others = [number for number in range(extra) if number != alpha]
    order = [*range(colours), *(() if alpha is None else (colours + alpha,))]
    order += [colours + number for number in others]
    return Samples(tuple(order), alpha is not None, tuple(kinds[number] for number in others))
