"""What pages of a TIFF file have of their own: colour profiles, orientations, and what is said of them."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pictures import encode, noise
from PIL import Image
from profiles import ADOBE_RGB, DISPLAY_P3

from mambair_cli.images import read_picture
from mambair_cli.images.source import Source
from mambair_cli.images.tiff import read_pages
from mambair_cli.images.tiff_directories import (
    LONG,
    TEXT,
    ExifEntry,
    append_directory,
    read_directory,
    read_header,
)
from mambair_cli.inspection.inspect_image import describe_inspection, inspect_image


def save_pages(path: str, pages: list[dict[str, Any]], samples: list[np.ndarray]) -> None:
    """Save pages, each with options of its own."""
    with tifffile.TiffWriter(path) as file:
        for options, page in zip(pages, samples, strict=True):
            file.write(page, photometric="rgb", metadata=None, **options)


PAGES = [noise(20, 30, 3, seed=seed) for seed in range(3)]
ORIENTATION = 274


def the_error(stderr: str) -> str:
    """Return the line of an error."""
    (line,) = [line for line in stderr.splitlines() if line.startswith("mambair: error: ")]
    return line


@pytest.fixture
def denoise(run: Any, weights: Path) -> Any:
    """Run a command that changes nothing, and return (exit code, stderr)."""

    def call(*arguments: str) -> tuple[int, str]:
        code, _, err = run("denoise", *arguments, "--weights", weights / "same.safetensors", "--overwrite")
        return code, err

    return call


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize(
    "profiles",
    [
        (ADOBE_RGB, DISPLAY_P3, ADOBE_RGB),
        (ADOBE_RGB, ADOBE_RGB[:-1] + b"!", ADOBE_RGB),
        (ADOBE_RGB, ADOBE_RGB, None),
        (None, None, ADOBE_RGB),
    ],
    ids=["two", "equally long", "none last", "none first"],
)
def test_pages_of_several_profiles_are_refused(denoise: Any, profiles: tuple[Any, ...], strip: bool) -> None:
    save_pages("in.tif", [{"iccprofile": profile} for profile in profiles], PAGES)
    code, err = denoise("in.tif", "-o", "out.tif", *(["--strip"] if strip else []))
    assert code == 1
    assert the_error(err).endswith(
        "its 3 pages differ in their colour profiles; convert them to one profile, "
        "or split it into single images"
    )
    assert not Path("out.tif").exists()


def test_a_profile_that_all_pages_have_is_kept(denoise: Any) -> None:
    save_pages("in.tif", [{"iccprofile": ADOBE_RGB}] * 3, PAGES)
    assert denoise("in.tif", "-o", "out.tif")[0] == 0
    with tifffile.TiffFile("out.tif") as file:
        assert [page.iccprofile for page in file.pages] == [ADOBE_RGB] * 3


def test_pages_between_others_do_not_count(denoise: Any) -> None:
    """Profiles of smaller copies and masks, which are not read."""
    options = [{"iccprofile": ADOBE_RGB}, {"subfiletype": 1}, {"iccprofile": ADOBE_RGB}]
    save_pages("in.tif", options, [PAGES[0], PAGES[1][:8, :8], PAGES[2]])
    assert denoise("in.tif", "-o", "out.tif")[0] == 0
    with tifffile.TiffFile("out.tif") as file:
        assert [page.iccprofile for page in file.pages] == [ADOBE_RGB] * 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pages_that_are_turned_alike_become_upright(denoise: Any, orientation: int) -> None:
    turned = {"extratags": [(ORIENTATION, 3, 1, orientation, True)]}
    wanted = []
    for number, page in enumerate(PAGES):
        save_pages(f"{number}.tif", [turned], [page])
        assert denoise(f"{number}.tif", "-o", "one.tif")[0] == 0
        wanted.append(tifffile.imread("one.tif"))
    save_pages("in.tif", [turned] * 3, PAGES)
    assert denoise("in.tif", "-o", "out.tif")[0] == 0
    with tifffile.TiffFile("out.tif") as file:
        assert len(file.pages) == 3
        for page, pixels in zip(file.pages, wanted, strict=True):
            assert np.array_equal(page.asarray(), pixels)


def test_pages_that_are_turned_differently_are_refused(denoise: Any) -> None:
    save_pages("in.tif", [{}, {"extratags": [(ORIENTATION, 3, 1, 6, True)]}], PAGES[:2])
    code, err = denoise("in.tif", "-o", "out.tif")
    assert (code, the_error(err).rpartition(": ")[2]) == (
        1,
        "its 2 pages are rotated differently; split it into single images",
    )


def test_pages_whose_extra_samples_mean_different_things_are_refused(denoise: Any) -> None:
    rgba = noise(20, 30, 4)
    save_pages("in.tif", [{"extrasamples": [kind]} for kind in ("unspecified", "unassalpha")], [rgba, rgba])
    code, err = denoise("in.tif", "-o", "out.tif")
    assert code == 1
    assert "its 2 pages differ in size or kind; split it" in the_error(err)


# What is said of pages

TITLE, DOCUMENT, PAGE_NAME, PAGE_NUMBER, PRINTER, XMP = 270, 269, 285, 297, 337, 700
X_POSITION, X_RESOLUTION, UNIT = 286, 282, 296


def texts(**values: str) -> list[tuple[int, int, int, Any, bool]]:
    names = {"document": DOCUMENT, "page": PAGE_NAME, "printer": PRINTER}
    return [(names[name], 2, 0, value, True) for name, value in values.items()]


def tags(path: str) -> list[dict[int, Any]]:
    with tifffile.TiffFile(path) as file:
        return [{tag.code: tag.value for tag in page.tags} for page in file.pages]


def save_book(path: str, byteorder: Any = "<", **options: Any) -> None:
    """Save three pages, each with texts, a number, a place, XMP and a resolution of its own."""
    with tifffile.TiffWriter(path, byteorder=byteorder) as file:
        for number, page in enumerate(PAGES):
            extra = [
                *texts(document="Letters", page=f"folio {number}", printer="press"),
                (PAGE_NUMBER, 3, 2, (number + 4, 9), True),
                (X_POSITION, 5, 1, (number, 3), True),
                (XMP, 1, 0, f'<x tiff:ImageWidth="{number}"/>'.encode(), True),
            ]
            fields = {"resolution": (300 + number, 100 + number), "resolutionunit": 2, **options}
            file.write(
                page, photometric="rgb", metadata=None, description=f"{number}", extratags=extra, **fields
            )


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_pages_keep_what_is_said_of_each(
    run: Any, weights: Path, byteorder: str, big: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if big:
        monkeypatch.setattr("mambair_cli.images.writers._BIGTIFF_BYTES", 0)
    save_book("in.tif", byteorder)
    code, _, err = run("upscale", "in.tif", "-o", "out.tif", "--weights", weights / "x2.safetensors")
    assert (code, "left out" in err) == (0, False)
    before, after = tags("in.tif"), tags("out.tif")
    assert len(after) == 3
    for old, new in zip(before, after, strict=True):
        assert (new[256], new[257]) == (60, 40)
        for tag in (TITLE, DOCUMENT, PAGE_NAME, PAGE_NUMBER, PRINTER, X_POSITION, X_RESOLUTION, UNIT):
            assert new[tag] == old[tag]
        assert new[XMP] == b'<x tiff:ImageWidth="60"/>'
    with tifffile.TiffFile("out.tif") as file:
        for page, pixels in zip(file.pages, PAGES, strict=True):
            assert np.array_equal(page.asarray(), pixels.repeat(2, axis=0).repeat(2, axis=1))


def test_pages_that_say_nothing_get_nothing_of_the_first(denoise: Any) -> None:
    first = {"extratags": [*texts(page="folio"), (XMP, 1, 0, b"<x/>", True)], "resolution": (300, 300)}
    save_pages("in.tif", [{**first, "resolutionunit": 2}, {}, {}], PAGES)
    assert denoise("in.tif", "-o", "out.tif")[0] == 0
    first, *others = tags("out.tif")
    assert (first[PAGE_NAME], first[XMP], first[X_RESOLUTION]) == ("folio", b"<x/>", (300, 1))
    for page in others:
        assert not {PAGE_NAME, XMP} & set(page)
        assert page[X_RESOLUTION] == (1, 1)


def test_sizes_of_pixels_grow_on_every_page(run: Any, weights: Path) -> None:
    save_book("in.tif", resolutionunit=1)  # without a unit
    assert run("upscale", "in.tif", "-o", "out.tif", "--weights", weights / "x2.safetensors")[0] == 0
    assert [page[X_RESOLUTION] for page in tags("out.tif")] == [(600, 1), (602, 1), (604, 1)]


def test_notes_of_programs_about_later_pages_are_not_copied(denoise: Any) -> None:
    with tifffile.TiffWriter("in.tif") as file:
        for page in PAGES:
            file.write(page, photometric="rgb")  # with a note of the page's shape
    assert TITLE in tags("in.tif")[1]
    assert denoise("in.tif", "-o", "out.tif")[0] == 0
    assert [TITLE in page for page in tags("out.tif")] == [False] * 3


def test_a_format_without_room_for_what_pages_say_is_reported(denoise: Any) -> None:
    save_book("in.tif")
    said = "webp has no room for what pages after the first say of themselves; tiff has"
    assert said in denoise("in.tif", "-o", "out.webp")[1]
    assert said not in denoise("in.tif", "-o", "out.webp", "--strip")[1]
    save_pages("in.tif", [{}] * 3, PAGES)
    assert denoise("in.tif", "-o", "plain.tif")[0] == 0
    assert said not in denoise("plain.tif", "-o", "out.webp")[1]


def test_texts_in_exif_go_into_tiff(denoise: Any) -> None:
    exif = Image.Exif()
    exif[DOCUMENT], exif[PAGE_NAME], exif[PRINTER] = "Letters", "folio 1", "press"
    Path("in.jpg").write_bytes(encode(PAGES[0], "jpeg", exif=exif.tobytes().removeprefix(b"Exif\0\0")))
    assert denoise("in.jpg", "-o", "out.tif")[0] == 0
    (page,) = tags("out.tif")
    assert (page[DOCUMENT], page[PAGE_NAME], page[PRINTER]) == ("Letters", "folio 1", "press")


SCALE, TIE, KEYS, GDAL, LAYERS, PRIVATE = 33550, 33922, 34735, 42112, 37724, 65000


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (
            [(SCALE, 12, 3, (1.0, 1.0, 0.0), True), (TIE, 12, 6, (0.0,) * 6, True)],
            "georeferencing (GeoTIFF, GDAL)",
        ),
        ([(GDAL, 2, 0, "<GDALMetadata/>", True)], "georeferencing (GeoTIFF, GDAL)"),
        ([(PRIVATE, 2, 0, "mine", True)], "tag 65000"),
        (
            [(50838, 4, 2, (12, 16), True), (50839, 1, 28, b"IJIJgnar" + bytes(20), True)],
            "ImageJ's own data (ranges shown, labels, overlays; "
            "tags 50838 (IJMetadataByteCounts) and 50839 (IJMetadata))",
        ),
        (
            [(GDAL, 2, 0, "x", True), (LAYERS, 7, 9, b"8BIMLayer", True), (PRIVATE, 3, 1, 5, True)],
            "georeferencing (GeoTIFF, GDAL), layers of Photoshop and tag 65000",
        ),
        (
            [(PRIVATE + number, 3, 1, 5, True) for number in range(8)],
            "tags 65000, 65001, 65002, 65003, 65004, 65005 and 2 more",
        ),
    ],
)
def test_what_no_result_has_is_named_in_one_line(denoise: Any, extra: list[Any], said: str) -> None:
    save_pages("in.tif", [{}, {"extratags": extra}], PAGES[:2])
    for arguments in (["-o", "out.tif"], ["-o", "out.webp"], ["-o", "out.tif", "--dry-run"]):
        code, err = denoise("in.tif", *arguments)
        assert code == 0
        (line,) = [line for line in err.splitlines() if "left out" in line]
        assert line.endswith(f"left out: {said}")
    assert "left out" not in denoise("in.tif", "-o", "out.tif", "--strip")[1]
    inspected = inspect_image(Source(Path("in.tif")), 10**6)
    assert describe_inspection(inspected)["warnings"] == [f"left out: {said}"]
    save_pages("in.tif", [{"extratags": extra}], PAGES[:1])
    assert read_picture(Path("in.tif")).warnings == (f"left out: {said}",)


def test_usual_tags_are_not_reported_as_left_out(denoise: Any) -> None:
    for options in ({}, {"tile": (16, 16)}, {"compression": "zlib", "predictor": True}, {"software": "x"}):
        save_pages("in.tif", [options] * 2, PAGES[:2])
        assert "left out" not in denoise("in.tif", "-o", "out.tif")[1]
        assert "left out" not in denoise("out.tif", "-o", "again.tif")[1]


def test_exif_of_later_pages_is_reported_as_left_out(denoise: Any) -> None:
    save_pages("in.tif", [{}, {"extratags": [(PRIVATE, 4, 1, 8, True)]}], PAGES[:2])
    private, exif = (number.to_bytes(2, "little") + bytes([4, 0, 1, 0, 0, 0]) for number in (PRIVATE, 34665))
    Path("in.tif").write_bytes(Path("in.tif").read_bytes().replace(private, exif))
    assert "left out: EXIF of pages after the first" in denoise("in.tif", "-o", "out.tif")[1]


# Pages behind a thumbnail


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_what_the_page_says_counts_and_not_the_thumbnail_before_it(dtype: Any, tmp_path: Path) -> None:
    """The page may have a type of its own, too, which another decoder reads."""
    artist, rights = (315, 2, 0, "An Artist", True), (33432, 2, 0, "(c) me", True)
    options = {"description": "the main text", "extratags": [artist, rights]}
    samples = (noise(20, 30, 3) / 255).astype(dtype) if np.dtype(dtype).kind == "f" else noise(20, 30, 3)
    thumbnail = {"subfiletype": 1, "description": "text of the thumbnail"}
    path = tmp_path / "in.tif"
    save_pages(str(path), [thumbnail, options], [PAGES[0][::4, ::4].copy(), samples])
    picture = read_picture(path)
    assert picture.pixels.shape == (20, 30, 3)
    for said in (b"the main text", b"An Artist", b"(c) me"):
        assert said in (picture.metadata.exif or b"")
    assert b"thumbnail" not in (picture.metadata.exif or b"")


@pytest.mark.parametrize("marked", [0, 1])
def test_a_mark_of_adobe_rgb_counts_on_the_page_that_is_read(marked: int, tmp_path: Path) -> None:
    """The page points to EXIF, and this to further marks."""
    path = tmp_path / "in.tif"
    save_pages(str(path), [{"subfiletype": 1}, {}], [PAGES[0][::4, ::4].copy(), PAGES[0]])
    block = bytearray(path.read_bytes())
    layout, first = read_header(block)
    page = read_pages(block)[marked]
    directory, end = read_directory(block, layout, page.at)
    (following,) = struct.unpack_from(layout.offset, block, end)
    marks = append_directory(block, layout, {1: ExifEntry(TEXT, 4, b"R03\0")}, 0, 0)
    exif = append_directory(block, layout, {0xA005: ExifEntry(LONG, 1, struct.pack("<I", marks))}, 0, 0)
    directory[0x8769] = ExifEntry(LONG, 1, struct.pack("<I", exif))
    at = append_directory(block, layout, directory, 0, following)
    _, end = read_directory(block, layout, first)
    struct.pack_into(layout.offset, block, end if marked else layout.first, at)
    assert (read_picture(bytes(block)).icc is not None) == bool(marked)
