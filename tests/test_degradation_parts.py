"""Quiet parts and tones: frames and burnt areas have no noise, and toned pictures have theirs toned."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from train_runs import RESTORER

from mambair_cli.quality.degradation.apply import OVERLAY, degrade
from mambair_cli.quality.degradation.quiet import Burn, Frame, Part, draw_part, put
from mambair_cli.quality.degradation.recipe import (
    ENLARGING,
    SAME_SIZE,
    Fate,
    Jpeg,
    Noise,
    Recipe,
    draw_fates,
    recipe_for,
    recipe_for_measuring,
)
from mambair_cli.quality.degradation.tone import Tone, apply_tones, draw_tone
from mambair_cli.train.dataset import load_dataset
from mambair_cli.train.real_batches import RealBatches

CPU = torch.device("cpu")
SIGMA = 20 / 255
BLACK = (0.0, 0.0, 0.0)


def draw(shape, numbers, occasion):
    """Draw the noise of each picture by its own seed."""
    seeds = [abs(hash((occasion, number))) % 2**31 for number in numbers]
    return torch.stack([torch.randn(4, *shape, generator=torch.Generator().manual_seed(s)) for s in seeds])


def add_white() -> Noise:
    kernels = np.zeros((2, 21, 21))
    kernels[:, 10, 10] = 1
    return Noise(SIGMA, 0.0, 0.0, kernels, (1.0, 1.0, 1.0), 1.0)


def slopes(side: int, count: int = 1) -> torch.Tensor:
    """Make smooth pictures from 0.2 to 0.8, their channels different, (b, 3, side, side)."""
    place = torch.linspace(0.2, 0.8, side)
    right, down = place.expand(side, side), place[:, None].expand(side, side)
    return torch.stack([right, down, 0.4 * right + 0.6 * down]).repeat(count, 1, 1, 1)


def where_quiet(part: Part, scale: int, side: int = 64) -> torch.Tensor:
    """Return where an input has no noise, (h, w) bool."""
    return put(slopes(side * scale), [part], scale)[1][0, 3] > 0


PARTS = [
    Frame((0.5, None, None, None), False, BLACK, 0.0),
    Frame((0.2, 0.9, None, 1.0), False, (1.0, 1.0, 1.0), 0.0),
    Frame((0.3, 0.3, 0.3, 0.3), False, (51 / 255, 102 / 255, 0.6), 0.0),
    Frame((0.6, 0.8, 0.9, 0.4), True, (0.2, 0.2, 0.2), 0.0),
    Burn(0.4, 1.0, 0.0, 0.0),
    Burn(0.4, 0.5, 0.0, 0.0),
    Burn(0.4, 1.0, 1.0, 0.0),
]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_quiet_part_is_flat_and_equals_the_truth_and_the_rest_has_its_noise(part, scale):
    fate = Fate(second=(add_white(),), rounded=False, part=part)
    truth = slopes(64 * scale)
    x, wanted = degrade(truth, [fate], scale, draw, 1.0)
    silent, _ = degrade(truth, [dataclasses.replace(fate, second=())], scale, draw, 1.0)
    quiet = where_quiet(part, scale)
    assert 0.02 < quiet.float().mean() < 0.98
    large = quiet.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    level = x[0, :, quiet]
    assert torch.equal(level, level[:, :1].expand_as(level))
    inside = wanted[0, :, large]
    torch.testing.assert_close(inside, level[:, :1].expand_as(inside), rtol=0, atol=1e-6)
    torch.testing.assert_close(level * 255, (level * 255).round(), rtol=0, atol=1e-4)
    assert (x - silent)[0, :, ~quiet].std().item() == pytest.approx(SIGMA, rel=0.05)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_frame_lies_at_the_same_place_in_input_and_truth(scale):
    part = Frame((0.0, None, 1.0, 0.5), False, (1.0, 1.0, 1.0), 0.0)  # 2, 32 and 8 pixels of 64
    x, wanted = degrade(0.5 * slopes(64 * scale), [Fate(part=part)], scale, draw, 1.0)
    for picture, pixel in ((x, 1), (wanted, scale)):
        white = (picture[0] == 1).all(0)
        expected = torch.ones(64 * pixel, 64 * pixel, dtype=torch.bool)
        expected[2 * pixel :, 32 * pixel : 56 * pixel] = False
        assert torch.equal(white, expected)


def test_frames_are_from_two_pixels_to_half_of_the_crop():
    random = np.random.default_rng(0)
    most = Recipe().quiet_sigma[1]
    parts = [draw_part(random, (0.0, most)) for _ in range(400)]
    frames = [part for part in parts if isinstance(part, Frame) and not part.inside]
    assert {sum(width is not None for width in part.widths) for part in frames} == {1, 2, 3, 4}
    tops = [part for part in frames if part.widths[0] is not None and part.widths[1] is None]
    tops = [dataclasses.replace(part, widths=(part.widths[0], None, None, None)) for part in tops]
    widths = [int(where_quiet(part, 1)[:, 0].sum()) for part in tops]
    assert 2 <= min(widths) < 4
    assert 26 < max(widths) <= 32
    assert {part.level for part in frames} >= {BLACK, (1.0, 1.0, 1.0)}
    assert any(len(set(part.level)) == 3 for part in frames)
    for end in (0, 1):  # black and white are off in half of the cases, as a scanner's are
        off = [round(255 * abs(part.level[0] - end)) for part in frames if len(set(part.level)) == 1]
        near = [steps for steps in off if steps <= 24]
        assert 0.35 < near.count(0) / len(near) < 0.65
        assert max(near) > 12
    assert 0.4 < sum(part.sigma == 0 for part in parts) / 400 < 0.6
    assert 0.8 * most / 255 < max(part.sigma for part in parts) <= most / 255
    assert any(isinstance(part, Burn) for part in parts)
    assert any(isinstance(part, Frame) and part.inside for part in parts)


def test_what_is_bright_burns_out_and_what_is_dark_turns_black():
    parts = [Burn(0.3, 1.0, 0.4, 0.0)] * 2
    bright = 0.4 + 0.5 * slopes(64).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    pictures = torch.cat([bright, 1 - bright])
    changed, levels = put(pictures, parts, 1)
    assert (changed[0] == 1).float().mean().item() == pytest.approx(0.3, abs=0.02)
    torch.testing.assert_close(changed[1], 1 - changed[0])
    assert levels[0, 3].mean().item() == pytest.approx(0.28, abs=0.03)
    order = pictures[0, 0].flatten().argsort()
    assert (changed[0, 0].flatten()[order].diff() >= 0).all()


def test_a_quiet_part_may_have_a_little_noise_of_its_own():
    part = Frame((1.0, None, None, None), False, (0.5, 0.5, 0.5), 0.8 / 255)
    fate = Fate(second=(add_white(),), rounded=False, part=part)
    x, wanted = degrade(slopes(64), [fate], 1, draw, 1.0)
    assert (x - wanted)[0, :, :32].std().item() == pytest.approx(0.8 / 255, rel=0.05)
    assert wanted[0, :, :32].std() == 0


def test_compression_comes_after_a_quiet_part():
    part = Frame((0.8, None, None, None), False, BLACK, 0.0)
    fate = Fate(second=(add_white(), Jpeg(20.0, (3, 5), True)), part=part)
    x, wanted = degrade(slopes(64), [fate], 1, draw, 1.0)
    quiet = where_quiet(part, 1)
    error = (x - wanted)[0, :, quiet].abs()
    assert 0 < error.mean() < 0.03


# Tones


def test_tones_rise_everywhere_and_differ():
    random = np.random.default_rng(1)
    tones = [draw_tone(random) for _ in range(300)]
    ramp = torch.linspace(-0.2, 1.2, 141).expand(300, 3, 1, -1)
    toned = apply_tones(ramp, tones)[:, :, 0]
    assert toned.min() >= 0
    assert toned.max() <= 1
    assert (toned[:, :, 20:121].diff(dim=2) > 0).all()
    tinge = (toned.amax(1) - toned.amin(1)).amax(1)
    assert tinge.min() < 0.1
    assert tinge.max() > 0.3
    red, blue = toned[:, 0, 70], toned[:, 2, 70]
    assert 0.4 < (red > blue).float().mean() < 0.9  # most are warm


def test_a_tone_without_change_is_the_gray():
    none = Tone(BLACK, (1.0, 1.0, 1.0), BLACK, BLACK)
    ramp = torch.linspace(0, 1, 50).expand(1, 3, 2, -1)
    torch.testing.assert_close(apply_tones(ramp, [none]), ramp)


SEPIA = Tone((0.1, 0.05, 0.0), (1.0, 0.95, 0.8), (0.4, 0.0, -0.4), (0.1, 0.1, 0.1))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_input_and_truth_have_the_same_tone(scale):
    fate = Fate(gray=True, tone=SEPIA)
    truth = slopes(48 * scale)
    plain, gray = degrade(truth, [dataclasses.replace(fate, tone=None)], scale, draw, 1.0)
    x, wanted = degrade(truth, [fate], scale, draw, 1.0)
    torch.testing.assert_close(wanted, apply_tones(gray, [SEPIA]))
    torch.testing.assert_close(x, apply_tones(plain, [SEPIA]), rtol=0, atol=1.5 / 255)
    noisy = dataclasses.replace(fate, second=(add_white(),), rounded=False)
    grain, _ = degrade(truth, [dataclasses.replace(noisy, tone=None)], scale, draw, 1.0)
    toned, _ = degrade(truth, [noisy], scale, draw, 1.0)
    torch.testing.assert_close(toned, apply_tones(grain, [SEPIA]))  # the noise went through the curves, too


def test_gray_pictures_stay_gray_unless_they_are_toned_and_others_are_not_toned():
    steps = (add_white(), Jpeg(60.0, (0, 0), True))
    part = Frame((0.3, 0.3, 0.3, 0.3), False, (0.2, 0.4, 0.8), 0.5 / 255)
    fates = [
        Fate(gray, second=steps, part=part, tone=tone) for gray in (True, False) for tone in (None, SEPIA)
    ]
    made = degrade(slopes(64, 4), fates, 1, draw, 1.0)
    for pictures in made:
        spread = (pictures.amax(1) - pictures.amin(1)).amax((1, 2))
        assert (spread > 0.1).tolist() == [False, True, True, True]
        assert spread[0] < 1e-5
    torch.testing.assert_close(made[1][2], made[1][3])


# What else is drawn


@pytest.mark.parametrize("recipe", [ENLARGING, SAME_SIZE])
def test_parts_and_tones_change_nothing_else_of_a_fate(recipe):
    without = dataclasses.replace(recipe, quiet=0.0, toned=0.0)
    fates, plain = (draw_fates(kind, 2, (0, 3), 300) for kind in (recipe, without))
    assert not any(fate.part or fate.tone for fate in plain)
    assert sum(fate.part is not None for fate in fates) / 300 == pytest.approx(0.15, abs=0.06)
    assert sum(fate.tone is not None for fate in fates) / 300 == pytest.approx(0.3, abs=0.08)
    bare = [dataclasses.replace(fate, part=None, tone=None) for fate in fates]
    assert [pickle.dumps(fate) for fate in bare] == [pickle.dumps(fate) for fate in plain]
    untoned = draw_fates(dataclasses.replace(recipe, toned=0.0), 2, (0, 3), 300)
    assert [fate.part for fate in untoned] == [fate.part for fate in fates]


@pytest.mark.parametrize("scale", [1, 2])
def test_parts_and_tones_draw_no_noise_but_their_own(scale):
    fates = draw_fates(dataclasses.replace(recipe_for(scale), quiet=0.5), scale, (4,), 40)
    plain = [dataclasses.replace(fate, part=None, tone=None) for fate in fates]
    drawn = []
    for of_kind in (fates, plain):
        asked = []

        def record(shape, numbers, occasion, asked=asked):
            asked.append((shape, tuple(numbers), occasion))
            return draw(shape, numbers, occasion)

        degrade(torch.rand(40, 3, 16 * scale, 16 * scale), of_kind, scale, record, 2.0)
        drawn.append(asked)
    assert [call for call in drawn[0] if call[2] != OVERLAY] == drawn[1]
    assert len(drawn[0]) == len(drawn[1]) + 1


def test_crops_without_parts_and_tones_are_as_if_there_were_none(config):
    real = dataclasses.replace(
        config, task="denoise", scale=1, network=RESTORER, degradation="real", batch=32, crop=16
    )
    dataset = load_dataset(real, 3, CPU)
    batches = [RealBatches(dataset, real, CPU, slice(None)) for _ in range(2)]
    batches[1]._recipe = dataclasses.replace(SAME_SIZE, quiet=0.0, toned=0.0)
    for each in batches:
        each.load(0)
    fates = draw_fates(SAME_SIZE, 1, (real.seed, 0, 1), 32)
    touched = torch.tensor([bool(fate.part or (fate.tone and fate.gray)) for fate in fates])
    assert 0 < touched.sum() < 16
    for name in ("x", "target"):
        made, plain = (getattr(each, name) for each in batches)
        torch.testing.assert_close(made[~touched], plain[~touched], rtol=0, atol=1.01 / 255)
        assert ((made - plain)[touched].abs().amax((1, 2, 3)) > 0).any()


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_pictures_for_measuring_have_neither(scale):
    recipe = recipe_for_measuring(scale)
    assert recipe.quiet == recipe.toned == 0
    assert not any(fate.part or fate.tone for fate in draw_fates(recipe, scale, (0, 9), 100))
