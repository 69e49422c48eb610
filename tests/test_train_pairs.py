"""Pairs of inputs and truth among the pictures to train on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair_cli.train import TrainConfig, train
from mambair_cli.train.pairs import explain_pairs


def save(folder: Path, factor: int = 1, mark: str = "", suffix: str = ".png") -> Path:
    """Save two pictures, reduced by a factor; their sides are no multiples of it."""
    folder.mkdir(parents=True)
    for index, size in enumerate(((61, 45), (49, 51))):
        pixels = np.random.default_rng(index).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        halves = Image.fromarray(pixels).resize((size[0] // factor, size[1] // factor))
        halves.save(folder / f"{index}{mark}{suffix}")
    return folder


def learn(config: TrainConfig, *folders: Path, validation: Path | None = None) -> list[str]:
    """Train for a step; return what was said."""
    notices: list[str] = []
    train(replace(config, steps=1, images=folders, validation=validation), notify=notices.append)
    return notices


@pytest.mark.parametrize("names", [("lr", "hr"), ("LR", "HR"), ("lq", "gt"), ("a/train_LR", "b/train_HR")])
@pytest.mark.parametrize("is_named", [False, True])
def test_the_small_halves_of_pairs_are_reported(
    config: TrainConfig, tmp_path: Path, names: tuple[str, str], is_named: bool
) -> None:
    small, large = save(tmp_path / "pairs" / names[0], 2), save(tmp_path / "pairs" / names[1])
    notices = learn(config, *([small, large] if is_named else [tmp_path / "pairs"]))
    assert notices == [
        f"{small} seems to hold the pictures of {large} 2 times smaller, and they are learned as truth, too; "
        f"inputs are made from the large pictures alone: give only {large}"
    ]


def test_pairs_that_are_measured_on_are_reported(config: TrainConfig, photos: Path, tmp_path: Path) -> None:
    save(tmp_path / "pairs" / "lr", 4, mark="x4", suffix=".jpg")
    save(tmp_path / "pairs" / "hr")
    (notice,) = learn(config, photos, validation=tmp_path / "pairs")
    assert "lr seems to hold the pictures of" in notice
    assert "4 times smaller, and they are measured as truth" in notice


def test_folders_inside_belong_to_those_of_their_names(config: TrainConfig, tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "pairs" / "lr" / name, 3)
        save(tmp_path / "pairs" / "hr" / name)
    (notice,) = learn(config, tmp_path / "pairs")
    assert notice.startswith(
        f"{tmp_path}/pairs/lr seems to hold the pictures of {tmp_path}/pairs/hr 3 times smaller"
    )


def test_several_folders_of_halves_are_counted(config: TrainConfig, tmp_path: Path) -> None:
    for factor in (2, 3, 4):
        save(tmp_path / "Set" / f"LRbicx{factor}", factor)
    save(tmp_path / "Set" / "GTmod12")
    (notice,) = learn(config, tmp_path / "Set")
    assert "LRbicx2 and 2 other folders seem to hold the pictures of" in notice
    assert notice.endswith("GTmod12")


def test_pictures_that_share_their_names_alone_are_no_pairs(config: TrainConfig, tmp_path: Path) -> None:
    save(tmp_path / "photos" / "2023")
    save(tmp_path / "photos" / "2024")
    other = save(tmp_path / "photos" / "2025", 2)
    with Image.open(other / "1.png") as picture:
        picture.crop((0, 0, 24, 20)).save(other / "1.png")
    save(tmp_path / "photos" / "thumbnails", 2)
    (tmp_path / "photos" / "thumbnails" / "1.png").rename(tmp_path / "photos" / "thumbnails" / "2.png")
    assert learn(config, tmp_path / "photos") == []


def test_many_folders_with_the_same_names_are_compared_at_once() -> None:
    sizes = {Path(f"clips/{clip}/{frame}.png"): (80, 90) for clip in range(3000) for frame in range(3)}
    assert list(explain_pairs(sizes, "learned")) == []
    sizes |= {Path(f"small/{clip}/{frame}.png"): (20, 23) for clip in range(3000) for frame in range(3)}
    (notice,) = explain_pairs(sizes, "learned")
    assert notice.startswith("small seems to hold the pictures of clips 4 times smaller")


def test_pictures_of_a_pixel_are_no_halves_of_themselves() -> None:
    assert list(explain_pairs({Path("a/1.png"): (1, 1), Path("b/1.png"): (1, 1)}, "learned")) == []
