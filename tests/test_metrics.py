import math

import numpy as np
import pytest
import skimage  # which imports its parts when they are used
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pictures import noise
from PIL import Image
from repository import SHARED

from mambair_cli.quality.degrade import imresize, modcrop
from mambair_cli.quality.metrics import luma, psnr, ssim

DATA = SHARED / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the test images are not part of the repository")

random_images = hnp.arrays(np.uint8, st.tuples(st.integers(11, 16), st.integers(11, 16), st.integers(1, 3)))


def blurred_pair(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    image = imresize(noise(*shape), 4)
    return image, imresize(imresize(image, 1 / 4), 4)


# PSNR


def test_psnr_of_a_known_error():
    image = noise(20, 20, 3) // 2
    assert psnr(image, image + 1) == pytest.approx(20 * math.log10(255))
    assert psnr(image, image + 10) == pytest.approx(20 * math.log10(25.5))
    other = image.copy()
    other[3, 4, 1] += 30
    assert psnr(image, other) == pytest.approx(10 * math.log10(255**2 * 20 * 20 * 3 / 30**2))


@given(random_images)
def test_equal_images_have_no_error(image: np.ndarray):
    assert psnr(image, image) == math.inf
    assert psnr(image, image / 255, border=2, luma=True) == math.inf
    assert ssim(image, image) == 1


@given(random_images, st.data())
def test_order_does_not_matter(image: np.ndarray, data: st.DataObject):
    other = data.draw(hnp.arrays(np.uint8, image.shape))
    assert psnr(image, other) == psnr(other, image)
    assert ssim(image, other) == pytest.approx(ssim(other, image), abs=1e-12)
    assert -1 <= ssim(image, other) <= 1


def test_psnr_agrees_with_scikit_image():
    a, b = noise(30, 40, 3), noise(30, 40, 3, seed=1)
    assert psnr(a, b) == pytest.approx(
        skimage.metrics.peak_signal_noise_ratio(a, b, data_range=255), abs=1e-9
    )


def test_floating_point_is_clipped_and_rounded_first():
    image = noise(20, 20)
    assert psnr(image, (image + 0.49) / 255) == math.inf
    assert psnr(image // 2, (image // 2 + 0.51) / 255) == pytest.approx(20 * math.log10(255))
    black, white = np.zeros((20, 20), np.uint8), np.full((20, 20), 255, np.uint8)
    assert psnr(black, np.full((20, 20), -0.7, np.float32)) == math.inf
    assert psnr(white, np.full((20, 20), 1.7, np.float32)) == math.inf
    assert ssim(white, np.full((20, 20), 1.7, np.float32)) == 1


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_the_border_does_not_count(measure):
    image = noise(30, 30, 3)
    other = np.zeros_like(image)
    other[3:-3, 3:-3] = image[3:-3, 3:-3]
    assert measure(image, other, border=3) == measure(image, image)
    assert measure(image, other, border=2) < measure(image, image)
    assert measure(image, other, border=2) == measure(image[2:-2, 2:-2], other[2:-2, 2:-2])


# Luma


def test_luma_runs_from_16_to_235():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    expected = [[16, 235, 81.481, 144.553, 40.966]]
    np.testing.assert_allclose(luma(colours), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(luma(colours.astype(np.float32) / 255), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_colour_counts_by_its_luma(measure):
    a, b = blurred_pair(8, 9, 3)
    # Chroma alone does not count: this moves red and blue against each other at the same luma.
    gray = np.full((20, 20, 3), 120, np.uint8)
    tinted = gray + np.array([40, 0, 0], np.uint8)
    assert measure(gray, tinted, luma=True) > measure(gray, tinted)
    whole_steps = np.rint(luma(a)).astype(np.uint8), np.rint(luma(b)).astype(np.uint8)
    assert measure(a, b, luma=True) == pytest.approx(measure(*whole_steps), rel=2e-3)
    assert measure(a, b, luma=True) != measure(a, b)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_gray_is_compared_as_it_is(measure):
    a, b = blurred_pair(8, 9)
    assert measure(a, b, luma=True) == measure(a, b)
    assert measure(a[:, :, None], b[:, :, None], luma=True) == pytest.approx(measure(a, b), abs=1e-12)


# SSIM


def test_ssim_of_one_window_follows_the_formula():
    a, b = noise(11, 11).astype(float), noise(11, 11, seed=1).astype(float)
    weights = np.array(
        [[math.exp(-((y - 5) ** 2 + (x - 5) ** 2) / 4.5) for x in range(11)] for y in range(11)]
    )
    weights /= weights.sum()
    mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
    var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
    covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
    c1, c2 = 6.5025, 58.5225
    structure = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    contrast = (2 * covariance + c2) / (var_a + var_b + c2)
    assert ssim(a.astype(np.uint8), b.astype(np.uint8)) == pytest.approx(structure * contrast, abs=1e-12)


def test_ssim_of_two_constants_is_their_brightness_alone():
    a, b = np.full((15, 15), 100, np.uint8), np.full((15, 15), 150, np.uint8)
    expected = (2 * 100 * 150 + 6.5025) / (100**2 + 150**2 + 6.5025)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shape", [(20, 31), (20, 31, 3)])
def test_ssim_agrees_with_scikit_image(shape: tuple[int, ...]):
    a, b = blurred_pair(*shape)
    similarity = skimage.metrics.structural_similarity(
        a,
        b,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2 if a.ndim == 3 else None,
        full=True,
    )[1]
    assert 0.3 < ssim(a, b) < 0.99
    assert ssim(a, b) == pytest.approx(similarity[5:-5, 5:-5].mean(), abs=1e-6)


# What cannot be compared


@pytest.mark.parametrize("measure", [psnr, ssim])
@pytest.mark.parametrize(
    ("a", "b", "border", "message"),
    [
        (noise(20, 20, 3), noise(20, 21, 3), 0, r"\(20, 20, 3\) and \(20, 21, 3\)"),
        (noise(20, 20), noise(20, 20, 1), 0, r"\(20, 20\) and \(20, 20, 1\)"),
        (noise(20), noise(20), 0, r"\(20,\)"),
        (noise(20, 20), noise(20, 20), 10, "border of 10"),
        (noise(20, 20), noise(20, 20), -1, "border of -1"),
        (noise(20, 20).astype(np.uint16), noise(20, 20), 0, "uint16"),
    ],
)
def test_what_cannot_be_compared_is_refused(measure, a: np.ndarray, b: np.ndarray, border: int, message: str):
    with pytest.raises(ValueError, match=message):
        measure(a, b, border=border)


def test_ssim_needs_a_whole_window():
    with pytest.raises(ValueError, match="11×11"):
        ssim(noise(20, 10), noise(20, 10))
    with pytest.raises(ValueError, match="border of 5"):
        ssim(noise(20, 20), noise(20, 20), border=5)


def test_luma_needs_three_channels():
    for shape in ((5, 5), (5, 5, 1), (5, 5, 4)):
        with pytest.raises(ValueError, match=r"not \(5, 5"):
            luma(noise(*shape))


# Published numbers


def truths(name: str, scale: int) -> list[np.ndarray]:
    return [
        modcrop(np.asarray(Image.open(path)), scale) for path in sorted((DATA / "SR" / name / "HR").iterdir())
    ]


@needs_data
@pytest.mark.parametrize(
    ("name", "scale", "published_psnr", "published_ssim"),
    [
        ("Set5", 2, 33.67, 0.9299),
        ("Set5", 3, 30.40, 0.8682),
        ("Set5", 4, 28.43, 0.8104),
        ("Set14", 2, 30.23, 0.8688),
        ("Set14", 3, 27.54, 0.7742),
        ("Set14", 4, 25.99, 0.7027),
    ],
)
def test_the_bicubic_baselines_come_out(name: str, scale: int, published_psnr: float, published_ssim: float):
    results = []
    for truth in truths(name, scale):
        upscaled = imresize(imresize(truth, 1 / scale), scale)
        options = {"border": scale, "luma": True}
        results.append((psnr(upscaled, truth, **options), ssim(upscaled, truth, **options)))
    mean_psnr, mean_ssim = np.mean(results, axis=0)
    assert mean_psnr == pytest.approx(published_psnr, abs=0.01)
    # The published SSIM comes from resizing the luma alone, as the next test does, not from the RGB files.
    assert mean_ssim == pytest.approx(published_ssim, abs=0.001)


@needs_data
@pytest.mark.parametrize(
    ("scale", "published_psnr", "published_ssim"),
    [(2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)],
)
def test_resizing_luma_alone_gives_the_published_table(
    scale: int, published_psnr: float, published_ssim: float
):
    """Repeat the protocol of SRCNN and VDSR, whose bicubic column others quote."""
    results = []
    for truth in truths("Set5", scale):
        y = np.rint(luma(truth))
        upscaled = imresize(imresize(y, 1 / scale), scale).clip(0, 255).round().astype(np.uint8)
        y = y.astype(np.uint8)
        results.append((psnr(upscaled, y, border=scale), ssim(upscaled, y, border=scale)))
    mean_psnr, mean_ssim = np.mean(results, axis=0)
    assert mean_psnr == pytest.approx(published_psnr, abs=0.005)
    assert mean_ssim == pytest.approx(published_ssim, abs=0.00005)
