"""How large a result is to be: as the network gives it, or reduced to what was asked for."""

import math
from dataclasses import asdict, dataclass

from mambair_cli.errors import ImageError, ModelError, UsageError

NETWORK_SCALES = (2, 3, 4)
LARGEST_SCALE = 4
# Up to this factor results are reduced from the image itself. Enlarged first they would be the same to 46 dB;
# an image that is reduced before it is enlarged comes out over-sharp: measured: benchmarks/README.md.
LARGEST_REDUCTION = 0.5


@dataclass(frozen=True)
class Size:
    """A size that was asked for; without one, the network's own.

    Attributes:
        scale: Pixels of the result per pixel of the input along each side.
        width: Of the result at most, in pixels.
        height: Of the result at most, in pixels.
        megapixels: Of the result.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    megapixels: float | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        asked = [f"--{name}" for name, value in asdict(self).items() if value is not None]
        if len(asked) > 1 and asked != ["--width", "--height"]:
            raise UsageError(f"the size is asked for more than once: {', '.join(asked)}; give one of them")

    @property
    def depends_on_image(self) -> bool:
        """Whether images of different sizes are enlarged by different factors."""
        return self != Size(scale=self.scale)

    def factor(self, width: int, height: int) -> float | None:
        """Return how often an image is to be enlarged; None for as often as the network does."""
        if self.megapixels is not None:
            return math.sqrt(self.megapixels * 1e6 / (width * height))
        if self.width is not None or self.height is not None:
            return min((self.width or math.inf) / width, (self.height or math.inf) / height)
        return self.scale

    def needs_network(self, width: int, height: int) -> bool:
        """Tell whether a network adds anything to the result of an image that is so large."""
        factor = self.factor(width, height)
        return factor is None or factor > LARGEST_REDUCTION

    def target(self, width: int, height: int, scale: int) -> tuple[int, int]:
        """Return width and height of the result of an image.

        Args:
            width: Of the image.
            height: Of the image.
            scale: What the network enlarges by.

        Raises:
            ImageError: The network does not enlarge so far.
        """
        factor = self.factor(width, height)
        if factor is None:
            return width * scale, height * scale
        if factor > scale:
            raise ImageError(
                f"cannot enlarge {width}×{height} pixels {factor:.4g} times: "
                f"the network does so {scale} times; ask for less, or enlarge the result once more"
            )
        return max(1, round(width * factor)), max(1, round(height * factor))


def settle_scale(
    scale: float | None,
    width: int | None,
    height: int | None,
    megapixels: float | None,
    may_differ: bool = False,
) -> tuple[int | None, Size]:
    """Tell a scale that a network does exactly from a size that its result is reduced to.

    Args:
        scale: Pixels of the result per pixel of the input along each side.
        width: Of the result at most, in pixels.
        height: Of the result at most, in pixels.
        megapixels: Of the result.
        may_differ: Whether the network may have another scale, so that its result would have to be reduced.

    Returns:
        The scale of the network, where it is chosen by that, and the size.

    Raises:
        UsageError: The size is asked for twice, or no network enlarges by such a scale.
    """
    if scale is not None:
        check_scale(scale)
    size = Size(scale, width, height, megapixels)
    if scale is None or scale not in NETWORK_SCALES or may_differ:
        return None, size
    return int(scale), Size()


def size_for_real(size: Size, scale: int | None) -> Size:
    """Return a size that also holds where the network for real pictures enlarges further than was asked for.

    Args:
        size: That was asked for.
        scale: That was asked for by the choice of a network, if it was.
    """
    return size if scale is None or size != Size() else Size(float(scale))


def check_scale(scale: float) -> None:
    """Refuse a scale that no network does, and say what would work.

    Raises:
        UsageError: It is one.
    """
    if not 1 <= scale <= LARGEST_SCALE:
        raise UsageError(f"cannot enlarge by -s {scale:g}: {_advise(scale)}")


def _advise(scale: float) -> str:
    """Say how to come by a scale that is beyond all networks."""
    most = LARGEST_SCALE
    if scale < 1:
        return "it is less than 1; --width, --height and --megapixels make images smaller"
    if scale > most**2:
        return f"networks enlarge up to {most} times; run them one after the other, each on the last result"
    return (
        f"networks enlarge up to {most} times; do it in two steps: "
        f"mambair upscale in.png -s {most} -o step.png; "
        f"mambair upscale step.png -s {scale / most:.6g} -o out.png"
    )


def check_reach(size: Size, network: int) -> None:
    """Refuse a scale that the network of a run does not reach, before any image is read.

    Raises:
        ModelError: It does not.
    """
    if size.scale is not None and size.scale > network:
        raise ModelError(
            f"the model does not fit the scale: it enlarges {network} times, and -s {size.scale:g} was asked "
            "for; ask for less, or choose a larger model"
        )


def network_scale(factor: float) -> int:
    """Return the scale of the smallest network that enlarges so far, or of the largest."""
    return next((scale for scale in NETWORK_SCALES if scale >= factor), NETWORK_SCALES[-1])
