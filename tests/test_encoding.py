"""Pictures as files: what lossless formats give back, how close others come, what a format cannot hold."""

import io
from dataclasses import replace

import numpy as np
import pytest
from error_lines import assert_line
from hypothesis import given, settings
from hypothesis import strategies as st
from metadata import GRAY_ICC, ICC, XMP, exif_block
from pictures import make_picture, noise
from PIL import Image, ImageCms, JpegImagePlugin
from profiles import gray_profile

from mambair_cli.errors import ImageError
from mambair_cli.images import Picture, encode_picture, from_float, read_picture
from mambair_cli.images.picture import Metadata

DTYPES = {
    "png": ["uint8", "uint16"],
    "tiff": ["uint8", "uint16", "float32"],
    "webp": ["uint8"],
    "jpeg": ["uint8"],
}


@st.composite
def lossless(draw: st.DrawFn) -> tuple[Picture, str]:
    format = draw(st.sampled_from(["png", "tiff", "webp"]))
    bands = 3 if format == "webp" else draw(st.sampled_from([1, 3]))
    dtype = draw(st.sampled_from(DTYPES[format]))
    side = st.one_of(st.just(1), st.integers(1, 40))
    samples = noise(draw(side), draw(side), bands + 1, dtype=dtype, seed=draw(st.integers(0, 2**32)))
    alpha = np.ascontiguousarray(samples[..., bands]) if draw(st.booleans()) else None
    pixels = samples[..., :bands]  # a view, not contiguous
    profile = ICC if bands == 3 else GRAY_ICC
    icc = draw(st.sampled_from([None, profile]))
    xmp = draw(st.sampled_from([None, XMP]))
    exif = draw(st.sampled_from([None, exif_block(), exif_block(order="II")]))
    return Picture(pixels, alpha, format, icc, Metadata(exif=exif, xmp=xmp)), format


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
    assert (after.metadata.xmp is None) == (before.metadata.xmp is None)
    assert (after.metadata.exif is None) == (before.metadata.exif is None)


@pytest.mark.parametrize("bands", [1, 3])
def test_jpeg_comes_close_and_keeps_gray_gray(bands: int) -> None:
    before = Picture(np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], bands, axis=2))
    after = read_picture(encode_picture(before, "jpeg"))
    assert after.pixels.shape == before.pixels.shape
    assert np.abs(after.pixels.astype(int) - before.pixels).max() <= 3


def test_jpeg_is_not_subsampled_and_quality_has_an_effect() -> None:
    colours = make_picture(32, 32)
    sizes = [len(encode_picture(colours, "jpeg", quality)) for quality in (1, 50, None, 100)]
    assert sizes == sorted(set(sizes))
    for quality in (1, 50, None):
        with Image.open(io.BytesIO(encode_picture(colours, "jpeg", quality))) as image:
            assert isinstance(image, JpegImagePlugin.JpegImageFile)
            assert JpegImagePlugin.get_sampling(image) == 0


def test_webp_is_lossy_below_100_and_its_quality_has_an_effect() -> None:
    colours = make_picture(32, 32)
    sizes = [len(encode_picture(colours, "webp", quality)) for quality in (1, 50, None)]
    assert sizes == sorted(set(sizes))


def test_webp_keeps_colours_under_transparency() -> None:
    before = replace(make_picture(), alpha=np.zeros((5, 7), np.uint8))
    after = read_picture(encode_picture(before, "webp", quality=100))
    np.testing.assert_array_equal(after.pixels, before.pixels)


def test_sixteen_bits_are_rounded_to_the_nearest_eight() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    after = read_picture(encode_picture(Picture(np.repeat(every, 3, axis=2)), "webp", quality=100))
    expected = np.floor(every / 257 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(after.pixels, np.repeat(expected, 3, axis=2))


def test_floats_become_sixteen_bits_in_png_and_eight_in_jpeg() -> None:
    before = make_picture(dtype="float32")
    after = read_picture(encode_picture(before, "png"))
    np.testing.assert_array_equal(after.pixels, from_float(before.pixels, "uint16"))
    assert read_picture(encode_picture(before, "jpeg")).pixels.dtype == np.uint8


def test_jpeg_refuses_to_lose_transparency() -> None:
    alpha = np.full((5, 7), 65535, np.uint16)
    opaque = replace(make_picture(dtype="uint16"), alpha=alpha)
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


@pytest.mark.parametrize(
    ("metadata", "words"),
    [(Metadata(exif=bytes(70000)), ("EXIF", "70000")), (Metadata(xmp=bytes(65503)), ("XMP", "65503"))],
    ids=["exif", "xmp"],
)
def test_metadata_that_jpeg_cannot_hold_is_refused(metadata: Metadata, words: tuple[str, str]) -> None:
    with pytest.raises(ImageError) as error:
        encode_picture(replace(make_picture(), metadata=metadata), "jpeg")
    assert_line(error, *words)


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
        encode_picture(make_picture(), "jpeg", quality)
    assert_line(error, str(quality), "1 to 100")
