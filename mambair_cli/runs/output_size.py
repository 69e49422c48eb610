"""Size of a result: that of the network's output, or a smaller one that was asked for."""

import math
from dataclasses import asdict, dataclass

from mambair_cli.checkpoints.catalog import NETWORK_SCALES
from mambair_cli.errors import ImageError, ModelError, UsageError

LARGEST_SCALE = NETWORK_SCALES[-1]
# Up to this factor results are reduced from the image itself. Enlarged first they would be the same to 46 dB;
# an image that is reduced before it is enlarged comes out too sharp; measured: benchmarks/README.md.
LARGEST_REDUCTION = 0.5


@dataclass(frozen=True)
class Size:
    """A size that was asked for; without one, the network's own.

    Attributes:
        scale: Output pixels per input pixel and side.
        width: Largest width of the result, in pixels.
        height: Largest height of the result, in pixels.
        megapixels: Size of the result, in millions of pixels.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    megapixels: float | None = None

    def __post_init__(self) -> None:
        """Refuse a size that is asked for twice."""
        asked = [f"--{name}" for name, value in asdict(self).items() if value is not None]
        if len(asked) > 1 and asked != ["--width", "--height"]:
            raise UsageError(f"the size is asked for more than once: {', '.join(asked)}; give one of them")

    @property
    def depends_on_image(self) -> bool:
        """Whether images of different sizes are enlarged by different factors."""
        return self != Size(scale=self.scale)

    def factor(self, width: int, height: int) -> float | None:
        """Return the factor that an image is enlarged by; None for that of the network."""
        if self.megapixels is not None:
            return math.sqrt(self.megapixels * 1e6 / (width * height))
        if self.width is not None or self.height is not None:
            return min((self.width or math.inf) / width, (self.height or math.inf) / height)
        return self.scale

    def needs_network(self, width: int, height: int) -> bool:
        """Tell whether a network adds anything to the result of an image of that width and height."""
        factor = self.factor(width, height)
        return factor is None or factor > LARGEST_REDUCTION

    def target(self, width: int, height: int, scale: int) -> tuple[int, int]:
        """Return width and height of the result of an image.

        Args:
            width: Width of the image, in pixels.
            height: Height of the image, in pixels.
            scale: Scale of the network.

        Raises:
            ImageError: The network does not enlarge that much.
        """
        factor = self.factor(width, height)
        if factor is None:
            return width * scale, height * scale
        if factor > scale:
            raise ImageError(
                f"cannot enlarge {width}×{height} pixels {factor:.4g} times: "
                f"the network enlarges {scale} times; ask for less, or enlarge the result once more"
            )
        return max(1, round(width * factor)), max(1, round(height * factor))


def settle_scale(
    scale: float | None,
    width: int | None,
    height: int | None,
    megapixels: float | None,
    may_differ: bool = False,
) -> tuple[int | None, Size]:
    """Separate a scale that a network has from a size that its output is reduced to.

    Args:
        scale: Output pixels per input pixel and side.
        width: Largest width of the result, in pixels.
        height: Largest height of the result, in pixels.
        megapixels: Size of the result, in millions of pixels.
        may_differ: Whether the network may have another scale, so that its output would have to be reduced.

    Returns:
        The scale of the network, where the network is chosen by it, and the size.

    Raises:
        UsageError: The size is asked for twice, or no network enlarges by such a scale.
    """
    if scale is not None:
        check_scale(scale)
    size = Size(scale, width, height, megapixels)
    if scale is None or scale not in NETWORK_SCALES or may_differ:
        return None, size
    return int(scale), Size()


def keep_scale(size: Size, scale: int) -> Size:
    """Return the size to ask of another network, which may enlarge more, for a result of the same size.

    Args:
        size: Size that was asked for.
        scale: Scale of the network that it was asked of.
    """
    return Size(float(scale)) if size == Size() else size


def check_scale(scale: float) -> None:
    """Refuse a scale that no network can reach, and say what would work.

    Raises:
        UsageError: It is such a scale.
    """
    if not 1 <= scale <= LARGEST_SCALE:
        raise UsageError(f"cannot enlarge by -s {scale:g}: {_advise(scale)}")


def _advise(scale: float) -> str:
    """Say how to get a scale that no network reaches."""
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

    Args:
        size: Size that was asked for.
        network: Scale of the network.

    Raises:
        ModelError: The network does not reach it.
    """
    if size.scale is not None and size.scale > network:
        raise ModelError(
            f"the model does not fit the scale: it enlarges {network} times, and -s {size.scale:g} was asked "
            "for; ask for less, or choose a larger model"
        )


def network_scale(factor: float) -> int:
    """Return the scale of the smallest network that enlarges that much, or of the largest network."""
    return next((scale for scale in NETWORK_SCALES if scale >= factor), NETWORK_SCALES[-1])
