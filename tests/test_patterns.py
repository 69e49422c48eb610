"""Patterns of names that no shell has expanded."""

import glob
import json
import os
from pathlib import Path

import pytest
from pictures import save_photo

from mambair_cli.cli import main
from mambair_cli.cli.clips import expand_patterns
from mambair_cli.images.discovery import FileFilter, find_sources, take_once
from mambair_cli.system.patterns import expand

FILES = (
    "x.png",
    "a/y.png",
    "a/b/z.png",
    "a/b/a/x.png",
    "[c]/x.png",
    ".hidden/x.png",
    "a/.h/x.png",
    "a/.x.png",
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    [
        "*.png",
        "**/*.png",
        "./**/*.png",
        "**/**/x.png",
        "a/**/x.png",
        "a/**/b/**/*.png",
        "**/a/**/*.png",
        "[[]c]/**/*.png",
        "*/**/?.png",
        "**/b",
        "**/nothing",
        "nothing/**/x.png",
        "a/**/.x.png",
        "x**/*.png",
    ],
)
def test_a_pattern_matches_what_it_does_in_pythons_glob(folder: Path, pattern: str) -> None:
    expected = sorted(set(glob.glob(pattern, recursive=True)))
    assert expand(pattern).names == expected
    assert expand(f"{folder}/{pattern}").names == sorted(os.path.join(folder, name) for name in expected)


@pytest.mark.parametrize(("pattern", "names"), [("a/**", ["a/"]), ("**", ["[c]", "a", "x.png"])])
def test_at_the_end_a_folder_stands_for_all_that_is_in_it(pattern: str, names: list[str]) -> None:
    assert expand(pattern).names == names


@pytest.mark.parametrize(
    "pattern", ["**/*.png", "**/x.png", "**/b/**/*.png", "**", "**/*/x.png", "**/up/*.png", "**/*"]
)
def test_links_of_folders_are_left_out_wherever_they_lead(folder: Path, pattern: str) -> None:
    before = expand(pattern).names
    for name in ("a/up", "a/other", "a/b/up"):
        Path(name).symlink_to("..")
    matches = expand(pattern)
    assert matches.names == before
    assert matches.links == [Path(name) for name in ("a/b/up", "a/other", "a/up")]


def test_a_link_that_a_pattern_names_is_followed_and_comes_last() -> None:
    Path("0").symlink_to("a")
    assert expand("0/**/x.png").names == ["0/b/a/x.png"]
    assert expand("*/y.png").names == ["a/y.png", "0/y.png"]
    choice = FileFilter()
    assert [str(source) for source in take_once(find_sources(["*/y.png"], choice), choice.left_out)] == [
        "a/y.png"
    ]
    assert choice.left_out.repeated == [Path("0/y.png")]


def test_what_a_pattern_leaves_out_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    save_photo("in/a.png")
    save_photo("in/b.jpg")
    Path("in/one").symlink_to(".")
    Path("in/two").symlink_to(".")
    command = ["upscale", "in/**/*.png", "in/**/*.jpg", "-s", "2", "--dry-run", "--json", "--offline"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "mambair: left out 2 linked folders, such as in/one; name them to restore what is in them" in err
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["input"] for event in events if event["event"] == "plan_file"] == ["in/a.png", "in/b.jpg"]


def test_patterns_of_clips_leave_out_linked_folders_too(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a/clip.mkv").touch()
    Path("a/up").symlink_to("..")
    assert expand_patterns(["**/*.mkv"]) == ["a/clip.mkv"]
    assert "left out a linked folder: a/up" in capsys.readouterr().err
