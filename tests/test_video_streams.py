"""Clips without a container: numbered images, YUV4MPEG and bare samples, read and written."""

import io
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import HEIGHT, NTSC, WIDTH, av, facts, needs_ffmpeg, picture, psnr

from mambair_cli.errors import ImageError, VideoError
from mambair_cli.images import read_picture
from mambair_cli.video import (
    NumberedFrames,
    RawInput,
    Yuv4MpegWriter,
    name_frame,
    open_clip,
    probe_clip,
    write_frame,
    write_raw,
)
from mambair_cli.video.colour import settle_tags


def write_numbers(pattern: Path, numbers: list[int], bits: int = 8) -> None:
    pattern.parent.mkdir(exist_ok=True)
    for number in numbers:
        write_frame(pattern, number - 1, picture(number), bits=bits)


def test_names_begin_with_one_as_those_of_ffmpeg() -> None:
    assert name_frame(Path("frames/%06d.png"), 0) == Path("frames/000001.png")
    assert name_frame(Path("a %d b.tif"), 41) == Path("a 42 b.tif")
    assert name_frame(Path("100%/%03d.png"), 0) == Path("100%/001.png")


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (10, np.uint16), (16, np.uint16)])
def test_frames_become_numbered_images_and_clips_again(bits: int, dtype: type, tmp_path: Path) -> None:
    write_numbers(tmp_path / "f" / "%04d.png", [1, 2, 3], bits)
    assert read_picture(tmp_path / "f" / "0001.png").pixels.dtype == dtype
    for source in (tmp_path / "f" / "%04d.png", tmp_path / "f"):
        with open_clip(source, rate=NTSC) as clip:
            assert isinstance(clip, NumberedFrames)
            described = clip.facts
            frames = list(clip.frames())
        assert (described.frames, described.frames_exact, described.variable) == (3, True, False)
        assert (described.width, described.height, described.bits) == (WIDTH, HEIGHT, 8 if bits == 8 else 16)
        assert (described.frame_rate, described.duration) == (NTSC, 3 / NTSC)
        assert described.colour.matrix_name == "rgb"
        assert [(frame.number, frame.pts, frame.duration) for frame in frames] == [
            (0, 0, 1),
            (1, 1, 1),
            (2, 2, 1),
        ]
        white = np.iinfo(dtype).max
        for frame in frames:
            np.testing.assert_allclose(frame.pixels, picture(frame.number + 1), atol=0.501 / white)


def test_a_start_is_an_image_and_missing_numbers_are_reported(tmp_path: Path) -> None:
    write_numbers(tmp_path / "f" / "%d.png", [8, 9, 10, 13])
    with open_clip(tmp_path / "f" / "%d.png") as clip:
        assert "2 numbers are missing" in clip.warnings[0]
        frames = list(clip.frames(2))
        assert clip.facts.variable
        assert [clip.frame_at(Fraction(n, 25)).number for n in (0, 1, 2, 3, 4, 5, 99)] == [
            0,
            1,
            2,
            2,
            2,
            3,
            3,
        ]
        with pytest.raises(VideoError, match="there are 4 images"):
            next(clip.frames(4))
    assert [(frame.number, frame.pts, frame.duration) for frame in frames] == [(2, 2, 3), (3, 5, 1)]
    # In a folder only the order counts, and 10 comes after 9.
    with open_clip(tmp_path / "f") as clip:
        assert [
            psnr(frame.pixels, picture(n)) > 40
            for frame, n in zip(clip.frames(), (8, 9, 10, 13), strict=True)
        ]


def test_alpha_and_gray_images_are_frames(tmp_path: Path) -> None:
    write_frame(tmp_path / "%d.png", 0, picture(0, alpha=True))
    write_frame(tmp_path / "%d.png", 1, picture(1))
    with open_clip(tmp_path / "%d.png") as clip:
        assert clip.facts.has_alpha
        first, second = clip.frames()
    np.testing.assert_allclose(first.pixels, picture(0, alpha=True), atol=0.501 / 255)
    assert second.pixels.shape == (HEIGHT, WIDTH, 4)
    assert second.pixels[..., 3].min() == 1


