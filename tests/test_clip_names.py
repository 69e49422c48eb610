"""Names of clips and of their results: patterns, numbers in names, results among the inputs, folders."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from checkpoints import save_nearest
from PIL import Image

pytest.importorskip("av", reason="needs the extra video")

from clips import make_clip

from mambair_cli.cli import main
from mambair_cli.images.signatures import is_clip
from mambair_cli.system.clips import read_rate
from mambair_cli.video import is_pattern, open_clip

LOCAL = ("--offline", "--device", "cpu")
TIMES = [0, 3003]


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """Change to a folder with a network that repeats pixels."""
    monkeypatch.chdir(tmp_path)
    save_nearest(tmp_path / "double.safetensors", 2)
    return tmp_path


def upscale(*arguments: str) -> int:
    return main(["upscale", "-s", "2", "--weights", "double.safetensors", *LOCAL, *arguments])


def make(*names: str) -> None:
    for name in names:
        format = {".mkv": "matroska", ".ts": "mpegts"}.get(Path(name).suffix, Path(name).suffix[1:])
        make_clip(Path(name), format, times=TIMES, size=(48, 32))


def written(capsys) -> list[str]:
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("name", "is_one"), [("a/%06d.png", True), ("%d.tif", True), ("50%d.mp4", False), ("%d%d.png", False)]
)
def test_numbers_in_names_stand_for_images_only(name: str, is_one: bool) -> None:
    assert is_pattern(Path(name)) == is_one


def test_a_clip_whose_name_looks_numbered_is_a_clip(place: Path, capsys) -> None:
    make("50%d.mp4", "50%d.ts")
    assert upscale("50%d.mp4", "50%d.ts") == 0
    assert written(capsys) == ["50%d_x2.mp4", "50%d_x2.mkv"]
    assert upscale("50%d.mp4", "-o", "100%d.mkv") == 0
    assert sorted(path.name for path in place.glob("*.mkv")) == ["100%d.mkv", "50%d_x2.mkv"]


def test_numbered_images_of_this_folder_go_to_one_next_to_it(place: Path, monkeypatch, capsys) -> None:
    (place / "frames").mkdir()
    for number in (1, 2):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(f"frames/{number}.png")
    monkeypatch.chdir(place / "frames")
    save_nearest(place / "frames/double.safetensors", 2)
    assert upscale("%d.png") == 0
    assert written(capsys) == ["../frames_x2/%d.png"]
    assert sorted(path.name for path in (place / "frames_x2").iterdir()) == ["1.png", "2.png"]


def test_hidden_files_are_no_frames(place: Path) -> None:
    (place / "frames").mkdir()
    Image.new("RGB", (16, 16)).save("frames/1.png")
    (place / "frames/._1.png").write_bytes(b"of another system")
    assert upscale("frames", "-o", "out.mkv") == 0


def test_patterns_of_clips_are_expanded_and_results_left_out(place: Path, capsys) -> None:
    make("a.mp4", "b.mp4")
    assert upscale("[ab].mp4") == 0
    assert written(capsys) == ["a_x2.mp4", "b_x2.mp4"]
    assert upscale("*.mp4", "--overwrite") == 0
    said = capsys.readouterr()
    assert said.out.split() == ["a_x2.mp4", "b_x2.mp4"]
    assert "left out a clip that is a result: a_x2.mp4; name it alone to restore it, too" in said.err
    assert upscale("no*.mp4") == 2
    assert "no file matches the pattern: no*.mp4; check it" in capsys.readouterr().err
    assert main(["inspect", "[ab].mp4", "--json"]) == 0
    assert [json.loads(line)["input"] for line in capsys.readouterr().out.splitlines()] == ["a.mp4", "b.mp4"]


def test_clips_that_differ_by_their_suffix_get_results_that_do(place: Path, capsys) -> None:
    make("a.avi", "a.ts", "a.mkv")
    assert upscale("a.avi", "a.ts", "a.mkv") == 0
    assert written(capsys) == ["a.avi_x2.mkv", "a.ts_x2.mkv", "a_x2.mkv"]


def test_clips_in_a_folder_are_reported(place: Path, capsys) -> None:
    (place / "in").mkdir()
    make("in/a.mp4")
    assert upscale("in") == 2
    assert "it has clips; name each, such as in/a.mp4" in capsys.readouterr().err
    Image.new("RGB", (16, 16)).save("in/b.png")
    assert upscale("in") == 0
    assert "left out a clip: in/a.mp4; name it in a command of its own" in capsys.readouterr().err
    assert upscale("in", "--json", "--overwrite") == 0
    (left_out,) = [
        event
        for event in map(json.loads, capsys.readouterr().out.splitlines())
        if event["event"] == "left_out"
    ]
    assert (left_out["why"], left_out["count"], left_out["example"]) == ("clip", 1, "in/a.mp4")


def test_a_dry_run_says_that_a_result_exists(place: Path, capsys) -> None:
    make("a.mp4")
    (place / "a_x2.mp4").write_bytes(b"mine")
    assert upscale("a.mp4", "--dry-run") == 1
    assert "a_x2.mp4: it exists already" in capsys.readouterr().err
    assert upscale("a.mp4", "--dry-run", "--overwrite") == 0
    assert "a_x2.mp4 (replaced)" in capsys.readouterr().out


def test_streams_of_the_shell_are_looked_at_before(place: Path, capsys) -> None:
    make("a.mkv")
    assert upscale("a.mkv", "-o", "-", "--json") == 2
    assert "standard output takes a clip or JSON" in capsys.readouterr().err
    command = [sys.executable, "-m", "mambair_cli", "upscale", "-s", "2", *LOCAL]
    with open("a.mkv", "rb") as clip:
        done = subprocess.run([*command, "-", "-o", "b.mkv"], stdin=clip, capture_output=True, text=True)
    assert done.returncode == 2
    assert "standard input takes a clip as YUV4MPEG" in done.stderr
    with open("a.mkv", "rb") as clip:
        done = subprocess.run([*command, "-", "-o", "-"], stdin=clip, capture_output=True, text=True)
    assert done.returncode == 2
    assert "standard input takes a clip as YUV4MPEG" in done.stderr


@pytest.mark.parametrize("format", ["matroska", "mp4", "mov", "avi", "mpegts", "flv"])
def test_a_clip_is_known_by_its_first_bytes(format: str, place: Path, capsys) -> None:
    make_clip(place / "noname", format, times=[0], size=(16, 16))
    assert is_clip((place / "noname").read_bytes()[:16])
    assert upscale("noname", "-o", "a.png") == 1
    said = capsys.readouterr().err
    assert "cannot read noname: it is a clip, no image; upscale, denoise and dejpeg restore clips" in said
    assert "by a suffix such as .mp4" in said


def test_an_image_is_no_clip_by_its_first_bytes(place: Path) -> None:
    for format in ("png", "jpeg", "webp", "gif", "tiff", "bmp", "avif", "ico", "ppm"):
        Image.new("RGB", (16, 16)).save("a", format)
        assert not is_clip((place / "a").read_bytes()[:16])
    assert not is_clip(b"")
    assert not is_clip(b"Good morning, all")


def test_a_warning_names_the_clip_once(place: Path, capsys) -> None:
    (place / "f").mkdir()
    for number in (1, 3):
        Image.new("RGB", (16, 16)).save(f"f/{number}.png")
    assert upscale("f/%d.png", "-o", "out.mkv") == 0
    sentence = "warning: 1 number is missing in f/%d.png; the images before last longer"
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["a.mp4", "--at", "1"], "--at 1 is for --preview"),
        (["a.mp4", "--fps", "30"], "--fps 30 is for numbered images"),
        (["a.mp4", "-o", "%d.png", "--codec", "av1"], "--codec av1 has no effect on %d.png"),
        (["a.mp4", "-o", "-", "--codec", "av1"], "--codec av1 has no effect on -"),
    ],
)
def test_options_without_an_effect_are_refused(place: Path, given: list[str], why: str, capsys) -> None:
    make("a.mp4")
    assert upscale(*given) == 2
    assert why in capsys.readouterr().err


def test_a_name_with_a_slash_at_its_end_is_a_folder(place: Path, capsys) -> None:
    make("a.mp4")
    assert upscale("a.mp4", "-o", "tapes.2024/") == 0
    said = capsys.readouterr()
    assert said.out.split() == ["tapes.2024/a.mp4"]
    assert "2 frames in " in said.err


def test_images_of_a_clip_have_the_quality_that_is_asked_for(place: Path) -> None:
    make("a.mp4")
    sizes = []
    for quality in ("20", "95"):
        assert upscale("a.mp4", "-o", f"q{quality}/%d.jpg", "--quality", quality) == 0
        sizes.append((place / f"q{quality}/1.jpg").stat().st_size)
    assert sizes[0] < 0.8 * sizes[1]


def test_a_clip_among_images_is_called_a_clip(place: Path, capsys) -> None:
    make("a.mp4")
    Path("list.txt").write_text("a.mp4\n")
    assert upscale("--from-file", "list.txt") == 2
    said = "nothing to restore but clips: a.mp4; name each, or give a pattern such as '*.mp4'"
    assert said in capsys.readouterr().err
    assert main(["compare", "a.mp4", "a.mp4"]) == 1
    err = capsys.readouterr().err
    assert "cannot compare a.mp4: it is a clip, and pictures are compared; --preview --at 10" in err
    Path("a.mp4").rename("a")
    assert upscale("a") == 1
    assert "cannot read a: it is a clip, no image; upscale, denoise and dejpeg" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["shell", "pattern", "list"])
def test_clips_among_images_are_left_out_and_reported(way: str, place: Path, capsys) -> None:
    (place / "in").mkdir()
    make("in/a.mp4")
    make("in/b.mp4")
    Image.new("RGB", (16, 16)).save("in/c.png")
    Path("in/d.hdr").write_text("unknown")
    names = sorted(map(str, Path("in").iterdir()))
    Path("list.txt").write_text("\n".join(names))
    given = {"shell": names, "pattern": ["in/*"], "list": ["--from-file", "list.txt"]}[way]
    assert upscale(*given, "--json") == 1  # the unknown file fails alone
    out, err = capsys.readouterr()
    events = list(map(json.loads, out.splitlines()))
    assert sorted(each["event"] for each in events[2:]) == ["done", "failed", "summary"]
    assert (events[1]["why"], events[1]["count"]) == ("clip", 2)
    assert "left out 2 clips, such as in/a.mp4; name them in a command of their own" in err
    assert [each["output"] for each in events if each["event"] == "done"] == ["in/c_x2.png"]


@pytest.mark.parametrize(
    "given",
    [["a.mp4", "in"], ["a.mp4", "b.png", "--codec", "h264"], ["a.mp4", "b.png", "--preview"], ["a.mp4", "-"]],
)
def test_a_clip_that_may_be_meant_is_not_left_out(given: list[str], place: Path, capsys) -> None:
    (place / "in").mkdir()
    make("a.mp4")
    for name in ("b.png", "in/c.png"):
        Image.new("RGB", (16, 16)).save(name)
    assert upscale(*given) == 2
    assert f"a.mp4 is a clip and {given[1]} is none; name a.mp4 in a command of its own" in (
        capsys.readouterr().err
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_among_numbered_images_and_clips_are_left_out(place: Path, capsys) -> None:
    for number in (1, 2):
        Path("in").mkdir(exist_ok=True)
        Image.new("RGB", (16, 16)).save(f"in/{number}.png")
    os.mkfifo("in/3.png")
    assert upscale("in", "-o", "a.mkv") == 0
    assert upscale("in/%d.png", "-o", "b.mkv") == 0
    for name in ("a.mkv", "b.mkv"):
        with open_clip(Path(name)) as clip:
            assert len(list(clip.frames())) == 2
    os.mkfifo("c.mkv")
    capsys.readouterr()
    assert upscale("?.mkv", "-o", "out/") == 0
    assert "left out a pipe or device: c.mkv; name it to read from it" in capsys.readouterr().err
    assert sorted(map(str, Path("out").glob("*.mkv"))) == ["out/a.mkv", "out/b.mkv"]


@pytest.mark.parametrize(
    ("number", "rate"),
    [
        (23.976, "24000/1001"),
        (29.97, "30000/1001"),
        (59.94, "60000/1001"),
        (12.5, "25/2"),
        (24, "24"),
        (0.01, "1/100"),
    ],
)
def test_rates_of_ntsc_are_exact(number: float, rate: str) -> None:
    assert read_rate(number) == Fraction(rate)


def test_a_folder_whose_name_looks_numbered_is_a_folder(place: Path) -> None:
    (place / "50%d").mkdir()
    Image.new("RGB", (16, 16)).save("50%d/1.png")
    assert upscale("50%d", "-o", "out.mkv") == 0


def test_images_by_name_become_no_folder_with_the_name_of_a_clip(place: Path, capsys) -> None:
    for name in ("1.png", "2.png"):
        Image.new("RGB", (16, 16)).save(name)
    assert upscale("1.png", "2.png", "-o", "out.mp4") == 2
    assert "-o names a clip: out.mp4; for a clip of images, name their folder" in capsys.readouterr().err
    assert not Path("out.mp4").exists()


def test_clips_that_go_into_their_own_folder_are_left_out_when_runs_have_written_them(
    place: Path, capsys
) -> None:
    make("a.flv", "b.ts", "b.flv")
    assert upscale("*.flv", "b.ts", "-o", ".") == 0
    assert written(capsys) == ["a.mkv", "b.flv.mkv", "b.ts.mkv"]
    assert upscale("*.flv", "b.ts", "*.mkv", "-o", ".", "--resume") == 0
    said = capsys.readouterr()
    assert said.out == ""
    for name in ("a.mkv", "b.flv.mkv", "b.ts.mkv"):
        assert f"left out a clip that is a result: {name}; name it alone to restore it, too" in said.err
        assert f"{name} is done already" in said.err


def test_a_clip_that_no_run_has_written_is_an_input(place: Path, capsys) -> None:
    make("a.flv", "a.mkv")
    before = Path("a.mkv").read_bytes()
    assert upscale("a.flv", "a.mkv", "-o", ".", "--overwrite") == 2
    assert "the result of a.mkv cannot be a.mkv" in capsys.readouterr().err
    assert Path("a.mkv").read_bytes() == before
