"""The rows of docs/formats.md: what one library writes, another one reads."""

import io
import re
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tifffile
from pictures import encode
from PIL import Image, ImageCms
from repository import ROOT

from mambair_cli.errors import ImageError
from mambair_cli.images import FORMATS, Picture, encode_picture, open_picture, read_picture
from mambair_cli.images.picture import Metadata
from mambair_cli.images.writers import WRITERS
from mambair_cli.system.wording import enumerate_names

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
MAKE, GPS = 0x010F, 0x8825


def samples(height: int, width: int, bands: int, dtype: str = "uint8") -> np.ndarray:
    """Return smooth colours, so that lossy formats come close, of the full range."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.cos(x / (5 + band)) * np.sin(y / (7 + band)) for band in range(bands)]
    values = np.stack(waves, axis=2)
    values = (values - values.min()) / (values.max() - values.min())
    if dtype == "float32":
        return values.astype(np.float32)
    return (values * np.iinfo(dtype).max).round().astype(dtype)


def picture(bands: int, dtype: str, alpha: bool) -> Picture:
    values = samples(40, 56, bands + alpha, dtype)
    return Picture(
        np.ascontiguousarray(values[..., :bands]),
        np.ascontiguousarray(values[..., bands]) if alpha else None,
        icc=ICC if bands == 3 else None,
        metadata=Metadata(exif=exif(), xmp=XMP, dpi=(300, 300)),
    )


def exif() -> bytes:
    block = Image.Exif()
    block[MAKE] = "Camera works"
    block.get_ifd(GPS)[2] = (48.0, 8.0, 12.5)
    return block.tobytes().removeprefix(b"Exif\0\0")


def seen_by_pillow(data: bytes) -> tuple[np.ndarray, Image.Image]:
    image = Image.open(io.BytesIO(data))
    image.load()
    return np.asarray(image), image


# What the rows of images.formats say


def test_each_format_has_a_writer_and_another_library_reads_it() -> None:
    assert WRITERS.keys() == FORMATS.keys()
    own_tests = {"tiff", "gif"}  # below
    assert {format for format, *_ in WRITTEN} | own_tests == FORMATS.keys()


def test_the_documents_say_what_the_rows_say() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"reads and writes {enumerate_names(row.title for row in FORMATS.values())}" in readme
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    lines = text.partition("## Written\n\n")[2].partition("\n\n")[0].splitlines()
    heads, _, *rows = [[cell.strip(" ¹²") for cell in line.strip("|").split("|")] for line in lines]
    documented = {cells[0]: dict(zip(heads, cells, strict=True)) for cells in rows}
    assert [*documented] == [row.title for row in FORMATS.values()]
    for name, row in FORMATS.items():
        cells = documented[row.title]
        assert cells["`--format`, suffixes"] == f"`{name}` {' '.join(row.suffixes)}"
        depths = {"uint8": "8", "uint16": "16", "float32": "32 float"}
        bits = ", ".join(depths[dtype] for dtype in row.dtypes)
        bits += f"; frames {depths[row.frames_dtype]}" if row.frames_dtype else ""
        listed = re.sub(r"\d+ of ", "", cells["bits"])  # some keep 12 of 16
        assert listed == (bits if row.colours is None else f"{row.colours} colours")
        assert cells["gray"] == ("yes" if row.has_gray else "as RGB")
        assert cells["alpha"].startswith("refused") == (not row.has_alpha)
        assert cells["profile"] == ("yes" if row.has_profile else "as sRGB")
        for head, longest in (("EXIF", row.longest_exif), ("XMP", row.longest_xmp)):
            assert cells[head] == {None: "yes", 0: "–"}.get(longest, f"to {longest} bytes")
        has_iptc = row.has_iptc or row.resolution == "tags"
        assert cells["IPTC"] == ("yes" if has_iptc else "–" if row.longest_exif == 0 else "in EXIF")
        assert cells["texts"] == {None: "–", "keywords": "yes", "comments": "as comments"}[row.texts]
        assert (cells["pages, frames"] != "–") == row.has_frames
        way, *limits = cells["while it is written"].split("; ")
        assert way == ("whole" if row.is_whole else "row by row")
        longest = f"at most {row.longest_side} pixels a side"
        assert (longest in limits) == (row.longest_side is not None)


# What is written

WRITTEN = [
    ("png", 1, "uint8", False, 0),
    ("png", 1, "uint8", True, 0),
    ("png", 3, "uint8", False, 0),
    ("png", 3, "uint8", True, 0),
    ("png", 1, "uint16", False, 0),
    ("jpeg", 1, "uint8", False, 4),
    ("jpeg", 3, "uint8", False, 8),
    ("webp", 3, "uint8", False, 0),
    ("webp", 3, "uint8", True, 0),
    ("avif", 3, "uint8", False, 0),
    ("avif", 3, "uint8", True, 0),
]


@pytest.mark.parametrize(("format", "bands", "dtype", "alpha", "tolerance"), WRITTEN)
def test_what_is_written_pillow_reads(
    format: str, bands: int, dtype: str, alpha: bool, tolerance: int
) -> None:
    before = picture(bands, dtype, alpha)
    seen, image = seen_by_pillow(encode_picture(before, format, quality=100))
    assert seen.dtype == dtype
    np.testing.assert_allclose(
        seen.reshape(before.samples.shape).astype(int), before.samples, atol=tolerance, rtol=0
    )
    assert image.info.get("icc_profile") == before.icc
    tags = image.getexif()
    assert tags[MAKE] == "Camera works"
    assert tags.get_ifd(GPS)[2] == (48.0, 8.0, 12.5)
    assert b"xmpmeta" in str(image.info.get("xmp", image.info.get("XML:com.adobe.xmp", ""))).encode()
    if format in ("png", "jpeg"):
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def png_chunks(data: bytes) -> bytes:
    """Undo PNG's own compression, by hand: Pillow has no 16-bit RGB."""
    at, packed = 8, b""
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += 12 + length
    return zlib.decompress(packed)


