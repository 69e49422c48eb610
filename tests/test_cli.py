import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import save_identity, save_nearest
from PIL import Image
from rich.cells import cell_len
from terminal import run_in_terminal

from mambair_cli.checkpoints.load import load_network
from mambair_cli.cli import main
from mambair_cli.cli.progress import Progress, shorten
from mambair_cli.errors import ImageError
from mambair_cli.images.source import Source
from mambair_cli.runs.jobs import Job, name_of
from mambair_cli.runs.journal import JOURNAL_FILE, Journal
from mambair_cli.runs.outcomes import Outcome


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_nearest(folder / "x4.safetensors", 4)
    save_identity(folder / "same.safetensors")
    save_identity(folder / "gray.safetensors", channels=1)
    return folder


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder, as a user would, and return (exit code, stdout lines, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return call


def photo(path, size=(12, 9), mode="RGB", seed=0):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    Image.fromarray(values.squeeze(2) if bands == 1 else values, mode).save(path)
    return values


def shown(path):
    with Image.open(path) as image:
        image.load()
        return image


def files(folder="."):
    paths = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != JOURNAL_FILE)
    return sorted(str(path.relative_to(folder)) for path in paths)


def one_line(err):
    return len(err.splitlines()) == 1 and err.startswith("mambair: error: ")


def test_upscale_writes_beside_the_input_and_says_what_with(run, weights):
    pixels = photo("in.png")
    code, out, err = run("upscale", "in.png", "--weights", weights / "x4.safetensors")
    assert code == 0
    assert out == ["in_x4.png"]
    assert "using x4.safetensors on cpu" in err
    np.testing.assert_array_equal(np.array(shown("in_x4.png")), pixels.repeat(4, 0).repeat(4, 1))
    assert files() == ["in.png", "in_x4.png"]


@pytest.mark.parametrize(("command", "suffix"), [("denoise", "_denoised"), ("dejpeg", "_dejpeg")])
def test_the_other_tasks_have_names_of_their_own(run, weights, command, suffix):
    pixels = photo("in.png")
    code, out, _ = run(command, "in.png", "--weights", weights / "same.safetensors")
    assert (code, out) == (0, [f"in{suffix}.png"])
    np.testing.assert_array_equal(np.array(shown(out[0])), pixels)


def test_a_folder_is_mirrored_with_its_tree(run, weights):
    for name in ("a.png", "sub/b.png", "sub/deep/c.jpg", ".hidden/d.png", ".e.png"):
        photo(f"photos/{name}")
    Path("photos/notes.txt").write_text("no image")
    code, out, _ = run("upscale", "photos", "--weights", weights / "x4.safetensors", "-q")
    assert code == 0
    assert sorted(out) == ["photos_x4/a.png", "photos_x4/sub/b.png", "photos_x4/sub/deep/c.jpg"]
    assert files("photos_x4") == ["a.png", "sub/b.png", "sub/deep/c.jpg"]


def test_the_current_folder_is_mirrored_beside_it(run, weights, tmp_path, monkeypatch):
    photo("photos/a.png")
    monkeypatch.chdir(tmp_path / "photos")
    code, _, _ = run("upscale", ".", "--weights", weights / "x4.safetensors")
    assert code == 0
    assert files(tmp_path / "photos_x4") == ["a.png"]


def test_an_output_folder_keeps_the_names(run, weights):
    photo("a.png")
    photo("tree/x/b.png")
    code, _, _ = run("upscale", "a.png", "tree", "--weights", weights / "x4.safetensors", "-o", "out")
    assert code == 0
    assert files("out") == ["a.png", "x/b.png"]


def test_an_output_file_sets_the_format(run, weights):
    photo("a.png")
    code, _, _ = run("upscale", "a.png", "--weights", weights / "x4.safetensors", "-o", "new/b.jpg")
    assert code == 0
    assert shown("new/b.jpg").format == "JPEG"


