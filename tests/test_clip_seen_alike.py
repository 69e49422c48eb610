"""Commands that only look at a clip see the same pictures as its run, and tell the same damage."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra video")

from checkpoints import save_nearest
from clips import av, make_clip

from mambair_cli.cli import clips as clips_command
from mambair_cli.cli import main
from mambair_cli.images import read_picture
from mambair_cli.video import open_clip

LOCAL = ("--offline", "--device", "cpu")


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with a clip of several slices, many of whose frames are broken."""
    monkeypatch.chdir(tmp_path)
    options = {"preset": "ultrafast", "x264-params": "slices=4:keyint=12", "crf": "5"}
    times = [3003 * number for number in range(18)]
    make_clip(tmp_path / "in.mp4", "mp4", times=times, options=options, size=(96, 64))
    data = bytearray((tmp_path / "in.mp4").read_bytes())
    random = np.random.default_rng(1)
    with av.open("in.mp4") as container:
        for packet in [packet for packet in container.demux(video=0) if packet.size][2::3]:
            for place in random.integers(packet.size // 3, packet.size, 4):
                data[packet.pos + place] ^= 0xFF
    (tmp_path / "in.mp4").write_bytes(data)
    return tmp_path / "in.mp4"


def events(capsys: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_look_at_a_broken_clip_reports_what_a_run_reports(broken: Path, capsys) -> None:
    assert main(["inspect", "in.mp4", "--json"]) == 0
    [inspected] = events(capsys)
    assert main(["upscale", "in.mp4", "-s", "2", *LOCAL, "--dry-run", "--json"]) == 0
    planned = next(event for event in events(capsys) if event["event"] == "plan_clip")
    assert main(["upscale", "in.mp4", "-s", "2", *LOCAL, "--json"]) == 0
    done = next(event for event in events(capsys) if event["event"] == "done")
    assert len(inspected["warnings"]) > 3
    assert inspected["warnings"] == planned["warnings"] == done["warnings"]
    assert (inspected["need"], planned["model"]) == (done["need"], done["model"])
    assert main(["inspect", "in.mp4"]) == 0
    assert f"warning: {done['warnings'][0]}" in capsys.readouterr().err


def test_a_preview_shows_a_broken_frame_as_a_run_sees_it(broken: Path, monkeypatch, capsys) -> None:
    shown = []
    show = clips_command.show_preview
    monkeypatch.setattr(
        clips_command,
        "show_preview",
        lambda *given: (shown.append(read_picture(given[1][0].path).pixels), show(*given)),
    )
    with open_clip(broken) as clip:
        wanted = [frame for frame in clip.frames() if frame.concealed][1]
        time = float(wanted.pts * clip.facts.time_base) + 0.01
    preview = ["upscale", "in.mp4", "-s", "2", *LOCAL, "--preview", "--at", f"{time:.3f}"]
    assert main([*preview, "--json"]) == 0
    assert np.abs(shown[0] / 255 - wanted.pixels).max() <= 1 / 255
    [event] = events(capsys)
    assert any(
        f"the frame of in.mp4 at {time:.3g} s is broken" in sentence for sentence in event["warnings"]
    ), event["warnings"]
    assert main(["inspect", "in.mp4", "--json"]) == 0
    assert events(capsys)[0]["need"] == event["need"]  # of the frames that a run looks at
    assert main([*preview, "--overwrite"]) == 0
    assert "is broken; what is missing is concealed" in capsys.readouterr().err


def test_a_preview_of_a_dark_clip_is_not_stretched_as_the_clip_is_not(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    times = [3003 * number for number in range(3)]
    dark = {"crf": "0", "preset": "ultrafast"}
    make_clip(tmp_path / "in.mkv", "matroska", pix_fmt="yuv420p10le", times=times, options=dark)
    with open_clip(tmp_path / "in.mkv") as clip:
        frame = next(clip.frames())
    monkeypatch.setattr(
        "mambair_cli.video.clip.Clip.frame_at", lambda clip, time: type(frame)(0, 0, 1, frame.pixels / 20)
    )
    assert main(["denoise", "in.mkv", *LOCAL, "--model", "tiny-denoise", "--preview", "--json"]) == 0
    said = capsys.readouterr()
    assert "stretched" not in said.err + said.out


@pytest.mark.parametrize("format", ["mp4", "matroska", "mpegts"])
def test_what_is_cut_off_is_reported_before_a_run(format: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    name = {"mp4": "in.mp4", "matroska": "in.mkv", "mpegts": "in.ts"}[format]
    options = {"movflags": "faststart"} if format == "mp4" else {}
    times = [3003 * number for number in range(40)]
    make_clip(tmp_path / "whole", format, times=times, size=(96, 64))
    with av.open("whole") as whole, av.open(name, "w", format=format, options=options) as copy:
        stream = copy.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
    weights = save_nearest(tmp_path / "double.safetensors", 2)
    command = ["upscale", name, "-s", "2", *LOCAL, "--weights", str(weights), "-o", "out.mkv", "--json"]
    assert main([*command, "--dry-run"]) == 0
    _, planned, _ = events(capsys)
    assert main(["inspect", name, "--json"]) == 0
    [inspected] = events(capsys)
    assert main(command) == 0
    _, done, _ = events(capsys)
    assert planned["frames"] == inspected["frames"] == done["frames"] < len(times)
    missing = [each for each in done["warnings"] if "missing" in each or "cut off" in each]
    assert (missing != []) == (format != "mpegts")  # which tells no length
    assert [each for each in planned["warnings"] if each in missing] == missing
    assert [each for each in inspected["warnings"] if each in missing] == missing


@pytest.mark.parametrize("at", ["0", "0.3", "0.9"])
def test_a_frame_of_a_clip_with_one_keyframe_is_found(at: str, tmp_path: Path) -> None:
    options = {"preset": "ultrafast", "g": "9999", "bf": "2"}
    make_clip(tmp_path / "in.ts", "mpegts", options=options)
    with open_clip(tmp_path / "in.ts") as clip:
        shown = clip.frame_at(Fraction(at))
        assert np.array_equal(shown.pixels, next(clip.frames(shown.number)).pixels)
