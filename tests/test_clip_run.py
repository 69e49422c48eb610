"""Clips by the restoring commands: every frame, with its time and its sound, also after a kill."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from fractions import Fraction
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import save_nearest
from huggingface_hub import constants
from PIL import Image

pytest.importorskip("av", reason="needs the extra video")

from clips import Sound, make_clip, psnr, read_packets
from forked import run_forked, start_forked
from pictures import save_photo

from mambair_cli import Restorer
from mambair_cli.checkpoints import hub
from mambair_cli.checkpoints.source import local_path
from mambair_cli.cli import clips as clips_command
from mambair_cli.cli import main
from mambair_cli.networks import MambaIR
from mambair_cli.restore import restoration, small_images
from mambair_cli.restore.restoration import Restoration
from mambair_cli.runs import clip_frames, clip_segments, clip_writers
from mambair_cli.runs.claims import GATE_FILE
from mambair_cli.runs.clip_frames import FRAMES_AHEAD, read_ahead, restore_frames
from mambair_cli.runs.unfinished_clip import UnfinishedClip, find_left_over
from mambair_cli.video import SegmentWriter, VideoFrame, open_clip, piped, probe_clip

LOCAL = ("--offline", "--device", "cpu")
TIMES = [0, 3003, 6006, 9009, 15015, 18018, 21021, 24024, 27027, 36036, 39039, 42042]  # not evenly


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """Change to a folder with a network that repeats pixels, and with short segments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clip_segments, "SEGMENT_FRAMES", 5)
    save_nearest(tmp_path / "double.safetensors", 2)
    return tmp_path


def upscale(*arguments: str) -> int:
    return main(["upscale", *arguments, "--weights", "double.safetensors", *LOCAL])


def frames_of(path: Path | str) -> list[VideoFrame]:
    with open_clip(Path(path)) as clip:
        return list(clip.frames())


def double(pixels: np.ndarray) -> np.ndarray:
    return pixels.repeat(2, 0).repeat(2, 1)


def test_every_frame_is_restored_at_its_time_and_the_sound_is_kept(place: Path, capsys) -> None:
    make_clip(place / "in.mkv", "matroska", times=TIMES, sound=Sound("aac"), pix_fmt="yuv444p", size=(48, 32))
    assert upscale("in.mkv", "-s", "2", "--codec", "ffv1") == 0
    out, err = capsys.readouterr()
    assert out == "in_x2.mkv\n"
    assert "12 frames" in err
    given, made = frames_of("in.mkv"), frames_of("in_x2.mkv")
    assert [frame.pts for frame in made] == [frame.pts for frame in given]
    assert len(made) == len(TIMES)
    for before, after in zip(given, made, strict=True):
        assert np.abs(after.pixels - double(before.pixels)).max() <= 2 / 255  # of YUV's rounding
    assert read_packets(place / "in_x2.mkv", "audio").data == read_packets(place / "in.mkv", "audio").data
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []


def test_a_real_model_and_a_size_that_is_reduced(place: Path) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES[:3], size=(32, 24))
    command = ["upscale", "in.mp4", "-s", "1.5", "--model", "tiny-x2", "-o", "out.mkv", "--codec", "ffv1"]
    assert main([*command, *LOCAL]) == 0
    restore = Restorer("upscale", 2, model="tiny-x2", device="cpu", offline=True)
    for before, after in zip(frames_of("in.mp4"), frames_of("out.mkv"), strict=True):
        assert after.pixels.shape == (36, 48, 3)
        wanted = restore(before.pixels)
        reduced = np.array(
            Image.fromarray((wanted * 255).round().astype(np.uint8)).resize(
                (48, 36), Image.Resampling.LANCZOS
            )
        )
        assert psnr(after.pixels, reduced / 255) > 30  # 4:2:0 halves the colours


class StopError(Exception):
    """Stands for what ends a run at any moment."""


@pytest.mark.parametrize("frame", [0, 4, 5, 7, 11])
def test_a_run_that_ends_anywhere_goes_on_to_the_same_packets(place: Path, monkeypatch, frame: int) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES, sound=Sound("aac"), size=(48, 32))
    assert upscale("in.mp4", "-s", "2", "-o", "whole.mp4") == 0
    write, begin = SegmentWriter.encode, Restoration.begin
    written = []

    def stop(writer: SegmentWriter, converted: Any, pts: int, duration: int) -> None:
        if len(written) == frame:
            raise StopError
        written.append(pts)
        write(writer, converted, pts, duration)

    monkeypatch.setattr(SegmentWriter, "encode", stop)
    with pytest.raises(StopError):
        upscale("in.mp4", "-s", "2", "-o", "out.mp4")
    assert not Path("out.mp4").exists()
    assert len(list(Path(".out.mp4.mambair").glob("*.mkv"))) == frame // 5
    monkeypatch.setattr(SegmentWriter, "encode", write)
    begun = []
    monkeypatch.setattr(Restoration, "begin", lambda self: (begun.append(self), begin(self))[1])
    assert upscale("in.mp4", "-s", "2", "-o", "out.mp4", "--resume") == 0
    assert len({*map(id, begun)}) == len(TIMES) - frame // 5 * 5
    for kind in ("video", "audio"):
        assert read_packets(place / "out.mp4", kind) == read_packets(place / "whole.mp4", kind)
    assert not Path(".out.mp4.mambair").exists()


