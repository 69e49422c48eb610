"""`mambair evaluate --receptive-field`: how far around a pixel a network looks."""

import json

import numpy as np
import pytest
import torch
from checkpoints import save_identity, save_nearest, save_random
from networks import CONFIGS
from PIL import Image

from mambair_cli.checkpoints.load import load_network
from mambair_cli.quality.receptive_field import ReceptiveField, cut_crops, measure_field


def noise(path, width, height, seed=0, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels, mode).save(path)
    return path


def events(lines):
    return [json.loads(line) for line in lines]


def square(size, reach, value=1.0):
    field = np.zeros((size, size))
    middle = size // 2
    field[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1] = value
    return field


def test_squares_hold_their_share():
    field = ReceptiveField(square(11, 2) + square(11, 0, 24), 1)  # 25 in the middle, 24 around it
    assert field.side_of(0.5) == 1
    assert field.side_of(26 / 49) == 3
    assert field.side_of(0.9) == 5
    assert ReceptiveField(np.ones((11, 11)), 1).side_of(1.0) == 11


def test_crops_count_in_a_mean():
    joined = ReceptiveField(np.ones((3, 3)), 1).join(ReceptiveField(np.full((3, 3), 4.0), 2))
    assert joined.crops == 3
    assert joined.gradient == pytest.approx(np.full((3, 3), 3.0))


def test_crops_are_spread_over_an_image_and_do_not_overlap():
    image = np.arange(20 * 31).reshape(20, 31, 1)
    crops = list(cut_crops(image, 5, 100))
    assert len(crops) == 4 * 6
    assert all(crop.shape == (5, 5, 1) for crop in crops)
    assert len(np.unique(crops)) == 24 * 25
    few = [crop[0, 0, 0] for crop in cut_crops(image, 5, 2)]
    assert len(few) == 2
    assert few[0] // 31 < 10 <= few[1] // 31
    assert list(cut_crops(image, 21, 100)) == []