def test_format_sets_the_suffix_too(run, weights):
    photo("a.png")
    code, out, _ = run("upscale", "a.png", "--weights", weights / "x4.safetensors", "--format", "webp")
    assert (code, out) == (0, ["a_x4.webp"])
    assert shown("a_x4.webp").format == "WEBP"


def test_a_pattern_that_the_shell_left_alone_is_expanded(run, weights):
    photo("a1.png")
    photo("a2.png")
    code, out, _ = run("upscale", "a?.png", "--weights", weights / "x4.safetensors")
    assert (code, out) == (0, ["a1_x4.png", "a2_x4.png"])
    code, _, err = run("upscale", "z*.png", "--weights", weights / "x4.safetensors")
    assert code == 2
    assert "no file fits" in err


def test_a_name_with_brackets_is_a_name(run, weights):
    photo("a[1].png")
    code, out, _ = run("upscale", "a[1].png", "--weights", weights / "x4.safetensors")
    assert (code, out) == (0, ["a[1]_x4.png"])


def test_what_exists_is_kept_unless_told_otherwise(run, weights):
    photo("in.png")
    Path("in_x4.png").write_text("precious")
    code, out, err = run("upscale", "in.png", "--weights", weights / "x4.safetensors", "-q")
    assert (code, out) == (1, [])
    assert one_line(err)
    assert Path("in_x4.png").read_text() == "precious"
    code, out, _ = run("upscale", "in.png", "--weights", weights / "x4.safetensors", "--overwrite")
    assert (code, out) == (0, ["in_x4.png"])
    assert shown("in_x4.png").size == (48, 36)


@pytest.mark.parametrize("output", ["in.png", ".", "./sub/../in.png", "link.png"])
def test_an_input_is_never_overwritten(run, weights, output):
    photo("in.png")
    Path("sub").mkdir()
    Path("link.png").symlink_to("in.png")
    before = Path("in.png").read_bytes()
    code, _, err = run(
        "denoise", "in.png", "--weights", weights / "same.safetensors", "-o", output, "--overwrite", "-q"
    )
    assert code == 2
    assert one_line(err)
    assert Path("in.png").read_bytes() == before


def test_one_bad_file_costs_itself_alone(run, weights):
    photo("a.png")
    photo("c.png")
    Path("b.png").write_text("this is text")
    code, out, err = run("upscale", "a.png", "b.png", "c.png", "--weights", weights / "x4.safetensors", "-q")
    assert code == 1
    assert out == ["a_x4.png", "c_x4.png"]
    assert "b.png" in err


@pytest.mark.skipif(sys.platform == "win32", reason="has no named pipes")
def test_a_named_pipe_is_read_like_a_file(run, weights):
    photo("a.png")
    os.mkfifo("pipe.png")
    writer = threading.Thread(target=lambda: Path("pipe.png").write_bytes(Path("a.png").read_bytes()))
    writer.start()
    code, out, _ = run("upscale", "pipe.png", "--weights", weights / "x4.safetensors")
    writer.join()
    assert (code, out) == (0, ["pipe_x4.png"])


def test_json_tells_all_in_lines(run, weights):
    photo("a.png")
    Path("b.png").write_bytes(b"")
    code, out, _ = run("upscale", "a.png", "b.png", "--weights", weights / "x4.safetensors", "--json")
    assert code == 1
    start, done, failed, summary = map(json.loads, out)
    assert start["event"] == "start"
    assert start["model"] == done["model"] == "x4.safetensors"
    assert (done["event"], done["input"], done["output"]) == ("done", "a.png", "a_x4.png")
    assert (done["width"], done["height"], done["tiles"], done["shrunk"]) == (48, 36, 1, False)
    assert done["sha256"] == hashlib.sha256(Path("a_x4.png").read_bytes()).hexdigest()
    assert start["weights"] == hashlib.sha256((weights / "x4.safetensors").read_bytes()).hexdigest()
    assert done["warnings"] == []
    assert (failed["event"], failed["input"], failed["kind"]) == ("failed", "b.png", "ImageError")
    assert (summary["done"], summary["failed"]) == (1, 1)


