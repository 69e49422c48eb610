"""What TIFF files hold in addition to one picture of colours: masks, further pages, kinds of samples."""

import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from pictures import noise

from mambair_cli.cli import main
from mambair_cli.errors import ImageError
from mambair_cli.images import read_picture
from mambair_cli.images.tiff import read_pages, split_runs


@pytest.fixture
def run(run: Any, weights: Path) -> Any:
    """Run a command with a small network, and return (exit code, JSON lines, stderr)."""

    def call(command: str, network: str, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
        code, out, err = run(command, *arguments, "--weights", weights / f"{network}.safetensors", "--json")
        return code, [json.loads(line) for line in out], err

    return call


def save(path: str, samples: np.ndarray, photometric: str, extra: list[str], **options: Any) -> None:
    options = {"planarconfig": "contig", **options}
    tifffile.imwrite(path, samples, photometric=photometric, extrasamples=extra, **options)


def read(path: str) -> tuple[np.ndarray, list[int]]:
    """Return the samples of a file as tifffile reads it, and the kinds of those that are no colours."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        return page.asarray(), [int(kind) for kind in page.extrasamples]


def warnings_of(lines: list[dict[str, Any]]) -> list[str]:
    return next(line["warnings"] for line in lines if line["event"] == "done")


MASK, ALPHA = "unspecified", "unassalpha"
KINDS = {
    "gray": ("minisblack", 1, [MASK]),
    "gray, alpha": ("minisblack", 1, [ALPHA, MASK]),
    "rgb": ("rgb", 3, [MASK]),
    "rgb, two": ("rgb", 3, [MASK, MASK]),
    "rgb, alpha": ("rgb", 3, [ALPHA, MASK]),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_carried_with_the_picture(run: Any, kind: str, dtype: Any) -> None:
    photometric, colours, extra = KINDS[kind]
    samples = noise(20, 30, colours + len(extra), dtype=dtype)
    if ALPHA in extra:
        least = np.asarray(1 if np.dtype(dtype).kind == "u" else 1 / 16, dtype)
        samples[..., colours] = np.maximum(samples[..., colours], least)  # none is without colour
    samples[:10, :, -1] = 0  # where a mask taken for alpha would leave nothing
    save("in.tif", samples, photometric, extra)
    code, lines, _ = run("upscale", "x2", "in.tif", "-o", "out.tif")
    result, kinds = read("out.tif")
    assert code == 0
    assert kinds == [{MASK: 0, ALPHA: 2}[name] for name in extra]
    np.testing.assert_allclose(result, samples.repeat(2, axis=0).repeat(2, axis=1), atol=1e-6)
    kept = "kept as masks" if extra.count(MASK) > 1 else "kept as a mask"
    assert f"{kept}, not restored" in " ".join(warnings_of(lines))


def test_alpha_alone_is_alpha_as_before(run: Any) -> None:
    samples = noise(20, 30, 4)
    samples[:10, :, 3], samples[10:, :, 3] = 0, 255
    samples[:10, :, :3] = 77
    for extra in ("unassalpha", "assocalpha"):
        save("in.tif", samples, "rgb", [extra])
        code, lines, _ = run("denoise", "same", "in.tif", "-o", "out.tif", "--overwrite")
        result, kinds = read("out.tif")
        assert (code, kinds, warnings_of(lines)) == (0, [2], [])
        assert np.array_equal(result[10:], samples[10:])
        assert not np.array_equal(result[:10, :, :3], samples[:10, :, :3])  # colours run into what is hidden
        assert np.array_equal(result[..., 3], samples[..., 3])


def test_alpha_that_comes_after_a_mask_is_found(run: Any) -> None:
    samples = noise(20, 30, 5)
    samples[..., 4] |= 1
    save("in.tif", samples, "rgb", [MASK, ALPHA])
    assert run("denoise", "same", "in.tif", "-o", "out.tif")[0] == 0
    result, kinds = read("out.tif")
    assert kinds == [2, 0]
    assert np.array_equal(result, samples[..., [0, 1, 2, 4, 3]])


def test_masks_in_planes_of_their_own_are_masks(run: Any) -> None:
    samples = noise(4, 20, 30)
    save("in.tif", samples, "rgb", [MASK], planarconfig="separate")
    assert run("denoise", "same", "in.tif", "-o", "out.tif")[0] == 0
    result, kinds = read("out.tif")
    assert kinds == [0]
    assert np.array_equal(result, np.moveaxis(samples, 0, 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_masks_of_cmyk_stay(run: Any, dtype: Any) -> None:
    samples = noise(20, 30, 5, dtype=dtype)
    samples[..., :4] = 0  # paper
    save("in.tif", samples, "separated", [MASK])
    assert run("upscale", "x2", "in.tif", "-o", "out.tif")[0] == 0
    result, kinds = read("out.tif")
    assert (result.shape, result.dtype, kinds) == ((40, 60, 4), np.dtype(dtype), [0])
    assert (result[..., :3] >= np.iinfo(dtype).max * 0.98).all()
    assert np.array_equal(result[..., 3], samples[..., 4].repeat(2, axis=0).repeat(2, axis=1))


def test_one_tile_is_reported_alike_with_a_mask_and_without(run: Any, weights: Path, capsys: Any) -> None:
    save("mask.tif", noise(20, 30, 4), "rgb", [MASK])
    save("plain.tif", noise(20, 30, 3), "rgb", [])
    for name in ("mask.tif", "plain.tif"):
        (done,) = [line for line in run("denoise", "same", name)[1] if line["event"] == "done"]
        assert (done["tiles"], done["tile"], done["overlap"]) == (1, [30, 20], 0)
        same = ("--weights", str(weights / "same.safetensors"), "--overwrite")
        assert main(["denoise", name, *same, "--dry-run"]) == 0
        assert "1×1 tiles of 30×20, overlap 0" in capsys.readouterr().out


def test_masks_are_reduced_by_themselves(run: Any) -> None:
    """Not in linear light, as colours are, nor weighted by them."""
    samples = np.zeros((32, 32, 4), np.uint8)
    samples[..., 3] = np.indices((32, 32)).sum(0) % 2 * 200
    save("in.tif", samples, "rgb", [MASK])
    assert run("upscale", "x2", "in.tif", "-o", "out.tif", "--width", "32")[0] == 0
    result, _ = read("out.tif")
    assert result.shape == (32, 32, 4)
    assert abs(result[4:-4, 4:-4, 3].astype(int).mean() - 100) < 1


def test_masks_survive_a_conversion_to_srgb_and_exif(run: Any) -> None:
    from profiles import DISPLAY_P3

    samples = noise(20, 30, 4, dtype=np.uint8)
    save("in.tif", samples, "rgb", [MASK], iccprofile=DISPLAY_P3, description="a title")
    for option in ((), ("--strip",), ("--depth", "16")):
        assert run("denoise", "same", "in.tif", "-o", "out.tif", "--overwrite", *option)[0] == 0
        result, kinds = read("out.tif")
        assert kinds == [0]
        assert np.array_equal(result[..., 3] // (257 if result.dtype == np.uint16 else 1), samples[..., 3])


@pytest.mark.parametrize(
    ("count", "photometric", "is_advised"),
    [(3, "minisblack", True), (2, "minisblack", False), (4, "rgb", False)],
)
def test_bands_that_are_marked_as_nothing_can_be_restored(
    count: int, photometric: str, is_advised: bool, run: Any
) -> None:
    kinds = [MASK] * (count - (3 if photometric == "rgb" else 1))
    save("in.tif", noise(20, 30, count, dtype=np.uint16), photometric, kinds, planarconfig="contig")
    code, lines, _ = run("denoise", "same", "in.tif", "-o", "out.tif")
    assert code == 0
    (warning,) = (sentence for sentence in warnings_of(lines) if "extra channel" in sentence)
    assert ("`gdal_translate -co PHOTOMETRIC=RGB in.tif out.tif`" in warning) == is_advised
    assert "`gdal_translate -b N in.tif out.tif` makes a picture of band N" in warning
    assert "or bands)" in warning or "or band)" in warning


@pytest.mark.parametrize("name", ["out.png", "out.webp", "out.avif", "out.jpg"])
def test_what_a_format_cannot_hold_is_named(run: Any, name: str) -> None:
    samples = noise(20, 30, 4)
    samples[:10, :, 3] = 0
    save("in.tif", samples, "rgb", [MASK])
    code, lines, err = run("denoise", "same", "in.tif", "-o", name, "--quality", "100")
    assert code == 0
    assert "left out" in " ".join(warnings_of(lines))
    assert "warning: in.tif: extra channel (a saved selection, spot colour or band) left out" in err
    result = read_picture(Path(name))
    assert result.alpha is None
    assert abs(result.pixels.astype(int) - samples[..., :3]).mean() < (12 if name == "out.jpg" else 1)


def test_a_dry_run_names_it_too(run: Any) -> None:
    save("in.tif", noise(20, 30, 4), "rgb", [MASK])
    _, lines, _ = run("denoise", "same", "in.tif", "-o", "out.png", "--dry-run")
    plan = next(line for line in lines if line["event"] == "plan_file")
    assert "left out" in " ".join(plan["warnings"])


def test_a_picture_in_memory_is_without_masks_and_says_so(tmp_path: Path) -> None:
    samples = noise(20, 30, 4)
    save(str(tmp_path / "in.tif"), samples, "rgb", [MASK])
    picture = read_picture(tmp_path / "in.tif")
    assert picture.alpha is None
    assert np.array_equal(picture.pixels, samples[..., :3])
    assert "left out" in picture.warnings[0]


# Samples


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4), (20, 30, 5)])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"byteorder": ">"}])
def test_floats_of_64_bits_are_read(run: Any, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    samples = noise(*shape, dtype=np.float64)
    extra = [ALPHA, MASK][: max(0, (*shape, 1)[2] - 3)]
    if extra:
        samples[..., 3] = np.maximum(samples[..., 3], 0.1)
    photometric = "minisblack" if len(shape) == 2 else "rgb"
    tifffile.imwrite("in.tif", samples, photometric=photometric, extrasamples=extra or None, **options)
    assert run("denoise", "same", "in.tif", "-o", "out.tif")[0] == 0
    result, kinds = read("out.tif")
    assert result.dtype == np.float32
    assert kinds == [2, 0][: len(extra)]
    np.testing.assert_allclose(result, samples, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_floats_of_64_bits_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    pictures = []
    for dtype in (np.float32, np.float64):
        path = tmp_path / f"{np.dtype(dtype).name}.tif"
        tag = (274, "H", 1, orientation, True)
        tifffile.imwrite(
            path, noise(5, 7, 3, dtype=np.float32).astype(dtype), photometric="rgb", extratags=[tag]
        )
        pictures.append(read_picture(path))
    assert np.array_equal(pictures[0].pixels, pictures[1].pixels)


def test_what_64_bits_say_in_addition_to_pixels_stays(tmp_path: Path) -> None:
    from profiles import DISPLAY_P3

    tifffile.imwrite(
        tmp_path / "in.tif",
        noise(5, 7, 3, dtype=np.float64),
        photometric="rgb",
        iccprofile=DISPLAY_P3,
        resolution=(300, 150),
        resolutionunit="inch",
        description="a title",
        metadata=None,
    )
    picture = read_picture(tmp_path / "in.tif")
    assert picture.icc == DISPLAY_P3
    assert picture.metadata.dpi == (300, 150)
    assert b"a title" in (picture.metadata.exif or b"")


def refusal(run: Any, path: str) -> str:
    code, _, err = run("denoise", "same", path, "-o", "out.png")
    assert code == 1
    return err.splitlines()[-1]


def test_floats_of_64_bits_that_cannot_be_read_are_named(run: Any) -> None:
    tifffile.imwrite("range.tif", 3 * noise(8, 8, dtype=np.float64))
    assert "scale them to 0 to 1" in refusal(run, "range.tif")
    tifffile.imwrite("pages.tif", noise(3, 8, 8, dtype=np.float64), photometric="minisblack")
    assert "64-bit floats and has 3 pages" in refusal(run, "pages.tif")
    data = bytearray(Path("range.tif").read_bytes())
    with tifffile.TiffFile("range.tif") as file:
        at = file.pages.first.tags[259].valueoffset
    data[at : at + 2] = (5).to_bytes(2, "little")
    Path("lzw.tif").write_bytes(data)
    assert "64-bit floats and is compressed by LZW" in refusal(run, "lzw.tif")
    Path("cut.tif").write_bytes(Path("range.tif").read_bytes()[:-100])
    assert "cannot read cut.tif" in refusal(run, "cut.tif")


@pytest.mark.parametrize(
    ("samples", "options", "said"),
    [
        (noise(8, 8, 3), {"photometric": "cielab"}, "of kind CIELAB"),
        (noise(8, 8), {"photometric": "cfa"}, "of a camera, not developed (CFA)"),
        (noise(8, 8), {"photometric": "depth_map"}, "that is a depth map"),
        (noise(8, 8).astype(np.complex64), {}, "of complex numbers"),
        (noise(8, 8).astype(np.uint64), {}, "of integers of 64 bits"),
        (noise(8, 8).astype(np.float16), {}, "of floats of 16 bits"),
    ],
)
def test_what_is_no_picture_is_named(
    run: Any, samples: np.ndarray, options: dict[str, Any], said: str
) -> None:
    tifffile.imwrite("in.tif", samples, **options)
    assert f"it is a TIFF file {said}; convert it" in refusal(run, "in.tif")


@pytest.mark.parametrize(("number", "name"), [(34712, "JPEG 2000"), (34887, "LERC"), (50002, "JPEG XL")])
def test_compressions_that_are_not_read_are_named(run: Any, number: int, name: str) -> None:
    tifffile.imwrite("in.tif", noise(8, 8))
    data = bytearray(Path("in.tif").read_bytes())
    with tifffile.TiffFile("in.tif") as file:
        at = file.pages.first.tags[259].valueoffset
    data[at : at + 2] = number.to_bytes(2, "little")
    Path("in.tif").write_bytes(data)
    assert f"it is a TIFF file compressed by {name}; convert it" in refusal(run, "in.tif")


# Pages


def save_pages(path: str, pages: list[tuple[np.ndarray, int]]) -> None:
    """Save pages, each with its type: 0 for a picture, 1 for a smaller copy, 4 for a mask."""
    with tifffile.TiffWriter(path) as file:
        for samples, kind in pages:
            gray = samples.ndim == 2
            file.write(samples, photometric="minisblack" if gray else "rgb", subfiletype=kind, metadata=None)


ONE, TWO, SMALL, MASK_PAGE = noise(20, 30, 3), noise(20, 30, 3, seed=1), noise(5, 8, 3), noise(20, 30) > 99


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ("1s", "left out: a page that is a smaller copy of another one"),
        ("s1", "left out: a page that is a smaller copy of another one"),
        ("1m", "left out: a page that is a mask"),
        ("12s", "left out: a page that is a smaller copy of another one"),
        ("1s2s", "left out: 2 pages that are smaller copies of another one"),
        (
            "s1ms2",
            "left out: 2 pages that are smaller copies of another one; left out: a page that is a mask",
        ),
    ],
)
def test_smaller_copies_and_masks_are_no_pages(run: Any, kinds: str, said: str) -> None:
    pages = {"1": (ONE, 0), "2": (TWO, 0), "s": (SMALL, 1), "m": (MASK_PAGE, 4)}
    Path("scans").mkdir()
    save_pages("scans/in.tif", [pages[kind] for kind in kinds])
    code, lines, err = run("denoise", "same", "scans", "-o", "out")
    assert code == 0
    assert "; ".join(warnings_of(lines)) == said
    assert said in err
    wanted = [pages[kind][0] for kind in kinds if kind in "12"]
    with tifffile.TiffFile("out/in.tif") as file:
        assert len(file.pages) == len(wanted)
        for page, samples in zip(file.pages, wanted, strict=True):
            assert np.array_equal(page.asarray(), samples)


def test_pages_of_sizes_of_their_own_are_refused_still(run: Any) -> None:
    for number, kinds in enumerate([(0, 0), (0, 1, 0)]):
        samples = [ONE, SMALL, noise(7, 9, 3)]
        save_pages(f"{number}.tif", [(samples[at], kind) for at, kind in enumerate(kinds)])
        assert "pages differ in size" in refusal(run, f"{number}.tif")


def test_one_picture_among_copies_goes_into_formats_of_one(run: Any) -> None:
    save_pages("in.tif", [(ONE, 0), (SMALL, 1)])
    assert run("denoise", "same", "in.tif", "-o", "out.png")[0] == 0
    assert np.array_equal(read_picture(Path("out.png")).pixels, ONE)


def test_directories_that_go_in_circles_or_to_nowhere_end(tmp_path: Path) -> None:
    save_pages(str(tmp_path / "in.tif"), [(ONE, 0), (TWO, 0)])
    data = (tmp_path / "in.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "in.tif") as file:
        first, second = file.pages.first.offset, file.pages[1].offset
    assert isinstance(second, int)
    assert len(read_pages(data)) == 2
    pointer = data.index(second.to_bytes(4, "little"), first)
    for target in (first, second, len(data) + 9, 0):
        changed = data[:pointer] + target.to_bytes(4, "little") + data[pointer + 4 :]
        assert len(read_pages(changed)) == (2 if target == second else 1)
        with suppress(ImageError):
            read_picture(changed)
    assert read_pages(data[:8]) == read_pages(b"II*\0") == []


@given(st.sets(st.integers(0, 12)))
def test_runs_are_the_numbers(numbers: set[int]) -> None:
    ordered = sorted(numbers)
    runs = split_runs(ordered)
    assert [number for first, count in runs for number in range(first, first + count)] == ordered
    assert all(sum(one) < other[0] for one, other in pairwise(runs))
