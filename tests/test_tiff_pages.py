"""What pages of a TIFF file have of their own: colour profiles, orientations, and what is said of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pictures import noise
from profiles import ADOBE_RGB, DISPLAY_P3


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
