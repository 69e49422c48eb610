"""Clips of one name with ``--resume``: none is replaced, continued or taken for another's."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import save_nearest
from PIL import Image

pytest.importorskip("av", reason="needs the extra video")

from clips import make_clip, stopping_after

from mambair_cli.runs import clip_segments

FRAMES = 12
TARGETS = {"a clip": "out/x.mkv", "images": "out/%02d.png"}

Resume = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def resume(run: Any, monkeypatch: pytest.MonkeyPatch) -> Resume:
    """Enlarge a clip with --resume; return the exit code, the event of the clip, and stderr."""
    monkeypatch.setattr(clip_segments, "SEGMENT_FRAMES", 5)
    save_nearest(Path("double.safetensors"), 2)

    def call(source: str, *options: str) -> tuple[int, dict[str, Any], str]:
        model = ["--offline", "--device", "cpu", "--weights", "double.safetensors"]
        code, out, err = run("upscale", source, *model, "--resume", "--json", *options)
        return code, next(event for event in map(json.loads, out) if "input" in event), err

    return call


def save_alike(*paths: str) -> None:
    """Save clips that differ in a word of their metadata: their files have one size and one time."""
    make_clip(Path("first.mkv"), "matroska", times=[3003 * number for number in range(FRAMES)], size=(32, 16))
    data = Path("first.mkv").read_bytes()
    for number, path in enumerate(paths):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_bytes(data.replace(b"Lavf", f"Lav{number}".encode()))
        os.utime(path, ns=(10**18, 10**18))


def stop(resume: Resume, source: str, target: str) -> None:
    """End a run after seven frames."""
    with stopping_after(7):
        resume(source, "-o", target)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_the_result_of_another_clip_stays(resume: Resume, target: str) -> None:
    save_alike("a/x.mkv", "b/x.mkv")
    output = target if "%" in target else "out/"
    assert resume("a/x.mkv", "-o", output)[1]["event"] == "done"
    said = (
        f"cannot restore b/x.mkv: a/x.mkv is written as {target}, too; restore them into different folders, "
        "or replace that result with --overwrite"
    )
    for options in ([], ["--deinterlace"]):
        for mode, failed in (["--dry-run"], "plan_failed"), ([], "failed"):
            code, event, _ = resume("b/x.mkv", "-o", output, *options, *mode)
            assert (code, event["event"], event["message"]) == (1, failed, said)
    assert resume("a/x.mkv", "-o", output)[1]["event"] == "skipped"
    assert resume("b/x.mkv", "-o", output, "--overwrite")[1]["event"] == "done"
    assert resume("a/x.mkv", "-o", output)[0] == 1


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("other", ["b/x.mkv", "link.mkv"])
def test_what_is_finished_of_another_clip_is_not_its_own(resume: Resume, target: str, other: str) -> None:
    save_alike("a/x.mkv", "b/x.mkv")
    Path("link.mkv").symlink_to("a/x.mkv")
    stop(resume, "a/x.mkv" if other == "b/x.mkv" else "link.mkv", target)
    Path("link.mkv").unlink()
    Path("link.mkv").symlink_to("b/x.mkv")
    options = ["--overwrite"] if "%" in target else []  # the images of the other one are there
    for mode in (["--dry-run"], []):
        code, event, said = resume(other, "-o", target, *options, *mode)
        assert (code, event["resumed"]) == (0, 0)
        assert "was begun with other settings or from another clip; beginning anew" in said


def move(folder: str) -> None:
    Path("a").rename(folder)


def copy(folder: str) -> None:
    shutil.copytree("a", folder)


def move_all(folder: str) -> None:
    """Move the clip, and hide that it is the one that was noted, as an earlier version did."""
    plan = next(Path("out").glob(".*.mambair/plan.json"))
    facts = json.loads(plan.read_text())
    assert facts.pop("input") == "../a/x.mkv"
    plan.write_text(json.dumps(facts))
    shutil.copytree("a", folder)
    Path("a/x.mkv").write_bytes(b"another")


@pytest.mark.parametrize("change", [move, copy, move_all])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_a_clip_that_was_moved_or_copied_goes_on(
    resume: Resume, target: str, change: Callable[[str], None]
) -> None:
    save_alike("a/x.mkv")
    stop(resume, "a/x.mkv", target)
    change("c")
    assert resume("c/x.mkv", "-o", target)[1]["resumed"] > 0


def test_numbered_images_of_another_folder_begin_anew(resume: Resume) -> None:
    for shade, folder in enumerate("ab"):
        for number in range(1, FRAMES + 1):
            path = Path(folder, f"{number:02d}.bmp")
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (32, 16), (shade, number, 0)).save(path)
            os.utime(path, ns=(10**18, 10**18))
    stop(resume, "a/%02d.bmp", "out/x.mkv")
    assert resume("b/%02d.bmp", "-o", "out/x.mkv", "--dry-run")[1]["resumed"] == 0
    assert resume("a/%02d.bmp", "-o", "out/x.mkv", "--dry-run")[1]["resumed"] == 5
    assert resume("b/%02d.bmp", "-o", "out/x.mkv")[1]["resumed"] == 0


def test_a_clip_is_done_where_an_option_says_what_holds_anyway(resume: Resume) -> None:
    save_alike("a.mkv")
    for target, *options in (
        ("x.mkv", "-s", "2"),
        ("x/%d.png", "--quality", "50"),
        ("y/%d.jpg", "--quality", "95", "-s", "2"),
    ):
        assert resume("a.mkv", "-o", target)[1]["event"] == "done"
        for mode, event in (("--dry-run", "plan_skipped"), ("--precision=fp32", "skipped")):
            assert resume("a.mkv", "-o", target, *options, mode)[1]["event"] == event
    assert resume("a.mkv", "-o", "y/%d.jpg", "--quality", "50")[1]["event"] == "done"


def test_a_second_clip_of_a_run_may_take_the_name_of_the_first(resume: Resume) -> None:
    save_alike("x.avi", "x.mkv")
    assert resume("x.avi", "-o", "out/")[1]["output"] == "out/x.mkv"
    for mode, event in (["--dry-run"], "plan_clip"), ([], "done"):  # the first one becomes x.avi.mkv
        code, first, _ = resume("x.mkv", "x.avi", "-o", "out/", *mode)
        assert (code, first["event"], first["output"]) == (0, event, "out/x.mkv")
    assert "x.mkv is written as out/x.mkv, too" in resume("x.avi", "-o", "out/")[1]["message"]