def test_a_run_that_was_killed_while_it_joined_has_all_segments(place: Path, monkeypatch) -> None:
    make_clip(place / "in.mkv", "matroska", times=TIMES, size=(48, 32))
    assert upscale("in.mkv", "-s", "2", "-o", "whole.mkv") == 0
    join = clip_writers.join_segments

    def stop(*arguments: Any, **options: Any) -> list[str]:
        raise StopError

    monkeypatch.setattr(clip_writers, "join_segments", stop)
    with pytest.raises(StopError):
        upscale("in.mkv", "-s", "2", "-o", "out.mkv")
    monkeypatch.setattr(clip_writers, "join_segments", join)
    monkeypatch.setattr(SegmentWriter, "encode", stop)
    assert upscale("in.mkv", "-s", "2", "-o", "out.mkv", "--resume") == 0
    assert read_packets(place / "out.mkv") == read_packets(place / "whole.mkv")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_a_run_that_is_killed_leaves_no_clip_and_its_segments(place: Path) -> None:
    times = [3003 * number for number in range(250)]
    make_clip(place / "in.mp4", "mp4", times=times, size=(48, 32))
    command = ["-m", "mambair_cli", "upscale", "in.mp4", "-s", "2", "-o", "out.mp4", *LOCAL]
    command += ["--weights", "double.safetensors"]
    with start_forked(*command) as running:
        end = time.monotonic() + 60
        while not list(place.glob(".out.mp4.mambair/*.mkv")) and time.monotonic() < end:
            time.sleep(0.01)
        running.kill()
    assert not Path("out.mp4").exists()
    done = run_forked(*command, "--resume")
    assert done.returncode == 0, done.stderr
    assert "going on after 96 frames" in done.stderr or "going on after 192 frames" in done.stderr
    assert [frame.pts for frame in frames_of("out.mp4")] == times


def test_other_settings_begin_anew(place: Path, monkeypatch, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES, size=(48, 32))
    write = SegmentWriter.encode
    monkeypatch.setattr(SegmentWriter, "encode", stop_after(7))
    with pytest.raises(StopError):
        upscale("in.mp4", "-s", "2", "-o", "out.mp4")
    monkeypatch.setattr(SegmentWriter, "encode", write)
    assert upscale("in.mp4", "-s", "2", "-o", "out.mp4", "--resume", "--quality", "50") == 0
    assert "was begun with other settings or from another clip; beginning anew" in capsys.readouterr().err
    assert upscale("in.mp4", "-s", "2", "-o", "whole.mp4", "--quality", "50") == 0
    assert read_packets(place / "out.mp4") == read_packets(place / "whole.mp4")


def stop_after(frames: int) -> Any:
    """Return a write that writes so many frames, and then stops."""
    write, written = SegmentWriter.encode, []

    def stop(writer: SegmentWriter, *arguments: Any) -> None:
        if len(written) == frames:
            raise StopError
        written.append(arguments)
        write(writer, *arguments)

    return stop


def stop_image_after(images: int) -> Any:
    """Return what writes so many numbered images, and then stops."""
    write, left = clip_writers.write_frame, iter(range(images))

    def stop(*arguments: Any, **options: Any) -> Path:
        if next(left, None) is None:
            raise StopError
        return write(*arguments, **options)

    return stop


def test_a_full_disk_keeps_what_there_is(place: Path, monkeypatch, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES, size=(48, 32))
    write = SegmentWriter.encode
    left = iter(range(7))

    def fill(writer: SegmentWriter, *arguments: Any) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(writer, *arguments)

    monkeypatch.setattr(SegmentWriter, "encode", fill)
    assert upscale("in.mp4", "-s", "2", "--json") == 1
    said = capsys.readouterr()
    assert (
        "cannot write in_x2.mp4: No space left on device; free some space, and go on with --resume"
        in said.err
    )
    assert [json.loads(line)["event"] for line in said.out.splitlines()] == ["start", "failed", "summary"]
    monkeypatch.setattr(SegmentWriter, "encode", write)
    assert upscale("in.mp4", "-s", "2", "--resume") == 0
    assert "going on after 5 frames" in capsys.readouterr().err
    assert len(frames_of("in_x2.mp4")) == len(TIMES)


def test_frames_equal_to_the_one_before_are_not_computed_again(place: Path, monkeypatch) -> None:
    random = np.random.default_rng(0).random((3, 8, 9, 3), np.float32)
    order = [0, 0, 1, 1, 1, 0, 2]
    frames = iter([VideoFrame(n, n, 1, random[which].copy()) for n, which in enumerate(order)])
    begin, begun = Restoration.begin, []
    monkeypatch.setattr(Restoration, "begin", lambda self: (begun.append(1), begin(self))[1])
    restorer = Restorer(weights=place / "double.safetensors", device="cpu")
    made = list(restore_frames(frames, restorer, (16, 18)))
    assert [each.is_repeated for each in made] == [False, True, False, True, True, False, False]
    for each, which in zip(made, order, strict=True):
        np.testing.assert_allclose(each.pixels, double(random[which]), atol=1e-6)
    assert [each.frame.number for each in made] == list(range(7))


@pytest.mark.parametrize("trouble", [None, "begin", "collect"])
def test_small_frames_share_a_batch(place: Path, monkeypatch, trouble: str | None) -> None:
    random = np.random.default_rng(0).random((7, 8, 9, 3), np.float32)
    order = [0, 1, 1, 2, 3, 3, 4, 5, 6, 6]
    frames = [VideoFrame(n, n, 1, random[which].copy()) for n, which in enumerate(order)]
    restorer = Restorer(weights=place / "double.safetensors", device="cpu")
    alone = list(restore_frames(iter(frames), restorer, (16, 18)))
    monkeypatch.setitem(small_images.MOST_TOGETHER, "cpu", 3)  # as on a GPU, where 16 are
    monkeypatch.setitem(small_images.PIXELS_TOGETHER, "cpu", 4 * 72)
    together, sizes = small_images.restore_together, []

    def fail() -> Any:
        raise torch.OutOfMemoryError("no room")

    def watch(restorer: Restorer, images: list[np.ndarray], *rest: Any) -> Any:
        sizes.append(len(images))
        if trouble is None or len(images) == 1:
            return together(restorer, images, *rest)
        return fail() if trouble == "begin" else fail

    for module in (clip_frames, restoration):
        monkeypatch.setattr(module, "restore_together", watch)
    made = list(restore_frames(iter(frames), restorer, (16, 18)))
    assert sizes == [3, 3, 1] if trouble is None else sizes.count(1) == 7
    assert [each.is_repeated for each in made] == [each.is_repeated for each in alone]
    assert [each.frame.number for each in made] == list(range(10))
    for each, other in zip(made, alone, strict=True):
        np.testing.assert_allclose(each.pixels, other.pixels, atol=1e-6)


