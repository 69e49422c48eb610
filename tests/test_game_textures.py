"""TGA, DDS and PCX: the textures of games, and what is said of those that are not read or written."""

import io
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from error_lines import assert_line
from pictures import encode, noise
from PIL import Image

from mambair_cli.errors import ImageError
from mambair_cli.images import FORMATS, read_picture, targa
from mambair_cli.system.wording import enumerate_names

WIDTH, HEIGHT = 7, 5
TGA_PALETTE, TGA_COLOUR, TGA_GRAY, PACKED = 1, 2, 3, 8
TOP_DOWN = 0x20
FOOTER = b"TRUEVISION-XFILE.\0"


def tga_header(kind: int, depth: int, flags: int, palette: tuple[int, int] = (0, 0)) -> bytes:
    has_palette = int(palette[0] > 0)
    return struct.pack("<BBBHHBHHHHBB", 0, has_palette, kind, 0, *palette, 0, 0, WIDTH, HEIGHT, depth, flags)


def colours(bands: int) -> np.ndarray:
    return noise(HEIGHT, WIDTH, bands)


def read_tga(data: bytes, folder: Path) -> Any:
    path = folder / "leaf.tga"
    path.write_bytes(data)
    return read_picture(path)


def blue_first(samples: np.ndarray) -> np.ndarray:
    return samples[..., [2, 1, 0, 3][: samples.shape[2]]]


@pytest.mark.parametrize("flags", [0, TOP_DOWN, 0x10, TOP_DOWN | 0x10], ids=["up", "down", "left", "both"])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_tga_is_read_in_each_order(bands: int, flags: int, tmp_path: Path) -> None:
    samples = colours(bands)
    stored = samples if flags & TOP_DOWN else samples[::-1]
    stored = stored[:, ::-1] if flags & 0x10 else stored
    stored = blue_first(stored) if bands > 1 else stored
    kind = TGA_GRAY if bands == 1 else TGA_COLOUR
    header = tga_header(kind, 8 * bands, flags | (8 if bands == 4 else 0))
    after = read_tga(header + stored.tobytes(), tmp_path)
    assert (after.format, after.warnings) == ("tga", ())
    np.testing.assert_array_equal(after.samples, samples)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("compression", [None, "tga_rle"])
def test_tga_that_pillow_writes_is_read_by_its_content(mode: str, compression: str | None) -> None:
    image = Image.fromarray(colours(4)).convert("RGB").quantize(9) if mode == "P" else None
    if image is None:
        image = Image.fromarray(np.repeat(colours(len(mode))[:1], HEIGHT, axis=0).squeeze())
    file = io.BytesIO()
    image.save(file, "TGA", compression=compression)
    expected = np.array(image.convert("RGB") if mode == "P" else image).reshape(HEIGHT, WIDTH, -1)
    np.testing.assert_array_equal(read_picture(file.getvalue()).samples, expected)


def test_packets_of_tga_may_go_on_in_the_next_line(tmp_path: Path) -> None:
    samples = colours(3)
    pixels = blue_first(samples).reshape(-1, 3)
    packets = bytes([9]) + pixels[:10].tobytes()
    samples.reshape(-1, 3)[10:20] = samples.reshape(-1, 3)[10]
    packets += bytes([0x80 | 9]) + pixels[10].tobytes() + bytes([14]) + pixels[20:].tobytes()
    after = read_tga(tga_header(TGA_COLOUR | PACKED, 24, TOP_DOWN) + packets, tmp_path)
    np.testing.assert_array_equal(after.samples, samples)


def test_lines_too_long_for_pillow_are_unpacked_one_by_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(targa, "_MOST_BITS_IN_LINE", WIDTH * HEIGHT * 24 - 1)
    samples = colours(3)
    lines = b"".join(bytes([WIDTH - 1]) + line.tobytes() for line in blue_first(samples))
    after = read_tga(tga_header(TGA_COLOUR | PACKED, 24, TOP_DOWN) + lines, tmp_path)
    np.testing.assert_array_equal(after.samples, samples)


