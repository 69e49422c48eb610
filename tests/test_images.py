import errno
import io
import os
import re
import resource
import stat
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, IptcImagePlugin, JpegImagePlugin
from profiles import gray_profile

from mambair_cli.errors import ImageError
from mambair_cli.images import (
    READABLE_SUFFIXES,
    WRITABLE_SUFFIXES,
    Picture,
    Writer,
    encode_picture,
    fit_header,
    format_of,
    from_float,
    join_luma,
    open_atomic,
    open_picture,
    read_picture,
    split_luma,
    to_float,
    write_picture,
)

DTYPES = {
    "png": ["uint8", "uint16"],
    "tiff": ["uint8", "uint16", "float32"],
    "webp": ["uint8"],
    "jpeg": ["uint8"],
}
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_ICC = ICC[:16] + b"GRAY" + ICC[20:]
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
IPTC = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00\x00\x00\x00\x0c\x1c\x02\x05\x00\x07Meadows"
MAKER_NOTE = bytes(range(256))
MAKE, ORIENTATION, COPYRIGHT = 0x010F, 0x0112, 0x8298
EXIF_PART, GPS_PART = 0x8769, 0x8825
EXPOSURE, MAKER, WIDTH, HEIGHT, INTEROPERABILITY = 0x829A, 0x927C, 0xA002, 0xA003, 0xA005


def noise(height: int, width: int, bands: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if dtype == "float32":
        return generator.random((height, width, bands), dtype=np.float32)
    return generator.integers(0, np.iinfo(dtype).max, (height, width, bands), dtype, endpoint=True)


def picture(height: int = 5, width: int = 7, bands: int = 3, dtype: str = "uint8") -> Picture:
    return Picture(noise(height, width, bands, dtype))


def exif_block(orientation: int = 1, order: str = "MM", thumbnail: bool = False) -> bytes:
    exif = Image.Exif()
    exif.endian = "<" if order == "II" else ">"
    exif[MAKE], exif[COPYRIGHT], exif[ORIENTATION] = "Camera works", "A. Nobody", orientation
    part = exif.get_ifd(EXIF_PART)
    part[EXPOSURE], part[MAKER], part[WIDTH], part[HEIGHT] = (1, 250), MAKER_NOTE, 1, 1
    exif.get_ifd(GPS_PART)[2] = (48.0, 8.0, 12.5)
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    assert block.startswith(order.encode())
    if thumbnail:  # at the end, pointed to from behind the first directory's entries
        order_name = "little" if order == "II" else "big"
        pointer = 10 + 12 * int.from_bytes(block[8:10], order_name)
        block = block[:pointer] + len(block).to_bytes(4, order_name) + block[pointer + 4 :] + bytes(6)
    return block


def saved(
    array: np.ndarray, format: str, mode: str | None = None, exif: bytes | None = None, **options: Any
) -> bytes:
    if exif:
        options["exif"] = b"Exif\0\0" + exif
    image = Image.fromarray(array.squeeze(-1) if array.shape[-1:] == (1,) else array)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, format, **options)
    return file.getvalue()


def saved_by_vips(array: np.ndarray, suffix: str, interpretation: str, **options: object) -> bytes:
    image = pyvips.Image.new_from_array(array, interpretation=interpretation)
    return image.write_to_buffer(suffix, **options)


def assert_line(error: pytest.ExceptionInfo[ImageError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert re.fullmatch(r"cannot (read|write) .+: .+; .+", message)
    for part in parts:
        assert part in message


# Samples


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_float_and_back_is_exact_for_every_sample(dtype: str) -> None:
    every = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    floats = to_float(every)
    assert floats.dtype == np.float32
    assert (floats[0], floats[-1]) == (0, 1)
    back = from_float(floats, dtype)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, every)


def test_from_float_clips_and_rounds_once_with_halves_to_even() -> None:
    halves = np.array([-1, 0.5 / 255, 1.5 / 255, 2.49 / 255, 7], np.float64)
    np.testing.assert_array_equal(from_float(halves, "uint8"), np.array([0, 0, 2, 2, 255], np.uint8))
    np.testing.assert_array_equal(from_float(halves[[0, 4]], "float32"), np.array([0, 1], np.float32))


def test_from_float_leaves_its_input_alone() -> None:
    floats = np.array([0.5, 2], np.float32)
    from_float(floats, "uint16")
    np.testing.assert_array_equal(floats, np.array([0.5, 2], np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_from_float_refuses_what_is_not_finite(bad: float, dtype: str) -> None:
    with pytest.raises(ValueError, match="1 of 2 samples"):
        from_float(np.array([0, bad], np.float32), dtype)


def test_samples_of_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="int32"):
        to_float(np.zeros((1, 1), np.int32))
    with pytest.raises(ValueError, match="int16"):
        from_float(np.zeros((1, 1), np.float32), "int16")


@given(st.integers(0, 2**32), st.sampled_from([(np.float32, 4e-7), (np.float64, 2e-15)]))
def test_luma_and_chroma_join_to_what_was_split(seed: int, kind: tuple[type, float]) -> None:
    dtype, tolerance = kind  # three roundings at values up to 1
    rgb = np.random.default_rng(seed).random((3, 4, 3)).astype(dtype)
    y, cbcr = split_luma(rgb)
    assert y.shape == (3, 4, 1)
    assert cbcr.shape == (3, 4, 2)
    assert y.dtype == cbcr.dtype == dtype
    assert 0 <= y.min() <= y.max() <= 1 + tolerance
    assert np.abs(cbcr).max() <= 0.5 + tolerance
    np.testing.assert_allclose(join_luma(y, cbcr), rgb, atol=tolerance, rtol=0)


def test_luma_and_chroma_are_those_of_jpeg() -> None:
    rgb = noise(16, 16, 3)
    expected = np.asarray(Image.fromarray(rgb).convert("YCbCr")).astype(np.float32)
    y, cbcr = split_luma(to_float(rgb))
    np.testing.assert_allclose(y[..., 0] * 255, expected[..., 0], atol=1)  # Pillow truncates
    np.testing.assert_allclose(cbcr * 255 + 128, expected[..., 1:], atol=1)


def test_gray_has_no_chroma() -> None:
    gray = np.repeat(np.linspace(0, 1, 50, dtype=np.float32)[:, None, None], 3, axis=2)
    y, cbcr = split_luma(gray)
    np.testing.assert_allclose(y[..., 0], gray[..., 0], atol=1e-7)
    np.testing.assert_allclose(cbcr, 0, atol=1e-7)


# Pictures


@pytest.mark.parametrize(
    ("pixels", "alpha"),
    [
        (np.zeros((4, 4), np.uint8), None),
        (np.zeros((4, 4, 2), np.uint8), None),
        (np.zeros((4, 4, 3), np.float64), None),
        (np.zeros((0, 4, 3), np.uint8), None),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16)),
    ],
)
def test_a_picture_of_another_shape_or_type_is_refused(pixels: np.ndarray, alpha: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match=r"\(\d, \d"):
        Picture(pixels, alpha)


