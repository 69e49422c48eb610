"""What the noise of three channels has in common: models for noise of each of them take that for detail."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mambair_cli import Restorer
from mambair_cli.checkpoints import catalog
from mambair_cli.checkpoints.select import ChosenModel, PictureKind, explain_gray, find_kind
from mambair_cli.cli import main
from mambair_cli.inspection.common_noise import measure_common
from mambair_cli.inspection.look import look_at_pixels
from mambair_cli.inspection.need import find_need

DOCS = Path(__file__).parents[1] / "docs"
SIGMA = 20
LOCAL = ("--offline", "--device", "cpu")


def photo() -> np.ndarray:
    return np.asarray(Image.open(DOCS / "kitten_sharp.png").convert("RGB"), np.float32)[:256, :256]


def smooth_photo() -> np.ndarray:
    """Return a photo without fur, which is like noise that all channels share."""
    return np.asarray(Image.open(DOCS / "cat.png").convert("RGB").resize((256, 256)), np.float32)


def noise(common: float) -> np.ndarray:
    """Return noise of which channels have a share of the variance in common."""
    random = np.random.default_rng(3)
    shared, own = random.normal(size=(256, 256, 1)), random.normal(size=(256, 256, 3))
    return (SIGMA * (np.sqrt(common) * shared + np.sqrt(1 - common) * own)).astype(np.float32)


def save(path: Path, pixels: np.ndarray, mode: str = "RGB") -> Path:
    Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)).convert(mode).save(path)
    return path


def psnr(image: Path, truth: Path) -> float:
    a, b = (np.asarray(Image.open(path), np.float32) for path in (image, truth))
    return 10 * np.log10(255**2 / ((a - b) ** 2).mean())


@pytest.mark.parametrize("common", [0, 0.25, 0.5, 0.75, 1])
def test_the_share_is_measured_in_photos(common: float) -> None:
    assert measure_common([photo() + noise(common)]) == pytest.approx(common, abs=0.08)


@pytest.mark.parametrize(
    ("common", "kind", "name"),
    [
        (0, "white", "fine noise"),
        (0.25, "real", "fine partly gray noise"),
        (0.5, "real", "fine partly gray noise"),
        (1, "white", "fine gray noise"),
    ],
)
def test_noise_of_which_channels_share_a_part_is_not_for_models_of_white_noise(
    common: float, kind: str, name: str
) -> None:
    need = find_need(look_at_pixels((smooth_photo() + noise(common)).clip(0, 255) / 255), None)
    assert (need.kind, need.sigma is None) == (kind, common > 0)
    assert need.reasons[0].startswith(f"{name} of")


def test_gray_noise_is_not_for_models_of_one_level() -> None:
    need = find_need(look_at_pixels((smooth_photo() + noise(1)).clip(0, 255) / 255), None)
    any_level, level = PictureKind("white"), PictureKind("white", 25)
    assert find_kind(need, [level]) is None
    assert find_kind(need, [level, any_level]) == any_level
    assert find_kind(replace(need, sigma=20.0), [level, any_level]) == level


def test_coloured_lines_are_no_noise_of_their_own() -> None:
    random = np.random.default_rng(5)
    lines = np.full((256, 256, 3), 235, np.float32)
    for place in range(4, 256, 12):
        lines[place : place + 2] = random.integers(0, 200, 3)
        lines[:, place : place + 2] = random.integers(0, 200, 3)
    lines += SIGMA / 4 * random.normal(size=(256, 256, 1)).astype(np.float32)
    assert measure_common([lines]) > 0.5


def test_a_clean_photo_has_no_noise_in_common() -> None:
    look = look_at_pixels(photo() / 255)
    assert look is not None
    assert (look.noise < 1) == (look.common == 0)


@pytest.mark.parametrize(
    ("mode", "options"),
    [("L", ()), ("RGB", ()), ("L", ("--real",)), ("L", ("--clean",)), ("L", ("--sigma", "20"))],
)
def test_noise_of_gray_pictures_is_removed(
    mode: str, options: tuple[str, ...], tmp_path: Path, capsys
) -> None:
    gray = photo().mean(axis=2, keepdims=True).repeat(3, axis=2)
    truth, noisy = (save(tmp_path / f"{n}.png", x, mode) for n, x in (("a", gray), ("b", gray + noise(1))))
    assert main(["denoise", str(noisy), "-o", str(tmp_path / "c.png"), *options, *LOCAL]) == 0
    assert "change little" not in capsys.readouterr().err
    assert psnr(tmp_path / "c.png", truth) > psnr(noisy, truth) + 3


@pytest.mark.parametrize(
    ("model", "says_so"),
    [("mambair-denoise-25", True), ("tiny-denoise", False), ("tiny-real-denoise", False)],
)
def test_a_model_that_changes_little_in_gray_pictures_says_so(model: str, says_so: bool) -> None:
    sentence = explain_gray(ChosenModel(model, Path("weights.safetensors"))) or ""
    assert (f"change little by {model}" in sentence, "--real" in sentence) == (says_so, says_so)


def test_a_command_says_so_of_gray_pictures_alone(tmp_path: Path, capsys, monkeypatch) -> None:
    models = tuple(replace(each, level=25) for each in catalog.load_catalog() if each.name == "tiny-denoise")
    monkeypatch.setattr(catalog, "load_catalog", lambda: models)
    gray = save(tmp_path / "gray.png", (photo() + noise(1))[:64, :64], "L")
    colour = save(tmp_path / "colour.png", (photo() + noise(0))[:64, :64])
    arguments = [str(gray), str(colour), "-o", str(tmp_path / "out"), "--model", "tiny-denoise", *LOCAL]
    assert main(["denoise", *arguments]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "change little" in line]
    assert [line.split(": ")[:3] for line in warnings] == [["mambair", "warning", str(gray)]]


def test_from_python_a_noisy_gray_array_is_restored_by_the_model_for_white_noise() -> None:
    gray = (photo() + noise(1)).clip(0, 255)[..., :1] / 255
    _, report = Restorer("denoise", device="cpu", offline=True).restore(gray[:96, :96])
    assert report.model == "tiny-denoise"


@pytest.mark.parametrize(("white", "is_reported"), [(65535, False), (4095, True)])
def test_data_that_fills_little_of_its_range_is_reported(
    white: int, is_reported: bool, tmp_path: Path, capsys
) -> None:
    counts = ((photo() + noise(1)).clip(0, 255)[:64, :64, 0] / 255 * white).astype(np.uint16)
    Image.fromarray(counts).save(tmp_path / "in.tif")
    assert main(["denoise", str(tmp_path / "in.tif"), "-o", str(tmp_path / "out.tif"), *LOCAL]) == 0
    assert ("% of their range: the network sees them stretched" in capsys.readouterr().err) == is_reported
    assert main(["inspect", str(tmp_path / "in.tif")]) == 0
    assert ("16 bits, gray; they fill 6" in capsys.readouterr().out) == is_reported


@pytest.mark.parametrize("reduced", [1, 2])
def test_a_scan_of_1_bit_is_enlarged_by_the_model_for_real_pictures(reduced: int, tmp_path: Path) -> None:
    page = Image.new("L", (200 * reduced, 120 * reduced), 255)
    draw = ImageDraw.Draw(page)
    draw.ellipse((20 * reduced, 10 * reduced, 150 * reduced, 100 * reduced), outline=0, width=3 * reduced)
    draw.line((0, 0, 200 * reduced, 119 * reduced), fill=0, width=2 * reduced)
    page.resize((200, 120), Image.Resampling.BOX).convert("1", dither=Image.Dither.NONE).save(
        tmp_path / "a.tif"
    )
    assert main(["upscale", str(tmp_path / "a.tif"), "-s", "2", "-o", str(tmp_path / "b.png"), *LOCAL]) == 0
    with Image.open(tmp_path / "a.tif") as stored:
        look = look_at_pixels(np.asarray(stored.convert("L"), np.float32)[..., None] / 255)
    assert look is not None
    need = find_need(look, None)
    assert (look.two_valued, need.kind, need.reduce) == (True, "real", 1.0)
    assert need.reasons == ("only two values, as in a scan of 1 bit",)


def test_a_drawing_of_pure_colours_is_no_scan_of_1_bit() -> None:
    pixels = np.zeros((96, 96, 3), np.float32)
    pixels[20:60, 20:60, 0] = pixels[50:80, 40:90, 2] = 1
    look = look_at_pixels(pixels)
    assert look is not None
    assert not look.two_valued
