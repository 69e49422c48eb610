import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambair_cli.errors import UsageError
from mambair_cli.images import READABLE_SUFFIXES, WRITABLE_SUFFIXES
from mambair_cli.jobs import Source, find_sources, name_targets

SUFFIXES = [*sorted(READABLE_SUFFIXES), ".PNG", ".Jpg", ".xyz", ""]
NAMES = st.builds(
    lambda stem, suffix: stem + suffix,
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
    ).filter(lambda stem: stem.strip(".")),
    st.sampled_from(SUFFIXES),
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: Path(*parts))
FORMATS = st.sampled_from([None, *WRITABLE_SUFFIXES])


@given(st.lists(PATHS, min_size=1, max_size=6, unique=True), FORMATS, st.sampled_from([None, "out"]))
def test_each_image_has_a_name_of_its_own_or_the_run_is_refused(paths, format, output):
    sources = [Source(Path("photos") / path, Path("photos")) for path in paths]
    jobs, refusal = [], ""
    try:
        jobs = name_targets(sources, output, "_x4", format)
    except UsageError as error:
        refusal = str(error)
    if refusal:
        assert "two results of one name" in refusal
        assert len({(path.parent, path.stem) for path in paths}) < len(paths)
        return
    targets = [os.path.normcase(job.target) for job in jobs if job.target]
    assert len(set(targets)) == len(paths)
    root = Path(output or "photos_x4")
    for job, path in zip(jobs, paths, strict=True):
        assert job.target
        assert job.target.is_relative_to(root)
        assert job.target.parent == root / path.parent  # the tree is kept
        assert job.target not in {source.path for source in sources}
        written = [
            name for name, suffixes in WRITABLE_SUFFIXES.items() if job.target.suffix.lower() in suffixes
        ]
        assert len(written) == 1  # the name says how it is written
        assert format in (None, *written)
        assert job.format in (None, *written)
        if format is None and path.suffix.lower() in {
            s for group in WRITABLE_SUFFIXES.values() for s in group
        }:
            assert job.target.name == path.name


@given(PATHS, FORMATS)
def test_beside_its_input_a_result_keeps_the_stem_and_adds_the_mark(path, format):
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
