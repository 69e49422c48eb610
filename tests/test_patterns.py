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


def test_what_a_pattern_leaves_out_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_folders_that_exist_as_they_are_written_are_no_pattern(folder: Path) -> None:
    for name in ("[Group] Title/p1.jpg", "[Group] Title/what?/p2.jpg", "G Title/p3.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    for start in ("", "./", f"{folder}/"):
        found = {
            pattern: expand(f"{start}[Group] Title/{pattern}").names for pattern in ("*.jpg", "**/p?.jpg")
        }
        one, other = (f"{start}[Group] Title/{name}" for name in ("p1.jpg", "what?/p2.jpg"))
        assert found == {"*.jpg": [one], "**/p?.jpg": [one, other]}
    assert expand("[Gg]*/*.jpg").names == ["G Title/p3.jpg"]
    assert [str(source) for source in find_sources(["[Group] Title/*.jpg"])] == ["[Group] Title/p1.jpg"]
    Path("[Group] Title/clip.mkv").touch()
    assert expand_patterns(["[Group] Title/*.mkv"]) == ["[Group] Title/clip.mkv"]


def test_a_name_below_a_folder_with_brackets_is_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upscale", "[c]/none.png"]) == 2
    assert "no such file or folder: [c]/none.png; check its name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("[c]", ["[c]/x.png"]),
        ("[c]/*.png", ["[c]/x.png"]),
        ("a/[d]/y?.png", ["a/[d]/y1.png"]),
        ("a/[ab]/z.png", ["a/b/z.png"]),
    ],
)
@pytest.mark.parametrize("option", ["include", "exclude"])
def test_brackets_that_names_have_choose_them(pattern: str, found: list[str], option: str) -> None:
    for name in ("a/[d]/y1.png", "b/y.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    every = [str(source) for source in find_sources(["."])]
    choice = FileFilter(include=(pattern,)) if option == "include" else FileFilter(exclude=(pattern,))
    chosen = [str(source) for source in find_sources(["."], choice)]
    assert chosen == (found if option == "include" else [name for name in every if name not in found])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["a/*.{png,jpg}"],
            "the pattern: a/*.{png,jpg}; braces are not expanded here: give each name in them, ",
        ),
        (["a/{x,y}.png"], "no such file or folder: a/{x,y}.png; braces are not expanded here: give each "),
        (["a/*.{mkv,mp4}"], "braces are not expanded here: give each name in them, or leave the quotes out"),
        (["{a,b}/*.mkv"], "the pattern: {a,b}/*.mkv; braces are not expanded here: give each name in them"),
        (["a", "--include", "*.{jpg,png}"], "braces are not expanded here: give the option for each name"),
        (
            ["x[12]*.png"],
            "no file matches the pattern: x[12]*.png; check it; a bracket itself is written [[]",
        ),
        (["none*.png"], "no file matches the pattern: none*.png; check it"),
    ],
)
def test_a_pattern_without_a_match_is_refused_with_what_would_work(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["upscale", *arguments]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert len(err.splitlines()) == 1


def test_braces_of_a_choice_without_a_match_are_explained() -> None:
    choice = FileFilter(exclude=("*.{jpg,gif}",))
    find_sources(["a"], choice)
    assert list(choice.remarks()) == [
        "no file or folder matches --exclude *.{jpg,gif}; braces are not expanded here: "
        "give --exclude for each name"
    ]
