"""Results of clips and what is around them: images and pipes, clips that change, disks that are full."""

import io
import json
import os
import shutil
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import save_nearest
from PIL import Image

pytest.importorskip("av", reason="needs the extra video")

from clips import facts, make_clip, picture, psnr
from file_limit import limited_files

from mambair_cli.cli import main
from mambair_cli.runs import clip_job
from mambair_cli.video import UprightFrames, name_losses, open_clip

LOCAL = ("--offline", "--device", "cpu", "--weights", "double.safetensors", "-s", "2")
TURNED = (0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30)


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """Change to a folder with a network that repeats pixels."""
    monkeypatch.chdir(tmp_path)
    save_nearest(tmp_path / "double.safetensors", 2)
    return tmp_path


def upscale(*arguments: str) -> int:
    return main(["upscale", *arguments, *LOCAL])


def save_images(folder: Path, count: int, name: str = "{}.png") -> None:
    folder.mkdir(exist_ok=True)
    for number in range(1, count + 1):
        Image.new("RGB", (12, 8), (20 * number, 0, 0)).save(folder / name.format(number))


@pytest.mark.parametrize("how", ["by name", "by a link"])
def test_images_never_replace_those_of_their_clip(place: Path, capsys, how: str) -> None:
    save_images(place / "pat", 3, "img00{}.png")
    if how == "by name":
        os.rename("pat/img003.png", "pat/img1000.png")  # the last of four results
        os.rename("pat/img001.png", "pat/img999.png")
        os.rename("pat/img1000.png", "pat/img003.png")
        target = "pat/img%03d.png"
    else:
        (place / "out").mkdir()
        os.link("pat/img003.png", "out/2.png")
        target = "out/%d.png"
    before = {path: path.read_bytes() for path in place.glob("*/*.png")}
    for options in ([], ["--dry-run"]):
        assert upscale("pat/img%d.png", "-o", target, "--overwrite", *options) == 1
        assert "it is among the inputs; choose another folder with -o" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in place.glob("*/*.png")} == before


def test_images_after_the_last_frame_are_reported_or_removed_if_they_are_ours(place: Path, capsys) -> None:
    save_images(place / "in", 5)
    command = ("in/%d.png", "-o", "out/%02d.png", "--overwrite")
    assert upscale(*command) == 0
    capsys.readouterr()
    shutil.move("in/5.png", "5.png")
    assert upscale(*command) == 0
    rest = "1 image from out/05.png on is not of this result, which ends before; remove what is not needed"
    assert rest in capsys.readouterr().err

    make_clip(place / "clip.mkv", "matroska", times=[3003 * n for n in range(4)], size=(24, 16))
    command = ("clip.mkv", "-o", "ours/%d.png", "--resume")
    assert upscale(*command) == 0
    (place / "ours/7.png").write_bytes(b"mine")
    make_clip(place / "clip.mkv", "matroska", times=[3003 * n for n in range(2)], size=(24, 16))
    capsys.readouterr()
    assert upscale(*command, "--overwrite") == 0
    said = capsys.readouterr().err
    assert "the result before was longer: its last 2 images removed" in said
    assert "1 image from ours/7.png on is not of this result" in said
    assert sorted(path.name for path in Path("ours").glob("[!.]*")) == ["1.png", "2.png", "7.png"]


def test_a_clip_that_is_replaced_while_a_run_waits_is_restored_as_it_is(
    place: Path, monkeypatch, capsys
) -> None:
    make_clip(place / "in.mp4", "mp4", times=[3003 * n for n in range(4)], size=(48, 32))
    make_clip(place / "new.mp4", "mp4", times=[3003 * n for n in range(3)], size=(24, 16))
    journal = clip_job.Journal

    def wait(*arguments: Any) -> Any:
        if (place / "new.mp4").exists():
            (place / "new.mp4").replace(place / "in.mp4")
        return journal(*arguments)

    monkeypatch.setattr(clip_job, "Journal", wait)
    assert upscale("in.mp4", "-o", "out.mp4", "--resume", "--json") == 0
    done = json.loads(capsys.readouterr().out.splitlines()[1])
    assert (done["frames"], done["width"], done["height"]) == (3, 48, 32)
    assert upscale("in.mp4", "-o", "out.mp4", "--resume") == 0
    assert "out.mp4 is done already" in capsys.readouterr().err


def test_a_clip_that_is_replaced_while_it_is_looked_at_is_refused(place: Path, monkeypatch, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=[3003 * n for n in range(4)], size=(48, 32))
    make_clip(place / "new.mp4", "mp4", times=[3003 * n for n in range(3)], size=(24, 16))
    choose = clip_job.choose_way

    def replace_clip(*arguments: Any) -> Any:
        (place / "new.mp4").replace(place / "in.mp4")
        return choose(*arguments)

    monkeypatch.setattr(clip_job, "choose_way", replace_clip)
    assert upscale("in.mp4", "-o", "out.mp4") == 1
    assert "cannot restore in.mp4: it changed or vanished meanwhile; try it again" in capsys.readouterr().err
    assert not (place / "out.mp4").exists()


def test_frames_of_images_are_upright(place: Path, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=[0, 3003], size=(32, 16), rotation=90, pix_fmt="yuv444p")
    assert upscale("in.mp4", "-o", "out/%d.png", "--json") == 0
    done = json.loads(capsys.readouterr().out.splitlines()[1])
    assert (done["width"], done["height"]) == (32, 64)
    with Image.open("out/1.png") as image:
        made = np.array(image) / 255
    wanted = np.rot90(picture(0, (32, 16)).repeat(2, 0).repeat(2, 1))  # players turn it counter-clockwise
    assert made.shape == wanted.shape
    assert psnr(made, wanted) > 30
    assert main(["upscale", "in.mp4", "-o", "small/%d.png", "--width", "24", *LOCAL[:-2]]) == 0
    with Image.open("small/1.png") as image:
        assert image.size == (24, 48)


