"""The dry run of a clip says what its run then does, in every state of the result."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import save_nearest
from huggingface_hub import constants
from PIL import Image

pytest.importorskip("av", reason="needs the extra video")

from clips import make_clip, stopping_after

from mambair_cli.checkpoints import hub
from mambair_cli.cli import main
from mambair_cli.runs import clip_segments, clip_writers
from mambair_cli.runs.unfinished_clip import UnfinishedClip

LOCAL = ("--offline", "--device", "cpu", "--weights", "double.safetensors")
FRAMES = 12
TARGETS = {"a clip": "out/in.mkv", "images": "out/%02d.png"}

State = Callable[[str], None]
"""Makes a state of the folder, for a result of that name."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with a clip, a network that repeats pixels, and with short segments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clip_segments, "SEGMENT_FRAMES", 5)
    save_nearest(tmp_path / "double.safetensors", 2)
    make_clip(
        tmp_path / "in.mkv", "matroska", times=[3003 * number for number in range(FRAMES)], size=(32, 16)
    )
    return tmp_path


def run(target: str, *options: str) -> int:
    return main(["upscale", "in.mkv", "-s", "2", "-o", target, *LOCAL, *options])


def finish(target: str) -> None:
    assert run(target, "--resume") == 0


def finish_without_journal(target: str) -> None:
    assert run(target) == 0


def stop(target: str, *options: str) -> None:
    """End a run after seven frames."""
    with stopping_after(7):
        run(target, *options)


def stop_others(target: str) -> None:
    stop(target, "--deinterlace", "--overwrite")


def stop_and_change_source(target: str) -> None:
    stop(target)
    os.utime("in.mkv", (1, 1))


def finish_and_change_result(target: str) -> None:
    finish(target)
    changed = Path(target if target.endswith("mkv") else target % 3)
    changed.write_bytes(b"mine")


def finish_and_change_source(target: str) -> None:
    finish(target)
    make_clip(Path("in.mkv"), "matroska", times=[0, 3003], size=(32, 16))


def finish_other_settings(target: str) -> None:
    assert run(target, "--resume", "--deinterlace") == 0


def lose_an_image(target: str) -> None:
    finish_without_journal(target)
    (Path(target) if target.endswith("mkv") else Path(target % 1)).unlink()


def break_a_segment(target: str) -> None:
    stop(target)
    for path in Path("out").glob(".*.mambair/*.mkv"):
        path.write_bytes(b"no segment")


def take_the_folder(target: str) -> None:
    Path("out").write_bytes(b"a file")


STATES: tuple[State, ...] = (
    lambda target: None,
    finish,
    finish_without_journal,
    stop,
    stop_others,
    stop_and_change_source,
    finish_and_change_result,
    finish_and_change_source,
    finish_other_settings,
    lose_an_image,
    break_a_segment,
    take_the_folder,
)


@pytest.mark.parametrize("options", [(), ("--resume",), ("--overwrite",), ("--resume", "--overwrite")])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_a_dry_run_says_what_the_run_does(target: str, options: tuple[str, ...], place: Path, capsys) -> None:
    source = (place / "in.mkv").read_bytes()
    for state in STATES:
        if Path("out").is_file():
            Path("out").unlink()
        shutil.rmtree("out", ignore_errors=True)
        Path("in.mkv").write_bytes(source)
        state(target)
        capsys.readouterr()
        planned_code = run(target, *options, "--dry-run", "--json")
        planned = capsys.readouterr()
        done_code = run(target, *options, "--json")
        done = capsys.readouterr()
        _, plan, total = map(json.loads, planned.out.splitlines())
        _, event, summary = map(json.loads, done.out.splitlines())
        where = state.__name__, plan, event
        assert planned_code == done_code, where
        kinds = {"plan_clip": "done", "plan_skipped": "skipped", "plan_failed": "failed"}
        assert kinds[plan["event"]] == event["event"], where
        for key in ("message", "frames", "resumed", "width", "height", "codec", "model", "output"):
            assert plan.get(key) == event.get(key), where
        assert (total["skipped"], total["failed"]) == (summary["skipped"], summary["failed"])
        anew = "begun with other settings or from another clip; beginning anew"
        assert (anew in planned.err) == (anew in done.err), where