def test_small_frames_are_computed_side_by_side_on_a_cpu(place: Path, one_thread, monkeypatch) -> None:
    random = np.random.default_rng(0).random((6, 40, 50, 3), np.float32)
    frames = [VideoFrame(n, n, 1, pixels) for n, pixels in enumerate(random)]
    alone = list(
        restore_frames(iter(frames), Restorer(weights=place / "double.safetensors", device="cpu"), (80, 100))
    )
    torch.set_num_threads(3)
    together, forward = threading.Barrier(3), MambaIR.forward

    def see(net: MambaIR, x: torch.Tensor, **options: Any) -> torch.Tensor:
        together.wait(30)
        return forward(net, x, **options)

    monkeypatch.setattr(MambaIR, "forward", see)
    restorer = Restorer(weights=place / "double.safetensors", device="cpu")
    made = list(restore_frames(iter(frames), restorer, (80, 100)))
    for each, other in zip(made, alone, strict=True):
        np.testing.assert_array_equal(each.pixels, other.pixels)


def test_frames_are_read_only_as_far_ahead_as_needed(place: Path) -> None:
    restorer = Restorer(weights=place / "double.safetensors", device="cpu")
    taken = []

    def read() -> Any:
        for number in range(1000):
            taken.append(number)
            yield VideoFrame(number, number, 1, np.full((4, 4, 3), number / 1000, np.float32))

    with read_ahead(read()) as frames:
        made = list(islice(restore_frames(frames, restorer, (8, 8)), 3))
    assert len(made) == 3
    assert len(taken) <= 3 + FRAMES_AHEAD + 3


def test_frames_are_closed_by_the_thread_that_reads_them(place: Path) -> None:
    closed = []

    def read() -> Any:
        try:
            while True:
                yield VideoFrame(0, 0, 1, np.zeros((4, 4, 3), np.float32))
        finally:
            closed.append(threading.current_thread().name)

    source = read()
    with suppress(StopError), read_ahead(source) as frames:
        next(frames)
        raise StopError
    assert closed == ["mambair-decode"]


def test_no_frame_is_encoded_after_its_file_is_given_up(place: Path, monkeypatch, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES, size=(48, 32))
    leave, happened = SegmentWriter.__exit__, []

    def write(writer: SegmentWriter, *arguments: Any) -> None:
        time.sleep(0.05)
        happened.append("write")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def end(writer: SegmentWriter, *error: Any) -> None:
        happened.append("end")
        leave(writer, *error)

    monkeypatch.setattr(SegmentWriter, "encode", write)
    monkeypatch.setattr(SegmentWriter, "__exit__", end)
    assert upscale("in.mp4", "-s", "2", "-o", "out.mp4") == 1
    assert "end" in happened
    assert happened[-1] == "end"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_a_kill_in_the_join_leaves_nothing_but_the_hidden_folder(place: Path) -> None:
    make_clip(place / "in.mkv", "matroska", times=TIMES[:2], size=(48, 32))
    code = (
        "import os, sys; from mambair_cli.cli import main; from mambair_cli.video import join;"
        "join.find_shift = lambda *arguments: os.kill(os.getpid(), 9);"
        "main(sys.argv[1:])"
    )
    command = ["upscale", "in.mkv", "-s", "2", "-o", "out.mkv", "--weights", "double.safetensors", *LOCAL]
    before = {path.name for path in place.iterdir()}
    assert run_forked("-c", code, *command).returncode == -signal.SIGKILL
    assert {path.name for path in place.iterdir()} == {*before, ".out.mkv.mambair"}
    assert upscale("in.mkv", "-s", "2", "-o", "out.mkv", "--resume") == 0
    assert not Path(".out.mkv.mambair").exists()


def test_a_finished_clip_is_skipped_and_what_is_not_ours_is_kept(place: Path, monkeypatch, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES[:3], size=(48, 32))
    Path("out").mkdir()
    assert upscale("in.mp4", "-s", "2", "-o", "out", "--resume") == 0
    first = Path("out/in.mp4").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(SegmentWriter, "encode", stop_after(0))
        assert upscale("in.mp4", "-s", "2", "-o", "out", "--resume") == 0
    assert "out/in.mp4 is done already" in capsys.readouterr().err
    Path("out", GATE_FILE).mkdir()  # as if the folder could not be written
    assert upscale("in.mp4", "-s", "2", "-o", "out", "--resume") == 0
    assert "out/in.mp4 is done already" in capsys.readouterr().err
    assert upscale("in.mp4", "-s", "2", "-o", "out", "--resume", "--quality", "20") == 1
    assert "cannot keep a journal in out: " in capsys.readouterr().err
    Path("out", GATE_FILE).rmdir()
    assert upscale("in.mp4", "-s", "2", "-o", "out", "--resume", "--quality", "20") == 0  # it is ours
    second = Path("out/in.mp4").read_bytes()
    assert len(second) < len(first)
    capsys.readouterr()
    Path("out/in.mp4").write_bytes(b"mine")
    for options in (["--resume"], ["--resume", "--dry-run"]):
        assert upscale("in.mp4", "-s", "2", "-o", "out", *options) == 1
        assert "in.mp4: it was changed after an earlier run wrote it; --over" in capsys.readouterr().err
    assert Path("out/in.mp4").read_bytes() == b"mine"
    assert upscale("in.mp4", "-s", "2", "-o", "out", "--overwrite") == 0
    assert Path("out/in.mp4").read_bytes() == first


@pytest.mark.parametrize(
    ("output", "results"), [("out/in.mp4", ["in.mp4"]), ("out/%d.png", ["1.png", "3.png"])]
)
def test_a_copied_clip_is_done_already(place: Path, output: str, results: list[str], capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES[:3], size=(48, 32))
    Path("out").mkdir()
    assert upscale("in.mp4", "-s", "2", "-o", output, "--resume") == 0
    for name in results:
        os.utime(Path("out", name), (1, 1))
    capsys.readouterr()
    assert upscale("in.mp4", "-s", "2", "-o", output, "--resume") == 0
    assert f"{output} is done already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["in.mp4", "in.png"])