def test_running_out_of_memory_is_said_and_the_picture_is_made(run, weights, monkeypatch):
    def load(path):
        net = load_network(path)
        forward = net.forward

        def cramped(x, **options):
            if x.shape[0] * x.shape[2] * x.shape[3] > 50 * 50:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(x, **options)

        monkeypatch.setattr(net, "forward", cramped)
        return net

    monkeypatch.setattr("mambair_cli.restore.restorer.load_network", load)
    pixels = photo("in.png", size=(100, 90))
    code, out, err = run("upscale", "in.png", "--weights", weights / "x4.safetensors")
    assert (code, out) == (0, ["in_x4.png"])
    assert "in.png: out of memory at first; done as 100×90: 3×3 tiles of 44×41, overlap 16" in err
    np.testing.assert_array_equal(np.array(shown("in_x4.png")), pixels.repeat(4, 0).repeat(4, 1))


def test_dry_run_says_and_writes_nothing(run, weights):
    photo("photos/a.png", size=(300, 200))
    code, out, _ = run("upscale", "photos", "--weights", weights / "x4.safetensors", "--dry-run")
    assert code == 0
    assert out[1].startswith("photos/a.png -> photos_x4/a.png: 1200×800, from 300×200: ")
    assert files() == ["photos/a.png"]
    code, out, _ = run("upscale", "photos", "--dry-run", "--json", "--model", "mambairv2-large-x2")
    plan, file, total = map(json.loads, out)
    assert (file["seconds"], total["seconds"]) == (None, None)  # the model is not here
    assert (plan["model"], plan["on_this_machine"]) == ("mambairv2-large-x2", False)
    assert (file["width"], file["height"], file["output"]) == (600, 400, "photos_x2/a.png")


def test_dry_run_finds_what_would_fail(run, weights):
    Path("bad.png").write_text("text")
    code, _, err = run("upscale", "bad.png", "--weights", weights / "x4.safetensors", "--dry-run")
    assert code == 1
    assert one_line(err)


def test_every_key_of_every_event_is_documented(run, weights):
    text = (Path(__file__).parents[1] / "docs/events.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", text, re.MULTILINE)
    documented = {event: re.findall(r"`(\w+)`", re.sub(r" \(.*?\)", "", keys)) for event, keys in rows}
    photo("in/a.png")
    Path("in/b.png").write_text("no picture")
    Path("in/c.cr2").touch()
    photo("truth/a.png", size=(20, 20))
    upscale = ("upscale", "in", "--weights", weights / "x4.safetensors")
    ways = (["--dry-run"], [], ["--resume"], ["--resume", "--dry-run"])
    found = {}
    for command in (*((*upscale, *way) for way in ways), ("evaluate", "truth", "--restored", "truth")):
        _, out, _ = run(*command, "--json")
        for event in map(json.loads, out):
            found[event["event"]] = list(event)[1:]
    assert found == documented


@pytest.mark.skipif(sys.platform != "linux", reason="knows no folder that nobody can write")
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
@pytest.mark.parametrize("output", ["/proc/sys/out", "notes.txt/out"])
def test_a_folder_that_cannot_be_made_fails_in_a_run_and_in_a_dry_one(run, weights, output, options):
    photo("photos/a.png")
    Path("notes.txt").write_text("no folder")
    arguments = ("photos", "--weights", weights / "x4.safetensors", "--json", "-q", "-o", output)
    code, out, err = run("upscale", *arguments, *options)
    assert code == 1
    assert one_line(err)
    failed = json.loads(out[1])
    assert failed["event"] == ("plan_failed" if options else "failed")
    assert failed["message"].startswith(f"cannot write {output}/a.png: ")
    assert failed["message"].endswith("; choose another folder with -o")


