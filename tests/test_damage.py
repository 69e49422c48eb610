"""Files that are damaged or cut short: what is reported, refused, or restored all the same."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from checkpoints import save_nearest
from metadata import exif_block
from pictures import encode, noise

from mambair_cli.cli import main
from mambair_cli.errors import ImageError
from mambair_cli.images import open_picture, read_picture
from mambair_cli.images.jpeg import END, SCAN, read_segments

NO_END = "the mark of its end is missing"


def smooth(height: int = 64, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([3 * y, 3 * x, y + x], axis=2).astype(np.uint8)


def scans(data: bytes) -> list[int]:
    """Return where the scans of a JPEG file begin."""
    return [segment.start for segment in read_segments(data) if segment.kind == SCAN]


def damaged_photo(height: int = 80, **options: Any) -> tuple[bytes, bytes]:
    """Return a JPEG file, and the same with most of a row of blocks gone in its middle."""
    whole = encode(noise(height, 64, 3), "jpeg", restart_marker_rows=1, **options)
    restarts = [found.end() for found in re.finditer(rb"\xff[\xd0-\xd7]", whole)]
    start = restarts[len(restarts) // 2]
    return whole, whole[:start] + whole[start + 500 :]


# JPEG


@pytest.mark.parametrize("progressive", [False, True], ids=["sequential", "progressive"])
@pytest.mark.parametrize("subsampling", [0, 1, 2, None], ids=["444", "422", "420", "gray"])
def test_damage_is_reported_in_whichever_row_it_is(subsampling: int | None, progressive: bool) -> None:
    for height in range(16 if progressive else 1, 35):
        options = {"progressive": progressive, "subsampling": subsampling or 0}
        whole = encode(noise(height, 24, 1 if subsampling is None else 3), "jpeg", **options)
        before = read_picture(whole)
        assert before.warnings == ()
        unmarked = read_picture(whole[:-2])
        assert unmarked.warnings == (NO_END,)
        np.testing.assert_array_equal(unmarked.pixels, before.pixels)
        with pytest.raises(
            ImageError, match="--damaged of upscale, denoise and dejpeg restores what is there"
        ):
            read_picture(whole[:-8])
        warnings = read_picture(whole[:-8] + END).warnings
        assert warnings
        assert all(warning.startswith(("damaged", "scans are missing")) for warning in warnings)
        assert read_picture(whole[:-8], damaged=True).warnings == (NO_END, *warnings)


def test_rows_next_to_damage_are_as_they_were_and_the_warning_says_where_it_is() -> None:
    whole, damaged = damaged_photo(400)
    before, after = read_picture(whole), read_picture(damaged)
    (warning,) = after.warnings
    assert warning.startswith("damaged from about row ")
    row = int(warning.split()[4])
    assert 150 < row < 250
    differ = np.flatnonzero((after.pixels != before.pixels).any(axis=(1, 2)))
    assert row - 32 <= differ[0] <= differ[-1] <= row + 32


def test_damage_that_looks_like_a_marker_is_no_end_of_the_file() -> None:
    whole = encode(noise(400, 64, 3), "jpeg")
    middle = (scans(whole)[0] + len(whole)) // 2
    for kind in (0xC4, 0xE1, 0xFE, 0xDA, 0xD8):
        (warning,) = read_picture(whole[:middle] + bytes([0xFF, kind, 0xFF, 0x7F]) + whole[middle:]).warnings
        assert warning.startswith("damaged from about row ")


def test_what_comes_row_by_row_is_reported_when_it_is_met() -> None:
    with open_picture(damaged_photo(400)[1]) as reader:
        reader.read(0, 64)
        assert reader.warnings == []
        reader.read(64, 400)
        assert len(reader.warnings) == 1
        reader.read(0, 400)
        assert len(reader.warnings) == 1


def test_a_jpeg_cut_short_is_refused_or_restored_as_far_as_it_goes() -> None:
    whole = encode(noise(400, 64, 3), "jpeg")
    half = whole[: len(whole) // 2]
    with pytest.raises(
        ImageError, match=r"truncated .+ --damaged of upscale, denoise and dejpeg restores what is there"
    ):
        read_picture(half)
    before, after = read_picture(whole), read_picture(half, damaged=True)
    assert after.warnings[0] == NO_END
    row = int(after.warnings[1].split()[4])
    assert 150 < row < 250
    np.testing.assert_array_equal(after.pixels[: row - 32], before.pixels[: row - 32])
    assert (after.pixels[row + 32 :] == after.pixels[-1, -1]).all()


def test_scans_that_are_missing_are_reported() -> None:
    whole = encode(smooth(), "jpeg", progressive=True)
    *_, last = scans(whole)
    (warning,) = read_picture(whole[:last] + END).warnings
    assert warning == "scans are missing, and with them detail"
    with pytest.raises(ImageError, match="its last scans are missing"):
        read_picture(whole[:last])
    assert read_picture(whole[:last], damaged=True).warnings == (NO_END, warning)


def stray_bytes(data: bytes) -> bytes:
    return data[:2] + bytes(3) + data[2:]


def bytes_before(data: bytes) -> bytes:
    return b"\r\n" + data


def bytes_behind(data: bytes) -> bytes:
    return data + bytes(range(256)) * 8


@pytest.mark.parametrize("behind", [False, True], ids=["between scans", "behind them"])
def test_a_comment_among_scans_that_holds_the_mark_of_the_end_is_none(behind: bool) -> None:
    whole = encode(noise(32, 32, 3), "jpeg", progressive=True)
    segments = list(read_segments(whole))
    second = [segment.kind for segment in segments].index(SCAN, 1 + [s.kind for s in segments].index(SCAN))
    place = len(whole) - 2 if behind else segments[second - (segments[second - 1].kind == 0xC4)].start
    comment = b"\xff\xfe\0\x12a" + END + b"\xff\xd8\xff picture"
    changed = read_picture(whole[:place] + comment.ljust(20) + whole[place:])
    np.testing.assert_array_equal(changed.pixels, read_picture(whole).pixels)
    assert changed.warnings == ()
    with pytest.raises(ImageError, match="several images"):
        read_picture(whole[:place] + comment.ljust(20) + whole[place:] + whole)


def odd_limits(data: bytes) -> bytes:
    """Return a file whose scan says that it holds no coefficients, as some phones write."""
    segment = next(segment for segment in read_segments(data) if segment.kind == SCAN)
    return data[: segment.end - 3] + bytes(3) + data[segment.end :]


@pytest.mark.parametrize(
    ("change", "warnings"),
    [
        (stray_bytes, ("3 bytes between its headers were skipped",)),
        (bytes_before, ("2 bytes before its start were skipped",)),
        (bytes_behind, ()),
        (odd_limits, ()),
    ],
)
def test_what_is_odd_and_harmless_hides_no_damage(
    change: Callable[[bytes], bytes], warnings: tuple[str, ...], tmp_path: Path
) -> None:
    whole, damaged = damaged_photo()
    path = tmp_path / "odd.jpg"
    path.write_bytes(change(whole))
    after = read_picture(path)
    assert after.warnings == warnings
    np.testing.assert_array_equal(after.pixels, read_picture(whole).pixels)
    after = read_picture(change(damaged))
    assert after.warnings[:-1] == warnings
    assert after.warnings[-1].startswith("damaged from about row")


def test_damage_is_reported_of_pictures_that_are_turned() -> None:
    after = read_picture(damaged_photo(96, exif=exif_block(6))[1])
    assert after.pixels.shape == (64, 96, 3)
    (warning,) = after.warnings
    assert re.match(
        r"damaged from about row \d+ of 96 on, before it was turned upright \(Corrupt JPEG data", warning
    )


# Other formats


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_what_is_there_of_other_formats_is_restored_if_it_is_asked_for(format: str) -> None:
    options: dict[str, Any] = {"tiffinfo": {278: 8}} if format == "tiff" else {}
    whole = encode(noise(200, 64, 3), format, **options)
    short = whole[: len(whole) // 2]
    if format == "tiff":  # its directory lies at the beginning, the samples behind
        short = whole[:-3]
    with pytest.raises(ImageError, match="--damaged of upscale, denoise and dejpeg restores what is there"):
        read_picture(short)
    before, after = read_picture(whole), read_picture(short, damaged=True)
    assert any(warning.startswith("damaged") for warning in after.warnings)
    np.testing.assert_array_equal(after.pixels[:64], before.pixels[:64])


# As users meet it


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_nearest(Path("x2.safetensors"), 2)
    Path("photos").mkdir()
    whole, damaged = damaged_photo()
    Path("photos/a.jpg").write_bytes(damaged)
    Path("photos/b.jpg").write_bytes(whole)
    Path("photos/c.jpg").write_bytes(whole[:-2])
    Path("photos/d.jpg").write_bytes(whole[: len(whole) // 2])
    return tmp_path


def upscale(*arguments: str) -> int:
    return main(["upscale", "photos", "-s", "2", "-o", "out", "--weights", "x2.safetensors", *arguments])


def events(out: str, kind: str) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, out.splitlines()) if event["event"] == kind]


@pytest.mark.parametrize("more", [[], ["--workers", "2"]], ids=["alone", "workers"])
@pytest.mark.usefixtures("folder")
def test_a_run_over_a_folder_reports_what_is_damaged(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert upscale(*more) == 1
    _, err = capsys.readouterr()
    lines = sorted(line for line in err.splitlines() if "warning: " in line)
    assert lines[0].startswith("mambair: warning: photos/a.jpg: damaged from about row ")
    assert lines[1:] == [f"mambair: warning: photos/c.jpg: {NO_END}"]
    assert err.splitlines()[-1].startswith("mambair: 3 done, 1 failed of 4 images")
    assert "; 2 with warnings: " in err.splitlines()[-1]

    assert upscale(*more, "--json", "--quiet", "--overwrite", "--damaged") == 0
    out, err = capsys.readouterr()
    assert err == ""
    warnings = {event["input"]: event["warnings"] for event in events(out, "done")}
    assert warnings["photos/b.jpg"] == []
    assert warnings["photos/c.jpg"] == [NO_END]
    assert warnings["photos/a.jpg"][0].startswith("damaged from about row ")
    assert warnings["photos/d.jpg"][0] == NO_END
    (summary,) = events(out, "summary")
    assert (summary["done"], summary["warned"]) == (4, 3)


@pytest.mark.usefixtures("folder")
def test_what_was_refused_is_done_when_a_run_goes_on_with_damaged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert upscale("--resume") == 1
    capsys.readouterr()
    assert upscale("--resume", "--damaged", "--json") == 0
    out, _ = capsys.readouterr()
    assert [event["input"] for event in events(out, "done")] == ["photos/d.jpg"]
    assert len(events(out, "skipped")) == 3


def test_a_cut_png_shows_nothing_below_the_cut_however_it_is_read() -> None:
    pixels = np.random.default_rng(0).integers(50, 200, (1200, 200, 3), dtype=np.uint8)
    data = encode(pixels, "png")
    read = []
    for step in (1200, 256):
        with open_picture(data[: len(data) * 6 // 10], damaged=True) as reader:
            read.append(
                np.concatenate([reader.read(top, min(top + step, 1200)) for top in range(0, 1200, step)])
            )
    rows = np.flatnonzero(read[0].any(axis=(1, 2)))
    assert 690 < len(rows) < 720
    np.testing.assert_array_equal(read[0][rows], pixels[: len(rows)])
    np.testing.assert_array_equal(read[1], read[0])


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_cut_png_that_is_turned_shows_nothing_below_the_cut(orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(50, 200, (600, 200, 3), dtype=np.uint8)
    data = encode(pixels, "png", exif=exif_block(orientation))
    after = read_picture(data[: len(data) * 6 // 10], damaged=True)
    stored = {3: after.pixels[::-1, ::-1], 6: np.rot90(after.pixels)}[orientation]
    rows = np.flatnonzero(stored.any(axis=(1, 2)))
    assert 340 < len(rows) < 370
    np.testing.assert_array_equal(stored[rows], pixels[: len(rows)])
    assert f"damaged from about row {len(rows)} of 600 on, before it was turned upright" in after.warnings[1]


@pytest.mark.parametrize("damaged", [False, True])
def test_an_interlaced_png_that_is_cut_short_is_called_that(damaged: bool) -> None:
    whole = pyvips.Image.new_from_array(noise(64, 64, 3)).pngsave_buffer(interlace=True)
    assert read_picture(whole).pixels.shape == (64, 64, 3)
    with pytest.raises(
        ImageError, match="an interlaced PNG file, damaged or cut short, of which no rows can be saved; try"
    ):
        read_picture(whole[: len(whole) // 2], damaged=damaged)


def test_a_png_that_ends_in_its_first_rows_is_refused_and_not_black() -> None:
    data = encode(noise(200, 64, 3), "png")
    for damaged in (False, True):
        with pytest.raises(ImageError, match=r"\(vipspng: .+ try another copy, or save it as PNG"):
            read_picture(data[:300], damaged=damaged)