def test_a_refused_run_leaves_no_journal(place: Path, name: str, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES[:2], size=(48, 32))
    Image.new("RGB", (16, 16)).save("in.png")
    target = place / f"in_x2{Path(name).suffix}"
    target.write_bytes(b"mine")
    for options in (["--dry-run"], []):
        assert upscale(name, "-s", "2", "--resume", *options) == 1
        assert "exists already, and no earlier run has noted it: a run of one" in capsys.readouterr().err
    assert target.read_bytes() == b"mine"
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []


def test_a_finished_clip_is_noted_before_its_segments_go(place: Path, monkeypatch, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES[:3], size=(48, 32))
    Path("out").mkdir()

    def stop(unfinished: UnfinishedClip) -> None:
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedClip, "_clear", stop)
        with pytest.raises(StopError):
            upscale("in.mp4", "-s", "2", "-o", "out", "--resume")
    assert upscale("in.mp4", "-s", "2", "-o", "out", "--resume") == 0
    assert "is done already" in capsys.readouterr().err


def test_events_describe_a_clip(place: Path, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES, size=(48, 32))
    (place / "broken.mp4").write_bytes(b"no clip")
    assert upscale("broken.mp4", "in.mp4", "-s", "2", "-o", "out", "--json") == 1
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["start", "failed", "done", "summary"]
    done = events[2]
    assert (done["input"], done["output"]) == ("in.mp4", "out/in.mp4")
    assert (done["width"], done["height"], done["frames"], done["resumed"]) == (96, 64, 12, 0)
    assert (done["codec"], done["warnings"]) == ("h264", [])
    summary = events[3]
    assert [summary[what] for what in ("done", "skipped", "failed", "left", "warned")] == [1, 0, 1, 0, 0]
    assert summary["models"] == {done["model"]: 1}
    save_photo("photos/a.png", (48, 32))
    assert upscale("photos", "-s", "2", "--json") == 0
    of_images = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary.keys() == of_images.keys()


