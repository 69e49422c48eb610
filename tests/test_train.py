"""Training: what is drawn, what is learnt, and that a run goes on as if it had never stopped."""

import dataclasses
import errno
import itertools
import json
import os
import shutil
import signal
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from mambair_cli.checkpoints.load import load_network
from mambair_cli.errors import CheckpointError, ImageError, MambairError, UsageError
from mambair_cli.networks import MambaIRConfig, MambaIRUNetConfig, MambaIRv2Config, build_network
from mambair_cli.quality.degrade import imresize
from mambair_cli.restore.engine import run_image
from mambair_cli.restore.restorer import Restorer
from mambair_cli.train import TrainConfig, loop, pace, real_batches, train, validation
from mambair_cli.train.dataset import Dataset, ImagePool, load_dataset
from mambair_cli.train.real_batches import RealBatches
from mambair_cli.train.schedule import Schedule
from mambair_cli.train.trainer import Trainer, serialize_weights
from mambair_cli.train.validation import load_validation

CPU = torch.device("cpu")
NETWORK = MambaIRConfig(
    embed_dim=30, depths=(1,), d_state=1, d_inner=8, upscale=2, upsampler="pixelshuffledirect"
)
RESTORER = dataclasses.replace(NETWORK, upscale=1, upsampler="")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for index, name in enumerate(("a.png", "b.png", "more/c.png")):
        coarse = np.random.default_rng(index).integers(0, 256, (9, 12, 3)).astype(np.float64)
        pixels = np.rint(imresize(coarse, 4).clip(0, 255)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def config(photos, tmp_path):
    return TrainConfig(
        task="upscale",
        images=(photos,),
        output=tmp_path / "run",
        scale=2,
        network=NETWORK,
        crop=8,
        batch=2,
        steps=6,
        learning_rate=2e-3,
        warmup=2,
        ema_decay=0.8,
        precision="fp32",
    )


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def tensors_of(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary


def test_loss_falls_and_psnr_rises(config, photos, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 15)
    config = dataclasses.replace(config, steps=60, validation=photos, validate_every=15, batch=4)
    path = train(config)
    assert path
    log = read_log(config.output)
    losses = [record["loss"] for record in log if "loss" in record]
    quality = [record["psnr_x2"] for record in log if "psnr_x2" in record]
    assert losses[-1] < losses[0] / 2
    assert len(quality) == 4
    assert quality[-1] > quality[0] + 3
    assert [record["step"] for record in log if "loss" in record] == [15, 30, 45, 60]
    info = load_network(path).info
    assert (info.task, info.scale, info.config) == ("upscale", 2, NETWORK)


@pytest.mark.parametrize(
    ("task", "name"), [("upscale", "SIGINT"), ("denoise", "SIGTERM"), ("dejpeg", "SIGHUP")]
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(config, task, name, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    if task != "upscale":
        config = dataclasses.replace(config, task=task, scale=1, network=RESTORER)
    whole = train(dataclasses.replace(config, output=tmp_path / "whole"))

    def interrupt(record):
        if record["step"] == 4:
            os.kill(os.getpid(), getattr(signal, name))

    with pytest.raises(KeyboardInterrupt):
        train(config, report=interrupt)
    assert "finishing this step and saving the state" in capfd.readouterr().err  # at once
    assert [record["step"] for record in read_log(config.output)] == [2, 4]
    resumed = train(config, resume=True)
    wanted, got = tensors_of(whole), tensors_of(resumed)
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    timeless = [
        [{**record, "seconds": 0} for record in read_log(folder)]
        for folder in (tmp_path / "whole", config.output)
    ]
    assert timeless[0] == timeless[1]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(config, tmp_path):
    config = dataclasses.replace(config, steps=2)
    first, second, other = (
        tensors_of(train(dataclasses.replace(config, output=tmp_path / name, seed=seed)))
        for name, seed in (("first", 5), ("second", 5), ("other", 6))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv_first.weight"], other["conv_first.weight"])


def test_the_learning_rate_rises_along_a_line_and_falls_along_a_cosine(config):
    run = Trainer(dataclasses.replace(config, steps=12, warmup=4))
    rates = []
    for run.step in range(13):
        rates.append(run.learning_rate / config.learning_rate)
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[8] == pytest.approx(0.5)
    assert rates[12] == pytest.approx(0.0)
    assert all(now > later for now, later in itertools.pairwise(rates[4:]))


def test_a_run_that_is_planned_anew_comes_down_to_nothing_at_its_new_end(config):
    run = Trainer(dataclasses.replace(config, steps=1000, warmup=4))
    run.set_steps(12)
    assert run.config.steps == 12
    run.step = 8
    assert run.learning_rate == pytest.approx(config.learning_rate / 2)
    run.step = 12
    assert run.learning_rate == pytest.approx(0.0)


def test_a_schedule_that_is_made_longer_goes_over_to_that_of_its_length():
    short, long = Schedule(1.0, 4, 20), Schedule(1.0, 4, 60)
    for step in (10, 20):  # before its end, and at it
        extended = short.extend(step, 60)
        rates = [extended.rate(now) for now in range(step, 60)]
        before = short.rate(step)
        assert rates[0] == pytest.approx(before + (long.rate(step) - before) / 4)
        assert rates[3:] == pytest.approx([long.rate(now) for now in range(step + 3, 60)])
    twice = extended.extend(21, 100)
    assert twice.rate(21) == pytest.approx(
        extended.rate(21) + (Schedule(1.0, 4, 100).rate(21) - extended.rate(21)) / 4
    )


def test_a_run_that_is_done_is_made_longer(config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    train(config)
    longer = dataclasses.replace(config, steps=12)

    def interrupt(record):
        if record["step"] == 8:  # while the rate goes up
            os.kill(os.getpid(), signal.SIGINT)

    shutil.copytree(config.output, tmp_path / "whole")
    whole = train(dataclasses.replace(longer, output=tmp_path / "whole"), resume=True)
    with pytest.raises(KeyboardInterrupt):
        train(longer, resume=True, report=interrupt)
    wanted, got = tensors_of(whole), tensors_of(train(longer, resume=True))
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    schedule = Schedule(config.learning_rate, config.warmup, 6).extend(6, 12)
    rates = [record["learning_rate"] for record in read_log(config.output) if record["step"] > 6]
    assert rates == pytest.approx([schedule.rate(step) for step in range(6, 12)])
    with pytest.raises(UsageError, match="with --steps 11: it was begun with --steps 12"):
        train(dataclasses.replace(config, steps=11), resume=True)


def test_a_measurement_that_is_interrupted_is_made_up_for(config, photos, monkeypatch):
    config = dataclasses.replace(config, validation=photos, validate_every=2)
    measured = []

    def interrupt_second(engine, image, *others, **options):
        measured.append(image)
        if len(measured) == 4:  # there are three photographs
            os.kill(os.getpid(), signal.SIGINT)
        return run_image(engine, image, *others, **options)

    monkeypatch.setattr(validation, "run_image", interrupt_second)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert len(measured) == 4
    assert [record["step"] for record in read_log(config.output)] == [2]
    train(config, resume=True)
    steps = [record["step"] for record in read_log(config.output) if "psnr_x2" in record]
    assert steps == [2, 4, 6]


def test_photographs_are_measured_in_the_tiles_of_a_restoration(config, tmp_path, monkeypatch):
    Image.new("RGB", (2 * 300, 40), "gray").save(tmp_path / "wide.png")
    config = dataclasses.replace(config, validation=tmp_path / "wide.png")
    plans = []

    def note(engine, image, plan, *others, **options):
        plans.append(plan)
        return run_image(engine, image, plan, *others, **options)

    monkeypatch.setattr(validation, "run_image", note)
    net = build_network(NETWORK, "upscale")
    validation.measure(net, load_validation(config, 3), config)
    assert plans == [Restorer(scale=2, device="cpu", offline=True).plan(20, 300)]


def test_what_a_step_takes_is_found_by_smaller_crops(config):
    config = dataclasses.replace(config, crop=32, batch=2)
    net = Trainer(config).net
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    small = pace.measure_pace(net, dataclasses.replace(config, crop=16), CPU, 2)
    large = pace.measure_pace(net, config, CPU, 2)
    assert large.memory == 4 * small.memory > 2**20
    assert large.seconds > small.seconds > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_slow_run_says_how_long_it_takes_and_a_quick_one_nothing():
    said = pace.warn_if_slow(pace.Pace(4.0, 3 * 2**29), 10_000, "cpu")
    assert said
    assert said.startswith("a step takes about 4 s on cpu and over 1.5 GiB of memory, 10000 steps 11 hours; ")
    assert "GPU" in said
    assert "--embed-dim" in said
    assert pace.warn_if_slow(pace.Pace(4.0, 0), 149, "cpu") is None


def test_the_average_of_the_weights_forgets_the_first_ones(config):
    run = Trainer(dataclasses.replace(config, ema_decay=0.75))
    name = "conv_first.weight"
    expected = run.net.state_dict()[name].clone()
    for decay in (0.1, 2 / 11, 3 / 12, 4 / 13):
        assert run.ema_share == pytest.approx(1 - decay)
        run.advance()
        expected = decay * expected + (1 - decay) * run.net.state_dict()[name]
        torch.testing.assert_close(run.averaged.state_dict()[name], expected)
    run.step = 1000
    assert run.ema_share == pytest.approx(0.25)


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
    return Dataset(pool(truths), pool(inputs), torch.arange(2), share), inputs


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


def test_real_pictures_are_measured_with_fixed_inputs(real, photos):
    real = dataclasses.replace(real, validation=photos)
    first, again = load_validation(real, 3), load_validation(dataclasses.replace(real, seed=1), 3)
    assert list(first) == ["real"]
    for pair, other in zip(first["real"], again["real"], strict=True):
        assert pair.image.shape[0] * 2 == pair.truth.shape[0]
        np.testing.assert_array_equal(pair.image, other.image)


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


def test_weights_of_another_scale_are_a_start(config, tmp_path):
    fourfold = build_network(dataclasses.replace(NETWORK, upscale=4), "upscale")
    (tmp_path / "x4.safetensors").write_bytes(serialize_weights(fourfold, config, 0))
    run = Trainer(dataclasses.replace(config, weights=tmp_path / "x4.safetensors"))
    start, own = fourfold.state_dict(), run.net.state_dict()
    assert all(torch.equal(own[name], start[name]) for name in own if not name.startswith("upsample"))


@pytest.mark.parametrize(
    "network",
    [
        MambaIRv2Config(
            embed_dim=16,
            depths=(2,),
            num_heads=(2,),
            d_state=2,
            d_inner=20,
            inner_rank=4,
            num_tokens=6,
            window_size=4,
        ),
        MambaIRUNetConfig(
            dim=30, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, d_inner=(8, 8, 8, 8), d_state=1
        ),
        dataclasses.replace(RESTORER, in_chans=1, cab="light"),
    ],
    ids=["MambaIRv2", "U-Net", "gray"],
)
def test_any_checkpoint_can_be_trained_further(config, network, tmp_path):
    start = serialize_weights(build_network(network, "denoise"), config, 0)
    (tmp_path / "start.safetensors").write_bytes(start)
    config = dataclasses.replace(
        config,
        task="denoise",
        scale=1,
        network=None,
        weights=tmp_path / "start.safetensors",
        validation=config.images[0],
        steps=2,
        warmup=0,
    )
    path = train(config)
    before, after = tensors_of(tmp_path / "start.safetensors"), tensors_of(path)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert {"psnr_sigma15", "psnr_sigma25", "psnr_sigma50"} <= read_log(config.output)[-1].keys()


def test_validation_is_at_levels_that_are_trained(config, photos):
    config = dataclasses.replace(config, task="denoise", scale=1, network=RESTORER, validation=photos)
    assert list(load_validation(dataclasses.replace(config, sigma=(20, 30)), 3)) == ["sigma25"]
    assert list(load_validation(dataclasses.replace(config, sigma=(3, 5)), 3)) == ["sigma3", "sigma5"]
    jpeg = dataclasses.replace(config, task="dejpeg", quality=(60, 60))
    assert list(load_validation(jpeg, 3)) == ["q60"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scale": 1}, "cannot train upscale at scale 1"),
        ({"task": "denoise"}, "cannot train denoise at scale 2"),
        ({"scale": 3}, "the network's scale is 2"),
        ({"network": None}, "neither a network to build nor a checkpoint"),
        ({"sigma": (30, 20)}, "sigma from 30 to 20"),
        ({"quality": (0, 20)}, "quality from 0 to 20"),
        ({"batch": 0}, "batch 0"),
        ({"shrink": (2.0,)}, "above 0 and at most 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(config, changes, said):
    with pytest.raises(UsageError, match=said):
        train(dataclasses.replace(config, **changes))
    assert not config.output.exists()


def test_weights_that_fit_nowhere_are_refused(config, tmp_path):
    save_file({"conv_first.weight": torch.zeros(7, 3, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="none of its tensors fits"):
        train(dataclasses.replace(config, weights=tmp_path / "other.safetensors"))


def test_a_folder_without_images_is_refused(config, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images"):
        train(dataclasses.replace(config, images=(tmp_path / "empty",)))


def test_a_damaged_image_is_named(config, photos):
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"broken\.png"):
        train(config)


def test_a_run_is_neither_overwritten_nor_mistaken_for_another(config):
    train(dataclasses.replace(config, steps=1))
    with pytest.raises(UsageError, match="it holds a run"):
        train(config)
    with pytest.raises(UsageError, match="--batch 3: it was begun with --batch 2; give that"):
        train(dataclasses.replace(config, batch=3), resume=True)
    assert config.network
    wider = dataclasses.replace(config, steps=1, network=dataclasses.replace(config.network, d_state=3))
    with pytest.raises(UsageError, match=r"with --d-state 3: it was begun with --d-state \d; give that"):
        train(wider, resume=True)
    further = dataclasses.replace(
        config, steps=1, network=None, weights=config.output / "weights.safetensors"
    )
    with pytest.raises(UsageError, match="with --weights: it was begun with a new network; give that"):
        train(further, resume=True)


def test_a_run_stays_on_its_kind_of_device(config):
    run = Trainer(config)
    config.output.mkdir()
    run.save()
    state = torch.load(config.output / "state.pt", weights_only=True)
    torch.save({**state, "config": {**state["config"], "device": "cuda:1"}}, config.output / "state.pt")
    with pytest.raises(UsageError, match="begun on cuda"):
        train(config, resume=True)


def test_a_state_that_is_missing_or_damaged_is_a_clear_error(config):
    with pytest.raises(CheckpointError, match=r"holds no state\.pt"):
        train(config, resume=True)
    config.output.mkdir()
    (config.output / "state.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(CheckpointError, match="damaged"):
        train(config, resume=True)


def test_divergence_ends_the_run_and_saves_nothing(config):
    with pytest.raises(MambairError, match="diverged"):
        train(dataclasses.replace(config, learning_rate=1e30, warmup=0))
    assert not (config.output / "weights.safetensors").exists()


@pytest.mark.gpu
def test_recorded_steps_do_as_eager_ones(config, monkeypatch):
    config = dataclasses.replace(config, device="cuda", precision="bf16")
    recorded = Trainer(config)
    eager = Trainer(config)
    monkeypatch.setattr(eager, "_eager_steps", 10)
    for _ in range(6):
        recorded.advance()
        eager.advance()
    for name, tensor in eager.averaged.state_dict().items():
        # Convolutions may sum their gradients in another order, and AdamW turns rounding into steps.
        assert torch.allclose(tensor, recorded.averaged.state_dict()[name], atol=2e-3), name
    assert recorded.mean_loss() == pytest.approx(eager.mean_loss(), rel=1e-2)


def test_a_full_disk_ends_the_run_and_keeps_the_state_before(config, monkeypatch):
    run = Trainer(config)
    config.output.mkdir()
    run.save()
    before = {path.name: path.read_bytes() for path in config.output.iterdir()}

    def fail(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    run.advance()
    with pytest.raises(
        MambairError, match=r"cannot write .*state.pt: No space left on device; free some space"
    ):
        run.save()
    assert {path.name: path.read_bytes() for path in config.output.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_one_line(config, photos):
    with pytest.raises(
        MambairError, match=r"cannot write .*a\.png/run: .*; free some space, or choose another"
    ):
        train(dataclasses.replace(config, output=photos / "a.png" / "run"))
