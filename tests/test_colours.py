"""Colours that files tell by numbers, in chunks and boxes: seen by littleCMS, and as sRGB with --strip."""

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from checkpoints import save_identity
from pictures import encode
from PIL import Image, ImageCms
from profiles import ADOBE_RGB, gray_profile

from mambair_cli.cli import main
from mambair_cli.images import Picture, Writer, encode_picture, read_picture
from mambair_cli.images.iso_boxes import find_extras, read_colour_numbers
from mambair_cli.images.tiff_directories import (
    LONG,
    TEXT,
    Directory,
    ExifEntry,
    append_directory,
    read_directory,
    read_header,
)

ADOBE_POINTS = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
SRGB_POINTS = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
SRGB_GAMMA, LINEAR = 45455, 100_000


def chunk(kind: bytes, *numbers: int, form: str = "I") -> bytes:
    body = struct.pack(f">{len(numbers)}{form}", *numbers)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def gamma(value: int) -> bytes:
    return chunk(b"gAMA", value)


def colours(bands: int = 3) -> np.ndarray:
    y, x = np.mgrid[0:24, 0:32] / np.array([24, 32]).reshape(2, 1, 1)
    rgb = np.stack([0.5 + 0.3 * x, 0.45 + 0.2 * y, 0.65 - 0.3 * x * y], axis=2)
    return (255 * rgb[..., :bands]).round().astype(np.uint8)


def png(array: np.ndarray, *chunks: bytes, icc: bytes | None = None) -> bytes:
    data = encode(array, icc_profile=icc)
    return data[:33] + b"".join(chunks) + data[33:]


def encoded(light: np.ndarray) -> np.ndarray:
    """Return light as samples of sRGB, 0 to 255."""
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def matrix(points: tuple[int, ...]) -> np.ndarray:
    """Return what makes XYZ of light that is mixed from primaries, whose white stands first."""
    white, *primaries = np.array(points).reshape(4, 2) / 100_000
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    return columns * np.linalg.solve(columns, [white[0] / white[1], 1, (1 - white.sum()) / white[1]])


