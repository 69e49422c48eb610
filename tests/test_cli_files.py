"""Which files a command reads, and where it writes the results."""

import io
import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from error_lines import is_one_line
from folders import list_files
from pictures import load_image, save_photo
from PIL import Image

from mambair_cli.images.source import Source
from mambair_cli.runs.naming import name_targets


def test_upscale_writes_next_to_the_input_and_says_what_with(run, weights):
    pixels = save_photo("in.png")
    code, out, err = run("upscale", "in.png", "--weights", weights / "x4.safetensors")
    assert code == 0
    assert out == ["in_x4.png"]
    assert "using x4.safetensors on cpu" in err
    np.testing.assert_array_equal(np.array(load_image("in_x4.png")), pixels.repeat(4, 0).repeat(4, 1))
    assert list_files() == ["in.png", "in_x4.png"]


@pytest.mark.parametrize(("command", "suffix"), [("denoise", "_denoised"), ("dejpeg", "_dejpeg")])
def test_the_other_tasks_have_names_of_their_own(run, weights, command, suffix):
    pixels = save_photo("in.png")
    code, out, _ = run(command, "in.png", "--weights", weights / "same.safetensors")
    assert (code, out) == (0, [f"in{suffix}.png"])
    np.testing.assert_array_equal(np.array(load_image(out[0])), pixels)


def test_a_folder_is_mirrored_with_its_tree(run, weights):
    for name in ("a.png", "sub/b.png", "sub/deep/c.jpg", ".hidden/d.png", ".e.png"):
        save_photo(f"photos/{name}")
    Path("photos/notes.txt").write_text("no image")
    code, out, _ = run("upscale", "photos", "--weights", weights / "x4.safetensors", "-q")
    assert code == 0
    assert sorted(out) == ["photos_x4/a.png", "photos_x4/sub/b.png", "photos_x4/sub/deep/c.jpg"]
    assert list_files("photos_x4") == ["a.png", "sub/b.png", "sub/deep/c.jpg"]


def test_the_current_folder_is_mirrored_next_to_it(run, weights, tmp_path, monkeypatch):
    save_photo("photos/a.png")
    monkeypatch.chdir(tmp_path / "photos")
    code, _, _ = run("upscale", ".", "--weights", weights / "x4.safetensors")
    assert code == 0
    assert list_files(tmp_path / "photos_x4") == ["a.png"]


def test_an_output_folder_keeps_the_names(run, weights):
    save_photo("a.png")
    save_photo("tree/x/b.png")
    code, _, _ = run("upscale", "a.png", "tree", "--weights", weights / "x4.safetensors", "-o", "out")
    assert code == 0
    assert list_files("out") == ["a.png", "x/b.png"]


def test_an_output_file_sets_the_format(run, weights):
    save_photo("a.png")
    code, _, _ = run("upscale", "a.png", "--weights", weights / "x4.safetensors", "-o", "new/b.jpg")
    assert code == 0
    assert load_image("new/b.jpg").format == "JPEG"


def test_format_sets_the_suffix_too(run, weights):
    save_photo("a.png")
    code, out, _ = run("upscale", "a.png", "--weights", weights / "x4.safetensors", "--format", "webp")
    assert (code, out) == (0, ["a_x4.webp"])
    assert load_image("a_x4.webp").format == "WEBP"


def test_a_pattern_that_the_shell_left_alone_is_expanded(run, weights):
    save_photo("a1.png")
    save_photo("a2.png")
    code, out, _ = run("upscale", "a?.png", "--weights", weights / "x4.safetensors")
    assert (code, out) == (0, ["a1_x4.png", "a2_x4.png"])
    code, _, err = run("upscale", "z*.png", "--weights", weights / "x4.safetensors")
    assert code == 2
    assert "no file matches the pattern: z*.png" in err


def test_a_name_with_brackets_is_a_name(run, weights):
    save_photo("a[1].png")
    code, out, _ = run("upscale", "a[1].png", "--weights", weights / "x4.safetensors")
    assert (code, out) == (0, ["a[1]_x4.png"])


def test_what_exists_is_kept_without_overwrite(run, weights):
    save_photo("in.png")
    Path("in_x4.png").write_text("precious")
    code, out, err = run("upscale", "in.png", "--weights", weights / "x4.safetensors", "-q")
    assert (code, out) == (1, [])
    assert is_one_line(err)
    assert Path("in_x4.png").read_text() == "precious"
    code, out, _ = run("upscale", "in.png", "--weights", weights / "x4.safetensors", "--overwrite")
    assert (code, out) == (0, ["in_x4.png"])
    assert load_image("in_x4.png").size == (48, 36)