def test_the_smallest_tga_is_read(tmp_path: Path) -> None:
    for kind, body in ((TGA_COLOUR, b"\1\2\3\4"), (TGA_COLOUR | PACKED, b"\x80\1\2\3\4")):
        header = struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, 1, 1, 32, 8)
        assert read_tga(header + body, tmp_path).samples.ravel().tolist() == [3, 2, 1, 4]


def test_the_palette_of_a_tga_may_begin_with_another_colour(tmp_path: Path) -> None:
    palette = noise(6, 1, 3)
    data = bytearray(tga_header(TGA_PALETTE, 8, TOP_DOWN, palette=(6, 24)) + blue_first(palette).tobytes())
    data[3] = 100
    indices = noise(HEIGHT, WIDTH, 1) % 6 + np.uint8(100)
    after = read_tga(bytes(data) + indices.tobytes(), tmp_path)
    np.testing.assert_array_equal(after.samples, palette[indices[..., 0] - 100, 0])
    for number in (99, 106):  # no colour of the palette
        with pytest.raises(ImageError) as error:
            read_tga(bytes(data) + bytes([number]) * (WIDTH * HEIGHT), tmp_path)
        assert_line(error, "tga data is corrupt")


def test_a_palette_of_tga_whose_fourth_bytes_only_fill_has_no_transparency(tmp_path: Path) -> None:
    palette = noise(6, 1, 4)
    palette[..., 3] = 0
    data = tga_header(TGA_PALETTE, 8, TOP_DOWN, palette=(6, 32)) + blue_first(palette).tobytes()
    assert read_tga(data + bytes(WIDTH * HEIGHT), tmp_path).alpha is None


def test_a_palette_of_tga_may_have_transparency(tmp_path: Path) -> None:
    palette, indices = noise(6, 1, 4), noise(HEIGHT, WIDTH, 1) % 6
    data = tga_header(TGA_PALETTE, 8, TOP_DOWN, palette=(6, 32)) + blue_first(palette).tobytes()
    after = read_tga(data + indices.tobytes(), tmp_path)
    np.testing.assert_array_equal(after.samples, palette[indices[..., 0], 0])


def extension(kind_of_alpha: int, at: int) -> bytes:
    return struct.pack("<H492xB", 495, kind_of_alpha) + struct.pack("<II", at, 0) + FOOTER


@pytest.mark.parametrize(
    ("alpha_bits", "kind_of_alpha", "has_alpha"),
    [(8, None, True), (0, None, False), (8, 0, False), (8, 1, False), (8, 2, True), (8, 3, True)],
)
def test_tga_has_transparency_where_its_header_says_so(
    alpha_bits: int, kind_of_alpha: int | None, has_alpha: bool, tmp_path: Path
) -> None:
    samples = colours(4)
    data = tga_header(TGA_COLOUR, 32, TOP_DOWN | alpha_bits) + blue_first(samples).tobytes()
    data += b"" if kind_of_alpha is None else extension(kind_of_alpha, len(data))
    after = read_tga(data, tmp_path)
    np.testing.assert_array_equal(after.samples, samples if has_alpha else samples[..., :3])
    assert after.warnings == (
        () if has_alpha else ("its header says that its fourth channel is no transparency; it is left out",)
    )


def test_a_fourth_channel_that_fills_bytes_gives_no_warning(tmp_path: Path) -> None:
    samples = colours(4)
    samples[..., 3] = 0
    after = read_tga(tga_header(TGA_COLOUR, 32, TOP_DOWN) + blue_first(samples).tobytes(), tmp_path)
    assert (after.alpha, after.warnings) == (None, ())


def test_colours_that_tga_has_multiplied_by_alpha_are_divided(tmp_path: Path) -> None:
    samples = colours(4)
    samples[..., 3] |= 0x40
    stored = samples.copy()
    stored[..., :3] = np.round(samples[..., :3] * (samples[..., 3:] / 255))
    data = tga_header(TGA_COLOUR, 32, TOP_DOWN | 8) + blue_first(stored).tobytes()
    after = read_tga(data + extension(4, len(data)), tmp_path)
    np.testing.assert_allclose(after.samples.astype(int), samples, atol=2)


