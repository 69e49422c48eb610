"""Training: what is learnt, how fast, and that a run goes on as if it had never stopped."""

import dataclasses
import itertools
import math
import os
import shutil
import signal
import sys

import numpy as np
import pytest
import torch
from train_runs import CPU, NETWORK, RESTORER, load_weights, read_log

from mambair_cli.checkpoints.load import load_network
from mambair_cli.errors import UsageError
from mambair_cli.images import Picture, write_picture
from mambair_cli.networks import MambaIRUNetConfig, MambaIRv2Config, build_network
from mambair_cli.train import loop, pace, train, trainer
from mambair_cli.train.schedule import Schedule
from mambair_cli.train.trainer import Trainer, serialize_weights


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


def test_each_loss_is_the_mean_that_it_is_named_after(config):
    losses = {}
    for loss in ("l1", "l2", "charbonnier", "psnr"):
        one = Trainer(dataclasses.replace(config, loss=loss))
        one.advance()  # all begin with the same weights and the same crops
        losses[loss] = one.mean_loss()
    assert losses["l1"] ** 2 < losses["l2"] < losses["l1"]
    assert losses["l1"] < losses["charbonnier"] < losses["l1"] + trainer.CHARBONNIER_EPSILON
    assert losses["psnr"] < 10 * math.log10(losses["l2"] + trainer.PSNR_FLOOR)  # a mean of logarithms


def test_the_psnr_loss_weighs_each_crop_by_its_own_error():
    y = torch.zeros(2, 3, 4, 4, requires_grad=True)
    target = torch.stack([torch.full((3, 4, 4), 0.01), torch.full((3, 4, 4), 0.5)])
    loss = trainer.measure_loss(y, target, "psnr")
    loss.backward()
    mean = (10 * math.log10(0.01**2 + trainer.PSNR_FLOOR) + 10 * math.log10(0.5**2 + trainer.PSNR_FLOOR)) / 2
    assert loss.item() == pytest.approx(mean, abs=1e-4)
    assert y.grad is not None
    assert y.grad[0].abs().sum() > 10 * y.grad[1].abs().sum()  # the clearer crop pulls harder


def test_the_loss_on_luma_counts_an_error_by_how_much_it_changes_luma():
    luma_error = torch.full((1, 3, 2, 2), 0.1)  # as large in luma as in each channel
    changes = (0.128553, -0.065481, 0.0)  # of red, green and blue: none in luma
    colour_error = torch.stack([torch.full((2, 2), change) for change in changes])[None]
    for error, counted in (
        (luma_error, 0.1**2),
        (colour_error, (1 - trainer.LUMA_SHARE) * (0.128553**2 + 0.065481**2) / 3),
    ):
        loss = trainer.measure_loss(error, torch.zeros_like(error), "psnr-y")
        assert loss.item() == pytest.approx(10 * math.log10(counted + trainer.PSNR_FLOOR), abs=1e-3)
    gray = torch.full((1, 1, 2, 2), 0.1)
    same = [trainer.measure_loss(gray, torch.zeros_like(gray), kind).item() for kind in ("psnr", "psnr-y")]
    assert same[0] == same[1]


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
    wanted, got = load_weights(whole), load_weights(resumed)
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    timeless = [
        [{**record, "seconds": 0} for record in read_log(folder)]
        for folder in (tmp_path / "whole", config.output)
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize("callback", ["report", "on_step"])
def test_an_error_of_a_callback_loses_no_step(config, photos, callback, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    config = dataclasses.replace(config, validation=photos, validate_every=4)
    wanted = load_weights(train(dataclasses.replace(config, output=tmp_path / "whole")))
    said, calls = [], []

    def fail(line):
        calls.append(line)
        if callback == "report" or line == 2:
            raise OSError("no room")

    calls_of = {"report": None, "on_step": None, callback: fail}
    with pytest.raises(OSError, match="no room"):
        train(config, report=calls_of["report"], on_step=calls_of["on_step"], notify=said.append)
    assert said == [f"stopped after step 2, which is saved in {config.output}; --resume goes on"]
    assert len(calls) == {"report": 1, "on_step": 2}[callback]
    got = load_weights(train(config, resume=True))
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    assert [line["step"] for line in read_log(config.output)] == [2, 4, 4, 6, 6]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(config, tmp_path):
    config = dataclasses.replace(config, steps=2)
    first, second, other = (
        load_weights(train(dataclasses.replace(config, output=tmp_path / name, seed=seed)))
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
    wanted, got = load_weights(whole), load_weights(train(longer, resume=True))
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    schedule = Schedule(config.learning_rate, config.warmup, 6).extend(6, 12)
    rates = [record["learning_rate"] for record in read_log(config.output) if record["step"] > 6]
    assert rates == pytest.approx([schedule.rate(step) for step in range(6, 12)])
    with pytest.raises(UsageError, match="with --steps 11: it was begun with --steps 12"):
        train(dataclasses.replace(config, steps=11), resume=True)


@pytest.mark.parametrize(
    ("device", "given", "taken"),
    [("cpu", "auto", "fp32"), ("cuda", "auto", "bf16"), ("cuda:1", "auto", "bf16"), ("cpu", "bf16", "bf16")],
)
def test_precision_is_by_default_what_the_device_is_fast_in(device, given, taken, config):
    assert dataclasses.replace(config, device=device, precision=given).precision == taken


def test_what_a_step_takes_is_found_by_smaller_crops(config):
    config = dataclasses.replace(config, crop=32, batch=2)
    net = Trainer(config).net
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    small = pace.measure_pace(net, dataclasses.replace(config, crop=16), CPU, 2)
    large = pace.measure_pace(net, config, CPU, 2)
    assert large.memory == pytest.approx(4 * small.memory, rel=0.1)  # what is fixed is small
    assert large.memory > 2**20
    assert min(large.seconds, small.seconds) > 0
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
    before, after = load_weights(tmp_path / "start.safetensors"), load_weights(path)
    assert before.keys() == after.keys()
    kept = {name for name in before if torch.equal(before[name], after[name])}
    assert len(kept) < len(before) / 2
    assert {name for name in before if ".route." in name} <= kept  # MambaIRv2's choice has no gradient
    assert {"psnr_sigma15", "psnr_sigma25", "psnr_sigma50"} <= read_log(config.output)[-1].keys()


@pytest.mark.gpu
@pytest.mark.parametrize("task", ["upscale", "denoise"])
def test_recorded_steps_do_as_eager_ones(config, photos, task, monkeypatch):
    config = dataclasses.replace(config, device="cuda", precision="bf16")
    if task == "denoise":  # one picture is gray and deep
        config = dataclasses.replace(config, task=task, scale=1, network=RESTORER)
        deep = np.arange(36 * 48, dtype=np.uint16).reshape(36, 48, 1)
        write_picture(Picture(deep), photos / "deep.png")
    recorded = Trainer(config)
    monkeypatch.setattr(trainer, "EAGER_STEPS", 10)
    eager = Trainer(config)
    for _ in range(6):
        recorded.advance()
        eager.advance()
    for name, tensor in eager.averaged.state_dict().items():
        # Convolutions may sum their gradients in another order, and AdamW turns rounding into steps.
        assert torch.allclose(tensor, recorded.averaged.state_dict()[name], atol=2e-3), name
    assert recorded.mean_loss() == pytest.approx(eager.mean_loss(), rel=1e-2)
