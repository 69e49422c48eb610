import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pictures import noise
from PIL import Image
from repository import SHARED

from mambair_cli.quality.degrade import add_noise, compress_jpeg, imresize, modcrop

DATA = SHARED / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the test images are not part of the repository")

SCALES = [1 / 4, 1 / 3, 1 / 2, 0.7, 1, 1.5, 2, 3, 4]


def kernel(x: float) -> float:
    """Follow Keys' equation (15), one number at a time."""
    x = abs(x)
    if x < 1:
        return 3 / 2 * x**3 - 5 / 2 * x**2 + 1
    if x < 2:
        return -1 / 2 * x**3 + 5 / 2 * x**2 - 4 * x + 2
    return 0


def resize_line(line: np.ndarray, scale: float) -> list[float]:
    """Sum over a mirrored line, wherever the kernel reaches; pixel j covers [j, j + 1]."""
    stretch = max(1, 1 / scale)
    margin = math.ceil(2 * stretch)
    mirrored = np.pad(line, margin, "symmetric")
    result = []
    for i in range(math.ceil(scale * len(line))):
        centre = (i + 0.5) / scale
        weights = [kernel((centre - (j - margin + 0.5)) / stretch) for j in range(len(mirrored))]
        result.append(math.fsum(w * v for w, v in zip(weights, mirrored, strict=True)) / math.fsum(weights))
    return result


# Resizing


@pytest.mark.parametrize("scale", SCALES)
def test_resizing_follows_the_formula(scale: float):
    image = noise(16, 19, dtype=np.float64)
    columns = np.apply_along_axis(resize_line, 0, image, scale)
    expected = np.apply_along_axis(resize_line, 1, columns, scale)
    resized = imresize(image, scale)
    assert resized.dtype == np.float64
    np.testing.assert_allclose(resized, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1 / 4, 1 / 3, 1 / 2, 0.7, 2, 3, 4])
def test_8_bits_are_rounded_after_each_axis_vertical_first(scale: float):
    image = noise(16, 19)
    expected = image
    for axis in (0, 1):
        expected = np.floor(np.apply_along_axis(resize_line, axis, expected, scale) + 0.5).clip(0, 255)
    resized = imresize(image, scale)
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized, expected)
    horizontal_first = imresize(image.T, scale).T
    assert (resized != horizontal_first).any()


def test_a_single_pixel_spreads_as_computed_by_hand():
    line = np.zeros((12, 20))
    line[:, 8] = 256
    # Halving: k(1/4) = 111/128, k(3/4) = 29/128, k(5/4) = -9/128, k(7/4) = -3/128, each times 1/2.
    halved = imresize(line, 1 / 2)
    np.testing.assert_array_equal(halved, [[0, 0, -3, 29, 111, -9, 0, 0, 0, 0]] * 6)
    doubled = imresize(line / 2, 2)
    expected = np.zeros(40)
    expected[13:21] = -3, -9, 29, 111, 111, 29, -9, -3
    np.testing.assert_array_equal(doubled, [expected] * 24)


def test_halves_are_rounded_up_and_the_range_is_kept():
    line = np.zeros((12, 20), np.uint8)
    line[:, 8] = 128
    np.testing.assert_array_equal(imresize(line, 1 / 2), [[0, 0, 0, 15, 56, 0, 0, 0, 0, 0]] * 6)
    np.testing.assert_array_equal(imresize(255 - line, 1 / 2)[0], [255, 255, 255, 241, 200, 255, *[255] * 4])


@given(st.sampled_from(SCALES), st.integers(1, 20), st.integers(1, 20), st.integers(0, 255))
def test_a_constant_stays_constant(scale: float, height: int, width: int, value: int):
    image = np.full((height, width, 3), value, np.uint8)
    resized = imresize(image, scale)
    assert resized.shape == (math.ceil(scale * height), math.ceil(scale * width), 3)
    assert (resized == value).all()
    np.testing.assert_allclose(imresize(image / 255, scale), value / 255, rtol=0, atol=1e-12)


values = st.floats(-1, 1, width=32)
images = hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=values)