@pytest.mark.parametrize("alpha_bits", [0, 1])
def test_tga_of_16_bits_has_five_of_each_colour(alpha_bits: int, tmp_path: Path) -> None:
    parts = noise(HEIGHT, WIDTH, 4) >> 3
    words = (parts[..., 3] >> 4).astype("<u2") << 15
    for band, shift in enumerate((10, 5, 0)):
        words |= parts[..., band].astype("<u2") << shift
    after = read_tga(tga_header(TGA_COLOUR, 16, TOP_DOWN | alpha_bits) + words.tobytes(), tmp_path)
    np.testing.assert_array_equal(after.pixels, parts[..., :3].astype(int) * 255 // 31)
    if alpha_bits:
        np.testing.assert_array_equal(after.alpha, (parts[..., 3] >> 4) * 255)
    else:
        assert after.alpha is None


def test_no_other_file_is_taken_for_tga(tmp_path: Path) -> None:
    good = tga_header(TGA_COLOUR, 24, 0) + colours(3).tobytes()
    with pytest.raises(ImageError) as error:  # neither a name nor a mark
        read_picture(good)
    assert_line(error, "no image of a known kind; convert it to PNG first")
    for at, value in ((1, 2), (2, 0), (2, 4), (12, 0), (14, 0), (16, 7), (17, 0x40), (1, 1)):
        data = bytearray(good)
        data[at] = value
        with pytest.raises(ImageError) as error:
            read_tga(bytes(data), tmp_path)
        assert_line(error, "leaf.tga: its header is not that of a TGA file", "convert it to PNG first")
    png = encode(colours(3), "png")
    assert read_tga(png, tmp_path).format == "png"
    text = tmp_path / "notes.txt"
    text.write_bytes(b"this is text" + FOOTER)
    with pytest.raises(ImageError, match="no image of a known kind"):
        read_picture(text)


@pytest.mark.parametrize("kind", [TGA_COLOUR, TGA_COLOUR | PACKED])
def test_broken_tga_is_an_error_of_one_line(kind: int, tmp_path: Path) -> None:
    for length in (0, 20, 70):
        with pytest.raises(ImageError) as error:
            read_tga(tga_header(kind, 24, 0) + b"\x01" * length, tmp_path)
        assert_line(error, "leaf.tga: its tga data is corrupt", "save it as PNG")
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, 65535, 16000, 24, 0)
    with pytest.raises(ImageError) as error:  # no memory is taken for it
        read_tga(header + bytes(9), tmp_path)
    assert_line(error, "it ends after 9 of at least")


def test_a_tga_with_too_many_pixels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tga"
    path.write_bytes(tga_header(TGA_GRAY, 8, 0) + bytes(WIDTH * HEIGHT))
    with pytest.raises(ImageError, match="7×5 pixels, more than 34"):
        read_picture(path, max_pixels=34)


def dds(
    body: bytes, fourcc: bytes = b"", flags: int = 4, bits: int = 0, masks: Any = (0, 0, 0, 0), **more: int
) -> bytes:
    """Return a DDS file; ``more``: levels, caps, and of DX10 number, dimension, kind, count and alpha."""
    head = struct.pack("<4s4I", b"DDS ", 124, 0x1007, HEIGHT, WIDTH) + bytes(8)
    head += struct.pack("<I44x", more.get("levels", 0))
    head += struct.pack("<II4s5I", 32, flags, fourcc, bits, *masks) + struct.pack(
        "<II", 0x1000, more.get("caps", 0)
    )
    head += bytes(12)
    if fourcc == b"DX10":
        names, usual = ("number", "dimension", "kind", "count", "alpha"), (0, 3, 0, 1, 0)
        head += struct.pack("<5I", *(more.get(*each) for each in zip(names, usual, strict=True)))
    return head + body