@pytest.mark.skipif(sys.platform == "win32", reason="does not tell")
def test_a_dry_run_sees_that_another_run_is_at_work(run, weights):
    photo("photos/a.png")
    arguments = ("upscale", "photos", "--weights", weights / "x4.safetensors", "-q", "--dry-run")
    with closing(Journal(Path("photos_x4"), [Path("photos_x4/a.png")])):
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


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["upscale", "nothing.png", "--weights", "{x4}"], 1),
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
        (["sharpen", "in.png"], 2),
        (["models", "show", "nobody"], 3),
        (["models", "path", "mambairv2-light-x4"], 3),
        (["models", "verify", "mambairv2-light-x4"], 3),
    ],
)
def test_what_cannot_be_is_one_line_and_an_exit_code(run, weights, arguments, code):
    photo("in.png")
    Path("empty").mkdir()
    names = {name: str(weights / f"{name}.safetensors") for name in ("x4", "same", "gray")}
    got, out, err = run(*(argument.format(**names) for argument in arguments))
    assert got == code
    assert out == []
    assert len([line for line in err.splitlines() if not line.startswith("mambair: using")]) == 1
    assert "mambair: error: " in err
    assert files() == ["in.png"]


def test_gray_stays_gray_and_sixteen_bits_sixteen(run, weights):
    values = np.random.default_rng(0).integers(0, 300, (9, 12), dtype=np.uint16)  # dark, and yet 16 bits
    Image.fromarray(values).save("deep.png")
    code, _, _ = run("upscale", "deep.png", "--weights", weights / "x4.safetensors")
    assert code == 0
    restored = shown("deep_x4.png")
    assert restored.mode == "I;16"
    np.testing.assert_array_equal(np.array(restored), values.repeat(4, 0).repeat(4, 1))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_alpha_and_gray_come_through(run, weights, mode):
    pixels = photo("in.png", mode=mode)
    code, _, _ = run("upscale", "in.png", "--weights", weights / "x4.safetensors")
    assert code == 0
    restored, expected = shown("in_x4.png"), pixels.repeat(4, 0).repeat(4, 1)
    assert restored.mode == mode
    visible = expected[..., -1:] > 0 if mode.endswith("A") else 1
    np.testing.assert_array_equal(np.array(restored).reshape(expected.shape) * visible, expected * visible)


def test_a_colour_jpeg_through_a_gray_network_keeps_its_colours(run, weights):
    Image.new("RGB", (16, 16), (200, 40, 90)).save("in.jpg", quality=95)
    code, out, _ = run("dejpeg", "in.jpg", "--weights", weights / "gray.safetensors", "-o", "out.png")
    assert (code, out) == (0, ["out.png"])
    before = np.array(shown("in.jpg")).astype(int)
    np.testing.assert_allclose(np.array(shown("out.png")).astype(int), before, atol=1)


def test_orientation_is_applied_once(run, weights):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save("in.jpg", exif=exif, quality=100)
    code, _, _ = run("upscale", "in.jpg", "--weights", weights / "x4.safetensors")
    assert code == 0
    restored = shown("in_x4.jpg")
    assert restored.size == (32, 64)
    assert restored.getexif().get(0x0112, 1) == 1
    assert np.array(restored)[:16].mean() > 250


def test_pipes(run, weights, monkeypatch):
    pixels = photo("in.png")

    class Stream:
        buffer = io.BytesIO(Path("in.png").read_bytes())

    monkeypatch.setattr(sys, "stdin", Stream)
    code, out, _ = run("upscale", "-", "-o", "out.png", "--weights", weights / "x4.safetensors")
    assert (code, out) == (0, ["out.png"])
    np.testing.assert_array_equal(np.array(shown("out.png")), pixels.repeat(4, 0).repeat(4, 1))


