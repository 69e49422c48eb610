"""Files that hold more than one picture: animations, bursts, pictures one behind the other."""

import io
import re
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import encode, noise
from PIL import Image

from mambair_cli.errors import ImageError
from mambair_cli.images import Header, Writer, open_picture, read_picture
from mambair_cli.images.avif_frames import _read_delays, write_avif_frames


@pytest.fixture
def run(run: Any, weights: Path) -> Any:
    """Run a command with a small network, and return (exit code, stderr)."""

    def call(command: str, network: str, *arguments: str) -> tuple[int, str]:
        code, _, err = run(command, *arguments, "--weights", weights / f"{network}.safetensors")
        return code, err

    return call


def blocks(seed: int, bands: int = 3) -> np.ndarray:
    """Return a picture of large squares, which all codecs keep nearly as it is."""
    values = noise(6, 8, bands, seed=seed)
    values[..., 3:] |= 128  # where nothing is seen, colours are not kept
    return np.kron(values, np.ones((8, 8, 1), np.uint8))


def encoded(format: str, seed: int = 0, **options: Any) -> bytes:
    return encode(blocks(seed), format, **options)


def netpbm(kind: int, seed: int = 0) -> bytes:
    """Return a picture as Netpbm's formats have it, the last of 1 bit, 8 bits or 16."""
    values = np.random.default_rng(seed).integers(0, 2, 7 * 5 * 3)
    if kind in (1, 2, 3):
        count = 105 if kind == 3 else 35
        white = "" if kind == 1 else "1\n"
        return f"P{kind}\n7 5\n{white}{' '.join(map(str, values[:count]))}\n".encode()
    if kind == 4:
        return b"P4\n7 5\n" + bytes(range(5))
    return b"P%d\n7 5\n255\n" % kind + bytes(values[: 105 if kind == 6 else 35].tolist())


def heic(count: int = 1) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    images = pillow_heif.HeifFile()
    for seed in range(count):
        images.add_frombytes("RGB", (64, 48), blocks(seed).tobytes())
    images.save(file, quality=90)
    return file.getvalue()


FILES = {
    "png": lambda seed: encoded("PNG", seed),
    "jpeg": lambda seed: encoded("JPEG", seed, quality=90),
    "progressive": lambda seed: encoded("JPEG", seed, progressive=True),
    "webp": lambda seed: encoded("WebP", seed),
    "gif": lambda seed: encoded("GIF", seed),
    "bmp": lambda seed: encoded("BMP", seed),
    "jpeg2000": lambda seed: encoded("JPEG2000", seed),
    "avif": lambda seed: encoded("AVIF", seed),
    "heic": lambda seed: heic(),
    **{f"P{kind}": lambda seed, kind=kind: netpbm(kind, seed) for kind in range(1, 7)},
}


@pytest.mark.parametrize("format", FILES)
def test_pictures_one_behind_the_other_are_refused(format: str) -> None:
    first, second = FILES[format](0), FILES[format](1)
    assert read_picture(first).warnings == ()
    for together in (first + second, first + second + first):
        with pytest.raises(ImageError, match="several images, one after another; split it"):
            read_picture(together)


@pytest.mark.parametrize("first", ["png", "jpeg", "progressive", "webp", "gif", "bmp"])
@pytest.mark.parametrize("second", ["png", "jpeg", "webp", "gif", "bmp", "P6"])
def test_pictures_of_two_kinds_are_refused_too(first: str, second: str) -> None:
    with pytest.raises(ImageError, match="several images, one after another; split it"):
        read_picture(FILES[first](0) + FILES[second](1))


