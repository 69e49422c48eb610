"""What goes wrong with a command: one line on stderr, an exit code, and nothing half done."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import torch
from error_lines import is_one_line
from file_limit import WITHOUT_BYTECODE, limited_files
from folders import list_files
from forked import run_forked, start_forked
from pictures import load_image, noise, save_photo
from PIL import Image

from mambair_cli.networks import MambaIR

# Arguments


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["upscale", "nothing.png", "--weights", "{x4}"], 2),
        (["upscale", "in.png", "in.png", "nothing.png", "--weights", "{x4}"], 2),
        (["upscale", "in.png/nothing.png", "--weights", "{x4}"], 2),
        (["upscale", "nothing.mp4", "--weights", "{x4}"], 2),
        (["upscale", "nothing/%06d.png", "-o", "out.mp4", "--weights", "{x4}"], 2),
        (["upscale", "nothing", "--watch", "--weights", "{x4}"], 2),
        (["inspect", "nothing.png"], 2),
        (["inspect", "in.png", "nothing.png"], 2),
        (["inspect", "nothing.mp4"], 2),
        (["upscale", "in.png", "--weights", "missing.pth"], 3),
        (["upscale", "in.png", "--weights", "in.png"], 3),
        (["upscale", "in.png", "--weights", "{same}"], 3),
        (["upscale", "in.png", "--model", "tiny-x2", "-s", "4"], 3),
        (["denoise", "in.png", "--weights", "{x4}"], 3),
        (["upscale", "in.png", "--model", "mambairv2-ligth-x4"], 3),
        (["upscale", "in.png", "--model", "mambairv2-light-x4"], 3),
        (["denoise", "in.png", "--real", "--sigma", "3"], 2),
        (["upscale", "empty", "--weights", "{x4}"], 2),
        (["upscale", "in.png", "-s", "7"], 2),
        (["upscale", "in.png", "--weights", "{x4}", "-o", "out.xyz"], 2),
        (["upscale", "in.png", "--weights", "{x4}", "-o", "out"], 2),
        (["upscale", "in.png", "--weights", "{x4}", "-o", "out.png", "--format", "webp"], 2),
        (["upscale", "in.png", "--weights", "{x4}", "-o", "in.png"], 2),
        (["upscale", "in.png", "empty/..", "--weights", "{x4}", "-o", "in.png"], 2),
        (["upscale", "-", "--weights", "{x4}", "--json"], 2),
        (["upscale", "", "--weights", "{x4}"], 2),
        (["upscale", "in.png", "--weights", "{x4}", "-o", ""], 2),
        (["upscale", "in.png", "--weights", "{x4}", "--null"], 2),
        (["upscale", "in.png", "--weights", "{x4}", "--device", "cuda", "--workers", "2"], 2),
        (["upscale", "in.png", "--weights", "{x4}", "--format", "png", "--quality", "80"], 2),
        (["upscale", "in.png", "--weights", "{x4}", "-o", "out.jpg", "--depth", "16"], 2),
        (["upscale", "in.png", "--megapixels", "nan"], 2),
        (["upscale", "in.png", "--megapixels", "inf"], 2),
        (["upscale", "in.png", "-s", "nan"], 2),
        (["denoise", "in.png", "--weights", "{same}", "--sigma", "25"], 2),
        (["upscale", "in.png", "--weights", "{x4}", "-o", "in.png/out.png"], 1),
        (["upscale", "in.png", "--weights", "{x4}", "--device", "toaster"], 2),
        (["upscale", "in.png", "--weights", "{x4}", "--tile", "32", "--overlap", "32"], 2),
        (["upscale", "in.png", "--weights", "{x4}", "--nonsense"], 2),
        (["upscale", "in.png", "empty", "-o", "-"], 2),
        (["upscale"], 2),
        (["upscale", "-", "--weights", "{x4}", "-o", "out.png", "--resume"], 2),
        (["sharpen", "in.png"], 2),
        (["models", "show", "nobody"], 3),
        (["models", "path", "mambairv2-light-x4"], 3),
        (["models", "verify", "mambairv2-light-x4"], 3),
    ],
)
def test_what_cannot_be_is_one_line_and_an_exit_code(run, weights, arguments, code):
    save_photo("in.png")
    Path("empty").mkdir()
    names = {name: str(weights / f"{name}.safetensors") for name in ("x4", "same", "gray")}
    got, out, err = run(*(argument.format(**names) for argument in arguments))
    assert got == code
    assert out == []
    assert len([line for line in err.splitlines() if not line.startswith("mambair: using")]) == 1
    assert "mambair: error: " in err
    assert list_files() == ["in.png"]


def test_messages_name_what_was_typed(run):
    save_photo("in.png")
    _, _, err = run("upscale", "in.png", "--height", "20", "--megapixels", "2")
    assert "asked for more than once: --height, --megapixels; give one of them" in err
    _, _, err = run("denoise", "in.png", "--sigma", "25", "--model", "mambair-denoise-50")
    assert "--sigma 25 chooses a model, and --model mambair-denoise-50 is one; leave one out" in err


def test_a_name_that_looks_like_an_option_gets_a_hint(run, weights):
    save_photo("-dash.png")
    code, _, err = run("upscale", "-dash.png", "--weights", weights / "x4.safetensors")
    assert code == 2
    assert is_one_line(err)
    assert err.endswith("; to name the file, write ./-dash.png\n")
    save_photo("-a dash.png")
    assert run("upscale", "-a dash.png")[2].endswith("; to name the file, write './-a dash.png'\n")
    code, _, _ = run("upscale", "./-dash.png", "--weights", weights / "x4.safetensors")
    assert code == 0


def test_a_name_cannot_break_an_error_into_lines(run, weights):
    code, _, err = run("upscale", "no\n\x1bsuch.png", "--weights", weights / "x4.safetensors", "-q")
    assert code == 2
    assert is_one_line(err)
    assert "\x1b" not in err


# Files


def test_one_bad_file_costs_itself_alone(run, weights):
    save_photo("a.png")
    save_photo("c.png")
    Path("b.png").write_text("this is text")
    code, out, err = run("upscale", "a.png", "b.png", "c.png", "--weights", weights / "x4.safetensors", "-q")
    assert code == 1
    assert out == ["a_x4.png", "c_x4.png"]
    assert "b.png" in err


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif", ".avif", ".bmp", ".ppm", ".jp2"])
def test_a_wrong_suffix_changes_nothing(restore: Any, suffix: str) -> None:
    format = {".jpg": "JPEG", ".tif": "TIFF", ".jp2": "JPEG2000"}.get(suffix, suffix[1:].upper())
    Image.fromarray(noise(48, 64, 3)).save("in.dat", format)
    os.rename("in.dat", "in.png")
    assert restore("denoise", "same", "in.png", "-o", "out.tif")[0] == 0
    assert load_image("out.tif").size == (64, 48)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif", ".avif", ".bmp", ".ppm", ".jp2"])
@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.9])
def test_a_file_cut_short_is_one_line_and_no_result(restore: Any, suffix: str, part: float) -> None:
    save_photo(f"in{suffix}", size=(64, 64))
    data = Path(f"in{suffix}").read_bytes()
    Path(f"in{suffix}").write_bytes(data[: int(len(data) * part)])
    code, out, err = restore("denoise", "same", f"in{suffix}", "-o", "out.png")
    assert (code, out) == (1, [])
    assert len(err.splitlines()) == 1
    assert err.startswith(f"mambair: error: cannot read in{suffix}: ")
    assert os.listdir() == [f"in{suffix}"]


def test_places_that_cannot_be_are_one_line_each(restore: Any, tmp_path: Path) -> None:
    save_photo("in.png", size=(64, 48))
    os.symlink("gone.png", "broken.png")
    os.symlink("other.png", "circle.png")
    os.symlink("circle.png", "other.png")
    os.mkdir("folder.png")
    long = "x" * 252 + ".png"
    for arguments, part in (
        (["broken.png", "-o", "out.png"], "it is a link to gone.png, which is missing"),
        (["circle.png", "-o", "out.png"], "its links lead in a circle"),
        (["circle.png/in.png", "-o", "out.png"], "its links lead in a circle"),
        (["in.png", "-o", long], "its name is too long; shorten it"),
        ([long, "-o", "out.png"], "its name is too long; shorten it"),
        (["in.png", "-o", "in.png/out.png"], "in.png is no folder; choose another folder with -o"),
        (["in.png", "-o", "/proc/none/out.png"], "/proc/none"),
    ):
        code, out, err = restore("denoise", "same", *arguments)
        assert (code, out) == (1, [])
        assert len(err.splitlines()) == 1
        assert part in err
    code, _, err = restore("denoise", "same", "folder.png")
    assert code == 2
    assert "no images in the folder: folder.png" in err


def test_names_as_long_as_names_can_be(restore: Any) -> None:
    name = "é" * 125 + "x.png"  # 255 bytes
    save_photo(name)
    assert restore("denoise", "same", name, "-o", "out/")[0] == 0
    assert os.listdir("out") == [name]
    code, _, err = restore("denoise", "same", name)  # with the mark it is too long
    assert code == 1
    assert "its name is too long; shorten it" in err


# Limits


def test_more_pixels_than_allowed_are_refused(restore: Any) -> None:
    save_photo("in.png", size=(64, 48))
    code, _, err = restore("denoise", "same", "in.png", "--max-pixels", 64 * 48 - 1)
    assert code == 1
    assert "it has 64×48 pixels, more than 3071; cut it into parts, or allow more with --max-pixels" in err
    assert restore("denoise", "same", "in.png", "--max-pixels", 64 * 48)[0] == 0


def test_a_limit_of_file_sizes_is_exit_1(restore: Any) -> None:
    save_photo("in.png", size=(200, 200))
    with limited_files(20_000):
        code, out, err = restore("denoise", "same", "in.png", "-o", "out.tif")
    assert (code, out) == (1, [])
    assert "larger than files may be here" in err
    assert os.listdir() == ["in.png"]


def test_a_limit_of_file_sizes_holds_for_standard_output(tmp_path: Path, weights: Path) -> None:
    save_photo(tmp_path / "in.png", size=(200, 200))
    command = 'ulimit -f 1; "$0" -m mambair_cli denoise in.png -o - -q --weights "$1" > out.png'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, str(weights / "same.safetensors")],
        cwd=tmp_path,
        env={**os.environ, **WITHOUT_BYTECODE},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "mambair: error: cannot write -: File too large; "
        "write where larger files may be, or raise `ulimit -f`\n",
    )


def test_images_that_are_not_begun_are_counted(run: Any, weights: Path) -> None:
    names = ("a.png", "b.png", "c.png")
    for name in names:
        Path(name).write_text("this is text")
    code, _, err = run("denoise", *names, "--fail-fast", "--weights", weights / "same.safetensors")
    assert code == 1
    assert err.endswith("mambair: 2 not begun; --resume does them\n")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif"])
def test_a_full_disk_is_exit_1_and_leaves_nothing(restore: Any, small_disk: Path, suffix: str) -> None:
    save_photo("in.png", size=(300, 300))
    code, out, err = restore("denoise", "same", "in.png", "-o", small_disk / f"out{suffix}", "--quality", 100)
    assert (code, out) == (1, [])
    assert "the disk is full; free some space or write elsewhere" in err
    assert len(err.splitlines()) == 1
    assert os.listdir(small_disk) == []


def test_a_full_disk_for_standard_output_is_exit_1(
    restore: Any, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photo("in.png", size=(300, 300))
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    code, out, err = restore("denoise", "same", "in.png", "-o", "-")
    assert (code, out) == (1, [])
    assert "cannot write -: No space left" in err


BUDGET = """
import resource, sys
import torch
from mambair_cli.checkpoints.load import load_network
from mambair_cli.cli import main
from mambair_cli.images import read_picture
torch.set_num_threads(1)  # tiles side by side take more or less, by chance
code = main(sys.argv[1:])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_mebibytes(folder: Path, *arguments: object) -> int:
    done = run_forked("-c", BUDGET, *arguments, cwd=folder)
    code, peak = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stderr
    return int(peak)


