"""Pages that compare pictures: what is in them, what they tell, and what is refused."""

import io
import json
import math
import os
import re
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from pages import pixels_of, read_data
from PIL import Image, ImageCms
from profiles import DISPLAY_P3

from mambair_cli.cli import main
from mambair_cli.pages import screen
from mambair_cli.quality.metrics import psnr, ssim


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.png", noise(40, 60))
    save(tmp_path / "b.png", noise(40, 60) // 2 + 64)
    return ["a.png", "b.png"]


def test_a_page_holds_the_pictures_to_the_bit_and_their_psnr_and_ssim(
    pair: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *pair]) == 0
    assert capsys.readouterr().out == "compare.html\n"
    data = read_data(Path("compare.html"))
    a, b = (np.asarray(Image.open(name)) for name in pair)
    assert [picture["name"] for picture in data["pictures"]] == pair
    np.testing.assert_array_equal(pixels_of(data["pictures"][0]), a)
    np.testing.assert_array_equal(pixels_of(data["pictures"][1]), b)
    assert data["scores"] == [{"a": 0, "b": 1, "psnr": psnr(a, b), "ssim": ssim(a, b)}]


class Addresses(HTMLParser):
    """Collects what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if facts.get("http-equiv") == "Content-Security-Policy":
            self.policy = facts["content"] or ""


def test_a_page_loads_nothing_and_forbids_other_scripts(pair: list[str]) -> None:
    assert main(["compare", *pair]) == 0
    parser = Addresses()
    parser.feed(Path("compare.html").read_text())
    assert parser.found == []
    assert "default-src 'none'" in parser.policy
    assert not re.search(r"https?:|unsafe", parser.policy)
    assert "http" not in re.sub(r"http-equiv", "", Path("compare.html").read_text())


def test_a_name_cannot_become_part_of_the_page(pair: list[str]) -> None:
    name = "</script><script>alert(1)</script>&<b>"
    assert main(["compare", *pair, "--names", f"{name},b"]) == 0
    page = Path("compare.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page
    assert read_data(Path("compare.html"))["pictures"][0]["name"] == name


def test_a_small_picture_is_shown_as_pixels_and_enlarged(pair: list[str]) -> None:
    small = noise(10, 15)
    save(Path("small.png"), small)
    assert main(["compare", "small.png", "b.png"]) == 0
    bicubic, plain, large = read_data(Path("compare.html"))["pictures"]
    assert (bicubic["name"], plain["name"], large["name"]) == (
        "small.png, bicubic",
        "small.png, as pixels",
        "b.png",
    )
    np.testing.assert_array_equal(pixels_of(plain), small)
    assert plain["pixelated"]
    assert not bicubic["pixelated"]
    wanted = Image.fromarray(small).resize((60, 40), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(pixels_of(bicubic), np.asarray(wanted))
    scores = read_data(Path("compare.html"))["scores"]
    assert [(score["a"], score["b"]) for score in scores] == [(0, 2)]


def test_equal_pictures_are_said_to_be_equal(pair: list[str]) -> None:
    assert main(["compare", "a.png", "a.png", "--names", "one,two"]) == 0
    assert read_data(Path("compare.html"))["scores"] == [{"a": 0, "b": 1, "psnr": None, "ssim": 1.0}]


def test_depth_and_profile_are_brought_to_the_screen_and_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    deep = np.full((20, 20), 40000, dtype=np.uint16)
    Image.fromarray(deep).save("deep.png")
    colours = np.zeros((20, 20, 3), dtype=np.uint8)
    colours[:] = (60, 200, 80)
    Image.fromarray(colours).save("wide.png", icc_profile=DISPLAY_P3)
    assert main(["compare", "deep.png", "wide.png"]) == 0
    first, second = read_data(Path("compare.html"))["pictures"]
    assert first["notes"] == ["from 16 bits"]
    np.testing.assert_array_equal(pixels_of(first), np.full((20, 20, 3), round(40000 / 257), dtype=np.uint8))
    assert second["notes"] == ["converted to sRGB by its profile"]
    by_lcms = ImageCms.profileToProfile(
        Image.fromarray(colours),
        ImageCms.ImageCmsProfile(io.BytesIO(DISPLAY_P3)),
        ImageCms.createProfile("sRGB"),
    )
    assert by_lcms is not None
    difference = pixels_of(second).astype(int) - np.asarray(by_lcms)
    assert np.abs(difference).max() <= 2
    assert np.abs(pixels_of(second).astype(int) - colours).max() > 5


def test_transparency_stays(pair: list[str]) -> None:
    pixels = np.dstack([noise(40, 60, 2), np.full((40, 60), 100, dtype=np.uint8)])
    save(Path("clear.png"), pixels)
    assert main(["compare", "clear.png", "b.png"]) == 0
    np.testing.assert_array_equal(pixels_of(read_data(Path("compare.html"))["pictures"][0]), pixels)


def leaf(hidden: int, alpha: int = 255) -> np.ndarray:
    """Return a red square in nothing, (32, 32, 4)."""
    pixels = np.full((32, 32, 4), hidden, np.uint8)
    pixels[..., 3] = 0
    pixels[8:24, 8:24] = 200, 30, 30, alpha
    return pixels


def test_pictures_are_compared_as_they_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    half = leaf(0, 128)
    for name, pixels in (("a", leaf(0)), ("b", leaf(255)), ("c", half), ("d", leaf(0)[..., :3])):
        save(Path(f"{name}.png"), pixels)
    assert main(["compare", *(f"{name}.png" for name in "abcd")]) == 0
    data = read_data(Path("compare.html"))
    scores = {(pair["a"], pair["b"]): pair for pair in data["scores"]}
    assert scores[0, 1] == {"a": 0, "b": 1, "psnr": None, "ssim": 1}
    square = np.array([200, 30, 30])
    on_white = (square * 128 + 255 * 127 + 127) // 255  # differs more than on black
    error = ((on_white - square) ** 2).mean() / 4  # the square has a quarter of the area
    for pair in ((0, 2), (1, 2)):
        assert scores[pair]["psnr"] == pytest.approx(10 * math.log10(255**2 / error))
        assert scores[pair]["ssim"] < 0.99
    assert scores[0, 3]["psnr"] == pytest.approx(10 * math.log10(4 / 3))  # black, and white on a white ground
    notes = [picture["notes"] for picture in data["pictures"]]
    assert all("on black and on white" in note[0] for note in notes[:3])
    assert notes[3] == []


def test_an_index_is_ordered_by_what_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, other in (("alike", leaf(255)), ("fading", leaf(0, 128))):
        save(tmp_path / "a" / f"{name}.png", leaf(0))
        save(tmp_path / "b" / f"{name}.png", other)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "out")]) == 0
    index = (tmp_path / "out/index.html").read_text()
    assert index.index("fading.png</span>") < index.index("alike.png</span>")
    assert re.findall(r"<span>(equal|[\d.]+ dB)</span>", index)[1] == "equal"


def test_an_enlarged_picture_takes_no_colour_from_what_is_not_seen() -> None:
    hidden, plain = (
        screen.enlarge(screen.ScreenPicture("", leaf(value), (32, 32)), 64, 64, "").pixels
        for value in (255, 0)
    )
    np.testing.assert_array_equal(hidden, plain)


def test_a_large_picture_is_reduced_with_a_note_and_shown_in_full_by_region(
    pair: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "MOST_PIXELS", 600)
    assert main(["compare", *pair]) == 0
    first = read_data(Path("compare.html"))["pictures"][0]
    assert pixels_of(first).shape == (20, 30, 3)
    assert (first["width"], first["height"]) == (60, 40)
    assert "reduced from 60×40" in first["notes"][0]
    assert main(["compare", *pair, "--overwrite", "--region", "30,10,20,25"]) == 0
    part = read_data(Path("compare.html"))["pictures"][0]
    np.testing.assert_array_equal(pixels_of(part), noise(40, 60)[10:35, 30:50])


@pytest.mark.parametrize("kind", [np.s_[..., 0], np.s_[..., :2], np.s_[..., :3], np.s_[...]])
def test_a_picture_is_read_for_the_screen_in_bands_of_rows(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth = Image.fromarray(np.dstack([noise(3, 2), noise(3, 2, 1)])[..., :4]).resize((70, 90))
    Image.fromarray(np.ascontiguousarray(np.asarray(smooth)[kind])).save(tmp_path / "a.png")
    whole = screen.read_for_screen(tmp_path / "a.png")
    monkeypatch.setattr(screen, "BAND_PIXELS", 1000)
    np.testing.assert_array_equal(screen.read_for_screen(tmp_path / "a.png").pixels, whole.pixels)
    monkeypatch.setattr(screen, "MOST_PIXELS", 280)  # less than a quarter of each side
    reduced = screen.read_for_screen(tmp_path / "a.png")
    at_once = screen.fit_to_screen("a", whole.pixels)
    assert (reduced.size, reduced.notes) == (at_once.size, at_once.notes)
    assert reduced.pixels.shape == at_once.pixels.shape
    assert np.abs(reduced.pixels.astype(int) - at_once.pixels).mean() < 3


def test_a_picture_takes_little_more_room_than_what_is_shown_of_it(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3000, 2000), np.uint16)).save(tmp_path / "deep.tif")
    tracemalloc.start()
    try:
        screen.read_for_screen(tmp_path / "deep.tif")
        assert tracemalloc.get_traced_memory()[1] < 8 * 3000 * 2000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [(4, 16500), (16500, 4), (1, 40_000)])
@pytest.mark.parametrize("arguments", [[], ["--region", "whole"]])
def test_a_side_that_no_page_can_show_is_reduced_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("a.png"), noise(*size))
    height, width = size
    arguments = [f"0,0,{width},{height}" if each == "whole" else each for each in arguments]
    assert main(["compare", "a.png", "a.png", *arguments]) == 0
    first = read_data(Path("compare.html"))["pictures"][0]
    assert max(pixels_of(first).shape) == 16383
    assert (first["width"], first["height"]) == (width, height)
    assert first["notes"] == [f"reduced from {width}×{height}; --region shows a part in full"]


def test_what_cannot_be_encoded_costs_its_own_page_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(screen, "LONGEST_SIDE", 2**31)
    for folder in ("one", "two"):
        save(Path(folder) / "good.png", noise(16, 16))
        save(Path(folder) / "long.png", noise(1, 16384))
    assert main(["compare", "one", "two"]) == 1
    out, err = capsys.readouterr()
    assert "error: long.png: cannot show a picture of 16384×1 pixels: " in err
    assert "Traceback" not in err
    assert out.splitlines()[-1] == str(Path("compare/index.html"))


def test_a_region_falls_on_pixels_of_the_smallest_picture(pair: list[str]) -> None:
    save(Path("small.png"), noise(10, 15))
    assert main(["compare", "small.png", "b.png", "--region", "9,5,10,10"]) == 0
    _, small, large = read_data(Path("compare.html"))["pictures"]
    np.testing.assert_array_equal(pixels_of(small), noise(10, 15)[1:4, 2:5])
    np.testing.assert_array_equal(pixels_of(large), np.asarray(Image.open("b.png"))[4:16, 8:20])


def test_pictures_without_a_partner_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("before/a", "after/a", "before/b", "before/c"):
        save(Path(f"{name}.png"), noise(24, 32))
    assert main(["compare", "before", "after"]) == 0
    assert "without a partner: before/b.png and 1 other\n" in capsys.readouterr().err


def test_folders_become_an_index_that_begins_with_the_largest_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, (name, change) in enumerate({"x": 9, "deep/y": 60, "z": 0}.items()):
        pixels = noise(24, 32, number) // 2
        save(Path("before") / f"{name}.png", pixels)
        save(Path("after") / f"{name}.webp", pixels + np.uint8(change), lossless=True)
    save(Path("before/alone.png"), noise(24, 32))
    assert main(["compare", "before", "after", "-o", "out"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == str(Path("out/index.html"))
    assert "without a partner: before/alone.png\n" in err
    index = Path("out/index.html").read_text()
    addresses = re.findall(r'<li><a href="(.*?)"', index)
    assert addresses == [f"pictures/{name}.png.html" for name in ("deep/y", "x", "z")]
    wanted = 10 * math.log10(255**2 / 60**2)
    assert f"{wanted:.2f} dB" in index
    assert "equal" in index
    page = Path("out") / addresses[0]
    assert [picture["name"] for picture in read_data(page)["pictures"]] == ["before", "after"]
    assert 'href="../../index.html"' in page.read_text()


def test_a_picture_of_a_folder_that_cannot_be_compared_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two"):
        save(Path(folder) / "good.png", noise(16, 16))
        save(Path(folder) / "bad.png", noise(16, 16 if folder == "one" else 40))
    assert main(["compare", "one", "two", "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["page_failed", "compared", "index"]
    assert "their shapes differ" in lines[0]["message"]
    assert lines[1]["page"] == str(Path("compare/pictures/good.png.html"))
    assert "their shapes differ" in Path("compare/index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png"], "2 to 6 pictures, not 1"),
        (["a.png", "-o", "taken.html"], "2 to 6 pictures, not 1"),
        (["."], "2 to 6 pictures, not 1"),
        (["a.png", "b.png", "--region", "1", "-o", "taken.html"], "--region is 1; it must be the left"),
        (["a.png"] * 7, "2 to 6 pictures, not 7"),
        (["a.png", "."], "folders are compared with folders"),
        (["a.png", "none.png"], "no such file or folder: none.png; check its name"),
        (["--", "a.png", "-o"], "no such file or folder: -o; after -- everything is a file name"),
        (["a.png", "b.png", "--names", "one"], "--names one names 1, and there are 2"),
        (["a.png", "b.png", "--region", "1,2,3"], "--region is 1,2,3; it must be the left column"),
        (["a.png", "b.png", "--region", "50,0,20,20"], "leaves the picture a.png: it has 60×40 pixels"),
        (["a.png", "tall.png"], "their shapes differ"),
        ([".", "..", "-o", "page.html"], "-o page.html names a page; name a folder"),
        (["a.png", "b.png", "-o", "taken.html"], "it exists already; --overwrite replaces it"),
        (["a.png", "b.png", "-o", "c.png"], "a page is an HTML file: c.png; give a name that ends in .html"),
        (["a.png", "b.png", "-o", "b.png", "--overwrite"], "a page is an HTML file: b.png"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(
    pair: list[str], arguments: list[str], message: str, capsys
) -> None:
    save(Path("tall.png"), noise(60, 40))
    Path("taken.html").write_text("mine")
    assert main(["compare", *arguments]) in (1, 2)
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert Path("taken.html").read_text() == "mine"
    assert not Path("compare.html").exists()


@pytest.mark.parametrize("link", [os.link, os.symlink, os.rename])
def test_no_page_takes_the_place_of_an_input_by_any_name(
    pair: list[str], link: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    link("b.png", "b.html")
    second = "b.png" if Path("b.png").exists() else "b.html"
    assert main(["compare", "a.png", second, "-o", "b.html", "--overwrite"]) == 2
    message = "mambair: error: cannot write b.html: it is an input; choose another name\n"
    assert capsys.readouterr() == ("", message)
    assert Path("b.html").read_bytes().startswith(b"\x89PNG")


def test_no_page_of_a_folder_takes_the_place_of_an_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (save(tmp_path / name / "a.png", noise(20, 20, n)) for n, name in enumerate("ab"))
    page = tmp_path / "out/pictures/a.png.html"
    page.parent.mkdir(parents=True)
    page.symlink_to(other)
    folders = [str(one.parent), str(other.parent)]
    assert main(["compare", *folders, "-o", str(tmp_path / "out"), "--overwrite"]) == 2
    assert "a.png.html: it is an input" in capsys.readouterr().err
    assert page.is_symlink()


@pytest.mark.parametrize("inputs", [["one", "two"], ["one/a.png", "two/a.png"]])
def test_a_place_where_no_page_can_be_is_refused_once_before_anything_is_read(
    inputs: list[str], tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    save_two_folders("a.png", "b.png")
    for file in Path("two").iterdir():
        file.write_bytes(b"no picture")
    Path("taken").touch()
    output = "taken/out" if inputs == ["one", "two"] else "taken/page.html"
    assert main(["compare", *inputs, "-o", output]) == 2
    message = "mambair: error: cannot write results: taken is no folder; choose another folder with -o\n"
    assert capsys.readouterr() == ("", message.replace("taken", str(tmp_path / "taken")))


def test_the_files_of_many_pictures_are_not_compared_with_each_page(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    real, looks = os.stat, []

    def count(path, *more, **named):
        looks.append(Path(os.fsdecode(path)).name if isinstance(path, (str, bytes, Path)) else "")
        return real(path, *more, **named)

    counts = []
    for names in (["a.png"], [f"{name}.png" for name in "abcdefgh"]):
        save_two_folders(*names)
        looks.clear()
        with monkeypatch.context() as patched:
            patched.setattr(os, "stat", count)
            assert main(["compare", "one", "two", "--overwrite"]) == 0
        counts.append(looks.count("a.png"))
    assert counts[0] == counts[1]


def test_a_page_that_cannot_be_written_fails_alone(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    save_two_folders("a.png", "b.png", "c.png")
    Path("compare/pictures/b.png.html").mkdir(parents=True)
    assert main(["compare", "one", "two", "--overwrite"]) == 1
    out, err = capsys.readouterr()
    assert "error: b.png: cannot write compare/pictures/b.png.html: it is a folder" in err
    pages = [str(Path(f"compare/pictures/{name}.png.html")) for name in "ac"]
    assert out.splitlines() == [*pages, str(Path("compare/index.html"))]
    index = Path("compare/index.html").read_text()
    assert re.findall(r'<li><a href="(.*?)"', index) == ["pictures/a.png.html", "pictures/c.png.html"]
    assert "<li>b.png: cannot write" in index


def test_pages_of_pictures_with_the_longest_names_have_shorter_ones(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"{start}{'é' * 124}{end}.png" for start, end in (("a", "b"), ("a", "c"), ("", ""))]
    deep = Path("deep") / names[0]
    save_two_folders(*names, str(deep))
    assert main(["compare", "one", "two"]) == 0
    index = Path("compare/index.html").read_text()
    links = [unquote(link) for link in re.findall(r'<li><a href="(.*?)"', index)]
    assert len(set(links)) == 4
    assert all((Path("compare") / link).is_file() for link in links)
    assert all(f"<span>{name}</span>" in index for name in (*names, deep.as_posix()))
    (Path("two") / names[0]).unlink()
    assert main(["compare", "one", "two"]) == 0
    assert sum(path.is_file() for path in Path("compare/pictures").rglob("*.html")) == 3


def test_a_page_of_the_same_pictures_is_replaced_and_another_file_is_not(
    pair: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["compare", *pair]) == 0
        assert main(["compare", *pair, "--names", "one,other", "-o", "named.html"]) == 0
    save(Path("c.png"), noise(40, 60, 3))
    before = Path("compare.html").read_bytes()
    for output in ("compare.html", "named.html"):
        capsys.readouterr()
        assert main(["compare", "a.png", "c.png", "-o", output]) == 2
        assert f"cannot write {output}: it shows other pictures; --over" in capsys.readouterr().err
    assert Path("compare.html").read_bytes() == before
    assert main(["compare", "a.png", "c.png", "--overwrite"]) == 0
    assert Path("compare.html").read_bytes() != before
    Path("compare.html").write_text("<!doctype html>")
    assert main(["compare", *pair]) == 2
    assert Path("compare.html").read_text() == "<!doctype html>"


def test_a_picture_that_is_given_twice_has_two_names(pair: list[str]) -> None:
    assert main(["compare", "a.png", "a.png", "b.png"]) == 0
    names = [picture["name"] for picture in read_data(Path("compare.html"))["pictures"]]
    assert names == ["a.png", "a.png (2)", "b.png"]


def test_damage_is_printed_in_the_shell_too(pair: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(noise(40, 60)).save("whole.jpg", quality=95)
    data = Path("whole.jpg").read_bytes()
    Path("cut.jpg").write_bytes(data[: len(data) // 2])
    assert main(["compare", "a.png", "cut.jpg"]) == 0
    assert "warning: cut.jpg: " in capsys.readouterr().err


def save_pages(path: Path, pages: int) -> None:
    images = [Image.fromarray(noise(40, 60, number)) for number in range(pages)]
    images[0].save(path, save_all=True, append_images=images[1:])


def test_pages_that_are_not_compared_are_counted(pair: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    save_pages(Path("three.tif"), 3)
    save_pages(Path("one.tif"), 1)
    assert main(["compare", "three.tif", "one.tif", "--json"]) == 0
    out, err = capsys.readouterr()
    warnings = json.loads(out)["warnings"]
    assert warnings == [
        "three.tif: the first of 3 pages or frames is shown",
        "the numbers of pages or frames differ: three.tif has 3, one.tif has 1",
    ]
    assert err.splitlines() == [f"mambair: warning: {sentence}" for sentence in warnings]
    assert (
        main(["compare", "three.tif", "three.tif", "--json", "-q", "--region", "0,0,20,20", "--overwrite"])
        == 0
    )
    out, err = capsys.readouterr()
    assert (len(json.loads(out)["warnings"]), err) == (2, "")
    assert main(["compare", *pair, "--json", "--overwrite"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == []


def save_two_folders(*names: str) -> None:
    for number, folder in enumerate(("one", "two")):
        for name in names:
            save(Path(folder, name), noise(16, 16, number))


def test_pages_of_folders_are_counted_too(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    save_two_folders("a.png")
    for folder, pages in (("one", 3), ("two", 1)):
        save_pages(Path(folder, "b.tif"), pages)
    assert main(["compare", "one", "two", "--json"]) == 0
    out, err = capsys.readouterr()
    warnings = {line["input"]: line["warnings"] for line in map(json.loads, out.splitlines()[:-1])}
    assert (warnings["a.png"], len(warnings["b.tif"])) == ([], 2)
    assert "warning: b.tif: one: the first of 3 pages" in err


def test_pictures_without_a_partner_are_events(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    save_two_folders("a.png")
    save(Path("one/b.png"), noise(16, 16))
    save(Path("two/c.png"), noise(16, 16))
    assert main(["compare", "one", "two", "--json", "-q"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    left_out = [(each["why"], each["count"], each["example"], each["kinds"]) for each in events[:2]]
    assert left_out == [("no_partner", 1, str(Path(name)), {}) for name in ("one/b.png", "two/c.png")]
    assert [each["event"] for each in events] == ["left_out", "left_out", "compared", "index"]


def test_an_index_is_replaced_by_one_of_the_same_folders_and_what_it_no_longer_names_goes(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    save_two_folders("a.png", "b &.png")
    assert main(["compare", "one", "two"]) == 0
    Path("compare/pictures/mine.html").write_text("mine")
    Path("two/b &.png").unlink()
    assert main(["compare", "one", "two"]) == 0
    left = sorted(path.name for path in Path("compare/pictures").iterdir())
    assert left == ["a.png.html", "mine.html"]
    assert main(["compare", "two", "one"]) == 2
    assert "index.html: it shows other pictures; --overwrite" in capsys.readouterr().err


def test_an_index_that_lies_removes_nothing_else(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_two_folders("a.png", "b.png")
    assert main(["compare", "one", "two"]) == 0
    page = Path("compare/pictures/b.png.html").rename("page.html")
    Path("compare/pictures/taken.html").write_text("mine")
    index = Path("compare/index.html")
    for name in ("../../page.html", "%2E%2E/%2E%2E/page.html", "taken.html"):
        more = f'<li><a href="pictures/{name}">'
        index.write_text(index.read_text().replace("</ul>", more + "</ul>"))
    Path("two/b.png").unlink()
    assert main(["compare", "one", "two"]) == 0
    assert page.exists()
    assert Path("compare/pictures/taken.html").exists()
