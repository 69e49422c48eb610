"""Clips are recognised for what they are, and read frame by frame: times, starts, damage."""

import io
import os
import re
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import HEIGHT, NTSC, TICKS, WIDTH, Sound, av, make_clip, picture, psnr

from mambair_cli.errors import VideoError
from mambair_cli.video import Clip, FrameMark, RawInput, VideoFrame, open_clip, probe_clip
from mambair_cli.video.damage import DamageNotes

Frames = list[VideoFrame]
UNEVEN = [0, 3003, 4000, 9000, 9500, 20000, 23003, 26006, 26010, 30000, 33003, 40000]


def read(
    path: Path, start: int = 0, mark: FrameMark | None = None, deinterlace: bool = False
) -> list[VideoFrame]:
    with open_clip(path, deinterlace=deinterlace) as clip:
        frames = list(clip.frames(start, mark))
        assert clip.warnings == []
        return frames


def test_facts_of_an_mp4(tmp_path: Path) -> None:
    make_clip(
        tmp_path / "a.mp4",
        "mp4",
        pix_fmt="yuv420p10le",
        sound=Sound("aac"),
        rotation=90,
        colorspace=9,
        color_primaries=9,
        color_trc=18,
        color_range=1,
        sample_aspect_ratio=Fraction(16, 15),
    )
    facts = probe_clip(tmp_path / "a.mp4")
    assert (facts.width, facts.height, facts.bits, facts.chroma) == (WIDTH, HEIGHT, 10, (2, 2))
    assert (facts.codec, facts.pixel_format, facts.has_alpha) == ("h264", "yuv420p10le", False)
    assert "mp4" in facts.container.split(",")
    assert [(each.kind, each.codec, each.language) for each in facts.streams] == [
        ("video", "h264", "und"),
        ("audio", "aac", "deu"),
    ]
    assert (facts.time_base, facts.frame_rate) == (TICKS, NTSC)
    assert (facts.frames, facts.frames_exact, facts.variable) == (30, True, False)
    assert facts.duration == Fraction(1001, 1000)
    assert facts.rotation == 90
    assert facts.display_matrix == (0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30)
    assert facts.pixel_aspect == Fraction(16, 15)
    assert (facts.colour.matrix_name, facts.colour.primaries, facts.hdr) == ("bt2020nc", 9, "HLG")
    assert facts.colour.assumed == ()
    assert not facts.interlaced


def test_facts_of_hdr10(tmp_path: Path) -> None:
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    params = f"mastering-display={display}:cll=1000,400"
    make_clip(
        tmp_path / "a.mkv",
        "matroska",
        pix_fmt="yuv420p10le",
        times=[0, 3003],
        options={"preset": "ultrafast", "x264-params": params},
        color_trc=16,
        color_primaries=9,
    )
    facts = probe_clip(tmp_path / "a.mkv")
    assert facts.hdr == "HDR10"
    assert facts.colour.matrix_name == "bt2020nc"
    assert facts.colour.assumed == ("matrix",)
    assert facts.mastering is not None
    assert facts.mastering.red == (Fraction(34000, 50000), Fraction(16000, 50000))
    assert facts.mastering.white == (Fraction(15635, 50000), Fraction(16450, 50000))
    assert facts.mastering.luminance == (Fraction(50, 10000), 1000)
    assert facts.light_level == (1000, 400)


