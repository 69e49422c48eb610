"""The progress of a run, as a terminal shows it."""

import io
import re
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from pictures import save_photo
from rich.cells import cell_len
from terminal import run_in_terminal

from mambair_cli.cli import progress as progress_module
from mambair_cli.cli.progress import ClipProgress, Progress, shorten
from mambair_cli.errors import ImageError
from mambair_cli.images.source import Source
from mambair_cli.runs.jobs import Job, StartedImage
from mambair_cli.runs.outcomes import Outcome


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_the_bar_is_on_the_terminal_and_the_paths_are_in_the_pipe(tmp_path, weights):
    save_photo(tmp_path / "in.png", size=(300, 300))
    model = ["--weights", str(weights / "x4.safetensors")]
    seen = run_in_terminal(["upscale", "in.png", "--tile", "64", *model], tmp_path)
    assert seen.code == 0
    assert seen.stdout == b"in_x4.png\n"
    assert b"in.png" in seen.shown
    assert b"36/36 tiles" in seen.shown
    assert b"MP/s" in seen.shown


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_a_run_over_several_images_shows_all_of_them_and_those_in_work(tmp_path, weights, workers):
    for name in ("a.png", "b.png", "c.png"):
        save_photo(tmp_path / name, size=(100, 100))
    (tmp_path / "bad.png").write_text("no picture")
    model = ["--weights", str(weights / "x4.safetensors"), "--tile", "64"]
    names = ["a.png", "b.png", "c.png", "bad.png"]
    seen = run_in_terminal(["upscale", *names, *model, *workers], tmp_path)
    assert seen.code == 1
    assert sorted(seen.stdout.split()) == [b"a_x4.png", b"b_x4.png", b"c_x4.png"]
    assert (b"mambair: starting 2 workers" in seen.shown) == bool(workers)
    assert b"4/4 images, 1 failed" in seen.shown
    for name in (b"a.png", b"b.png", b"c.png"):
        assert name in seen.shown
    assert b"4/4 tiles" in seen.shown


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_narrow_terminal_shows_the_time_and_both_ends_of_any_name(tmp_path, weights):
    names = [
        "[b] holiday in the mountains 01.png",
        "山の中の長い長い休暇の写真-二〇二四年-02.png",
        "bad.png",
    ]
    for name in names[:2]:
        save_photo(tmp_path / name, size=(200, 200))
    (tmp_path / "bad.png").write_text("no picture")
    model = ["--weights", str(weights / "x4.safetensors"), "--tile", "32"]
    seen = run_in_terminal(["upscale", *names, *model], tmp_path, columns=80)
    assert seen.code == 1
    text = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", seen.shown.decode())
    assert re.search(r"all .* images.* a (second|minute) +-?[-\d]:\S\S:\S\S", text)
    assert re.search(r"\[b\] holid….*01\.png .* tiles .*MP/s +[-\d]:\S\S:\S\S", text)
    assert re.search(r"山の中の….*02\.png .* tiles .*MP/s +[-\d]:\S\S:\S\S", text)


def test_the_row_of_an_image_that_failed_goes_and_one_of_its_name_comes_back(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    sources = [Source(Path(name)) for name in ("good.png", "bad.png", "other/bad.png")]
    progress = Progress()
    progress.expect(sources)
    with progress:
        for worker, source in enumerate(sources):
            progress.start(worker, StartedImage(source, pixels=10**6))
            progress.advance(worker, 1, 9)
        progress.count(Outcome.failed(Job(sources[1], None), ImageError("cut short"), 1.0))
        progress.advance(2, 2, 9)
    table = terminal.getvalue().rpartition("1/3 images, 1 failed")[2]
    assert table.count("good.png") == 1
    assert table.count("bad.png") == 1
    assert "2/9 tiles" in table


class Bar:
    """Stands for the bar of rich, and keeps what it shows."""

    def __init__(self):
        self.shown, self.resets = {}, 0

    def add_task(self, name, **shown):
        return 0

    def reset(self, task, **shown):
        self.resets += 1

    def update(self, task, **shown):
        self.shown = shown


def test_frames_of_an_earlier_run_do_not_count_in_the_speed(monkeypatch):
    bar, now = Bar(), [100.0]
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: now[0])
    clip = ClipProgress(cast(Any, bar), "clip")
    clip.advance(96, 1000, 96)
    assert bar.shown["speed"] == ""
    now[0] += 4
    clip.advance(104, 1000, 96)
    assert (bar.shown["count"], bar.shown["speed"]) == ("104/1000 frames", "2 a second")
    clip.advance(904, 1000, 896)  # behind a gap there were more
    assert (bar.shown["count"], bar.shown["speed"]) == ("904/1000 frames", "2 a second")
    assert bar.resets == 2


@pytest.mark.parametrize(
    "name", ["x" * 16 + "0001.tif", "x" * 50 + "0001.tif", "写" * 9 + "01.tif", "写真" * 30 + "1.tif"]
)
@pytest.mark.parametrize("width", [20, 32])
def test_a_name_is_cut_to_the_cells_that_it_takes(name, width):
    short = shorten(name, width)
    assert cell_len(short) <= width
    assert (short == name) == (cell_len(name) <= width)
    assert (short[:1], short[-5:]) == (name[:1], name[-5:])


def test_a_name_cannot_break_a_row():
    assert shorten("a\nb\x1b[2J\udcff.png", 20) == "a\ufffdb\ufffd[2J\ufffd.png"