BLOCKS = 2 * 2  # of 4×4 pixels


@pytest.mark.parametrize("kind", ["DXT1", "DXT3", "DXT5", "BC2", "BC3", "BC5"])
def test_dds_that_pillow_writes_is_read(kind: str) -> None:
    data = encode(colours(3 if kind == "BC5" else 4), "dds", pixel_format=kind)
    after = read_picture(data)
    expected = np.array(Image.open(io.BytesIO(data)))
    assert after.format == "dds"
    assert after.warnings == ("the result is no DDS file: make one of it with a texture tool",)
    np.testing.assert_array_equal(after.samples, expected[..., : after.samples.shape[2]])
    assert expected[..., after.samples.shape[2] :].min(initial=255) == 255


def test_dds_of_one_colour_is_read_in_each_kind_of_blocks() -> None:
    red = struct.pack("<HHI", 0xF800, 0, 0)  # all pixels have the first colour
    opaque, half = bytes([255, 255]) + bytes(6), bytes([128, 128]) + bytes(6)
    for number in (70, 71, 72):
        after = read_picture(dds(red * BLOCKS, b"DX10", number=number))
        assert (after.alpha, after.pixels[4, 6].tolist()) == (None, [255, 0, 0])
    for number, body in ((75, bytes([0x88] * 8) + red), (78, half + red)):
        after = read_picture(dds(body * BLOCKS, b"DX10", number=number))
        assert after.samples[4, 6].tolist() == [255, 0, 0, 136 if number == 75 else 128]
    assert read_picture(dds(half * BLOCKS, b"ATI1")).samples[4, 6].tolist() == [128]
    assert read_picture(dds((half + opaque) * BLOCKS, b"ATI2")).samples[4, 6].tolist() == [128, 255, 0]
    after = read_picture(dds((half + struct.pack("<HHI", 0x8000, 0, 0)) * BLOCKS, b"DXT4"))
    assert after.samples[4, 6].tolist() == [255, 0, 0, 128]  # colours were multiplied by alpha


def test_a_transparent_pixel_of_bc1_gives_transparency() -> None:
    three = struct.pack("<HHI", 0, 0xF800, 0b1100)  # of three colours; the second pixel has the fourth
    after = read_picture(dds(three * BLOCKS, b"DXT1"))
    assert after.alpha is not None
    assert after.alpha[0, :3].ravel().tolist() == [255, 0, 255]


def test_bc7_is_read_as_pillow_reads_it() -> None:
    body = noise(BLOCKS * 16).tobytes()
    data = dds(body, b"DX10", number=98)
    np.testing.assert_array_equal(read_picture(data).samples, np.array(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("bits", "masks", "flags"),
    [
        (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), 0x41),
        (32, (0xFF, 0xFF00, 0xFF0000, 0), 0x40),
        (24, (0xFF0000, 0xFF00, 0xFF, 0), 0x40),
        (16, (0xF800, 0x7E0, 0x1F, 0), 0x40),
        (16, (0xF00, 0xF0, 0xF, 0xF000), 0x41),
        (8, (0xFF, 0, 0, 0), 0x20000),
        (16, (0xFF, 0, 0, 0xFF00), 0x20001),
    ],
)
def test_dds_without_blocks_is_read_by_its_masks(bits: int, masks: tuple[int, ...], flags: int) -> None:
    values = noise(HEIGHT * WIDTH, 4).view("<u4").ravel() & (2**bits - 1)
    body = values.astype("<u4").view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()
    after = read_picture(dds(body, flags=flags, bits=bits, masks=masks))
    expected = []
    for mask in filter(None, masks):
        shift = (mask & -mask).bit_length() - 1
        expected.append(((values & mask) >> shift) * 255 / (mask >> shift))
    np.testing.assert_allclose(after.samples.reshape(-1, len(expected)), np.stack(expected, 1), atol=0.5)


