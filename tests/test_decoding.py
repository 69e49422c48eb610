"""Depth and colour of pictures, as files have them."""

import io
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from error_lines import assert_line
from pictures import encode, noise
from PIL import Image
from repository import SHARED

from mambair_cli.errors import ImageError
from mambair_cli.images import encode_picture, read_picture, to_float
from mambair_cli.images.signatures import identify


def saved_by_vips(array: np.ndarray, suffix: str, interpretation: str, **options: object) -> bytes:
    image = pyvips.Image.new_from_array(array, interpretation=interpretation)
    return image.write_to_buffer(suffix, **options)


def test_depth_follows_the_type_not_the_values() -> None:
    dark = np.arange(12, dtype=np.uint16).reshape(3, 4)
    for format in ("png", "tiff"):
        after = read_picture(encode(dark, format))
        assert after.pixels.dtype == np.uint16
        np.testing.assert_array_equal(after.pixels[..., 0], dark)


def test_one_bit_images_are_gray_of_eight() -> None:
    bits = noise(9, 11, 1) > 127
    for format, options in {"png": {}, "tiff": {"compression": "group4"}, "bmp": {}}.items():
        after = read_picture(encode(bits, format, mode="1", **options))
        np.testing.assert_array_equal(after.pixels, np.where(bits, 255, 0))
        assert after.pixels.dtype == np.uint8


def test_palettes_become_colours_and_their_transparency_alpha() -> None:
    palette = Image.fromarray(noise(9, 11, 3)).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    for format in ("png", "gif", "bmp"):
        file = io.BytesIO()
        palette.save(file, format)
        after = read_picture(file.getvalue())
        np.testing.assert_array_equal(after.pixels, np.asarray(palette.convert("RGB")))
        assert after.alpha is None
    file = io.BytesIO()
    palette.save(file, "png", transparency=3)
    alpha = read_picture(file.getvalue()).alpha
    assert alpha is not None
    np.testing.assert_array_equal(alpha, np.where(np.asarray(palette) == 3, 0, 255))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_gray_colour_and_alpha_are_distinguished(mode: str, format: str) -> None:
    bands = len(mode)
    samples = noise(6, 5, bands)
    after = read_picture(encode(samples, format))
    colours = 1 if mode.startswith("L") else 3
    np.testing.assert_array_equal(after.pixels, samples[..., :colours])
    assert (after.alpha is None) == (bands == colours)
    if after.alpha is not None:
        np.testing.assert_array_equal(after.alpha, samples[..., colours])


def test_premultiplied_tiff_becomes_straight() -> None:
    straight = np.full((2, 2, 4), 200, np.uint8)
    straight[..., 3] = 128
    data = saved_by_vips(straight, ".tif", "srgb", premultiply=True)
    after = read_picture(data)
    assert np.abs(after.pixels.astype(int) - 200).max() <= 1


def cmyk_image(*inks: tuple[int, int, int, int]) -> Any:
    patches = np.array([inks], np.uint8).repeat(16, 0).repeat(16, 1)
    return pyvips.Image.new_from_array(patches, interpretation="cmyk")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_srgb(suffix: str) -> None:
    # Without ink, with all of it, and with magenta and yellow.
    image = cmyk_image((0, 0, 0, 0), (255, 255, 255, 255), (0, 255, 255, 0))
    after = read_picture(image.write_to_buffer(suffix))
    assert after.pixels.shape == (16, 48, 3)
    white, black, red = (after.pixels[8, x].astype(int) for x in (8, 24, 40))
    assert white.min() > 250
    assert black.max() < 25  # the profile's black point becomes black
    assert red[0] > 180 > 80 > max(red[1:])
    assert after.icc is not None
    assert after.icc[16:20] == b"RGB "  # the profile that the pixels are in now
    assert read_picture(encode_picture(after, "png")).icc == after.icc


def test_cmyk_goes_by_the_profile_in_the_file() -> None:
    image = cmyk_image((0, 0, 0, 0)).icc_transform("cmyk", input_profile="cmyk")
    profile = bytearray(image.get("icc-profile-data"))
    entry = profile.index(b"A2B1")
    start, length = (int.from_bytes(profile[entry + at : entry + at + 4], "big") for at in (4, 8))
    steps = int.from_bytes(profile[start + 50 : start + 52], "big")
    lightness = start + length - 3 * 2 * steps  # the first of three tables, of 16-bit numbers
    profile[lightness : lightness + 2 * steps] = bytes(2 * steps)  # whatever the ink, no light
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", bytes(profile))
    assert read_picture(image.write_to_buffer(".tif")).pixels.max() < 50