def test_standard_input_of_several_pictures_fails(weights: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mambair_cli", "denoise", "-", "-o", "out.png"]
    command += ["--weights", str(weights / "same.safetensors")]
    done = subprocess.run(command, input=FILES["png"](0) * 3, capture_output=True, cwd=tmp_path)
    assert done.returncode == 1
    assert b"ffmpeg" in done.stderr
    assert not (tmp_path / "out.png").exists()


def test_what_only_looks_like_another_picture_is_none() -> None:
    thumbnail = encoded("JPEG", 1)
    exif = Image.Exif()
    exif[0x010E] = "a title"
    block = exif.tobytes().removeprefix(b"Exif\0\0") + thumbnail
    assert read_picture(encoded("JPEG", exif=block)).pixels.shape == (48, 64, 3)
    text = encoded("GIF", comment=b";GIF89a;GIF87a")
    assert read_picture(text).pixels.shape == (48, 64, 3)
    for format in ("png", "jpeg", "webp", "gif", "bmp", "P5"):
        assert read_picture(FILES[format](0) + b"\0" * 40).pixels.shape[2] in (1, 3)


# Pictures of one file


def mpo(kinds: list[int], xmp: bytes = b"") -> bytes:
    """Return a JPEG file of several pictures of kinds of Multi-Picture Format."""
    file = io.BytesIO()
    first, *others = (Image.fromarray(blocks(seed)) for seed in range(len(kinds) + 1))
    first.save(file, "MPO", save_all=True, append_images=others, xmp=xmp)
    data = bytearray(file.getvalue())
    block = data.index(b"MPF\0") + 4
    for number, kind in enumerate(kinds, start=1):
        at = data.index(struct.pack("<HHI", 0xB002, 7, 16 * (len(kinds) + 1)), block)
        (place,) = struct.unpack_from("<I", data, at + 8)
        struct.pack_into("<I", data, block + place + 16 * number, kind)
    return bytes(data)


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ([0x020002], ("only image 1 of 2 in it is read",)),
        ([0x020003, 0x020003, 0x010001], ("only image 1 of 3 in it is read",)),
        ([0], ("only image 1 of 2 in it is read",)),
        ([0x010001], ()),
        ([0x010001, 0x010002], ()),
    ],
)
def test_a_jpeg_of_several_pictures_says_so(kinds: list[int], said: tuple[str, ...]) -> None:
    picture = read_picture(mpo(kinds))
    assert picture.warnings == said
    assert abs(picture.pixels.astype(int) - blocks(0)).mean() < 20  # others differ by 80


def test_a_burst_of_heic_says_so(run: Any) -> None:
    Path("burst.heic").write_bytes(heic(3))
    Path("one.heic").write_bytes(heic())
    code, err = run("denoise", "same", "burst.heic", "one.heic", "-o", "out")
    assert code == 0
    assert "warning: burst.heic: only image 1 of 3 in it is read" in err
    assert "one.heic: only" not in err
    assert read_picture(Path("one.heic")).warnings == ()


def test_a_video_behind_heic_is_named() -> None:
    video = struct.pack(">I4s4sI", 16, b"ftyp", b"mp42", 0) + struct.pack(">I4s", 8, b"mdat")
    assert read_picture(heic() + video).warnings == ("its video is left out",)


@pytest.mark.parametrize("suffix", [".hif", ".HIF", ".hifc", ".heics", ".heifs", ".heif", ".HEIC", ".ico"])
def test_folders_know_their_suffixes(run: Any, suffix: str) -> None:
    data = encoded("ICO", sizes=[(16, 12)]) if suffix == ".ico" else heic()
    Path("photos").mkdir()
    Path(f"photos/DSC0001{suffix}").write_bytes(data)
    assert run("denoise", "same", "photos", "-o", "out")[0] == 0
    assert Path("out/DSC0001.png").exists()


def test_of_an_icon_the_largest_size_is_restored() -> None:
    large = Image.fromarray(np.kron(blocks(0), np.ones((1, 1, 1), np.uint8)))
    file = io.BytesIO()
    large.save(file, "ICO", sizes=[(16, 12), (64, 48), (32, 24)])
    picture = read_picture(file.getvalue())
    assert np.array_equal(picture.pixels, blocks(0))
    assert picture.warnings == ("the largest of its 3 sizes is read, 64×48",)


# Animated AVIF


def animation(
    *seeds: int, bands: int = 3, delays: tuple[int, ...] = (40, 120, 1000), **options: Any
) -> bytes:
    file = io.BytesIO()
    first, *others = (Image.fromarray(blocks(seed, bands)) for seed in seeds)
    first.save(
        file,
        "AVIF",
        save_all=True,
        append_images=others,
        duration=[40, 120, 1000][: len(seeds)],
        quality=100,
        subsampling="4:4:4",
        **options,
    )
    return file.getvalue()


