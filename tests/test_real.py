"""Pictures as they come: `--real` chooses the models that are for them, on each way into the tool."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair_cli import Restorer
from mambair_cli.cli import main
from mambair_cli.errors import ModelError


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("in.png")

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return call


def models(lines):
    events = map(json.loads, lines)
    return [event["model"] for event in events if event["event"] == "done"]


@pytest.mark.parametrize(
    ("command", "model", "size"),
    [
        (("upscale", "-s", 4, "--real"), "tiny-real-x4", (96, 80)),
        (("upscale", "--real"), "tiny-real-x4", (96, 80)),
        (("upscale", "-s", 2, "--real"), "tiny-real-x2", (48, 40)),
        (("upscale", "-s", 3, "--real"), "tiny-real-x4", (72, 60)),
        (("upscale", "-s", 1.5, "--model", "real"), "tiny-real-x2", (36, 30)),
        (("upscale", "--width", 30, "--real"), "tiny-real-x2", (30, 25)),
        (("denoise", "--real"), "tiny-real-denoise", (24, 20)),
        (("denoise",), "tiny-real-denoise", (24, 20)),
        (("denoise", "--sigma", 25), "tiny-denoise", (24, 20)),
        (("upscale", "-s", 2), "tiny-x2", (48, 40)),
    ],
)
def test_the_model_is_that_of_the_pictures_and_the_result_as_large_as_asked(run, command, model, size):
    code, out, _ = run(*command, "in.png", "-o", "out.png", "--offline", "--device", "cpu", "--json")
    assert code == 0
    assert models(out) == [model]
    with Image.open("out.png") as image:
        assert image.size == size


def test_without_the_hub_a_cpu_needs_none_for_real_pictures(run, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    code, out, err = run("denoise", "in.png", "--device", "cpu")
    assert (code, out) == (0, ["in_denoised.png"])
    assert err == "mambair: using tiny-real-denoise on cpu\n"


def test_a_result_is_named_by_the_scale_that_was_asked_for(run):
    code, out, _ = run("upscale", "in.png", "-s", 3, "--real", "--offline", "--device", "cpu")
    assert (code, out) == (0, ["in_x3.png"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("upscale", "--real", "--model", "tiny-x4"), "--real chooses a model, and --model tiny-x4 is one"),
        (("upscale", "--real", "--weights", "a.pth"), "--real chooses a model, and --weights a.pth is one"),
        (("denoise", "--real", "--sigma", 5), "--real and --sigma 5 exclude each other"),
        (("upscale", "--clean", "--real"), "--real and --clean exclude each other"),
        (("upscale", "--clean", "--model", "tiny-x4"), "--clean chooses a model, and --model tiny-x4 is one"),
        (("dejpeg", "--model", "real"), "no model for real pictures does dejpeg"),
    ],
)
def test_what_contradicts_itself_is_one_line(run, arguments, words):
    code, out, err = run(*arguments, "in.png", "--offline", "--device", "cpu")
    assert code in (2, 3)
    assert out == []
    assert len(err.splitlines()) == 1
    assert words in err


def test_a_dry_run_tells_the_same_model(run):
    code, out, _ = run(
        "upscale", "in.png", "-s", 2, "--real", "--offline", "--device", "cpu", "--dry-run", "--json"
    )
    assert code == 0
    assert "tiny-real-x2" in "".join(out)


def test_from_python_a_network_for_real_pictures_says_how_far_it_enlarges():
    restorer = Restorer(scale=3, model="real", device="cpu", offline=True)
    assert (restorer.model.name, restorer.info.scale) == ("tiny-real-x4", 4)
    with pytest.raises(ModelError, match="that scale: 8"):
        Restorer(scale=8, model="real", device="cpu", offline=True)


@pytest.fixture
def mixed(run, tmp_path):
    """A folder with pictures of which two are compressed, one under a name that does not say so."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    with Image.open("in.png") as image:
        image.save(folder / "a.png")
        image.save(folder / "b.jpg", quality=95)
        image.save(folder / "c.jpg", quality=60)
        image.save(folder / "d.png", "JPEG", quality=89)
        image.save(folder / "e.jpg", quality=90)
    return folder


REAL_ONES = {"c.jpg", "d.png"}


