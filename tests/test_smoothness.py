"""A drawing that was never compressed is flat up to its edges; one saved as JPEG is not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mambair_cli.inspection.flatness import measure_flatness
from mambair_cli.inspection.look import DRAWN, look_at_pixels


def drawing(side: int = 256, reduced: int = 1) -> Image.Image:
    """Draw shapes of flat colours with hard edges, perhaps reduced from a larger picture."""
    image = Image.new("RGB", (side * reduced, side * reduced), (250, 250, 245))
    draw = ImageDraw.Draw(image)
    random = np.random.default_rng(4)
    for _ in range(14):
        x, y = random.integers(0, side * reduced, 2).tolist()
        size = int(random.integers(20, 70)) * reduced
        colour = tuple(random.integers(0, 256, 3).tolist())
        draw.ellipse(
            (x - size, y - size, x + size, y + size), fill=colour, outline=(20, 20, 20), width=3 * reduced
        )
    return image.resize((side, side), Image.Resampling.BICUBIC)


def save(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def flatness(image: Image.Image) -> float:
    return measure_flatness([np.asarray(image).astype(np.float32)])


@pytest.mark.parametrize("reduced", [1, 2, 4])
def test_a_clean_drawing_is_flat_at_its_edges(reduced: int) -> None:
    assert flatness(drawing(reduced=reduced)) >= DRAWN


@pytest.mark.parametrize("quality", [40, 60, 75, 90])
def test_a_drawing_that_was_saved_is_not(quality: int) -> None:
    assert flatness(save(drawing(), quality)) < DRAWN


def test_without_an_edge_there_is_no_flatness() -> None:
    assert measure_flatness([np.full((64, 64, 3), 99, np.float32)]) == 0


def test_the_share_is_counted_over_all_windows() -> None:
    step = np.zeros((40, 40, 3), np.float32)
    step[:, 20:] = 200
    rough = step + np.random.default_rng(0).normal(0, 5, step.shape).astype(np.float32)
    assert measure_flatness([step]) == 1
    assert measure_flatness([rough]) < 0.1
    assert 0.4 < measure_flatness([step, rough]) < 0.6


@pytest.mark.parametrize("reduced", [1, 2])
def test_no_compression_is_told_of_a_clean_drawing(reduced: int) -> None:
    look = look_at_pixels(np.asarray(drawing(reduced=reduced)) / np.float32(255))
    assert look is not None
    assert look.quality >= 90
    saved = look_at_pixels(np.asarray(save(drawing(reduced=reduced), 50)) / np.float32(255))
    assert saved is not None
    assert saved.quality < 90