def test_sixteen_bits_of_cmyk_are_kept() -> None:
    ramp = np.zeros((1, 256, 4), np.uint16)
    ramp[0, :, 3] = np.arange(256)  # one step of 8 bits
    image = pyvips.Image.new_from_array(ramp, interpretation="cmyk")
    after = read_picture(image.write_to_buffer(".tif"))
    assert after.pixels.dtype == np.uint16
    assert len(np.unique(after.pixels[..., 0])) > 50


def test_avif_is_read_and_its_white_is_white_at_every_depth() -> None:
    steps = np.linspace(0, 65535, 1024).round().astype(np.uint16).reshape(32, 32, 1).repeat(3, axis=2)
    for bits in (8, 10, 12):
        data = saved_by_vips(steps, ".avif", "rgb16", bitdepth=bits, lossless=True, effort=0)
        after = read_picture(data)
        assert after.format == "avif"
        floats = to_float(after.pixels)
        assert (floats.min(), floats.max()) == (0, 1)
        # libvips cuts where it should round when it writes, so one step
        np.testing.assert_allclose(floats, to_float(steps), atol=1.01 / (2**bits - 1))


def test_avif_whose_main_brand_is_shared_with_heic_is_read() -> None:
    whole = encode(noise(16, 16, 3), "avif")
    assert whole[8:12] == b"avif"
    shared = whole[:8] + b"mif1" + whole[12:]
    after = read_picture(shared)
    assert after.format == "avif"
    np.testing.assert_array_equal(after.pixels, read_picture(whole).pixels)
    end = int.from_bytes(whole[:4], "big")
    assert identify(shared, "a") == "avif"
    assert identify(shared[:end].replace(b"avif", b"heic") + b"avif", "a") == "heic"
    assert identify(shared[:16], "a") == "heic"


def test_bmp_keeps_gray_colour_and_alpha() -> None:
    for bands, mode in ((1, "L"), (3, "RGB")):
        samples = noise(5, 7, bands)
        after = read_picture(encode(samples, "bmp", mode=mode, dpi=(300, 300)))
        np.testing.assert_array_equal(after.pixels, samples)
        assert (after.format, after.metadata.dpi) == ("bmp", (300.0, 300.0))


def test_a_classic_test_image_in_bmp_is_gray() -> None:
    images = sorted((SHARED / "data" / "CAR" / "classic5").rglob("*.bmp"))
    if not images:
        pytest.skip("needs the classic5 images")
    for path in images:
        with Image.open(path) as image:
            np.testing.assert_array_equal(read_picture(path).pixels[..., 0], np.asarray(image.convert("L")))


def test_float_tiff_outside_0_to_1_is_refused() -> None:
    for bad, remedy in (
        (-0.1, "scale them to 0 to 1"),
        (812.0, "scale them to 0 to 1"),
        (np.nan, "replace it by a number from 0 to 1"),
        (np.inf, "replace it by a number from 0 to 1"),
    ):
        floats = np.full((4, 4), 0.5, np.float32)
        floats[1, 2] = bad
        with pytest.raises(ImageError) as error:
            read_picture(encode(floats, "tiff"))
        assert_line(error, remedy)


def test_kinds_of_samples_and_bands_that_are_unknown_are_refused() -> None:
    for format in ("short", "uint", "char"):
        data = pyvips.Image.black(4, 4).cast(format).write_to_buffer(".tif")
        with pytest.raises(ImageError) as error:
            read_picture(data)
        assert_line(error)
    inks = io.BytesIO()
    tifffile.imwrite(inks, noise(8, 9, 4), photometric="separated", extratags=[(332, "H", 1, 2, True)])
    with pytest.raises(ImageError) as error:
        read_picture(inks.getvalue())
    assert_line(error, "inks that are not CMYK")


@pytest.mark.parametrize("format", ["tiff", "gif", "webp"])
def test_pages_and_frames_are_not_lost_silently(format: str) -> None:
    frames = [Image.fromarray(noise(8, 8, 3, seed=seed)) for seed in range(3)]
    file = io.BytesIO()
    frames[0].save(file, format, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError) as error:
        read_picture(file.getvalue())
    assert_line(error, "3 pages or frames")


def test_raw_files_of_cameras_are_refused() -> None:
    for tag, value in ((0x00FE, 1), (0xC612, b"\1\4\0\0")):  # a preview; DNG
        data = encode(noise(8, 8, 3), "tiff", tiffinfo={tag: value})
        with pytest.raises(ImageError) as error:
            read_picture(data)
        assert_line(error, "raw file")


def test_big_endian_and_big_tiff_are_read() -> None:
    samples = noise(5, 7, 3, dtype="uint16")
    after = read_picture(saved_by_vips(samples, ".tif", "rgb16", bigtiff=True))
    np.testing.assert_array_equal(after.pixels, samples)
