"""The dry run: what a run would do, and what would fail, without a result."""

import json
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pyvips
from error_lines import is_one_line
from folders import list_files
from huggingface_hub import constants
from pictures import save_photo
from PIL import Image

from mambair_cli.checkpoints import hub
from mambair_cli.checkpoints.source import local_path
from mambair_cli.runs.journal import Journal


def test_dry_run_says_and_writes_nothing(run, weights, monkeypatch):
    save_photo("photos/a.png", size=(300, 200))
    code, out, _ = run("upscale", "photos", "--weights", weights / "x4.safetensors", "--dry-run")
    assert code == 0
    assert out[1].startswith("photos/a.png -> photos_x4/a.png: 1200×800, from 300×200: ")
    assert list_files() == ["photos/a.png"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    code, out, _ = run("upscale", "photos", "--dry-run", "--json", "--model", "mambairv2-large-x2")
    plan, file, total = map(json.loads, out)
    assert (file["seconds"], total["seconds"]) == (None, None)  # the model is not here
    assert (plan["model"], plan["on_this_machine"]) == ("mambairv2-large-x2", False)
    assert (file["width"], file["height"], file["output"]) == (600, 400, "photos_x2/a.png")


@pytest.mark.parametrize("way", ["option", "variable"])
def test_without_the_hub_the_dry_run_plans_the_models_that_the_run_takes(run, monkeypatch, way):
    save_photo("in.png", size=(24, 24))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", way == "variable")
    monkeypatch.setattr(hub, "_find", lambda model: (local_path(model), None))  # the cache is empty
    command = ["upscale", "in.png", "-s", 4, "--json", "--device", "cpu"]
    command += ["--offline"] if way == "option" else []
    code, plan, said = run(*command, "--dry-run")
    assert code == 0
    planned = json.loads(plan[0])
    assert (planned["model"], planned["on_this_machine"]) == ("tiny-x4", True)
    code, lines, said_by_run = run(*command)
    assert code == 0
    done = next(line for line in map(json.loads, lines) if line["event"] == "done")
    assert done["model"] in (planned["model"], *planned["other_models"])
    assert ("using the built-in model" in said) == ("using the built-in model" in said_by_run)
    code, _, error = run(*command, "--dry-run", "--model", "mambairv2-light-x4")
    assert code == 3
    assert "is not in the cache, and this is offline" in error


def test_dry_run_finds_what_would_fail(run, weights):
    Path("bad.png").write_text("text")
    code, _, err = run("upscale", "bad.png", "--weights", weights / "x4.safetensors", "--dry-run")
    assert code == 1
    assert is_one_line(err)


@pytest.mark.skipif(sys.platform != "linux", reason="knows no folder that nobody can write")
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
@pytest.mark.parametrize("output", ["/proc/sys/out", "notes.txt/out"])
def test_a_folder_that_cannot_be_made_fails_in_a_run_and_in_a_dry_one(run, weights, output, options):
    save_photo("photos/a.png")
    Path("notes.txt").write_text("no folder")
    arguments = ("photos", "--weights", weights / "x4.safetensors", "--json", "-q", "-o", output)
    code, out, err = run("upscale", *arguments, *options)
    assert code == 1
    assert is_one_line(err)
    failed = json.loads(out[1])
    assert failed["event"] == ("plan_failed" if options else "failed")
    why = {
        "/proc/sys/out": "into the folder /proc/sys: ",
        "notes.txt/out": "results: notes.txt is no folder; ",
    }
    assert failed["message"].startswith(f"cannot write {why[output]}")
    assert failed["message"].endswith("choose another folder with -o")


@pytest.mark.parametrize("alpha", [255, 100])
def test_a_dry_run_says_that_transparency_may_fail(run, weights, alpha):
    Path("in").mkdir()
    Image.new("RGBA", (24, 16), (9, 9, 9, alpha)).save("in/a.png")
    command = ("upscale", "in", "--format", "jpeg", "--weights", weights / "x2.safetensors", "--dry-run")
    says = "it fails if a pixel is transparent: jpeg has no room for transparency; png, webp and tiff keep it"
    code, _, err = run(*command)
    assert code == 0
    assert f"mambair: warning: in/a.png: {says}" in err
    code, out, _ = run(*command, "--json")
    (event,) = (event for line in out if (event := json.loads(line))["event"] == "plan_file")
    assert says in event["warnings"][0]
    for options in (["--background", "white"], ["--format", "webp"]):
        assert "transparent" not in run(*command, *options)[2]
    code, _, err = run(*command[:-1])
    assert code == (0 if alpha == 255 else 1)
    assert "it fails" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="does not tell")
def test_a_dry_run_sees_that_another_run_is_at_work(run, weights):
    save_photo("photos/a.png")
    arguments = ("upscale", "photos", "--weights", weights / "x4.safetensors", "--dry-run")
    with closing(Journal(Path("photos_x4"), [Path("photos_x4/a.png")])):
        assert run(*arguments, "-q")[2] == ""
        code, out, err = run(*arguments)
        assert code == 0
        assert len(err.splitlines()) == 1
        assert "another run is writing the same results into photos_x4; this one would wait" in err
        assert len(out) == 3
    with closing(Journal(Path("photos_x4"), [Path("photos_x4/b.png")])):
        code, _, err = run(*arguments)
        assert (code, err) == (0, "")
    Path("photos_x4/.mambair.lock").touch()  # as a run that was killed leaves it
    assert run(*arguments)[0] == 0


def test_the_dry_run_says_memory_disk_and_time_from_headers(restore: Any) -> None:
    save_photo("in.png", size=(64, 48))
    data = Path("in.png").read_bytes()
    Path("cut.png").write_bytes(data[: len(data) // 2])  # an error for everything that decodes it
    code, out, err = restore("upscale", "x2", "in.png", "cut.png", "--dry-run", "--json", "--scale", 1.5)
    assert (code, err) == (0, "")
    plan, first, second, total = map(json.loads, out)
    assert plan["on_this_machine"]
    assert (first["width"], first["height"]) == (96, 72)
    assert 96 * 72 * 3 < first["disk"] == second["disk"] < 96 * 72 * 3 + 8192
    assert first["seconds"] > 0
    assert first["memory"] > 0
    assert total["disk"] == 2 * first["disk"]
    assert total["network_memory"] > 10**8
    assert sorted(os.listdir()) == ["cut.png", "in.png"]
    code, out, _ = restore("upscale", "x2", "in.png", "--dry-run")
    assert out[-1].startswith("in all: ")


def test_the_dry_run_of_a_vast_image_reads_its_header_alone(restore: Any) -> None:
    vast = pyvips.Image.black(30000, 20000, bands=3).copy(interpretation="srgb")
    vast.tiffsave("vast.tif", compression="deflate")
    code, out, _ = restore("upscale", "x2", "vast.tif", "--dry-run", "--json")
    assert code == 0
    file = json.loads(out[1])
    assert (file["width"], file["height"]) == (60000, 40000)
    assert 1 < file["disk"] / (60000 * 40000 * 3) < 1.02
    assert file["memory"] < 2**31
