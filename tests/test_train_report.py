"""The report of a training run: it grows with the run, and goes on after a break."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from train_runs import RESTORER, load_weights, make_config, read_log, save_photographs

from mambair_cli.errors import UsageError
from mambair_cli.quality.degrade import modcrop
from mambair_cli.train import TrainConfig, train


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    save_photographs(tmp_path / "photos")
    return make_config(tmp_path, validation=tmp_path / "photos", steps=6, validate_every=2)


def read_examples(config: TrainConfig) -> dict[str, list[np.ndarray]]:
    """Return the pictures of the report, by the title of their column."""
    page = (config.output / "report.html").read_text()
    heads = re.findall(r'<th scope="col">([^<]*)</th>', page)[1:]
    rows = [re.findall(r'<img src="data:image/webp;base64,([^"]*)"', row) for row in page.split("<tr>")]
    columns: dict[str, list[np.ndarray]] = {head: [] for head in heads}
    for row in (row for row in rows if row):
        for head, source in zip(heads, row, strict=True):
            columns[head].append(np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))))
    return columns


def test_a_report_has_charts_and_the_examples_of_every_measurement(config: TrainConfig) -> None:
    train(config)
    page = (config.output / "report.html").read_text()
    assert page.count("<svg") == 2 + 1  # loss, learning rate, and PSNR
    psnr = [line["psnr_x2"] for line in read_log(config.output) if "psnr_x2" in line]
    assert f"psnr_x2 {psnr[-1]:.2f} dB" in page
    examples = read_examples(config)
    assert list(examples) == ["input", "step 2", "step 4", "step 6", "truth"]
    files = sorted((config.validation or Path()).rglob("*.png"))
    for file, shown in zip(files, examples["truth"], strict=True):
        truth = modcrop(np.asarray(Image.open(file)), 2)
        np.testing.assert_array_equal(shown, truth)
    assert all(shown.shape == examples["truth"][0].shape for shown in examples["input"])
    first, last = examples["step 2"][0], examples["step 6"][0]
    assert (first != last).any()


def test_the_report_of_a_resumed_run_has_what_was_before_the_break(config: TrainConfig) -> None:
    train(replace(config, steps=4))
    before = read_examples(config)
    train(config, resume=True)
    after = read_examples(config)
    assert list(after) == ["input", "step 2", "step 4", "step 6", "truth"]
    np.testing.assert_array_equal(after["step 2"][0], before["step 2"][0])


def test_a_run_without_measurements_has_a_report_of_its_loss(tmp_path: Path) -> None:
    save_photographs(tmp_path / "photos")
    config = make_config(tmp_path, task="denoise", scale=1, network=RESTORER)
    train(config)
    page = (config.output / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "Examples" not in page
    assert not (config.output / "examples").exists()


def test_settings_of_other_tasks_are_left_out(config: TrainConfig) -> None:
    train(config)
    page = (config.output / "report.html").read_text()
    assert 'scale</th><td class="long">2</td>' in page
    assert ">sigma</th>" not in page
    assert ">quality</th>" not in page


@pytest.mark.parametrize("place", ["photos/run", "photos"])
def test_a_run_does_not_learn_from_its_own_examples(config: TrainConfig, tmp_path: Path, place: str) -> None:
    apart = replace(config, steps=4)
    wanted = load_weights(train(apart))
    within = replace(apart, output=tmp_path / place, validate_every=2)
    notices: list[str] = []
    train(replace(within, steps=2), notify=notices.append)
    assert notices == []
    train(replace(within, images=(*apart.images, tmp_path / "photos")), resume=True, notify=notices.append)
    examples = tmp_path / place / "examples"
    assert notices.pop().startswith("the pictures are not those of the first 2 steps")  # each is there twice
    assert notices == [
        f"left out 18 pictures, examples of a run, such as {examples}/2_0.webp",  # two folders
        f"left out 9 pictures, examples of a run, such as {examples}/2_0.webp",
    ]
    within = replace(within, output=tmp_path / "other")
    got = load_weights(train(within, notify=notices.append))
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    with pytest.raises(UsageError, match=r"no pictures in \S+examples: all are examples of a run; give an"):
        train(replace(within, images=(examples,), output=tmp_path / "third"))


def test_pictures_of_the_user_are_no_examples(config: TrainConfig, tmp_path: Path) -> None:
    train(replace(config, output=tmp_path / "photos", steps=2))
    examples = tmp_path / "photos" / "examples"
    (examples / "2_0.webp").rename(examples / "holiday.webp")
    (examples / "input_1.webp").rename(tmp_path / "photos" / "input_1.webp")
    notices: list[str] = []
    train(replace(config, output=tmp_path / "other"), notify=notices.append)
    assert [sentence.split(" pictures")[0] for sentence in notices] == ["left out 7"] * 2


def test_pictures_of_long_names_and_of_one_name_have_examples_of_their_own(
    config: TrainConfig, tmp_path: Path
) -> None:
    measured = tmp_path / "measured"
    for index, name in enumerate((f"a/{'n' * 245}", "a/x", "b/x")):
        (measured / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (60 * index, 90, 200)).save(measured / f"{name}.png")
    config = replace(config, validation=measured)
    train(replace(config, steps=2))
    (measured / "a" / "x.png").rename(measured / "z.png")  # others get numbers of their own
    train(config, resume=True)
    page = (config.output / "report.html").read_text()
    rows = re.findall(
        r'<th scope="row">([^<]*)</th><td><img.*?base64,([^"]*)" alt="[^"]*truth"></td></tr>', page
    )
    truths = {
        name: np.asarray(Image.open(io.BytesIO(base64.b64decode(source.rpartition("base64,")[2]))))
        for name, source in rows
    }
    reds = {name: int(truth[0, 0, 0]) for name, truth in truths.items()}
    assert reds == {f"a/{'n' * 245}": 0, "a/x": 60, "b/x": 120, "z": 60}


@pytest.mark.parametrize("where", ["examples", "report.html"])
def test_a_report_that_cannot_be_written_does_not_end_a_training(config: TrainConfig, where: str) -> None:
    place = config.output / where
    place.parent.mkdir()
    if where == "examples":
        place.write_bytes(b"")

    def get_in_the_way(step: int) -> None:
        if where != "examples" and step == 1:
            place.mkdir()

    notices: list[str] = []
    assert train(config, on_step=get_in_the_way, notify=notices.append)
    assert len(notices) == 1
    assert notices[0].startswith(f"the training goes on, but not its report: cannot write {place}")
    assert [line["step"] for line in read_log(config.output) if "psnr_x2" in line] == [2, 4, 6]
