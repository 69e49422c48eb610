"""The effective receptive field of a network: which pixels of the input move one pixel of its result."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from mambair_cli.networks import Network
from mambair_cli.quality.heat_map import paint, write_scale

DECADES = 4  # of the gradient, from the strongest one down, that a picture shows
PICTURE_SIDE = 640  # pixels, or a little less: each pixel of the field is a square of whole pixels
SHARES = (0.5, 0.9)  # of the gradient whose squares are drawn


@dataclass(frozen=True)
class ReceptiveField:
    """How strongly the pixels of a crop act on the result's centre.

    Attributes:
        gradient: Mean absolute gradient of the centre by each pixel of the input, summed over channels,
            (side, side) float64; the side is odd.
        crops: Number of crops in the mean.
    """

    gradient: np.ndarray
    crops: int

    def side_of(self, share: float) -> int:
        """Return the side, in pixels, of the smallest square about the centre with that share of the sum."""
        middle = len(self.gradient) // 2
        wanted = share * self.gradient.sum()
        for reach in range(middle):
            square = self.gradient[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
            if square.sum() >= wanted:
                return 2 * reach + 1
        return 2 * middle + 1

    def join(self, other: "ReceptiveField") -> "ReceptiveField":
        """Return the mean over the crops of both."""
        crops = self.crops + other.crops
        total = self.gradient * self.crops + other.gradient * other.crops
        return ReceptiveField(total / crops, crops)


def cut_crops(image: np.ndarray, side: int, most: int) -> Iterator[np.ndarray]:
    """Cut crops that do not overlap from an image, spread evenly over it.

    Args:
        image: (h, w, c).
        side: Side of the crops, in pixels.
        most: Largest number of crops.

    Yields:
        (side, side, c); nothing if the image is smaller than a crop.
    """
    height, width = image.shape[:2]
    rows, columns = height // side, width // side
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    places = [(top + row * side, left + column * side) for row in range(rows) for column in range(columns)]
    count = min(most, len(places))
    for i in range(count):
        y, x = places[(2 * i + 1) * len(places) // (2 * count)]
        yield image[y : y + side, x : x + side]


def measure_field(net: Network, crop: np.ndarray, seed: int | None = None) -> ReceptiveField:
    """Compute the absolute gradient of the result's centre pixel, all channels summed, by the input.

    Args:
        net: Network, on its device.
        crop: (side, side, channels of the network) float32 in [0, 1], with an odd side.
        seed: Random seed of MambaIRv2's inference noise; None for no noise.

    Source: Luo et al., "Understanding the Effective Receptive Field" (arXiv:1701.04128).
    """
    device = next(net.parameters()).device
    x = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))[None].to(device).requires_grad_()
    with torch.enable_grad():
        y = net(x, seed=seed)
        middle = y.shape[-1] // 2
        (gradient,) = torch.autograd.grad(y[0, :, middle, middle].sum(), x)
    return ReceptiveField(gradient[0].abs().sum(0).double().cpu().numpy(), 1)


def draw_field(field: ReceptiveField, title: str) -> Image.Image:
    """Draw a field as a heat map with a logarithmic scale, and the squares of ``SHARES``.

    Args:
        field: The field.
        title: One line, in ASCII.
    """
    side = len(field.gradient)
    strongest = field.gradient.max()
    with np.errstate(divide="ignore", invalid="ignore"):
        decades = np.log10(field.gradient / strongest)
    heat = 1 + np.nan_to_num(decades, nan=-DECADES, neginf=-DECADES) / DECADES
    zoom = max(1, PICTURE_SIDE // side)
    picture = Image.fromarray(paint(heat)).resize((side * zoom, side * zoom), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    for share in SHARES:
        margin = (side - field.side_of(share)) // 2 * zoom
        end = side * zoom - margin - 1
        draw.rectangle((margin, margin, end, end), outline="white", width=2)
        draw.text((margin + 3, max(1, margin - 19)), f"{share:.0%}", fill="white", font_size=15)
    marks = {f"1/{10**decade}" if decade else "1": 1 - decade / DECADES for decade in range(DECADES + 1)}
    return write_scale(picture, marks, title)