def test_stdout_is_the_picture_and_nothing_else(tmp_path, weights):
    pixels = photo(tmp_path / "in.png")
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


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_the_bar_is_on_the_terminal_and_the_paths_are_in_the_pipe(tmp_path, weights):
    photo(tmp_path / "in.png", size=(300, 300))
    model = ["--weights", str(weights / "x4.safetensors")]
    seen = run_in_terminal(["upscale", "in.png", "--tile", "64", *model], tmp_path)
    assert seen.code == 0
    assert seen.stdout == b"in_x4.png\n"
    assert b"in.png" in seen.shown
    assert b"36/36 tiles" in seen.shown
    assert b"MP/s" in seen.shown


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_a_run_over_several_images_shows_all_of_them_and_those_in_work(tmp_path, weights, workers):
    for name in ("a.png", "b.png", "c.png"):
        photo(tmp_path / name, size=(100, 100))
    (tmp_path / "bad.png").write_text("no picture")
    model = ["--weights", str(weights / "x4.safetensors"), "--tile", "64"]
    names = ["a.png", "b.png", "c.png", "bad.png"]
    seen = run_in_terminal(["upscale", *names, *model, *workers], tmp_path)
    assert seen.code == 1
    assert sorted(seen.stdout.split()) == [b"a_x4.png", b"b_x4.png", b"c_x4.png"]
    assert (b"mambair: starting 2 workers" in seen.shown) == bool(workers)
    assert b"4/4 images, 1 failed" in seen.shown
    for name in (b"a.png", b"b.png", b"c.png"):
        assert name in seen.shown
    assert b"4/4 tiles" in seen.shown


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_narrow_terminal_shows_the_time_and_both_ends_of_any_name(tmp_path, weights):
    names = [
        "[b] holiday in the mountains 01.png",
        "山の中の長い長い休暇の写真-二〇二四年-02.png",
        "bad.png",
    ]
    for name in names[:2]:
        photo(tmp_path / name, size=(200, 200))
    (tmp_path / "bad.png").write_text("no picture")
    model = ["--weights", str(weights / "x4.safetensors"), "--tile", "32"]
    seen = run_in_terminal(["upscale", *names, *model], tmp_path, columns=80)
    assert seen.code == 1
    text = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", seen.shown.decode())
    assert re.search(r"all .* images.* a (second|minute) +-?[-\d]:\S\S:\S\S", text)
    assert re.search(r"\[b\] holid….*01\.png .* tiles .*MP/s +[-\d]:\S\S:\S\S", text)
    assert re.search(r"山の中の….*02\.png .* tiles .*MP/s +[-\d]:\S\S:\S\S", text)


