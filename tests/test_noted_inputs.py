"""Results of other inputs under one name: with ``--resume`` none is replaced, or taken for another's."""

import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import save_identity
from forked import start_forked
from pictures import save_photo
from PIL import Image

from mambair_cli.runs.noted_inputs import NotedInputs, parse_noted
from mambair_cli.runs.record import JOURNAL_FILE

Resume = Callable[..., tuple[int, dict[str, str], str]]


@pytest.fixture
def resume(run: Any) -> Resume:
    """Denoise with --resume; return the exit code, what became of which input, and the first message."""
    save_identity(Path("same.safetensors"))

    def call(*arguments: object) -> tuple[int, dict[str, str], str]:
        command = ["denoise", *arguments, "--weights", "same.safetensors"]
        code, out, _ = run(*command, "--resume", "--json", "-q")
        events = [event for event in map(json.loads, out) if "input" in event]
        became = {event["input"]: event["event"].removeprefix("plan_") for event in events}
        return code, became, next((event["message"] for event in events if "message" in event), "")

    return call


def save_alike(*paths: str) -> None:
    """Save pictures that differ in nothing but their pixels: their files have one size and one time."""
    for seed, path in enumerate(paths):
        save_photo(path, seed=seed)
        os.utime(path, ns=(10**18, 10**18))


def is_result_of(target: str, source: str) -> bool:
    return bool((np.array(Image.open(target)) == np.array(Image.open(source))).all())


def clash(first: str, later: str, target: str) -> str:
    return (
        f"cannot restore {later}: {first} is written as {target}, too; restore them into different folders, "
        "or replace that result with --overwrite"
    )


@pytest.mark.parametrize("names", [("a/x.bmp", "b/x.bmp"), ("a/x.png", "b/x.png"), ("a.bmp", "a.png")])
@pytest.mark.parametrize("options", [(), ("--strip",), ("--workers", "2", "--device", "cpu")])
def test_the_result_of_another_input_stays(
    resume: Resume, names: tuple[str, str], options: tuple[str, ...]
) -> None:
    first, later = names
    save_alike(first, later)
    target = f"out/{Path(first).stem}.png"
    assert resume(first, "-o", "out/")[:2] == (0, {first: "done"})
    said = clash(first, later, target)
    if "--workers" not in options:
        assert resume(later, "-o", "out/", *options, "--dry-run") == (1, {later: "failed"}, said)
    assert resume(later, "-o", "out/", *options) == (1, {later: "failed"}, said)
    assert is_result_of(target, first)
    assert resume(first, "-o", "out/")[:2] == (0, {first: "skipped"})
    assert resume(later, "-o", "out/", "--overwrite")[:2] == (0, {later: "done"})
    assert is_result_of(target, later)
    assert resume(first, "-o", "out/") == (1, {first: "failed"}, clash(later, first, target))


def test_folders_and_files_are_held_apart_too(resume: Resume) -> None:
    save_alike("a/x.bmp", "b/x.bmp", "b/y.bmp")
    assert resume("a", "-o", "out", "--workers", 2, "--device", "cpu")[0] == 0
    code, became, said = resume("b", "-o", "out", "--workers", 2, "--device", "cpu")
    assert (code, became) == (1, {"b/x.bmp": "failed", "b/y.bmp": "done"})
    assert said == clash("a/x.bmp", "b/x.bmp", "out/x.png")
    assert resume("a/x.bmp", "-o", "one.png")[0] == 0
    assert resume("b/x.bmp", "-o", "one.png")[2] == clash("a/x.bmp", "b/x.bmp", "one.png")


def test_two_parts_of_a_list_at_once_leave_one_result_and_one_error(resume: Resume) -> None:
    save_alike("a/x.bmp", "b/x.bmp")
    command = ["-m", "mambair_cli", "denoise", "-o", "out/", "--weights", "same.safetensors", "--resume"]
    names = ["a/x.bmp", "b/x.bmp"]
    running = [start_forked(*command, name, stderr=subprocess.PIPE) for name in names]
    said = [str(process.communicate(timeout=240)[1]) for process in running]
    codes = [process.returncode for process in running]
    assert codes in ([0, 1], [1, 0]), said
    lost = codes.index(1)
    assert clash(names[1 - lost], names[lost], "out/x.png") in said[lost]
    assert is_result_of("out/x.png", names[1 - lost])


