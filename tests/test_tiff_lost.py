"""Pictures and words in TIFF files that libvips passes over: volumes, planes, SubIFDs, repeated tags."""

import re
import struct
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import noise

from mambair_cli.errors import ImageError
from mambair_cli.images import Picture, read_picture
from mambair_cli.images.description import PageLayout, count_pictures
from mambair_cli.images.tiff import read_pages

STACK, PHOTO = noise(4, 20, 30), noise(40, 60, 3)
RATIONAL = 5


def saved(samples: np.ndarray, **options: Any) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, samples, **options)
    return file.getvalue()


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as error:
        read_picture(data)
    message = str(error.value)
    assert "--damaged" not in message
    assert "\n" not in message
    return message


# What samples mean


@pytest.mark.parametrize("options", [{}, {"tile": (2, 16, 16)}, {"compression": "zlib"}])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_volumes_are_refused(options: dict[str, Any], dtype: Any) -> None:
    data = saved(STACK.astype(dtype), volumetric=True, photometric="minisblack", **options)
    assert refusal(data).endswith(
        "it is a TIFF file of a volume, 4 slices in one page; save each as a page of its own"
    )


def test_a_volume_on_a_later_page_is_refused() -> None:
    file = BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(STACK[0], photometric="minisblack", metadata=None)
        writer.write(STACK, photometric="minisblack", volumetric=True, metadata=None)
    assert "a volume, 4 slices" in refusal(file.getvalue())


GRAY, RGB, CMYK = "minisblack", "rgb", "separated"
COLOURS = {GRAY: STACK[0], RGB: PHOTO, CMYK: noise(20, 30, 4)}
USUAL = (0, 1, 255, 1, 0, 1, 255, 1, 0, 1, 255, 1)


@pytest.mark.parametrize(
    ("photometric", "tag", "said"),
    [
        (GRAY, (346, 3, 1, 1), "of indices into a palette"),
        (GRAY, (346, 3, 1, 0), None),
        (GRAY, (32997, 4, 1, 1), None),
        (GRAY, (33629, RATIONAL, 3, (1, 1, 2, 1, 3, 1)), "of MetaMorph, 3 pictures in one page"),
        (GRAY, (33629, RATIONAL, 1, (1, 1)), None),
        (CMYK, (336, 1, 2, (255, 0)), "of inks whose range is not the usual one"),
        (CMYK, (336, 1, 2, (0, 255)), None),
        (CMYK, (336, 1, 8, (0, 255) * 4), None),
        (RGB, (336, 1, 2, (255, 0)), None),  # which is of inks alone
        (RGB, (532, RATIONAL, 6, (16, 1, 235, 1) * 3), "of colours whose black and white are not"),
        (RGB, (532, RATIONAL, 6, USUAL), None),
    ],
)
def test_tags_that_change_what_samples_mean_are_heeded(
    photometric: str, tag: tuple[int, int, int, Any], said: str | None
) -> None:
    samples = COLOURS[photometric]
    data = saved(samples, photometric=photometric, extratags=[(*tag, True)], metadata=None)
    if said is None:
        assert read_picture(data).pixels.shape[:2] == samples.shape[:2]
    else:
        assert f"it is a TIFF file {said}" in refusal(data)


def test_samples_of_several_depths_are_named() -> None:
    data = bytearray(saved(PHOTO, photometric="rgb"))
    with tifffile.TiffFile(BytesIO(data)) as file:
        at = file.pages.first.tags[258].valueoffset
    data[at : at + 6] = struct.pack("<3H", 8, 4, 8)
    assert "of samples that differ in depth or kind; convert it" in refusal(bytes(data))


def test_curves_of_gray_are_reported_as_left_out() -> None:
    curve = (291, 3, 256, tuple(range(256)), True)
    data = saved(STACK[0], photometric="minisblack", extratags=[curve], metadata=None)
    assert read_picture(data).warnings == ("left out: tag 291 (GrayResponseCurve)",)


# Planes


@pytest.mark.parametrize("count", [2, 3, 5])
def test_gray_planes_are_no_alpha(count: int) -> None:
    data = saved(noise(count, 20, 30), photometric="minisblack", planarconfig="separate")
    message = refusal(data)
    assert f"of {count} gray planes in one page; save each as a page of its own" in message
    assert "alpha" not in message


def test_gray_and_alpha_in_planes_are_named() -> None:
    alpha = {"extrasamples": ["unassalpha"]}
    data = saved(noise(2, 20, 30), photometric="minisblack", planarconfig="separate", **alpha)
    assert refusal(data).endswith("of gray and alpha in separate planes; save them interleaved")