def test_matroska_estimates_frames_until_they_are_counted(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mkv", "matroska", times=UNEVEN)
    facts = probe_clip(tmp_path / "a.mkv")
    assert not facts.frames_exact
    assert facts.variable is None
    counted = probe_clip(tmp_path / "a.mkv", count=True)
    assert (counted.frames, counted.frames_exact, counted.variable) == (len(UNEVEN), True, True)


def test_variable_times_of_mp4_are_recognised_at_once(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", "mp4", times=UNEVEN)
    facts = probe_clip(tmp_path / "a.mp4")
    assert (facts.frames, facts.frames_exact, facts.variable) == (len(UNEVEN), True, True)


@pytest.mark.parametrize("format", ["mp4", "mov", "matroska", "mpegts", "avi", "h264"])
def test_frames_have_their_times_and_pictures(format: str, tmp_path: Path) -> None:
    times = range(0, 10 * 3003, 3003)
    make_clip(tmp_path / "clip", format, times=times)
    with open_clip(tmp_path / "clip") as clip:
        frames = list(clip.frames())
        tick = clip.facts.time_base
    assert [frame.number for frame in frames] == list(range(10))
    assert all(psnr(frame.pixels, picture(frame.number)) > 32 for frame in frames)
    first = frames[0].pts * tick
    if format == "h264":  # has no times
        assert [frame.pts - frames[0].pts for frame in frames] == [n * frames[0].duration for n in range(10)]
    elif format != "avi":  # rounds times to its own ticks
        error = Fraction(1, 2000) if format == "matroska" else 0
        wrong = [abs(frame.pts * tick - first - n * 3003 * TICKS) for n, frame in enumerate(frames)]
        assert max(wrong) <= error
    assert all(after.pts > before.pts for before, after in pairwise(frames))


def test_variable_times_are_kept_to_the_tick(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", "mp4", times=UNEVEN)
    frames = read(tmp_path / "a.mp4")
    assert [frame.pts for frame in frames] == UNEVEN
    lengths = [after - before for before, after in pairwise(UNEVEN)]
    assert [frame.duration for frame in frames][:-1] == lengths


@pytest.mark.parametrize("format", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize("deinterlace", [False, True])
def test_a_start_gives_the_frames_of_an_undisturbed_read(
    format: str, deinterlace: bool, tmp_path: Path
) -> None:
    options = {"preset": "ultrafast", "bf": "2", "g": "7", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}
    make_clip(tmp_path / "clip", format, options=options)
    whole = read(tmp_path / "clip", deinterlace=deinterlace)
    assert len(whole) == 30
    for start in (1, 6, 7, 8, 15, 29):
        for mark in (whole[start].mark, None):
            part = read(tmp_path / "clip", start, mark, deinterlace=deinterlace)
            assert [(frame.number, frame.pts) for frame in part] == [
                (frame.number, frame.pts) for frame in whole[start:]
            ]
            assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(part, whole[start:], strict=True))


def test_a_time_that_no_frame_has_is_found_by_its_number(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", "mp4")
    mark = FrameMark(20 * 3003 + 1, 3003, 0)
    assert [frame.number for frame in read(tmp_path / "a.mp4", 20, mark)] == list(range(20, 30))
    with open_clip(tmp_path / "a.mp4") as clip, pytest.raises(VideoError, match="cannot read frame 30 of"):
        next(clip.frames(30))


@pytest.mark.parametrize("format", ["mp4", "matroska", "mpegts"])
def test_the_frame_at_a_time_is_the_one_that_is_shown(format: str, tmp_path: Path) -> None:
    make_clip(tmp_path / "a", format, options={"preset": "ultrafast", "bf": "2", "g": "10"})
    whole = read(tmp_path / "a")
    with open_clip(tmp_path / "a") as clip:
        tick = clip.facts.time_base
        for frame in (whole[0], whole[1], whole[11], whole[29]):
            for later in (0, frame.duration - 1):
                found = clip.frame_at((frame.pts - whole[0].pts + later) * tick)
                assert (found.number, found.pts) == (frame.number, frame.pts)
                np.testing.assert_array_equal(found.pixels, frame.pixels)
        assert clip.warnings == []
        assert clip.frame_at(Fraction(1000)).number == 29
        [warning] = clip.warnings
        last = float((whole[29].pts - whole[0].pts) * tick)
        assert warning.endswith(f"has no frame at 1000 s; its last one, at {last:.5g} s, is shown")
        assert clip.frame_at(Fraction(-1)).number == 0


def test_a_clip_that_is_cut_off_ends_with_what_there_is(tmp_path: Path) -> None:
    for format, count in (("matroska", 30), ("mp4", 30), ("mpegts", 30), ("avi", 30)):
        options = {"movflags": "faststart"} if format == "mp4" else {}
        path, cut = tmp_path / format, tmp_path / f"{format}-cut"
        make_clip(path, format, sound=None)
        if options:  # the index first, else nothing can be read
            with av.open(str(path)) as old, av.open(str(cut), "w", format=format, options=options) as new:
                stream = new.add_stream_from_template(old.streams.video[0])
                for packet in old.demux(video=0):
                    if packet.size:
                        packet.stream = stream
                        new.mux(packet)
            path.write_bytes(cut.read_bytes())
        data = path.read_bytes()
        cut.write_bytes(data[: len(data) * 6 // 10])
        with open_clip(cut) as clip:
            frames = list(clip.frames())
            assert 5 < len(frames) < count
            if format != "mpegts":  # which tells no length
                assert len(clip.warnings) >= 1
                assert "cut off" in clip.warnings[-1] or "missing" in clip.warnings[-1]
        good = [frame for frame in frames if not frame.concealed][:-1]
        assert all(psnr(frame.pixels, picture(frame.number)) > 32 for frame in good)


@pytest.mark.parametrize("length", [601, 0, 0x40000000])  # ticks of 1/600 s
def test_an_index_that_was_not_read_is_not_taken_for_the_whole(length: int, tmp_path: Path) -> None:
    """AVI has its index at its end; its header tells a length, or none, or where it went into a pipe any."""
    path = tmp_path / "a.avi"
    make_clip(path, "avi", codec="mjpeg", pix_fmt="yuvj420p", sound=Sound("pcm_s16le"))
    whole = probe_clip(path)
    assert (whole.frames, whole.frames_exact, whole.duration) == (30, True, Fraction(601, 600))
    data = bytearray(path.read_bytes())
    header = data.index(b"strh") + 8
    data[header + 32 : header + 36] = struct.pack("<I", length)
    path.write_bytes(data[: len(data) * 6 // 10])
    facts = probe_clip(path)
    assert not facts.frames_exact
    assert facts.duration == (Fraction(601, 600) if length == 601 else None)
    with open_clip(path) as clip:
        frames = list(clip.frames())
        assert 15 < len(frames) < 22
        assert clip.count().frames == len(frames)
        assert [each for each in clip.warnings if "of 1.00 s; it may be cut off" in each] == clip.warnings
        assert len(clip.warnings) == (length == 601)


def test_frames_that_avi_repeats_are_not_missing(tmp_path: Path) -> None:
    times = [3003 * number for number in (0, 1, 5, 6, 11)]
    make_clip(tmp_path / "a.avi", "avi", codec="mjpeg", pix_fmt="yuvj420p", times=times)
    facts = probe_clip(tmp_path / "a.avi")
    assert (facts.frames, facts.frames_exact, facts.variable) == (5, True, True)
    assert len(read(tmp_path / "a.avi")) == 5


def test_fragments_that_were_not_read_are_not_taken_for_missing(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", "mp4", options={"preset": "ultrafast", "g": "10"})
    options = {"movflags": "dash+global_sidx"}
    with (
        av.open(str(tmp_path / "a.mp4")) as old,
        av.open(str(tmp_path / "b.mp4"), "w", format="mp4", options=options) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    facts = probe_clip(tmp_path / "b.mp4")
    assert (facts.frames, facts.frames_exact) == (30, False)
    assert probe_clip(tmp_path / "b.mp4", count=True).frames == 30
    assert len(read(tmp_path / "b.mp4")) == 30


@pytest.mark.parametrize(
    ("number", "words"), [(10, "frame 10 of .* is broken"), (13, "part of .* is broken")]
)
def test_broken_frames_are_reported_and_do_not_end_the_clip(number: int, words: str, tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", "mp4", options={"preset": "ultrafast", "g": "10", "crf": "5"})
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    with av.open(str(tmp_path / "a.mp4")) as container:
        broken = [packet for packet in container.demux(video=0) if packet.size][number]
        assert broken.pos is not None
        # A part of a keyframe is wrong, or all of another frame is gone.
        part = slice(broken.size // 3, None) if broken.is_keyframe else slice(0, None)
        where = range(broken.pos, broken.pos + broken.size)[part]
    data[where.start : where.stop] = bytes([255 if number == 10 else 0]) * len(where)
    (tmp_path / "b.mp4").write_bytes(data)
    with open_clip(tmp_path / "b.mp4") as clip:
        frames = list(clip.frames())
        assert len(frames) == (30 if number == 10 else 29)
        assert re.match(words, clip.warnings[0])
        assert [frame.number for frame in frames if frame.concealed] == ([10] if number == 10 else [])
    by_time = {frame.pts // 3003: frame for frame in frames}
    assert all(psnr(by_time[n].pixels, picture(n)) > 32 for n in (*range(10), *range(20, 30)))


def test_times_that_begin_anew_are_reported_once_for_each_place(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.ts", "mpegts", times=[3003 * n for n in range(40)])
    data = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "a.ts").write_bytes(data * 3)
    with open_clip(tmp_path / "a.ts") as clip:
        assert len(list(clip.frames())) == 120
        jumps = [sentence for sentence in clip.warnings if "go backwards" in sentence]
    assert [re.findall(r"at frame (\d+)", sentence) for sentence in jumps] == [["40"], ["80"]]


def test_many_sentences_of_a_kind_hide_no_others() -> None:
    notes = DamageNotes("a.mkv")
    for _ in range(2):  # a clip is read twice
        for number in range(50):
            notes.add(f"frame {number} is broken", "broken frames")
            notes.add(f"part {number % 3} is broken", "broken parts")
        notes.add("a.mkv ends after 1 s; it may be cut off")
    notes.add("frame 50 is broken", "broken frames")
    assert len(notes.sentences) == 20 + 3 + 1 + 1
    assert "31 more lines on broken frames of a.mkv left out" in notes.sentences
    assert notes.sentences[-1] == "a.mkv ends after 1 s; it may be cut off"


@pytest.mark.parametrize("damage", [None, 1, 5, 10, 13])
def test_marked_frames_are_those_of_an_undisturbed_read(damage: int | None, tmp_path: Path) -> None:
    options = {"preset": "ultrafast", "g": "10", "bf": "2", "crf": "5"}
    make_clip(tmp_path / "a.mp4", "mp4", options=options, times=[3003 * n + n % 7 for n in range(30)])
    if damage is not None:
        data = bytearray((tmp_path / "a.mp4").read_bytes())
        with av.open(str(tmp_path / "a.mp4")) as container:
            broken = [packet for packet in container.demux(video=0) if packet.size][damage]
        data[broken.pos + broken.size // 3 : broken.pos + broken.size] = bytes([255]) * (
            broken.size - broken.size // 3
        )
        (tmp_path / "a.mp4").write_bytes(data)
    with open_clip(tmp_path / "a.mp4") as clip:
        whole = list(clip.frames())
        warnings = list(clip.warnings)
    with open_clip(tmp_path / "a.mp4") as surveyed:
        marks = list(surveyed.survey())
    assert surveyed.warnings == warnings
    assert warnings or damage != 10
    assert [(mark.pts, mark.duration) for mark in marks] == [(each.pts, each.duration) for each in whole]
    for start in range(0, len(whole), 4):
        with open_clip(tmp_path / "a.mp4") as clip:
            found = list(clip.marked_frames(start, marks[start : start + 4]))
        assert [each.number for each in found] == [each.number for each in whole[start : start + 4]]
        for each, other in zip(found, whole[start:], strict=False):
            assert (each.pts, each.duration) == (other.pts, other.duration)
            np.testing.assert_array_equal(each.pixels, other.pixels)


def test_frames_that_a_jump_shows_otherwise_are_decoded_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip(tmp_path / "a.mp4", "mp4", options={"preset": "ultrafast", "g": "10", "crf": "5"})
    with open_clip(tmp_path / "a.mp4") as clip:
        marks, whole = list(clip.survey()), list(clip.frames())
        jump = Clip._jump

        def blacken(clip: Clip, *arguments: Any) -> Any:
            for shown in jump(clip, *arguments):
                if shown.number == 22:
                    for plane in shown.frame.planes:
                        plane.update(bytes(plane.buffer_size))
                yield shown

        monkeypatch.setattr(Clip, "_jump", blacken)
        other = marks[22]._replace(checksum=0)  # the jump leads to a frame of that time that is another one
        assert list(clip.survey(22, other)) == marks[22:]
        for start in (20, 22):
            found = list(clip.marked_frames(start, marks[start : start + 5]))
            assert [each.number for each in found] == list(range(start, start + 5))
            for each in found:
                np.testing.assert_array_equal(each.pixels, whole[each.number].pixels)
        with pytest.raises(VideoError, match=r"cannot read .* again: it has changed; restore it anew"):
            list(clip.marked_frames(22, [*marks[22:], marks[0]]))


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "format"),
    [
        ("ffv1", "yuv420p10le", "matroska"),
        ("ffv1", "bgr0", "matroska"),
        ("rawvideo", "yuyv422", "nut"),
        ("rawvideo", "nv12", "nut"),
        ("rawvideo", "monow", "nut"),
    ],
)
def test_marks_depend_on_samples_alone(codec: str, pix_fmt: str, format: str, tmp_path: Path) -> None:
    make_clip(
        tmp_path / "a", format, codec=codec, pix_fmt=pix_fmt, size=(34, 22), times=[0, 3003, 6006], options={}
    )
    with open_clip(tmp_path / "a") as clip:
        first, again = list(clip.survey()), list(clip.survey())
    assert first == again
    if pix_fmt != "monow":  # in which pictures hardly differ
        assert len({mark.checksum for mark in first}) == 3


def test_alpha_of_webm_is_read(tmp_path: Path) -> None:
    options = {"cpu-used": "8", "auto-alt-ref": "0", "crf": "10"}
    make_clip(
        tmp_path / "a.webm", "webm", codec="libvpx-vp9", pix_fmt="yuva420p", times=[0, 3003], options=options
    )
    frames = read(tmp_path / "a.webm")
    assert frames[0].pixels.shape == (HEIGHT, WIDTH, 4)
    assert psnr(frames[1].pixels, picture(1, alpha=True)) > 32


def test_interlaced_clips_are_recognised_and_deinterlaced_on_demand(tmp_path: Path) -> None:
    """A bar that moves by eight pixels from field to field has combs until it is deinterlaced."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream(
            "libx264", rate=25, options={"preset": "ultrafast", "crf": "1", "x264-params": "tff=1"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.flags |= 1 << 18 | 1 << 29
        for number in range(8):
            image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            for field in (0, 1):
                left = (2 * number + field) * 3
                image[field::2, left : left + 12] = 255
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    facts = probe_clip(tmp_path / "a.mkv")
    assert facts.interlaced
    assert facts.field_order in (
        ("tt", "tb") if hasattr(av.VideoCodecContext, "field_order") else ("unknown",)
    )

    def combs(frame: VideoFrame) -> float:
        luma = frame.pixels.mean(axis=2)
        return float(np.abs(luma[1:-1:2] - (luma[:-2:2] + luma[2::2]) / 2).mean())

    woven, whole = read(tmp_path / "a.mkv"), read(tmp_path / "a.mkv", deinterlace=True)
    assert [frame.pts for frame in whole] == [frame.pts for frame in woven]
    assert combs(whole[4]) < 0.2 * combs(woven[4])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("Hello, I am a text.\n" * 50), "it is no clip|no moving pictures"),
        (lambda path: path.write_bytes(b""), "it is no clip"),
        (lambda path: path.write_bytes(bytes(5000)), "it is no clip"),
        (lambda path: None, "it does not exist"),
        (lambda path: path.mkdir(), "no such images"),
    ],
)
def test_what_is_no_clip_is_refused_in_a_line(
    make: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    make(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match=words) as caught:
        probe_clip(tmp_path / "a.mp4")
    assert "\n" not in str(caught.value)
    assert "a.mp4" in str(caught.value)


def test_pictures_and_sound_are_no_clips(tmp_path: Path) -> None:
    from mambair_cli.images import Picture, write_picture

    write_picture(Picture(np.zeros((8, 8, 3), np.uint8)), tmp_path / "a.png")
    with av.open(str(tmp_path / "a.m4a"), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 48000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    for name in ("a.png", "a.m4a"):
        with pytest.raises(VideoError, match="no moving pictures; name a clip"):
            probe_clip(tmp_path / name)


def test_a_colon_in_a_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "b.mp4", "mp4", times=[0])
    (tmp_path / "b.mp4").rename(tmp_path / "http:b.mp4")
    assert len(read(Path("http:b.mp4"))) == 1


def test_pipes_are_read_once(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mkv", "matroska", times=range(0, 15015, 3003))

    class Pipe(io.RawIOBase):
        data = io.BytesIO((tmp_path / "a.mkv").read_bytes())

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            return self.data.readinto(buffer)

    with open_clip(io.BufferedReader(Pipe())) as clip:
        assert isinstance(clip, Clip)
        assert [frame.number for frame in clip.frames()] == [0, 1, 2, 3, 4]
        with pytest.raises(VideoError, match="it is a pipe; save it to a file first"):
            next(clip.frames())
        with pytest.raises(VideoError, match="it is a pipe; save it to a file first"):
            clip.count()


def test_pipes_have_names_too(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mkv", "matroska", times=range(0, 15015, 3003))
    os.mkfifo(tmp_path / "pipe")
    data = (tmp_path / "a.mkv").read_bytes()
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    assert len(read(tmp_path / "pipe")) == 5
    writer.join()


def test_a_pipe_that_ends_before_the_first_frame_is_reported() -> None:
    raw = RawInput("rgb24", 2, 2, Fraction(24))
    with (
        open_clip(io.BytesIO(bytes(12 * 3)), raw=raw) as clip,
        pytest.raises(VideoError, match="cannot read frame 5 of standard input: the clip ends before it"),
    ):
        next(clip.frames(5))


def test_raw_frames_are_read_to_the_bit() -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (3, 4, 6, 3), np.uint16)
    raw = RawInput("rgb48le", 6, 4, Fraction(24))
    with open_clip(io.BytesIO(samples.astype("<u2").tobytes()), raw=raw) as clip:
        assert (clip.facts.bits, clip.facts.frame_rate) == (16, 24)
        frames = list(clip.frames())
    stored = np.rint(np.stack([frame.pixels for frame in frames]) * 65535)
    np.testing.assert_array_equal(stored, samples)
    assert [frame.pts * clip.facts.time_base for frame in frames] == [0, Fraction(1, 24), Fraction(2, 24)]


@pytest.mark.parametrize("format", ["rgb24", "rgb48le"])
def test_raw_frames_that_end_inside_one_doubt_the_size(format: str) -> None:
    whole = bytes(range(250)) * 100
    for width, height, warns in ((10, 10, False), (10, 9, True), (7, 11, True)):
        count = 25000 // (width * height * (3 if format == "rgb24" else 6))
        data = whole[: 300 * 20] if (width, height) == (10, 10) else whole
        count = 6000 // (300 if format == "rgb24" else 600) if not warns else count
        reader, writer = os.pipe()
        os.write(writer, data)
        os.close(writer)
        raw = RawInput(format, width, height, Fraction(25))
        with open(reader, "rb") as pipe, open_clip(pipe, raw=raw) as clip:
            assert len(list(clip.frames())) == count
            doubt = (
                f"standard input ends inside a frame, which is left out; check whether --raw {width}x{height}"
            )
            assert clip.warnings == ([f"{doubt} is its size"] if warns else [])


def test_yuv4mpeg_is_read_from_a_pipe() -> None:
    header = b"YUV4MPEG2 W4 H2 F30000:1001 Ip A1:1 C420mpeg2 XCOLORRANGE=LIMITED\n"
    planes = bytes([16, 235, 126, 16] * 2) + bytes([128] * 4)
    with open_clip(io.BytesIO(header + (b"FRAME\n" + planes) * 2)) as clip:
        assert clip.facts.frame_rate == NTSC
        frames = list(clip.frames())
    assert len(frames) == 2
    np.testing.assert_allclose(frames[0].pixels[0, :, 0], [0, 1, 110 / 219, 0], atol=1e-6)


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_yuv4mpeg_that_ends_inside_a_frame_is_reported(kind: str, tmp_path: Path) -> None:
    frame = b"FRAME\n" + bytes([126] * 8 + [128] * 4)
    whole = b"YUV4MPEG2 W4 H2 F25:1 Ip A1:1 C420mpeg2\n" + frame * 3
    for content, warns in ((whole, False), (whole[:-1], True), (whole[: -len(frame) + 7], True)):
        path = tmp_path / "a.y4m"
        path.write_bytes(content)
        with ExitStack() as opened:
            source = path
            if kind == "pipe":
                reader, writer = os.pipe()
                os.write(writer, content)
                os.close(writer)
                source = opened.enter_context(open(reader, "rb"))
            clip = opened.enter_context(open_clip(source))
            assert len(list(clip.frames())) == (2 if warns else 3)
            assert any("ends inside a frame" in sentence for sentence in clip.warnings) == warns


def test_no_struct_is_misread() -> None:
    """The sizes of side data follow FFmpeg's structures: 22 and 2 numbers of 32 bits."""
    from mambair_cli.video.description import _read_mastering

    points = [7, 10, 3, 10, 2, 10, 7, 10, 1, 10, 1, 20, 3, 10, 33, 100, 1, 100, 1000, 1, 1, 0]
    display = _read_mastering(struct.unpack("=22i", struct.pack("=22i", *points)))
    assert display.blue == (Fraction(1, 10), Fraction(1, 20))
    assert display.luminance is None
