"""Frames that a survey has marked are found again: the same ones or an error, and none decoded often."""

import os
import struct
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import av, make_clip, picture

from mambair_cli.errors import VideoError
from mambair_cli.video import Clip, FrameMark, NumberedFrames, open_clip, write_frame
from mambair_cli.video.decoder import Decoder
from mambair_cli.video.frames import DecodedFrame, mark_frame, plane_bytes

GOP = {"preset": "ultrafast", "g": "20", "bf": "2"}
FRAMES, LENGTH = 240, 16


def times(frames: int) -> range:
    return range(0, 3003 * frames, 3003)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note a time for each frame that is decoded."""
    found: list[int] = []
    decode = Decoder.decode

    def note(*arguments: Any, **options: Any) -> Iterator[Any]:
        for frame in decode(*arguments, **options):
            found.append(frame.pts)
            yield frame

    monkeypatch.setattr(Decoder, "decode", note)
    return found


def make_without_jumps(kind: str, path: Path) -> None:
    """Make a clip in which jumps lead nowhere, or only to its beginning."""
    if kind == "joined":  # times begin anew in the middle
        make_clip(path, "mpegts", times=times(FRAMES // 2), options=GOP)
        path.write_bytes(path.read_bytes() * 2)
    elif kind == "gif":
        colours = [3600 * number for number in range(FRAMES)]
        make_clip(path, "gif", codec="gif", pix_fmt="rgb8", times=colours, options={})
    elif kind == "h264":
        make_clip(path, "h264", times=times(FRAMES), options=GOP)
    else:
        make_clip(path, "mp4", times=times(FRAMES), options={**GOP, "g": "9999"})


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", ["joined", "gif", "h264", "one keyframe"])
def test_a_worker_decodes_a_clip_without_jumps_about_once(
    kind: str, workers: int, tmp_path: Path, decoded: list[int]
) -> None:
    make_without_jumps(kind, tmp_path / "clip")
    with open_clip(tmp_path / "clip") as clip:
        marks, whole = list(clip.survey()), list(clip.frames())
    assert len(marks) == FRAMES
    for worker in range(workers):
        decoded.clear()
        with open_clip(tmp_path / "clip") as clip:
            for start in range(worker * LENGTH, FRAMES, workers * LENGTH):
                for each in clip.marked_frames(start, marks[start : start + LENGTH]):
                    np.testing.assert_array_equal(each.pixels, whole[each.number].pixels)
        assert len(decoded) < FRAMES * (1.1 if workers == 1 else 2)


def test_jumps_are_tried_again_after_a_part_that_needs_the_beginning(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip(tmp_path / "a.mp4", "mp4", times=times(FRAMES), options=GOP)
    jump, tried = Clip._jump, []

    def fail(clip: Clip, start: int, *arguments: Any) -> Iterator[DecodedFrame]:
        tried.append(start)
        if not 60 < start < 120:
            yield from jump(clip, start, *arguments)

    monkeypatch.setattr(Clip, "_jump", fail)
    with open_clip(tmp_path / "a.mp4") as clip:
        marks = list(clip.survey())
        decoded.clear()
        for start in range(40, FRAMES, 16):
            assert len(list(clip.marked_frames(start, marks[start : start + 8]))) == 8
    assert tried == [40, 56, 72, 104, *range(152, FRAMES, 16)]
    # From the beginning to 144 once, and some forty frames for each jump at most.
    assert len(decoded) < 144 + 40 * len(tried)


def test_a_segment_that_lies_behind_is_found(tmp_path: Path) -> None:
    make_without_jumps("h264", tmp_path / "clip")
    with open_clip(tmp_path / "clip") as clip:
        marks = list(clip.survey())
        for start in (64, 16, 0, 32, 230, 229):
            found = list(clip.marked_frames(start, marks[start : start + 10]))
            assert [each.number for each in found] == list(range(start, min(start + 10, FRAMES)))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the open files of a process")
def test_an_open_reader_is_closed_with_its_clip(tmp_path: Path) -> None:
    make_without_jumps("h264", tmp_path / "clip")

    def is_open() -> bool:
        files = Path("/proc/self/fd").iterdir()
        return any(os.path.realpath(each) == str((tmp_path / "clip").resolve()) for each in files)

    with open_clip(tmp_path / "clip") as clip:
        marks = list(clip.survey())
        for _ in clip.marked_frames(32, marks[32:64]):
            break
        assert is_open()
    assert not is_open()


@pytest.mark.parametrize("format", ["h264", "mp4", "mpegts"])
@pytest.mark.parametrize("start", [0, 30])
def test_a_clip_that_was_replaced_is_reported(format: str, start: int, tmp_path: Path) -> None:
    path = tmp_path / "clip"
    make_clip(path, format, times=times(60), options=GOP)
    with open_clip(path) as clip:
        marks = list(clip.survey())
    # It has as many frames with the same times, but other pictures.
    make_clip(path, format, times=times(60), options={**GOP, "crf": "40"})
    with open_clip(path) as clip:
        assert [mark.pts for mark in clip.survey()] == [mark.pts for mark in marks]
        with pytest.raises(VideoError, match=r"cannot read .*clip again: it has changed; restore it anew"):
            list(clip.marked_frames(start, marks[start : start + 10]))


def test_times_alone_count_for_frames_that_were_surveyed_after_a_jump(tmp_path: Path, monkeypatch) -> None:
    make_clip(tmp_path / "a.mp4", "mp4", times=times(60), options=GOP)
    with open_clip(tmp_path / "a.mp4") as clip:
        whole = list(clip.survey())
        marks = list(clip.survey(30, whole[30]))
        assert [mark[:3] for mark in marks] == [mark[:3] for mark in whole[30:]]
        assert list(clip.survey(30)) == whole[30:]
        assert {mark.is_repeatable for mark in whole} == {True}
        assert {mark.is_repeatable for mark in marks} == {False}
        otherwise = [mark._replace(checksum=mark.checksum ^ 1) for mark in marks]
        assert [each.number for each in clip.marked_frames(30, otherwise[:5])] == [30, 31, 32, 33, 34]
        shifted = [mark._replace(pts=mark.pts + 1) for mark in otherwise]
        with pytest.raises(VideoError, match="it has changed"):
            list(clip.marked_frames(30, shifted[:5]))


def test_frames_after_broken_data_are_not_reported_as_changed(tmp_path: Path) -> None:
    options = {"preset": "ultrafast", "g": "10", "crf": "5"}
    make_clip(tmp_path / "a.mp4", "mp4", times=times(40), options=options)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    with av.open(str(tmp_path / "a.mp4")) as container:
        broken = [packet for packet in container.demux(video=0) if packet.size][10]
    data[broken.pos + broken.size // 3 : broken.pos + broken.size] = bytes([255]) * (
        broken.size - broken.size // 3
    )
    (tmp_path / "a.mp4").write_bytes(data)
    with open_clip(tmp_path / "a.mp4") as clip:
        marks = list(clip.survey())
    assert [mark.is_repeatable for mark in marks[:9]] == [True] * 9
    assert not any(mark.is_repeatable for mark in marks[10:])
    otherwise = [mark._replace(checksum=mark.checksum ^ 1) for mark in marks]
    with open_clip(tmp_path / "a.mp4") as clip:
        assert len(list(clip.marked_frames(30, otherwise[30:]))) == len(marks) - 30
        with pytest.raises(VideoError, match="it has changed"):
            list(clip.marked_frames(5, otherwise[5:9]))


def write_numbers(folder: Path, numbers: range) -> None:
    for number in numbers:
        write_frame(folder / "%d.png", number, picture(number))


@pytest.mark.parametrize("kind", ["folder", "pattern"])
@pytest.mark.parametrize("what", ["deleted", "last deleted", "replaced", "added"])
def test_images_that_change_after_a_survey_are_reported(kind: str, what: str, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    write_numbers(folder, range(8))
    source = folder if kind == "folder" else folder / "%d.png"
    with open_clip(source) as clip:
        marks = list(clip.survey())
        assert [(mark.pts, mark.duration) for mark in marks] == [(number, 1) for number in range(8)]
    with open_clip(source) as clip:
        found = list(clip.marked_frames(3, marks[3:6]))
        assert [each.number for each in found] == [3, 4, 5]
        np.testing.assert_allclose(found[2].pixels, picture(5), atol=0.501 / 255)
    if what == "replaced":
        times = (folder / "6.png").stat()
        write_frame(folder / "%d.png", 5, picture(20), overwrite=True)
        os.utime(folder / "6.png", ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    elif what == "added":
        write_frame(folder / "%03d.png", 2, picture(0))  # in a folder, it comes before or after 3.png
    else:
        (folder / ("3.png" if what == "deleted" else "8.png")).unlink()
    with open_clip(source) as clip:
        assert isinstance(clip, NumberedFrames)
        with pytest.raises(VideoError, match=r"cannot read .* again: it has changed; restore it anew"):
            list(clip.marked_frames(5, marks[5:]))


def test_an_image_that_goes_while_a_clip_is_open_is_reported(tmp_path: Path) -> None:
    write_numbers(tmp_path, range(4))
    with open_clip(tmp_path) as clip:
        marks = list(clip.survey())
        (tmp_path / "3.png").unlink()
        found = clip.marked_frames(0, marks)
        assert [next(found).number, next(found).number] == [0, 1]
        with pytest.raises(VideoError, match="it has changed"):
            next(found)


def test_an_image_that_cannot_be_read_has_a_mark(tmp_path: Path) -> None:
    write_numbers(tmp_path, range(3))
    (tmp_path / "2.png").unlink()
    (tmp_path / "2.png").symlink_to("nothing")
    with open_clip(tmp_path) as clip:
        marks = list(clip.survey())
        frames = list(clip.marked_frames(0, marks))
    assert [each.concealed for each in frames] == [False, True, False]


def mark(frame: Any) -> FrameMark:
    return mark_frame(DecodedFrame(0, 0, 1, frame, False))


PACKED = ["rgb24", "bgra", "0rgb", "yuyv422", "uyvy422", "rgb48le", "rgba64le", "ya8", "rgb565le", "monow"]
PLANAR = ["gray", "gray10le", "yuv420p", "yuv420p10le", "nv12", "p010le", "nv24", "gbrap", "yuv411p", "pal8"]


@pytest.mark.parametrize("width", [32, 33])
@pytest.mark.parametrize("format", [*PACKED, *PLANAR, "uyyvyy411", "x2rgb10le", "gbrapf32le"])
def test_marks_cover_each_byte_of_a_line_and_nothing_after_it(format: str, width: int) -> None:
    frame = av.VideoFrame(width, 6, format)
    for plane in frame.planes:
        plane.update(bytes([0x30]) * plane.buffer_size)
    before = mark(frame).checksum
    pixel_bits = frame.format.padded_bits_per_pixel
    covered = 0
    for plane in frame.planes:
        samples = np.frombuffer(plane, np.uint8)
        lines = samples.reshape(plane.height, -1)
        for position in range(lines.shape[1]):
            lines[plane.height // 2, position] ^= 1
            is_seen = mark(frame).checksum != before
            lines[plane.height // 2, position] ^= 1
            covered += is_seen
            if position == 0 or (plane.width == 256 and plane.height == 1):
                assert is_seen
    assert mark(frame).checksum == before
    if format == "pal8":
        assert covered == width + 1024
    elif format in PACKED or format in ("uyyvyy411", "x2rgb10le"):
        group = {"yuyv422": 2, "uyvy422": 2, "uyyvyy411": 4}.get(format, 1)
        assert covered == -(-(-(-width // group) * group * pixel_bits) // 8)
    else:
        half, quarter = -(-width // 2), -(-width // 4)
        assert (
            covered
            == {
                "gray": width,
                "gray10le": 2 * width,
                "yuv420p": width + 2 * half,
                "yuv420p10le": 2 * (width + 2 * half),
                "nv12": width + 2 * half,
                "p010le": 2 * (width + 2 * half),
                "nv24": 3 * width,
                "gbrap": 4 * width,
                "yuv411p": width + 2 * quarter,
                "gbrapf32le": 16 * width,
            }[format]
        )


@pytest.mark.parametrize("format", PACKED)
def test_frames_that_differ_on_their_right_have_other_marks(format: str) -> None:
    marks = set()
    for right in (0, 255):
        samples = np.zeros((16, 64, 3), np.uint8)
        samples[:, 60:] = right
        marks.add(mark(av.VideoFrame.from_ndarray(samples, "rgb24").reformat(format=format)))
    assert len(marks) == 2


@pytest.mark.parametrize("pix_fmt", ["bgr24", "bgra", "rgb555le"])
def test_pictures_that_are_stored_from_below_are_read_and_marked(pix_fmt: str, tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    make_clip(path, "avi", codec="rawvideo", pix_fmt=pix_fmt, size=(34, 22), times=times(3), options={})
    with open_clip(path) as clip:
        upright, known = list(clip.frames()), list(clip.survey())
    # The header tells the order of lines by the sign of the height.
    above, below = (struct.pack("<ii", 34, height) for height in (-22, 22))
    data = path.read_bytes()
    assert data.count(above) == 1
    path.write_bytes(data.replace(above, below))
    with av.open(str(path)) as container:
        first = next(container.decode(video=0))
    assert first.planes[0].line_size < 0
    with open_clip(path) as clip:
        frames, marks = list(clip.frames()), list(clip.survey())
        assert marks == list(clip.survey())
    assert len({each.checksum for each in [*marks, *known]}) == 6
    for each, other in zip(frames, upright, strict=True):
        np.testing.assert_array_equal(each.pixels, other.pixels[::-1])
    # Neither the first nor the last line is left out.
    before = mark(first).checksum
    for line in (0, 21):
        plane_bytes(first.planes[0], 34)[line, 33] ^= 1
        assert mark(first).checksum != before
        plane_bytes(first.planes[0], 34)[line, 33] ^= 1
    assert mark(first).checksum == before


@pytest.mark.parametrize("jumps", [False, True])
def test_a_survey_ends_as_soon_as_nobody_wants_it(tmp_path: Path, decoded: list[int], jumps: bool) -> None:
    make_without_jumps("h264", tmp_path / "clip")
    with open_clip(tmp_path / "clip") as clip:
        marks = list(clip.survey())
        decoded.clear()
        asked = count()
        mark = marks[200] if jumps else None
        assert list(clip.survey(200, mark, lambda: next(asked) == 50)) == []
        assert len(decoded) <= 50
        assert len(list(clip.survey(200, marks[200], lambda: False))) == 40
        asked = count()
        first = list(clip.survey(0, None, lambda: next(asked) == 50))
        assert first == marks[: len(first)]
        assert 40 < len(first) <= 50
    assert clip.warnings == []


def test_a_survey_of_images_ends_as_soon_as_nobody_wants_it(tmp_path: Path) -> None:
    write_numbers(tmp_path, range(4))
    asked = count()
    with open_clip(tmp_path, rate=Fraction(25)) as clip:
        assert [each.pts for each in clip.survey(1, None, lambda: next(asked) == 2)] == [1, 2]