@pytest.mark.parametrize(("bands", "alpha"), [(3, False), (3, True), (1, True)])
def test_png_of_16_bits_a_sample_is_what_the_standard_says(bands: int, alpha: bool) -> None:
    before = picture(bands, "uint16", alpha)
    data = encode_picture(before, "png")
    width, height, depth, kind = struct.unpack_from(">IIBB", data, 16)
    assert (width, height, depth) == (56, 40, 16)
    assert kind == {1: 4, 3: 2, 4: 6}[before.samples.shape[2] if bands == 3 else 1]
    rows = np.frombuffer(png_chunks(data), np.uint8).reshape(height, -1)
    step = before.samples.shape[2] * 2
    seen = np.zeros((height, rows.shape[1] - 1), np.uint8)
    for y, row in enumerate(rows):  # the filters of PNG, section 9
        above = seen[y - 1].astype(int) if y else np.zeros(len(row) - 1, int)
        line = row[1:].astype(int)
        for x in range(len(line)):
            left = line[x - step] if x >= step else 0
            corner = above[x - step] if x >= step else 0
            nearest = min((left, above[x], corner), key=lambda p: abs(left + above[x] - corner - p))
            line[x] = (line[x] + (0, left, above[x], (left + above[x]) // 2, nearest)[row[0]]) % 256
        seen[y] = line
    np.testing.assert_array_equal(seen.view(">u2").reshape(before.samples.shape), before.samples)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(("bands", "alpha"), [(1, False), (1, True), (3, False), (3, True)])
def test_tiff_is_read_by_tifffile(bands: int, alpha: bool, dtype: str) -> None:
    before = picture(bands, dtype, alpha)
    with tifffile.TiffFile(io.BytesIO(encode_picture(before, "tiff"))) as file:
        (page,) = file.pages
        seen = page.asarray()
        tags = page.tags  # pyright: ignore[reportAttributeAccessIssue] a frame would have none; this is a page
    assert seen.dtype == dtype
    np.testing.assert_array_equal(seen.reshape(before.samples.shape), before.samples)
    assert tags[MAKE].value == "Camera works"
    assert tags["GPSTag"].value["GPSLatitude"] == (48, 1, 8, 1, 25, 2)
    assert tags[700].value == XMP
    assert (tags[34675].value if 34675 in tags else None) == before.icc
    assert ("ExtraSamples" in tags) == alpha
    assert tags["XResolution"].value[0] / tags["XResolution"].value[1] == pytest.approx(300)


def test_avif_of_16_bits_keeps_12() -> None:
    before = picture(3, "uint16", False)
    before = replace(before, metadata=replace(before.metadata, exif=None))
    data = encode_picture(before, "avif", quality=100)
    assert b"av1C" in data
    flags = data[data.index(b"av1C") + 6]
    assert flags & 0x60 == 0x60  # high bit depth, twelve bits: AV1 in ISOBMFF, 2.3.3
    seen, _ = seen_by_pillow(data)
    np.testing.assert_allclose(seen, before.pixels / 257, atol=1.01)
    after = read_picture(data)
    assert np.abs(after.pixels.astype(int) - before.pixels).max() <= 65535 / 4095 / 2 + 1


@pytest.mark.parametrize("format", ["webp", "avif"])
def test_gray_is_rgb_where_a_format_has_no_gray(format: str) -> None:
    before = picture(1, "uint8", False)
    seen, image = seen_by_pillow(encode_picture(before, format, quality=100))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(seen, before.pixels.repeat(3, axis=2))


def test_gif_has_256_colours_and_no_more() -> None:
    before = replace(picture(3, "uint8", False), icc=None)
    seen, image = seen_by_pillow(encode_picture(before, "gif"))
    assert image.mode in ("P", "RGB")
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - before.pixels).mean() < 12
    assert seen.shape[:2] == (40, 56)


# What is read


READ = [
    ("png", {}, 0),
    ("jpeg", {"quality": 100, "subsampling": 0}, 8),
    ("jpeg", {"quality": 100, "subsampling": 0, "progressive": True}, 8),
    ("webp", {"lossless": True}, 0),
    ("avif", {"quality": 100, "subsampling": "4:4:4"}, 4),
    ("bmp", {}, 0),
    ("ppm", {}, 0),
    ("jpeg2000", {"irreversible": False}, 0),
    ("tiff", {}, 0),
    ("tiff", {"compression": "tiff_lzw"}, 0),
    ("tiff", {"compression": "tiff_adobe_deflate"}, 0),
    ("tiff", {"compression": "jpeg", "quality": 100}, 12),
]


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize(("format", "options", "tolerance"), READ)
def test_what_pillow_writes_is_read(format: str, options: dict[str, Any], tolerance: int, bands: int) -> None:
    values = samples(40, 56, bands)
    after = read_picture(encode(values, format, **options))
    assert after.format == format
    assert after.pixels.dtype == np.uint8
    expected = values.repeat(3, axis=2) if after.pixels.shape[2] > bands else values
    np.testing.assert_allclose(after.pixels.astype(int), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("format", ["png", "webp", "tiff", "jpeg2000"])
def test_alpha_that_pillow_writes_is_read(format: str) -> None:
    values = samples(40, 56, 4)
    options: dict[str, Any] = {"irreversible": False} if format == "jpeg2000" else {}
    options |= {"lossless": True, "exact": True} if format == "webp" else {}
    after = read_picture(encode(values, format, **options))
    np.testing.assert_array_equal(after.samples, values)


def test_bmp_has_alpha_where_its_header_has_a_mask_for_it() -> None:
    values = samples(6, 5, 4)
    head = struct.pack("<IiiHHIIiiII", 108, 5, 6, 1, 32, 3, values.size, 0, 0, 0, 0)
    masks = struct.pack("<4I", 0xFF, 0xFF00, 0xFF0000, 0xFF000000)  # red lowest
    body = (head + masks).ljust(108, b"\0")
    data = struct.pack("<2sIII", b"BM", 14 + 108 + values.size, 0, 14 + 108) + body + values[::-1].tobytes()
    np.testing.assert_array_equal(read_picture(data).samples, values)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", ["strips", "tiles", "big", "planes"])
def test_tiff_that_tifffile_writes_is_read(layout: str, bands: int, dtype: str) -> None:
    values = samples(40, 56, bands, dtype)
    options: dict[str, Any] = {"tile": (16, 16)} if layout == "tiles" else {"rowsperstrip": 7}
    if bands % 2 == 0:
        options["extrasamples"] = ["unassalpha"]
    if layout == "planes" and bands > 2:
        options["planarconfig"] = "separate"
        written = np.moveaxis(values, 2, 0)
    else:
        written = values.squeeze()
    file = io.BytesIO()
    photometric = "rgb" if bands > 2 else "minisblack"
    with tifffile.TiffWriter(file, bigtiff=layout == "big") as writer:
        writer.write(written, photometric=photometric, metadata=None, compression="zlib", **options)
    after = read_picture(file.getvalue())
    assert after.samples.dtype == dtype
    np.testing.assert_array_equal(after.samples, values)


def test_gray_and_alpha_in_planes_are_refused() -> None:
    file = io.BytesIO()
    planes = np.moveaxis(samples(40, 56, 2), 2, 0)
    tifffile.imwrite(
        file, planes, photometric="minisblack", planarconfig="separate", extrasamples=["unassalpha"]
    )
    with pytest.raises(ImageError, match="in separate planes"):
        read_picture(file.getvalue())


@pytest.mark.parametrize("white", [1, 7, 255, 1000, 65535])
@pytest.mark.parametrize("kind", [2, 3, 5, 6])
def test_netpbm_is_read_at_its_depth(kind: int, white: int) -> None:
    bands = 3 if kind in (3, 6) else 1
    values = (samples(4, 5, bands, "float32") * white).round().astype(np.uint16)
    head = f"P{kind}\n# a comment\n5 4\n{white}\n".encode()
    if kind < 4:
        body = " ".join(map(str, values.ravel())).encode()
    else:
        body = values.astype(np.uint8 if white < 256 else ">u2").tobytes()
    after = read_picture(head + body)
    assert after.pixels.dtype == (np.uint8 if white < 256 else np.uint16)
    full = np.iinfo(after.pixels.dtype).max
    np.testing.assert_array_equal(after.pixels, np.floor(values * (full / white) + 0.5))
    if white == 255:  # Pillow agrees
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(head + body))), after.pixels.squeeze())