@pytest.mark.parametrize(("crf", "is_printed"), [("1", True), ("45", False)])
def test_a_built_in_model_is_named_where_the_look_at_a_clip_chose_it(
    place: Path, crf: str, is_printed: bool, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "_find", lambda model: (local_path(model), None))  # the cache is empty
    for name in ("a.mkv", "b.mkv"):
        make_clip(place / name, "matroska", times=TIMES[:2], size=(96, 64), options={"crf": crf})
    assert main(["upscale", "a.mkv", "b.mkv", "-s", "2", "-o", "out", "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert said.count("mambair: using the built-in model tiny-x2 (about ") == is_printed  # once


def test_a_quality_without_effect_is_reported(place: Path, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES[:2], size=(48, 32))
    no_effect = "--quality 50 has no effect on png; jpeg, webp and avif have a quality"
    for output, said in (
        ("out/%d.png", no_effect),
        ("out/%d.jpg", None),
        ("out.mkv", None),
        ("out.ffv1.mkv", "quality 50 has no effect: ffv1 is lossless"),
    ):
        codec = ["--codec", "ffv1"] if "ffv1" in output else []
        assert upscale("in.mp4", "-s", "2", "-o", output, "--quality", "50", *codec) == 0
        err = capsys.readouterr().err
        assert (said or "no effect") in err if said else "no effect" not in err


def test_a_cluster_takes_no_clips(place: Path, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES[:2], size=(48, 32))
    assert main(["upscale", "in.mp4", "--ray", "auto"]) == 2
    assert "a Ray cluster takes no clips: --ray auto; leave it out" in capsys.readouterr().err


def test_two_runs_do_not_write_one_clip(place: Path, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES[:2], size=(48, 32))
    with UnfinishedClip(place / "in_x2.mp4", {}):
        assert upscale("in.mp4", "-s", "2") == 1
    assert "another run is writing it; wait for it, or name another" in capsys.readouterr().err
    assert upscale("in.mp4", "-s", "2") == 0


@pytest.mark.parametrize(
    ("given", "code", "why"),
    [
        (["in.png", "--codec", "av1"], 2, "there is no clip among the inputs: --codec av1"),
        (["in.mp4", "--server", "auto"], 2, "a server takes no clips: --server auto; leave it out"),
        (["in.mp4", "--compare"], 2, "no effect on clips: --compare"),
        (["in.mp4", "-o", "out.webm", "--codec", "h264"], 2, "no place for the codec h264; vp9, av1 work"),
        (["in.mp4", "-o", "out.mp4", "--codec", "prores"], 2, "no place for the codec prores; h264, hevc"),
        (["in.mp4", "--codec", "prores"], 2, "no place for the codec prores; h264, hevc"),
        (["in.mp4", "-o", "out.gif"], 2, "a clip cannot be written as ."),
        (["in.mp4", "-o", "out.avi", "--dry-run"], 2, "a clip cannot be written as ."),
        (["in.mp4", "-o", "out.y4m"], 2, "a clip cannot be written as ."),
        (["in.mp4", "-o", "there.mp4"], 1, "it exists already; --overwrite replaces it"),
        (["in.mp4", "-o", "in.mp4"], 2, "the result of in.mp4 cannot be in.mp4"),
        (["in.mp4", "in.mp4"], 2, "the result of in.mp4 cannot be in_x2.mp4"),
        (["no.mp4"], 2, "no such file or folder: no.mp4; check its name"),
        (["in.mp4", "--quality", "0"], 2, "--quality is 0"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(given, code, why, place: Path, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES[:2], size=(48, 32))
    Image.new("RGB", (8, 8)).save("in.png")
    (place / "there.mp4").write_bytes(b"mine")
    if code == 2:  # before anything is opened
        (place / "in.mp4").write_bytes(b"no clip")
    assert upscale(*given, "-s", "2", "-q") == code
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1
    assert (place / "there.mp4").read_bytes() == b"mine"
    assert not list(place.glob(".*.mambair"))


def test_a_clip_becomes_numbered_images_and_these_a_clip(place: Path, monkeypatch, capsys) -> None:
    make_clip(place / "in.mkv", "matroska", times=TIMES[:7], size=(24, 16), pix_fmt="yuv444p")
    (place / "frames").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(clip_writers, "write_frame", stop_image_after(3))
        with pytest.raises(StopError):
            upscale("in.mkv", "-s", "2", "-o", "frames/%03d.png")
    assert len(list(place.glob("frames/*.png"))) == 3
    assert upscale("in.mkv", "-s", "2", "-o", "frames/%03d.png", "--resume") == 0
    assert "going on after 3 frames" in capsys.readouterr().err
    names = [f"{number:03d}.png" for number in range(1, 8)]
    assert sorted(path.name for path in (place / "frames").glob("[!.]*")) == names
    for name, frame in zip(names, frames_of("in.mkv"), strict=True):
        made = np.array(Image.open(place / "frames" / name)) / 255
        assert np.abs(made - double(frame.pixels)).max() <= 1 / 255
    assert [frame.pixels.shape for frame in frames_of("frames/%03d.png")] == [(32, 48, 3)] * 7
    assert upscale("in.mkv", "-s", "2", "-o", "frames/%03d.png") == 1  # they are not replaced
    assert "001.png: it exists already" in capsys.readouterr().err

    assert upscale("frames/%03d.png", "-s", "2", "-o", "out.mkv", "--codec", "ffv1", "--fps", "12.5") == 0
    made = frames_of("out.mkv")
    assert [frame.pixels.shape for frame in made] == [(64, 96, 3)] * 7
    with open_clip(place / "out.mkv") as clip:
        assert clip.facts.frame_rate == pytest.approx(12.5)
    wanted = double(np.array(Image.open(place / "frames/004.png")) / np.float32(255))
    assert np.abs(made[3].pixels - wanted).max() <= 2 / 255
    assert upscale("frames", "-s", "2", "-o", "folder.mkv", "--codec", "ffv1") == 0
    assert [frame.pixels.tobytes() for frame in frames_of("folder.mkv")] == [f.pixels.tobytes() for f in made]


def test_an_image_that_is_written_but_not_counted_is_written_again(place: Path, monkeypatch) -> None:
    make_clip(place / "in.mkv", "matroska", times=TIMES[:7], size=(24, 16), pix_fmt="yuv444p")
    (place / "frames").mkdir()
    finish, left = UnfinishedClip.finish_image, iter(range(2))

    def stop(unfinished: UnfinishedClip) -> None:
        if next(left, None) is None:
            raise StopError
        finish(unfinished)

    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedClip, "finish_image", stop)
        with pytest.raises(StopError):
            upscale("in.mkv", "-s", "2", "-o", "frames/%d.png")
    assert len(list(place.glob("frames/*.png"))) > 2
    assert upscale("in.mkv", "-s", "2", "-o", "frames/%d.png", "--resume") == 0
    for number, frame in enumerate(frames_of("in.mkv"), 1):
        made = np.array(Image.open(place / f"frames/{number}.png")) / 255
        assert np.abs(made - double(frame.pixels)).max() <= 1 / 255


def test_an_interrupt_says_what_goes_on(place: Path, monkeypatch, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES, size=(48, 32))
    encode, left = SegmentWriter.encode, iter(range(7))

    def stop(writer: SegmentWriter, *arguments: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        encode(writer, *arguments)

    monkeypatch.setattr(SegmentWriter, "encode", stop)
    assert upscale("in.mp4", "-s", "2") == 130
    assert "what is finished of in_x2.mp4 is kept; --resume goes on with it\n" in capsys.readouterr().err
    monkeypatch.setattr(SegmentWriter, "encode", encode)
    assert upscale("in.mp4", "-s", "2", "--resume") == 0
    assert "going on after 5 frames" in capsys.readouterr().err


def test_images_of_another_run_are_not_taken_for_those_of_this_one(place: Path, monkeypatch, capsys) -> None:
    make_clip(place / "in.mkv", "matroska", times=TIMES[:4], size=(24, 16), pix_fmt="yuv444p")
    (place / "frames").mkdir()
    command = ("in.mkv", "-s", "2", "-o", "frames/%d.png")
    for number in range(1, 5):
        Image.new("RGB", (48, 32)).save(place / f"frames/{number}.png")
    with monkeypatch.context() as patch:
        patch.setattr(clip_writers, "write_frame", stop_image_after(2))
        with pytest.raises(StopError):
            upscale(*command, "--overwrite")
    assert upscale(*command, "--overwrite", "--resume") == 0
    assert "going on after 2 frames" in capsys.readouterr().err
    for number, frame in enumerate(frames_of("in.mkv"), 1):
        made = np.array(Image.open(place / f"frames/{number}.png")) / 255
        assert np.abs(made - double(frame.pixels)).max() <= 1 / 255


def test_images_that_are_all_done_need_no_more(place: Path, monkeypatch, capsys) -> None:
    leave_folder = UnfinishedClip.__exit__

    def leave(unfinished: UnfinishedClip, *error: Any) -> None:
        leave_folder(unfinished, StopError, StopError(), None)
        raise StopError

    make_clip(place / "in.mkv", "matroska", times=TIMES[:3], size=(24, 16), pix_fmt="yuv444p")
    (place / "frames").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedClip, "__exit__", leave)
        with pytest.raises(StopError):
            upscale("in.mkv", "-s", "2", "-o", "frames/%d.png")
    assert upscale("in.mkv", "-s", "2", "-o", "frames/%d.png", "--resume") == 0
    assert "going on after 3 frames" in capsys.readouterr().err
    assert sorted(path.name for path in (place / "frames").glob("[!.]*")) == ["1.png", "2.png", "3.png"]


def test_finished_images_are_skipped_and_what_is_not_ours_is_kept(place: Path, monkeypatch, capsys) -> None:
    make_clip(place / "in.mkv", "matroska", times=TIMES[:3], size=(24, 16), pix_fmt="yuv444p")
    command = ("in.mkv", "-s", "2", "-o", "frames/%d.jpg", "--resume")
    images = [place / f"frames/{number}.jpg" for number in (1, 2, 3)]
    assert upscale(*command) == 0
    first = [path.read_bytes() for path in images]
    with monkeypatch.context() as patch:
        patch.setattr(clip_writers, "write_frame", stop_image_after(0))
        assert upscale(*command) == 0
        assert "frames/%d.jpg is done already" in capsys.readouterr().err
        (place / "frames/4.jpg").write_bytes(b"of another clip")
        assert upscale(*command) == 0  # which is not counted as one of ours
    assert upscale(*command, "--quality", "20") == 0  # they are ours
    assert all(len(path.read_bytes()) < len(before) for path, before in zip(images, first, strict=True))
    mine = bytes(images[1].stat().st_size)
    images[1].write_bytes(mine)
    os.utime(images[1], (1, 1))  # of the same size, and older than the others
    assert upscale(*command) == 1
    assert images[1].read_bytes() == mine
    images[2].unlink()
    assert upscale(*command, "--overwrite") == 0
    assert [path.read_bytes() for path in images] == first


def test_a_result_among_the_images_of_its_clip_goes_on(place: Path, monkeypatch, capsys) -> None:
    (place / "frames").mkdir()
    for number in range(1, 8):
        Image.new("RGB", (24, 16), (30 * number, 0, 0)).save(place / f"frames/{number}.png")
    write = SegmentWriter.encode
    monkeypatch.setattr(SegmentWriter, "encode", stop_after(6))
    with pytest.raises(StopError):
        upscale("frames/%d.png", "-s", "2", "-o", "frames/out.mkv")
    monkeypatch.setattr(SegmentWriter, "encode", write)
    assert upscale("frames/%d.png", "-s", "2", "-o", "frames/out.mkv", "--resume") == 0
    assert "going on after 5 frames" in capsys.readouterr().err
    assert len(frames_of("frames/out.mkv")) == 7


def test_segments_after_a_gap_do_not_outlive_another_plan(tmp_path: Path) -> None:
    folder = tmp_path / ".out.mkv.mambair"
    for plan in ("first", "second"):
        with suppress(StopError), UnfinishedClip(tmp_path / "out.mkv", {"plan": plan}) as unfinished:
            unfinished.begin(find_left_over(tmp_path / "out.mkv", {"plan": plan}, resume=True))
            assert not list(folder.glob("*.mkv"))
            for name in ("000000.mkv", "000002.mkv"):  # someone has deleted the one between
                (folder / name).touch()
            raise StopError


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes by name")
def test_a_pipe_by_name_is_read_once(place: Path, capsys) -> None:
    make_clip(place / "in.mkv", "matroska", times=TIMES[:2], size=(24, 16))
    os.mkfifo(place / "pipe.mkv")
    content = (place / "in.mkv").read_bytes()
    feeding = threading.Thread(target=(place / "pipe.mkv").write_bytes, args=(content,))
    feeding.start()
    assert main(["denoise", "pipe.mkv", "-o", "out.mkv", *LOCAL]) == 0
    feeding.join()
    assert len(frames_of("out.mkv")) == 2


@pytest.mark.parametrize(("crf", "model"), [("45", "tiny-real-x2"), ("1", "tiny-x2")])
def test_a_pipe_is_looked_at_as_a_file_is(place: Path, crf: str, model: str, monkeypatch, capsys) -> None:
    """No frame is lost by the look, also where memory is for one frame only."""
    make_clip(place / "in.mkv", "matroska", times=TIMES[:4], size=(96, 64), options={"crf": crf})
    held = {"in.mkv": piped.MOST_HELD, "pipe.mkv": piped.MOST_HELD, "narrow.mkv": 1}
    for name, most in held.items():
        if name != "in.mkv":
            os.mkfifo(place / name)
            content = (place / "in.mkv").read_bytes()
            threading.Thread(target=(place / name).write_bytes, args=(content,)).start()
        monkeypatch.setattr(piped, "MOST_HELD", most)
        assert main(["upscale", name, "-s", "2", "-o", f"out-{name}", *LOCAL, "--json"]) == 0
        done = json.loads(capsys.readouterr().out.splitlines()[1])
        assert (done["model"], done["frames"]) == (model, 4)
    made, *others = (read_packets(place / f"out-{name}").data for name in held)
    assert others == [made, made]


def test_frames_come_and_go_by_pipes(place: Path) -> None:
    random = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), np.uint8)
    command = [sys.executable, "-m", "mambair_cli", "upscale", "-", "-s", "2", "-o", "-", *LOCAL]
    command += ["--weights", "double.safetensors"]
    raw = subprocess.run([*command, "--raw", "12x8@25"], input=random.tobytes(), capture_output=True)
    assert raw.returncode == 0, raw.stderr
    made = np.frombuffer(raw.stdout, np.uint8).reshape(3, 16, 24, 3)
    assert np.array_equal(made, random.repeat(2, 1).repeat(2, 2))

    gray = np.arange(96, dtype=np.uint8).reshape(8, 12) + 60
    frame = b"FRAME\n" + gray.tobytes() + bytes([128]) * 96 * 2
    given = b"YUV4MPEG2 W12 H8 F30:1 Ip A1:1 C444\n" + frame * 2
    finished = subprocess.run(command, input=given, capture_output=True)
    assert finished.returncode == 0, finished.stderr
    header, *frames = finished.stdout.split(b"FRAME\n")
    assert header.startswith(b"YUV4MPEG2 W24 H16 F30:1 ")
    luma = np.frombuffer(frames[0][:384], np.uint8).reshape(16, 24)
    assert np.abs(luma.astype(int) - gray.repeat(2, 0).repeat(2, 1)).max() <= 1
    assert len(frames) == 2
    assert frames[0] == frames[1]


@pytest.mark.parametrize("raw", ["640x480", "0x480@25", "640x480@0", "640x480@25/0", "yuv:1x1@1", ""])
def test_raw_frames_need_their_size_and_rate(place: Path, raw: str, capsys) -> None:
    assert upscale("-", "-s", "2", "--raw", raw) == 2
    assert "the width, the height and the frames a second" in capsys.readouterr().err


def test_a_percent_sign_in_the_name_of_a_clip_is_no_number(place: Path, capsys) -> None:
    make_clip(place / "50%day.mp4", "mp4", times=TIMES[:2], size=(24, 16))
    assert upscale("50%day.mp4", "-s", "2") == 0
    assert capsys.readouterr().out == "50%day_x2.mp4\n"
    assert len(frames_of("50%day_x2.mp4")) == 2


def test_frames_and_events_do_not_share_standard_output(place: Path, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES[:2], size=(24, 16))
    assert upscale("in.mp4", "-s", "2", "-o", "-", "--json") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "standard output takes a clip or JSON; give -o a file, or leave out --json" in said.err


def test_what_an_ensemble_takes_is_reported(place: Path, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES[:2], size=(24, 16))
    assert upscale("in.mp4", "-s", "2", "--ensemble") == 0
    assert "takes eight times as long" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fps", "rate"), [("23.976", "24000/1001"), ("29.97", "30000/1001"), ("24", "24"), ("12.5", "25/2")]
)
def test_a_rate_of_television_is_exact(place: Path, fps: str, rate: str) -> None:
    for number in (1, 2):
        Image.new("RGB", (24, 16), (99 * number, 0, 0)).save(place / f"{number}.png")
    assert upscale("%d.png", "-s", "2", "-o", "out.mp4", "--fps", fps) == 0
    with open_clip(place / "out.mp4") as clip:
        assert clip.facts.frame_rate == Fraction(rate)


def test_a_rate_is_for_images(place: Path, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES[:2], size=(24, 16))
    assert upscale("in.mp4", "-s", "2", "--fps", "24") == 2
    assert "--fps 24 is for numbered images, and clips tell theirs; leave it out" in capsys.readouterr().err


def test_a_look_chooses_one_model_for_a_clip(place: Path, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES[:2], size=(96, 64), options={"crf": "45"})
    assert main(["upscale", "in.mp4", "-s", "2", *LOCAL, "--json"]) == 0
    done = json.loads(capsys.readouterr().out.splitlines()[1])
    assert done["need"]["kind"] in ("real", "clean")
    assert done["model"] == {"real": "tiny-real-x2", "clean": "tiny-x2"}[done["need"]["kind"]]


def test_inspect_describes_a_clip(place: Path, capsys) -> None:
    make_clip(place / "in.mkv", "matroska", times=TIMES, sound=Sound("aac"), rotation=90)
    assert main(["inspect", "in.mkv"]) == 0
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["clip"].strip() == "in.mkv"
    assert "h264, 64×48 pixels" in lines["pictures"]
    assert "12 frames" in lines["pictures"]
    assert "not evenly" in lines["pictures"]
    assert "8 bits (yuv420p)" in lines["samples"]
    assert "turned by" in lines["shape"]
    assert lines["audio"].strip() == "aac, deu"
    assert "pictures: " in lines["upscale"]
    (place / "broken.mp4").write_bytes(b"no clip")
    Image.new("RGB", (8, 8)).save("a.png")
    assert main(["inspect", "in.mkv", "broken.mp4", "a.png", "--json"]) == 1
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["inspected_clip", "failed", "inspected"]
    assert (events[0]["frames"], events[0]["streams"][1]["kind"]) == (12, "audio")
    assert events[0]["need"]["kind"] in ("clean", "real", "white")


FIELDS = 1 << 18 | 1 << 29  # flags of an encoder for interlaced frames


@pytest.mark.skipif(
    int(version("av").split(".")[0]) < 18,
    reason="PyAV tells the order of fields since 18, which Python 3.10 does not have",
)
@pytest.mark.parametrize(
    ("arguments", "is_kept"),
    [
        (["-o", "out.mp4"], True),
        (["-o", "out.mkv", "--codec", "ffv1"], True),
        (["-o", "out.mov", "--codec", "prores"], True),
        (["-o", "out.mkv", "--codec", "vp9"], False),
        (["-o", "out.mp4", "--deinterlace"], None),
    ],
)
def test_fields_stay_fields_where_the_codec_has_them(
    place: Path, arguments: list[str], is_kept: bool | None, capsys
) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES, size=(48, 32), flags=FIELDS)
    given = probe_clip(place / "in.mp4")
    assert (given.interlaced, given.field_order) == (True, "tt")
    save_nearest(place / "same.safetensors", 1)
    command = ["denoise", "in.mp4", *arguments, "--weights", "same.safetensors"]
    assert main([*command, *LOCAL]) == 0
    made = probe_clip(place / arguments[1])
    assert (made.interlaced, made.field_order == "tt") == (bool(is_kept), bool(is_kept))
    said = capsys.readouterr().err
    assert ("interlaced, so is the result" in said) == (is_kept is True)
    assert ("interlaced, the result is not, and keeps its combs" in said) == (is_kept is False)


def test_enlarged_fields_are_no_fields(place: Path, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES, size=(48, 32), flags=FIELDS)
    assert upscale("in.mp4", "-s", "2") == 0
    assert "the result is not, and keeps its combs; --deinterlace" in capsys.readouterr().err
    assert not probe_clip(place / "in_x2.mp4").interlaced


def test_a_dry_run_forecasts_frames_room_and_time(place: Path, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES, size=(48, 32))
    assert upscale("in.mp4", "-s", "2", "--dry-run") == 0
    first, _, said = capsys.readouterr().out.partition("\n")
    assert first == "double.safetensors on cpu"
    assert said.startswith("in.mp4 -> in_x2.mp4: 12 frames of 96×64, h264, by double.safetensors, each from ")
    assert "on the disk, about " in said
    assert sorted(path.name for path in place.iterdir()) == ["double.safetensors", "in.mp4"]
    assert upscale("in.mp4", "-s", "2", "--resume") == 0
    size = sum(map(len, read_packets(place / "in_x2.mp4").data))
    capsys.readouterr()
    assert upscale("in.mp4", "-s", "2", "--dry-run", "--json", "--overwrite") == 0
    first, plan, total = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["event"], first["model"], first["files"]) == ("plan", "double.safetensors", 1)
    assert (total["event"], total["disk"], total["failed"]) == ("plan_sum", plan["disk"], 0)
    assert (plan["event"], plan["frames"], plan["replaces"], plan["codec"]) == ("plan_clip", 12, True, "h264")
    assert size / 3 < plan["disk"] < 3 * size + 4096
    assert plan["seconds"] > 0
    assert upscale("in.mp4", "-s", "2", "--dry-run", "--resume") == 0
    assert "in.mp4 -> in_x2.mp4: done before\n" in capsys.readouterr().out
    assert upscale("-", "-s", "2", "--raw", "8x8@25", "--dry-run") == 2
    make_clip(place / "one.mp4", "mp4", times=[0], size=(48, 32))
    assert upscale("one.mp4", "-s", "2", "--dry-run") == 0
    assert "one_x2.mp4: 1 frame of 96×64" in capsys.readouterr().out
    assert main(["inspect", "one.mp4"]) == 0
    assert ", 1 frame, " in capsys.readouterr().out


