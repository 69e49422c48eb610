"""Edges that meet: what leaves a picture at one side comes back at the other, through every step."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mambair_cli import Restorer
from mambair_cli.checkpoints.catalog import Task
from mambair_cli.cli import main
from mambair_cli.images.resize_and_convert import reduce_samples
from mambair_cli.quality.seams import TiledImage, measure_seams
from mambair_cli.restore.engine import Engine
from mambair_cli.restore.row_window import Surrounded
from mambair_cli.restore.tiling import Plan, plan_tiles
from mambair_cli.runs import image_job
from mambair_cli.runs.fingerprint import Fingerprint

LOCAL = ("--offline", "--device", "cpu")


def texture(height: int, width: int, samples: int = 3, seed: int = 0) -> np.ndarray:
    """Make a picture whose edges meet: waves of whole numbers of periods, and some noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    waves = sum(
        np.sin(
            2
            * np.pi
            * (random.integers(1, 7) * x + random.integers(1, 7) * y + random.random(samples)[:, None, None])
        )
        for _ in range(6)
    )
    grain = random.random((samples, height, width))
    return (0.5 + 0.05 * waves + 0.1 * grain).clip(0, 1).transpose(1, 2, 0).astype(np.float32)


def restorer(task: Task = "upscale", model: str = "tiny-x2", **options) -> Restorer:
    settings = {"tile": 48, "overlap": 16, "device": "cpu", "offline": True, "bare": True, **options}
    return Restorer(task, model=model, **settings)


@given(
    st.integers(1, 500),
    st.integers(1, 500),
    st.integers(2, 130),
    st.data(),
    st.sampled_from(["x", "y", "both"]),
)
def test_the_first_tile_and_the_last_one_are_the_same_part(height, width, tile, data, wrap) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    plan = plan_tiles(height, width, tile, overlap, wrap)
    assert plan.image_size == (height, width)
    rows = plan.tops, plan.tile_height, height, wrap != "x"
    columns = plan.lefts, plan.tile_width, width, wrap != "y"
    for starts, side, length, is_around in (rows, columns):
        steps = [following - start for start, following in pairwise(starts)]
        assert starts[0] == 0
        if is_around:
            assert starts[-1] == length
            assert all(0 < step <= side - min(overlap, length) for step in steps)
        else:
            assert starts[-1] == length - side
    assert plan.place_in_image((plan.tops[-1], 0))[0] == plan.place_in_image((0, 0))[0] or wrap == "x"
    assert all(0 <= top < height and 0 <= left < width for top, left in map(plan.place_in_image, plan))


@pytest.mark.parametrize("wrap", ["x", "y", "both"])
@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
def test_what_surrounds_an_image_is_its_other_end(wrap, rows_at_once) -> None:
    image = texture(20, 33)
    plan = plan_tiles(20, 33, 12, 4, wrap)
    top, left = plan.image_corner
    below, right = plan.height - top - 20, plan.width - left - 33
    wanted = np.pad(image, ((top, below), (left, right), (0, 0)), mode="wrap")
    asked: list[tuple[int, int]] = []

    def read(first: int, last: int) -> np.ndarray:
        asked.append((first, last))
        return image[first:last]

    around = Surrounded(read, plan)
    cuts = range(0, plan.height, rows_at_once)
    got = np.concatenate([around(cut, min(cut + rows_at_once, plan.height)) for cut in cuts])
    assert np.array_equal(got, wanted)
    inside = asked[1:] if wrap != "x" else asked
    assert [first for first, _ in inside] == [0, *(last for _, last in inside[:-1])]  # in order, each once


@pytest.mark.parametrize(
    ("wrap", "dtype", "samples"),
    [("x", np.float32, 3), ("y", np.float32, 3), ("both", np.uint8, 1), ("both", np.uint8, 4)],
)
def test_a_shifted_picture_gives_the_shifted_result(wrap, dtype, samples) -> None:
    """The grid of tiles is the same after a shift by one tile, so nothing may tell where the edge was."""
    image = texture(40, 60, samples)
    image = image if dtype is np.float32 else (image * 255).round().astype(dtype)
    around, plain = restorer(wrap=wrap, tile=32, overlap=12), restorer(tile=32, overlap=12)
    plan = around.plan(40, 60)
    down, across = (plan.tops[1] if wrap != "x" else 0), (plan.lefts[1] if wrap != "y" else 0)
    assert {down, across} <= {0, 20}

    def compare(restore: Restorer) -> float:
        there, back = restore(image), restore(np.roll(image, (down, across), (0, 1)))
        assert there.shape == (80, 120, samples)
        return np.abs(back.astype(float) - np.roll(there, (2 * down, 2 * across), (0, 1))).max()

    step = 2e-6 if dtype is np.float32 else 1
    assert compare(around) <= step
    assert compare(plain) > 5 * step