@pytest.mark.parametrize("text", [True, False])
def test_bitmaps_of_ink_are_read(text: bool) -> None:
    ink = samples(3, 11, 1)[..., 0] > 127
    head = b"P1\n11 3\n" if text else b"P4\n11 3\n"
    body = "".join(map(str, ink.ravel().astype(int))).encode() if text else np.packbits(ink, axis=1).tobytes()
    after = read_picture(head + body)
    np.testing.assert_array_equal(after.pixels[..., 0], np.where(ink, 0, 255))
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(head + body)).convert("L")), after.pixels[..., 0]
    )


def test_jpeg_2000_of_16_bits_is_read_in_gray_and_refused_in_colour() -> None:
    deep = samples(40, 56, 1, "uint16")
    after = read_picture(encode(deep, "jpeg2000", irreversible=False))
    np.testing.assert_array_equal(after.pixels, deep)
    data = bytearray(encode(samples(40, 56, 3), "jpeg2000", irreversible=False))
    start = data.index(b"\xff\x4f\xff\x51")
    data[start + 42 : start + 51 : 3] = bytes([15] * 3)  # its samples are said to have 16 bits
    with pytest.raises(ImageError, match="with 8 bits, not 16; convert it"):
        read_picture(bytes(data))


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("alpha", [False, True])
def test_heic_is_read(bits: int, alpha: bool) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    values = samples(64, 48, 3 + alpha, "uint8" if bits == 8 else "uint16")
    mode = ("RGBA" if alpha else "RGB") + (";16" if bits > 8 else "")
    file = io.BytesIO()
    heif = pillow_heif.from_bytes(mode, (48, 64), values.tobytes())
    block = b"Exif\0\0" + exif()
    heif.save(file, quality=-1, chroma=444, matrix_coefficients=0, exif=block, icc_profile=ICC)
    after = read_picture(file.getvalue())
    assert after.format == "heic"
    assert after.samples.dtype == values.dtype
    white = np.iinfo(values.dtype).max
    np.testing.assert_allclose(after.samples / white, values / white, atol=2 / 255)
    assert after.icc == ICC
    assert after.metadata.exif is not None
    assert b"Camera works" in after.metadata.exif