def test_workers_share_the_tiles_of_each_frame(place: Path) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES[:3], size=(64, 48))
    tiles = ("--tile", "32", "--overlap", "8")
    assert upscale("in.mp4", "-s", "2", "-o", "one.mp4", *tiles) == 0
    command = ["upscale", "in.mp4", "-s", "2", "-o", "two.mp4", "--offline", "--workers", "2", *tiles]
    assert main([*command, "--weights", "double.safetensors"]) == 0
    assert read_packets(place / "two.mp4") == read_packets(place / "one.mp4")


@pytest.mark.parametrize(
    ("at", "number"), [("0", 0), ("0.09", 2), ("00:00:00.18", 4), ("0.41", 9), (None, 4)]
)
def test_a_preview_shows_the_frame_of_a_time(place: Path, monkeypatch, at: str | None, number: int) -> None:
    make_clip(place / "in.mkv", "matroska", times=TIMES, size=(48, 32))
    shown = []
    monkeypatch.setattr(
        clips_command, "show_preview", lambda *given: shown.append((read(given[1][0]), given))
    )

    def read(source: Any) -> np.ndarray:
        return np.array(Image.open(source.path)) / 255

    assert upscale("in.mkv", "-s", "2", "--preview", *([] if at is None else ["--at", at])) == 0
    [(pixels, given)] = shown
    frames = frames_of("in.mkv")
    errors = [np.abs(frame.pixels - pixels).max() for frame in frames]
    assert abs(int(np.argmin(errors)) - number) <= (at is None)
    assert given[4].name == "in.mkv"


