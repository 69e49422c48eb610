"""A clean drawing is smooth up to its edges, a saved one is not; parts of text come again, of noise none."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from mambair_cli.inspection.drawing import measure_repetition, measure_sharpness, measure_smoothness
from mambair_cli.inspection.look import DRAWN, REPEATED, SHARP, look_at_pixels
from mambair_cli.inspection.need import find_need

DOCS = Path(__file__).parents[1] / "docs"


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
def test_no_compression_is_reported_for_a_clean_drawing(reduced: int) -> None:
    look = look_at_pixels(np.asarray(drawing(reduced=reduced)) / np.float32(255))
    assert look is not None
    assert look.quality >= 90
    saved = look_at_pixels(np.asarray(save(drawing(reduced=reduced), 50)) / np.float32(255))
    assert saved is not None
    assert saved.quality < 90


def few_shapes(reduced: int, size: int = 200) -> Image.Image:
    """Draw two shapes of about one brightness, one of them at the side; reduced, edges take a pixel."""
    image = Image.new("RGB", (size * reduced, size * reduced), (120, 60, 90))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 77 * reduced, 53 * reduced, 131 * reduced), fill=(60, 120, 90))
    draw.ellipse((90 * reduced, 12 * reduced, 171 * reduced, 92 * reduced), fill=(90, 70, 110))
    return image.resize((size, size), Image.Resampling.BOX)


def enlarge(image: Image.Image, factor: float, kernel: Image.Resampling) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), kernel)


@pytest.mark.parametrize("reduced", [1, 4])
def test_a_few_flat_shapes_are_neither_soft_nor_compressed(reduced: int) -> None:
    look = look_at_pixels(np.asarray(few_shapes(reduced)) / np.float32(255))
    assert look is not None
    assert (look.quality, look.resolution) == (100, 1.0)
    assert look.noise < 1


@pytest.mark.parametrize("image", [few_shapes(1), few_shapes(4), drawing()])
def test_edges_are_sharp_until_a_drawing_is_enlarged_or_saved(image: Image.Image) -> None:
    def sharpness(image: Image.Image) -> float:
        return measure_sharpness([np.asarray(image).astype(np.float32)])

    assert sharpness(image) >= SHARP
    kernels = Image.Resampling
    for factor, kernel in ((1.5, kernels.BILINEAR), (2, kernels.BICUBIC), (3, kernels.LANCZOS)):
        assert sharpness(enlarge(image, factor, kernel)) < SHARP
    assert sharpness(enlarge(image, 3, kernels.NEAREST)) == 0
    assert sharpness(save(image, 75)) < SHARP


@pytest.mark.parametrize("image", [few_shapes(1), drawing()])
def test_an_enlarged_drawing_is_soft(image: Image.Image) -> None:
    look = look_at_pixels(np.asarray(enlarge(image, 3, Image.Resampling.BICUBIC)) / np.float32(255))
    assert look is not None
    assert look.resolution < 0.5


@pytest.mark.parametrize("axis", [0, 1])
def test_repeated_pixels_are_recognised_by_edges_of_one_direction(axis: int) -> None:
    bars = np.random.default_rng(0).integers(0, 2, 99).astype(np.float32) * 255
    code = np.broadcast_to(np.expand_dims(bars, (1 - axis, 2)), (99, 99, 3))
    assert measure_sharpness([code]) >= SHARP
    assert measure_sharpness([code.repeat(2, 0).repeat(2, 1)]) == 0


def test_a_picture_without_edges_is_not_called_sharp() -> None:
    assert measure_sharpness([np.full((64, 64, 3), 99, np.float32)]) == 0


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


@pytest.mark.parametrize("seed", [0, 2, 3, 4])
def test_small_text_is_no_noise(seed: int) -> None:
    pixels = np.asarray(text(144, seed)).astype(np.float32)
    assert measure_repetition([pixels]) >= REPEATED
    assert find_need(look_at_pixels(pixels / np.float32(255)), None).kind == "clean"
    noise = np.random.default_rng(seed).normal(0, 6, pixels.shape)
    noisy = np.rint(np.clip(pixels + noise, 0, 255)).astype(np.float32)
    assert measure_repetition([noisy]) == 0
    assert find_need(look_at_pixels(noisy / np.float32(255)), None).kind != "clean"


def noisy_photo(side: int = 160, sigma: float = 9) -> np.ndarray:
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(40, 215, (9, 9, 3)).astype(np.uint8))
    smooth = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)).astype(np.float32)
    return np.rint(np.clip(smooth + random.normal(0, sigma, smooth.shape), 0, 255)).astype(np.float32)


def kind_of(pixels: np.ndarray) -> str:
    return find_need(look_at_pixels(pixels / np.float32(255)), None).kind


def test_noise_that_is_laid_side_by_side_is_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 9, (60, 60, 3))
    laid = np.rint(120 + np.tile(noise, (3, 3, 1))).astype(np.float32)
    assert measure_repetition([laid]) < REPEATED
    assert kind_of(laid) != "clean"


@pytest.mark.parametrize("name", ["spices.png", "before.png"])
def test_a_noisy_photo_in_a_frame_is_noisy(name: str) -> None:
    photo = np.asarray(Image.open(DOCS / name).convert("RGB")).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 15, photo.shape)
    framed = np.rint(np.clip(photo + noise, 0, 255)).astype(np.float32)
    for grey in (200, 80):
        framed = np.pad(framed, ((6, 6), (6, 6), (0, 0)), constant_values=grey)
    assert measure_repetition([framed]) == 0
    assert measure_smoothness([framed]) < 0.1
    assert kind_of(framed) != "clean"


def test_a_noisy_photo_next_to_text_is_noisy() -> None:
    page = np.concatenate([np.asarray(text(160, 0)).astype(np.float32), noisy_photo(sigma=15)], axis=1)
    assert measure_repetition([page]) < REPEATED
    assert kind_of(page) != "clean"


def test_parts_that_come_again_are_counted_by_cells() -> None:
    random = np.random.default_rng(0)
    window = random.integers(1, 255, (64, 64, 3)).astype(
        np.float32
    )  # 61×61 parts, 7 or 8 along a cell's side
    assert measure_repetition([window]) == 0
    window[2:6, 2:6] = window[40:44, 31:35] = random.integers(1, 255, (4, 4, 3))
    assert measure_repetition([window]) == 2 / 64
    assert measure_repetition([window, window]) == 2 / 64  # each window by itself
    window[2, 2, 0] = window[40, 31, 0] = 255
    assert measure_repetition([window]) == 0
    lines = np.repeat(random.integers(1, 255, (1, 64, 3)), 64, axis=0).astype(np.float32)
    assert measure_repetition([lines]) == 0  # equal along themselves
    assert measure_repetition([np.full((64, 64, 3), 99, np.float32)]) == 0


def on_a_gradient(seed: int, side: int = 128) -> np.ndarray:
    """Draw shapes on a gradient, four times as large, and reduce them."""
    random, whole = np.random.default_rng(seed), 4 * side
    dark, bright = np.sort(random.uniform(0, 255, 2)).tolist()
    ramp = np.tile(np.linspace(dark, bright, whole), (whole, 1))
    ramp = ramp.T if seed % 2 else ramp
    image = Image.fromarray(np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(random.integers(3, 30))):
        x, y = random.integers(0, whole, 2).tolist()
        size = int(random.integers(8, 120))
        colour = tuple(random.integers(0, 256, 3).tolist())
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        outline = (250, 250, 250) if random.random() < 0.5 else None
        shape((x, y, x + size, y + size), fill=colour, outline=outline, width=4)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 9, 61, 91, 172])
def test_a_drawing_whose_edges_look_like_ringing_is_clean(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = on_a_gradient(seed)
    assert kind_of(pixels) == "clean"
    saved = save(Image.fromarray(pixels.astype(np.uint8)), 60)
    assert kind_of(np.asarray(saved).astype(np.float32)) == "real"
    monkeypatch.setattr("mambair_cli.inspection.look.measure_smoothness", lambda windows: 0.0)
    assert kind_of(pixels) == "real"


@pytest.mark.parametrize("seed", [0, 2])
def test_without_parts_that_come_again_text_looks_noisy(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.asarray(text(144, seed)).astype(np.float32)
    monkeypatch.setattr("mambair_cli.inspection.look.measure_repetition", lambda windows: 0.0)
    assert kind_of(pixels) != "clean"