@pytest.mark.skipif(sys.platform != "linux", reason="counts in kibibytes of Linux")
def test_memory_is_that_of_the_rows_at_work(tmp_path: Path, weights: Path) -> None:
    noise = (pyvips.Image.gaussnoise(512, 512, mean=128, sigma=20, seed=1) * 257).cast("ushort")
    for name, times in (("low", 4), ("tall", 9)):
        image = noise.replicate(1, times)
        image = image.bandjoin([image, image]).copy(interpretation="rgb16")
        image.write_to_file(str(tmp_path / f"{name}.tif"))
    options = ["--weights", weights / "x4.safetensors", "-q"]
    low = peak_mebibytes(tmp_path, "upscale", "low.tif", *options)
    tall = peak_mebibytes(tmp_path, "upscale", "tall.tif", *options)
    # The result has 21 megapixels more: 120 MiB of samples, 240 MiB of floats. Without them it takes 15 more,
    # and allocators take up to 20 more or less from one time to the next.
    assert tall - low < 80
    with pyvips.Image.new_from_file(str(tmp_path / "tall_x4.tif")) as image:
        assert (image.width, image.height) == (2048, 18432)


def test_running_out_of_memory_is_said_and_the_picture_is_made(run, weights, monkeypatch):
    forward = MambaIR.forward

    def cramped(net, x, **options):
        if x.shape[0] * x.shape[2] * x.shape[3] > 50 * 50:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(net, x, **options)

    monkeypatch.setattr(MambaIR, "forward", cramped)
    pixels = save_photo("in.png", size=(100, 90))
    code, out, err = run("upscale", "in.png", "--weights", weights / "x4.safetensors")
    assert (code, out) == (0, ["in_x4.png"])
    assert "in.png: out of memory at first; done as 100×90: 3×3 tiles of 44×41, overlap 16" in err
    np.testing.assert_array_equal(np.array(load_image("in_x4.png")), pixels.repeat(4, 0).repeat(4, 1))