def test_the_row_of_an_image_that_failed_goes_and_one_of_its_name_comes_back(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    sources = [Source(Path(name)) for name in ("good.png", "bad.png", "other/bad.png")]
    progress = Progress()
    progress.expect(sources)
    with progress:
        for worker, source in enumerate(sources):
            progress.start(worker, name_of(source), pixels=10**6)
            progress.advance(worker, 1, 9)
        progress.count(Outcome.failed(Job(sources[1], None), ImageError("cut short"), 1.0))
        progress.advance(2, 2, 9)
    table = terminal.getvalue().rpartition("1/3 images, 1 failed")[2]
    assert table.count("good.png") == 1
    assert table.count("bad.png") == 1
    assert "2/9 tiles" in table


@pytest.mark.parametrize(
    "name", ["x" * 16 + "0001.tif", "x" * 50 + "0001.tif", "写" * 9 + "01.tif", "写真" * 30 + "1.tif"]
)
@pytest.mark.parametrize("width", [20, 32])
def test_a_name_is_cut_to_the_cells_that_it_takes(name, width):
    short = shorten(name, width)
    assert cell_len(short) <= width
    assert (short == name) == (cell_len(name) <= width)
    assert (short[:1], short[-5:]) == (name[:1], name[-5:])


def test_a_name_cannot_break_a_row():
    assert shorten("a\nb\x1b[2J\udcff.png", 20) == "a\ufffdb\ufffd[2J\ufffd.png"


def test_an_interrupt_leaves_nothing_half_done(tmp_path, weights):
    photo(tmp_path / "in.png", size=(1500, 1500))
    command = [sys.executable, "-m", "mambair_cli", "upscale", "in.png"]
    command += ["--weights", str(weights / "x4.safetensors")]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert "using" in process.stderr.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == "mambair: interrupted\n"
    assert files(tmp_path) == ["in.png"]


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from mambair_cli.cli import main; main(['upscale', '--help'])\n"
        "print([name for name in ('torch', 'pydantic', 'huggingface_hub', 'numpy', 'pyvips', 'rich.progress')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--scale" in done.stdout


def test_a_bare_call_shows_the_help(run):
    code, out, err = run()
    assert code == 2
    assert any("upscale" in line for line in [*out, *err.splitlines()])
    assert "error" not in err


def test_version(run):
    code, out, _ = run("--version")
    assert code == 0
    assert out[0].startswith("mambair 0.")


def test_models_list_and_show(run):
    code, out, _ = run("models", "list")
    assert code == 0
    assert out[0].split()[:2] == ["name", "task"]
    code, lines, _ = run("models", "list", "--json")
    models = [json.loads(line) for line in lines]
    assert len(models) == len(out) - 1
    code, out, _ = run("models", "show", models[0]["name"], "--json")
    assert json.loads(out[0]) == models[0]
    code, out, _ = run("models", "show", models[0]["name"])
    assert any(models[0]["files"][0] in line for line in out)


def test_a_bug_of_ours_is_not_hidden(run, weights, monkeypatch):
    photo("in.png")
    monkeypatch.setattr("mambair_cli.runs.image_job.plan_result", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("upscale", "in.png", "--weights", weights / "x4.safetensors")


def test_a_name_cannot_break_an_error_into_lines(run, weights):
    code, _, err = run("upscale", "no\n\x1bsuch.png", "--weights", weights / "x4.safetensors", "-q")
    assert code == 1
    assert one_line(err)
    assert "\x1b" not in err


def test_names_of_every_kind(run, weights):
    names = ["with space.png", "emoji 🦊.png", "new\nline.png", "x" * 240 + ".png"]
    for name in names:
        photo(name)
    code, _, err = run("upscale", *names, "--weights", weights / "x4.safetensors", "-o", "out", "-q")
    assert (code, err) == (0, "")
    assert files("out") == sorted(names)
    photo("-dash.png")
    code, _, _ = run("upscale", "--weights", weights / "x4.safetensors", "-q", "--", "-dash.png")
    assert code == 0
    assert Path("-dash_x4.png").exists()


def test_a_name_that_looks_like_an_option_gets_a_hint(run, weights):
    photo("-dash.png")
    code, _, err = run("upscale", "-dash.png", "--weights", weights / "x4.safetensors")
    assert code == 2
    assert one_line(err)
    assert err.endswith("; to name the file, write ./-dash.png\n")
    code, _, _ = run("upscale", "./-dash.png", "--weights", weights / "x4.safetensors")
    assert code == 0


def test_a_list_fills_a_folder_also_with_one_name(run, weights):
    photo("a.png")
    Path("list").write_text("a.png\n")
    arguments = ("--from-file", "list", "--weights", weights / "x4.safetensors")
    code, out, _ = run("upscale", *arguments, "-o", "out.d")
    assert (code, out) == (0, ["out.d/a.png"])
    code, out, _ = run("upscale", *arguments)
    assert (code, out) == (0, ["a_x4.png"])


def test_what_is_left_out_is_told_once(run, weights):
    for name in ("a.png", "a_x4.png", "sub/b.png", "sub/b_x2.png"):
        photo(f"photos/{name}")
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


def test_messages_name_what_was_typed(run):
    photo("in.png")
    _, _, err = run("upscale", "in.png", "--height", "20", "--megapixels", "2")
    assert "asked for more than once: --height, --megapixels; give one of them" in err
    _, _, err = run("denoise", "in.png", "--sigma", "25", "--model", "mambair-denoise-50")
    assert "--sigma 25 chooses a model, and --model mambair-denoise-50 is one; leave one out" in err