def test_a_preview_behind_the_cut_of_a_clip_says_which_frame_it_shows(place: Path, capsys) -> None:
    make_clip(place / "whole.mkv", "matroska", size=(48, 32), options={"g": "5", "bf": "0"})
    data = Path("whole.mkv").read_bytes()
    Path("in.mkv").write_bytes(data[: len(data) // 2])
    last = frames_of("in.mkv")[-1]
    with open_clip(Path("in.mkv")) as clip:
        assert clip.facts.duration is not None
        asked, end = float(clip.facts.duration) - 0.1, float(clip.time_of(last))
    assert asked > end + 0.1
    assert upscale("in.mkv", "-s", "2", "--preview", "--at", f"{asked:.3f}") == 0
    words = f"has no frame at {asked:.5g} s; its last one, at {end:.5g} s, is shown"
    assert words in capsys.readouterr().err
    assert f"in.mkv at {end:.2f} s" in Path("in_preview.html").read_text("utf-8")


def test_clips_that_are_not_begun_are_counted(place: Path, capsys) -> None:
    make_clip(place / "b.mp4", "mp4", times=TIMES[:3], size=(48, 32))
    Path("a.mp4").write_bytes(b"no clip")
    assert upscale("a.mp4", "b.mp4", "-s", "2", "--fail-fast", "-o", "out/") == 1
    assert "mambair: 1 not begun; --resume does them" in capsys.readouterr().err.splitlines()


def test_a_preview_of_a_clip_is_a_page(place: Path, capsys) -> None:
    make_clip(place / "in.mp4", "mp4", times=TIMES, size=(48, 32))
    assert upscale("in.mp4", "-s", "2", "--preview", "-q") == 0
    assert capsys.readouterr().out == "in_preview.html\n"
    page = Path("in_preview.html").read_text("utf-8")
    assert "<html" in page
    assert "in.mp4 at 0.10 s" in page  # of the frame that is shown a third of the way
    assert upscale("in.mp4", "-s", "2", "--preview", "-q") == 0  # a page of the same clip is made anew
    long = Path(f"{'y' * 240}.mp4")
    Path("in.mp4").rename(long)
    assert upscale(str(long), "-s", "2", "--preview", "-q") == 0
    Path("pages").mkdir()
    assert upscale(str(long), "-s", "2", "--preview", "-q", "-o", "pages") == 0
    assert [path.name for path in Path("pages").iterdir()] == [path.name for path in Path().glob("y*.html")]
    long.rename("in.mp4")
    for _ in range(2):
        assert upscale("in.mp4", "-s", "2", "--preview", "-q", "-o", "page.html") == 0
    capsys.readouterr()
    make_clip(place / "large.mp4", "mp4", times=TIMES[:3], size=(640, 480))
    assert main(["upscale", "large.mp4", "-s", "2", "--preview", "--at", "0.04", *LOCAL]) == 0
    said = capsys.readouterr().err
    assert "large.mp4 at 0.03 s: showing the part" in said
    assert main(["upscale", "large.mp4", "-s", "2", "--preview", "-o", "page.html", *LOCAL]) == 2
    assert (
        "cannot write page.html: it shows other pictures; --overwrite replaces it" in capsys.readouterr().err
    )
    Path("link.html").symlink_to("in.mp4")
    for given, code, why in (
        (("--at", "99"), 1, "cannot show in.mp4 at 99 s: it ends after 0.5"),
        (
            ("-o", "link.html", "--overwrite"),
            2,
            "cannot write link.html: it is an input; choose another name",
        ),
        (("--at", "soon"), 2, "--at is soon; it must be a time, such as 83.5 or 00:01:23.5"),
    ):
        assert upscale("in.mp4", "-s", "2", "--preview", "--overwrite", *given) == code
        assert why in capsys.readouterr().err
