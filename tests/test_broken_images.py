"""Files that are broken, cut short, hostile or no images: an error of one line, and no memory for claims."""

import struct
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from error_lines import assert_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from metadata import ICC, exif_block
from pictures import JPEG, PNG, encode, noise

from mambair_cli.errors import ImageError
from mambair_cli.images import read_picture


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (b"", ["empty"]),
        (b"Dear photographer,\nthis is text.", ["no image of a known kind", "png, jpeg"]),
        (b"\n", ["no image of a known kind"]),
        (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", ["it is SVG or XML, which"]),
        (b"\0\0\0\x18ftypheic\0\0\0\0", ["heic data is corrupt"]),
        (b"P6 2 2 255 " + bytes(11), ["ppm data is corrupt", "11 of 12 samples"]),
        (b"P6 2 2 70000 " + bytes(11), ["ppm data is corrupt", "70000"]),
        (b"P2 2 2 7 1 2 3 8 ", ["ppm data is corrupt", "larger than its white, 7"]),
        (b"P6 two 2 255 ", ["ppm data is corrupt", "no sizes"]),
        (b"P7 WIDTH 2", ["PAM"]),
        (b"v/1\x01", ["exr data is corrupt"]),
        (b"\0\0\0\x0cjP  ", ["jpeg2000 data is corrupt"]),
        (b"\xff\x4f\xff\x51", ["jpeg2000 data is corrupt"]),
        (b"%PDF-1.7", ["PDF"]),
        (b"\x89PNG\r\n\x1a\n", ["png data is corrupt"]),
        (b"\xff\xd8\xff", ["jpeg data is corrupt"]),
        (b"II*\0", ["tiff data is corrupt"]),
        (b"II+\0\x08\0\0\0" + bytes([16]) + bytes(13) + b"\1\0", ["tiff data is corrupt"]),  # 2**40 entries
        (b"BM", ["bmp data is corrupt"]),
        (b"BMW is a maker of cars", ["bmp data is corrupt"]),
        (b"GIF89a", ["gif data is corrupt"]),
        (b"RIFF\0\0\0\0WEBP", ["webp data is corrupt"]),
        (b"\0\0\0\x18ftypavif\0\0\0\0", ["avif data is corrupt"]),
    ],
    ids=lambda value: repr(value)[:20] if isinstance(value, bytes) else "",
)
def test_what_is_no_image_is_an_error_of_one_line(
    data: bytes, parts: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    with pytest.raises(ImageError) as error:
        read_picture(path)
    assert_line(error, str(path), *parts)
    with pytest.raises(ImageError) as error:
        read_picture(data)
    assert_line(error, *parts)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_a_file_cut_short_gives_no_gray_rows(format: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = encode(noise(24, 16, 3), format)
    whole = read_picture(data).pixels
    failures = 0
    for length in range(len(data)):
        try:
            after = read_picture(data[:length])
        except ImageError:
            failures += 1
        else:  # only the mark of the end is missing
            np.testing.assert_array_equal(after.pixels, whole)
    assert failures >= len(data) - 12
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff", "gif", "avif", "bmp"])
@given(data=st.data())
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_gives_a_picture_or_an_error(
    format: str, data: st.DataObject, capfd: pytest.CaptureFixture[str]
) -> None:
    exif, profile = (None, None) if format in ("gif", "bmp") else (exif_block(6), ICC)
    damaged = bytearray(encode(noise(8, 9, 3), format, exif=exif, icc_profile=profile))
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ImageError):
        read_picture(bytes(damaged), max_pixels=10**6)
    assert capfd.readouterr() == ("", "")


def test_an_earlier_files_trouble_does_not_explain_this_ones() -> None:
    start = JPEG.index(b"\xff\xda")
    stray = JPEG[:start] + b"\0\0\0" + JPEG[start:]  # as some cameras write: a warning, no error
    np.testing.assert_array_equal(read_picture(stray).pixels, read_picture(JPEG).pixels)
    with pytest.raises(ImageError) as error:
        read_picture(PNG[:-200])
    assert "extraneous" not in str(error.value)


def test_directories_that_hold_too_much_take_no_memory() -> None:
    entries = 5000
    length = 200_000
    head = struct.pack("<2sHIH", b"II", 42, 8, entries)
    everything = b"".join(struct.pack("<HHII", 1000 + tag, 7, length - 1, 1) for tag in range(entries))
    hostile = (head + everything).ljust(length, b"\0")  # a gigabyte of values
    tracemalloc.start()
    try:
        with pytest.raises(ImageError) as error:
            read_picture(hostile)
        assert tracemalloc.get_traced_memory()[1] < 10 * length
    finally:
        tracemalloc.stop()
    assert_line(error, "tiff data is corrupt")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff", "gif", "avif", "bmp"])
def test_bombs_are_refused_by_their_header(format: str) -> None:
    data = encode(noise(10, 11, 3), format)
    assert read_picture(data, max_pixels=110).pixels.shape[:2] == (10, 11)
    with pytest.raises(ImageError) as error:
        read_picture(data, max_pixels=109)
    assert_line(error, "11×10", "109")


def test_a_png_that_claims_to_be_vast_takes_no_memory() -> None:
    header = (1_000_000).to_bytes(4, "big") * 2
    chunk = b"IHDR" + header + PNG[24:29]
    bomb = PNG[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + PNG[33:]
    with pytest.raises(ImageError) as error:
        read_picture(bomb)
    assert_line(error, "1000000×1000000")
