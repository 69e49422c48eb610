"""Training that cannot begin or go on: what the error says, and that no file is lost."""

import dataclasses
import errno
import os
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from train_runs import RESTORER, load_weights, save_photographs

from mambair_cli.errors import CheckpointError, ImageError, MambairError, MemoryLimitError, UsageError
from mambair_cli.train import pace, train
from mambair_cli.train.resuming import read_begun
from mambair_cli.train.trainer import Trainer, make_network


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scale": 1}, "cannot train upscale at scale 1"),
        ({"task": "denoise"}, "cannot train denoise at scale 2"),
        (
            {"scale": 3},
            r"cannot train for upscale ×3: the network \(MambaIR\) does upscale ×2; --scale 2 would work",
        ),
        (
            {"network": RESTORER},
            r"cannot train for upscale: the network \(MambaIR\) does \w+, at the same size; one that enl",
        ),
        (
            {"task": "dejpeg", "scale": 1},
            r"cannot train for dejpeg: the network \(MambaIR\) does \w+ ×2; one that keeps the size would",
        ),
        ({"network": None}, "neither a network to build nor a checkpoint"),
        ({"sigma": (30, 20)}, "sigma from 30 to 20"),
        ({"quality": (0, 20)}, "quality from 0 to 20"),
        ({"batch": 0}, "batch 0"),
        ({"shrink": (2.0,)}, "above 0 and at most 1"),
        (
            {"shrink": (0.05, 0.1)},
            r"no image is as large as a crop, 16 pixels, where it shrinks to 0.05 or 0.1 of",
        ),
        ({"ema_decay": 2.0}, "ema_decay 2.0: it must be from 0 to 1"),
        ({"ema_decay": float("nan")}, "ema_decay nan"),
        ({"clipped": -0.1}, "clipped -0.1: it must be from 0 to 1"),
        ({"learning_rate": -1e-3}, "learning_rate -0.001: it must be 0 or more"),
        ({"learning_rate": float("inf")}, "learning_rate inf: it must be 0 or more"),
        ({"warmup": -1}, "warmup -1: it must be 0 or more"),
        ({"weight_decay": -1.0}, "weight_decay -1.0"),
        ({"seed": -1}, f"seed -1: it must be from 0 to {2**63 - 1}"),
        ({"seed": 2**63}, f"seed {2**63}: it must be from 0"),
        ({"loss": "L1"}, "the loss L1: there are l1, charbonnier, l2, psnr, psnr-y"),
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


def test_all_damaged_images_are_named_at_once(config, photos, tmp_path):
    for number in range(2):
        (photos / f"broken{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", (1, 9)).save(photos / "thin.png")
    with pytest.raises(ImageError) as error:
        train(config)
    assert re.fullmatch(
        r"cannot use 3 of 6 images: \S+broken0\.png, \S+broken1\.png and \S+thin\.png; "
        r"leave them out, or try other copies \(the first: its png data is corrupt.*\)",
        str(error.value),
    )
    photos.rename(tmp_path / "others")
    save_photographs(photos)
    for number in range(2, 30):
        (tmp_path / "others" / f"broken{number:02}.png").touch()
    with pytest.raises(
        ImageError, match=r"cannot use 31 of 34 images: .*, \S+broken1\.png and 21 more; leave"
    ):
        train(dataclasses.replace(config, validation=tmp_path / "others"))


def test_an_image_smaller_than_a_pixel_of_the_input_is_named(config, photos):
    Image.new("RGB", (1, 9)).save(photos / "thin.png")
    with pytest.raises(
        ImageError, match=r"thin\.png: 1×9 pixels are less than one of the input; leave it out"
    ):
        train(config)


def test_a_step_that_needs_more_memory_than_the_machine_has_is_refused_before_the_start(config, monkeypatch):
    monkeypatch.setattr(pace, "machine_memory", lambda: 2**40)
    needed = Trainer(config).pace
    assert needed
    monkeypatch.setattr(pace, "machine_memory", lambda: needed.memory - 1)
    with pytest.raises(
        MemoryLimitError, match=r"over [0-9.]+ GiB .* machine has .*\(--crop, --batch\).* would work"
    ):
        train(config)
    monkeypatch.setattr(pace, "machine_memory", lambda: None)  # not known
    assert not config.output.exists()
    assert train(config)


