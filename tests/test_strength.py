"""Less than all that a network does: exact at both ends, a mixture between, on every way an image takes."""

import json

import numpy as np
import pytest
from checkpoints import save_nearest
from pictures import noise, save_photo
from PIL import Image

from mambair_cli import Restorer
from mambair_cli.errors import UsageError
from mambair_cli.images import from_float, to_float
from mambair_cli.restore.strength import enlarge, mix

# Enlarging


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_enlarging_follows_the_kernel(scale):
    line = np.random.default_rng(1).random(11).astype(np.float32)
    mirrored = np.pad(line.astype(float), 5, mode="symmetric")
    expected = []
    for i in range(len(line) * scale):
        centre = (i + 0.5) / scale - 0.5
        distance = centre - (np.arange(len(mirrored)) - 5)
        weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
        expected.append((weights * mirrored).sum() / weights.sum())
    enlarged = enlarge(np.repeat(line[None, :, None], 4, axis=0), scale)
    assert enlarged.shape == (4 * scale, 11 * scale, 1)
    np.testing.assert_allclose(enlarged[0, :, 0], expected, atol=1e-5)


def test_flat_colour_stays_and_one_pixel_is_enlarged():
    np.testing.assert_allclose(enlarge(np.full((1, 1, 3), 0.3, np.float32), 4), 0.3, atol=1e-6)


def test_a_mixture_is_exact_at_its_ends():
    one, other = (np.random.default_rng(seed).random((5, 5, 3)).astype(np.float32) for seed in (0, 1))
    np.testing.assert_array_equal(mix(one, other, 1), one)
    np.testing.assert_array_equal(mix(one, other, 0), other)
    np.testing.assert_allclose(mix(one, other, 0.25), 0.25 * one + 0.75 * other, atol=1e-6)


# Restoring


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("model", ["tiny-denoise", "tiny-x2"])
def test_without_strength_an_image_is_what_it_was(model, dtype, channels):
    image = noise(40, 37, channels, dtype=dtype)
    if channels % 2 == 0:
        image[..., -1] = np.iinfo(dtype).max  # nothing is invisible
    task = "upscale" if model == "tiny-x2" else "denoise"
    options = {"task": task, "model": model, "device": "cpu", "tile": 16, "overlap": 4}
    none = Restorer(**options, strength=0)(image)
    if task == "denoise":
        np.testing.assert_array_equal(none, image)
    else:
        np.testing.assert_array_equal(none, from_float(enlarge(to_float(image), 2), dtype))


@pytest.mark.parametrize("model", ["tiny-denoise", "tiny-x4"])
def test_half_of_the_strength_is_half_the_way(model):
    image = noise(33, 40, 3).astype(np.float32) / 255
    options = {"model": model, "task": "upscale" if model == "tiny-x4" else "denoise", "device": "cpu"}
    whole, half, none = (Restorer(**options, strength=share)(image) for share in (1, 0.5, 0))
    inner = (whole > 0) & (whole < 1) & (none > 0) & (none < 1)  # what is clipped is so after mixing
    assert inner.mean() > 0.5
    np.testing.assert_allclose(half[inner], (whole[inner] + none[inner]) / 2, atol=1e-5)
    assert np.abs(whole - none).max() > 0.05


def test_what_nobody_sees_does_not_come_into_sight():
    image = np.zeros((16, 16, 4), np.uint8)
    image[:, :8] = (200, 100, 50, 255)  # next to it, invisible black
    result = Restorer("upscale", 4, model="tiny-x4", device="cpu", strength=0)(image)
    seen = result[:, :28]
    assert np.abs(seen[..., :3].astype(int) - (200, 100, 50)).max() <= 2


@pytest.mark.parametrize("strength", [-0.1, 1.01, float("nan")])
def test_a_share_is_from_0_to_1(strength):
    with pytest.raises(UsageError, match=r"strength is .*; it must be a number from 0 to 1"):
        Restorer("denoise", model="tiny-denoise", device="cpu", strength=strength)


# The command


@pytest.fixture
def run(run):
    save_photo("in.png", (24, 20))
    return run


def test_the_command_keeps_as_much_of_the_input_as_it_should(run):
    for strength in (0, 0.5, 1):
        code, _, _ = run("denoise", "in.png", "-o", f"{strength}.png", "--strength", strength, "--offline")
        assert code == 0
    assert run("denoise", "in.png", "-o", "plain.png", "--offline")[0] == 0
    none, half, whole, plain = (np.array(Image.open(f"{name}.png")) for name in (0, 0.5, 1, "plain"))
    np.testing.assert_array_equal(none, np.array(Image.open("in.png")))
    np.testing.assert_array_equal(whole, plain)
    middle = (none.astype(float) + whole) / 2
    assert np.abs(half - middle).mean() < 1


def test_a_result_of_another_strength_is_done_again(run, tmp_path):
    weights = save_nearest(tmp_path / "x2.safetensors", 2)
    arguments = ("upscale", "in.png", "-o", "out/", "--weights", weights, "--resume", "--json")
    kinds = []
    for strength in ([], ["--strength", "0.5"], ["--strength", "0.5"], ["--strength", "1"]):
        _, out, _ = run(*arguments, *strength)
        kinds.append([json.loads(line)["event"] for line in out][1])
    assert kinds == ["done", "done", "skipped", "done"]


@pytest.mark.parametrize("strength", ["1.5", "-1", "nan", "much"])
def test_a_strength_that_is_none_is_one_line(run, strength):
    code, out, err = run("denoise", "in.png", "--strength", strength)
    assert (code, out) == (2, [])
    assert len(err.splitlines()) == 1
    assert "--strength" in err