def test_planes_in_tiles_are_named_and_those_that_can_be_are_read() -> None:
    planes = np.ascontiguousarray(np.moveaxis(PHOTO, 2, 0))
    options: dict[str, Any] = {"photometric": "rgb", "planarconfig": "separate"}
    assert "of separate planes in tiles; save its samples interleaved" in refusal(
        saved(planes, tile=(32, 32), **options)
    )
    for more in ({}, {"rowsperstrip": 8}, {"compression": "zlib"}):
        assert np.array_equal(read_picture(saved(planes, **more, **options)).pixels, PHOTO)
    floats = saved(planes / 255, tile=(32, 32), **options)  # which tifffile reads
    assert np.allclose(read_picture(floats).pixels, PHOTO / 255, atol=1e-6)


def test_what_libvips_cannot_read_is_not_called_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    planes = np.ascontiguousarray(np.moveaxis(PHOTO, 2, 0))
    data = saved(planes, photometric="rgb", planarconfig="separate", tile=(32, 32))
    monkeypatch.setattr("mambair_cli.images.tiff_check.find_oddity", lambda page: None)  # as if unknown
    assert "try another copy, or save it as PNG" in refusal(data)
    with pytest.raises(ImageError, match="try another copy, or save it as PNG"):
        read_picture(data, damaged=True)


# Pictures behind the only page


@pytest.mark.parametrize(
    "options", [{"imagej": True}, {"metadata": {"axes": "ZYX"}}, {"description": "mine"}]
)
def test_stacks_with_one_page_are_refused(options: dict[str, Any]) -> None:
    data = saved(STACK, photometric="minisblack", truncate=True, **options)
    assert len(read_pages(data)) == 1
    assert "of 4 pictures in one page; save each as a page of its own" in refusal(data)


def test_a_page_of_a_stack_is_read() -> None:
    description = "ImageJ=1.54\nimages=4\nslices=4\n"
    data = saved(STACK[0], photometric="minisblack", description=description, metadata=None)
    assert np.array_equal(read_picture(data).pixels[..., 0], STACK[0])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b"", 1),
        (b"a dog", 1),
        (b"ImageJ=1.54\nimages=7\n", 7),
        (b"ImageJ=1.54\nimages=" + b"9" * 9000, 1),
        (b'{"shape": [4, 20, 30]}\0', 4),
        (b'{"shape": "4"}', 1),
        (b'{"shape": [' + b"9" * 9000 + b"]}", 1),
    ],
)
def test_descriptions_say_how_many_pictures_there_are(text: bytes, count: int) -> None:
    assert count_pictures(text, PageLayout(30, 20, 1, 1)) == count


# SubIFDs


def save_tree(*pages: list[tuple[np.ndarray, int]], **options: Any) -> bytes:
    """Save pages, each a picture with its type, followed by those in its SubIFDs."""
    file = BytesIO()
    with tifffile.TiffWriter(file, **options) as writer:
        for (first, kind), *inner in pages:
            more = {"photometric": "rgb", "metadata": None}
            writer.write(first, subfiletype=kind, subifds=len(inner), **more)
            for samples, type_ in inner:
                more["photometric"] = "rgb" if samples.ndim > 2 else "minisblack"
                writer.write(samples, subfiletype=type_, **more)
    return file.getvalue()


HALF, QUARTER = PHOTO[::2, ::2], PHOTO[::4, ::4]
LEVELS = [(PHOTO, 0), (HALF, 1), (QUARTER, 1)]
TWO_COPIES = "left out: 2 pages that are smaller copies of another one"


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"ome": True}])
def test_a_pyramid_is_read_and_its_steps_are_counted(options: dict[str, Any]) -> None:
    picture = read_picture(save_tree(LEVELS, **options))
    assert np.array_equal(picture.pixels, PHOTO)
    assert picture.warnings == (TWO_COPIES,)


def test_a_mask_in_a_subifd_is_named() -> None:
    assert read_picture(save_tree([(PHOTO, 0), (PHOTO[..., 0] > 99, 4)])).warnings == (
        "left out: a page that is a mask",
    )


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ([(QUARTER, 1), (PHOTO, 0)], "its picture of 60×40 is in a SubIFD, and a smaller copy in the page"),
        ([(QUARTER, 0), (PHOTO, 0)], "its picture of 60×40 is in a SubIFD, and a smaller copy in the page"),
        ([(QUARTER, 0), (PHOTO, 1)], "its picture of 60×40 is in a SubIFD, and a smaller copy in the page"),
        ([(PHOTO, 0), (QUARTER, 1), (HALF, 0)], "a further picture of 30×20 is in a SubIFD"),
    ],
)
def test_pictures_in_subifds_are_not_lost(page: list[tuple[np.ndarray, int]], said: str) -> None:
    for pages in ([page], [page, [(PHOTO, 0)]], [[(PHOTO, 0)], page]):
        message = refusal(save_tree(*pages))
        assert f"{said}; save each picture as a file of its own" in message