def frames_of(path: str | io.BytesIO) -> tuple[list[np.ndarray], list[int]]:
    frames, delays = [], []
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frames.append(np.array(image if image.mode == "RGBA" else image.convert("RGB")))
            delays.append(round(image.info["duration"]))
    return frames, delays


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("name", ["out.avif", "out.webp"])
def test_animated_avif_is_restored_frame_by_frame(run: Any, name: str, bands: int) -> None:
    Path("in.avif").write_bytes(animation(0, 1, 2, bands=bands))
    code, _ = run("upscale", "x2", "in.avif", "-o", name, "--quality", "100")
    assert code == 0
    frames, delays = frames_of(name)
    assert delays == [40, 120, 1000]
    for seed, frame in enumerate(frames):
        wanted = blocks(seed, bands).repeat(2, axis=0).repeat(2, axis=1)
        assert abs(frame.astype(int) - wanted).max() <= 6  # twice to YCbCr and back


def test_other_animations_become_avif(run: Any) -> None:
    first, *others = (Image.fromarray(blocks(seed)) for seed in range(3))
    first.save("in.webp", save_all=True, append_images=others, duration=[40, 120, 1000], lossless=True)
    assert run("denoise", "same", "in.webp", "-o", "out.avif", "--quality", "100")[0] == 0
    frames, delays = frames_of("out.avif")
    assert delays == [40, 120, 1000]
    assert all(abs(frame.astype(int) - blocks(seed)).max() <= 3 for seed, frame in enumerate(frames))


@pytest.mark.parametrize(("loop", "shown"), [({}, 1), ({"loop": 2}, 3), ({"loop": 0}, 0)])
def test_an_animation_is_shown_as_often_as_before(run: Any, loop: dict[str, Any], shown: int) -> None:
    first, *others = (Image.fromarray(blocks(seed, 4)) for seed in range(3))
    first.save("in.gif", save_all=True, append_images=others, duration=[40, 120, 1000], **loop)
    for source, target in (("in.gif", "a.avif"), ("a.avif", "b.avif"), ("b.avif", "c.webp")):
        assert run("denoise", "same", source, "-o", target)[0] == 0
        with open_picture(Path(target)) as reader:
            assert reader.header.loop == shown
    data = Path("b.avif").read_bytes()
    for head in (rb"mvhd\x01.{23}", rb"tkhd\x01.{27}"):
        durations = [int.from_bytes(found, "big") for found in re.findall(head + rb"(.{8})", data, re.DOTALL)]
        assert set(durations) == {1160 * shown if shown else 2**64 - 1}
    flags = re.findall(rb"elst\x01(.{3})", data, re.DOTALL)  # of the tracks of colours and of alpha
    assert flags == [b"\0\0\0" if shown == 1 else b"\0\0\1"] * 2


def test_avif_gives_its_durations_and_is_refused_by_its_size_before_a_frame_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delays = [40, 40, 120, 1000]
    data = write_avif_frames([blocks(seed) for seed in range(4)], delays, 0, 60, {})

    def decode(image: Any) -> Any:
        raise AssertionError("it is decoded")

    monkeypatch.setattr("mambair_cli.images.avif_frames._decode_frames", decode)
    with open_picture(data) as reader:
        assert reader.header.delays == tuple(delays)
    with pytest.raises(ImageError, match="--max-pixels"), open_picture(data, max_pixels=4 * 48 * 64 - 1):
        pass
    unknown = data.replace(b"stts", b"free")
    assert _read_delays(unknown, 2) == (100, 100)
    broken = bytearray(data)
    at = data.index(b"stts") + 8
    broken[at : at + 12] = struct.pack(">III", 2**32 - 1, 2**32 - 1, 7)
    assert len(_read_delays(bytes(broken), 5)) == 5


def test_avif_that_does_not_say_how_often_it_is_shown_is_endless() -> None:
    data = animation(0, 1)
    with open_picture(data.replace(b"edts", b"free")) as reader:
        assert reader.header.loop == 0
    elst, tkhd = data.index(b"elst") - 4, data.index(b"tkhd") - 4
    short = bytearray(data)  # durations of 32 bits, and what that leaves free
    short[elst : elst + 36] = struct.pack(">I4sIIIIII4s", 28, b"elst", 1, 1, 160, 0, 0x10000, 8, b"free")
    track = struct.pack(">I4sIIIIII", 92, b"tkhd", 1, 0, 0, 1, 0, 5 * 160)
    short[tkhd : tkhd + 104] = track + data[tkhd + 44 : tkhd + 104] + struct.pack(">I4sI", 12, b"free", 0)
    with open_picture(bytes(short)) as reader:
        assert reader.header.loop == 5


