"""--watch: what arrives in a folder is restored once it is complete, whatever happens to the folder."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair_cli.cli import main
from mambair_cli.cli import run as cli_run
from mambair_cli.images.discovery import FileFilter
from mambair_cli.runs import arrivals
from mambair_cli.runs.arrivals import Arrivals

COMMAND = ["upscale", "inbox", "-s", "2", "--model", "tiny-x2", "--watch", "--offline", "--device", "cpu"]


class Clock:
    """Tells the time that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inbox").mkdir()
    return Path("inbox")


def save(path: Path, seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), np.uint8)
    Image.fromarray(pixels).save(path, format="png")


def names(arriving: Arrivals) -> list[str]:
    return sorted(str(source) for source in arriving.take())


def test_a_file_is_taken_once_it_is_at_rest(inbox: Path) -> None:
    clock = Clock()
    arriving = Arrivals([inbox], FileFilter, clock)
    assert names(arriving) == []
    (inbox / "a.png").write_bytes(b"begun")
    assert names(arriving) == []
    clock.seconds = 3
    (inbox / "a.png").write_bytes(b"begun and more")
    assert names(arriving) == []
    clock.seconds = 3 + arrivals.REST_SECONDS - 0.1
    assert names(arriving) == []
    clock.seconds += 0.2
    assert names(arriving) == ["inbox/a.png"]
    assert names(arriving) == []
    clock.seconds += 100
    os.utime(inbox / "a.png", ns=(1, 1))  # written again, as large as before
    assert names(arriving) == []
    clock.seconds += arrivals.REST_SECONDS
    assert names(arriving) == ["inbox/a.png"]


def test_what_is_empty_hidden_or_no_image_waits(inbox: Path, monkeypatch) -> None:
    monkeypatch.setattr(arrivals, "REST_SECONDS", 0)
    arriving = Arrivals([inbox], lambda: FileFilter(exclude=("raw",)))
    (inbox / "raw").mkdir()
    for name in ("empty.png", ".hidden.png", "b.png.part", "note.txt", "raw/c.png"):
        (inbox / name).write_bytes(b"" if name == "empty.png" else b"x")
    assert names(arriving) == []
    (inbox / "b.png.part").rename(inbox / "b.png")
    (inbox / "empty.png").write_bytes(b"x")
    assert names(arriving) == ["inbox/b.png", "inbox/empty.png"]


def test_a_folder_that_is_gone_and_back_is_not_done_again(inbox: Path, monkeypatch) -> None:
    monkeypatch.setattr(arrivals, "REST_SECONDS", 0)
    arriving = Arrivals([inbox], FileFilter)
    save(inbox / "a.png")
    save(inbox / "b.png")
    assert names(arriving) == ["inbox/a.png", "inbox/b.png"]
    inbox.rename("away")
    assert names(arriving) == []
    assert arriving.missing == [inbox]
    Path("away").rename(inbox)
    save(inbox / "c.png")
    assert names(arriving) == ["inbox/c.png"]
    assert arriving.missing == []
    (inbox / "b.png").rename("b.png")  # one file alone is forgotten
    assert names(arriving) == []
    Path("b.png").rename(inbox / "b.png")
    assert names(arriving) == ["inbox/b.png"]


def test_looking_takes_a_small_share_of_the_time(inbox: Path, monkeypatch) -> None:
    ticks = iter([0.0, 3.0])
    monkeypatch.setattr(arrivals.time, "perf_counter", lambda: next(ticks))
    arriving = Arrivals([inbox], FileFilter, Clock())
    arriving.take()
    assert arriving.pause == pytest.approx(3 / arrivals.MOST_LOOKING)