@given(images, st.sampled_from(SCALES), values, st.data())
def test_resizing_is_linear(image: np.ndarray, scale: float, factor: float, data: st.DataObject):
    other = data.draw(hnp.arrays(np.float64, image.shape, elements=values))
    together = imresize(image + factor * other, scale)
    apart = imresize(image, scale) + factor * imresize(other, scale)
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-12)


@given(images, st.integers(1, 4), st.booleans(), st.sampled_from([0, 1]))
def test_flips_commute(image: np.ndarray, factor: int, shrink: bool, axis: int):
    if shrink:
        image = image.repeat(factor, axis=0).repeat(factor, axis=1)
    scale = 1 / factor if shrink else factor
    flipped = np.flip(imresize(np.flip(image, axis), scale), axis)
    np.testing.assert_allclose(flipped, imresize(image, scale), rtol=0, atol=1e-12)


def test_channels_do_not_mix():
    image = noise(12, 15, 3)
    apart = np.stack([imresize(image[:, :, channel], 1 / 3) for channel in range(3)], axis=2)
    np.testing.assert_array_equal(imresize(image, 1 / 3), apart)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_scale_one_changes_nothing(dtype: type):
    image = noise(7, 9, 3).astype(dtype)
    resized = imresize(image, 1)
    assert resized.dtype == dtype
    np.testing.assert_array_equal(resized, image)


@pytest.mark.parametrize(
    ("image", "scale", "message"),
    [
        (np.zeros(5), 2, r"\(5,\)"),
        (np.zeros((1, 5, 5, 3)), 2, r"\(1, 5, 5, 3\)"),
        (np.zeros((5, 5), np.int16), 2, "not int16"),
        (np.zeros((5, 5), np.uint64), 2, "not uint64"),
        (np.zeros((5, 5)), 0, "positive: 0"),
        (np.zeros((5, 5)), -2, "positive: -2"),
        (np.zeros((5, 5)), math.nan, "positive: nan"),
    ],
)
def test_what_cannot_be_resized_is_refused(image: np.ndarray, scale: float, message: str):
    with pytest.raises(ValueError, match=message):
        imresize(image, scale)


def test_modcrop_cuts_right_and_bottom():
    image = noise(13, 17, 3)
    np.testing.assert_array_equal(modcrop(image, 4), image[:12, :16])
    assert modcrop(image[:, :, 0], 3).shape == (12, 15)
    assert modcrop(image[:12, :16], 4).shape == (12, 16, 3)


@needs_data
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_the_published_files_come_out_to_the_bit(name: str, scale: int):
    truths = sorted((DATA / "SR" / name / "HR").iterdir())
    assert truths
    for path in truths:
        published = Image.open(DATA / "SR" / name / f"LR_bicubic/X{scale}" / f"{path.stem}x{scale}.png")
        truth = modcrop(np.asarray(Image.open(path)), scale)
        np.testing.assert_array_equal(imresize(truth, 1 / scale), np.asarray(published), err_msg=path.name)


# Noise


def test_noise_is_what_numpy_draws_from_its_global_seed():
    image = noise(5, 7, 3, dtype=np.float32)
    state = np.random.get_state()
    try:
        np.random.seed(0)
        expected = image + np.random.normal(0, 25 / 255.0, image.shape)
    finally:
        np.random.set_state(state)
    noisy = add_noise(image, 25)
    assert noisy.dtype == np.float32
    np.testing.assert_array_equal(noisy, expected.astype(np.float32))


def test_noise_begins_with_well_known_numbers():
    # The first draws of numpy.random.seed(0), as in countless tutorials.
    first = add_noise(np.zeros((1, 3)), 255)
    np.testing.assert_allclose(first, [[1.76405235, 0.40015721, 0.97873798]], rtol=1e-6)


def test_noise_leaves_the_global_generator_and_the_image_alone():
    image = np.full((50, 50), 0.5, np.float32)
    before = np.random.get_state(legacy=False)["state"]
    add_noise(image, 50)
    after = np.random.get_state(legacy=False)["state"]
    assert before["pos"] == after["pos"]
    np.testing.assert_array_equal(before["key"], after["key"])
    assert (image == 0.5).all()


