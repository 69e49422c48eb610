"""Samples of images as floats and back, luma and chroma, and what a picture may consist of."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from pictures import noise
from PIL import Image

from mambair_cli.errors import ImageError
from mambair_cli.images import (
    Picture,
    from_float,
    join_luma,
    open_picture,
    read_picture,
    split_luma,
    to_float,
)


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


def test_images_need_no_torch() -> None:
    code = "import sys, mambair_cli.images; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("False\n", "")


def test_floats_of_a_file_that_are_no_samples_are_counted_or_shown(tmp_path: Path) -> None:
    pixels = np.full((40, 30, 3), 0.5, np.float32)
    pixels[2, 3], pixels[39, 0, 0] = (np.nan, np.inf, -np.inf), 1.0001
    pixels[7, 8] = np.nextafter(np.float32(1), np.float32(2))
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb")
    with pytest.raises(ImageError, match="3 of 3600 samples are not finite; replace them by numbers"):
        read_picture(tmp_path / "in.tif")
    with open_picture(tmp_path / "in.tif") as reader:
        with pytest.raises(ImageError, match="3 of 720 samples in rows 1 to 8 of 40 are not finite; replace"):
            reader.read(0, 8)
        with pytest.raises(ImageError, match=r"floats in rows 9 to 40 of 40 lie between 0.5 and 1\.0001; "):
            reader.read(8, 40)
    pixels[2], pixels[39, 0, 0] = -1e-7, 0.5
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb")
    np.testing.assert_array_equal(read_picture(tmp_path / "in.tif").pixels, pixels.clip(0, 1))
