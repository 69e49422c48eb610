"""A clean drawing is smooth up to its edges, or its parts come again; a saved or noisy one is neither."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from mambair_cli.inspection.drawing import measure_repetition, measure_smoothness
from mambair_cli.inspection.look import DRAWN, REPEATED, look_at_pixels
from mambair_cli.inspection.need import find_need


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


def smoothness(image: Image.Image) -> float:
    return measure_smoothness([np.asarray(image).astype(np.float32)])


@pytest.mark.parametrize("reduced", [1, 2, 4])
def test_a_clean_drawing_is_smooth_at_its_edges(reduced: int) -> None:
    assert smoothness(drawing(reduced=reduced)) >= DRAWN


@pytest.mark.parametrize("quality", [40, 60, 75, 90])
def test_a_drawing_that_was_saved_is_not(quality: int) -> None:
    assert smoothness(save(drawing(), quality)) < DRAWN


def test_without_an_edge_there_is_no_smoothness() -> None:
    assert measure_smoothness([np.full((64, 64, 3), 99, np.float32)]) == 0


def test_the_share_is_counted_over_all_windows() -> None:
    step = np.zeros((40, 40, 3), np.float32)
    step[:, 20:] = 200
    rough = step + np.random.default_rng(0).normal(0, 5, step.shape).astype(np.float32)
    assert measure_smoothness([step]) == 1
    assert measure_smoothness([rough]) < 0.1
    assert 0.4 < measure_smoothness([step, rough]) < 0.6


@pytest.mark.parametrize("reduced", [1, 2])
def test_no_compression_is_told_of_a_clean_drawing(reduced: int) -> None:
    look = look_at_pixels(np.asarray(drawing(reduced=reduced)) / np.float32(255))
    assert look is not None
    assert look.quality >= 90
    saved = look_at_pixels(np.asarray(save(drawing(reduced=reduced), 50)) / np.float32(255))
    assert saved is not None
    assert saved.quality < 90


def shaded(side: int = 160) -> Image.Image:
    """Draw dark shapes on a gradient."""
    ramp = np.tile(np.linspace(90, 250, 4 * side), (4 * side, 1))
    image = Image.fromarray(np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for x in range(40, 4 * side, 160):
        draw.rectangle((x, x // 2, x + 70, x // 2 + 90), fill=(10, 20, 60))
    return image.resize((side, side), Image.Resampling.BICUBIC)


def test_a_gradient_is_as_smooth_as_one_colour() -> None:
    assert smoothness(shaded()) >= DRAWN
    assert smoothness(save(shaded(), 75)) < DRAWN


def text(side: int, seed: int) -> Image.Image:
    """Write lines of text so small that they look like noise."""
    image, random = Image.new("RGB", (4 * side, 4 * side), (20, 36, 30)), np.random.default_rng(seed)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=20)
    for y in range(0, 4 * side, 28):
        words = ["".join(map(chr, random.integers(97, 123, random.integers(2, 9)))) for _ in range(20)]
        draw.text((4, y), " ".join(words), fill=(200, 230, 200), font=font)
    return image.resize((side, side), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("seed", range(4))
def test_small_text_is_no_noise(seed: int) -> None:
    pixels = np.asarray(text(144, seed)).astype(np.float32)
    assert measure_repetition([pixels]) >= REPEATED
    assert find_need(look_at_pixels(pixels / np.float32(255)), None).kind == "clean"
    noise = np.random.default_rng(seed).normal(0, 6, pixels.shape)
    noisy = np.rint(np.clip(pixels + noise, 0, 255)).astype(np.float32)
    assert measure_repetition([noisy]) == 0
    assert find_need(look_at_pixels(noisy / np.float32(255)), None).kind != "clean"


def test_noise_that_is_laid_side_by_side_is_noise() -> None:
    random = np.random.default_rng(0)
    noisy = np.rint(120 + np.tile(random.normal(0, 9, (60, 60, 3)), (3, 3, 1))).astype(np.float32)
    assert find_need(look_at_pixels(noisy / np.float32(255)), None).kind != "clean"


def test_parts_that_come_again_are_counted_if_they_have_an_edge_and_are_not_cut_off() -> None:
    random = np.random.default_rng(0)
    part = random.integers(1, 255, (4, 4, 3)).astype(np.float32)
    window = random.integers(1, 255, (64, 64, 3)).astype(np.float32)
    assert measure_repetition([window]) == 0
    window[3:7, 5:9] = window[40:44, 30:34] = part
    assert measure_repetition([window]) == pytest.approx(2 / 61**2)
    assert measure_repetition([window, window]) == pytest.approx(2 / 61**2)  # each window by itself
    window[3, 5, 0] = window[40, 30, 0] = 255
    assert measure_repetition([window]) == 0
    assert measure_repetition([np.full((64, 64, 3), 99, np.float32)]) == 0
    assert measure_repetition([np.zeros((2, 64, 3), np.float32)]) == 0
