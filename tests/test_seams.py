"""`mambair evaluate --seams`: what tiles change along their borders, and elsewhere."""

import json
import math

import numpy as np
import pytest
from checkpoints import save_identity, save_nearest, save_random
from networks import CONFIGS
from PIL import Image
from test_receptive_field import noise

from mambair_cli.quality.seams import Energy, Seams, TiledImage, average_steps, draw_seams, measure_seams
from mambair_cli.restore.tiling import plan_tiles

PLAN = plan_tiles(64, 96, (64, 48), 0)  # two tiles side by side


def of(change, plan=PLAN, scale=1):
    return measure_seams(TiledImage(change.astype(np.float32), plan, scale))


def test_a_change_is_shared_out_between_borders_and_the_rest():
    change = np.full((64, 96, 3), 2.0)
    change[:, 44:52] = 6.0  # four pixels at each side of the border between columns 47 and 48
    seams = of(change)
    assert (seams.near.rms, seams.elsewhere.rms) == (6.0, 2.0)
    assert (seams.near.count, seams.elsewhere.count) == (64 * 8 * 3, 64 * 88 * 3)
    assert seams.ratio == 3.0
    assert not seams.passes


def test_what_tiles_share_is_near_a_border():
    plan = plan_tiles(64, 96, (64, 56), 16)
    change = np.zeros((128, 192, 1))
    change[:, 2 * 36 : 2 * 60] = 1.0  # columns 40 to 55 are shared, at two pixels for one
    seams = of(change, plan, 2)
    assert (plan.lefts, plan.tile_width) == ((0, 40), 56)
    assert (seams.near.rms, seams.elsewhere.rms) == (1.0, 0.0)
    assert seams.near.count == 128 * 48


def test_borders_in_both_directions_count():
    plan = plan_tiles(80, 80, 40, 0)
    change = np.zeros((80, 80, 1))
    change[36:44], change[:, 36:44] = 1.0, 1.0
    assert (of(change, plan).near.rms, of(change, plan).elsewhere.rms) == (1.0, 0.0)


def test_an_edge_between_tiles_is_found_where_the_change_is_as_large_elsewhere():
    rough = np.random.default_rng(0).normal(0, 0.2, (64, 96, 3))
    apart = np.where(np.arange(96) < 48, 1.0, -1.0)[None, :, None] + rough
    seams = of(apart)
    assert seams.ratio == pytest.approx(1.0, abs=0.05)
    assert seams.edge_ratio > 5
    assert not seams.passes
    assert of(rough * 5).passes


def test_a_change_that_rounding_hides_passes():
    change = np.zeros((64, 96, 3))
    change[:, 44:52] = 0.5
    assert of(change).ratio == math.inf
    assert of(change).passes
    assert not of(change * 1.01).passes
    assert of(np.zeros((64, 96, 3))).ratio == 1.0


def test_steps_are_averaged_along_a_border():
    change = np.zeros((40, 3, 1))
    change[:, 1, 0] = np.tile([1.0, -1.0], 20)  # detail: cancels out
    change[:16, 2, 0] = 3.0
    steps = average_steps(change)
    assert steps.shape == (2, 2, 1)
    assert steps[:, :, 0] == pytest.approx(np.array([[0.0, 3.0], [0.0, 0.0]]))
    assert average_steps(change[:5]).shape == (1, 2, 1)


def test_energies_add_up():
    several = Seams(near=Energy.of(np.array([3.0]))) + Seams(near=Energy.of(np.array([4.0, 5.0])))
    assert several.near == Energy(50.0, 3)
    assert several.near.rms == pytest.approx(math.sqrt(50 / 3))


def test_a_picture_marks_where_tiles_meet():
    change = np.zeros((64, 96, 3), np.float32)
    change[:, 48:] = 8.0
    picture = draw_seams(TiledImage(change, PLAN, 1), "change")
    pixels = np.asarray(picture)
    inner = pixels[12 + 26 : 12 + 26 + 64, 12 : 12 + 96]
    assert (inner[:, :48] == 128).all()
    assert (inner[:, 48:] == 128 + 8 * 8).all()  # 127 / 8 is over 8 and less than 16
    red = (pixels == (255, 0, 0)).all(axis=2)
    assert red[12 + 26 - 5, 12 + 48]
    assert not red[:, 12 + 10 : 12 + 40].any()


def test_a_network_that_looks_at_one_pixel_leaves_no_seam(run, tmp_path):
    noise(tmp_path / "in" / "a.png", 96, 80)
    noise(tmp_path / "in" / "small.png", 12, 12)
    weights = save_nearest(tmp_path / "x2.safetensors", 2)
    command = ["evaluate", "in", "--task", "upscale", "-s", 2, "--weights", weights, "--seams"]
    code, out, err = run(*command, "--tile", 24, "--overlap", 4, "--json")
    assert code == 0
    first, total = map(json.loads, out)
    assert first["event"] == "image"
    assert first["near"] == pytest.approx(0, abs=1e-3)
    more = {"limit": 1.5, "model": "x2.safetensors", "images": 1, "with_seams": 0, "failed": 0}
    assert total == {**first, "event": "seams", "name": "all", **more}
    assert total["passes"]
    assert "left out small: its input is a single tile" in err