def test_a_dry_run_foresees_the_time_of_the_frames_that_are_left(place: Path, monkeypatch, capsys) -> None:
    stop("out/in.mkv")
    assert run("out/in.mkv", "--dry-run", "--resume") == 0
    said = capsys.readouterr().out
    assert "12 frames of 64×32, 5 of them done before, h264, by " in said


def test_several_clips_are_summed_up(place: Path, capsys) -> None:
    shutil.copy("in.mkv", "b.mkv")
    Path("c.mkv").write_bytes(b"no clip")
    clips = ["upscale", "in.mkv", "b.mkv", "c.mkv", "-s", "2", "-o", "out", *LOCAL]
    assert main([*clips, "--dry-run"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].startswith("in all: ")
    assert "; 1 would fail" in said.out
    assert main(clips) == 1
    assert "mambair: 2 done, 1 failed of 3 clips in " in capsys.readouterr().err
    assert main([*clips, "--dry-run", "--resume"]) == 1
    assert "in all: nothing to do; 2 done before; 1 would fail" in capsys.readouterr().out


def test_a_dry_run_downloads_no_model(place: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "cached", lambda model: None)
    command = ["upscale", "in.mkv", "-s", "4", "--model", "mambair-real-x4", "--device", "cpu", "--dry-run"]
    assert main([*command, "--json"]) == 0
    first, plan, total = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["on_this_machine"] is False
    assert (plan["width"], plan["frames"], plan["seconds"]) == (128, FRAMES, None)
    assert total["seconds"] is None


def test_a_run_without_resume_leaves_what_an_interrupted_one_has_counted(place: Path, capsys) -> None:
    stop("out/%02d.png")
    assert run("out/%02d.png") == 2
    assert "--resume goes on with them, --overwrite begins anew" in capsys.readouterr().err
    assert run("out/%02d.png", "--resume") == 0
    assert "going on after " in capsys.readouterr().err


def test_an_image_in_the_way_is_named_before_anything_is_computed(place: Path, monkeypatch, capsys) -> None:
    Path("out").mkdir()
    Image.new("RGB", (8, 8)).save("out/09.png")
    monkeypatch.setattr(clip_writers, "write_frame", None)
    make_clip(place / "in.mp4", "mp4", times=[3003 * number for number in range(FRAMES)], size=(32, 16))
    assert main(["upscale", "in.mp4", "-s", "2", "-o", "out/%02d.png", *LOCAL]) == 1
    assert "09.png: it exists already" in capsys.readouterr().err


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_a_clip_that_changes_during_its_run_has_no_result(
    target: str, place: Path, monkeypatch, capsys
) -> None:
    finish_image, add = UnfinishedClip.finish_image, UnfinishedClip.add

    def change(unfinished: UnfinishedClip) -> None:
        Path("in.mkv").write_bytes(Path("in.mkv").read_bytes() + b"more")
        (add if target.endswith("mkv") else finish_image)(unfinished)

    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedClip, "finish_image", change)
        patch.setattr(UnfinishedClip, "add", change)
        assert run(target, "--resume") == 1
    assert "cannot restore in.mkv: it changed or vanished meanwhile; try it again" in capsys.readouterr().err
    assert not Path("out/in.mkv").exists()
    assert run(target, "--resume", "--json", *(["--overwrite"] if "%" in target else [])) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[1])["event"] == "done"


def test_a_level_without_effect_is_reported_for_clips_too(place: Path, capsys) -> None:
    command = ["denoise", "in.mkv", "--offline", "--device", "cpu", "--sigma", "15"]
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr()
    assert "--sigma 15 has no effect: tiny-denoise is for noise of any strength" in said.err
    assert "--sigma 15 has no effect" in json.loads(said.out.splitlines()[0])["notices"][-1]
    assert main([*command, "--dry-run", "--overwrite"]) == 0
    assert "--sigma 15 has no effect" in capsys.readouterr().err