def test_a_vast_crop_is_refused_before_images_are_mirrored_to_it(config):
    with pytest.raises(MemoryLimitError, match="a step takes over"):
        train(dataclasses.replace(config, crop=100_000))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError, MemoryError, RuntimeError("could not create a primitive")]
)
def test_memory_that_is_full_during_a_step_is_one_line(config, monkeypatch, error):
    def fail(trainer):
        raise error

    monkeypatch.setattr(Trainer, "advance", fail)
    with pytest.raises(MemoryLimitError, match=r"its memory is full; smaller or fewer crops"):
        train(config)


def test_what_a_step_takes_is_estimated_from_a_smaller_one(config):
    net = make_network(config)
    larger = dataclasses.replace(config, crop=4 * pace.TRIAL_SIDE)
    measured = pace.measure_pace(net, larger, torch.device("cpu"), config.batch)
    weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    with pace._counting_saved() as saved:
        net(torch.rand(config.batch, 3, larger.crop, larger.crop))
    kept = sum(size for address, size in saved.items() if address not in weights)
    assert measured.memory == pytest.approx(kept, rel=0.15)


class _TimedNetwork(torch.nn.Module):
    """A network whose steps take a set time by a clock of its own.

    Args:
        config: Configuration of the network that it stands for.
        first: Seconds that the first step takes in addition, as to compile kernels.
        fixed: Seconds of each step.
        pixel: Seconds for each pixel of a crop.
    """

    def __init__(self, config, first, fixed, pixel):
        super().__init__()
        self.config, self.info = config, SimpleNamespace(channels=3)
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.now, self.sides = 0.0, []
        self._first, self._fixed, self._pixel = first, fixed, pixel

    def forward(self, x):
        self.now += self._fixed + self._pixel * x.shape[-1] ** 2 + (0 if self.sides else self._first)
        self.sides.append(x.shape[-1])
        return x * self.weight


@pytest.mark.parametrize("crop", [8, 12, 48])
@pytest.mark.parametrize(
    ("first", "fixed", "pixel"), [(20, 0.03, 1e-5), (0.5, 0.2, 1e-4), (0, 0.001, 0.01), (8, 0, 0.1)]
)
def test_neither_the_start_nor_what_is_fixed_counts_as_computing(
    config, monkeypatch, crop, first, fixed, pixel
):
    net: Any = _TimedNetwork(config.network, first, fixed, pixel)
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: net.now))
    measured = pace.measure_pace(net, dataclasses.replace(config, crop=crop), torch.device("cpu"), 1)
    assert measured.seconds == pytest.approx(fixed + pixel * crop**2)


def test_a_step_that_takes_minutes_is_tried_once(config, monkeypatch):
    net: Any = _TimedNetwork(config.network, 0, 0, 1)
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: net.now))
    monkeypatch.setattr(pace, "LONGEST_TRIAL", 10)
    measured = pace.measure_pace(net, dataclasses.replace(config, crop=24), torch.device("cpu"), 1)
    assert (measured.seconds, net.sides) == (24**2, [8])


def test_a_larger_crop_is_not_tried_where_memory_does_not_hold_it(config, monkeypatch):
    net: Any = _TimedNetwork(config.network, 0, 0, 1e-3)
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: net.now))
    monkeypatch.setattr(pace, "machine_memory", lambda: 4 * 8**2 * 3 * 4 - 1)
    measured = pace.measure_pace(net, dataclasses.replace(config, crop=24), torch.device("cpu"), 1)
    assert (measured.seconds, set(net.sides)) == (pytest.approx(24**2 / 1000), {8})


@pytest.mark.parametrize(("memory", "said"), [(2**20, ""), (2**30, " and over 1.0 GiB of memory")])
def test_memory_is_named_where_it_counts(memory, said):
    warning = pace.warn_if_slow(pace.Pace(2, memory), 10**6, "cpu")
    assert warning
    assert f"about 2 s on cpu{said}, 1000000 steps 23 days;" in warning


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0421, "0.042 s"), (99.7, "100 s"), (1602, "27 minutes"), (9000, "2 hours")]
)
def test_times_read_like_times(seconds, said):
    warning = pace.warn_if_slow(pace.Pace(seconds, 0), 10**6, "cpu")
    assert warning
    assert f"a step takes about {said} on cpu" in warning


def test_a_crop_larger_than_every_image_is_reported(config):
    notices = []
    train(dataclasses.replace(config, crop=18, steps=1), notify=notices.append)
    assert notices == []
    config = dataclasses.replace(config, crop=20, steps=1, output=config.output / "more")
    train(config, notify=notices.append)
    assert len(notices) == 1
    assert "no image is as large as --crop 20 times 2: all are mirrored" in notices[0]
    assert "--crop 18, would work" in notices[0]  # of 48x36 pixels


