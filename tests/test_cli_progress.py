"""The progress of a run, as a terminal shows it."""

import io
import json
import re
import signal
import sys
import threading
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
from mambair_cli.system.signals import stop_requests
from mambair_cli.system.terminals import begin_drawing, end_drawing, takes_controls, write_above


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


LONG = "a name with words and spaces that is much longer than the window.png"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_what_is_printed_on_a_terminal_is_whole(tmp_path, weights, kind):
    names = [LONG, "tab\t.png", "red\x1b[31m.png", "c1\x9b31m.png", "名\u3000前.png"]
    for name in names:
        save_photo(tmp_path / "in" / name, (20, 20))
    (tmp_path / "in" / f"bad {LONG}").write_text("no picture")
    command = ["upscale", "in", "-o", "out", "--weights", str(weights / "x4.safetensors"), "--resume"]
    seen = run_in_terminal(command, tmp_path, columns=40, shows_stdout=True, kind=kind)
    assert seen.code == 1
    shown = seen.shown.decode()
    escaped = [name.replace("\t", r"\t").replace("\x1b", r"\x1b").replace("\x9b", r"\x9b") for name in names]
    for line in [*(f"out/{name}" for name in escaped), "mambair: using x4.safetensors on cpu"]:
        assert re.search(rf"(?<![^\r\n]){re.escape(line)}\r\n", shown), line
    assert re.search(rf"[\r\n]mambair: error: cannot read in/bad {LONG}: [^\r\n]+\r\n", shown)
    assert ("\x1b[2K" in shown) == (kind == "xterm")
    assert ("\x1b" in shown) == (kind == "xterm")
    assert "\x1b[31mred" not in shown
    seen = run_in_terminal(
        [*command, "--json", "--overwrite"], tmp_path, columns=40, shows_stdout=True, kind=kind
    )
    events = [json.loads(line) for line in re.findall(r"(?<![^\r\n])(\{.*\})\r\n", seen.shown.decode())]
    assert sorted(event["output"] for event in events if event["event"] in ("done", "skipped")) == sorted(
        f"out/{name}" for name in names
    )


def test_a_line_that_has_not_ended_is_not_drawn_over():
    written: list[str] = []

    def write(text: str) -> int:
        written.append(text)
        return len(text)

    begin_drawing(lambda: written.append("erase"), lambda: written.append("draw"))
    try:
        for text in ("10 %", "\r20 %", "\r100 %\n", "next\n"):
            assert write_above(lambda text=text: write(text), text.endswith("\n")) == len(text)
    finally:
        end_drawing()
    write_above(lambda: write("last"), False)
    drawn = ["erase", "10 %", "\r20 %", "\r100 %\n", "draw", "erase", "next\n", "draw", "last"]
    assert written == drawn


def test_the_answer_to_ctrl_c_stands_above_the_bar(capfd):
    steps: list[str] = []
    is_drawn = threading.Event()

    def draw() -> None:
        steps.append("draw")
        is_drawn.set()

    begin_drawing(lambda: steps.append("erase"), draw)
    try:
        with stop_requests("ending soon"):
            signal.raise_signal(signal.SIGINT)
            assert is_drawn.wait(30)
    finally:
        end_drawing()
    assert steps == ["erase", "draw"]
    assert capfd.readouterr().err == "mambair: ending soon\n"


@pytest.mark.skipif(sys.platform == "win32", reason="its terminals have no TERM")
@pytest.mark.parametrize(
    ("kind", "takes"), [("xterm", True), ("screen", True), ("dumb", False), ("", False), (None, False)]
)
def test_control_sequences_are_for_terminals_that_take_them(monkeypatch, kind, takes):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.delenv("TERM", raising=False)
    if kind is not None:
        monkeypatch.setenv("TERM", kind)
    assert takes_controls(terminal) == takes
    assert not takes_controls(io.StringIO())


