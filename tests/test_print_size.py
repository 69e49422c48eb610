"""Pixels per inch: from whatever place a file has for them to whatever place another has."""

import io
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from metadata import MAKE, exif_block
from pictures import encode, make_picture, noise
from PIL import Image

from mambair_cli.images import encode_picture, read_picture
from mambair_cli.images.formats import find_formats
from mambair_cli.images.picture import Metadata
from mambair_cli.images.tiff_resolution import read_exif_resolution, set_exif_resolution

X_RESOLUTION, Y_RESOLUTION, UNIT = 282, 283, 296
FORMATS = find_formats(lambda row: row.resolution)
PIXELS = noise(20, 30, 3)


def exif_with(x: float, y: float, unit: int | None = 2) -> bytes:
    """Return a block of EXIF with a resolution."""
    exif = Image.Exif()
    exif[X_RESOLUTION], exif[Y_RESOLUTION] = x, y
    if unit is not None:
        exif[UNIT] = unit
    return exif.tobytes().removeprefix(b"Exif\0\0")


def in_exif(data: bytes) -> tuple[float, float, int] | None:
    """Return what the EXIF of a file tells of its resolution, as Pillow reads it."""
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
    return (exif[X_RESOLUTION], exif[Y_RESOLUTION], exif.get(UNIT, 2)) if X_RESOLUTION in exif else None


def seen(data: bytes) -> Any:
    """Return the pixels per inch of a file, as Pillow reads them."""
    with Image.open(io.BytesIO(data)) as image:
        if image.format in ("WEBP", "AVIF"):
            resolution = in_exif(data)
            assert resolution is not None
            return tuple(side * {2: 1, 3: 2.54}[resolution[2]] for side in resolution[:2])
        return image.info.get("dpi")


@pytest.mark.parametrize("source", ["webp", "avif", "png", "jpeg", "heif"])
@pytest.mark.parametrize("target", FORMATS)
def test_a_resolution_that_stands_in_exif_alone_counts(source: str, target: str) -> None:
    if source == "heif":
        pytest.importorskip("pillow_heif").register_heif_opener()
    for unit, factor in ((2, 1), (3, 2.54), (None, 1)):
        before = read_picture(encode(PIXELS, source, exif=exif_with(350, 175, unit)))
        assert before.metadata.dpi == pytest.approx((350 * factor, 175 * factor))
        assert seen(encode_picture(before, target)) == pytest.approx((350 * factor, 175 * factor), abs=0.02)


@pytest.mark.parametrize("source", ["webp", "heif"])
def test_a_resolution_in_exif_is_turned_upright_with_the_picture(source: str) -> None:
    if source == "heif":
        pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif.load(exif_with(350, 175))
    exif[0x0112] = 6
    data = encode(PIXELS, source, exif=exif.tobytes().removeprefix(b"Exif\0\0"))
    for target in FORMATS:
        assert seen(encode_picture(read_picture(data), target)) == pytest.approx((175, 350), abs=0.02)


@pytest.mark.parametrize("unit", [0, 1, 9])
def test_a_resolution_in_exif_without_a_unit_of_known_length_is_none(unit: int) -> None:
    before = read_picture(encode(PIXELS, "webp", exif=exif_with(350, 350, unit)))
    assert (before.metadata.dpi, before.metadata.density) == (None, None)


@pytest.mark.parametrize("source", ["png", "jpeg", "tiff"])
@pytest.mark.parametrize("target", ["webp", "avif"])
@pytest.mark.parametrize("has_exif", [False, True])
def test_formats_without_a_place_of_their_own_have_it_in_exif(
    source: str, target: str, has_exif: bool
) -> None:
    exif = exif_block(order="II") if has_exif else None
    before = read_picture(encode(PIXELS, source, dpi=(300, 100), exif=exif))
    data = encode_picture(before, target)
    assert in_exif(data) == (300, 100, 2)
    assert read_picture(data).metadata.dpi == (300, 100)
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif().get(MAKE) == ("Camera works" if has_exif else None)
        assert bool(image.getexif().get_ifd(0x8769)) == has_exif  # and libvips invents none
    bare = encode_picture(replace(make_picture(16, 16), metadata=Metadata(exif=exif)), target)
    assert in_exif(bare) is None
    assert read_picture(bare).metadata.dpi is None


def test_what_exif_says_already_is_not_written_anew() -> None:
    block = exif_with(350, 350)
    before = read_picture(encode(PIXELS, "webp", exif=block))
    assert read_picture(encode_picture(before, "webp")).metadata.exif == before.metadata.exif == block