def test_the_seam_audit_passes_across_the_edge() -> None:
    image = texture(64, 64)
    around = np.pad(image, ((32, 32), (32, 32), (0, 0)), mode="wrap")
    whole = restorer(tile=128, overlap=0)(around)[64:-64, 64:-64]

    def audit(restored: np.ndarray) -> float:
        change = np.roll((restored - whole) * 255, (64, 64), (0, 1))  # the edges are in the middle now
        plan = Plan(64, 64, 36, 36, 8, (0, 28), (0, 28))
        seams = measure_seams(TiledImage(change, plan, 2))
        return max(seams.ratio, seams.edge_ratio)

    assert audit(restorer(wrap="both")(image)) < 1.5
    assert audit(restorer()(image)) > 2.5


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_a_file_read_row_after_row_gives_the_same(tmp_path: Path, monkeypatch, strength) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray((texture(100, 50)[..., 0] * 255).astype(np.uint8)).save("in.png")
    monkeypatch.setattr(image_job, "DECODED_BYTES", 100)  # nothing is decoded whole
    command = ["upscale", "in.png", "-s", "2", "--tile", "48", "--model", "tiny-x2", "--wrap", "both"]
    assert main([*command, "--strength", str(strength), *LOCAL]) == 0
    given = np.array(Image.open("in.png"))
    wanted = restorer(bare=False, overlap=None, wrap="both", strength=strength)(given)
    assert np.array_equal(np.array(Image.open("in_x2.png")), wanted)


def test_workers_give_the_bytes_of_one_process(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray((texture(40, 60) * 255).astype(np.uint8)).save("in.png")
    for name, more in (("one", ()), ("two", ("--workers", "2")), ("plain", ("--wrap", "none"))):
        command = ("upscale", "in.png", "-s", "2", "--tile", "32", "--model", "tiny-x2", "--wrap", "x")
        assert main([*command, *LOCAL, *more, "-o", f"{name}.png"]) == 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    assert Path("one.png").read_bytes() != Path("plain.png").read_bytes()


@pytest.mark.parametrize(("height", "width"), [(60, 96), (30, 41), (59, 7)])
@pytest.mark.parametrize("wrap", ["x", "y", "both"])
def test_a_reduced_edge_is_made_from_both_sides(height, width, wrap) -> None:
    image = texture(120, 192)
    there = reduce_samples(image, height, width, wrap)
    three = np.tile(image, (3 if wrap != "x" else 1, 3 if wrap != "y" else 1, 1))
    rows = slice(height, 2 * height) if wrap != "x" else slice(None)
    columns = slice(width, 2 * width) if wrap != "y" else slice(None)
    size = height * (3 if wrap != "x" else 1), width * (3 if wrap != "y" else 1)
    np.testing.assert_allclose(there, reduce_samples(three, *size)[rows, columns], atol=2e-6)
    assert np.abs(there - reduce_samples(image, height, width)).max() > 1e-3


def test_a_file_that_is_reduced_has_no_edge_either(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = (texture(60, 96) * 255).astype(np.uint8)
    frames = [Image.fromarray(np.roll(image, shift, (0, 1))) for shift in ((0, 0), (30, 48))]
    for name, frame in zip(("a", "b"), frames, strict=True):
        frame.save(f"{name}.png")
        command = ["upscale", f"{name}.png", "-s", "1.5", "--model", "tiny-x2", "--wrap", "both"]
        assert main([*command, "--tile", "46", "--overlap", "16", *LOCAL, "-o", f"{name}2.png"]) == 0
    there, back = (np.array(Image.open(f"{name}2.png")).astype(int) for name in ("a", "b"))
    assert there.shape == (90, 144, 3)
    assert np.abs(np.roll(there, (45, 72), (0, 1)) - back).max() <= 1


@pytest.mark.parametrize("wrap", ["x", "y", "both"])
@pytest.mark.parametrize("overlap", [0, 8])
def test_pictures_of_one_pixel_a_side_are_restored(wrap, overlap) -> None:
    restore = restorer(wrap=wrap, tile=16, overlap=overlap)
    for height, width in ((1, 1), (5, 1), (1, 7), (40, 1), (1, 40)):
        for samples in (3, 4):
            image = texture(height, width, samples)
            assert restore(image).shape == (2 * height, 2 * width, samples)


def test_smaller_tiles_for_want_of_memory_surround_the_image_too(monkeypatch) -> None:
    image = texture(80, 80)
    wanted = restorer(wrap="both", tile=32, overlap=16)
    launch = Engine.launch

    def refuse_large(engine, tiles, corners, seed):
        if tiles.shape[1] > 48:
            raise torch.OutOfMemoryError("no")
        return launch(engine, tiles, corners, seed)

    monkeypatch.setattr(Engine, "launch", refuse_large)
    got, report = restorer(wrap="both", tile=72).restore(image)
    assert report.shrunk
    assert report.plan.wrap == "both"
    assert report.plan.image_size == (80, 80)
    assert got.shape == (160, 160, 3)
    smaller = wanted.with_settings(replace(wanted.own, tile=max(report.plan.tile_height, 33)))
    assert np.abs(got - smaller(image)).mean() < 2e-3


def test_it_is_part_of_the_fingerprint_and_of_no_older_one() -> None:
    plain, around = Fingerprint.of(restorer()), Fingerprint.of(restorer(wrap="x"))
    assert plain.digest() != around.digest()
    assert replace(around, own=replace(around.own, wrap="none")) == plain
    assert "wrap" not in plain.describe()


def test_a_wrong_direction_is_refused_in_a_line(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["upscale", "in.png", "--wrap", "z"]) == 2
    assert "--wrap" in capsys.readouterr().err


def test_a_preview_cannot_show_it(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray((texture(64, 90) * 255).astype(np.uint8)).save("in.png")
    assert main(["upscale", "in.png", "--wrap", "x", "--preview", *LOCAL]) == 2
    assert "--wrap x" in capsys.readouterr().err