def run_in_lines(monkeypatch, images: int, tiles: int, seconds: float, **how: Any) -> list[str]:
    """Return the lines of a run on no terminal, in which each tile takes some seconds."""
    err, now = io.StringIO(), [100.0]
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: now[0])
    sources = [Source(Path(f"{index}.png")) for index in range(images)]
    progress = Progress(**how)
    progress.expect(sources)
    with progress:
        for source in sources:
            progress.start(0, StartedImage(source, pixels=10**6))
            for done in range(tiles):
                now[0] += seconds
                progress.advance(0, done + 1, tiles)
            progress.count(Outcome.failed(Job(source, None), ImageError("cut short"), 1.0))
    return err.getvalue().splitlines()


def test_without_a_bar_a_line_says_now_and_then_how_far_it_is(monkeypatch):
    lines = run_in_lines(monkeypatch, 1, 40, 3, in_lines=True)
    assert lines == [f"mambair: 0.png: {done}/40 tiles" for done in range(4, 40, 4)]
    lines = run_in_lines(monkeypatch, 1, 40, 1, in_lines=True)  # after ten seconds, no sooner
    assert lines == [f"mambair: 0.png: {done}/40 tiles" for done in (10, 20, 30)]
    assert run_in_lines(monkeypatch, 1, 40, 0.2, in_lines=True) == []
    lines = run_in_lines(monkeypatch, 4, 10, 10, in_lines=True)  # for all images together
    assert len(lines) == 9
    assert lines[0] == "mambair: 0.png: 4/10 tiles; 0 of 4 images done"
    assert lines[-1] == "mambair: 3.png: 6/10 tiles; 3 of 4 images done"


@pytest.mark.parametrize("how", [{}, {"in_lines": False}, {"shown": False, "in_lines": True}])
def test_lines_of_progress_come_only_where_they_are_wanted(monkeypatch, how):
    assert run_in_lines(monkeypatch, 1, 40, 20, **how) == []


@pytest.mark.parametrize(("option", "has_lines"), [([], True), (["--json"], False), (["--quiet"], False)])
def test_scripts_get_no_progress(run, weights, monkeypatch, option, has_lines):
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0)
    save_photo("in.png", (200, 200))
    model = ["--weights", weights / "x4.safetensors", "--tile", "64"]
    code, _, err = run("upscale", "in.png", *model, *option)
    assert code == 0
    assert ("mambair: in.png: " in err) == has_lines


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


def test_images_that_arrive_later_have_a_bar_of_their_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    sources = [Source(Path(f"{index}.png")) for index in range(4)]
    for source in sources:
        Path(str(source.path)).write_bytes(bytes(100))
    progress = Progress()
    for arrived in (sources[:2], sources[2:]):
        progress.expect(arrived)
        with progress:
            progress.start(0, StartedImage(arrived[0], pixels=10**6))
            progress.advance(0, 1, 9)
            progress.count(Outcome(Job(arrived[0], None), is_skipped=True))
            [row] = [task for task in progress._bar.tasks if task.description == "all"]
            assert row.total == 100


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
    clip = ClipProgress(cast(Any, bar), "clip", 32)
    clip.advance(96, 1000, 96)
    assert bar.shown["speed"] == ""
    now[0] += 4
    clip.advance(104, 1000, 96)
    assert (bar.shown["count"], bar.shown["speed"]) == ("104/1000 frames", "2 a second")
    clip.advance(904, 1000, 896)  # behind a gap there were more
    assert (bar.shown["count"], bar.shown["speed"]) == ("904/1000 frames", "2 a second")
    assert bar.resets == 2


def test_without_a_bar_progress_of_a_clip_is_printed_in_lines_if_its_length_is_known(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: now[0])
    with progress_module.show_clip("a.mp4", in_lines=True) as clip:
        for done in range(1, 101):
            now[0] += 1
            clip.advance(done, 100, 0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "mambair: a.mp4: 10/100 frames, 1.1 a second"
    assert len(lines) == 9
    with progress_module.show_clip("-", in_lines=True) as clip:
        clip.advance(1, None, 0)
    assert capsys.readouterr().err == ""


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
    assert shorten("名\u3000前.png", 20) == "名\u3000前.png"