def test_pages_that_are_not_used_are_counted(config, photos, tmp_path):
    frames = [Image.new("RGB", (48, 36), color) for color in ("red", "green", "blue")]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    notices = []
    config = dataclasses.replace(config, steps=1, images=(photos, tmp_path / "stack.tif"))
    train(config, notify=notices.append)
    assert notices == [
        f"used only the first page or frame of {tmp_path}/stack.tif; 2 others are left out; "
        "split them into single images to train on all"
    ]
    (tmp_path / "stack.tif").rename(photos / "stack.tif")
    frames[0].save(photos / "two.gif", save_all=True, append_images=frames[1:2])
    config = dataclasses.replace(config, output=tmp_path / "other", images=(photos,), validation=photos)
    train(config, notify=notices.append)
    assert [re.sub(r"\S+/", "", sentence) for sentence in notices[1:]] == [
        f"used only the first page or frame of 2 files, such as stack.tif; 3 others are left out; "
        f"split them into single images to {purpose} on all"
        for purpose in ("train", "measure")
    ]


def test_transparent_pictures_are_reported_and_opaque_alpha_is_not(config, photos, tmp_path):
    Image.open(photos / "a.png").convert("RGBA").save(photos / "opaque.png")
    notices = []
    config = dataclasses.replace(config, steps=1, validation=photos)
    train(config, notify=notices.append)
    assert notices == []
    glass = Image.open(photos / "a.png").convert("RGBA")
    glass.putpixel((3, 4), (255, 0, 0, 254))
    glass.save(photos / "glass.png")
    train(dataclasses.replace(config, output=tmp_path / "other"), notify=notices.append)
    assert notices == [
        f"parts of {photos}/glass.png are transparent, and the colours there, which nobody sees, are {used}, "
        "too; put them on a background, or leave them out"
        for used in ("learned", "measured")
    ]


def test_a_run_is_neither_overwritten_nor_mistaken_for_another(config):
    train(dataclasses.replace(config, steps=1))
    with pytest.raises(UsageError, match="it holds a run"):
        train(config)
    with pytest.raises(
        UsageError, match="--batch 3: it was begun with --batch 2; give that, or leave it out"
    ):
        train(dataclasses.replace(config, batch=3), resume=True)
    with pytest.raises(
        UsageError,
        match="with --crop 10, --batch 3 and --seed 2: "
        "it was begun with --crop 8, --batch 2 and --seed 0; give those, or leave them out",
    ):
        train(dataclasses.replace(config, batch=3, crop=10, seed=2), resume=True)
    assert config.network
    wider = dataclasses.replace(config, steps=1, network=dataclasses.replace(config.network, d_state=3))
    with pytest.raises(UsageError, match=r"with --d-state 3: it was begun with --d-state \d; give that"):
        train(wider, resume=True)
    further = dataclasses.replace(
        config, steps=1, network=None, weights=config.output / "weights.safetensors"
    )
    with pytest.raises(UsageError, match="with --weights: it was begun with a new network; give that"):
        train(further, resume=True)