def test_frames_in_a_pipe_are_upright(place: Path, monkeypatch) -> None:
    make_clip(
        place / "in.mp4",
        "mp4",
        times=[0, 3003],
        size=(32, 16),
        rotation=90,
        sample_aspect_ratio=Fraction(4, 3),
    )
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written))
    assert upscale("in.mp4", "-o", "-") == 0
    assert written.getvalue().startswith(b"YUV4MPEG2 W32 H64 F30000:1001 Ip A3:4 ")


@pytest.mark.parametrize(
    ("matrix", "wanted"),
    [
        (None, [[1, 2, 3], [4, 5, 6]]),
        (TURNED, [[3, 6], [2, 5], [1, 4]]),
        ((-1, 0, 0, 0, 1, 0, 0, 0, 1), [[3, 2, 1], [6, 5, 4]]),  # as FFmpeg's hflip
        ((1, 0, 0, 0, -1, 0, 0, 0, 1), [[4, 5, 6], [1, 2, 3]]),
        ((-1, 0, 0, 0, -1, 0, 0, 0, 1), [[6, 5, 4], [3, 2, 1]]),
        ((0, 1, 0, 1, 0, 0, 0, 0, 1), [[1, 4], [2, 5], [3, 6]]),
        ((0, 1, 0, -1, 0, 0, 0, 0, 1), [[4, 1], [5, 2], [6, 3]]),
        ((46341, 46341, 0, -46341, 46341, 0, 0, 0, 1), [[1, 2, 3], [4, 5, 6]]),
    ],
)
def test_every_turn_by_quarters_and_mirror_is_done(matrix: Any, wanted: list[list[int]]) -> None:
    upright = UprightFrames(facts(display_matrix=matrix))
    pixels = np.arange(1, 7).reshape(2, 3, 1)
    np.testing.assert_array_equal(upright.turn(pixels)[..., 0], wanted)
    assert upright.turn_size((2, 3)) == np.shape(wanted)
    assert upright.is_possible is (matrix is None or matrix[0] != 46341)


@pytest.mark.parametrize(
    ("changes", "of_png", "of_pipe"),
    [
        ({}, [], []),
        ({"bits": 10}, [], []),
        (
            {"bits": 12},
            [],
            ["12 bits of a sample become 10 in YUV4MPEG; numbered .png images keep them"],
        ),
        ({"has_alpha": True}, [], ["YUV4MPEG has no transparency; it is left out, and numbered .png"]),
        ({"pixel_aspect": Fraction(16, 15)}, ["png does not tell that pixels are 16/15 as wide as high"], []),
        ({"variable": True}, ["which png does not tell"], ["which YUV4MPEG does not tell"]),
        ({"chroma": (1, 4), "pixel_format": "yuv411p"}, [], ["chroma becomes 4:2:0 in YUV4MPEG"]),
        (
            {"display_matrix": (46341, 46341, 0, -46341, 46341, 0, 0, 0, 1), "rotation": -45},
            ["png does not tell that players turn frames by -45°; they stay as stored"],
            ["YUV4MPEG does not tell that players turn frames by -45°"],
        ),
        (
            {"colour": replace(facts().colour, transfer=16)},
            ["png does not tell that colours are those of HDR10; they stay as stored"],
            ["YUV4MPEG does not tell that colours are those of HDR10"],
        ),
        (
            {"colour": replace(facts().colour, primaries=9)},
            ["colours are those of BT.2020"],
            ["colours are those of BT.2020"],
        ),
    ],
)
def test_what_images_and_pipes_do_not_hold_is_named(changes: Any, of_png: Any, of_pipe: Any) -> None:
    for target, wanted in ((Path("%d.png"), of_png), (None, of_pipe)):
        found = name_losses(facts(**changes), target)
        assert len(found) == len(wanted)
        for said, part in zip(found, wanted, strict=True):
            assert part in said
    assert name_losses(facts(bits=10), Path("%d.jpg")) == (
        "10 bits of a sample become 8 in jpeg; png and tiff keep them",
    )


@pytest.mark.parametrize("output", ["out/%d.png", "-"])
def test_times_that_vary_are_reported_where_they_are_lost(
    place: Path, monkeypatch, capsys, output: str
) -> None:
    make_clip(place / "in.mkv", "matroska", times=[0, 3003, 9009, 12012], size=(24, 16))
    with open_clip(place / "in.mkv") as clip:
        assert clip.facts.variable is None
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
        assert upscale("in.mkv", "-o", output) == 0
    form = "png" if "png" in output else "YUV4MPEG"
    assert f"frames last differently long, which {form} does not tell" in capsys.readouterr().err
    if form == "png":
        assert upscale("in.mkv", "-o", "other/%d.png", "--dry-run") == 0
        assert "frames last differently long, which png does not tell" in capsys.readouterr().err


def test_a_segment_that_finds_no_room_is_reported_as_its_clip(place: Path, capfd) -> None:
    make_clip(place / "in.mp4", "mp4", times=[3003 * n for n in range(12)], size=(320, 240))
    with limited_files(300_000):
        assert upscale("in.mp4", "-o", "out.mkv", "--codec", "ffv1") == 1
    said = capfd.readouterr().err
    assert "cannot write out.mkv: File too large; see to the folder, and go on with --resume" in said
    assert "Traceback" not in said
    assert ".mkv.mambair" not in said
