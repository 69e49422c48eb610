"""--compare: a run also writes pages that compare its inputs and its results."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from pages import pixels_of, read_data
from PIL import Image

from mambair_cli.cli import main

LOCAL = ("--offline", "--device", "cpu", "--compare")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two pictures of a folder, one of them in a folder below."""
    monkeypatch.chdir(tmp_path)
    names = [Path("photos/a.png"), Path("photos/deep/b.jpg")]
    for number, name in enumerate(names):
        name.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (16, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(name, quality=97)
    return names


def read_rgb(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_page_lies_next_to_a_single_result(photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upscale", str(photos[0]), "-s", "2", "-o", "large.png", *LOCAL]) == 0
    assert capsys.readouterr().out.splitlines() == ["large.png", "large_compare.html"]
    bicubic, before, after = read_data(Path("large_compare.html"))["pictures"]
    assert [bicubic["name"], before["name"], after["name"]] == [
        "a.png, bicubic",
        "a.png, as pixels",
        "tiny-x2",
    ]
    np.testing.assert_array_equal(pixels_of(before), read_rgb(photos[0]))
    np.testing.assert_array_equal(pixels_of(after), read_rgb(Path("large.png")))


def test_a_folder_of_results_gets_a_folder_of_pages(
    photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["denoise", "photos", "--sigma", "25", "-o", "out", *LOCAL]
    assert main([*command, "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events[-2:]] == ["index", "summary"]
    assert events[-2]["page"] == str(Path("out/compare/index.html"))
    before, after = read_data(Path("out/compare/pictures/deep/b.jpg.html"))["pictures"]
    assert (before["name"], after["name"]) == ("b.jpg", "tiny-denoise")
    np.testing.assert_array_equal(pixels_of(after), read_rgb(Path("out/deep/b.jpg")))
    # The pages are no pictures to restore, and what was done before has its page again.
    Path("out/deep/b.jpg").unlink()
    assert main([*command, "--resume"]) == 0
    index = Path("out/compare/index.html").read_text()
    assert "pictures/a.png.html" in index
    assert "pictures/deep/b.jpg.html" in index


def test_workers_write_the_same_pages(photos: list[Path]) -> None:
    for folder, more in (("one", ()), ("two", ("--workers", "2"))):
        assert main(["dejpeg", "photos", "-o", folder, *LOCAL[:1], "--compare", *more]) == 0
    first, second = (Path(folder, "compare/pictures/deep/b.jpg.html") for folder in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_no_page_takes_the_place_of_an_input(photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    os.link(photos[0], "large_compare.html")
    command = ["upscale", str(photos[0]), "-s", "2", "-o", "large.png", *LOCAL, "--overwrite"]
    assert main(command) == 2
    assert "cannot write large_compare.html: it is an input" in capsys.readouterr().err
    assert Path("large_compare.html").read_bytes() == photos[0].read_bytes()
    assert not Path("large.png").exists()


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_page_that_exists_is_refused_before_anything_is_computed(
    photos: list[Path], is_taken: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path("large_compare.html")
    page.write_text("mine")
    more = [] if is_taken else ["--overwrite"]
    code = main(["upscale", str(photos[0]), "-s", "2", "-o", "large.png", *LOCAL, *more])
    assert (code, Path("large.png").exists()) == ((2, False) if is_taken else (0, True))
    assert (page.read_text() == "mine") == is_taken
    assert (
        "large_compare.html: it exists already; --overwrite replaces it" in capsys.readouterr().err
    ) == is_taken


def test_a_page_of_another_result_is_kept(photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upscale", str(photos[0]), "-s", "2", "-o", "large.png", *LOCAL]) == 0
    code = main(["upscale", str(photos[1]), "-s", "2", "-o", "large.jpg", *LOCAL])
    assert (code, Path("large.jpg").exists()) == (2, False)
    assert "large_compare.html: it shows other pictures" in capsys.readouterr().err


def test_pages_that_are_not_compared_are_counted(
    photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    image = Image.open(photos[0])
    image.save("in.tif", save_all=True, append_images=[image])
    assert main(["upscale", "in.tif", "-s", "2", "-o", "large.tif", "--json", *LOCAL]) == 0
    out, err = capsys.readouterr()
    (compared,) = [each for each in map(json.loads, out.splitlines()) if each["event"] == "compared"]
    assert len(compared["warnings"]) == 2
    assert "warning: in.tif: the first of 2 pages or frames is shown" in err


def test_a_result_without_a_file_has_no_page(photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upscale", str(photos[0]), "-s", "2", "-o", "-", *LOCAL]) == 2
    assert "is not from a file to a file; leave it out" in capsys.readouterr().err


def test_a_failed_image_does_not_keep_the_pages_of_the_others(photos: list[Path]) -> None:
    Path("photos/broken.png").write_bytes(b"no picture")
    assert main(["denoise", "photos", "--sigma", "15", "-o", "out", *LOCAL]) == 1
    index = Path("out/compare/index.html").read_text()
    assert "a.png" in index
    assert "broken" not in index


def test_pages_of_results_with_long_names_have_shorter_ones(photos: list[Path]) -> None:
    name = f"{'n' * 245}.png"
    photos[0].rename(f"photos/{name}")
    assert main(["upscale", f"photos/{name}", "-s", "2", *LOCAL]) == 0
    (page,) = Path("photos").glob("*_compare.html")
    assert read_data(page)["pictures"][0]["name"] == f"{name}, bicubic"
    assert main(["upscale", f"photos/{name}", "-s", "2", "--preview", *LOCAL[:3]]) == 0
    assert len(list(Path("photos").glob("*_preview.html"))) == 1


def test_a_place_where_no_page_can_be_is_refused_before_anything_is_computed(
    photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out").mkdir()
    Path("out/compare").touch()
    assert main(["denoise", "photos", "--sigma", "15", "-o", "out", *LOCAL]) == 2
    assert "compare is no folder; choose another folder with -o" in capsys.readouterr().err
    assert [path.name for path in Path("out").iterdir()] == ["compare"]


def test_a_page_that_cannot_be_written_does_not_keep_the_pages_of_the_others(
    photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out/compare/pictures/a.png.html").mkdir(parents=True)
    assert main(["denoise", "photos", "--sigma", "15", "-o", "out", *LOCAL]) == 1
    assert "error: a.png: cannot write out/compare/pictures/a.png.html" in capsys.readouterr().err
    index = Path("out/compare/index.html").read_text()
    assert "pictures/deep/b.jpg.html" in index
    assert "<li>a.png: cannot write" in index
