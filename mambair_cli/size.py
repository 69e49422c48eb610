"""How large a result is to be: as the network gives it, or reduced to what was asked for."""

import math
from dataclasses import asdict, dataclass

from mambair_cli.errors import ImageError, UsageError

NETWORK_SCALES = (2, 3, 4)
LARGEST_SCALE = 4


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
                f"the network does so {scale} times; ask for less"
            )
        return max(1, round(width * factor)), max(1, round(height * factor))


def settle_scale(
    scale: float | None, width: int | None, height: int | None, megapixels: float | None
) -> tuple[int | None, Size]:
    """Tell a scale that a network does exactly from a size that its result is reduced to.

    Returns:
        The scale of the network, where it was asked for, and the size.

    Raises:
        UsageError: The size is asked for twice.
    """
    size = Size(scale, width, height, megapixels)
    return (int(scale), Size()) if scale in NETWORK_SCALES and scale is not None else (None, size)


def network_scale(factor: float) -> int:
    """Return the scale of the smallest network that enlarges so far, or of the largest."""
    return next((scale for scale in NETWORK_SCALES if scale >= factor), NETWORK_SCALES[-1])
