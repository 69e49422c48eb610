"""Metadata of a picture, from every format to every format, and the orientation that it tells."""

import io
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metadata import (
    COPYRIGHT,
    EXIF_PART,
    EXPOSURE,
    GPS_PART,
    HEIGHT,
    ICC,
    INTEROPERABILITY,
    IPTC,
    MAKE,
    MAKER,
    MAKER_NOTE,
    ORIENTATION,
    WIDTH,
    XMP,
    exif_block,
)
from pictures import encode, make_picture, noise
from PIL import Image, IptcImagePlugin

from mambair_cli.images import encode_picture, read_picture
from mambair_cli.images.metadata import add_iptc, find_description, find_iptc, restate_exif
from mambair_cli.images.picture import Metadata
from mambair_cli.images.tiff_directories import DESCRIPTION, LONG, TEXT, ExifEntry, set_entries
from mambair_cli.images.tiff_resolution import set_exif_resolution

DTYPES = {
    "png": ["uint8", "uint16"],
    "tiff": ["uint8", "uint16", "float32"],
    "webp": ["uint8"],
    "jpeg": ["uint8"],
}


def tags_of(data: bytes) -> tuple[Image.Exif, dict[int, object], dict[int, object]]:
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
        return exif, exif.get_ifd(EXIF_PART), exif.get_ifd(GPS_PART)


