"""Files read as 8-bit sRGB or gray, and the one way in which folders are searched for images."""

import io

import numpy as np
import pytest
from metadata import exif_block
from pictures import encode, noise, save_photo
from PIL import Image, ImageCms
from profiles import D65, gray_profile, rgb_profile

from mambair_cli.errors import ImageError, UsageError
from mambair_cli.images import Picture, read_first_page, write_picture
from mambair_cli.images.discovery import find_images, find_sources
from mambair_cli.quality.pairs import find_pairs

WIDE_PRIMARIES = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))  # Adobe RGB's
RAMP = np.arange(256, dtype=np.uint8).reshape(8, 32)


def read_srgb(path, bands):
    return read_first_page(path).to_srgb(bands)


def test_16_bits_and_floats_stay_deep(tmp_path):
    deep = np.minimum(RAMP[..., None].astype(int) * 257 + 100, 65535).astype(np.uint16)
    write_picture(Picture(deep), tmp_path / "deep.png")
    assert np.array_equal(read_srgb(tmp_path / "deep.png", 1), deep)
    assert np.array_equal(read_srgb(tmp_path / "deep.png", 3), deep.repeat(3, 2))
    write_picture(Picture(np.divide(deep, 65535, dtype=np.float32)), tmp_path / "float.tif")
    assert np.array_equal(read_srgb(tmp_path / "float.tif", 1), deep)
    write_picture(
        Picture(deep.repeat(3, 2), icc=rgb_profile(WIDE_PRIMARIES, D65, 2.2)), tmp_path / "wide.png"
    )
    assert len(np.unique(read_srgb(tmp_path / "wide.png", 3))) >= 250
    assert read_srgb(tmp_path / "wide.png", 3).dtype == np.uint16


def test_colours_become_luma_and_alpha_is_left_out(tmp_path):
    pixels = save_photo(tmp_path / "a.png", (9, 6), "RGBA")
    assert np.array_equal(read_srgb(tmp_path / "a.png", 3), pixels[..., :3])
    expected = pixels[..., :3] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_srgb(tmp_path / "a.png", 1)[..., 0] - expected).max() <= 0.5 + 1e-3


def test_a_profile_is_honoured(tmp_path):
    pixels = np.random.default_rng(0).integers(90, 170, (6, 9, 3), dtype=np.uint8)
    icc = rgb_profile(WIDE_PRIMARIES, D65, 2.2)
    Image.fromarray(pixels).save(tmp_path / "wide.png", icc_profile=icc)
    expected = ImageCms.profileToProfile(
        Image.fromarray(pixels), ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    )
    got = read_srgb(tmp_path / "wide.png", 3).astype(int)
    assert np.abs(got - np.asarray(expected)).max() <= 1
    assert np.abs(got - pixels).max() > 5
    Image.fromarray(RAMP).save(tmp_path / "gray.png", icc_profile=gray_profile(1.8))
    light = (RAMP / 255) ** 1.8
    curve = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    got = read_srgb(tmp_path / "gray.png", 1)[..., 0]
    assert np.abs(got - curve)[2:].max() <= 1  # the darkest come from a coarse table of Little CMS
    assert np.abs(got.astype(int) - RAMP).max() > 5


def test_gray_stays_gray_under_a_profile_for_colours(tmp_path):
    gray = RAMP[..., None].repeat(3, 2)
    Image.fromarray(gray).save(tmp_path / "wide.png", icc_profile=rgb_profile(WIDE_PRIMARIES, D65, 1.8))
    got = read_srgb(tmp_path / "wide.png", 3)
    assert np.ptp(got, axis=2).max() == 0
    assert np.abs(got.astype(int) - gray).max() > 5


def test_an_image_is_turned_upright(tmp_path):
    (tmp_path / "turned.png").write_bytes(encode(RAMP, exif=exif_block(6)))
    assert np.array_equal(read_srgb(tmp_path / "turned.png", 1)[..., 0], np.rot90(RAMP, -1))


def test_avif_and_the_first_of_several_frames_are_read(tmp_path):
    write_picture(Picture(RAMP[..., None].repeat(3, 2)), tmp_path / "a.avif", quality=100)
    assert np.abs(read_srgb(tmp_path / "a.avif", 1)[..., 0].astype(int) - RAMP).max() <= 1
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "moves.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(read_srgb(tmp_path / "moves.webp", 3), np.asarray(frames[0]))


def test_a_photograph_that_is_damaged_inside_is_not_learnt_from(tmp_path):
    data = bytearray(encode(noise(64, 64, 3), "jpeg", restart_marker_rows=1))
    at = data.index(b"\xff\xd2")  # a restart marker becomes another
    data[at + 1] = 0xD5
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(
        ImageError, match=r"cannot read .*a\.jpg: damaged.*; try another copy, or leave it out"
    ):
        read_srgb(tmp_path / "a.jpg", 3)


def test_what_is_broken_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"cannot read .*broken\.png"):
        read_srgb(tmp_path / "broken.png", 3)


def test_restoring_measuring_and_training_find_the_same_images(tmp_path):
    for name in ("b.PNG", "a.avif", "sub/c.heic", ".hidden.png", ".thumbs/d.png", "notes.txt", "b_x4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [tmp_path / name for name in ("a.avif", "b.PNG", "b_x4.png", "sub/c.heic")]
    assert find_images(tmp_path) == found
    assert [pair.truth for pair in find_pairs(tmp_path)] == found
    # What is a result already is not restored again.
    sources = [source.path for source in find_sources([str(tmp_path)])]
    assert sources == [path for path in found if path.name != "b_x4.png"]
    assert find_images(found[0]) == [found[0]]
    with pytest.raises(UsageError, match="no such file or folder"):
        find_images(tmp_path / "nothing")