def test_previews_of_undeveloped_samples_are_raw_files() -> None:
    file = BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(QUARTER, photometric="rgb", subfiletype=1, subifds=2, metadata=None)
        writer.write(HALF, photometric="rgb", subfiletype=1, metadata=None)
        writer.write(STACK[0], photometric="cfa", subfiletype=0, metadata=None)
    assert "a camera's raw file; develop it" in refusal(file.getvalue())


def change_inner(data: bytes, change: Callable[[list[int]], list[int]]) -> bytes:
    """Return a file whose first page points to other SubIFDs."""
    with tifffile.TiffFile(BytesIO(data)) as file:
        tag = file.pages.first.tags[330]
        assert isinstance(tag.value, tuple)
        offsets = change(list(tag.value))
    at = tag.valueoffset
    return data[:at] + struct.pack(f"<{len(offsets)}I", *offsets) + data[at + 4 * len(offsets) :]


def test_subifds_that_cannot_be_read_are_reported() -> None:
    data = save_tree(LEVELS)  # in which the second is also the next one of the first
    for bad in (len(data) + 9, len(data) - 1, 2**32 - 1, 3):
        warnings = read_picture(change_inner(data, lambda offsets, bad=bad: [offsets[0], bad])).warnings
        assert warnings == (TWO_COPIES, "left out: 1 SubIFD that cannot be read")
    assert read_picture(change_inner(data, lambda offsets: [offsets[0], 0])).warnings == (TWO_COPIES,)
    many = save_tree([(PHOTO, 0), *[(QUARTER[:4, :4], 1)] * 1100])
    with tifffile.TiffFile(BytesIO(many)) as file:
        assert len(file.pages.first.subifds or ()) == 1100
    assert read_picture(many).warnings == ("left out: 1 SubIFD that cannot be read",)


def test_subifds_that_go_in_circles_end() -> None:
    data = save_tree(LEVELS, [(PHOTO, 0)])
    with tifffile.TiffFile(BytesIO(data)) as file:
        first, second = file.pages.first.offset, int(file.pages[1].offset)
    pages = read_pages(change_inner(data, lambda offsets: [second, first]))
    assert [len(page.inner) for page in pages] == [0, 0]
    pages = read_pages(change_inner(data, lambda offsets: [offsets[0]] * 2))
    assert [len(page.inner) for page in pages] == [2, 0]


def test_chains_and_subifds_of_subifds_are_followed() -> None:
    data = bytearray(save_tree([(PHOTO, 0), (HALF, 1)], [(QUARTER, 0)]))
    with tifffile.TiffFile(BytesIO(data)) as file:
        first, second = file.pages.first.offset, int(file.pages[1].offset)
        (inner,) = np.ravel(file.pages.first.tags[330].value).tolist()
    for at, following in ((first, 0), (inner, second)):  # the second page is reached from the SubIFD alone
        (entries,) = struct.unpack_from("<H", data, at)
        struct.pack_into("<I", data, at + 2 + 12 * entries, following)
    assert "a further picture of 15×10 is in a SubIFD" in refusal(bytes(data))


SMALL_TREE = save_tree([(QUARTER, 0), (QUARTER[:4, :4], 1), (QUARTER[:2, :2], 1)])


class Places(NamedTuple):
    """Where the bytes of ``SMALL_TREE`` lie: its first directory, those of the SubIFDs, and all samples."""

    first: range
    inner: list[int]
    samples: list[int]


def find_places() -> Places:
    def directory_at(at: int) -> range:
        (entries,) = struct.unpack_from("<H", SMALL_TREE, at)
        return range(at, at + 2 + 12 * entries + 4)

    with tifffile.TiffFile(BytesIO(SMALL_TREE)) as file:
        (first,) = file.pages
        pages = [first, *(first.pages or ())]
        inner = [at for page in pages[1:] for at in directory_at(int(page.offset))]
        spans = [span for page in pages for span in zip(page.dataoffsets, page.databytecounts, strict=True)]
    samples = [at for start, length in spans for at in range(start, start + length)]
    return Places(directory_at(int(first.offset)), inner, samples)


PLACES = find_places()
DAMAGES = st.lists(st.integers(0, 255), min_size=1, max_size=5)


def damage(data: st.DataObject, places: Sequence[int]) -> bytes:
    damaged = bytearray(SMALL_TREE)
    for value in data.draw(DAMAGES):
        damaged[data.draw(st.sampled_from(places))] = value
    return bytes(damaged)


def try_to_read(data: bytes) -> Picture | str:
    """Return the picture, or the line that refuses it."""
    try:
        return read_picture(data, max_pixels=10**6)
    except ImageError as error:
        said = str(error)
    assert re.fullmatch("cannot read the image: [^\n]+", said)
    return said