def test_one_long_name_does_not_widen_the_lines_of_the_others(run, tmp_path):
    for name in ("a", "n" * 200):
        noise(tmp_path / "in" / f"{name}.png", 64, 64)
    weights = save_nearest(tmp_path / "x2.safetensors", 2)
    command = ["evaluate", "in", "--task", "upscale", "-s", 2, "--weights", weights, "--tile", 21]
    for more in (["--seams", "--overlap", 4], ["--receptive-field", "field.png"]):
        code, out, _ = run(*command, *more)
        assert code == 0
        assert len(next(line for line in out if line.startswith("a "))) < 120


def test_a_network_that_looks_further_leaves_seams_without_overlap(run, tmp_path):
    noise(tmp_path / "in" / "a.png", 120, 60)
    noise(tmp_path / "in" / "b.png", 60, 100, seed=1)
    command = ["evaluate", "in", "--task", "upscale", "--inputs", "in", "--model", "tiny-x2", "-s", 2]
    code, out, err = run(*command, "--seams", "--tile", 40, "--overlap", 0, "--seams-picture", "new/s.png")
    assert code == 1
    assert out[-1].startswith("all")
    assert out[-1].endswith("  seam in 2 of 2 images")
    assert "wrote new/s.png of " in err
    worst = err.split("wrote new/s.png of ")[1].strip()
    with Image.open("new/s.png") as picture:
        widths = {"a": 240, "b": 120}
        assert picture.size[1] == {"a": 120, "b": 200}[worst] + 2 * 12 + 26
        assert picture.size[0] >= widths[worst] + 24
    lines = {line.split()[0]: float(line.split("ratio")[1].split()[0]) for line in out}
    code, out, _ = run(*command, "--seams", "--tile", 40, "--overlap", 16)
    overlapped = {line.split()[0]: float(line.split("ratio")[1].split()[0]) for line in out}
    assert overlapped["all"] < 0.7 * lines["all"]


def test_a_seam_in_one_image_fails_however_many_others_pass(run, tmp_path, monkeypatch):
    for number in range(3):
        noise(tmp_path / "in" / f"{number}.png", 40, 40, seed=number)
    weights = save_identity(tmp_path / "same.safetensors")
    even = Energy(100.0, 100)
    seen = iter([Seams(even, even, even, even), Seams(even, even, even, even)])
    one_seam = Seams(Energy(6.4, 1), even, Energy(6.4, 1), even)
    monkeypatch.setattr("mambair_cli.quality.seams.measure_seams", lambda both: next(seen, one_seam))
    command = ["evaluate", "in", "--inputs", "in", "--task", "denoise", "--weights", weights, "--seams"]
    code, out, _ = run(*command, "--tile", 24, "--overlap", 4, "-q")
    assert code == 1
    assert [line.split("  ")[-1] for line in out] == ["no seam", "no seam", "seam", "seam in 1 of 3 images"]


@pytest.mark.parametrize("name", ["v2", "U-Net", "v1 gray"])
def test_other_networks_are_measured_too(run, tmp_path, name):
    noise(tmp_path / "in" / "a.png", 64, 64)
    weights = save_random(tmp_path / "net.safetensors", CONFIGS[name])
    command = ["evaluate", "in", "--inputs", "in", "--task", "denoise", "--weights", weights, "--seams"]
    code, out, _ = run(*command, "--tile", 32, "--overlap", 0, "--json")
    total = json.loads(out[-1])
    assert code == int(not total["passes"])
    assert 0 < total["elsewhere"] < math.inf
    assert total["near"] > total["elsewhere"]


def test_large_images_are_measured_in_their_middle(run, tmp_path, monkeypatch):
    monkeypatch.setattr("mambair_cli.quality.seams.WHOLE_SIDE", 40)
    noise(tmp_path / "in" / "a.png", 200, 50)
    weights = save_identity(tmp_path / "same.safetensors")
    command = ["evaluate", "in", "--inputs", "in", "--task", "denoise", "--weights", weights, "--seams"]
    code, _, _ = run(*command, "--tile", 16, "--overlap", 2, "--seams-picture", "s.png")
    assert code == 0
    with Image.open("s.png") as picture:
        assert picture.size[1] == 40 + 2 * 12 + 26


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seams"], "no input has borders of tiles: 256 pixels, overlap 16; give another --tile"),
        (["--seams", "--tile", "16", "--overlap", "14"], "no input has borders of tiles: 16 pixels"),
        (["--seams", "--luma"], "--seams compares no truth: --luma; leave it out"),
        (["--seams", "--border", "2"], "--seams compares no truth: --border 2; leave it out"),
        (["--seams-picture", "s.png"], "only --seams draws it: --seams-picture s.png; leave it out"),
        (["--overwrite"], "no file is written: --overwrite; leave it out"),
        (["--seams", "--seams-picture", "s.gif"], "name it s.png"),
    ],
)
def test_what_has_no_seams_is_refused(run, tmp_path, more, message):
    noise(tmp_path / "in" / "a.png", 40, 40)
    weights = save_identity(tmp_path / "same.safetensors")
    command = ["evaluate", "in", "--inputs", "in", "--task", "denoise", "--weights", weights]
    code, out, err = run(*command, *more)
    assert (code, out) == (2, [])
    assert message in err