def test_the_gradient_is_that_of_small_differences(tmp_path):
    net = load_network(save_random(tmp_path / "net.safetensors", CONFIGS["v1 ×2"])).double()
    crop = np.random.default_rng(0).random((7, 7, 3))
    field = measure_field(net, crop)

    def centre(pixels):
        with torch.no_grad():
            y = net(torch.from_numpy(pixels.transpose(2, 0, 1)[None]))
        return y[0, :, 7, 7].sum().item()

    for row, column in ((3, 3), (0, 0), (2, 5), (6, 1)):
        differences = []
        for channel in range(3):
            step = np.zeros_like(crop)
            step[row, column, channel] = 1e-5
            differences.append(abs(centre(crop + step) - centre(crop - step)) / 2e-5)
        assert field.gradient[row, column] == pytest.approx(sum(differences), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", ["v1", "v2", "v2 light", "U-Net"])
def test_networks_see_the_whole_crop(tmp_path, name):
    net = load_network(save_random(tmp_path / "net.safetensors", CONFIGS[name]))
    field = measure_field(net, np.random.default_rng(0).random((9, 9, 3), np.float32), seed=1)
    assert field.gradient.shape == (9, 9)
    assert (field.gradient > 0).all()


def test_a_network_that_repeats_pixels_looks_at_one(run, tmp_path):
    noise(tmp_path / "in" / "a.png", 120, 80)
    noise(tmp_path / "in" / "b.png", 20, 12)
    weights = save_nearest(tmp_path / "x2.safetensors", 2)
    command = ["evaluate", "in", "--task", "upscale", "-s", 2, "--weights", weights, "--tile", 18]
    code, out, err = run(*command, "--receptive-field", "field.png", "--json")
    assert code == 0
    first, mean = events(out)
    assert first == {"event": "image", "name": "a", "side_50": 1, "side_90": 1, "crops": 6, "crop": 17}
    assert mean == {**first, "event": "mean", "name": "mean", "model": "x2.safetensors"}
    assert "left out b: 10×6 pixels are less than the crop of 17×17" in err
    with Image.open("field.png") as picture:
        zoom = 640 // 17
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    top = 12 + 30
    field = pixels[top : top + 17 * zoom, 12 : 12 + 17 * zoom]
    inside = field[8 * zoom + 4 : 9 * zoom - 4, 8 * zoom + 4 : 9 * zoom - 4]
    assert (inside == (255, 255, 235)).all()  # the strongest colour
    outside = field[10 * zoom :]
    assert (outside == 0).all()


def test_pictures_in_gray_and_with_alpha_have_a_field_too(run, tmp_path):
    noise(tmp_path / "in" / "gray.png", 20, 20, mode="L")
    noise(tmp_path / "in" / "clear.png", 20, 20, mode="RGBA")
    with Image.open(tmp_path / "in" / "clear.png") as picture:  # what can be seen through is not measured
        picture.putalpha(255)
        picture.save(tmp_path / "in" / "clear.png")
    weights = save_identity(tmp_path / "same.safetensors")
    command = ["evaluate", "in", "--inputs", "in", "--task", "denoise", "--weights", weights, "--tile", 17]
    code, out, _ = run(*command, "--receptive-field", "f.png")
    assert code == 0
    assert [line.split() for line in out] == [
        [name, "50%", "in", "1×1", "90%", "in", "1×1"] for name in ("clear", "gray", "mean")
    ]


def test_a_field_that_the_crop_cuts_off_is_reported(run, tmp_path, monkeypatch):
    noise(tmp_path / "in" / "a.png", 20, 20)
    weights = save_random(tmp_path / "net.safetensors", CONFIGS["v1 ×2"])
    command = ["evaluate", "in", "--inputs", "in", "--task", "upscale", "-s", 2, "--weights", weights]
    command += ["--tile", 17, "--receptive-field", "f.png", "--json", "--overwrite"]
    _, out, err = run(*command)
    share = events(out)[-1]["side_90"] / 17
    assert "the field is larger" not in err
    monkeypatch.setattr("mambair_cli.cli.network_pictures.FULL", share)
    _, _, err = run(*command)
    assert "the field is larger than the crop of 17×17; a larger --tile shows more of it" in err


def test_a_picture_is_replaced_only_with_overwrite(run, tmp_path):
    noise(tmp_path / "in" / "a.png", 20, 20)
    (tmp_path / "f.png").write_bytes(b"mine")
    weights = save_identity(tmp_path / "same.safetensors")
    command = ["evaluate", "in", "--inputs", "in", "--task", "denoise", "--weights", weights, "--tile", 17]
    code, _, err = run(*command, "--receptive-field", "f.png")
    assert (code, (tmp_path / "f.png").read_bytes()) == (2, b"mine")
    assert "f.png: it exists already; --overwrite replaces it" in err
    assert run(*command, "--receptive-field", "f.png", "--overwrite")[0] == 0
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"
    before = (tmp_path / "in" / "a.png").read_bytes()
    for more in (["--receptive-field"], ["--seams", "--seams-picture"]):
        code, _, err = run(*command, *more, "in/a.png", "--overwrite")
        assert (code, (tmp_path / "in" / "a.png").read_bytes()) == (2, before)
        assert "cannot write in/a.png: it is an input; choose another name" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--overlap", "3"], "--receptive-field measures one thing"),
        (["--seams"], "--receptive-field measures one thing"),
        (["--precision", "fp16"], "--receptive-field measures one thing"),
        (["--ensemble"], "--receptive-field measures one thing"),
        (["--border", "3"], "--receptive-field measures one thing"),
        (["--tile", "500"], "no input is as large as the crop of 499×499; give a smaller --tile"),
    ],
)
def test_what_has_no_field_is_refused(run, tmp_path, more, message):
    noise(tmp_path / "in" / "a.png", 12, 12)
    weights = save_identity(tmp_path / "same.safetensors")
    command = ["evaluate", "in", "--inputs", "in", "--task", "denoise", "--weights", weights]
    code, out, err = run(*command, "--receptive-field", "f.png", *more)
    assert (code, out) == (2, [])
    assert message in err
    assert not (tmp_path / "f.png").exists()


@pytest.mark.parametrize(
    ("name", "exit_code", "message"),
    [
        ("f.jpg", 2, "name it f.png"),
        ("-", 2, "name it field.png"),
        ("in/a.png/f.png", 2, "a.png is no folder; choose another folder with --receptive-field"),
    ],
)
def test_a_picture_that_cannot_be_written_is_refused_at_once(run, tmp_path, name, exit_code, message):
    noise(tmp_path / "in" / "a.png", 12, 12)
    code, _, err = run("evaluate", "in", "--task", "upscale", "--receptive-field", name)
    assert code == exit_code
    assert message in err