def test_what_later_images_have_more_than_the_first_is_reported(tmp_path: Path) -> None:
    write_frame(tmp_path / "%d.png", 0, picture(0))
    write_frame(tmp_path / "%d.png", 1, picture(1, alpha=True))
    write_frame(tmp_path / "%d.png", 2, picture(2), bits=16)
    write_frame(tmp_path / "%d.png", 3, picture(3, alpha=True))
    with open_clip(tmp_path / "%d.png") as clip:
        assert [frame.pixels.shape[2] for frame in clip.frames()] == [3] * 4
    alpha, bits = clip.warnings
    assert "are transparent, and the first is not; transparency is left out" in alpha
    assert "have 16 bits of a sample, and the first 8; so has the result" in bits


def test_an_image_that_cannot_be_read_is_the_one_before_again(tmp_path: Path) -> None:
    write_numbers(tmp_path / "f" / "%d.png", [1, 2, 3])
    (tmp_path / "f" / "2.png").write_bytes(b"no image")
    for start in (0, 1):
        with open_clip(tmp_path / "f" / "%d.png") as clip:
            frames = list(clip.frames(start))
            assert "the image before is shown again" in clip.warnings[0]
        repeated = frames[1 - start]
        assert repeated.concealed
        np.testing.assert_allclose(repeated.pixels, picture(1), atol=0.501 / 255)
        assert not frames[2 - start].concealed


def test_images_that_do_not_fit_are_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="there are no such images"):
        probe_clip(tmp_path / "%d.png")
    write_numbers(tmp_path / "f" / "%d.png", [1])
    write_frame(tmp_path / "f" / "%d.png", 1, picture(1, (32, 32)))
    with (
        open_clip(tmp_path / "f") as clip,
        pytest.raises(VideoError, match="it has 32×32 pixels, and the first image of the clip 64×48"),
    ):
        list(clip.frames())
    with pytest.raises(VideoError, match="images have no fields"):
        open_clip(tmp_path / "f", deinterlace=True)
    with pytest.raises(ImageError, match="it exists already"):
        write_frame(tmp_path / "f" / "%d.png", 0, picture(1))


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("chroma", [(2, 2), (1, 2), (1, 1)])
@pytest.mark.parametrize("range", [1, 2])
def test_yuv4mpeg_comes_back(bits: int, chroma: tuple[int, int], range: int, tmp_path: Path) -> None:
    tags = settle_tags(6, 2, 2, range, is_rgb=False, size=(WIDTH, HEIGHT))
    clip_facts = facts(bits=bits, chroma=chroma, colour=tags, pixel_aspect=Fraction(16, 15))
    stream = io.BytesIO()
    writer = Yuv4MpegWriter(stream, clip_facts)
    for number in (0, 1, 2):
        writer.write(picture(number))
    stream.seek(0)
    with open_clip(stream) as clip:
        assert (clip.facts.bits, clip.facts.chroma, clip.facts.frame_rate) == (bits, chroma, NTSC)
        assert clip.facts.pixel_aspect == Fraction(16, 15)
        assert clip.facts.colour.range == range
        frames = list(clip.frames())
    assert min(psnr(frame.pixels, picture(frame.number)) for frame in frames) > (
        48 if chroma == (1, 1) else 38
    )