@pytest.fixture
def stripped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the pixels of a file after a command that changes nothing but to strip it."""
    monkeypatch.chdir(tmp_path)
    save_identity(Path("same.safetensors"))

    def strip(data: bytes) -> np.ndarray:
        Path("in.png").write_bytes(data)
        options = ["--weights", "same.safetensors", "--strip", "--overwrite", "-q", "-o", "out.png"]
        assert main(["denoise", "in.png", *options]) == 0
        with Image.open("out.png") as image:
            assert not {"icc_profile", "gamma", "srgb", "chromaticity"} & image.info.keys()
            return np.asarray(image).astype(float)

    return strip


def test_linear_samples_are_shown_as_they_are_meant(stripped: Any) -> None:
    values = colours()
    after = stripped(png(values, gamma(LINEAR)))
    assert np.abs(after - encoded(values / 255)).max() <= 1


def test_chromaticities_and_gamma_become_a_profile(stripped: Any) -> None:
    values = colours()
    adobe = (gamma(45455), chunk(b"cHRM", *ADOBE_POINTS))
    light = (values / 255) ** (100_000 / SRGB_GAMMA)
    mixed = light @ matrix(ADOBE_POINTS).T @ np.linalg.inv(matrix(SRGB_POINTS)).T
    after = stripped(png(values, *adobe))
    assert np.abs(after - encoded(mixed.clip(0, 1))).max() <= 1.5
    assert np.abs(after - values).max() > 10

    carried = read_picture(encode_picture(read_picture(png(values, *adobe)), "jpeg")).icc
    assert carried is not None
    read = ImageCms.ImageCmsProfile(io.BytesIO(carried))
    assert "gamma 2.2" in ImageCms.getProfileDescription(read)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_saturated_colours_become_right_ones_to_a_step(dtype: str) -> None:
    white = np.iinfo(dtype).max
    values = np.random.default_rng(0).integers(0, white, (40, 50, 3), dtype, endpoint=True)
    mixed = (values / white) ** 2.19921875 @ matrix(ADOBE_POINTS).T @ np.linalg.inv(matrix(SRGB_POINTS)).T
    file = io.BytesIO()
    header = Picture(values, icc=ADOBE_RGB).header
    with Writer(file, header, "png", None, "the image", strip=True) as writer:
        writer.write(0, values)
        writer.finish()
    after = read_picture(file.getvalue()).pixels.astype(float) * 255 / white
    assert np.abs(after - encoded(mixed.clip(0, 1))).max() < 2


def dcf_exif(index: str = "R03", space: int = 65535) -> bytes:
    """Return EXIF of a camera that says what its colours are in EXIF alone."""
    exif = Image.Exif()
    part = exif.get_ifd(0x8769)
    part[0xA001], part[0xA005] = space, {1: index}
    return exif.tobytes().removeprefix(b"Exif\0\0")


def marked_tiff(array: np.ndarray) -> bytes:
    """Return a TIFF file with the same mark, which Pillow does not write."""
    block = bytearray(encode(array, "tiff"))
    layout, at = read_header(block)
    main, _ = read_directory(block, layout, at)
    marks: Directory = {1: ExifEntry(TEXT, 4, b"R03\0")}
    for tag, pointing in ((0xA005, {}), (0x8769, main)):
        at = append_directory(block, layout, marks, 0, 0)
        marks = pointing | {tag: ExifEntry(LONG, 1, struct.pack(layout.offset, at))}
    at = append_directory(block, layout, marks, 0, 0)
    return bytes(block[: layout.first] + struct.pack(layout.offset, at) + block[layout.first + 4 :])


@pytest.mark.parametrize("format", ["jpeg", "webp", "tiff"])
def test_what_a_camera_marks_as_adobe_rgb_gets_a_profile(format: str, stripped: Any) -> None:
    values = np.broadcast_to(np.array([100, 180, 60], np.uint8), (24, 32, 3))
    data = marked_tiff(values) if format == "tiff" else encode(values, format, exif=dcf_exif(), quality=100)
    plain, before = read_picture(encode(values, "png")), read_picture(data)
    assert before.icc is not None
    light = (values[:1, :1] / 255) ** 2.2
    mixed = light @ matrix(ADOBE_POINTS).T @ np.linalg.inv(matrix(SRGB_POINTS)).T
    assert np.abs(stripped(data) - encoded(mixed.clip(0, 1))).max() <= 2.5
    again = read_picture(encode_picture(before, "png"))
    assert again.icc == before.icc
    assert plain.icc is None


@pytest.mark.parametrize("exif", [dcf_exif("R98"), dcf_exif(space=1), dcf_exif()[:-16], b"MM"])
def test_other_marks_make_no_profile(exif: bytes) -> None:
    assert read_picture(encode(colours(), "jpeg", exif=exif)).icc is None


def test_an_embedded_profile_counts_more_than_a_mark() -> None:
    assert read_picture(encode(colours(), "jpeg", exif=dcf_exif(), icc_profile=ADOBE_RGB)).icc == ADOBE_RGB
    gray = encode(colours(1)[..., 0], "jpeg", exif=dcf_exif())
    assert read_picture(gray).icc is None


def test_gray_of_a_gamma_keeps_its_light(stripped: Any) -> None:
    values = colours(1)
    after = stripped(png(values, gamma(LINEAR)))
    assert after.ndim == 2
    assert np.abs(after - encoded(values[..., 0] / 255)).max() <= 1


@pytest.mark.parametrize(
    "chunks",
    [
        (),
        (gamma(SRGB_GAMMA),),
        (gamma(SRGB_GAMMA), chunk(b"cHRM", *SRGB_POINTS)),
        (chunk(b"sRGB", 0, form="B"), gamma(LINEAR)),
        (chunk(b"cICP", 1, 13, 0, 1, form="B"), gamma(LINEAR)),
        (gamma(0),),
        (gamma(1),),
        (chunk(b"cHRM", *[0] * 8),),
        (chunk(b"cHRM", *[33000] * 8),),
        (chunk(b"cHRM", 1, 2),),
    ],
    ids=["none", "gamma", "points", "srgb", "cicp", "zero", "mad", "no points", "one point", "short"],
)
def test_srgb_and_nonsense_get_no_profile(chunks: tuple[bytes, ...]) -> None:
    assert read_picture(png(colours(), *chunks)).icc is None


def test_what_a_png_says_first_counts() -> None:
    linear = gamma(LINEAR)
    assert read_picture(png(colours(), linear, icc=ADOBE_RGB)).icc == ADOBE_RGB
    p3 = chunk(b"cICP", 12, 13, 0, 1, form="B")
    after = read_picture(png(colours(), p3, linear, icc=ADOBE_RGB)).icc
    assert after is not None
    assert "P3" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(after)))
    unspecified = chunk(b"cICP", 2, 2, 0, 1, form="B")
    assert read_picture(png(colours(), unspecified, icc=ADOBE_RGB)).icc == ADOBE_RGB


def test_numbers_of_linear_light_are_no_srgb(stripped: Any) -> None:
    values = colours()
    after = stripped(png(values, chunk(b"cICP", 1, 8, 0, 1, form="B")))
    assert np.abs(after - encoded(values / 255)).max() <= 1


@pytest.mark.parametrize(("curve", "power"), [(4, 2.2), (5, 2.8), (8, 1.0), (17, 2.6)])
def test_numbers_of_a_gray_picture_keep_its_light(curve: int, power: float, stripped: Any) -> None:
    values = colours(1)
    after = stripped(png(values, chunk(b"cICP", 1, curve, 0, 1, form="B")))
    assert np.abs(after - encoded((values[..., 0] / 255) ** power)).max() <= 1


@pytest.mark.parametrize("primaries", [4, 5, 6, 7, 8, 10, 11, 12, 22])
def test_numbers_of_other_primaries_become_a_profile(primaries: int) -> None:
    picture = read_picture(png(colours(), chunk(b"cICP", primaries, 13, 0, 1, form="B")))
    assert picture.icc is not None
    assert picture.warnings == ()
    profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.icc)).profile
    seen = np.sum([getattr(profile, f"{name}_colorant")[0] for name in ("red", "green", "blue")], axis=0)
    np.testing.assert_allclose(seen, (0.9642, 1, 0.8249), atol=1e-3)  # together they are white
    plain = read_picture(png(colours(1), chunk(b"cICP", primaries, 13, 0, 1, form="B")))
    assert (plain.icc, plain.warnings) == (None, ())


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((1, 9, 0, 1), "count as those of sRGB: curve 9"),
        ((77, 13, 0, 1), "count as those of sRGB: primaries 77"),
        ((77, 99, 0, 1), "count as those of sRGB: primaries 77 and curve 99"),
        ((1, 13, 0, 0), "narrow range"),
    ],
)
def test_numbers_that_are_not_heeded_are_named(numbers: tuple[int, ...], says: str) -> None:
    picture = read_picture(png(colours(), chunk(b"cICP", *numbers, form="B")))
    assert picture.icc is None
    (warning,) = picture.warnings
    assert says in warning


def bmp_with_profile(space: bytes) -> bytes:
    header = bytearray(124)
    struct.pack_into("<IiiHHI", header, 0, 124, 8, 8, 1, 24, 0)
    header[56:60] = space
    struct.pack_into("<III", header, 108, 4, 124 + 192, len(ADOBE_RGB))
    pixels = bytes(range(192))
    size = 14 + 124 + 192 + len(ADOBE_RGB)
    return b"BM" + struct.pack("<IHHI", size, 0, 0, 14 + 124) + bytes(header) + pixels + ADOBE_RGB


def test_bmp_keeps_an_embedded_profile() -> None:
    assert read_picture(bmp_with_profile(b"DEBM")).icc == ADOBE_RGB
    assert read_picture(bmp_with_profile(b"BGRs")).icc is None


def saved_exr(path: Path, **header: Any) -> Path:
    exr = pytest.importorskip("OpenEXR")
    exr.File(header, {"RGB": np.full((8, 6, 3), 0.25, np.float32)}).write(str(path))
    return path


def test_chromaticities_of_open_exr_become_a_profile(tmp_path: Path) -> None:
    aces = (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767)
    picture = read_picture(saved_exr(tmp_path / "a.exr", chromaticities=aces))
    assert picture.icc is not None
    profile: Any = ImageCms.ImageCmsProfile(io.BytesIO(picture.icc)).profile
    _, (x, y, _) = profile.red_colorant
    assert (x, y) == pytest.approx((0.735, 0.265), abs=0.01)
    assert picture.warnings == ()
    usual = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
    assert read_picture(saved_exr(tmp_path / "b.exr", chromaticities=usual)).icc is None
    picture = read_picture(saved_exr(tmp_path / "c.exr", chromaticities=(0.5,) * 8))
    assert picture.icc is None
    assert "chromaticities, whose numbers make no sense" in picture.warnings[0]


def test_open_exr_that_is_part_of_a_larger_frame_gives_a_warning(tmp_path: Path) -> None:
    window = (np.array([0, 0], np.int32), np.array([19, 9], np.int32))
    picture = read_picture(saved_exr(tmp_path / "a.exr", displayWindow=window))
    assert picture.warnings == ("its pixels, 6×8 (dataWindow), are read, not its frame of 20×10",)
    assert read_picture(saved_exr(tmp_path / "b.exr")).warnings == ()


# Boxes


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def nclx(primaries: int, transfer: int) -> bytes:
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, 6, 0x80))


def associated(*items: tuple[int, tuple[int, ...]]) -> bytes:
    entries = (struct.pack(">HB", item, len(places)) + bytes(places) for item, places in items)
    return box(b"ipma", bytes(4), struct.pack(">I", len(items)), *entries)


def heif(main: int, properties: list[bytes], association: bytes, *more: bytes) -> bytes:
    meta = [bytes(4), box(b"pitm", bytes(4), struct.pack(">H", main)), *more]
    return box(b"ftyp", b"avif") + box(b"meta", *meta, box(b"iprp", box(b"ipco", *properties), association))


def test_the_colours_of_the_main_image_count_and_no_bytes_that_look_like_them() -> None:
    thumbnail, photo = nclx(1, 13), nclx(12, 13)
    decoy = box(b"free", nclx(9, 16))
    data = decoy + heif(2, [decoy, thumbnail, photo], associated((1, (2,)), (2, (0x80 | 3,))))
    assert read_colour_numbers(data) == (12, 13)
    assert read_colour_numbers(heif(3, [thumbnail], associated((1, (1,))))) is None


def test_an_image_of_tiles_has_the_colours_of_its_tiles() -> None:
    tiles = box(b"iref", bytes(4), box(b"dimg", struct.pack(">HHHH", 9, 2, 4, 5)))
    data = heif(9, [nclx(1, 13), nclx(12, 13)], associated((1, (1,)), (4, (2,))), tiles)
    assert read_colour_numbers(data) == (12, 13)


def test_a_sequence_has_its_colours_in_its_track() -> None:
    entry = box(b"av01", bytes(78), nclx(12, 13))
    described = box(b"stsd", bytes(4), struct.pack(">I", 1), entry)
    data = box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", described)))))
    assert read_colour_numbers(data) == (12, 13)


def test_broken_boxes_give_nothing() -> None:
    data = heif(2, [nclx(1, 13), nclx(12, 13)], associated((2, (2,))))
    for length in range(len(data)):
        assert read_colour_numbers(data[:length]) in (None, (12, 13))
        find_extras(data[:length])
    assert read_colour_numbers(b"\xff" * 200) is None


def test_what_lies_next_to_an_image_is_named() -> None:
    apple = box(b"auxC", bytes(4), b"urn:com:apple:photo:2020:aux:hdrgainmap\0")
    depth = box(b"auxC", bytes(4), b"urn:mpeg:hevc:2015:auxid:2\0")
    alpha = box(b"auxC", bytes(4), b"urn:mpeg:hevc:2015:auxid:1\0")
    assert find_extras(heif(1, [apple, alpha, depth], associated((1, (1,))))) == ["gain map", "depth map"]
    photo = heif(1, [alpha], associated((1, (1,))))
    assert find_extras(photo) == []
    assert find_extras(photo + box(b"mpvd", b"video")) == ["video"]
    assert find_extras(photo + box(b"ftyp", b"isom") + box(b"moov")) == ["video"]


def test_wide_colours_of_avif_become_srgb_when_stripped(stripped: Any) -> None:
    values = colours()
    data = bytearray(encode_picture(Picture(values), "avif", quality=100))
    at = data.index(b"colrnclx") + 8
    struct.pack_into(">HH", data, at, 12, 13)
    icc = read_picture(bytes(data)).icc
    assert icc is not None
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    with Image.fromarray(values) as image:
        wanted = ImageCms.profileToProfile(
            image, profile, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
        )
    after = stripped(bytes(data))
    assert np.abs(after - np.asarray(wanted)).max() <= 2
    assert np.abs(after - values).max() > 5


UNREADABLE = "its colour profile cannot be read and is left out"
JUNK = b"no profile" * 20


def other_kind(has: str, needs: str) -> str:
    return f"its colour profile is for {has}, not for {needs}, and is left out"


@pytest.mark.parametrize("format", ["jpeg", "tiff", "png", "webp", "avif"])
def test_a_profile_that_is_of_no_use_is_reported(format: str) -> None:
    for icc in (JUNK, ADOBE_RGB[:300]):
        after = read_picture(encode(colours(), format, icc_profile=icc))
        assert (after.icc, after.warnings) == (None, (UNREADABLE,))
    after = read_picture(encode(colours(), format, icc_profile=gray_profile(1.8)))
    said = UNREADABLE if format == "png" else other_kind("gray", "RGB")  # libpng does not return it
    assert (after.icc, after.warnings) == (None, (said,))
    if format in ("jpeg", "tiff", "png"):  # the others have no gray
        after = read_picture(encode(colours(1), format, icc_profile=ADOBE_RGB))
        said = UNREADABLE if format == "png" else other_kind("RGB", "gray")
        assert (after.icc, after.warnings) == (None, (said,))


@pytest.mark.parametrize("format", ["jpeg", "tiff"])
def test_a_profile_of_cmyk_that_is_of_no_use_is_reported(format: str) -> None:
    for icc, said in ((JUNK, UNREADABLE), (ADOBE_RGB, other_kind("RGB", "CMYK"))):
        plain, after = (
            read_picture(encode(colours(), format, "CMYK", **options))
            for options in ({}, {"icc_profile": icc})
        )
        assert after.warnings == (said,)
        assert after.icc == plain.icc  # sRGB's
        np.testing.assert_array_equal(after.pixels, plain.pixels)


def test_a_file_of_64_bit_floats_with_a_broken_profile_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", colours() / 255, photometric="rgb", iccprofile=JUNK)
    after = read_picture(tmp_path / "in.tif")
    assert (after.icc, after.warnings) == (None, (UNREADABLE,))


def test_inspect_names_no_profile_that_a_result_will_not_have(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "in.jpg").write_bytes(encode(colours(1), "jpeg", icc_profile=ADOBE_RGB))
    assert main(["inspect", str(tmp_path / "in.jpg"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[0])
    assert facts["profile"] is None
    assert facts["warnings"] == [other_kind("RGB", "gray")]