@st.composite
def lossless(draw: st.DrawFn) -> tuple[Picture, str]:
    format = draw(st.sampled_from(["png", "tiff", "webp"]))
    bands = 3 if format == "webp" else draw(st.sampled_from([1, 3]))
    dtype = draw(st.sampled_from(DTYPES[format]))
    side = st.one_of(st.just(1), st.integers(1, 40))
    samples = noise(draw(side), draw(side), bands + 1, dtype, draw(st.integers(0, 2**32)))
    alpha = np.ascontiguousarray(samples[..., bands]) if draw(st.booleans()) else None
    pixels = samples[..., :bands]  # a view, not contiguous
    profile = ICC if bands == 3 else GRAY_ICC
    icc = draw(st.sampled_from([None, profile]))
    xmp = draw(st.sampled_from([None, XMP]))
    exif = draw(st.sampled_from([None, exif_block(), exif_block(order="II")]))
    return Picture(pixels, alpha, format, icc, exif, xmp), format


@given(lossless())
@settings(deadline=None)
def test_lossless_formats_give_back_what_was_written(written: tuple[Picture, str]) -> None:
    before, format = written
    after = read_picture(encode_picture(before, format, quality=100))
    assert after.format == format
    assert after.pixels.dtype == before.pixels.dtype
    np.testing.assert_array_equal(after.pixels, before.pixels)
    assert (after.alpha is None) == (before.alpha is None)
    if before.alpha is not None:
        np.testing.assert_array_equal(after.alpha, before.alpha)
    assert after.icc == before.icc
    assert (after.xmp is None) == (before.xmp is None)
    assert (after.exif is None) == (before.exif is None)


@pytest.mark.parametrize("bands", [1, 3])
def test_jpeg_comes_close_and_keeps_gray_gray(bands: int) -> None:
    before = Picture(np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], bands, axis=2))
    after = read_picture(encode_picture(before, "jpeg"))
    assert after.pixels.shape == before.pixels.shape
    assert np.abs(after.pixels.astype(int) - before.pixels).max() <= 3


def test_jpeg_is_not_subsampled_and_quality_tells() -> None:
    colours = picture(32, 32)
    sizes = [len(encode_picture(colours, "jpeg", quality)) for quality in (1, 50, None, 100)]
    assert sizes == sorted(set(sizes))
    for quality in (1, 50, None):
        with Image.open(io.BytesIO(encode_picture(colours, "jpeg", quality))) as image:
            assert isinstance(image, JpegImagePlugin.JpegImageFile)
            assert JpegImagePlugin.get_sampling(image) == 0


def test_webp_is_lossy_below_100_and_its_quality_tells() -> None:
    colours = picture(32, 32)
    sizes = [len(encode_picture(colours, "webp", quality)) for quality in (1, 50, None)]
    assert sizes == sorted(set(sizes))


def test_webp_keeps_colours_under_transparency() -> None:
    before = replace(picture(), alpha=np.zeros((5, 7), np.uint8))
    after = read_picture(encode_picture(before, "webp", quality=100))
    np.testing.assert_array_equal(after.pixels, before.pixels)


