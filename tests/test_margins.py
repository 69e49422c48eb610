"""A frame hides nothing of a picture from a look at it."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair_cli.inspection.features import BLOCK, SMALLEST
from mambair_cli.inspection.look import Look, look_at_pixels
from mambair_cli.inspection.margins import measure_quiet, trim_margins
from mambair_cli.inspection.need import find_need
from mambair_cli.restore.restorer import Restorer

DOCS = Path(__file__).parents[1] / "docs"


def noisy() -> np.ndarray:
    photo = np.asarray(Image.open(DOCS / "kitten_sharp.png").convert("L"), np.float32)[40:200, 60:228, None]
    noise = np.random.default_rng(2).normal(0, 10, photo.shape)
    return np.rint(np.clip(photo + noise, 0, 255)).astype(np.float32).repeat(3, axis=2)


def frame(pixels: np.ndarray, *widths: int, level: float) -> np.ndarray:
    top, bottom, left, right = widths
    return np.pad(pixels, ((top, bottom), (left, right), (0, 0)), constant_values=level)


FRAMES = {
    "black": ((24, 24, 24, 24), 0),
    "white": ((24, 24, 24, 24), 255),
    "gray": ((8, 16, 40, 3), 140),
    "left alone": ((0, 0, 32, 0), 0),
    "top alone": ((40, 0, 0, 0), 255),
}


def seen(pixels: np.ndarray) -> Look:
    """Return what is seen of a picture, but for the share that its frame has."""
    look = look_at_pixels(pixels / 255)
    assert look is not None
    return replace(look, quiet=0)


@pytest.mark.parametrize("name", FRAMES)
def test_what_is_seen_is_the_same_with_a_frame(name: str) -> None:
    widths, level = FRAMES[name]
    assert seen(frame(noisy(), *widths, level=level)) == seen(noisy())


def test_a_photo_with_much_that_has_no_noise_gets_the_model_for_real_photos(tmp_path: Path) -> None:
    photo = np.asarray(Image.open(DOCS / "kitten_sharp.png").convert("L"), np.float32)[40:200, 60:228, None]
    errors = []
    for width, kind in ((0, "white"), (5, "white"), (8, "real"), (64, "real")):
        framed = frame(noisy(), *[width] * 4, level=0)
        need = find_need(look_at_pixels(framed / 255), None)
        assert need.kind == kind
        assert ("and areas without noise" in need.reasons[0]) == (kind == "real")
        restored = Restorer("denoise", offline=True, device="cpu")(framed[..., :1] / 255)
        inside = slice(width, width + photo.shape[0]), slice(width, width + photo.shape[1])
        errors.append(float(np.sqrt(np.square(255 * restored[inside] - photo).mean())))
    assert max(errors) < errors[0] + 0.7


def test_areas_without_noise_are_counted() -> None:
    half = noisy()
    half[:, :80] = 140
    assert measure_quiet([half, half]) == pytest.approx(80 / 168, abs=0.01)
    assert measure_quiet([noisy()]) < 0.01


def test_frames_may_lie_in_frames_and_those_of_scanners_have_a_little_noise() -> None:
    framed = frame(frame(noisy(), 8, 8, 8, 8, level=255), 16, 16, 16, 16, level=8)
    random = np.random.default_rng(0)
    outside = np.ones(framed.shape[:2], bool)
    outside[16:-16, 16:-16] = False
    framed[outside] += random.integers(-2, 3, (outside.sum(), 1))
    assert seen(framed) == seen(noisy())


def test_what_is_left_keeps_the_place_of_blocks() -> None:
    framed = frame(noisy(), 11, 0, 5, 0, level=0)
    trimmed = trim_margins(framed, SMALLEST, BLOCK)
    np.testing.assert_array_equal(trimmed, framed[16:, 8:])
    file = io.BytesIO()
    Image.fromarray(frame(noisy(), 24, 24, 24, 24, level=0).astype(np.uint8)).save(file, "JPEG", quality=50)
    saved = np.asarray(Image.open(file).convert("RGB"), np.float32) / 255
    need = find_need(look_at_pixels(saved), None)
    assert need.look is not None
    assert need.look.quality == pytest.approx(50, abs=12)


@pytest.mark.parametrize(
    "pixels", [np.full((90, 80, 3), 7, np.float32), frame(noisy()[:30, :30], 60, 60, 60, 60, level=9)]
)
def test_where_too_little_is_left_nothing_is_cut_off(pixels: np.ndarray) -> None:
    assert trim_margins(pixels, SMALLEST, BLOCK) is pixels


def test_a_sky_at_the_top_is_no_margin() -> None:
    sky = frame(noisy(), 60, 0, 0, 0, level=0)
    sky[:60] = 180 + np.random.default_rng(1).normal(0, 1.5, (60, sky.shape[1], 3))
    assert trim_margins(sky, SMALLEST, BLOCK) is not sky
    assert trim_margins(sky, SMALLEST, BLOCK).shape == sky.shape
