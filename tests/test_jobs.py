import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambair_cli.errors import UsageError
from mambair_cli.images import FORMATS, READABLE_SUFFIXES
from mambair_cli.images.discovery import FileFilter, find_sources, read_names
from mambair_cli.images.source import Source
from mambair_cli.runs.naming import name_targets, target_file

SUFFIXES = [*sorted(READABLE_SUFFIXES), ".PNG", ".Jpg", ".xyz", ""]
NAMES = st.builds(
    lambda stem, suffix: stem + suffix,
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
    ).filter(lambda stem: stem.strip(".")),
    st.sampled_from(SUFFIXES),
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: Path(*parts))
ASKED = st.sampled_from([None, *FORMATS])


@given(st.lists(PATHS, min_size=1, max_size=6, unique=True), ASKED, st.sampled_from([None, "out"]))
def test_each_image_has_a_name_of_its_own_or_is_refused(paths, format, output):
    sources = [Source(Path("photos") / path, Path("photos")) for path in paths]
    jobs, refusal = [], ""
    try:
        jobs = name_targets(sources, output, "_x4", format)
    except UsageError as error:
        refusal = str(error)
    if refusal:
        assert "be written as" in refusal
        assert len({(path.parent, path.stem) for path in paths}) < len(paths)
        return
    assert [job.source for job in jobs] == sources
    targets = [os.path.normcase(job.target) for job in jobs if job.target and not job.refusal]
    assert len(set(targets)) == len(targets)
    root = Path(output or "photos_x4")
    for job, path in zip(jobs, paths, strict=True):
        assert job.target
        assert job.target.is_relative_to(root)
        assert job.target.parent == root / path.parent  # the tree is kept
        assert job.target not in {source.path for source in sources}
        written = [name for name, row in FORMATS.items() if job.target.suffix.lower() in row.suffixes]
        assert len(written) == 1  # the name says how it is written
        assert format in (None, *written)
        assert job.format in (None, *written)
        if format is None and any(path.suffix.lower() in row.suffixes for row in FORMATS.values()):
            assert job.target.name == path.name
        if job.refusal:
            assert len([other for other in jobs if str(other.target).lower() == str(job.target).lower()]) > 1


@given(PATHS, ASKED)
def test_next_to_its_input_a_result_keeps_the_stem_and_adds_the_mark(path, format):
    (job,) = name_targets([Source(path)], None, "_denoised", format)
    assert job.target
    assert job.target.parent == path.parent
    assert job.target.stem == path.stem + "_denoised"
    assert job.target != path


def test_a_link_to_a_folder_is_not_followed_and_a_loop_ends(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    (tmp_path / "photos" / "again").symlink_to(tmp_path / "photos")
    assert [source.path for source in find_sources([str(tmp_path / "photos")])] == [
        tmp_path / "photos" / "a.png"
    ]


def test_standard_input_is_read_once():
    with pytest.raises(UsageError, match="given twice"):
        find_sources(["-", "-"])


def test_nothing_is_next_to_the_root():
    root = Path(Path.cwd().anchor)
    with pytest.raises(UsageError, match="give -o a folder"):
        name_targets([Source(root / "a.png", root)], None, "_x4")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.jpg", "raw/c.png", "raw/deep/d.tif"):
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(sources):
    return [str(source.path) for source in sources]


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        ((), (), ["a.png", "b.jpg", "raw/c.png", "raw/deep/d.tif"]),
        (("*.png",), (), ["a.png", "raw/c.png"]),
        (("*.png", "b.*"), (), ["a.png", "b.jpg", "raw/c.png"]),
        ((), ("*.png",), ["b.jpg", "raw/deep/d.tif"]),
        (("raw/*",), ("*.tif",), ["raw/c.png"]),
        ((), ("raw",), ["a.png", "b.jpg"]),
        ((), ("deep/",), ["a.png", "b.jpg", "raw/c.png"]),
        ((), ("./raw/deep/",), ["a.png", "b.jpg", "raw/c.png"]),
        ((), ("deep/d.tif",), ["a.png", "b.jpg", "raw/c.png", "raw/deep/d.tif"]),  # from the folder on
        (("raw",), (), ["raw/c.png", "raw/deep/d.tif"]),
    ],
)
def test_patterns_choose_among_the_images_of_a_folder(tree, include, exclude, left):
    sources = find_sources(["photos"], FileFilter(include, exclude))
    assert names(sources) == [f"photos/{name}" for name in left]


def test_patterns_that_leave_nothing_are_named(tree):
    with pytest.raises(UsageError, match=r"images in the folder: photos; nothing matches --include \*.gif"):
        find_sources(["photos"], FileFilter(include=("*.gif",)))


def test_results_are_no_inputs(tree):
    for name in ("a_x4.png", "b_denoised.png", "a_x2.5.png", "map_x4.png", "out/a.png", "raw/out/a.png"):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", name).touch()
    found = names(find_sources(["photos"], FileFilter(output="photos/out")))
    assert found == [
        f"photos/{name}"
        for name in ("a.png", "b.jpg", "map_x4.png", "raw/c.png", "raw/deep/d.tif", "raw/out/a.png")
    ]


@pytest.mark.parametrize(
    ("content", "null", "found"),
    [
        (b"photos/a.png\nphotos/b.jpg\n", False, ["photos/a.png", "photos/b.jpg"]),
        (b"photos/a.png\r\n\r\n[x]*.png", False, ["photos/a.png", "[x]*.png"]),
        (b"photos/new\nline.png\0photos/raw\0", True, ["photos/new\nline.png", "photos/raw/c.png"]),
    ],
)
def test_names_come_from_a_list(tree, content, null, found):
    Path("list").write_bytes(content)
    assert names(read_names("list", null, FileFilter(exclude=("*.tif",)))) == found


def test_a_list_that_names_nothing_is_refused(tree):
    Path("list").write_bytes(b"\n\n")
    with pytest.raises(UsageError, match="no names in list; write one per line"):
        read_names("list")
    with pytest.raises(UsageError, match="cannot read the names in photos: Is a directory"):
        read_names("photos")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"photos/a.png\0photos/b.jpg\0", "the names in list are separated by NUL bytes; add --null"),
        (b"photos/raw\0photos/b.jpg", "the names in list are separated by NUL bytes; add --null"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no list of names: list; name images themselves"),
        (b"\0\0\0\x1cftypavif", "no list of names: list; name images themselves"),
    ],
)
def test_what_is_no_list_of_lines_is_refused(tree, content, says):
    Path("list").write_bytes(content)
    with pytest.raises(UsageError, match=says):
        read_names("list")


def test_an_input_that_is_not_there_has_no_result_to_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    missing = [Source(Path("photos"))]
    assert target_file(missing, "results") is None
    assert target_file(missing, "result.png") == Path("result.png")
    Path("photos").touch()
    assert target_file(missing, "results") == Path("results")