@pytest.mark.parametrize("output", ["in.png", ".", "./sub/../in.png", "link.png"])
def test_an_input_is_never_overwritten(run, weights, output):
    save_photo("in.png")
    Path("sub").mkdir()
    Path("link.png").symlink_to("in.png")
    before = Path("in.png").read_bytes()
    code, _, err = run(
        "denoise", "in.png", "--weights", weights / "same.safetensors", "-o", output, "--overwrite", "-q"
    )
    assert code == 2
    assert is_one_line(err)
    assert Path("in.png").read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="has no named pipes")
def test_a_named_pipe_is_read_like_a_file(run, weights):
    save_photo("a.png")
    os.mkfifo("pipe.png")
    writer = threading.Thread(target=lambda: Path("pipe.png").write_bytes(Path("a.png").read_bytes()))
    writer.start()
    code, out, _ = run("upscale", "pipe.png", "--weights", weights / "x4.safetensors")
    writer.join()
    assert (code, out) == (0, ["pipe_x4.png"])


def test_pipes(run, weights, monkeypatch):
    pixels = save_photo("in.png")

    class Stream:
        buffer = io.BytesIO(Path("in.png").read_bytes())

    monkeypatch.setattr(sys, "stdin", Stream)
    code, out, _ = run("upscale", "-", "-o", "out.png", "--weights", weights / "x4.safetensors")
    assert (code, out) == (0, ["out.png"])
    np.testing.assert_array_equal(np.array(load_image("out.png")), pixels.repeat(4, 0).repeat(4, 1))


def test_stdout_is_the_picture_and_nothing_else(tmp_path, weights):
    pixels = save_photo(tmp_path / "in.png")
    done = subprocess.run(
        [sys.executable, "-m", "mambair_cli", "upscale", "-", "--weights", weights / "x4.safetensors"],
        input=(tmp_path / "in.png").read_bytes(),
        capture_output=True,
        check=True,
    )
    np.testing.assert_array_equal(
        np.array(Image.open(io.BytesIO(done.stdout))), pixels.repeat(4, 0).repeat(4, 1)
    )
    assert b"using" in done.stderr
    assert b"\x1b" not in done.stderr  # no bar where there is no terminal


def test_names_of_every_kind(run, weights):
    names = ["with space.png", "emoji 🦊.png", "new\nline.png", "x" * 240 + ".png"]
    for name in names:
        save_photo(name)
    code, _, err = run("upscale", *names, "--weights", weights / "x4.safetensors", "-o", "out", "-q")
    assert (code, err) == (0, "")
    assert list_files("out") == sorted(names)
    save_photo("-dash.png")
    code, _, _ = run("upscale", "--weights", weights / "x4.safetensors", "-q", "--", "-dash.png")
    assert code == 0
    assert Path("-dash_x4.png").exists()


def test_names_that_begin_with_a_dash_are_printed_as_arguments(run, weights):
    save_photo("-cat.png")
    save_photo("-photos/cat.png")
    names, weights = ["./-cat.png", "./-photos"], weights / "x2.safetensors"
    written = ["./-cat_x2.png", "./-photos_x2/cat.png"]
    assert run("upscale", *names, "--weights", weights, "-q")[:2] == (0, written)
    code, out, err = run("compare", written[0], *names[:1], "-o", "./-page.html")
    assert (code, out) == (0, ["./-page.html"]), err
    code, out, err = run("upscale", *names, "--weights", weights, "-q", "--json", "--overwrite", "--compare")
    events = [json.loads(line) for line in out]
    done = [(event["input"], event["output"]) for event in events if event["event"] == "done"]
    assert done == list(zip(["./-cat.png", "./-photos/cat.png"], written, strict=True))
    assert run("inspect", *written, "-q")[0] == 0