def test_an_input_that_was_moved_is_done_already(resume: Resume) -> None:
    save_alike("a/x.bmp")
    resume("a/x.bmp", "-o", "out/")
    Path("a").rename("c")
    os.utime("c/x.bmp")
    assert resume("c/x.bmp", "-o", "out/", "--dry-run")[:2] == (0, {"c/x.bmp": "skipped"})
    assert resume("c/x.bmp", "-o", "out/")[:2] == (0, {"c/x.bmp": "skipped"})
    save_photo("c/x.bmp", seed=9)  # the noted one is gone: nothing of it can be lost by mistake
    assert resume("c/x.bmp", "-o", "out/")[:2] == (0, {"c/x.bmp": "done"})
    assert is_result_of("out/x.png", "c/x.bmp")


def test_a_copy_of_an_input_is_done_already(resume: Resume) -> None:
    save_alike("a/x.bmp")
    resume("a/x.bmp", "-o", "out/")
    shutil.copytree("a", "b")
    os.utime("b/x.bmp")
    assert resume("b/x.bmp", "-o", "out/")[:2] == (0, {"b/x.bmp": "skipped"})
    assert resume("b/x.bmp", "-o", "out/", "--strip")[:2] == (0, {"b/x.bmp": "done"})


def test_a_project_that_was_moved_goes_on(resume: Resume) -> None:
    save_alike("old/a/x.bmp", "old/b/x.bmp")
    resume("old/a/x.bmp", "-o", "old/out/")
    Path("old").rename("new")
    assert resume("new/a/x.bmp", "-o", "new/out/")[:2] == (0, {"new/a/x.bmp": "skipped"})
    assert resume("new/b/x.bmp", "-o", "new/out/")[2] == clash("new/a/x.bmp", "new/b/x.bmp", "new/out/x.png")
    save_photo("new/a/x.bmp", seed=9)
    assert resume(Path("new/a/x.bmp").absolute(), "-o", "new/out/")[0] == 0
    assert is_result_of("new/out/x.png", "new/a/x.bmp")


def test_links_to_an_input_are_that_input(resume: Resume) -> None:
    save_alike("a/x.bmp", "b/x.bmp")
    Path("link").symlink_to("a")
    Path("results").mkdir()
    Path("out").symlink_to("results")
    resume("link/x.bmp", "-o", "out/")
    assert resume("a/x.bmp", "-o", "results/")[:2] == (0, {"a/x.bmp": "skipped"})
    assert resume("b/x.bmp", "-o", "results/")[2] == clash("link/x.bmp", "b/x.bmp", "results/x.png")
    save_photo("a/x.bmp", seed=9)
    assert resume("a/x.bmp", "-o", "results/")[:2] == (0, {"a/x.bmp": "done"})


@pytest.mark.parametrize("link", ["link", "in/x.bmp"])
def test_a_link_that_points_to_another_file_has_new_content(resume: Resume, link: str) -> None:
    save_alike("a/x.bmp", "b/x.bmp")
    Path("in").mkdir()
    is_folder = link == "link"
    name = f"{link}/x.bmp" if is_folder else link
    Path(link).symlink_to(Path("a" if is_folder else "a/x.bmp").absolute())
    resume(name, "-o", "out/")
    assert resume(name, "-o", "out/")[:2] == (0, {name: "skipped"})
    Path(link).unlink()
    Path(link).symlink_to(Path("b" if is_folder else "b/x.bmp").absolute())
    assert resume(name, "-o", "out/")[:2] == (0, {name: "done"})
    assert is_result_of("out/x.png", "b/x.bmp")
    Path(link).unlink()
    assert resume("a/x.bmp", "-o", "out/")[2] == clash("b/x.bmp", "a/x.bmp", "out/x.png")


