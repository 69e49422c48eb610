"""Colour and transparency of a result: it looks like its input, whatever the profile and the format."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import skimage  # which imports its parts when they are used
from metadata import MAKE
from pictures import load_image, save_photo, smooth_colours
from PIL import Image, ImageCms, ImageFilter
from profiles import ADOBE_RGB, DISPLAY_P3, PROPHOTO, gray_profile

from mambair_cli.cli import main
from mambair_cli.images import read_picture

# Colour


def shown(path: str) -> np.ndarray:
    """Return the colours that a file shows, as littleCMS sees them through its profile, in Lab."""
    image = load_image(path)
    embedded = image.info.get("icc_profile")
    if embedded:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
    else:
        profile = ImageCms.createProfile("sRGB")
        image = image.convert("RGB")
    # By way of sRGB for CMYK, as a screen does it; else what lies beyond it counts, too.
    if image.mode == "CMYK":
        screen = ImageCms.createProfile("sRGB")
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        transform = ImageCms.buildTransform(
            profile, screen, "CMYK", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, flags
        )
        image, profile = ImageCms.applyTransform(image, transform), screen
        assert image is not None
    to_lab = ImageCms.buildTransform(profile, ImageCms.createProfile("LAB"), image.mode, "LAB")
    lab_image = ImageCms.applyTransform(image, to_lab)
    assert lab_image is not None
    lab = np.asarray(lab_image).astype(float)
    lab[..., 0] *= 100 / 255
    lab[..., 1:] = np.where(lab[..., 1:] > 127, lab[..., 1:] - 256, lab[..., 1:])
    return lab


def assert_looks_the_same(before: str, after: str, mean: float = 0.5) -> None:
    difference = skimage.color.deltaE_ciede2000(shown(before), shown(after))
    assert difference.mean() < mean


PROFILES = {"p3": DISPLAY_P3, "adobe": ADOBE_RGB, "prophoto": PROPHOTO}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif"])
def test_a_profile_stays_and_the_picture_looks_the_same(restore: Any, profile: str, suffix: str) -> None:
    Image.fromarray(smooth_colours()).save("in.png", icc_profile=PROFILES[profile])
    code, _, _ = restore("denoise", "same", "in.png", "-o", f"out{suffix}", "--quality", 100)
    assert code == 0
    assert load_image(f"out{suffix}").info["icc_profile"] == PROFILES[profile]
    assert_looks_the_same("in.png", f"out{suffix}")


def test_what_has_no_profile_gets_none(restore: Any) -> None:
    Image.fromarray(smooth_colours()).save("in.png")
    for suffix in (".png", ".tif", ".jpg", ".webp", ".avif"):
        assert restore("denoise", "same", "in.png", "-o", f"out{suffix}")[0] == 0
        assert "icc_profile" not in load_image(f"out{suffix}").info


@pytest.mark.parametrize("gamma", [1.8, 2.2])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif"])
def test_gray_of_any_gamma_looks_the_same(restore: Any, gamma: float, suffix: str) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(8, 0).repeat(8, 1)
    Image.fromarray(ramp).save("in.png", icc_profile=gray_profile(gamma))
    assert restore("denoise", "same", "in.png", "-o", f"out{suffix}", "--quality", 100)[0] == 0
    assert_looks_the_same("in.png", f"out{suffix}")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_looks_the_same_and_is_srgb_then(run: Any, weights: Path, suffix: str) -> None:
    image = pyvips.Image.new_from_array(smooth_colours(), interpretation="srgb")
    printed = image.icc_transform("cmyk", input_profile="srgb", intent="relative")
    printed.write_to_file(f"in{suffix}", **({"Q": 100} if suffix == ".jpg" else {}))
    assert load_image(f"in{suffix}").mode == "CMYK"
    same = ("--weights", weights / "same.safetensors")
    code, _, err = run("denoise", f"in{suffix}", "-o", "out.png", *same)
    said = f"warning: in{suffix}: CMYK becomes RGB (sRGB); ink values are not kept"
    assert (code, err.count(said)) == (0, 1)
    inspected = run("inspect", f"in{suffix}")
    assert "CMYK, becomes RGB" in " ".join(inspected[1])
    assert inspected[2].count(said) == 1
    assert load_image("out.png").mode == "RGB"
    assert load_image("out.png").info["icc_profile"][16:20] == b"RGB "
    assert_looks_the_same(f"in{suffix}", "out.png")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_stripped_of_its_profile_a_picture_still_looks_the_same(
    restore: Any, profile: str, suffix: str
) -> None:
    muted = (smooth_colours() * 0.5 + 64).round().astype(np.uint8)  # within sRGB, whatever the profile
    block = Image.Exif()
    block[MAKE] = "Camera works"
    Image.fromarray(muted).save("in.png", icc_profile=PROFILES[profile], exif=block, dpi=(300, 300))
    assert restore("denoise", "same", "in.png", "-o", f"out{suffix}", "--strip", "--quality", 100)[0] == 0
    info = load_image(f"out{suffix}").info
    assert not {"icc_profile", "exif", "xmp", "photoshop", "dpi"} & set(info)
    assert_looks_the_same("in.png", f"out{suffix}", mean=1.0 if profile == "prophoto" else 0.6)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_stripped_gray_stays_gray_and_alpha_alpha(restore: Any, suffix: str, mode: str, depth: int) -> None:
    values = np.dstack([smooth_colours(), np.arange(64, dtype=np.uint8)[None].repeat(48, 0) * 4])
    values = values[..., [0, 3]] if mode == "LA" else values
    profile = gray_profile(1.8) if mode == "LA" else DISPLAY_P3
    Image.fromarray(values).save("in.png", icc_profile=profile)
    code, _, _ = restore("denoise", "same", "in.png", "-o", f"out{suffix}", "--strip", "--depth", depth)
    assert code == 0
    after = read_picture(Path(f"out{suffix}"))
    assert after.samples.dtype == f"uint{depth}"
    assert after.pixels.shape[2] == len(mode) - 1
    assert after.alpha is not None
    np.testing.assert_array_equal(after.alpha // (after.alpha.max() // 252), values[..., -1])


def test_a_colour_jpeg_through_a_gray_network_keeps_its_colours(run, weights):
    Image.new("RGB", (16, 16), (200, 40, 90)).save("in.jpg", quality=95)
    code, out, _ = run("dejpeg", "in.jpg", "--weights", weights / "gray.safetensors", "-o", "out.png")
    assert (code, out) == (0, ["out.png"])
    before = np.array(load_image("in.jpg")).astype(int)
    np.testing.assert_allclose(np.array(load_image("out.png")).astype(int), before, atol=1)


def test_gray_stays_gray_and_sixteen_bits_sixteen(run, weights):
    values = np.random.default_rng(0).integers(0, 300, (9, 12), dtype=np.uint16)  # dark, and yet 16 bits
    Image.fromarray(values).save("deep.png")
    code, _, _ = run("upscale", "deep.png", "--weights", weights / "x4.safetensors")
    assert code == 0
    restored = load_image("deep_x4.png")
    assert restored.mode == "I;16"
    np.testing.assert_array_equal(np.array(restored), values.repeat(4, 0).repeat(4, 1))


# Alpha


def disc(side: int = 64, garbage: tuple[int, int, int] = (0, 255, 0)) -> np.ndarray:
    """Return a red disc with a soft edge on transparent ground, and garbage where nothing shows."""
    y, x = np.mgrid[0:side, 0:side] - (side - 1) / 2
    alpha = np.clip(side / 3 - np.hypot(x, y) + 0.5, 0, 1)
    image = np.zeros((side, side, 4), np.uint8)
    image[..., 3] = (alpha * 255).round()
    image[..., :3] = np.where(image[..., 3:] > 0, (200, 30, 30), garbage)
    return image


@pytest.mark.parametrize("command", ["upscale", "denoise"])
@pytest.mark.parametrize("mode", ["RGBA", "P", "one bit"])
def test_a_disc_on_transparent_ground_gets_no_fringe(tmp_path: Path, command: str, mode: str) -> None:
    image = Image.fromarray(disc())
    if mode == "P":  # a colour of the palette is transparent
        hidden = np.asarray(image)[..., 3] < 128
        indexed = Image.fromarray(hidden.astype(np.uint8), "P")
        indexed.putpalette([200, 30, 30, 0, 255, 0])
        indexed.save(tmp_path / "in.png", transparency=1)
    else:
        if mode == "one bit":
            array = np.asarray(image).copy()
            array[..., 3] = np.where(array[..., 3] < 128, 0, 255)
            image = Image.fromarray(array)
        image.save(tmp_path / "in.png")
    model = "tiny-x2" if command == "upscale" else "tiny-denoise"
    code = main([command, str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png"), "--model", model, "-q"])
    assert code == 0
    restored = np.asarray(load_image(tmp_path / "out.png")).astype(int)
    seen = restored[restored[..., 3] > 8][:, :3]
    assert np.abs(seen - (200, 30, 30)).max() <= 24  # the network's own ringing; garbage would be 225 away
    factor = restored.shape[0] // 64
    ideal = disc()[..., 3].repeat(factor, 0).repeat(factor, 1) / 255
    assert np.abs(restored[..., 3] / 255 - ideal).mean() < 0.03


@pytest.mark.parametrize(("scale", "strength"), [(2, "1"), (3, "1"), (4, "1"), (2, "0.5"), (4, "0")])
def test_transparency_ends_a_pixel_from_an_edge(tmp_path: Path, scale: int, strength: str) -> None:
    alpha = np.zeros((80, 72), np.uint8)
    alpha[20:60, 24:52] = 255
    image = np.full((80, 72, 4), 200, np.uint8)
    image[..., 3] = alpha
    Image.fromarray(image).save(tmp_path / "in.png")
    options = ["-s", str(scale), "--model", f"tiny-x{scale}", "--tile", "32", "--overlap", "8", "-q"]
    options += ["--strength", strength]
    assert main(["upscale", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png"), *options]) == 0
    restored = np.asarray(load_image(tmp_path / "out.png"))[..., 3]
    filled, empty = (
        np.asarray(Image.fromarray(values).filter(ImageFilter.MaxFilter(3))).repeat(scale, 0).repeat(scale, 1)
        for values in (alpha, 255 - alpha)
    )
    assert restored[filled == 0].max() == 0
    assert restored[empty == 0].min() == 255
    ideal = alpha.repeat(scale, 0).repeat(scale, 1)
    if strength == "1":
        assert (restored != ideal).mean() < 0.03  # the network may only round off corners


def test_a_reduction_mixes_no_garbage_into_edges(restore: Any) -> None:
    Image.fromarray(disc()).save("in.png")
    assert restore("upscale", "x2", "in.png", "-o", "out.png", "--scale", 1.3)[0] == 0
    restored = np.asarray(load_image("out.png")).astype(int)
    assert restored.shape == (83, 83, 4)
    seen = restored[restored[..., 3] > 8][:, :3]
    assert np.abs(seen - (200, 30, 30)).max() <= 8  # rounding where alpha is slight; garbage would be 225


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_alpha_and_gray_come_through(run, weights, mode):
    pixels = save_photo("in.png", mode=mode)
    code, _, _ = run("upscale", "in.png", "--weights", weights / "x4.safetensors")
    assert code == 0
    restored, expected = load_image("in_x4.png"), pixels.repeat(4, 0).repeat(4, 1)
    assert restored.mode == mode
    visible = expected[..., -1:] > 0 if mode.endswith("A") else 1
    np.testing.assert_array_equal(np.array(restored).reshape(expected.shape) * visible, expected * visible)