@given(st.data())
def test_damage_to_samples_changes_no_others(data: st.DataObject) -> None:
    damaged = damage(data, PLACES.samples)
    picture = read_picture(damaged)
    start = SMALL_TREE.index(QUARTER.tobytes())
    assert picture.pixels.tobytes() == damaged[start : start + QUARTER.nbytes]
    assert picture.warnings == (TWO_COPIES,)


@given(st.data())
def test_damage_to_subifds_changes_no_sample(data: st.DataObject) -> None:
    picture = try_to_read(damage(data, PLACES.inner))
    if isinstance(picture, str):
        assert "is in a SubIFD" in picture
    else:
        np.testing.assert_array_equal(picture.pixels, QUARTER)
        assert all(warning.startswith("left out: ") for warning in picture.warnings)


@given(st.data())
@settings(max_examples=300)
def test_a_damaged_directory_gives_a_line_or_the_same_picture_at_each_reading(data: st.DataObject) -> None:
    damaged = damage(data, PLACES.first)
    once, again = try_to_read(damaged), try_to_read(damaged)
    if isinstance(once, str) or isinstance(again, str):
        assert once == again
        assert damaged != SMALL_TREE
        return
    np.testing.assert_array_equal(once.pixels, again.pixels)
    if damaged == SMALL_TREE:
        np.testing.assert_array_equal(once.pixels, QUARTER)


def test_inspect_and_dry_run_report_subifds(run: Any, weights: Path) -> None:
    Path("in.tif").write_bytes(save_tree(LEVELS))
    Path("thumbnail.tif").write_bytes(save_tree([(QUARTER, 0), (PHOTO, 0)]))
    same = ("--weights", weights / "same.safetensors")
    restore = ("denoise", "{}", "-o", "out.tif", *same, "--overwrite")
    for command in ((*restore, "--dry-run"), ("inspect", "{}"), restore):
        for name, code, said in (("in.tif", 0, TWO_COPIES), ("thumbnail.tif", 1, "is in a SubIFD")):
            got, out, err = run(*(name if part == "{}" else part for part in command))
            assert got == code
            assert said in " ".join((*out, err))


# Repeated tags

TITLE = 270


def texts_in(data: bytes) -> list[str]:
    with tifffile.TiffFile(BytesIO(data)) as file:
        return [tag.value for tag in file.pages.first.tags if tag.code == TITLE]


@pytest.mark.parametrize("name", ["out.tif", "out.png"])
def test_the_first_description_counts(run: Any, weights: Path, name: str) -> None:
    data = saved(PHOTO, photometric="rgb", description="a dog on a beach")
    assert len(texts_in(data)) == 2
    Path("in.tif").write_bytes(data)
    code, _, err = run("denoise", "in.tif", "-o", name, "--weights", weights / "same.safetensors")
    assert (code, "warning" in err) == (0, False)
    if name == "out.tif":
        assert texts_in(Path(name).read_bytes()) == ["a dog on a beach"]
    assert b"a dog on a beach" in (read_picture(Path(name)).metadata.exif or b"")


@pytest.mark.parametrize(
    ("tag", "text", "said"),
    [
        (TITLE, "second", "further description"),
        (TITLE, '{"shape": [40, 60, 3], "axes": "YXS"}', "further description"),
        (TITLE, '{"shape": [40, 60, 3]}', None),
        (315, "you", "repeated tag 315 (Artist)"),
    ],
)
def test_what_else_is_said_twice_is_reported(tag: int, text: str, said: str | None) -> None:
    extra = [(315, 2, 0, "me", True), (tag + 1, 2, 0, text, True)]
    options = {"description": "first", "metadata": None}
    data = saved(PHOTO, photometric="rgb", extratags=extra, **options)
    before, after = (struct.pack("<HHI", number, 2, len(text) + 1) for number in (tag + 1, tag))
    picture = read_picture(data.replace(before, after))
    assert picture.warnings == (() if said is None else (f"left out: {said}",))
    assert b"first" in (picture.metadata.exif or b"")


def test_colours_in_which_gray_is_shown_are_named() -> None:
    file = BytesIO()
    colours = np.zeros((3, 256), np.uint16)
    with tifffile.TiffWriter(file) as tiff:
        extra = [(320, 3, colours.size, colours.ravel().tolist(), True)]
        tiff.write(np.zeros((9, 9), np.uint8), photometric="minisblack", metadata=None, extratags=extra)
    assert read_picture(file.getvalue()).warnings == ("left out: tag 320 (ColorMap)",)
    file = BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(np.zeros((9, 9), np.uint8), photometric="palette", colormap=colours, metadata=None)
    assert read_picture(file.getvalue()).warnings == ()