def chosen(lines):
    events = map(json.loads, lines)
    return {Path(event["input"]).name: event["model"] for event in events if event["event"] == "done"}


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_compressed_pictures_of_a_folder_are_enlarged_by_the_model_for_them(run, mixed, scale):
    options = ("--offline", "--device", "cpu", "-s", scale)
    code, out, err = run("upscale", mixed, *options, "--json")
    assert code == 0
    real = f"tiny-real-x{2 if scale == 2 else 4}"
    names = dict.fromkeys(("a.png", "b.jpg", "e.jpg"), f"tiny-x{scale}")
    assert chosen(out) == {**names, **dict.fromkeys(REAL_ONES, real)}
    remark = (
        "2 of 5 images are JPEGs of quality below 90: using the model for real photographs; --clean overrules"
    )
    assert f"mambair: {remark}\n" in err
    events = [json.loads(line) for line in out]
    assert [event["event"] for event in events if event["event"] in ("start", "model")] == ["start", "model"]
    assert next(event for event in events if event["event"] == "model")["notices"] == [remark]
    assert events[0]["files"] == 5
    assert (events[-1]["done"], events[-1]["left"]) == (5, 0)
    for name in names | dict.fromkeys(REAL_ONES):
        with Image.open(mixed.with_name(f"mixed_x{scale}") / name) as image:
            assert image.size == (24 * scale, 20 * scale)


@pytest.mark.parametrize("word", ["real", "clean"])
def test_what_was_chosen_is_what_the_word_alone_gives(run, mixed, word):
    options = ("--offline", "--device", "cpu", "-s", 3)
    run("upscale", mixed, *options, "-o", "by_itself")
    code, _, err = run("upscale", mixed, *options, f"--{word}", "-o", word)
    assert code == 0
    assert "JPEG" not in err
    for name in REAL_ONES if word == "real" else ("a.png", "b.jpg", "e.jpg"):
        assert Path("by_itself", name).read_bytes() == Path(word, name).read_bytes()


def test_a_second_run_knows_what_both_models_did(run, mixed):
    options = ("--offline", "--device", "cpu", "-s", 2, "--resume", "--json")
    run("upscale", mixed, *options)
    code, out, _ = run("upscale", mixed, *options)
    assert code == 0
    assert [json.loads(line)["event"] for line in out] == [
        *("start", "skipped", "skipped", "skipped", "model", "skipped", "skipped", "summary")
    ]


def test_one_compressed_picture_is_told_of_in_a_line_of_its_own(run, mixed):
    code, _, err = run("upscale", mixed / "c.jpg", "-o", "c.png", "--offline", "--device", "cpu")
    assert code == 0
    assert err.splitlines() == [
        f"mambair: {mixed / 'c.jpg'} is a JPEG of quality 60: "
        "using the model for real photographs; --clean overrules",
        "mambair: using tiny-real-x4 on cpu",
    ]


def test_a_picture_on_standard_input_is_looked_at_too(run, mixed, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO((mixed / "c.jpg").read_bytes()))
    monkeypatch.setattr("sys.stdin", stream)
    code, out, _ = run("upscale", "-", "-o", "c.png", "-s", 2, "--offline", "--device", "cpu", "--json")
    assert code == 0
    assert models(out) == ["tiny-real-x2"]


def test_a_named_model_is_taken_for_any_picture(run, mixed):
    code, out, _ = run("upscale", mixed, "--model", "tiny-x2", "--offline", "--device", "cpu", "--json")
    assert code == 0
    assert set(chosen(out).values()) == {"tiny-x2"}


def test_workers_take_the_model_for_each_picture(run, mixed):
    options = ("--offline", "-s", 2)
    run("upscale", mixed, *options, "--device", "cpu", "-o", "alone")
    code, out, _ = run("upscale", mixed, *options, "--workers", 2, "-o", "together", "--json")
    assert code == 0
    assert {name for name, model in chosen(out).items() if model == "tiny-real-x2"} == REAL_ONES
    for file in mixed.iterdir():
        assert Path("alone", file.name).read_bytes() == Path("together", file.name).read_bytes()


def test_after_a_failure_no_other_model_is_loaded_with_fail_fast(run, mixed):
    (mixed / "a.png").write_bytes(b"no picture")
    code, out, _ = run("upscale", mixed, "--offline", "--device", "cpu", "--fail-fast", "--json")
    assert code == 1
    assert "model" not in {json.loads(line)["event"] for line in out}
    assert json.loads(out[-1])["left"] >= 2


def test_a_dry_run_tells_the_model_of_each_picture(run, mixed):
    options = ("--offline", "--device", "cpu", "-s", 2, "--dry-run", "--json")
    code, out, _ = run("upscale", mixed, *options)
    assert code == 0
    events = [json.loads(line) for line in out]
    plans = [(event["model"], event["files"]) for event in events if event["event"] == "plan"]
    assert plans == [("tiny-x2", 3), ("tiny-real-x2", 2)]
    files = [event for event in events if event["event"] == "plan_file"]
    assert events[-1]["disk"] == sum(event["disk"] for event in files)
    assert events[-1]["seconds"] == pytest.approx(sum(event["seconds"] for event in files), abs=0.01)