@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_open_exr_is_linear_and_shown_by_the_curve_of_srgb(tmp_path: Any, kind: str) -> None:
    exr = pytest.importorskip("OpenEXR")
    light = samples(20, 30, 3, "float32").astype(kind)
    exr.File({"compression": exr.ZIP_COMPRESSION}, {"RGB": light}).write(str(tmp_path / "a.exr"))
    after = read_picture(tmp_path / "a.exr")
    light = light.astype(np.float32)
    curve = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(after.pixels, curve, atol=1e-6)
    exr.File({}, {"RGB": light * 5}).write(str(tmp_path / "bright.exr"))
    with pytest.raises(ImageError, match="between 0 and 5; scale them"):
        read_picture(tmp_path / "bright.exr")


def test_colours_of_open_exr_are_premultiplied(tmp_path: Any) -> None:
    exr = pytest.importorskip("OpenEXR")
    light = np.zeros((2, 2, 4), np.float32)
    light[0] = (0.1, 0.2, 0.4, 0.5)
    exr.File({}, {"RGBA": light}).write(str(tmp_path / "a.exr"))
    after = read_picture(tmp_path / "a.exr")
    assert after.alpha is not None
    np.testing.assert_allclose(after.alpha, light[..., 3])
    np.testing.assert_allclose(
        after.pixels[0, 0], 1.055 * np.array([0.2, 0.4, 0.8]) ** (1 / 2.4) - 0.055, atol=1e-6
    )
    assert (after.pixels[1] == 0).all()