def test_noise_has_the_asked_strength_and_is_not_clipped():
    noisy = add_noise(np.ones((400, 400, 3), np.float32), 50)
    assert noisy.std() * 255 == pytest.approx(50, rel=0.01)
    assert noisy.mean() == pytest.approx(1, abs=0.002)
    assert noisy.max() > 1.5


def test_a_seed_is_other_noise():
    image = np.zeros((9, 9))
    assert (add_noise(image, 15, seed=1) != add_noise(image, 15)).all()
    np.testing.assert_array_equal(add_noise(image, 15, seed=1), add_noise(image, 15, seed=1))
    np.testing.assert_array_equal(add_noise(image, 0), image)


def test_noise_on_8_bits_or_below_zero_is_refused():
    with pytest.raises(ValueError, match="uint8"):
        add_noise(noise(5, 5), 15)
    with pytest.raises(ValueError, match="-1"):
        add_noise(noise(5, 5, dtype=np.float64), -1)


# JPEG


def smooth(*shape: int) -> np.ndarray:
    return imresize(noise(*shape), 8)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3)])
def test_jpeg_keeps_the_shape_and_harms_more_at_less_quality(shape: tuple[int, ...]):
    image = smooth(*shape)
    errors = []
    for quality in (100, 75, 40, 10, 1):
        result = compress_jpeg(image, quality)
        assert result.shape == image.shape
        assert result.dtype == np.uint8
        errors.append(np.square(result - image.astype(float)).mean())
    assert errors == sorted(errors)
    assert errors[0] < 10
    assert errors[-1] > 100


def test_jpeg_works_in_blocks_of_8():
    image = np.zeros((8, 24), np.uint8)
    image[:, 8:16] = noise(8, 8)
    result = compress_jpeg(image, 10)
    assert (result[:, :8] == 0).all()
    assert (result[:, 16:] == 0).all()
    assert (result[:, 8:16] != image[:, 8:16]).any()


def test_jpeg_halves_the_resolution_of_colour():
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, ::2, 0] = image[:, 1::2, 2] = 255
    result = compress_jpeg(image, 100).astype(float)
    # Red and blue columns have a luma of 76 and 29; their colours run together to one purple.
    chroma = result[:, :, 0] - result[:, :, 2]
    assert abs(chroma[:, ::2].mean() - chroma[:, 1::2].mean()) < 60


@pytest.mark.parametrize(
    ("image", "quality", "message"),
    [
        (noise(5, 5, dtype=np.float64), 10, "float64"),
        (noise(5, 5, 4), 10, r"\(5, 5, 4\)"),
        (noise(5), 10, r"\(5,\)"),
        (noise(5, 5), 0, "0"),
        (noise(5, 5), 101, "101"),
    ],
)
def test_what_jpeg_cannot_hold_is_refused(image: np.ndarray, quality: int, message: str):
    with pytest.raises(ValueError, match=message):
        compress_jpeg(image, quality)


@needs_data
@pytest.mark.parametrize(("quality", "published"), [(10, 27.82), (30, 31.48), (40, 32.43)])
def test_jpeg_gives_the_published_inputs(quality: int, published: float):
    values = []
    for path in sorted((DATA / "CAR" / "classic5").iterdir()):
        image = np.asarray(Image.open(path))
        error = np.square(compress_jpeg(image, quality) - image.astype(float)).mean()
        values.append(10 * math.log10(255**2 / error))
    assert len(values) == 5
    assert np.mean(values) == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("scale", [0.5, 2])
def test_whole_numbers_are_resized_as_floats_are_and_rounded(dtype, scale):
    most = np.iinfo(dtype).max
    step = np.repeat(np.array([[0, most]], dtype), 12, axis=1).repeat(20, axis=0)  # it rings beyond both ends
    smooth = np.random.default_rng(0).uniform(0.3 * most, 0.7 * most, (24, 30, 3)).astype(dtype)
    for image in (step, smooth):
        resized = imresize(image, scale)
        assert resized.dtype == dtype
        exact = imresize(image.astype(np.float64), scale).clip(0, most)
        assert np.abs(resized - exact).max() <= 1.5