def test_of_two_resolutions_the_one_outside_exif_counts_and_both_stay_where_there_is_room() -> None:
    for source in ("jpeg", "png"):
        before = read_picture(encode(PIXELS, source, dpi=(300, 300), exif=exif_with(72, 72)))
        assert before.metadata.dpi == (300, 300)
        for target in FORMATS:
            data = encode_picture(before, target)
            assert seen(data) == pytest.approx((300, 300), abs=0.01)
            if target in ("jpeg", "png"):
                assert in_exif(data) == (72, 72, 2)


@pytest.mark.parametrize(("in_exif", "is_reported"), [(200, True), (72, False), (299.9, False)])
def test_a_second_resolution_that_is_left_out_is_reported(
    run: Any, weights: Path, in_exif: float, is_reported: bool
) -> None:
    Path("in.jpg").write_bytes(encode(PIXELS, "jpeg", dpi=(300, 300), exif=exif_with(in_exif, in_exif)))
    for suffix, has_one in (("tif", True), ("webp", True), ("avif", True), ("png", False), ("jpg", False)):
        code, _, err = run(
            "denoise", "in.jpg", "-o", f"out.{suffix}", "--weights", weights / "same.safetensors"
        )
        assert code == 0
        sentence = "left out: the resolution of its EXIF, 200×200 pixels per inch; 300×300 stays"
        assert (sentence in err) == (is_reported and has_one)
        assert ("resolution" in err) == (is_reported and has_one)


def in_centimetres(count: int) -> bytes:
    data = encode(PIXELS, "jpeg", dpi=(count, count))
    return data[:13] + b"\2" + data[14:]


def test_whole_pixels_per_centimetre_stay_whole() -> None:
    for source in (
        in_centimetres(236),
        encode(PIXELS, "tiff", resolution_unit="cm", x_resolution=236, y_resolution=236),
    ):
        with Image.open(io.BytesIO(encode_picture(read_picture(source), "jpeg"))) as image:
            assert (image.info["jfif_unit"], image.info["jfif_density"]) == (2, (236, 236))
    for dpi in (72, 96, 254, 300):
        picture = replace(make_picture(), metadata=Metadata(dpi=(dpi, dpi)))
        with Image.open(io.BytesIO(encode_picture(picture, "jpeg"))) as image:
            assert (image.info["jfif_unit"], image.info["jfif_density"]) == (1, (dpi, dpi))


def test_jfif_behind_exif_is_found() -> None:
    data = encode(PIXELS, "jpeg", dpi=(300, 300))
    exif = exif_with(72, 72)
    segment = b"\xff\xe1" + (len(exif) + 8).to_bytes(2, "big") + b"Exif\0\0" + exif
    assert read_picture(data[:2] + segment + data[2:]).metadata.dpi == (300, 300)


@pytest.mark.parametrize(
    ("kind", "number", "exponent", "dpi"),
    [(b"resc", 11811, 0, 300), (b"resc", 118, 2, 300), (b"resd", 19685, -2, 5)],
)
def test_jpeg_2000_keeps_its_resolution(kind: bytes, number: int, exponent: int, dpi: int) -> None:
    data = encode(PIXELS, "jpeg2000")
    at = data.index(b"jp2h") - 4
    end = at + int.from_bytes(data[at : at + 4], "big")
    box = struct.pack(">I4sI4sHHHHbb", 26, b"res ", 18, kind, number, 2, number, 1, exponent, exponent)
    changed = data[:at] + struct.pack(">I", end - at + len(box)) + data[at + 4 : end] + box + data[end:]
    assert read_picture(changed).metadata.dpi == pytest.approx((dpi, dpi / 2), rel=0.01)
    assert read_picture(data).metadata.dpi is None


def test_pcx_keeps_its_resolution_but_no_size_of_a_screen() -> None:
    data = encode(PIXELS, "pcx")
    for numbers, dpi in (((300, 300), (300, 300)), ((640, 480), None), ((0, 0), None)):
        assert read_picture(data[:12] + struct.pack("<2H", *numbers) + data[16:]).metadata.dpi == dpi


def test_broken_exif_gives_no_resolution_and_stays() -> None:
    for broken in (b"", b"II*\0", exif_block(), exif_with(0, 0)[:40]):
        assert read_exif_resolution(broken) is None
    assert set_exif_resolution(b"II*\0", (300, 300)) == b"II*\0"
    assert read_exif_resolution(set_exif_resolution(None, (599.44, 300)) or b"") == (599.44, 300, 2)