def play(monkeypatch, steps: Iterator[Callable[[], object]]) -> None:
    """Do a step after each look; after the last one, press Ctrl-C."""

    def sleep(seconds: float, is_asked: Callable[[], bool]) -> None:
        step = next(steps, None)
        if step is not None:
            step()
            return
        os.kill(os.getpid(), signal.SIGINT)
        while not is_asked():
            pass

    monkeypatch.setattr(arrivals, "REST_SECONDS", 0)
    monkeypatch.setattr(cli_run, "_sleep", sleep)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_the_command_restores_what_arrives_until_ctrl_c(inbox: Path, monkeypatch, capfd) -> None:
    save(inbox / "first.png")
    (inbox / "sub").mkdir()

    def replace_first() -> None:
        save(inbox / "first.png", 1)
        os.utime(inbox / "first.png", ns=(5, 5))

    steps = [
        lambda: save(inbox / "sub" / "second.png"),
        lambda: (inbox / "broken.png").write_bytes(b"no image"),
        lambda: (inbox / "clip.mp4").write_bytes(b"no image either"),
        lambda: os.mkfifo(inbox / "pipe.png"),
        lambda: inbox.rename("away"),
        lambda: Path("away").rename(inbox),
        replace_first,
        lambda: save(inbox / "broken.png", 2),
    ]
    play(monkeypatch, iter(steps))
    assert main([*COMMAND, "--json", "--quality", "50"]) == 1  # an image has failed
    out, err = capfd.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    kinds = [(event["event"], event.get("input")) for event in events]
    assert kinds == [
        ("start", None),
        ("done", "inbox/first.png"),
        ("done", "inbox/sub/second.png"),
        ("failed", "inbox/broken.png"),
        ("done", "inbox/first.png"),
        ("done", "inbox/broken.png"),
        ("summary", None),
    ]
    assert (events[-1]["done"], events[-1]["failed"], events[-1]["left"]) == (4, 1, 0)
    assert "watching inbox; Ctrl-C ends" in err
    assert err.count("inbox is gone; waiting for it to come back") == 1
    assert err.count("--quality 50 has no effect on png; ") == 1
    assert err.count("left out a clip: inbox/clip.mp4; name it in a command of its own to restore it") == 1
    assert err.count("left out a pipe or device: inbox/pipe.png; name it in a command of its own") == 1
    results = sorted(str(path) for path in Path("inbox_x2").rglob("*.png"))
    assert results == ["inbox_x2/broken.png", "inbox_x2/first.png", "inbox_x2/sub/second.png"]
    (inbox / "pipe.png").unlink()
    first = Path("inbox_x2/first.png").read_bytes()
    assert main([*COMMAND[:6], "--offline", "--device", "cpu", "--overwrite"]) == 0
    assert Path("inbox_x2/first.png").read_bytes() == first

    play(monkeypatch, iter([]))  # another run finds all done
    assert main([*COMMAND, "--json"]) == 0
    events = [json.loads(line)["event"] for line in capfd.readouterr().out.splitlines()[-5:]]
    assert events == ["start", "skipped", "skipped", "skipped", "summary"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_an_empty_folder_and_images_of_one_name_are_no_end(inbox: Path, monkeypatch, capfd) -> None:
    steps = [lambda: save(inbox / "a.png"), lambda: save(inbox / "a.bmp")]
    play(monkeypatch, iter(steps))
    assert main([*COMMAND, "--format", "png"]) == 0
    assert sorted(path.name for path in Path("inbox_x2").glob("*.png")) == ["a.bmp.png", "a.png"]
    assert "2 done of 2 images" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_a_folder_that_cannot_be_read_fails_once_while_others_are_watched(inbox, monkeypatch, capfd) -> None:
    scandir = os.scandir

    def refuse(path: Path | str = ".") -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, os.strerror(13), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (inbox / "locked").mkdir()
    play(monkeypatch, iter([lambda: save(inbox / "a.png"), lambda: None]))
    assert main([*COMMAND, "-q"]) == 1
    error = "mambair: error: cannot read the folder inbox/locked: Permission denied; change its permissions"
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("inbox_x2/a.png\n", error + "\n")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["in.png"], "--watch needs folders: in.png is none; name one"),
        ([], "--watch needs folders: none is named; name one"),
        (["inbox", "-o", "in.png"], "results go to a folder here, and in.png is none"),
        (["inbox", "-o", "-"], "--watch writes a file for each image, and -o - is standard output"),
        (["inbox", "--dry-run"], "--watch goes on as long as images arrive: --dry-run"),
        (["inbox", "--compare"], "--watch goes on as long as images arrive: --compare"),
        (["inbox", "--preview"], "--watch goes on as long as images arrive: --preview"),
    ],
)
def test_what_cannot_be_watched_is_refused_in_a_line(given, why, inbox: Path, capsys) -> None:
    save(Path("in.png"))
    assert main(["upscale", *given, "--watch", "--offline"]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1