@pytest.mark.parametrize("name", ["weights.safetensors", "log.jsonl", "report.html", "examples/4_a.webp"])
def test_files_of_a_run_without_a_state_are_not_replaced(config, name):
    file = config.output / name
    file.parent.mkdir(parents=True)
    file.write_text("something")
    with pytest.raises(
        UsageError, match=rf"run: it holds {name.split('/')[0]}, which would be .*; choose another folder"
    ):
        train(config)
    assert [path for path in config.output.rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "something"


def test_a_run_that_failed_at_its_first_step_is_begun_again(config):
    config.output.mkdir()
    (config.output / "log.jsonl").touch()
    assert train(config)


@pytest.mark.parametrize("name", ["loss", "psnr_x2"])
def test_a_run_that_is_killed_is_begun_again_or_resumed(config, photos, name):
    code = """
import os, sys
from pathlib import Path
from train_runs import make_config
from mambair_cli.train import loop, train
folder, event, loop.LOG_EVERY = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
kill = lambda: os.kill(os.getpid(), 9)
train(
    make_config(folder, validation=folder / "photos", validate_every=3),
    report=lambda line: event in line and kill(),
    on_step=lambda step: event == str(step) and kill(),
)
"""
    config = dataclasses.replace(config, validation=photos, validate_every=3)
    wanted = load_weights(train(dataclasses.replace(config, output=config.output.with_name("whole"))))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def kill_at(event):
        command = [sys.executable, "-c", code, config.output.parent, event, "3" if name == "loss" else "100"]
        done = subprocess.run(command, env=environment, capture_output=True)
        assert done.returncode
        assert not done.stderr  # else it was an error

    kill_at("2")  # before the first line of the log
    with pytest.raises(UsageError, match="begin a run without --resume"):
        train(config, resume=True)
    kill_at(name)
    with pytest.raises(UsageError, match="it holds a run; continue it with --resume"):
        train(config)
    got = load_weights(train(config, resume=True))
    assert all(torch.equal(got[tensor], wanted[tensor]) for tensor in wanted)


def test_a_folder_is_for_one_run_at_a_time(config):
    train(dataclasses.replace(config, steps=1))
    said = []

    def begin_others(step):
        for resume in (False, True):
            with pytest.raises(
                UsageError, match=r"another run writes there; .* choose another folder"
            ) as error:
                train(dataclasses.replace(config, steps=3), resume=resume)
            said.append(error)

    train(dataclasses.replace(config, steps=2), resume=True, on_step=begin_others)
    assert len(said) == 2
    assert not list(config.output.glob(".*"))


def test_a_run_that_was_killed_holds_nothing(config):
    code = """
import os, sys
from pathlib import Path
from mambair_cli.train.folder import hold_folder
with hold_folder(Path(sys.argv[1])):
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code, config.output])
    assert done.returncode
    assert list(config.output.iterdir())
    assert train(config)


def test_a_run_that_is_refused_leaves_no_folder(config, tmp_path):
    with pytest.raises(UsageError, match="--scale 2 would work"):
        train(dataclasses.replace(config, scale=3, output=tmp_path / "new" / "run"))
    assert not (tmp_path / "new").exists()


def test_a_run_stays_on_its_kind_of_device(config):
    run = Trainer(config)
    config.output.mkdir()
    run.save()
    state = torch.load(config.output / "state.pt", weights_only=True)
    torch.save({**state, "config": {**state["config"], "device": "cuda:1"}}, config.output / "state.pt")
    with pytest.raises(UsageError, match="begun on cuda"):
        train(config, resume=True)


def test_a_state_that_is_missing_or_damaged_is_a_clear_error(config):
    with pytest.raises(UsageError, match=r"holds no state\.pt; begin a run without --resume"):
        train(config, resume=True)
    assert not config.output.exists()
    with pytest.raises(UsageError, match=r"holds no state\.pt"):  # nor where a process does not see it
        Trainer(config).load()
    config.output.mkdir()
    (config.output / "state.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(CheckpointError, match="damaged"):
        train(config, resume=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"network": {"form": "a later one"}},
            "its settings are not those of this version; continue it",
        ),
        ({"network": {"embed_dim": 48}}, "its settings are not those of this version"),
        ({"images": 5}, "its settings are not those of this version"),
        (None, "it is not the state of a run"),
    ],
)
def test_settings_of_another_version_are_a_clear_error(config, changes, said):
    train(dataclasses.replace(config, steps=1))
    state = torch.load(config.output / "state.pt", weights_only=True)
    settings = None if changes is None else {**state["config"], **changes}
    torch.save({**state, "config": settings}, config.output / "state.pt")
    with pytest.raises(CheckpointError, match=said):
        read_begun(config.output)


def test_a_state_that_may_not_be_read_is_not_called_damaged(config):
    config.output.mkdir()
    (config.output / "state.pt").mkdir()  # root may read any file
    with pytest.raises(CheckpointError, match=r"cannot read .*state\.pt: Is a directory; check"):
        train(config, resume=True)


def test_divergence_ends_the_run_and_saves_nothing(config):
    with pytest.raises(MambairError, match="diverged"):
        train(dataclasses.replace(config, learning_rate=1e30, warmup=0))
    assert not (config.output / "weights.safetensors").exists()


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


@pytest.mark.parametrize("name", ["a.png", "a.png/run", "link"])
def test_a_file_in_the_place_of_the_folder_is_wrong_usage(config, photos, name):
    (photos / "link").symlink_to("nowhere")
    with pytest.raises(
        UsageError,
        match=r"cannot write results: \S+/(a\.png|link) is no folder; choose another folder with -o",
    ):
        train(dataclasses.replace(config, output=photos / name))
    assert (photos / "a.png").is_file()


def test_a_folder_that_cannot_be_made_is_one_line(config, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "mkdir", fail)
    with pytest.raises(
        MambairError, match=r"cannot write .*/run: No space left on device; free some space, or choose"
    ):
        train(config)
