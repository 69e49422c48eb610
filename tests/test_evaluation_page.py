"""The page of a measurement: the worst images first, where they differ most, with their numbers."""

import base64
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair_cli.cli import main
from mambair_cli.pages.evaluation import (
    MOST_BEST,
    MOST_WORST,
    SIDE,
    find_largest_error,
    keep_image,
    note_image,
)
from mambair_cli.quality.metrics import psnr


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 200, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Folders "truth" and "done" of ten pictures; return the PSNR of each."""
    monkeypatch.chdir(tmp_path)
    found = {}
    for number in range(10):
        truth = noise(150, 170, number)
        done = truth.copy()
        done[100:140, 120:160] += np.uint8(2 * number + 1)
        for folder, pixels in (("truth", truth), ("done", done)):
            Path(folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(f"{folder}/p{number}.png")
        found[f"p{number}"] = psnr(done, truth)
    return found


def test_a_single_image_is_counted_in_the_singular(folders: dict[str, float]) -> None:
    assert main(["evaluate", "truth/p1.png", "--restored", "done/p1.png", "--page", "page.html"]) == 0
    assert f"1 image: {folders['p1']:.2f} dB" in Path("page.html").read_text()


def test_the_worst_come_first_with_the_part_that_differs_most(folders: dict[str, float]) -> None:
    assert main(["evaluate", "truth", "--restored", "done", "--page", "new/page.html"]) == 0
    page = Path("new/page.html").read_text()
    shown = re.findall(r'<th scope="row">(\w+)<br>([\d.]+) dB', page)
    ordered = sorted(folders, key=lambda name: folders[name])
    assert [name for name, _ in shown] == [*ordered[:8], ordered[9], ordered[8]]
    assert [value for _, value in shown] == [f"{folders[name]:.2f}" for name, _ in shown]
    assert f"10 images: {np.mean(list(folders.values())):.2f} dB" in page
    assert "on average (all channels, border 0)." in page
    first = re.search(r'<tr><th scope="row">p9.*?at (\d+), (\d+)</th>(.*?)</tr>', page)
    assert first
    left, top = int(first[1]), int(first[2])
    assert left <= 120
    assert left + SIDE >= 160
    sources = re.findall(r'src="data:image/webp;base64,([^"]*)"', first[3])
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]
    part = np.s_[top : top + SIDE, left : left + SIDE]
    np.testing.assert_array_equal(pictures[0], np.asarray(Image.open("done/p9.png"))[part])
    np.testing.assert_array_equal(pictures[1], np.asarray(Image.open("truth/p9.png"))[part])


def test_the_input_of_a_network_is_shown_at_the_size_of_its_result(folders: dict[str, float]) -> None:
    for file in list(Path("truth").iterdir())[1:]:
        file.unlink()
    command = ["evaluate", "truth", "--task", "upscale", "-s", "2", "--model", "tiny-x2", "--offline"]
    assert main([*command, "--device", "cpu", "--page", "page.html"]) == 0
    heads = re.findall(r'<th scope="col">(\w*)</th>', Path("page.html").read_text())
    assert heads[:4] == ["", "input", "result", "truth"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_all_kinds_of_samples_are_shown(dtype: type) -> None:
    white = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    image = np.full((20, 30, 1), white, dtype=dtype)
    measured = note_image("a", 1.0, 1.0, None, image, np.zeros_like(image))
    assert (measured.pictures["result"] == 255).all()
    assert measured.pictures["truth"].shape == (20, 30, 3)


def test_only_what_is_shown_is_kept() -> None:
    image = noise(150, 170, 1)
    measured = []
    order = np.random.default_rng(0).permutation(30)
    for number in order:
        keep_image(measured, note_image(str(number), float(number), 1.0, image, image, image))
        assert sum(bool(each.pictures) for each in measured) <= MOST_WORST + MOST_BEST
    assert [each.name for each in measured] == [str(number) for number in range(30)]
    kept = [each.name for each in measured if each.pictures]
    assert kept == [str(number) for number in (*range(MOST_WORST), *range(30 - MOST_BEST, 30))]
    assert all(picture.base is None for each in measured for picture in each.pictures.values())


def test_the_largest_error_is_found_wherever_it_is() -> None:
    truth = np.zeros((400, 500, 3), np.uint8)
    for row, column in ((0, 0), (250, 330), (390, 490)):
        image = truth.copy()
        image[row : row + 10, column : column + 10] = 9
        top, left = find_largest_error(image, truth)
        assert top <= row
        assert left <= column
        assert top + SIDE >= min(row + 10, 400) - 16
        assert left + SIDE >= min(column + 10, 500) - 16
    assert find_largest_error(truth[:50, :60], truth[:50, :60]) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--page", "page.txt"], "a page is an HTML file: page.txt; give a name that ends in .html"),
        (["--page", "taken.html"], "it exists already; --overwrite replaces it"),
        (["--page", "link.html", "--overwrite"], "cannot write link.html: it is an input"),
    ],
)
def test_a_page_that_cannot_be_written_is_refused_before_anything_is_measured(
    folders: dict[str, float], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken.html").write_text("mine")
    os.link(min(Path("done").iterdir()), "link.html")
    assert main(["evaluate", "truth", "--restored", "done", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert Path("taken.html").read_text() == "mine"
    assert main(["evaluate", "truth", "--restored", "done", "--page", "taken.html/page.html"]) == 2
    assert "taken.html is no folder; choose another folder with --page" in capsys.readouterr().err


def test_a_page_of_other_pictures_is_kept(
    folders: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "truth", "--page", "page.html", "--restored"]
    assert main([*command, "done"]) == 0
    assert main([*command, "done"]) == 0  # the same anew
    page = Path("page.html").read_bytes()
    Path("done").rename("better")
    capsys.readouterr()
    assert main([*command, "better"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "mambair: error: cannot write page.html: it shows other pictures; --overwrite replaces it\n"
    assert Path("page.html").read_bytes() == page
    assert main([*command, "better", "--overwrite"]) == 0


def test_one_long_name_does_not_widen_the_lines_of_the_others(
    folders: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    long = "n" * 200
    for folder in ("truth", "done"):
        Path(folder, "p0.png").rename(f"{folder}/{long}.png")
    assert main(["evaluate", "truth", "--restored", "done"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert {*folders, "mean", long} - {"p0"} == set(lines)
    assert all(len(line) < 80 for name, line in lines.items() if name not in (long, "mean"))