def test_dds_gives_a_warning_that_mip_levels_are_lost() -> None:
    after = read_picture(dds(bytes(BLOCKS * 8 + 99), b"DXT1", levels=3))
    assert after.warnings[0].startswith(
        "only the first of its 3 mip levels is read; the result is no DDS file"
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            dds(bytes(16), b"DXT1"),
            "dds data is corrupt, truncated or unsupported (it ends after 16 of 32 bytes",
        ),
        (dds(b"", b"DXT1")[:90], "dds data is corrupt"),
        (b"DDS ", "dds data is corrupt"),
        (dds(bytes(99), b"RXGB"), "DDS of kind 'RXGB' is not read; convert it to PNG first"),
        (dds(bytes(99), struct.pack("<I", 113)), "DDS of D3D format 113 is not read"),
        (dds(bytes(99), b"DX10", number=95), "DDS of BC6H (HDR) is not read"),
        (dds(bytes(99), b"DX10", number=10), "DDS of DXGI format 10 is not read"),
        (dds(bytes(99), b"DXT1", caps=0x200), "it holds several pictures (a cube map, volume or array)"),
        (dds(bytes(99), b"DX10", number=71, count=6), "it holds several pictures"),
        (
            dds(bytes(99), flags=0x40, bits=32, masks=(0x3FF, 0xFFC00, 0x3FF00000, 0)),
            "DDS of 32 bits a pixel",
        ),
    ],
)
def test_dds_that_is_not_read_is_an_error_of_one_line(data: bytes, says: str) -> None:
    with pytest.raises(ImageError) as error:
        read_picture(data)
    assert_line(error, says)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_pcx_that_pillow_writes_is_read(mode: str) -> None:
    image = Image.fromarray(colours(3)).convert(mode)
    file = io.BytesIO()
    image.save(file, "PCX")
    after = read_picture(file.getvalue())
    assert (after.format, after.metadata.dpi) == ("pcx", (100, 100))
    np.testing.assert_array_equal(
        after.samples.squeeze(), np.array(image.convert("L" if mode in "1L" else "RGB"))
    )


def test_broken_pcx_and_its_rare_kinds_are_errors_of_one_line() -> None:
    data = encode(colours(3), "pcx")
    with pytest.raises(ImageError) as error:
        read_picture(data[:150])
    assert_line(error, "pcx data is corrupt")
    with pytest.raises(ImageError) as error:  # no memory is taken for it
        read_picture(
            data[:4] + struct.pack("<4H", 0, 0, 49_999, 19_999) + data[12:66] + b"\x50\xc3" + data[68:]
        )
    assert_line(error, "pcx data is corrupt", "of at least")
    with pytest.raises(ImageError) as error:
        read_picture(data[:3] + bytes([4]) + data[4:])
    assert_line(error, "PCX of version 5 with planes of 4 bits (3 in all)", "convert it to PNG first")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed")
