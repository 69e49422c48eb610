"""Pictures of numbers: colours from black to white, with a scale at their side."""

import math
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

# From dark to light, so that the order is also seen in gray and by the colour-blind.
COLOURS = np.array(
    [(0, 0, 0), (40, 12, 90), (120, 28, 110), (200, 60, 70), (245, 130, 30), (252, 210, 90), (255, 255, 235)]
)
MARGIN, SCALE_WIDTH, TITLE_HEIGHT, TEXT_SIZE = 12, 96, 30, 15  # pixels


def paint(heat: np.ndarray) -> np.ndarray:
    """Give numbers their colours: (h, w), 0 black to 1 white, to (h, w, 3) uint8."""
    at = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(heat, at, COLOURS[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def write_scale(picture: Image.Image, marks: Mapping[str, float], title: str) -> Image.Image:
    """Put a heat map on a sheet, with a title above and its scale at its side.

    Args:
        picture: The heat map.
        marks: Labels of the scale, and their numbers, from 0 to 1.
        title: One line, in ASCII.
    """
    width, height = picture.size
    length = math.ceil(ImageDraw.Draw(picture).textlength(title, font_size=TEXT_SIZE))
    room = max(width + SCALE_WIDTH, length)
    sheet = Image.new("RGB", (room + 2 * MARGIN, height + TITLE_HEIGHT + 2 * MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, fill="black", font_size=TEXT_SIZE)
    top = MARGIN + TITLE_HEIGHT
    sheet.paste(picture, (MARGIN, top))
    left = 2 * MARGIN + width
    bar = paint(np.linspace(1, 0, height)[:, None].repeat(MARGIN * 2, axis=1))
    sheet.paste(Image.fromarray(bar), (left, top))
    for label, number in marks.items():
        y = top + round((1 - number) * (height - 1))
        draw.line((left + 2 * MARGIN, y, left + 2 * MARGIN + 4, y), fill="black")
        draw.text((left + 2 * MARGIN + 7, y), label, fill="black", font_size=TEXT_SIZE, anchor="lm")
    return sheet