@pytest.mark.parametrize("target", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("source", ["png", "jpeg", "webp", "tiff", "avif"])
@pytest.mark.parametrize("order", ["II", "MM"])
def test_metadata_survives_from_every_format_to_every_format(source: str, target: str, order: str) -> None:
    options: dict[str, Any] = {"xmp": XMP} if source != "tiff" else {}
    block = exif_block(orientation=6, order=order)
    before = read_picture(encode(noise(4, 6, 3), source, exif=block, icc_profile=ICC, **options))
    assert before.pixels.shape == (6, 4, 3)
    larger = replace(before, pixels=noise(12, 8, 3))
    data = encode_picture(larger, target)

    main, exif, gps = tags_of(data)
    assert main[MAKE] == "Camera works"
    assert main[COPYRIGHT] == "A. Nobody"
    assert main.get(ORIENTATION, 1) == 1
    assert exif[MAKER] == MAKER_NOTE
    assert exif[EXPOSURE] == (1, 250)
    assert (exif[WIDTH], exif[HEIGHT]) == (8, 12)
    assert gps[2] == (48.0, 8.0, 12.5)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (8, 12)
        image.load()
        assert image.info["icc_profile"] == ICC

    after = read_picture(data)
    assert after.icc == ICC
    if source not in ("png", "tiff"):  # Pillow does not write XMP there
        assert before.metadata.xmp == after.metadata.xmp == XMP.replace(b'"6"', b'"1"')
    assert before.metadata.exif is not None
    assert after.metadata.exif is not None
    if "tiff" not in (source, target):
        assert len(after.metadata.exif) == len(before.metadata.exif)


def test_xmp_has_the_size_of_the_result_and_no_thumbnail() -> None:
    xmp = (
        b'<rdf:Description tiff:ImageWidth="7" tiff:ImageLength = "5" tiff:Orientation="8" dc:id="7">'
        b"<exif:PixelXDimension>7</exif:PixelXDimension><exif:PixelYDimension> 5</exif:PixelYDimension>"
        b"<xmp:Thumbnails><rdf:Alt>\n/9j/4AAQ</rdf:Alt></xmp:Thumbnails></rdf:Description>"
    )
    for format in ("png", "jpeg", "webp", "tiff", "avif"):
        data = encode_picture(replace(make_picture(20, 30), metadata=Metadata(xmp=xmp)), format)
        assert read_picture(data).metadata.xmp == (
            b'<rdf:Description tiff:ImageWidth="30" tiff:ImageLength = "20" tiff:Orientation="1" dc:id="7">'
            b"<exif:PixelXDimension>30</exif:PixelXDimension>"
            b"<exif:PixelYDimension> 20</exif:PixelYDimension></rdf:Description>"
        )


def test_exif_keeps_its_bytes_but_for_what_has_to_change() -> None:
    block = exif_block(orientation=8)
    before = read_picture(encode(noise(4, 6, 3), "png", exif=block))
    assert before.metadata.exif is not None
    assert len(before.metadata.exif) == len(block)
    changed = [i for i, (old, new) in enumerate(zip(block, before.metadata.exif, strict=True)) if old != new]
    assert len(changed) <= 12  # of three entries: the value, and the type of the sizes
    for format in ("png", "jpeg", "webp"):
        assert read_picture(encode_picture(before, format)).metadata.exif == before.metadata.exif


@pytest.mark.parametrize("big", [True, False])
@pytest.mark.parametrize("order", ["II", "MM"])
def test_large_files_are_big_tiff_with_all_metadata(
    big: bool, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if big:
        monkeypatch.setattr("mambair_cli.images.writers._BIGTIFF_BYTES", 0)
    before = replace(make_picture(), icc=ICC, metadata=Metadata(exif=exif_block(order=order), xmp=XMP))
    data = encode_picture(before, "tiff")
    assert data[2] == (43 if big else 42)
    after = read_picture(data)
    np.testing.assert_array_equal(after.pixels, before.pixels)
    assert (after.icc, after.metadata.xmp) == (ICC, XMP.replace(b'"6"', b'"1"'))
    for whole in (data, encode_picture(after, "png")):
        main, exif, gps = tags_of(whole)
        assert main[MAKE] == "Camera works"
        assert exif[MAKER] == MAKER_NOTE
        assert gps[2] == (48.0, 8.0, 12.5)


def test_no_pointer_into_the_void_goes_into_tiff() -> None:
    exif = Image.Exif()
    exif.get_ifd(EXIF_PART)[INTEROPERABILITY] = {1: "R98"}
    exif.get_ifd(EXIF_PART)[EXPOSURE] = (1, 250)
    before = replace(make_picture(), metadata=Metadata(exif=exif.tobytes()))
    assert INTEROPERABILITY in tags_of(encode_picture(before, "jpeg"))[1]
    after = tags_of(encode_picture(before, "tiff"))[1]
    assert INTEROPERABILITY not in after
    assert after[EXPOSURE] == (1, 250)


def test_the_thumbnail_of_the_file_as_it_was_is_unlinked() -> None:
    block = exif_block(thumbnail=True)
    after = read_picture(encode(noise(4, 6, 3), "png", exif=block)).metadata.exif
    assert after is not None
    pointer = 10 + 12 * int.from_bytes(after[8:10], "big")
    assert int.from_bytes(block[pointer : pointer + 4], "big") > 0
    assert int.from_bytes(after[pointer : pointer + 4], "big") == 0


def test_nothing_is_invented_where_a_file_says_nothing() -> None:
    for format in (*DTYPES, "avif"):
        data = encode_picture(make_picture(16, 16), format)
        with Image.open(io.BytesIO(data)) as image:
            for key in ("exif", "xmp", "icc_profile", "photoshop"):
                assert key not in image.info
            assert "dpi" not in image.info
            assert image.info.get("resolution", (1, 1)) == (1, 1)
        after = read_picture(data)
        assert (after.icc, after.metadata) == (None, Metadata())


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff"])
@pytest.mark.parametrize("with_exif", [False, True])
def test_resolution_survives(format: str, with_exif: bool) -> None:
    block = exif_block(orientation=6) if with_exif else None
    before = read_picture(encode(noise(4, 6, 3), format, dpi=(300, 100), exif=block))
    assert before.metadata.dpi == ((100.0, 300.0) if with_exif else (300.0, 100.0))
    for target in ("png", "jpeg", "tiff"):
        data = encode_picture(before, target)
        assert read_picture(data).metadata.dpi == before.metadata.dpi
        with Image.open(io.BytesIO(data)) as image:
            assert image.info["dpi"] == pytest.approx(before.metadata.dpi, abs=0.01)


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("target", ["png", "webp", "avif", "tiff"])
def test_exif_does_not_grow_from_copy_to_copy(target: str, order: str) -> None:
    metadata = Metadata(exif=exif_block(order=order), iptc=IPTC, dpi=(300.0, 200.0))
    first = replace(make_picture(16, 16), metadata=metadata)
    lengths = []
    copy = first
    for _ in range(3):
        copy = read_picture(encode_picture(copy, target))
        lengths.append(len(copy.metadata.exif or b""))
        assert copy.metadata.iptc == IPTC
    assert len(set(lengths)) == 1


def test_added_entries_leave_the_bytes_of_exif_where_they_are_and_copy_no_value() -> None:
    text = b"a long description " * 500
    block = set_entries(exif_block(), {DESCRIPTION: ExifEntry(TEXT, len(text), text)})
    for changed in (add_iptc(block, IPTC), set_exif_resolution(block, (300, 200))):
        assert changed is not None
        assert changed[8 : len(block)] == block[8:]
        assert changed.count(text) == 1
        assert len(changed) - len(block) < len(text)
        assert find_description(changed) == text.strip()
    changed = add_iptc(block, IPTC)
    assert find_iptc(changed) == IPTC
    assert add_iptc(changed, IPTC) == changed


def test_the_size_of_the_picture_in_the_main_directory_follows_the_result() -> None:
    sizes = {tag: ExifEntry(LONG, 1, struct.pack(">I", 64)) for tag in (0x100, 0x101)}
    restated = restate_exif(set_entries(exif_block(), sizes), 128, 96)
    assert restated is not None
    main, _, _ = tags_of(encode(noise(4, 6, 3), "png", exif=restated))
    assert (main[0x100], main[0x101]) == (128, 96)


@pytest.mark.parametrize("target", ["jpeg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("with_exif", [False, True])
def test_iptc_goes_from_jpeg_to_everywhere_and_back(target: str, with_exif: bool) -> None:
    metadata = Metadata(exif=exif_block() if with_exif else None, iptc=IPTC)
    before = replace(make_picture(16, 16), metadata=metadata)
    data = encode_picture(before, target)
    after = read_picture(data)
    assert after.metadata.iptc == IPTC
    assert read_picture(encode_picture(after, "jpeg")).metadata.iptc == IPTC
    with Image.open(io.BytesIO(data)) as image:
        found = IptcImagePlugin.getiptcinfo(image) or {}
        if target in ("jpeg", "tiff"):  # where Pillow looks for it
            assert found[2, 5] == b"Meadows"
        else:
            assert b"Meadows" in image.getexif()[0x83BB]
        if with_exif:
            assert image.getexif()[MAKE] == "Camera works"
            assert image.getexif().get_ifd(EXIF_PART)[MAKER] == MAKER_NOTE


def test_a_broken_block_of_photoshop_costs_no_picture() -> None:
    for broken in (b"", b"Photoshop 3.0\0", IPTC[:20], IPTC[:25], b"8BIM" * 9):
        for format in ("png", "tiff", "jpeg"):
            before = replace(make_picture(16, 16), metadata=Metadata(exif=exif_block(), iptc=broken))
            np.testing.assert_array_equal(
                read_picture(encode_picture(before, format)).pixels.shape, before.pixels.shape
            )


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_broken_exif_costs_no_picture(data: st.DataObject) -> None:
    block = bytearray(exif_block(orientation=6))
    for _ in range(data.draw(st.integers(1, 4))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    block = block[: data.draw(st.integers(0, len(block)))]
    pixels = noise(4, 6, 3)
    for format in ("png", "tiff"):
        broken = replace(make_picture(), pixels=pixels, metadata=Metadata(exif=bytes(block)))
        after = read_picture(encode_picture(broken, format))
        np.testing.assert_array_equal(after.pixels, pixels)  # upright: what is kept does not turn it


def test_exif_whose_directory_lies_in_its_header_is_dropped() -> None:
    broken = b"MM\0*" + struct.pack(">IH", 4, 0)
    assert restate_exif(broken, 4, 6) is None
    encode_picture(replace(make_picture(), metadata=Metadata(exif=broken)), "tiff")


# For an image of the rows "abc" and "def", stored; what a viewer shows for each orientation.
TURNED = {
    1: ["abc", "def"],
    2: ["cba", "fed"],
    3: ["fed", "cba"],
    4: ["def", "abc"],
    5: ["ad", "be", "cf"],
    6: ["da", "eb", "fc"],
    7: ["fc", "eb", "da"],
    8: ["cf", "be", "ad"],
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff", "avif"])
def test_orientation_is_applied_and_reset(orientation: int, format: str) -> None:
    block = 16  # pixels a letter, for JPEG and AVIF to be exact enough
    rows = np.array([list(row.encode()) for row in ("abc", "def")], np.uint8) * 40
    stored = np.kron(rows[..., None], np.ones((block, block, 3), np.uint8))
    options: dict[str, Any] = {"lossless": True} if format == "webp" else {"quality": 95}
    after = read_picture(encode(stored, format, exif=exif_block(orientation), **options))

    letters = np.array([list(row.encode()) for row in TURNED[orientation]], np.uint8) * 40
    expected = np.kron(letters[..., None], np.ones((block, block, 3), np.uint8))
    assert after.pixels.shape == expected.shape
    assert np.abs(after.pixels.astype(int) - expected).max() <= 3
    assert after.pixels.flags.c_contiguous
    again = read_picture(encode_picture(after, "png"))
    np.testing.assert_array_equal(again.pixels, after.pixels)


def test_alpha_turns_with_the_pixels() -> None:
    samples = noise(3, 5, 4)
    after = read_picture(encode(samples, "png", exif=exif_block(6)))
    assert after.alpha is not None
    np.testing.assert_array_equal(after.pixels, np.rot90(samples[..., :3], -1))
    np.testing.assert_array_equal(after.alpha, np.rot90(samples[..., 3], -1))