@pytest.mark.parametrize("damage", ["timescale", "depth"])
def test_damage_of_the_boxes_of_avif_is_reported_in_a_line(run: Any, damage: str) -> None:
    data = bytearray(animation(0, 1))
    if damage == "timescale":
        at = data.index(b"mdhd") + 24
        data[at : at + 4] = bytes(4)
    else:
        data[data.index(b"pixi") + 11] = 208
    Path("in.avif").write_bytes(data)
    code, err = run("denoise", "same", "in.avif", "-o", "out.avif")
    assert code == 1
    assert "cannot read in.avif: " in err
    assert "Traceback" not in err


def test_avif_of_an_older_library_is_written_without_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    save = Image.Image.save

    def save_without_edits(image: Image.Image, file: io.BytesIO, *rest: Any, **options: Any) -> None:
        save(image, file, *rest, **options)
        data = file.getvalue().replace(b"edts", b"free")
        file.seek(0)
        file.write(data)

    monkeypatch.setattr(Image.Image, "save", save_without_edits)
    data = write_avif_frames([blocks(0), blocks(1)], [40, 40], 3, 60, {})
    with open_picture(data) as reader:
        assert (reader.header.frames, reader.header.loop) == (2, 0)


def test_what_stands_still_in_a_gif_stays_still_and_all_frames_are_kept() -> None:
    generator = np.random.default_rng(0)
    still = np.kron(generator.integers(30, 220, (12, 16, 3)), np.ones((8, 8, 1), int))
    frames = still + generator.integers(-1, 2, (6, *still.shape))  # as a network sees it anew each time
    for number in range(5):  # what moves, and changes the palette; the last two frames are the same
        frames[number, 8:40, 16 * number : 16 * number + 32] = generator.integers(0, 256, (32, 32, 3))
    frames[5] = frames[4]
    header = Header(128, 96, 3, "uint8", frames=6, delays=(40, 50, 60, 70, 80, 90))
    file = io.BytesIO()
    with Writer(file, header, "gif", None, "a.gif") as writer:
        writer.write(0, frames.astype(np.uint8).reshape(-1, 128, 3))
        writer.finish()
    seen, delays = frames_of(file)
    assert delays == [40, 50, 60, 70, 80, 90]
    shown = np.stack([frame[..., :3] for frame in seen]).astype(int)
    assert abs(shown[1:, 48:] - shown[:-1, 48:]).max() == 0
    assert np.mean((shown[:, 48:] - still[48:]) ** 2) < 20


def test_the_same_animation_gives_the_same_bytes(run: Any) -> None:
    Path("in.avif").write_bytes(animation(0, 1, 2, bands=4))
    for name in ("a.avif", "b.avif"):
        assert run("denoise", "same", "in.avif", "-o", name)[0] == 0
        time.sleep(1.1)  # its time of writing must not be in it
    assert Path("a.avif").read_bytes() == Path("b.avif").read_bytes()


def test_what_an_animation_says_in_addition_to_pixels_stays(run: Any) -> None:
    from profiles import DISPLAY_P3

    exif = Image.Exif()
    exif[0x010F] = "a camera"
    data = animation(0, 1, icc_profile=DISPLAY_P3, exif=exif.tobytes(), xmp=b"<x:xmpmeta/>")
    Path("in.avif").write_bytes(data)
    assert run("denoise", "same", "in.avif", "-o", "out.avif")[0] == 0
    with Image.open("out.avif") as image:
        assert image.info["icc_profile"] == DISPLAY_P3
        assert image.getexif()[0x010F] == "a camera"
        assert image.info["xmp"] == b"<x:xmpmeta/>"


def test_one_frame_is_a_picture_and_broken_ones_are_errors() -> None:
    assert read_picture(encoded("AVIF")).pixels.shape == (48, 64, 3)
    data = animation(0, 1, 2)
    for length in (40, len(data) // 2, len(data) - 10):
        with pytest.raises(ImageError), warnings.catch_warnings(), open_picture(data[:length]) as reader:
            reader.read(0, reader.header.height * reader.header.frames)


def test_pages_of_16_bits_become_avif_of_8(run: Any) -> None:
    import tifffile

    pages = np.random.default_rng(0).integers(0, 65536, (2, 1, 1, 3), dtype=np.uint16)
    tifffile.imwrite("in.tif", pages.repeat(32, 1).repeat(48, 2), photometric="rgb")
    assert run("denoise", "same", "in.tif", "-o", "out.avif", "--quality", "100")[0] == 0
    frames, _ = frames_of("out.avif")
    for page, frame in zip(pages, frames, strict=True):
        assert abs(frame.astype(float) - page / 257).max() <= 3
