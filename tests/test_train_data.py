"""What training draws from photographs, and by which of them it is measured."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from profiles import D65, rgb_profile
from train_runs import CPU, NETWORK, RESTORER, read_log

from mambair_cli.errors import MemoryLimitError, UsageError
from mambair_cli.images import Picture, write_picture
from mambair_cli.networks import build_network
from mambair_cli.quality import evaluate
from mambair_cli.quality.pairs import find_pairs
from mambair_cli.restore.engine import blend_rows
from mambair_cli.restore.restorer import Restorer
from mambair_cli.train import loop, real_batches, train, validation
from mambair_cli.train.dataset import Dataset, ImagePool, load_dataset
from mambair_cli.train.real_batches import RealBatches
from mambair_cli.train.trainer import Trainer
from mambair_cli.train.validation import load_validation

WIDE = rgb_profile(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), D65, 2.2)


def make_numbered_photographs(scale):
    """Make two images whose pixels are all different, and their enlargements pixel by pixel."""
    sizes = [(9, 11), (13, 8)]
    inputs = [np.arange(h * w, dtype=np.uint8).reshape(h, w, 1) + 100 * i for i, (h, w) in enumerate(sizes)]
    truths = [image.repeat(scale, 0).repeat(scale, 1) for image in inputs]

    def pool(images):
        areas = torch.tensor([image.size for image in images])
        return ImagePool(
            torch.from_numpy(np.concatenate([image.reshape(-1, 1) for image in images])),
            areas.cumsum(0) - areas,
            torch.tensor([len(image) for image in images]),
            torch.tensor([image.shape[1] for image in images]),
        )

    share = torch.tensor([h * w for h, w in sizes]).double().cumsum(0)
    return Dataset(pool(truths), pool(inputs), torch.arange(2), share, 99), inputs


def test_a_crop_and_its_truth_are_the_same_place_in_the_same_orientation(config):
    config = dataclasses.replace(config, batch=512, crop=5, scale=3)
    dataset, images = make_numbered_photographs(scale=3)
    x, wanted = dataset.draw_batch(config, torch.Generator().manual_seed(0))
    assert torch.equal(wanted, x.repeat_interleave(3, 2).repeat_interleave(3, 3))
    crops = {crop.tobytes() for crop in (x[:, 0] * 255).round().byte().numpy()}
    all_crops = {
        np.ascontiguousarray(np.rot90(square.T if mirrored else square, turns)).tobytes()
        for image in images
        for top in range(image.shape[0] - 4)
        for left in range(image.shape[1] - 4)
        for square in [image[top : top + 5, left : left + 5, 0]]
        for mirrored in (False, True)
        for turns in range(4)
    }
    assert crops <= all_crops
    assert len(crops) > 0.6 * min(512, len(all_crops))


@pytest.fixture
def real(config):
    return dataclasses.replace(config, degradation="real", batch=4)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_run_on_real_pictures_goes_on_as_if_it_had_not_been_interrupted(real, scale, tmp_path):
    if scale == 1:
        real = dataclasses.replace(real, task="denoise", scale=1, network=RESTORER)
    alone, first = Trainer(real), Trainer(real)
    for _ in range(4):
        alone.advance()
    real.output.mkdir()
    for _ in range(2):
        first.advance()
    first.save()
    second = Trainer(real)
    second.load()
    for _ in range(2):
        second.advance()
    for name, tensor in alone.net.state_dict().items():
        assert torch.equal(tensor, second.net.state_dict()[name]), name


def test_crops_of_real_pictures_are_new_at_each_step_and_are_those_of_the_photographs(real):
    batches = RealBatches(load_dataset(real, 3, CPU), real, CPU, slice(None))
    seen = []
    for step in range(3):
        batches.load(step)
        assert batches.x.shape == (4, 3, 8, 8)
        assert batches.target.shape == (4, 3, 16, 16)
        assert batches.x.isfinite().all()
        seen.append((batches.x.clone(), batches.target.clone()))
        enlarged = torch.nn.functional.interpolate(batches.x, scale_factor=2)
        assert (enlarged - batches.target).abs().mean() < 0.25  # crops and their truth are one place
    assert not torch.equal(seen[0][1], seen[1][1])
    batches.load(1)
    assert torch.equal(batches.x, seen[1][0])


@pytest.mark.parametrize("together", [1, 12])
def test_processes_that_share_a_batch_of_real_pictures_see_its_parts(real, together, monkeypatch):
    monkeypatch.setitem(real_batches.CROPS_TOGETHER, "cpu", together)
    dataset = load_dataset(real, 3, CPU)
    whole, part = (RealBatches(dataset, real, CPU, rows) for rows in (slice(None), slice(2, 4)))
    for step in (3, 4):
        whole.load(step)
        part.load(step)
        torch.testing.assert_close(part.x, whole.x[2:], rtol=0, atol=1.01 / 255)
        torch.testing.assert_close(part.target, whole.target[2:])


def test_real_pictures_are_of_colour(real):
    gray = dataclasses.replace(NETWORK, in_chans=1)
    with pytest.raises(UsageError, match="gray images; take a colour one"):
        Trainer(dataclasses.replace(real, network=gray))


def test_large_images_are_drawn_more_often(config):
    config = dataclasses.replace(config, batch=4000, crop=5, scale=1)
    dataset, (first, second) = make_numbered_photographs(scale=1)
    x, _ = dataset.draw_batch(config, torch.Generator().manual_seed(0))
    share = (x.amax((1, 2, 3)) * 255 < first.size).float().mean().item()
    assert share == pytest.approx(first.size / (first.size + second.size), abs=0.03)


def test_noise_is_drawn_from_the_whole_range(config):
    config = dataclasses.replace(
        config, task="denoise", scale=1, network=RESTORER, sigma=(10, 50), batch=256, crop=16
    )
    x, clean = load_dataset(config, 3, CPU).draw_batch(config, torch.Generator().manual_seed(0))
    sigma = ((x - clean) * 255).flatten(1).std(1)
    assert 9 < sigma.min() < 13
    assert 47 < sigma.max() < 53
    assert sigma.mean() == pytest.approx(30, abs=2)


@pytest.fixture
def gray_photos(photos):
    """Make one of three photographs gray, and another gray in three channels."""
    with Image.open(photos / "a.png") as image:
        image.convert("L").save(photos / "a.png")
    with Image.open(photos / "b.png") as image:
        image.convert("L").convert("RGB").save(photos / "b.png")
    return photos


@pytest.fixture
def deep_photo(photos):
    """Replace a photograph by one with 12 bits of detail in the darkest part of 16 bits."""
    pixels = np.arange(36 * 48, dtype=np.uint16).reshape(36, 48, 1)
    (photos / "b.png").unlink()
    write_picture(Picture(pixels.repeat(3, 2)), photos / "b.png")
    return pixels


def test_deep_pictures_stay_deep_among_others(config, photos, deep_photo):
    config = dataclasses.replace(config, batch=64)
    dataset = load_dataset(config, 3, CPU)
    x, target = dataset.draw_batch(config, torch.Generator().manual_seed(0))
    is_deep = target.amax((1, 2, 3)) < 0.03
    assert 0.2 < is_deep.float().mean() < 0.5
    for batch in (x, target):
        samples = batch * 65535
        torch.testing.assert_close(samples, samples.round(), rtol=0, atol=0.01)
    assert len(target[is_deep].unique()) > 1000
    assert target.max() > 0.9
    (photos / "b.png").unlink()
    shallow = load_dataset(config, 3, CPU)
    assert shallow.clean.pixels.dtype == torch.uint8
    place = torch.tensor([0]), torch.tensor([2]), torch.tensor([3]), 8, torch.tensor([5])
    assert torch.equal(dataset.clean.crop(*place), shallow.clean.crop(*place))


def test_deep_pictures_are_compressed_as_8_bits(config, photos, deep_photo):
    config = dataclasses.replace(config, task="dejpeg", scale=1, network=RESTORER, validation=photos)
    dataset = load_dataset(config, 3, CPU)
    assert dataset.degraded is not None
    assert dataset.degraded.pixels.dtype == torch.uint8
    assert {pair.truth.dtype.name for pair in load_validation(config, 3)["q10"]} == {"uint8"}


def is_gray(crops):
    return (crops == crops[:, :1]).all(dim=(1, 2, 3))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_noisy_crops_is_as_in_files_of_8_bits(config, share):
    config = dataclasses.replace(config, task="denoise", scale=1, sigma=(40, 40), batch=64, clipped=share)
    data = load_dataset(config, 3, torch.device("cpu"))
    x, clean = data.draw_batch(config, torch.Generator().manual_seed(3))
    are_stored = (x * 255 - (x * 255).round()).abs().amax((1, 2, 3)) < 1e-3
    assert are_stored.float().mean().item() == pytest.approx(share, abs=0.2)
    assert x[are_stored].numel() == 0 or (x[are_stored].min() >= 0 and x[are_stored].max() <= 1)
    again, same = data.draw_batch(dataclasses.replace(config, clipped=1), torch.Generator().manual_seed(3))
    if share:  # the same noise, in files or not
        assert torch.equal(clean, same)
        torch.testing.assert_close(x.clamp(0, 1), again, atol=0.5 / 255 + 1e-6, rtol=0)


def test_noise_on_gray_pictures_is_gray(config, gray_photos):
    config = dataclasses.replace(config, task="denoise", scale=1, network=RESTORER, sigma=(20, 20), batch=96)
    dataset = load_dataset(config, 3, CPU)
    x, clean = dataset.draw_batch(config, torch.Generator().manual_seed(0))
    assert 0.4 < is_gray(clean).float().mean() < 0.9
    assert torch.equal(is_gray(x), is_gray(clean))
    assert ((x - clean)[is_gray(clean)] * 255).std().item() == pytest.approx(20, rel=0.05)
    part, _ = dataset.draw_batch(config, torch.Generator().manual_seed(0), slice(48, 96))
    assert torch.equal(part, x[48:])
    coloured, _ = dataclasses.replace(dataset, gray=None).draw_batch(config, torch.Generator().manual_seed(0))
    assert torch.equal(coloured[~is_gray(clean)], x[~is_gray(clean)])  # as if there were none


def test_gray_pictures_that_are_degraded_like_real_ones_stay_gray(real, gray_photos):
    real = dataclasses.replace(real, task="denoise", scale=1, network=RESTORER, batch=24)
    batches = RealBatches(load_dataset(real, 3, CPU), real, CPU, slice(None))
    batches._recipe = dataclasses.replace(batches._recipe, gray=0.0, clean=0.0, webp=0.0, toned=0.0)
    batches.load(0)
    spread = [(crops.amax(1) - crops.amin(1)).amax((1, 2)) for crops in (batches.x, batches.target)]
    gray = spread[1] < 1e-5
    assert 0.4 < gray.float().mean() < 0.9
    assert spread[0][gray].max() < 1e-5
    assert (spread[0][~gray] > 0.05).all()


@pytest.mark.parametrize(
    ("task", "degradation", "level"),
    [
        ("denoise", "papers", 25),
        ("denoise", "real", None),
        ("dejpeg", "papers", 10),
        ("upscale", "papers", None),
    ],
)
def test_training_measures_what_evaluate_measures(config, gray_photos, task, degradation, level):
    if task != "dejpeg":  # JPEG holds 8 bits
        deep = np.random.default_rng(0).integers(0, 65536, (24, 28, 3), dtype=np.uint16)
        write_picture(Picture(deep, icc=WIDE), gray_photos / "deep.png")
    config = dataclasses.replace(config, task=task, degradation=degradation, validation=gray_photos)
    if task != "upscale":
        config = dataclasses.replace(config, scale=1, network=RESTORER)
    weights = train(config)
    measured = [value for line in read_log(config.output) for name, value in line.items() if "psnr" in name]
    restorer = Restorer(task, config.scale, weights=weights, device="cpu", bare=True)
    protocol = evaluate.choose_protocol(task, config.scale, level, degradation=degradation)
    scores = evaluate.measure(
        find_pairs(gray_photos), protocol, lambda image: restorer.restore(image, any_range=True)[0]
    )
    assert evaluate.average(list(scores)).psnr == pytest.approx(
        measured[0 if level in (10, None) else 1], abs=1e-3
    )


def test_photographs_are_compressed_all_over_the_range_of_quality(config):
    config = dataclasses.replace(config, task="dejpeg", scale=1, network=RESTORER, quality=(5, 95))
    dataset = load_dataset(config, 3, CPU)
    assert dataset.degraded is not None
    heights = dataset.clean.heights[dataset.original]
    assert torch.equal(dataset.degraded.heights, heights)
    size = int(heights[0] * dataset.clean.widths[0])
    clean = dataset.clean.pixels[:size].float()
    errors = [
        (dataset.degraded.pixels[first : first + size].float() - clean).abs().mean().item()
        for first in dataset.degraded.first[:12].tolist()
    ]
    assert errors[0] > 3 * errors[-1]
    assert sorted(errors, reverse=True) == pytest.approx(errors, rel=0.3)


def test_photographs_shrink_and_small_ones_are_mirrored(config):
    large = load_dataset(dataclasses.replace(config, shrink=(1.0, 0.5)), 3, CPU)
    assert large.clean.heights.tolist() == [36, 18] * 3
    small = load_dataset(dataclasses.replace(config, crop=40, shrink=(1.0, 0.5)), 3, CPU)
    assert small.clean.heights.tolist() == [80] * 3  # twice the crop; half the size was left out
    first = small.clean.pixels[: 80 * 80].view(80, 80, 3)
    assert torch.equal(first[36:72], first[:36].flip(0))


def test_a_measurement_that_is_interrupted_is_made_up_for(config, photos, monkeypatch):
    config = dataclasses.replace(config, validation=photos, validate_every=2)
    measured = []

    def interrupt_second(engine, image, *others, **options):
        measured.append(image)
        if len(measured) == 4:  # there are three photographs
            os.kill(os.getpid(), signal.SIGINT)
        return blend_rows(engine, image, *others, **options)

    monkeypatch.setattr(validation, "blend_rows", interrupt_second)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert len(measured) == 4
    assert [record["step"] for record in read_log(config.output)] == [2]
    train(config, resume=True)
    steps = [record["step"] for record in read_log(config.output) if "psnr_x2" in record]
    assert steps == [2, 4, 6]


def test_a_last_measurement_that_is_interrupted_is_no_success(config, photos, monkeypatch):
    config = dataclasses.replace(config, validation=photos, steps=2)

    def interrupt(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return validation.measure(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "measure", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert train(config, resume=True)
    assert [record["step"] for record in read_log(config.output) if "psnr_x2" in record] == [2]


@pytest.mark.parametrize("largest", [64, 40])
def test_a_measurement_without_memory_takes_smaller_tiles(config, tmp_path, monkeypatch, largest):
    Image.new("RGB", (2 * 150, 2 * 70), "gray").save(tmp_path / "wide.png")
    config = dataclasses.replace(config, validation=tmp_path / "wide.png")
    pairs, net = load_validation(config, 3), build_network(NETWORK, "upscale")
    whole = validation.measure(net, pairs, config)
    plans = []

    def fail(engine, image, plan, *others, **options):
        plans.append(plan)
        if max(plan.tile_height, plan.tile_width) > largest:
            raise torch.OutOfMemoryError
        return blend_rows(engine, image, plan, *others, **options)

    monkeypatch.setattr(validation, "blend_rows", fail)
    assert validation.measure(net, pairs, config) == pytest.approx(whole, abs=0.1)
    assert len(plans) > 1


def test_a_measurement_that_finds_no_memory_is_named_and_loses_no_step(config, photos, monkeypatch):
    def fail(*arguments, **options):
        raise torch.OutOfMemoryError

    config = dataclasses.replace(config, validation=photos, validate_every=4)
    with monkeypatch.context() as patch:
        patch.setattr(validation, "blend_rows", fail)
        with pytest.raises(
            MemoryLimitError, match=r"out of memory for the measurement after step 4 on cpu; sm"
        ):
            train(config)
    train(config, resume=True)
    assert [record["step"] for record in read_log(config.output) if "psnr_x2" in record] == [4, 6]


def test_other_pictures_after_a_break_are_reported(config, photos, tmp_path):
    notices = []
    train(dataclasses.replace(config, steps=2))
    train(dataclasses.replace(config, steps=4), resume=True, notify=notices.append)
    assert notices == []
    Image.open(photos / "a.png").transpose(Image.Transpose.ROTATE_180).save(photos / "a.png")
    train(config, resume=True, notify=notices.append)
    assert notices == [
        "the pictures are not those of the first 4 steps, or stand in another order: the run goes on with "
        "them, and becomes another one than without the break"
    ]


def test_photographs_are_measured_in_the_tiles_of_a_restoration(config, tmp_path, monkeypatch):
    Image.new("RGB", (2 * 300, 40), "gray").save(tmp_path / "wide.png")
    config = dataclasses.replace(config, validation=tmp_path / "wide.png")
    plans = []

    def note(engine, image, plan, *others, **options):
        plans.append(plan)
        return blend_rows(engine, image, plan, *others, **options)

    monkeypatch.setattr(validation, "blend_rows", note)
    net = build_network(NETWORK, "upscale")
    validation.measure(net, load_validation(config, 3), config)
    assert plans == [Restorer(scale=2, device="cpu", offline=True).plan(20, 300)]


def test_validation_is_at_levels_that_are_trained(config, photos):
    config = dataclasses.replace(config, task="denoise", scale=1, network=RESTORER, validation=photos)
    assert list(load_validation(dataclasses.replace(config, sigma=(20, 30)), 3)) == ["sigma25"]
    assert list(load_validation(dataclasses.replace(config, sigma=(3, 5)), 3)) == ["sigma3", "sigma5"]
    jpeg = dataclasses.replace(config, task="dejpeg", quality=(60, 60))
    assert list(load_validation(jpeg, 3)) == ["q60"]


def test_real_pictures_are_measured_with_fixed_inputs(real, photos):
    real = dataclasses.replace(real, validation=photos)
    first, again = load_validation(real, 3), load_validation(dataclasses.replace(real, seed=1), 3)
    assert list(first) == ["real"]
    for pair, other in zip(first["real"], again["real"], strict=True):
        assert pair.image.shape[0] * 2 == pair.truth.shape[0]
        np.testing.assert_array_equal(pair.image, other.image)
