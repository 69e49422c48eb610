"""What happens to real pictures: each fault is what it says it is, and a picture's fate is its own."""

import io
import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pictures import encode
from PIL import Image

from mambair_cli.errors import ImageError
from mambair_cli.quality.degradation import codecs, filters, noise
from mambair_cli.quality.degradation.apply import degrade, degrade_image, finish
from mambair_cli.quality.degradation.recipe import (
    ENLARGING,
    SAME_SIZE,
    Camera,
    Filter,
    Jpeg,
    Noise,
    Recipe,
    draw_fates,
    recipe_for,
)
from mambair_cli.quality.degradation.resample import FILTERS, resize
from mambair_cli.quality.degrade import compress_jpeg, imresize
from mambair_cli.quality.metrics import psnr


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Make a picture with edges, slopes and some texture, (h, w, 3) uint8."""
    random = np.random.default_rng(seed)
    rough = imresize(random.random((height // 8 + 1, width // 8 + 1, 3)), 8)[:height, :width]
    rough += 0.3 * (rough > 0.5) + random.normal(0, 0.01, rough.shape)
    return (rough.clip(0, 1) * 255).round().astype(np.uint8)


def batch(*pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def pixels(x: torch.Tensor) -> np.ndarray:
    return (x.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)


def white(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Filters


@pytest.mark.parametrize(
    "kernel",
    [
        filters.gaussian(1.2),
        filters.gaussian(2, 0.4, 0.7),
        filters.gaussian(1.5, 0.8, 0.2, 1.0),
        filters.gaussian(1.5, 1.0, 0.0, 3.0, plateau=True),
        filters.disc(2.3),
        filters.low_pass(1.5),
        filters.sharpen(0.8, 1.0),
    ],
)
def test_a_kernel_keeps_flat_colour(kernel):
    assert kernel.shape == (filters.SIDE, filters.SIDE)
    flat = torch.full((1, 3, 24, 30), 0.37)
    blurred = filters.convolve(flat, torch.from_numpy(kernel[None]).float())
    np.testing.assert_allclose(blurred.numpy(), 0.37, atol=1e-5)


def test_a_gaussian_is_as_wide_as_it_says():
    kernel = filters.gaussian(1.5, 0.5, math.pi / 2)  # turned by a quarter: the first axis points down
    place = np.arange(filters.SIDE) - filters.RADIUS
    assert (kernel.sum(1) * place**2).sum() == pytest.approx(1.5**2, rel=0.01)
    assert (kernel.sum(0) * place**2).sum() == pytest.approx(0.75**2, rel=0.01)


def test_a_low_pass_keeps_what_is_below_its_cutoff():
    kernel = filters.low_pass(math.pi / 2)
    place = np.arange(filters.SIDE) - filters.RADIUS
    below, above = ((kernel.sum(0) * np.cos(omega * place)).sum() for omega in (0.2 * math.pi, 0.8 * math.pi))
    assert below == pytest.approx(1, abs=0.15)
    assert above == pytest.approx(0, abs=0.15)


def test_convolution_is_that_of_the_definition():
    x = batch(picture(25, 33), picture(25, 33, 1))
    kernels = torch.from_numpy(np.stack([filters.gaussian(1.3, 0.4, 0.5), filters.disc(3.1)])).float()
    padded = F.pad(x, (filters.RADIUS,) * 4, mode="reflect")
    flipped = kernels.flip(1, 2)  # conv2d correlates
    expected = [F.conv2d(padded[n : n + 1], flipped[n].expand(3, 1, -1, -1), groups=3) for n in range(2)]
    torch.testing.assert_close(filters.convolve(x, kernels), torch.cat(expected), rtol=0, atol=1e-5)


# Resizing


@pytest.mark.parametrize("scale", [1 / 4, 1 / 2, 1.5])
def test_cubic_resizing_is_that_of_the_papers(scale):
    image = picture(40, 52).astype(np.float64)
    expected = imresize(image, scale)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    resized = resize(x, torch.tensor([1 / scale]), torch.tensor([0]), expected.shape[:2], 1 / scale)
    np.testing.assert_allclose(resized[0].permute(1, 2, 0), expected, atol=1e-3)


def test_area_resizing_is_the_mean_of_blocks():
    x = batch(picture(24, 36))
    resized = resize(x, torch.tensor([3.0]), torch.tensor([FILTERS.index("area")]), (8, 12), 3)
    torch.testing.assert_close(resized, F.avg_pool2d(x, 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", range(len(FILTERS)))
def test_each_picture_is_resized_by_its_own_factor_and_flat_colour_stays(number):
    x = torch.cat([batch(picture(30, 30)), torch.full((1, 3, 30, 30), 0.6)])
    numbers = torch.tensor([0, number])
    both = resize(x, torch.tensor([1.0, 1.7]), numbers, (30, 30), 1.7)
    torch.testing.assert_close(both[0], x[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(both[1], x[1], rtol=0, atol=1e-5)


# JPEG and WebP


@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize("quality", [10, 40, 75, 95])
def test_jpeg_is_what_libjpeg_makes_of_it(quality, subsampled):
    image = picture(62, 81)  # no multiple of a block
    file = encode(image, "jpeg", quality=quality, subsampling=2 if subsampled else 0)
    expected = np.array(Image.open(io.BytesIO(file)))
    made = pixels(
        codecs.jpeg(batch(image), torch.tensor([float(quality)]), torch.zeros(1, 2).long(), subsampled)
    )
    assert psnr(made[0], expected) > psnr(image, expected) + 8
    assert np.abs(made[0].astype(int) - expected).mean() < 0.5


def saturated(kind):
    """Make a picture of black, white and pure colours, (64, 64, 3)."""
    if kind == "noise":
        return np.random.default_rng(0).integers(0, 2, (64, 64, 3)).astype(np.uint8) * 255
    graphic = np.full((64, 64, 3), 255, np.uint8)
    graphic[:, 20:44], graphic[20:30], graphic[40:51, 5:60] = (255, 0, 0), (0, 0, 255), (0, 0, 0)
    return graphic


@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize("quality", [10, 40, 75, 95])
@pytest.mark.parametrize("kind", ["noise", "graphic"])
def test_jpeg_of_pure_colours_is_what_libjpeg_makes_of_it(kind, quality, subsampled):
    image = saturated(kind)
    file = encode(image, "jpeg", quality=quality, subsampling=2 if subsampled else 0)
    expected = np.array(Image.open(io.BytesIO(file))).astype(int)
    made = pixels(
        codecs.jpeg(batch(image), torch.tensor([float(quality)]), torch.zeros(1, 2).long(), subsampled)
    )
    off = np.abs(made[0] - expected)[:-2, :-2]  # libjpeg enlarges colours otherwise at the edges
    assert (off > 1).mean() < 0.03
    assert off.mean() < 0.3


def test_shifted_blocks_are_those_of_a_picture_that_was_cropped_afterwards():
    image = picture(48, 48)
    larger = np.pad(image, ((5, 0), (11, 0), (0, 0)), "edge")
    qualities = torch.tensor([30.0])
    whole = codecs.jpeg(batch(larger), qualities, torch.zeros(1, 2).long(), True)
    shifted = codecs.jpeg(batch(image), qualities, torch.tensor([[5, 11]]), True)
    assert (whole[:, :, 5:, 11:] - shifted).abs().mean() < 1e-6
    straight = codecs.jpeg(batch(image), qualities, torch.zeros(1, 2).long(), True)
    assert (straight - shifted).abs().mean() > 1e-3


def test_webp_is_what_its_library_makes_of_it():
    image = picture(40, 40)
    file = encode(image, "webp", quality=50, method=2)
    expected = np.array(Image.open(io.BytesIO(file)).convert("RGB"))
    np.testing.assert_array_equal(codecs.webp(image[None], [50])[0], expected)


@pytest.mark.parametrize(("longest", "call"), [(16383, "webp"), (65500, "jpeg")])
def test_sides_that_a_codec_has_no_room_for_are_refused_in_a_line(longest, call):
    for image in (np.zeros((8, longest + 1, 3), np.uint8), np.zeros((longest + 1, 8, 3), np.uint8)):
        with pytest.raises(ImageError, match=f"{call} has room for {longest} pixels a side, not .*; cut it"):
            codecs.webp(image[None], [50]) if call == "webp" else compress_jpeg(image, 50)


# Noise


def field(gray=0.0, sigma=None, grain=1.0, gains=(1.0, 1.0, 1.0)) -> noise.Field:
    kernel = np.zeros((filters.SIDE, filters.SIDE))
    kernel[filters.RADIUS, filters.RADIUS] = 1
    kernel = kernel if sigma is None else filters.gaussian(sigma)
    return noise.Field(
        torch.tensor([gray]),
        torch.from_numpy(np.stack([kernel, kernel])[None]).float(),
        torch.tensor([gains]),
        torch.tensor([grain]),
    )


def neighbours(x: torch.Tensor) -> float:
    """Return the correlation of neighbours in a row."""
    return ((x[..., 1:] * x[..., :-1]).mean() / x.square().mean()).item()


def test_noise_has_its_strength_and_its_look():
    values = white(0, 1, 4, 96, 96)
    plain = noise.make_field(values, field())
    assert plain.std().item() == pytest.approx(1, abs=0.03)
    assert abs(neighbours(plain)) < 0.03
    gray = noise.make_field(values, field(gray=1.0))
    torch.testing.assert_close(gray[:, 0], gray[:, 2])
    blurred = noise.make_field(values, field(sigma=1.0))
    assert blurred.std().item() == pytest.approx(1, abs=0.1)
    assert neighbours(blurred) == pytest.approx(math.exp(-1 / 4), abs=0.08)
    coarse = noise.make_field(values, field(grain=2.0))
    assert coarse.std().item() == pytest.approx(1, abs=0.1)
    assert neighbours(coarse) > 0.4
    loud = noise.make_field(values, field(gains=(1.0, 1.0, 2.0)))
    assert (loud[:, 2].std() / loud[:, 1].std()).item() == pytest.approx(2, abs=0.1)


def test_shot_noise_grows_with_the_light():
    x = torch.cat([torch.full((1, 3, 64, 64), value) for value in (0.125, 0.5)], 3)
    strength = noise.Strength(torch.tensor([0.1]), torch.tensor([1.0]))
    noisy = noise.add(x, white(1, 1, 3, 64, 128), strength) - x
    assert noisy[..., 64:].std().item() == pytest.approx(0.1, rel=0.05)
    assert noisy[..., :64].std().item() == pytest.approx(0.05, rel=0.05)


def test_a_photograph_without_noise_is_the_picture_and_its_noise_has_the_colours_of_a_mosaic():
    x = batch(picture(64, 64))
    balance, exact = torch.tensor([[2.0, 1.5]]), torch.tensor([0.0])
    silent = noise.Strength(torch.tensor([0.0]), torch.tensor([0.5]))
    taken = noise.photograph(x, white(2, 1, 4, 64, 64), silent, balance, exact)
    torch.testing.assert_close(taken, x, rtol=0, atol=1e-4)
    softened = noise.photograph(x, white(2, 1, 4, 64, 64), silent, balance, torch.tensor([1.0]))
    assert (softened - x).abs().mean() > 1e-3
    gray = torch.full((1, 3, 64, 64), 0.5)
    loud = noise.Strength(torch.tensor([0.02]), torch.tensor([0.0]))
    grain = noise.photograph(gray, white(3, 1, 4, 64, 64), loud, balance, exact) - gray
    assert neighbours(grain) > 0.3
    assert grain[:, 0].std() > 1.2 * grain[:, 1].std()  # red is amplified twice


# What happens to whom


def test_fates_follow_from_the_seed():
    first, again, other = (draw_fates(ENLARGING, 4, seed, 20) for seed in ((3, 1), (3, 1), (3, 2)))
    assert [str(fate) for fate in first] == [str(fate) for fate in again]
    assert [str(fate) for fate in first] != [str(fate) for fate in other]


@pytest.mark.parametrize("recipe", [ENLARGING, SAME_SIZE])
def test_fates_are_as_frequent_as_the_recipe_says(recipe):
    scale = 4 if recipe is ENLARGING else 1
    fates = draw_fates(recipe, scale, (0,), 2000)
    plain = [fate for fate in fates if not (fate.first or fate.second or fate.webp or fate.blur is not None)]
    assert len(plain) / 2000 == pytest.approx(recipe.clean, abs=0.06)
    assert sum(fate.gray for fate in fates) / 2000 == pytest.approx(recipe.gray, abs=0.02)
    unrounded = sum(not fate.rounded for fate in fates) / 2000
    assert unrounded == pytest.approx(recipe.white / 2, abs=0.02)
    kinds = Counter(type(step) for fate in fates for step in fate.first + fate.second)
    expected = {Noise, Camera, Jpeg} | ({Filter} if recipe.sharpened else set())
    assert set(kinds) == expected
    orders = {tuple(type(step) for step in fate.first + fate.second) for fate in fates}
    assert {(Noise, Jpeg)} <= orders
    assert any(fate.webp for fate in fates)
    shifts = {step.shift for fate in fates for step in fate.second if isinstance(step, Jpeg)}
    assert len(shifts) > 50


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_what_happens_to_a_picture_does_not_depend_on_its_neighbours(scale):
    side, count = 16, 24
    truth = batch(*(picture(side * scale, side * scale, seed) for seed in range(count)))
    fates = draw_fates(recipe_for(scale), scale, (5,), count)
    finest = recipe_for(scale).resolution[1]

    def draw(shape, numbers, occasion, first=0):
        seeds = [hash((occasion, first + number)) % 2**31 for number in numbers]
        return torch.stack([white(seed, 4, *shape) for seed in seeds])

    inputs, wanted = degrade(truth, fates, scale, draw, finest)
    assert inputs.shape == (count, 3, side, side)
    assert wanted.shape == truth.shape
    assert inputs.isfinite().all()
    for number in range(count):
        one, one_wanted = degrade(
            truth[number : number + 1],
            [fates[number]],
            scale,
            lambda shape, numbers, occasion, first=number: draw(shape, numbers, occasion, first),
            finest,
        )
        torch.testing.assert_close(one[0], inputs[number], rtol=0, atol=1.01 / 255)  # a step of rounding
        torch.testing.assert_close(one_wanted[0], wanted[number], rtol=0, atol=1e-5)
        if fates[number].soft is None and not (fates[number].gray or fates[number].part):
            torch.testing.assert_close(wanted[number], truth[number])


def test_colours_are_softened_without_the_luma():
    recipe = Recipe(clean=1.0, gray=0.0, soft_colour=1.0, quiet=0.0)
    truth = 0.5 + 0.05 * white(3, 1, 3, 32, 40)
    inputs, wanted = degrade(truth, draw_fates(recipe, 1, (0,), 1), 1, lambda *_: torch.zeros(()), 1.0)
    torch.testing.assert_close(inputs, wanted, rtol=0, atol=0.51 / 255)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    before, after = ((image * weights).sum(1, keepdim=True) for image in (truth, wanted))
    torch.testing.assert_close(after, before)
    assert roughness(wanted - after) < 0.4 * roughness(truth - before)


def roughness(image):
    return (image[:, :, 1:] - image[:, :, :-1]).abs().mean()


def test_a_clean_fate_is_bicubic_reduction_or_nothing():
    image = picture(32, 32)
    clean = [fate for fate in draw_fates(ENLARGING, 2, (0,), 60) if not (fate.first or fate.second)]
    clean = [fate for fate in clean if fate.blur is None and fate.webp is None]
    clean = [fate for fate in clean if not (fate.gray or fate.part)][:1]
    inputs, _ = degrade(batch(image), clean, 2, lambda *_: torch.zeros(()), 2.0)
    assert np.abs(pixels(inputs)[0].astype(int) - imresize(image, 0.5)).max() <= 1


def test_only_what_is_fated_to_goes_through_webp():
    images = np.stack([picture(24, 24, seed) for seed in range(12)])
    fates = draw_fates(SAME_SIZE, 1, (8,), 400)
    saved = [fate for fate in fates if fate.webp][:3] + [fate for fate in fates if not fate.webp][:9]
    finished = finish(images, saved)
    changed = (finished != images).any((1, 2, 3))
    assert changed.tolist() == [True] * 3 + [False] * 9


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 3])
def test_a_picture_is_degraded_by_its_seed_alone(scale, channels):
    truth = picture(48, 60)[:, :, :channels]
    made = [degrade_image(truth, scale, (0, seed)) for seed in (1, 1, 2)]
    assert made[0].shape == (48 // scale, 60 // scale, channels)
    assert made[0].dtype == np.uint8
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any()
    near = degrade_image(truth.astype(np.float32) / 255, scale, (0, 1))
    np.testing.assert_array_equal(made[0], near)
    enlarged = imresize(made[0], scale) if scale > 1 else made[0]
    assert 12 < psnr(enlarged, truth) < 60
