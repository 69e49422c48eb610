"""Transparent pictures in formats without transparency: refused, or before a colour that is named."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from profiles import DISPLAY_P3, gray_profile

from mambair_cli.errors import UsageError
from mambair_cli.server.query import read_request


@pytest.fixture
def run(restore: Any) -> Any:
    """Run a command with a small network, and return (exit code, stderr)."""

    def call(*arguments: str, command: str = "denoise", network: str = "same") -> tuple[int, str]:
        code, _, err = restore(command, network, *arguments)
        return code, err

    return call


def save_fade(path: str, colour: tuple[int, ...], **options: Any) -> None:
    """Save one colour that fades away from left to right."""
    image = np.zeros((16, 256, len(colour) + 1), np.uint8)
    image[..., :-1] = colour
    image[..., -1] = np.arange(256)[::-1]
    Image.fromarray(image).save(path, **options)


def shown(path: str) -> np.ndarray:
    """Return the colours of a row as sRGB, float."""
    with Image.open(path) as image:
        icc = image.info.get("icc_profile")
        if icc:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            converted = ImageCms.profileToProfile(
                image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            assert converted is not None
            image = converted
        return np.asarray(image.convert("RGB"))[8].astype(float)


def blended(front: tuple[int, ...], behind: tuple[int, int, int]) -> np.ndarray:
    share = np.arange(256)[::-1, None] / 255
    return np.array(front) * share + np.array(behind) * (1 - share)


@pytest.mark.parametrize(
    ("name", "colour"), [("white", (255, 255, 255)), ("#204060", (32, 64, 96)), ("Tomato", (255, 99, 71))]
)
def test_the_colour_is_seen_through(run: Any, name: str, colour: tuple[int, int, int]) -> None:
    save_fade("in.png", (40, 120, 200))
    assert run("in.png", "-o", "out.jpg", "--quality", "100", "--background", name)[0] == 0
    assert abs(shown("out.jpg") - blended((40, 120, 200), colour)).max() <= 3  # JPEG's


def test_without_a_colour_a_transparent_picture_is_refused(run: Any) -> None:
    save_fade("in.png", (40, 120, 200))
    code, error = run("in.png", "-o", "out.jpg")
    assert code == 1
    assert "--background white" in error
    assert not Path("out.jpg").exists()


def test_formats_with_transparency_keep_it(run: Any) -> None:
    save_fade("in.png", (40, 120, 200))
    assert run("in.png", "-o", "out.png", "--background", "white")[0] == 0
    with Image.open("out.png") as image:
        assert image.mode == "RGBA"
    code, error = run("in.png", "-o", "other/", "--format", "png", "--background", "white")
    assert code == 2
    assert "png keeps transparency" in error


def test_gray_stays_gray_before_gray_and_becomes_rgb_before_a_colour(run: Any) -> None:
    save_fade("in.png", (90,))
    assert run("in.png", "-o", "gray.jpg", "--background", "#808080", "--quality", "100")[0] == 0
    assert run("in.png", "-o", "red.jpg", "--background", "red", "--quality", "100")[0] == 0
    with Image.open("gray.jpg") as image:
        assert image.mode == "L"
    assert abs(shown("gray.jpg") - blended((90, 90, 90), (128, 128, 128))).max() <= 3
    assert abs(shown("red.jpg") - blended((90, 90, 90), (255, 0, 0))).max() <= 4


@pytest.mark.parametrize("profile", ["p3", "gray"])
@pytest.mark.parametrize("strip", [(), ("--strip",)])
def test_the_colour_is_the_same_in_every_profile(run: Any, profile: str, strip: tuple[str, ...]) -> None:
    icc, colour = {"p3": (DISPLAY_P3, (40, 120, 200)), "gray": (gray_profile(1.8), (90,))}[profile]
    save_fade("in.png", colour, icc_profile=icc)
    options = ("--background", "#c08040", "--quality", "100", *strip)
    assert run("in.png", "-o", "out.jpg", *options)[0] == 0
    assert abs(shown("out.jpg")[-1] - (192, 128, 64)).max() <= 3


def test_a_picture_of_16_bits_that_is_reduced_gets_it_too(run: Any) -> None:
    Image.fromarray(np.full((20, 20, 4), (0, 0, 0, 51), np.uint8)).save("in.png")
    options = ("--scale", "1.5", "--background", "white", "--quality", "100")
    assert run("in.png", "-o", "out.jpg", *options, command="upscale", network="x2")[0] == 0
    with Image.open("out.jpg") as image:
        assert image.size == (30, 30)
        assert abs(np.asarray(image).astype(int) - 204).max() <= 1


def test_pictures_of_all_shapes_go_through(run: Any) -> None:
    for width, height in ((1, 1), (2, 3), (5000, 1), (1, 5000), (7, 7)):
        Image.new("RGBA", (width, height), (10, 20, 30, 0)).save("in.png")
        for size in (("--scale", "2"), ("--width", str(min(width, 3)))):
            options = (*size, "--background", "#204060", "--quality", "100", "--overwrite")
            assert run("in.png", "-o", "out.jpg", *options, command="upscale", network="x2") == (0, "")
            with Image.open("out.jpg") as image:
                assert abs(np.asarray(image).astype(int) - (32, 64, 96)).max() <= 2


@pytest.mark.parametrize("colour", ["", "nocolour", "#12", "#11223344", "rgb(1)", "white\n"])
def test_what_is_no_colour_is_refused(run: Any, colour: str) -> None:
    save_fade("in.png", (1, 2, 3))
    code, error = run("in.png", "-o", "out.jpg", "--background", colour)
    assert code == 2
    assert "#f0f0f0" in error


def test_a_server_knows_it() -> None:
    assert read_request("denoise", [("background", "#204060")]).output.background == (32, 64, 96)
    assert read_request("denoise", []).output.background is None
    with pytest.raises(UsageError, match="no colour: plaid"):
        read_request("denoise", [("background", "plaid")])