def test_running_out_of_memory_midway_begins_anew(restore: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, calls = MambaIR.forward, Counter()

    def failing(net: MambaIR, x: torch.Tensor, **options: Any) -> torch.Tensor:
        calls[net] += 1
        if calls[net] == 4:  # rows are in the file by then
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(net, x, **options)

    monkeypatch.setattr(MambaIR, "forward", failing)
    values = noise(200, 60, 3)
    for suffix in (".png", ".tif"):
        Image.fromarray(values).save(f"in{suffix}")
        code, out, _ = restore("upscale", "x2", f"in{suffix}", "--tile", 64, "--json")
        assert code == 0
        assert json.loads(out[1])["shrunk"]
        np.testing.assert_array_equal(
            np.asarray(load_image(f"in_x2{suffix}")), values.repeat(2, 0).repeat(2, 1)
        )


# The end


def test_an_interrupt_leaves_nothing_half_done(tmp_path, weights):
    save_photo(tmp_path / "in.png", size=(1500, 1500))
    command = ["-m", "mambair_cli", "upscale", "in.png", "--weights", weights / "x4.safetensors"]
    with start_forked(*command, cwd=tmp_path) as process:
        assert process.stderr
        assert "using" in process.stderr.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == "mambair: interrupted\n"
    assert list_files(tmp_path) == ["in.png"]


def test_a_bug_of_ours_is_not_hidden(run, weights, monkeypatch):
    save_photo("in.png")
    monkeypatch.setattr(MambaIR, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("upscale", "in.png", "--weights", weights / "x4.safetensors")
