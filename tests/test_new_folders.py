"""Folders that a run makes and leaves empty: they go, and all others stay."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from clips import make_clip
from file_limit import limited_files
from filelock import FileLock
from forked import start_forked
from pictures import save_photo

from mambair_cli.images.source import Source
from mambair_cli.runs.job_files import open_target
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.journal import Journal
from mambair_cli.runs.record import JOURNAL_FILE
from mambair_cli.system.new_folders import make_folders, removing_empty


def list_all(folder: Path = Path()) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def save_broken(name: str) -> None:
    """Write a file whose header is right, and whose pixels are not."""
    save_photo(name, (300, 300))
    data = Path(name).read_bytes()
    Path(name).write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    "arguments",
    [
        ["bad"],
        ["bad", "-o", "new/results"],
        ["bad/in.png", "-o", "new/folder/out.tif"],
        ["bad/in.png", "--resume", "-o", "new/"],
        ["bad", "--workers", "2"],
    ],
)
def test_a_run_that_finishes_nothing_leaves_no_folder(run: Any, weights: Path, arguments: list[str]) -> None:
    save_broken("bad/in.png")
    before = list_all()
    code, out, err = run("upscale", *arguments, "--weights", weights / "x2.safetensors", "-q")
    assert (code, out) == (1, [])
    assert len(err.splitlines()) == 1
    assert list_all() == before


def test_folders_that_were_there_or_hold_results_stay(run: Any, weights: Path) -> None:
    save_broken("in/deep/bad.png")
    save_photo("in/good.png")
    Path("there").mkdir()
    options = ("--weights", weights / "x2.safetensors", "-q")
    assert run("upscale", "in", "-o", "out", *options)[0] == 1
    assert list_all(Path("out")) == [JOURNAL_FILE, "good.png"]
    assert run("upscale", "in/deep", "-o", "there", *options)[0] == 1
    assert list_all(Path("there")) == []
    assert run("upscale", "in", "-o", "out", "--resume", *options)[0] == 1  # the good one is skipped
    assert list_all(Path("out")) == [JOURNAL_FILE, "good.png"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_folder(run: Any, weights: Path, tmp_path: Path, number: int) -> None:
    save_photo("in.png", (1500, 1500))
    output = tmp_path / "new" / "folder"
    command = ("upscale", "in.png", "--weights", weights / "x4.safetensors", "-o", f"{output}{os.sep}")
    with start_forked("-m", "mambair_cli", *command, cwd=tmp_path) as process:
        while not list(output.glob("*")) and not list(output.glob(".*")):
            assert process.poll() is None
        process.send_signal(number)
        process.communicate()
    assert process.returncode == 130
    assert list_all(tmp_path) == ["in.png"]


@pytest.mark.parametrize("options", [[], ["--resume"]])
def test_a_clip_of_which_nothing_is_written_leaves_no_folder(
    run: Any, weights: Path, options: list[str]
) -> None:
    make_clip(Path("in.mkv"), "matroska", times=range(0, 9009, 3003))
    with limited_files(600):
        code, out, err = run(
            *("upscale", "in.mkv", "-o", "new/out.mkv", "-q", "--weights", weights / "x2.safetensors"),
            *options,
        )
    assert (code, out) == (1, []), err
    assert list_all() == ["in.mkv"]


def test_folders_below_one_another_go_together(tmp_path: Path) -> None:
    folders = [tmp_path / "a/b/c", tmp_path / "a/b", tmp_path / "a/d", tmp_path / "never"]
    with removing_empty(folders):
        for folder in folders[:3]:
            folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a/d/file").touch()
    assert list_all(tmp_path) == ["a", "a/d", "a/d/file"]


def test_a_result_is_written_although_another_run_removes_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new/deep"

    def remove(temporary: Path) -> None:
        folder.rmdir()
        folder.parent.rmdir()

    with open_target(Job(Source(Path("in.png")), folder / "out.png"), on_begin=remove) as file:
        file.write(b"result")
    assert (folder / "out.png").read_bytes() == b"result"


def test_folders_are_made_although_another_run_removes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, acquire, removed = Path.mkdir, FileLock.acquire, []

    def make_and_lose(path: Path, *arguments: Any, **options: Any) -> None:
        mkdir(path, *arguments, **options)
        if path.name == "new" and not removed:
            removed.append(path)
            path.rmdir()

    def lose(lock: FileLock, *arguments: Any, **options: Any) -> Any:
        if len(removed) == 1:
            removed.append(Path(lock.lock_file))
            raise FileNotFoundError(lock.lock_file)
        return acquire(lock, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", make_and_lose)
    make_folders(tmp_path / "new/deep")
    assert (tmp_path / "new/deep").is_dir()
    monkeypatch.setattr(FileLock, "acquire", lose)
    Journal(tmp_path / "new/deep").close()
    assert len(removed) == 2


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folders(tmp_path / "file")