@pytest.mark.parametrize(
    ("name", "format", "result"),
    [
        ("scan", "JPEG", "scan_x2.jpg"),
        ("left.jps", "JPEG", "left_x2.jpg"),
        ("both.mpo", "JPEG", "both_x2.jpg"),
        ("scan", "WEBP", "scan_x2.webp"),
        ("scan.part", "TIFF", "scan_x2.tif"),
        ("scan", "BMP", "scan_x2.png"),
        ("scan.bmp", "JPEG", "scan_x2.png"),  # its suffix tells
    ],
)
def test_what_has_no_suffix_of_an_image_keeps_its_format(run, weights, name, format, result):
    Image.new("RGB", (24, 16), (90, 60, 30)).save(name, format)
    options = ("--weights", weights / "x2.safetensors", "-q")
    assert run("upscale", name, *options)[:2] == (0, [result])
    with Image.open(result) as image:
        assert Image.registered_extensions()[Path(result).suffix] == image.format
    assert run("upscale", name, "-o", "out/", *options)[:2] == (0, [f"out/{result.replace('_x2', '')}"])
    assert run("upscale", name, "--format", "png", *options)[0] == (1 if result.endswith("png") else 0)


@pytest.mark.parametrize("name", ["scan", "scan.part", "scan.heic", "SCAN.HEIF"])
@pytest.mark.parametrize(
    "brands",
    [
        b"avif....mif1miafMA1Bavif",
        b"mif1....avifmiafMA1Bmif1",
        b"mif1....mif1miafMA1Bavif",
        b"msf1....mif1miafMA1Bavif",
    ],
)
def test_avif_stays_avif_whatever_brand_comes_first(run, weights, name, brands):
    Image.new("RGB", (24, 16), (90, 60, 30)).save("made.avif")
    data = Path("made.avif").read_bytes()
    Path(name).write_bytes(data[:8] + brands + data[32:])
    expected = f"{Path(name).stem}_x2.avif"
    options = ("--weights", weights / "x2.safetensors", "-q")
    events = [json.loads(line) for line in run("upscale", name, *options, "--dry-run", "--json")[1]]
    assert [event["output"] for event in events if "output" in event] == [expected]
    assert run("upscale", name, *options)[:2] == (0, [expected])
    with Image.open(expected) as image:
        assert image.format == "AVIF"


@pytest.mark.parametrize("name", ["scan", "scan.heic"])
def test_heic_becomes_png(tmp_path, name):
    source = tmp_path / name
    source.write_bytes(struct.pack(">I", 32) + b"ftypmif1....mif1miafheicmsf1avif")  # the last is no brand
    (job,) = name_targets([Source(source)], None, "_x2")
    assert job.target == tmp_path / "scan_x2.png"


def test_a_name_too_long_for_the_system_costs_itself_alone(run, weights):
    Image.new("RGB", (24, 16), (90, 60, 30)).save("a.png")
    Path("list").write_text(f"{300 * 'y'}\na.png\n")
    code, out, err = run(
        "upscale", "--from-file", "list", "-o", "out", "--weights", weights / "x2.safetensors", "-q"
    )
    assert (code, out) == (1, ["out/a.png"])
    assert err == f"mambair: error: cannot read {300 * 'y'}: its name is too long; shorten it\n"


def test_a_list_fills_a_folder_also_with_one_name(run, weights):
    save_photo("a.png")
    Path("list").write_text("a.png\n")
    arguments = ("--from-file", "list", "--weights", weights / "x4.safetensors")
    code, out, _ = run("upscale", *arguments, "-o", "out.d")
    assert (code, out) == (0, ["out.d/a.png"])
    code, out, _ = run("upscale", *arguments)
    assert (code, out) == (0, ["a_x4.png"])


def test_what_is_left_out_is_named_once(run, weights):
    for name in ("a.png", "a_x4.png", "sub/b.png", "sub/b_x2.png"):
        save_photo(f"photos/{name}")
    arguments = ("upscale", "photos", "--weights", weights / "x4.safetensors", "-o", "out", "--overwrite")
    _, out, err = run(*arguments)
    assert sorted(out) == ["out/a.png", "out/sub/b.png"]
    assert "mambair: left out 2 images that are results, such as photos/a_x4.png; name them alone to" in err
    _, out, err = run(*arguments, "--exclude", "sub", "--exclude", "*.tif")
    assert out == ["out/a.png"]
    assert "mambair: left out an image that is a result: photos/a_x4.png; name it alone to" in err
    assert "mambair: no file or folder matches --exclude *.tif" in err
    _, _, err = run(*arguments, "--exclude", "*.tif", "-q")
    assert err == ""