def test_sixteen_bits_are_rounded_to_the_nearest_eight() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    after = read_picture(encode_picture(Picture(np.repeat(every, 3, axis=2)), "webp", quality=100))
    expected = np.floor(every / 257 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(after.pixels, np.repeat(expected, 3, axis=2))


def test_floats_become_sixteen_bits_in_png_and_eight_in_jpeg() -> None:
    before = picture(dtype="float32")
    after = read_picture(encode_picture(before, "png"))
    np.testing.assert_array_equal(after.pixels, from_float(before.pixels, "uint16"))
    assert read_picture(encode_picture(before, "jpeg")).pixels.dtype == np.uint8


def test_jpeg_refuses_to_lose_transparency() -> None:
    alpha = np.full((5, 7), 65535, np.uint16)
    opaque = replace(picture(dtype="uint16"), alpha=alpha)
    assert read_picture(encode_picture(opaque, "jpeg")).alpha is None
    alpha[2, 3] = 65534
    with pytest.raises(ImageError) as error:
        encode_picture(opaque, "jpeg")
    assert_line(error, "png, webp and tiff keep it")


@pytest.mark.parametrize(("format", "side"), [("jpeg", 65501), ("webp", 16384)])
def test_sides_that_a_format_cannot_hold_are_refused(format: str, side: int) -> None:
    with pytest.raises(ImageError) as error:
        encode_picture(Picture(np.zeros((1, side, 3), np.uint8)), format)
    assert_line(error, f"{side}×1", "png and tiff hold it")
    at_most = Picture(np.zeros((1, side - 1, 3), np.uint8))
    assert read_picture(encode_picture(at_most, format)).pixels.shape == (1, side - 1, 3)


@pytest.mark.parametrize(("kind", "length"), [("exif", 70000), ("xmp", 65503)])
def test_metadata_that_jpeg_cannot_hold_is_refused(kind: str, length: int) -> None:
    with pytest.raises(ImageError) as error:
        encode_picture(replace(picture(), **{kind: bytes(length)}), "jpeg")
    assert_line(error, kind.upper(), str(length))


@pytest.mark.parametrize("format", ["webp", "avif"])
def test_gray_with_a_profile_becomes_srgb_where_a_format_has_rgb_alone(format: str) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(8, 0).repeat(8, 1)
    curve = ImageCms.ImageCmsProfile(io.BytesIO(gray_profile(1.8)))
    data = encode_picture(Picture(ramp, icc=curve.tobytes()), format, quality=100)
    with Image.open(io.BytesIO(data)) as image:
        assert "icc_profile" not in image.info
        shown = np.asarray(image.convert("RGB")).astype(int)
    light = (ramp / 255) ** 1.8
    expected = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert np.abs(shown - expected).mean() < 0.6
    assert np.abs(shown - expected).max() < 4


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_a_quality_beyond_1_to_100_is_refused(quality: int) -> None:
    with pytest.raises(ImageError) as error:
        encode_picture(picture(), "jpeg", quality)
    assert_line(error, str(quality), "1 to 100")


# Depth and colour, as files have them


def test_depth_follows_the_type_not_the_values() -> None:
    dark = np.arange(12, dtype=np.uint16).reshape(3, 4)
    for format in ("png", "tiff"):
        after = read_picture(saved(dark, format))
        assert after.pixels.dtype == np.uint16
        np.testing.assert_array_equal(after.pixels[..., 0], dark)


def test_one_bit_images_are_gray_of_eight() -> None:
    bits = noise(9, 11, 1) > 127
    for format, options in {"png": {}, "tiff": {"compression": "group4"}, "bmp": {}}.items():
        after = read_picture(saved(bits, format, mode="1", **options))
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
def test_gray_colour_and_alpha_are_told_apart(mode: str, format: str) -> None:
    bands = len(mode)
    samples = noise(6, 5, bands)
    after = read_picture(saved(samples, format))
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


def test_bmp_keeps_gray_colour_and_alpha() -> None:
    for bands, mode in ((1, "L"), (3, "RGB")):
        samples = noise(5, 7, bands)
        after = read_picture(saved(samples, "bmp", mode=mode, dpi=(300, 300)))
        np.testing.assert_array_equal(after.pixels, samples)
        assert (after.format, after.dpi) == ("bmp", (300.0, 300.0))


def test_a_classic_test_image_in_bmp_is_gray() -> None:
    images = sorted((Path(__file__).parents[2] / "shared" / "data" / "CAR" / "classic5").rglob("*.bmp"))
    if not images:
        pytest.skip("needs the classic5 images")
    for path in images:
        with Image.open(path) as image:
            np.testing.assert_array_equal(read_picture(path).pixels[..., 0], np.asarray(image.convert("L")))


def test_float_tiff_outside_0_to_1_is_refused() -> None:
    for bad in (-0.1, 812.0, np.nan, np.inf):
        floats = np.full((4, 4), 0.5, np.float32)
        floats[1, 2] = bad
        with pytest.raises(ImageError) as error:
            read_picture(saved(floats, "tiff"))
        assert_line(error, "scale them to 0 to 1")


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
        data = saved(noise(8, 8, 3), "tiff", tiffinfo={tag: value})
        with pytest.raises(ImageError) as error:
            read_picture(data)
        assert_line(error, "raw file")


def test_big_endian_and_big_tiff_are_read() -> None:
    samples = noise(5, 7, 3, "uint16")
    after = read_picture(saved_by_vips(samples, ".tif", "rgb16", bigtiff=True))
    np.testing.assert_array_equal(after.pixels, samples)


# Metadata


def tags_of(data: bytes) -> tuple[Image.Exif, dict[int, object], dict[int, object]]:
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
        return exif, exif.get_ifd(EXIF_PART), exif.get_ifd(GPS_PART)


@pytest.mark.parametrize("target", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("source", ["png", "jpeg", "webp", "tiff", "avif"])
@pytest.mark.parametrize("order", ["II", "MM"])
def test_metadata_survives_from_every_format_to_every_format(source: str, target: str, order: str) -> None:
    options: dict[str, Any] = {"xmp": XMP} if source != "tiff" else {}
    block = exif_block(orientation=6, order=order)
    before = read_picture(saved(noise(4, 6, 3), source, exif=block, icc_profile=ICC, **options))
    assert before.pixels.shape == (6, 4, 3)
    larger = replace(before, pixels=noise(12, 8, 3))
    data = encode_picture(larger, target)

    main, exif, gps = tags_of(data)
    assert main[MAKE] == "Camera works"
    assert main[COPYRIGHT] == "A. Nobody"
    assert main.get(ORIENTATION, 1) == 1
    assert exif[MAKER] == MAKER_NOTE
    assert exif[EXPOSURE] == (1, 250)
    assert (exif[WIDTH], exif[HEIGHT]) == (8, 12)
    assert gps[2] == (48.0, 8.0, 12.5)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (8, 12)
        image.load()
        assert image.info["icc_profile"] == ICC

    after = read_picture(data)
    assert after.icc == ICC
    if source not in ("png", "tiff"):  # Pillow does not write XMP there
        assert before.xmp == after.xmp == XMP.replace(b'"6"', b'"1"')
    assert before.exif is not None
    assert after.exif is not None
    if "tiff" not in (source, target):
        assert len(after.exif) == len(before.exif)


def test_xmp_tells_the_size_of_the_result_and_has_no_thumbnail() -> None:
    xmp = (
        b'<rdf:Description tiff:ImageWidth="7" tiff:ImageLength = "5" tiff:Orientation="8" dc:id="7">'
        b"<exif:PixelXDimension>7</exif:PixelXDimension><exif:PixelYDimension> 5</exif:PixelYDimension>"
        b"<xmp:Thumbnails><rdf:Alt>\n/9j/4AAQ</rdf:Alt></xmp:Thumbnails></rdf:Description>"
    )
    for format in ("png", "jpeg", "webp", "tiff", "avif"):
        data = encode_picture(replace(picture(20, 30), xmp=xmp), format)
        assert read_picture(data).xmp == (
            b'<rdf:Description tiff:ImageWidth="30" tiff:ImageLength = "20" tiff:Orientation="1" dc:id="7">'
            b"<exif:PixelXDimension>30</exif:PixelXDimension>"
            b"<exif:PixelYDimension> 20</exif:PixelYDimension></rdf:Description>"
        )


def test_exif_keeps_its_bytes_but_for_what_has_to_change() -> None:
    block = exif_block(orientation=8)
    before = read_picture(saved(noise(4, 6, 3), "png", exif=block))
    assert before.exif is not None
    assert len(before.exif) == len(block)
    changed = [i for i, (old, new) in enumerate(zip(block, before.exif, strict=True)) if old != new]
    assert len(changed) <= 12  # of three entries: the value, and the type of the sizes
    for format in ("png", "jpeg", "webp"):
        assert read_picture(encode_picture(before, format)).exif == before.exif


@pytest.mark.parametrize("big", [True, False])
@pytest.mark.parametrize("order", ["II", "MM"])
def test_large_files_are_big_tiff_with_all_metadata(
    big: bool, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if big:
        monkeypatch.setattr("mambair_cli.images.encoding._BIGTIFF_BYTES", 0)
    before = replace(picture(), exif=exif_block(order=order), xmp=XMP, icc=ICC)
    data = encode_picture(before, "tiff")
    assert data[2] == (43 if big else 42)
    after = read_picture(data)
    np.testing.assert_array_equal(after.pixels, before.pixels)
    assert (after.icc, after.xmp) == (ICC, XMP.replace(b'"6"', b'"1"'))
    for whole in (data, encode_picture(after, "png")):
        main, exif, gps = tags_of(whole)
        assert main[MAKE] == "Camera works"
        assert exif[MAKER] == MAKER_NOTE
        assert gps[2] == (48.0, 8.0, 12.5)


def test_no_pointer_into_the_void_goes_into_tiff() -> None:
    exif = Image.Exif()
    exif.get_ifd(EXIF_PART)[INTEROPERABILITY] = {1: "R98"}
    exif.get_ifd(EXIF_PART)[EXPOSURE] = (1, 250)
    before = replace(picture(), exif=exif.tobytes())
    assert INTEROPERABILITY in tags_of(encode_picture(before, "jpeg"))[1]
    after = tags_of(encode_picture(before, "tiff"))[1]
    assert INTEROPERABILITY not in after
    assert after[EXPOSURE] == (1, 250)


def test_the_thumbnail_of_the_file_as_it_was_is_unlinked() -> None:
    block = exif_block(thumbnail=True)
    after = read_picture(saved(noise(4, 6, 3), "png", exif=block)).exif
    assert after is not None
    pointer = 10 + 12 * int.from_bytes(after[8:10], "big")
    assert int.from_bytes(block[pointer : pointer + 4], "big") > 0
    assert int.from_bytes(after[pointer : pointer + 4], "big") == 0


def test_nothing_is_invented_where_a_file_says_nothing() -> None:
    for format in DTYPES:
        data = encode_picture(picture(), format)
        with Image.open(io.BytesIO(data)) as image:
            for key in ("exif", "xmp", "icc_profile", "photoshop"):
                assert key not in image.info
            assert image.info.get("dpi", (72.0, 72.0)) == (72.0, 72.0)
            assert ("dpi" in image.info) == (format == "tiff")
        after = read_picture(data)
        assert (after.icc, after.exif, after.xmp, after.iptc) == (None, None, None, None)


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff"])
@pytest.mark.parametrize("with_exif", [False, True])
def test_resolution_survives(format: str, with_exif: bool) -> None:
    block = exif_block(orientation=6) if with_exif else None
    before = read_picture(saved(noise(4, 6, 3), format, dpi=(300, 100), exif=block))
    assert before.dpi == ((100.0, 300.0) if with_exif else (300.0, 100.0))
    for target in ("png", "jpeg", "tiff"):
        data = encode_picture(before, target)
        assert read_picture(data).dpi == before.dpi
        with Image.open(io.BytesIO(data)) as image:
            assert image.info["dpi"] == pytest.approx(before.dpi, abs=0.01)


@pytest.mark.parametrize("target", ["jpeg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("with_exif", [False, True])
def test_iptc_goes_from_jpeg_to_everywhere_and_back(target: str, with_exif: bool) -> None:
    before = replace(picture(16, 16), iptc=IPTC, exif=exif_block() if with_exif else None)
    data = encode_picture(before, target)
    after = read_picture(data)
    assert after.iptc == IPTC
    assert read_picture(encode_picture(after, "jpeg")).iptc == IPTC
    with Image.open(io.BytesIO(data)) as image:
        found = IptcImagePlugin.getiptcinfo(image) or {}
        if target in ("jpeg", "tiff"):  # where Pillow looks for it
            assert found[2, 5] == b"Meadows"
        else:
            assert b"Meadows" in image.getexif()[0x83BB]
        if with_exif:
            assert image.getexif()[MAKE] == "Camera works"
            assert image.getexif().get_ifd(EXIF_PART)[MAKER] == MAKER_NOTE


def test_a_broken_block_of_photoshop_costs_no_picture() -> None:
    for broken in (b"", b"Photoshop 3.0\0", IPTC[:20], IPTC[:25], b"8BIM" * 9):
        for format in ("png", "tiff", "jpeg"):
            before = replace(picture(16, 16), iptc=broken, exif=exif_block())
            np.testing.assert_array_equal(
                read_picture(encode_picture(before, format)).pixels.shape, before.pixels.shape
            )


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_broken_exif_costs_no_picture(data: st.DataObject) -> None:
    block = bytearray(exif_block(orientation=6))
    for _ in range(data.draw(st.integers(1, 4))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    block = block[: data.draw(st.integers(0, len(block)))]
    pixels = noise(4, 6, 3)
    for format in ("png", "tiff"):
        broken = replace(picture(), pixels=pixels, exif=bytes(block))
        after = read_picture(encode_picture(broken, format))
        np.testing.assert_array_equal(after.pixels, pixels)  # upright: what is kept does not turn it


# For an image of the rows "abc" and "def", stored; what a viewer shows for each orientation.
TURNED = {
    1: ["abc", "def"],
    2: ["cba", "fed"],
    3: ["fed", "cba"],
    4: ["def", "abc"],
    5: ["ad", "be", "cf"],
    6: ["da", "eb", "fc"],
    7: ["fc", "eb", "da"],
    8: ["cf", "be", "ad"],
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff", "avif"])
def test_orientation_is_applied_and_reset(orientation: int, format: str) -> None:
    block = 16  # pixels a letter, for JPEG and AVIF to be exact enough
    rows = np.array([list(row.encode()) for row in ("abc", "def")], np.uint8) * 40
    stored = np.kron(rows[..., None], np.ones((block, block, 3), np.uint8))
    options: dict[str, Any] = {"lossless": True} if format == "webp" else {"quality": 95}
    after = read_picture(saved(stored, format, exif=exif_block(orientation), **options))

    letters = np.array([list(row.encode()) for row in TURNED[orientation]], np.uint8) * 40
    expected = np.kron(letters[..., None], np.ones((block, block, 3), np.uint8))
    assert after.pixels.shape == expected.shape
    assert np.abs(after.pixels.astype(int) - expected).max() <= 3
    assert after.pixels.flags.c_contiguous
    again = read_picture(encode_picture(after, "png"))
    np.testing.assert_array_equal(again.pixels, after.pixels)


def test_alpha_turns_with_the_pixels() -> None:
    samples = noise(3, 5, 4)
    after = read_picture(saved(samples, "png", exif=exif_block(6)))
    assert after.alpha is not None
    np.testing.assert_array_equal(after.pixels, np.rot90(samples[..., :3], -1))
    np.testing.assert_array_equal(after.alpha, np.rot90(samples[..., 3], -1))


# Broken and hostile input

PNG = encode_picture(picture(40, 30), "png")
JPEG = encode_picture(picture(40, 30), "jpeg")


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (b"", ["empty"]),
        (b"Dear photographer,\nthis is text.", ["no image of a known kind", "png, jpeg"]),
        (b"\n", ["no image of a known kind"]),
        (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", ["no image of a known kind"]),
        (b"\0\0\0\x18ftypheic\0\0\0\0", ["heic data is corrupt"]),
        (b"P6 2 2 255 " + bytes(11), ["ppm data is corrupt", "11 of 12 samples"]),
        (b"P6 2 2 70000 " + bytes(11), ["ppm data is corrupt", "70000"]),
        (b"P2 2 2 7 1 2 3 8 ", ["ppm data is corrupt", "larger than its white, 7"]),
        (b"P6 two 2 255 ", ["ppm data is corrupt", "no sizes"]),
        (b"P7 WIDTH 2", ["PAM"]),
        (b"v/1\x01", ["exr data is corrupt"]),
        (b"\0\0\0\x0cjP  ", ["jpeg2000 data is corrupt"]),
        (b"\xff\x4f\xff\x51", ["jpeg2000 data is corrupt"]),
        (b"%PDF-1.7", ["PDF"]),
        (b"\x89PNG\r\n\x1a\n", ["png data is corrupt"]),
        (b"\xff\xd8\xff", ["jpeg data is corrupt"]),
        (b"II*\0", ["tiff data is corrupt"]),
        (b"II+\0\x08\0\0\0" + bytes([16]) + bytes(13) + b"\1\0", ["tiff data is corrupt"]),  # 2**40 entries
        (b"BM", ["bmp data is corrupt"]),
        (b"BMW is a maker of cars", ["bmp data is corrupt"]),
        (b"GIF89a", ["gif data is corrupt"]),
        (b"RIFF\0\0\0\0WEBP", ["webp data is corrupt"]),
        (b"\0\0\0\x18ftypavif\0\0\0\0", ["avif data is corrupt"]),
    ],
    ids=lambda value: repr(value)[:20] if isinstance(value, bytes) else "",
)
def test_what_is_no_image_is_an_error_of_one_line(
    data: bytes, parts: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    with pytest.raises(ImageError) as error:
        read_picture(path)
    assert_line(error, str(path), *parts)
    with pytest.raises(ImageError) as error:
        read_picture(data)
    assert_line(error, *parts)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("data", [PNG, JPEG], ids=["png", "jpeg"])
def test_a_file_cut_short_gives_no_gray_rows(data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    whole = read_picture(data).pixels
    failures = 0
    for length in range(len(data)):
        try:
            after = read_picture(data[:length])
        except ImageError:
            failures += 1
        else:  # only the mark of the end is missing
            np.testing.assert_array_equal(after.pixels, whole)
    assert failures >= len(data) - 12
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff", "gif", "avif", "bmp"])
@given(data=st.data())
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_gives_a_picture_or_an_error(
    format: str, data: st.DataObject, capfd: pytest.CaptureFixture[str]
) -> None:
    exif, profile = (None, None) if format in ("gif", "bmp") else (exif_block(6), ICC)
    damaged = bytearray(saved(noise(8, 9, 3), format, exif=exif, icc_profile=profile))
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ImageError):
        read_picture(bytes(damaged), max_pixels=10**6)
    assert capfd.readouterr() == ("", "")


def test_an_earlier_files_trouble_does_not_explain_this_ones() -> None:
    start = JPEG.index(b"\xff\xda")
    stray = JPEG[:start] + b"\0\0\0" + JPEG[start:]  # as some cameras write: a warning, no error
    np.testing.assert_array_equal(read_picture(stray).pixels, read_picture(JPEG).pixels)
    with pytest.raises(ImageError) as error:
        read_picture(PNG[:-200])
    assert "extraneous" not in str(error.value)


def test_directories_that_hold_too_much_take_no_memory() -> None:
    entries = 5000
    length = 200_000
    head = struct.pack("<2sHIH", b"II", 42, 8, entries)
    everything = b"".join(struct.pack("<HHII", 1000 + tag, 7, length - 1, 1) for tag in range(entries))
    hostile = (head + everything).ljust(length, b"\0")  # a gigabyte of values
    tracemalloc.start()
    try:
        with pytest.raises(ImageError) as error:
            read_picture(hostile)
        assert tracemalloc.get_traced_memory()[1] < 10 * length
    finally:
        tracemalloc.stop()
    assert_line(error, "tiff data is corrupt")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff", "gif", "avif", "bmp"])
def test_bombs_are_refused_by_their_header(format: str) -> None:
    data = saved(noise(10, 11, 3), format)
    assert read_picture(data, max_pixels=110).pixels.shape[:2] == (10, 11)
    with pytest.raises(ImageError) as error:
        read_picture(data, max_pixels=109)
    assert_line(error, "11×10", "109")


def test_a_png_that_claims_to_be_vast_takes_no_memory() -> None:
    header = (1_000_000).to_bytes(4, "big") * 2
    chunk = b"IHDR" + header + PNG[24:29]
    bomb = PNG[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + PNG[33:]
    with pytest.raises(ImageError) as error:
        read_picture(bomb)
    assert_line(error, "1000000×1000000")


def test_missing_files_folders_and_links_say_so(tmp_path: Path) -> None:
    dangling, loop = tmp_path / "dangling.png", tmp_path / "loop.png"
    dangling.symlink_to(tmp_path / "gone.png")
    loop.symlink_to(loop)
    for path, part in (
        (tmp_path, "it is a folder"),
        (tmp_path / "none.png", "does not exist"),
        (dangling, "gone.png, which is missing"),
        (loop, "loop.png"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(ImageError) as error:
            read_picture(path)
        assert_line(error, str(path), part)


def test_a_link_is_read_through(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(PNG)
    (tmp_path / "link.png").symlink_to("real.png")
    assert read_picture(tmp_path / "link.png").pixels.shape == (40, 30, 3)


def test_a_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(PNG))
    feeder.start()
    assert read_picture(pipe).pixels.shape == (40, 30, 3)
    feeder.join()


def test_a_file_that_changed_is_not_read_from_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    for seed in range(3):
        samples = noise(8, 8, 3, seed=seed)
        path.write_bytes(saved(samples, "png", compress_level=0))  # of one size
        os.utime(path, (1, 1))  # and time
        np.testing.assert_array_equal(read_picture(path).pixels, samples)


def test_a_file_that_is_exchanged_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    with open_picture(path) as reader:
        path.write_bytes(PNG + b"more")
        with pytest.raises(ImageError) as error:
            reader.read(0, 40)
    assert_line(error, str(path), "it changes while it is read")


# Row by row


@given(st.data())
@settings(max_examples=60)
def test_rows_are_those_of_the_whole(data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(["png", "tiff", "jpeg", "webp", "gif", "bmp", "avif"]))
    options: dict[str, Any] = {"exif": exif_block(data.draw(st.sampled_from([1, 2, 3, 6])))}
    file = saved(noise(40, 30, 3), format, **({} if format in ("gif", "bmp") else options))
    whole = read_picture(file).samples
    with open_picture(file) as reader:
        for _ in range(data.draw(st.integers(1, 3))):  # begins anew at the top
            top = 0
            while top < len(whole):
                bottom = min(len(whole), top + data.draw(st.integers(1, 30)))
                np.testing.assert_array_equal(reader.read(top, bottom), whole[top:bottom])
                top = bottom


@pytest.mark.parametrize("format", ["png", "tiff", "jpeg", "webp", "avif", "gif"])
def test_a_writer_that_begins_anew_writes_what_it_would_have(format: str) -> None:
    whole = replace(picture(60, 40), exif=exif_block())
    file = io.BytesIO()
    with Writer(file, fit_header(whole.header, format, "it"), format, None, "it") as writer:
        writer.write(0, noise(50, 40, 3, seed=9))
        writer.write(0, whole.pixels[:25])
        writer.write(25, whole.pixels[25:])
        writer.finish()
    assert file.getvalue() == encode_picture(whole, format)


def test_a_writer_wants_rows_in_order() -> None:
    header = fit_header(picture().header, "png", "it")
    with Writer(io.BytesIO(), header, "png", None, "it") as writer:
        with pytest.raises(ValueError, match="no row came"):
            writer.finish()
        writer.write(0, picture().pixels[:3])
        with pytest.raises(ValueError, match="row 4 came where row 3 is the next one"):
            writer.write(4, picture().pixels[4:])
    assert threading.active_count() == 1


# Names

NAMES = [
    "a[1].png",
    "[compression=0].png",
    "two words.png",
    "-dash.png",
    "--.png",
    "💥 ünï.png",
    "line\nbreak.png",
    "per%cent,comma;colon:.png",
    "x" * 251 + ".png",
    "é" * 125 + "x.png",
    "UPPER.PNG",
    b"latin-\xfc.png".decode("utf-8", "surrogateescape"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_are_taken_as_they_are(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = picture()
    write_picture(before, Path(name))
    assert os.listdir() == [name]
    np.testing.assert_array_equal(read_picture(Path(name)).pixels, before.pixels)
    Path(name).write_bytes(PNG[:-100])
    with pytest.raises(ImageError) as error:
        read_picture(Path(name))
    assert_line(error)
    with pytest.raises(ImageError) as error:
        write_picture(before, Path(name))
    assert_line(error, "exists")


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.png", "png"),
        ("a.JPG", "jpeg"),
        ("a.b.jpeg", "jpeg"),
        ("a.webp", "webp"),
        ("a.tif", "tiff"),
        (".x.TIFF", "tiff"),
    ],
)
def test_the_suffix_names_the_format(name: str, format: str, tmp_path: Path) -> None:
    assert format_of(Path(name)) == format
    write_picture(picture(), tmp_path / name)
    assert read_picture(tmp_path / name).format == format


def test_every_suffix_that_can_be_written_can_be_read() -> None:
    for format, suffixes in WRITABLE_SUFFIXES.items():
        assert {format_of(Path("a" + suffix)) for suffix in suffixes} == {format}
        assert set(suffixes) <= READABLE_SUFFIXES


@pytest.mark.parametrize("name", ["a", "a.bmp", "a.jxl", ".png", "a.png.tmp", "a.p\nng"])
def test_a_suffix_that_names_none_is_refused_with_those_that_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError) as error:
        write_picture(picture(), tmp_path / name)
    assert_line(error, "png, jpeg, webp, tiff, avif and gif")
    write_picture(picture(), tmp_path / name, format="webp")
    assert read_picture(tmp_path / name).format == "webp"


def test_a_format_that_the_name_belies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as error:
        write_picture(picture(), tmp_path / "a.png", format="jpeg")
    assert_line(error, "jpeg", "its name asks for png")
    with pytest.raises(ImageError) as error:
        write_picture(picture(), tmp_path / "a", format="doc")
    assert_line(error, "png, jpeg, webp, tiff, avif and gif")
    assert os.listdir(tmp_path) == []


# Writing


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_picture(picture(), tmp_path / "a.png")
        write_picture(picture(5, 5), tmp_path / "a.png", overwrite=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_what_exists_is_kept_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("precious")
    with pytest.raises(ImageError) as error:
        write_picture(picture(), path)
    assert_line(error, str(path), "--overwrite")
    assert path.read_text() == "precious"
    write_picture(picture(), path, overwrite=True)
    assert read_picture(path).pixels.shape == (5, 7, 3)
    assert os.listdir(tmp_path) == ["a.png"]


@contextmanager
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)  # as FAT does
        yield


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_kept(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"

    def write() -> None:
        with open_atomic(path) as file:
            file.write(b"late")
            path.write_bytes(b"early")

    with nullcontext() if links else no_hard_links(monkeypatch), pytest.raises(ImageError) as error:
        write()
    assert_line(error, "exists")
    assert path.read_bytes() == b"early"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("links", [True, False])
def test_of_many_writers_one_wins_whole(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, barrier, won = tmp_path / "a.bin", threading.Barrier(8), []

    def write(number: int) -> None:
        barrier.wait()
        try:
            with open_atomic(path) as file:
                file.write(bytes([number]) * 100_000)
        except ImageError:
            return
        won.append(number)

    def race() -> None:
        writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()

    with nullcontext() if links else no_hard_links(monkeypatch):
        race()
    assert len(won) == 1
    assert path.read_bytes() == bytes(won) * 100_000
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_writer_that_fails_leaves_everything_as_it_was(overwrite: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    if overwrite:
        path.write_bytes(b"before")

    def write() -> None:
        with open_atomic(path, overwrite=overwrite) as file:
            file.write(b"half")
            file.flush()
            assert path.exists() == overwrite
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert os.listdir(tmp_path) == (["a.bin"] if overwrite else [])
    assert not overwrite or path.read_bytes() == b"before"


def test_a_link_is_replaced_not_what_it_points_to(tmp_path: Path) -> None:
    original, link = tmp_path / "original.png", tmp_path / "link.png"
    original.write_bytes(PNG)
    link.symlink_to(original)
    with pytest.raises(ImageError) as error:
        write_picture(picture(), link)
    assert_line(error, "exists")
    write_picture(picture(), link, overwrite=True)
    assert original.read_bytes() == PNG
    assert not link.is_symlink()

    dangling = tmp_path / "dangling.png"
    dangling.symlink_to(tmp_path / "gone.png")
    with pytest.raises(ImageError) as error:
        write_picture(picture(), dangling)
    assert_line(error, "exists")
    assert not (tmp_path / "gone.png").exists()


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "null.png").symlink_to("/dev/null")
    for name in ("folder.png", "pipe.png", "null.png"):
        with pytest.raises(ImageError) as error:
            write_picture(picture(), tmp_path / name, overwrite=True)
        assert_line(error, name)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_places_that_cannot_be_written_say_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path, part in (
        (tmp_path / "none" / "a.png", "its folder does not exist; create it"),
        (tmp_path / "file" / "a.png", "its folder is a file"),
        (tmp_path / ("x" * 300 + ".png"), "too long"),
        (Path("/proc/a.png"), "/proc/a.png"),
    ):
        with pytest.raises(ImageError) as error:
            write_picture(picture(), path)
        assert_line(error, str(path), part)


@contextmanager
def common_user() -> Iterator[Path]:
    """Give a folder, and be a user whom permissions bind, as the superuser is not."""
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        user = os.geteuid()
        (Path(folder) / "secret.png").write_bytes(PNG)
        (Path(folder) / "secret.png").chmod(0)
        (Path(folder) / "locked").mkdir()
        (Path(folder) / "locked").chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)


def test_permissions_that_forbid_it_are_named() -> None:
    with common_user() as folder:
        with pytest.raises(ImageError) as error:
            read_picture(folder / "secret.png")
        assert_line(error, "secret.png", "permissions")
        with pytest.raises(ImageError) as error:
            write_picture(picture(), folder / "locked" / "a.png")
        assert_line(error, "a.png", "permissions")
        assert os.listdir(folder / "locked") == []


def test_a_full_disk_leaves_nothing_behind(small_disk: Path) -> None:
    with pytest.raises(ImageError) as error:
        write_picture(picture(300, 300), small_disk / "new.png")
    assert_line(error, "new.png", "the disk is full")
    assert os.listdir(small_disk) == []


def test_a_quota_that_is_used_up_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as error, open_atomic(tmp_path / "new.png"):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    assert_line(error, "new.png", "your quota of the disk is used up; free some space or write elsewhere")
    assert os.listdir(tmp_path) == []


def test_a_limit_of_file_sizes_leaves_nothing_behind(tmp_path: Path) -> None:
    large = picture(200, 200)
    (tmp_path / "old.png").write_bytes(PNG)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # Python ignores the signal: write() fails
    try:
        with pytest.raises(ImageError) as error:
            write_picture(large, tmp_path / "new.png")
        assert_line(error, "new.png", "write elsewhere")
        with pytest.raises(ImageError) as error:
            write_picture(large, tmp_path / "old.png", overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == PNG


def test_images_need_no_torch() -> None:
    code = "import sys, mambair_cli.images; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("False\n", "")