@pytest.mark.parametrize("name", ["a.tga", "a.pcx"])
def test_what_ffmpeg_writes_is_read(name: str, tmp_path: Path) -> None:
    samples = noise(16, 18, 3)
    Image.fromarray(samples).save(tmp_path / "a.png")
    subprocess.run(["ffmpeg", "-v", "error", "-i", "a.png", name], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(read_picture(tmp_path / name).samples, samples)


def save_textures(folder: Path) -> None:
    folder.mkdir()
    (folder / "leaf.tga").write_bytes(tga_header(TGA_COLOUR, 24, 0) + colours(3).tobytes())
    (folder / "rock.dds").write_bytes(encode(colours(4), "dds", pixel_format="DXT5"))
    (folder / "door.pcx").write_bytes(encode(colours(3), "pcx"))


def test_a_folder_of_textures_becomes_png(run: Any, weights: Path) -> None:
    save_textures(Path("in"))
    code, out, err = run("denoise", "in", "-o", "out", "--weights", weights / "same.safetensors")
    assert (code, sorted(out)) == (0, ["out/door.png", "out/leaf.png", "out/rock.png"])
    assert "rock.dds: the result is no DDS file" in err
    for name in ("leaf.tga", "door.pcx"):
        np.testing.assert_array_equal(
            read_picture(Path("out", name).with_suffix(".png")).samples,
            read_picture(Path("in", name)).samples,
        )


def test_the_dry_run_and_inspect_know_textures(restore: Any, run: Any) -> None:
    save_textures(Path("in"))
    code, out, _ = restore("denoise", "same", "in", "-o", "out", "--dry-run")
    assert code == 0
    assert all(name in "\n".join(out) for name in ("door.png", "leaf.png", "rock.png"))
    code, out, _ = run("inspect", "in/leaf.tga")
    assert code == 0
    assert "TGA" in "\n".join(out)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"\xff\x0a" + bytes(20), "it is JPEG XL, which mambair does not read; convert it to PNG"),
        (
            b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(20),
            "it is a texture of Khronos (KTX), which mambair does not read",
        ),
        (b"VTF\0" + bytes(20), "it is a texture of Valve (VTF), which"),
        (b"<?xml version='1.0'?><svg/>", "it is SVG or XML, which"),
        (b"PK\3\4" + bytes(40), "it is an archive (ZIP); unpack it, and give its images or the folder"),
        (b"Rar!\x1a\7\1\0" + bytes(40), "it is an archive (RAR); unpack it"),
        (b"7z\xbc\xaf'\x1c" + bytes(40), "it is an archive (7z); unpack it"),
        (b"\x1f\x8b\x08" + bytes(40), "it is an archive (gzip); unpack it"),
        (b"a.png".ljust(257, b"\0") + b"ustar\00000", "it is an archive (tar); unpack it"),
        (b"something else", "it is no image of a known kind; convert it to PNG first"),
    ],
)
def test_what_is_not_read_says_what_would_work(head: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "leaf.xyz"
    path.write_bytes(head)
    with pytest.raises(ImageError) as error:
        read_picture(path)
    assert_line(error, "leaf.xyz: ", says)


@pytest.mark.parametrize("suffix", ["tga", "dds", "pcx", "bmp", "psd", "svg"])
def test_a_result_that_is_not_written_says_what_would_work(run: Any, suffix: str) -> None:
    Image.fromarray(colours(3)).save("a.png")
    code, out, err = run("upscale", "a.png", "-o", f"x.{suffix}")
    assert (code, out) == (2, [])
    assert err == (
        f"mambair: error: cannot write x.{suffix}: {suffix.upper()} is not written; "
        f"{enumerate_names(FORMATS)} can be written, and converted by another program\n"
    )


def test_a_moving_image_becomes_no_clip(run: Any) -> None:
    frames = [Image.fromarray(noise(16, 16, 3, seed=seed)) for seed in range(2)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    code, _, err = run("upscale", "a.gif", "-o", "b.mp4")
    assert code == 2
    assert err == (
        "mambair: error: cannot write b.mp4: an image becomes an image, "
        "and a moving one webp, tiff, avif or gif, not .mp4; "
        "make a clip of it first, as with ffmpeg -i a.gif a.mp4\n"
    )
    code, _, err = run("upscale", "a.gif", "-o", "w_%02d.png", "-s", "2")
    assert code == 1
    assert err.endswith("hold them; numbered images are results of clips only\n")


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_file_with_the_suffix_of_another_format_is_named(restore: Any, dry: list[str]) -> None:
    Path("wrong.jpg").write_bytes(encode(noise(16, 16, 4), "png"))
    frames = [Image.fromarray(noise(16, 16, 3, seed=seed)) for seed in range(2)]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    Path("moving.gif").rename("moving.png")
    _, _, err = restore("denoise", "same", "wrong.jpg", *dry)
    if not dry:  # only the samples tell what is transparent
        assert err.endswith("fills it; wrong.jpg is a png file: rename it, or give --format png\n")
    out, err = restore("denoise", "same", "moving.png", *dry)[1:]
    said = "; moving.png is a gif file: rename it, or give --format gif"
    assert said in err + "\n".join(out)