def one_frame(tag: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """Return YUV4MPEG of one 4:2:0 frame whose chroma has an edge in the middle."""
    width, height = size
    chroma = np.full((height // 2, width // 2), 100, np.uint8)
    chroma[:, width // 4 :] = 150
    planes = np.full(width * height, 126, np.uint8).tobytes() + chroma.tobytes() * 2
    return f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1{tag}\nFRAME\n".encode() + planes


@pytest.mark.parametrize(
    ("tag", "siting", "written"),
    [
        *((" C420jpeg", "centre", "C420jpeg"), (" C420mpeg2", "left", "C420mpeg2")),
        *(
            (" C420paldv", "topleft", "C420paldv"),
            (" C420", "centre", "C420jpeg"),
            ("", "centre", "C420jpeg"),
        ),
    ],
)
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (16, 8)])
def test_the_tag_of_yuv4mpeg_says_where_chroma_lies(
    tag: str, siting: str, written: str, size: tuple[int, int]
) -> None:
    source, result = io.BytesIO(one_frame(tag, size)), io.BytesIO()
    with open_clip(source) as clip:
        assert clip.facts.siting == siting
        (frame,) = clip.frames()
        Yuv4MpegWriter(result, clip.facts).write(frame.pixels)
    across = frame.pixels[size[1] // 2, :, 0]
    dark, bright = across[0], across[-1]
    edge = size[0] - np.sum((across - dark) / (bright - dark))  # columns before the edge
    assert edge == pytest.approx(size[0] / 2 - (0 if siting == "centre" else 0.5), abs=0.01)
    header, frames = result.getvalue().split(b"\n", 1)
    assert written.encode() in header.split()
    before, after = (
        np.frombuffer(data, np.uint8).astype(int) for data in (source.getvalue().split(b"\n", 1)[1], frames)
    )
    assert np.abs(before - after)[size[0] * size[1] :].max() <= 6  # of 50: the filters round off the edge


@pytest.mark.parametrize(
    ("changes", "tag"),
    [
        *(({"bits": 10}, "C420p10"), ({"chroma": (1, 2)}, "C422"), ({"chroma": (1, 1)}, "C444")),
        ({"chroma": (1, 4)}, "C420mpeg2"),
    ],
)
def test_chroma_lies_left_where_yuv4mpeg_has_no_word_for_its_place(changes: dict[str, Any], tag: str) -> None:
    results = [io.BytesIO(), io.BytesIO()]
    for siting, result in zip(("centre", "left"), results, strict=True):
        Yuv4MpegWriter(result, facts(siting=siting, **changes)).write(picture(0))
    assert tag.encode() in results[0].getvalue().split(b"\n", 1)[0].split()
    assert results[0].getvalue() == results[1].getvalue()


def test_yuv4mpeg_has_the_matrix_that_players_assume_for_its_size() -> None:
    small = settle_tags(6, 2, 2, 1, is_rgb=False, size=(WIDTH, HEIGHT))
    stream = io.BytesIO()
    red = np.zeros((720, 1280, 3), np.float32) + np.array([0.9, 0.1, 0.1], np.float32)
    Yuv4MpegWriter(stream, facts(colour=small)).write(red)
    stream.seek(0)
    with open_clip(stream) as clip:
        assert clip.facts.colour.matrix_name == "bt709"
        (frame,) = clip.frames()
    np.testing.assert_allclose(frame.pixels, red, atol=2 / 255)


@pytest.mark.parametrize(("bits", "format"), [(8, "rgb24"), (16, "rgb48le")])
def test_bare_samples_come_back(bits: int, format: str) -> None:
    stream = io.BytesIO()
    for number in (0, 1):
        write_raw(stream, picture(number, alpha=True), bits)
    assert len(stream.getvalue()) == 2 * WIDTH * HEIGHT * 3 * bits // 8
    stream.seek(0)
    with open_clip(stream, raw=RawInput(format, WIDTH, HEIGHT, NTSC)) as clip:
        frames = list(clip.frames())
    for frame in frames:
        np.testing.assert_allclose(frame.pixels, picture(frame.number), atol=0.501 / (2**bits - 1))


@needs_ffmpeg
def test_the_program_ffmpeg_reads_and_writes_the_pipes(tmp_path: Path) -> None:
    stream = io.BytesIO()
    writer = Yuv4MpegWriter(stream, facts(bits=10, chroma=(1, 1)))
    for number in (0, 1, 2):
        writer.write(picture(number))
    command = ["ffmpeg", "-v", "error", "-strict", "-1", "-i", "-", "-c:v", "ffv1", str(tmp_path / "a.mkv")]
    subprocess.run(command, input=stream.getvalue(), check=True)
    with open_clip(tmp_path / "a.mkv") as clip:
        frames = list(clip.frames())
        assert clip.facts.bits == 10
    assert min(psnr(frame.pixels, picture(frame.number)) for frame in frames) > 55
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        str(tmp_path / "a.mkv"),
        "-strict",
        "-1",
        "-f",
        "yuv4mpegpipe",
        "-",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert isinstance(process.stdout, io.BufferedReader)
        with open_clip(process.stdout) as clip:
            again = list(clip.frames())
    assert len(again) == 3
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(frames, again, strict=True))


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    for name in [each for each in sys.modules if each == "av" or each.startswith("av.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(
        VideoError, match=r"needs? the package av.*pip install 'mambair-cli\[video\]' brings it"
    ):
        probe_clip(tmp_path / "a.mp4")


def test_the_package_is_imported_without_ffmpeg() -> None:
    code = "import sys, mambair_cli.video; print('av' in sys.modules)"
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert av.library_versions["libavcodec"] >= (61,)