def test_a_second_input_of_a_run_may_take_the_name_of_the_first(resume: Resume) -> None:
    save_alike("in/a.bmp")
    resume("in", "-o", "out")
    save_photo("in/a.png", seed=5)  # so the other one becomes a.bmp.png
    assert resume("in", "-o", "out", "--dry-run")[:2] == (0, {"in/a.bmp": "file", "in/a.png": "file"})
    assert resume("in", "-o", "out")[:2] == (0, {"in/a.bmp": "done", "in/a.png": "done"})
    assert is_result_of("out/a.png", "in/a.png")
    assert is_result_of("out/a.bmp.png", "in/a.bmp")
    assert resume("in/a.bmp", "-o", "out/")[2] == clash("in/a.png", "in/a.bmp", "out/a.png")


def test_lines_of_earlier_versions_go_on_as_they_did(resume: Resume) -> None:
    save_alike("a/x.bmp", "b/x.bmp")
    resume("a/x.bmp", "-o", "out/")
    journal = Path("out", JOURNAL_FILE)
    line = json.loads(journal.read_text().splitlines()[-1])
    assert line.pop("input") == "../a/x.bmp"
    journal.write_text(json.dumps(line) + "\n")
    assert resume("a/x.bmp", "-o", "out/")[:2] == (0, {"a/x.bmp": "skipped"})
    os.utime("b/x.bmp")
    assert resume("b/x.bmp", "-o", "out/")[:2] == (0, {"b/x.bmp": "done"})
    assert json.loads(journal.read_text().splitlines()[-1])["input"] == "../b/x.bmp"


def test_a_result_is_no_input_only_next_to_the_input_that_it_was_made_of(resume: Resume) -> None:
    save_alike("in/a.bmp", "in/b.bmp")
    resume("in/a.bmp", "-o", "in/")
    later = resume("in/b.bmp", "in/a.png", "-o", "in/")[1]
    assert later == {"in/b.bmp": "done", "in/a.png": "failed"}  # it would be written over itself
    assert resume("in/b.bmp", "in/a.bmp", "in/a.png", "-o", "in/")[1] == {
        "in/b.bmp": "skipped",
        "in/a.bmp": "skipped",
    }


def test_what_is_noted_of_an_input_leads_back_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = Path(os.path.realpath(tmp_path))
    save_alike("a.png", "in/a.png")
    Path("here").symlink_to("in")
    Path("b.png").symlink_to("a.png")
    inputs = NotedInputs(Path("out"))
    for source, noted in (
        (Path("in/ä\udcff.png"), "../in/ä\udcff.png"),
        (Path("out/in/a.png"), "in/a.png"),
        (Path("out/a.png"), "./a.png"),
        (place / "in" / ".." / "a.png", "../a.png"),
        (Path("here/a.png"), ("../here/a.png", "../in/a.png")),
        (Path("b.png"), ("../b.png", "../a.png")),
        (Path("/elsewhere/a.png"), "/elsewhere/a.png"),
        (Path("/a.png"), "/a.png"),
    ):
        assert inputs.note(source) == parse_noted(json.loads(json.dumps(noted))) == noted
        assert inputs.is_same(noted, source)
        assert inputs.is_same_file(noted, source)
    assert not inputs.is_same("../in/a.png", Path("b.png"))
    assert [parse_noted(value) for value in (None, 5, [], ["a"], ["a", 5])] == [None] * 5
    assert inputs.find(("../gone.png", "../a.png")) == place / "a.png"
    assert inputs.find("../gone.png") is None


def test_a_job_that_goes_to_a_worker_is_small_whatever_folders_there_are(tmp_path: Path) -> None:
    inputs = NotedInputs(tmp_path / "out")
    before = len(pickle.dumps(inputs))
    noted = [inputs.note(tmp_path / f"folder{number}/x.png") for number in range(100)]
    assert len(pickle.dumps(inputs)) == before
    copied = pickle.loads(pickle.dumps(inputs))
    assert copied.note(tmp_path / "folder7/x.png") == noted[7]
