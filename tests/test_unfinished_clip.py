"""The hidden folder of a clip that is not finished: one run at a time holds it, and nothing in it is lost."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av", reason="needs the extra video")

from checkpoints import save_nearest
from clips import make_clip, stopping_after
from folders import list_files
from PIL import Image

from mambair_cli.cli import main
from mambair_cli.errors import ImageError
from mambair_cli.runs import clip_segments, unfinished_clip
from mambair_cli.runs.unfinished_clip import LeftOver, UnfinishedClip, find_left_over


@pytest.mark.skipif(os.name != "posix", reason="Windows removes no open file")
def test_runs_that_begin_while_another_ends_do_not_hold_one_clip(tmp_path: Path, monkeypatch) -> None:
    first, second, third = (UnfinishedClip(tmp_path / "out.mkv", {}) for _ in range(3))
    release = first._lock.release

    def begin_then(*given: Any, **named: Any) -> None:
        release(*given, **named)
        opened.enter_context(second)  # just when the lock is free

    monkeypatch.setattr(first._lock, "release", begin_then)
    with ExitStack() as opened:
        with first:
            first.begin(LeftOver())
        with pytest.raises(ImageError, match="another run is writing it"):
            third.__enter__()
    assert not list(tmp_path.iterdir())


TARGETS = {"a clip": "out.mkv", "images": "%02d.png"}
LONG = "x" * 246 + ".mkv"
# Ends the process where the third image is complete and has no name yet.
KILL = """
import itertools, os, signal, sys
from mambair_cli.runs import clip_segments
from mambair_cli.system import atomic
clip_segments.SEGMENT_FRAMES = 5
publish, count = atomic._publish, itertools.count(1)
def kill(*given):
    if given[1].suffix == ".png" and next(count) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return publish(*given)
atomic._publish = kill
from mambair_cli.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with a clip of 12 frames, in segments of 5."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clip_segments, "SEGMENT_FRAMES", 5)
    save_nearest(Path("double.safetensors"), 2)
    make_clip(Path("in.mkv"), "matroska", times=[3003 * number for number in range(12)], size=(32, 16))
    return tmp_path


def command(target: str, *options: str) -> list[str]:
    model = ["--weights", "double.safetensors", "--offline", "--device", "cpu"]
    return ["upscale", "in.mkv", "-s", "2", *model, "-o", target, *options]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_what_is_finished_is_not_lost_by_a_word_that_was_forgotten(target: str, place: Path, capsys) -> None:
    with stopping_after(7):
        main(command(target))
    left = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    finished = len([path for path in left if path.suffix == ".png"]) or 5
    for options in ((), ("--dry-run",), ("--quality", "50")):
        capsys.readouterr()
        assert main(command(target, *options)) == 2
        assert (
            f"cannot begin {target} anew: an earlier run has left {finished} finished frames; "
            "--resume goes on with them, --overwrite begins anew\n"
        ) in capsys.readouterr().err
        assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == left
    assert main(command(target, "--resume")) == 0
    assert f"going on after {finished} frames" in capsys.readouterr().err


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_what_is_lost_is_reported_before(target: str, place: Path, capsys, monkeypatch) -> None:
    with stopping_after(7):
        main(command(target))
    begin, there = UnfinishedClip.begin, []

    def look_and_begin(unfinished: UnfinishedClip, left: LeftOver) -> None:
        there.append(capsys.readouterr().err)
        begin(unfinished, left)

    monkeypatch.setattr(UnfinishedClip, "begin", look_and_begin)
    other = ["-s", "1.5", "--resume", *(["--overwrite"] if "%" in target else [])]
    assert main(command(target, *other)) == 0
    assert "beginning anew, without its " in there[0]
    assert main(command("other.mkv", "--overwrite")) == 0
    assert "anew" not in there[1]


def test_an_unfinished_clip_may_be_overwritten(place: Path) -> None:
    with stopping_after(7):
        main(command("out.mkv"))
    assert main(command("out.mkv", "--overwrite")) == 0
    assert list_files() == ["double.safetensors", "in.mkv", "out.mkv"]


def test_a_clip_may_have_a_name_as_long_as_names_can_be(place: Path, capsys) -> None:
    with stopping_after(7):
        main(command(LONG))
    assert main(command(LONG, "--resume")) == 0
    assert "going on after 5 frames" in capsys.readouterr().err
    assert sorted(path.name for path in place.iterdir() if path.name[0] != ".") == [
        "double.safetensors",
        "in.mkv",
        LONG,
    ]


def test_a_folder_of_an_earlier_version_is_found_where_names_may_be_longer(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(unfinished_clip, "_LONGEST", 16)
    target, folder = tmp_path / "long-name.mkv", tmp_path / ".long-name.mkv.mambair"
    assert UnfinishedClip(target, {}).folder != folder
    folder.mkdir()
    (folder / "plan.json").write_text("{}")
    (folder / "000000.mkv").touch()
    assert UnfinishedClip(target, {}).folder == folder
    assert find_left_over(target, {}, resume=True).segments == (folder / "000000.mkv",)


@pytest.mark.skipif(sys.platform == "win32", reason="has no kill -9")
def test_a_killed_run_leaves_nothing_half_written_among_images(place: Path) -> None:
    Path("frames").mkdir()
    killed = subprocess.run([sys.executable, "-c", KILL, *command("frames/%d.png")], check=False)
    assert killed.returncode == -9
    assert {name for name in os.listdir("frames") if name[0] == "."} == {".%d.png.mambair"}
    assert [name for name in os.listdir("frames/.%d.png.mambair") if name.endswith(".tmp")]
    assert main(command("frames/%d.png", "--resume")) == 0
    assert list_files("frames") == sorted(f"{number}.png" for number in range(1, 13))
    with Image.open("frames/12.png") as image:
        assert image.size == (64, 32)