@pytest.mark.parametrize("format", ["avif", "heic", "png"])
def test_colours_given_by_numbers_become_a_profile(format: str) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    values = samples(64, 48, 3)
    if format == "heic":
        file = io.BytesIO()
        pillow_heif.from_bytes("RGB", (48, 64), values.tobytes()).save(file, quality=-1, chroma=444)
        data = file.getvalue()
    else:
        data = encode_picture(Picture(values), format, quality=100)
    assert read_picture(data).icc is None  # sRGB

    def tell(primaries: int, transfer: int) -> bytes:
        if format == "png":
            chunk = b"cICP" + bytes([primaries, transfer, 0, 1])
            return data[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
        at = data.index(b"colrnclx") + 8
        return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]

    assert read_picture(tell(1, 13)).icc is None
    after = read_picture(tell(12, 13))
    assert after.icc is not None
    assert "P3" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(after.icc)))
    for numbers in ((9, 16), (9, 13), (12, 18)):
        with pytest.raises(ImageError, match="HDR"):
            read_picture(tell(*numbers))


# Frames and pages


@pytest.mark.parametrize("format", ["gif", "webp", "tiff"])
def test_frames_are_read_one_below_the_other_with_their_times(format: str) -> None:
    frames = [np.full((16, 24, 3), 40 + 80 * number, np.uint8) for number in range(3)]
    frames[1][:8] = (250, 10, 10)
    images = [Image.fromarray(frame) for frame in frames]
    file = io.BytesIO()
    options: dict[str, Any] = {} if format == "tiff" else {"duration": [100, 250, 70], "loop": 3}
    options |= {"lossless": True} if format == "webp" else {}
    images[0].save(file, format, save_all=True, append_images=images[1:], **options)
    with open_picture(file.getvalue()) as reader:
        header = reader.header
        assert (header.frames, header.width, header.height) == (3, 24, 16)
        assert header.delays == (None if format == "tiff" else (100, 250, 70))
        # WebP counts how often it is shown, GIF how often again.
        assert header.loop == {"tiff": 0, "webp": 3, "gif": 4}[format]
        seen = np.concatenate([reader.read(0, 10), reader.read(10, 48)])
        again = reader.read(0, 48)
    np.testing.assert_array_equal(seen[..., :3], np.concatenate(frames))
    np.testing.assert_array_equal(seen, again)


def test_pages_that_differ_are_refused() -> None:
    pages = [Image.new("RGB", (8, 8)), Image.new("RGB", (9, 8))]
    file = io.BytesIO()
    pages[0].save(file, "tiff", save_all=True, append_images=pages[1:])
    with (
        pytest.raises(ImageError, match="2 pages differ in size or kind; split it"),
        open_picture(file.getvalue()),
    ):
        pass


def test_an_animated_png_is_refused() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "png", save_all=True, append_images=frames[1:])
    with pytest.raises(
        ImageError, match=r"animated PNG of 2 frames; .* ffmpeg -i FILE -lossless 1 -loop 0 new\.webp"
    ):
        read_picture(file.getvalue())
