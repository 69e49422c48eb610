"""Pictures as they come: `--real` chooses the models that are for them, on each way into the tool."""

import json

import pytest
from pictures import save_photo
from PIL import Image

from mambair_cli import Restorer
from mambair_cli.errors import ModelError


@pytest.fixture
def run(run):
    save_photo("in.png", (24, 20))
    return run


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
        (("denoise", "--clean"), "tiny-denoise", (24, 20)),
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
    assert err == "mambair: using tiny-real-denoise or tiny-denoise on cpu, by a look at each image\n"


def test_a_result_is_named_by_the_scale_that_was_asked_for(run):
    code, out, _ = run("upscale", "in.png", "-s", 3, "--real", "--offline", "--device", "cpu")
    assert (code, out) == (0, ["in_x3.png"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("upscale", "--real", "--model", "tiny-x4"), "--real chooses a model, and --model tiny-x4 is one"),
        (("upscale", "--real", "--weights", "a.pth"), "--real chooses a model, and --weights a.pth is one"),
        (("denoise", "--real", "--sigma", 5), "--real and --sigma 5 exclude each other"),
        (("denoise", "--clean", "--sigma", 5), "--clean and --sigma 5 exclude each other"),
        (("denoise", "--clean", "--real"), "--real and --clean exclude each other"),
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


def test_a_dry_run_names_the_same_model(run):
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
