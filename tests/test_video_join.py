"""Joined clips: pictures of all segments without a loss, and everything else of the source as it was."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from clips import (
    TICKS,
    Sound,
    av,
    make_clip,
    make_segments,
    needs_ffmpeg,
    picture,
    psnr,
    read_packets,
    show_streams,
)
from file_limit import limited_files

from mambair_cli.errors import ImageError, VideoError
from mambair_cli.images import Picture, encode_picture
from mambair_cli.video import join as joining
from mambair_cli.video import join_segments, open_clip
from mambair_cli.video.segments import read_times

UNEVEN = [0, 3003, 4000, 9000, 9500, 20000, 23003, 26006, 26010, 30000, 33003, 40000]
ROUNDED = Fraction(1, 2000)  # the most that milliseconds of Matroska change


def join(folder: Path, source: Path, target: Path, length: int = 11, **choice: Any) -> list[str]:
    segments, facts = make_segments(folder, source, target, length, **choice)
    return join_segments(segments, source, target, facts)


def first_time(path: Path) -> Fraction:
    with open_clip(path) as clip:
        return next(clip.frames()).pts * clip.facts.time_base


def tick_error(target: Path) -> Fraction:
    return ROUNDED if target.suffix in (".mkv", ".webm") else Fraction(0)


def check_pictures(
    target: Path, times: list[int], start: int | None = 0, error: Fraction | None = None
) -> None:
    """Check that frames are there, in order, at their times in 1/90000 s; decoding never goes back."""
    with open_clip(target) as clip:
        frames = list(clip.frames())
        tick = clip.facts.time_base
        assert clip.warnings == []
    assert len(frames) == len(times)
    if start is None:  # times count from the first picture
        tick_start, start = frames[0].pts, times[0]
    else:
        tick_start = 0
    wrong = [
        abs((frame.pts - tick_start) * tick - (pts - start) * TICKS)
        for frame, pts in zip(frames, times, strict=True)
    ]
    assert max(wrong) <= (tick_error(target) if error is None else error)
    assert min(psnr(frame.pixels, picture(frame.number)) for frame in frames) > 28
    packets = read_packets(target)
    known = [dts for dts in packets.dts if dts is not None]
    assert all(before < after for before, after in pairwise(known))
    assert all(dts is None or dts <= pts for dts, pts in zip(packets.dts, packets.pts, strict=True))


@pytest.mark.parametrize(
    ("format", "sound", "target"),
    [
        ("mp4", "aac", "b.mp4"),
        ("mp4", "aac", "b.mkv"),
        ("mp4", "aac", "b.mov"),
        ("matroska", "aac", "b.mp4"),
        ("matroska", "libopus", "b.webm"),
        ("matroska", "libopus", "b.mkv"),
        ("matroska", "flac", "b.mkv"),
        ("mov", "pcm_s16le", "b.mov"),
        ("mov", "pcm_s16le", "b.mkv"),
        ("mpegts", "libmp3lame", "b.mkv"),
        ("mpegts", "libmp3lame", "b.mp4"),
    ],
)
@pytest.mark.parametrize("start", [0.0, 0.25])
def test_sound_is_copied_and_stays_in_step(
    format: str, sound: str, target: str, start: float, tmp_path: Path
) -> None:
    source, result = tmp_path / "source", tmp_path / target
    make_clip(source, format, sound=Sound(sound, start))
    assert join(tmp_path, source, result) == []
    before, after = read_packets(source, "audio"), read_packets(result, "audio")
    assert after.data == before.data
    shown = [first_time(source), first_time(result)]
    # The sound keeps its distance from the first picture; rounded times of a source may become right.
    error = tick_error(result) * 2 + (Fraction(1, 1000) if format == "matroska" else Fraction(1, 90000))
    old, new = ([time - zero for time in e.seconds] for e, zero in zip((before, after), shown, strict=True))
    assert max(abs(a - b) for a, b in zip(old, new, strict=True)) <= error
    with av.open(str(result)) as container:
        assert container.metadata.get("title") == (None if format == "mpegts" else "A title")
        if target != "b.mov" and format != "mov":  # MOV has no such code for it
            assert container.streams.audio[0].language == "deu"
    rounded = Fraction(1, 1000) if "matroska" in format or tick_error(result) else None
    # Matroska has no times before zero, so all moves by the samples that sound of MP4 begins with.
    moves = format == "mpegts" or (format == "mp4" and target == "b.mkv")
    start_of_pictures = None if moves else 0
    check_pictures(result, [3003 * number for number in range(30)], start_of_pictures, rounded)


@pytest.mark.parametrize(
    ("codec", "target"),
    [
        *(("h264", "b.mp4"), ("h264", "b.mkv"), ("hevc", "b.mp4"), ("hevc", "b.mkv"), ("av1", "b.mp4")),
        *(("av1", "b.webm"), ("vp9", "b.webm"), ("vp9", "b.mp4"), ("ffv1", "b.mkv"), ("prores", "b.mov")),
    ],
)
def test_every_codec_joins_with_uneven_times(codec: str, target: str, tmp_path: Path) -> None:
    source, result = tmp_path / "a.mp4", tmp_path / target
    make_clip(source, "mp4", times=UNEVEN)
    segments, facts = make_segments(tmp_path, source, result, 5, codec=codec, quality=90)
    assert len(segments) == 3
    assert join_segments(segments, source, result, facts) == []
    # Two of the times fall into one millisecond: in Matroska the second one comes a millisecond later.
    check_pictures(result, UNEVEN, error=2 * tick_error(result))
    # Not a bit of the packets is changed; the order is that of the segments.
    data = [packet for path in segments for packet in read_packets(path).data]
    assert read_packets(result).data == data


@pytest.mark.parametrize(("target", "has_alpha"), [("b.webm", True), ("b.mp4", False)])
def test_transparency_of_vp9_is_in_the_clip(target: str, has_alpha: bool, tmp_path: Path) -> None:
    options = {"cpu-used": "8", "auto-alt-ref": "0", "crf": "10"}
    times = [0, 3003, 6006]
    make_clip(
        tmp_path / "a.webm", "webm", codec="libvpx-vp9", pix_fmt="yuva420p", times=times, options=options
    )
    for source, result in (("a.webm", target), (target, f"again-{target}")):  # what was written is read, too
        segments, facts = make_segments(tmp_path, tmp_path / source, tmp_path / result)
        join_segments(segments, tmp_path / source, tmp_path / result, facts)
        with open_clip(tmp_path / result) as clip:
            assert clip.facts.has_alpha == has_alpha
            pixels = list(clip.frames())[2].pixels
        assert psnr(pixels, picture(2, alpha=has_alpha)) > 30


def test_one_segment_and_many_give_the_same_pictures(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", "mp4")
    for name, length in (("one", 30), ("many", 7)):
        (tmp_path / name).mkdir()
        join(tmp_path / name, tmp_path / "a.mp4", tmp_path / f"{name}.mkv", length, codec="ffv1")
    with open_clip(tmp_path / "one.mkv") as one, open_clip(tmp_path / "many.mkv") as many:
        for a, b in zip(one.frames(), many.frames(), strict=True):
            assert (a.pts, a.duration) == (b.pts, b.duration)
            np.testing.assert_array_equal(a.pixels, b.pixels)


def test_a_clip_that_begins_late_still_does(tmp_path: Path) -> None:
    """Pictures that begin half a second after the sound."""
    times = [45000 + 3003 * number for number in range(12)]
    make_clip(tmp_path / "a.mkv", "matroska", times=times, sound=Sound("aac"))
    for target in ("b.mkv", "b.mp4"):
        assert join(tmp_path, tmp_path / "a.mkv", tmp_path / target) == []
        with av.open(str(tmp_path / target)) as container:
            starts = [stream.start_time * stream.time_base for stream in container.streams]
        with av.open(str(tmp_path / "a.mkv")) as container:
            wanted = [stream.start_time * stream.time_base for stream in container.streams]
        assert starts[0] - starts[1] == pytest.approx(wanted[0] - wanted[1], abs=0.0011)


def test_transport_streams_begin_at_zero(tmp_path: Path) -> None:
    times = [8_100_000 + 3003 * number for number in range(12)]
    make_clip(tmp_path / "a.ts", "mpegts", times=times, sound=None)
    join(tmp_path, tmp_path / "a.ts", tmp_path / "b.mp4")
    check_pictures(tmp_path / "b.mp4", times, times[0])


def test_the_last_frame_lasts_as_long_as_it_did(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", "mp4", times=[0, 3003, 6006])
    segments, facts = make_segments(tmp_path, tmp_path / "a.mp4", tmp_path / "b.mp4")
    join_segments(segments, tmp_path / "a.mp4", tmp_path / "b.mp4", facts, last_duration=9009)
    with av.open(str(tmp_path / "b.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == Fraction(6006 + 9009, 90000)


def test_rotation_shape_and_colours_are_kept(tmp_path: Path) -> None:
    make_clip(
        tmp_path / "a.mp4",
        "mp4",
        pix_fmt="yuv420p10le",
        rotation=90,
        colorspace=9,
        color_primaries=9,
        color_trc=18,
        color_range=1,
        sample_aspect_ratio=Fraction(4, 3),
    )
    kinds = (("b.mp4", "hevc"), ("b.mov", "prores"), ("b.mkv", "ffv1"), ("c.mp4", "av1"), ("c.mkv", "hevc"))
    for target, codec in kinds:
        warnings = join(tmp_path, tmp_path / "a.mp4", tmp_path / target, codec=codec)
        with open_clip(tmp_path / "a.mp4") as old, open_clip(tmp_path / target) as new:
            assert new.facts.rotation == old.facts.rotation == 90
            assert warnings == []
            assert new.facts.pixel_aspect == Fraction(4, 3)
            assert new.facts.hdr == "HLG"
            assert (new.facts.colour, new.facts.bits) == (old.facts.colour, 10)


@pytest.mark.parametrize(
    ("codec", "suffix", "aspect", "title"),
    [
        ("ffv1", "mkv", Fraction(16, 15), None),
        ("ffv1", "mkv", Fraction(3, 2), "Tape 7"),
        ("av1", "webm", Fraction(8, 9), None),
        ("vp9", "webm", Fraction(4, 3), None),
        (
            "h264",
            "mkv",
            Fraction(64, 45),
            "A name that is longer than a hundred bytes, " * 3,
        ),
    ],
)
def test_matroska_has_the_shape_of_pixels(
    codec: str, suffix: str, aspect: Fraction, title: str | None, tmp_path: Path
) -> None:
    source, target = tmp_path / "a.mkv", tmp_path / f"b.{suffix}"
    make_clip(source, "matroska", times=[0, 3003], sample_aspect_ratio=aspect)
    if title:
        with av.open(str(source)) as old, av.open(str(tmp_path / "c.mkv"), "w") as new:
            stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
            stream.metadata["title"] = title
            for packet in old.demux():
                if packet.size:
                    packet.stream = stream
                    new.mux(packet)
        source = tmp_path / "c.mkv"
    assert join(tmp_path, source, target, codec=codec) == []
    with av.open(str(target)) as container:
        assert container.streams.video[0].sample_aspect_ratio == aspect
        assert container.streams.video[0].metadata.get("title") == title
        assert len([packet for packet in container.demux() if packet.size]) == 2
    if shutil.which("mkvmerge"):  # a reader that is not FFmpeg, and checks the sums
        done = subprocess.run(["mkvmerge", "-J", str(target)], capture_output=True, text=True, check=True)
        identified = json.loads(done.stdout)
        assert identified["errors"] == identified["warnings"] == []
        assert identified["tracks"][0]["properties"].get("track_name") == title
    if shutil.which("ffprobe"):
        (stream,) = show_streams(target)["streams"]
        assert stream["sample_aspect_ratio"].replace(":", "/") == str(aspect)


def test_small_clips_without_tags_keep_their_matrix_when_they_grow(tmp_path: Path) -> None:
    """Players take BT.601 for small clips and BT.709 for large ones, so the result must tell."""
    make_clip(tmp_path / "a.mp4", "mp4", times=[0, 3003])
    join(tmp_path, tmp_path / "a.mp4", tmp_path / "b.mkv", codec="ffv1")
    with open_clip(tmp_path / "b.mkv") as clip:
        assert clip.facts.colour.matrix_name == "smpte170m"
        assert clip.facts.colour.assumed == ()


def add_extras(source: Path, target: Path, format: str, subtitles: str) -> None:
    """Copy a clip and add two subtitles, chapters and, in Matroska, an attachment."""
    with av.open(str(source)) as old, av.open(str(target), "w", format=format) as new:
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        words = new.add_mux_stream(subtitles, time_base=Fraction(1, 1000))
        words.metadata["language"] = "fra"
        words.disposition = av.stream.Disposition.forced
        if format == "matroska":
            new.add_attachment("font.ttf", "font/ttf", bytes(range(256)))
        chapter = {
            "id": 1,
            "start": 0,
            "end": 500,
            "time_base": Fraction(1, 1000),
            "metadata": {"title": "One"},
        }
        new.set_chapters(
            [chapter, {**chapter, "id": 2, "start": 500, "end": 1000, "metadata": {"title": "Two"}}]
        )
        new.metadata["comment"] = "A comment"
        for packet in old.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
        for start, text in ((100, "Bonjour"), (600, "Ça va ?")):
            data = text.encode()
            packet = av.Packet(len(data).to_bytes(2, "big") + data if subtitles == "mov_text" else data)
            packet.pts = packet.dts = start
            packet.duration, packet.time_base, packet.stream = 300, Fraction(1, 1000), words
            new.mux(packet)


def test_subtitles_chapters_attachments_and_tags_are_copied(tmp_path: Path) -> None:
    make_clip(tmp_path / "plain.mkv", "matroska", sound=Sound("aac"))
    add_extras(tmp_path / "plain.mkv", tmp_path / "a.mkv", "matroska", "subrip")
    assert join(tmp_path, tmp_path / "a.mkv", tmp_path / "b.mkv") == []
    with av.open(str(tmp_path / "a.mkv")) as old, av.open(str(tmp_path / "b.mkv")) as new:
        assert [stream.type for stream in new.streams] == [stream.type for stream in old.streams]
        assert [stream.type for stream in new.streams] == ["video", "audio", "subtitle", "attachment"]
        words = new.streams.subtitles[0]
        assert (words.language, words.disposition) == ("fra", av.stream.Disposition.forced)
        assert new.streams.attachments[0].data == bytes(range(256))
        assert new.streams.attachments[0].name == "font.ttf"
        chapters = new.chapters()
        assert [chapter["metadata"]["title"] for chapter in chapters] == ["One", "Two"]
        assert [chapter["start"] * chapter["time_base"] for chapter in chapters] == [0, Fraction(1, 2)]
        assert [chapter["end"] * chapter["time_base"] for chapter in chapters] == [Fraction(1, 2), 1]
        assert new.metadata["COMMENT"] == "A comment"
    before, after = (read_packets(tmp_path / name, "subtitles") for name in ("a.mkv", "b.mkv"))
    assert after.data == before.data == [b"Bonjour", "Ça va ?".encode()]
    assert (after.pts, after.durations) == ([100, 600], [300, 300])


def test_what_a_container_cannot_hold_is_named(tmp_path: Path) -> None:
    make_clip(tmp_path / "plain.mkv", "matroska", sound=Sound("aac"))
    add_extras(tmp_path / "plain.mkv", tmp_path / "a.mkv", "matroska", "subrip")
    warnings = join(tmp_path, tmp_path / "a.mkv", tmp_path / "b.webm")
    expected = ("1 .sound, aac", "3 .attachment")
    for sentence, words in zip(warnings, expected, strict=True):
        assert re.match(f"stream {words}.* has no place in webm; it is left out", sentence)
    with av.open(str(tmp_path / "b.webm")) as container:
        assert [stream.type for stream in container.streams] == ["video", "subtitle"]


@pytest.mark.parametrize(
    ("form", "format", "target", "wanted"),
    [
        ("subrip", "matroska", "b.mp4", "mov_text"),
        ("subrip", "matroska", "b.mov", "mov_text"),
        ("subrip", "matroska", "b.webm", "webvtt"),
        ("webvtt", "matroska", "b.mp4", "mov_text"),
    ],
)
def test_subtitles_get_the_form_of_the_container(
    form: str, format: str, target: str, wanted: str, tmp_path: Path
) -> None:
    make_clip(tmp_path / "plain.mkv", "matroska", sound=None)
    add_extras(tmp_path / "plain.mkv", tmp_path / "a", format, form)
    warnings = join(tmp_path, tmp_path / "a", tmp_path / target)
    assert all("attachment" in sentence for sentence in warnings)
    with av.open(str(tmp_path / target)) as container:
        stream = container.streams.subtitles[0]
        assert stream.codec_context.name == wanted
        assert target == "b.mov" or stream.language == "fra"
    # And back: what MP4 holds becomes plain text again.
    if target == "b.mp4":
        join(tmp_path, tmp_path / target, tmp_path / "c.mkv")
        target = "c.mkv"
    packets = read_packets(tmp_path / target, "subtitles")
    lengths = 2 if target == "b.mov" else 0
    shown = [
        (float(time), data[lengths:].decode())
        for time, data in zip(packets.seconds, packets.data, strict=True)
    ]
    assert [each for each in shown if each[1]] == [(0.1, "Bonjour"), (0.6, "Ça va ?")]
    shown_for = [d * packets.time_base for d, (_, text) in zip(packets.durations, shown, strict=True) if text]
    assert [float(each) for each in shown_for] == [0.3, 0.3]


def test_styled_subtitles_become_plain_text() -> None:
    from mambair_cli.video.subtitles import _TEXT_OF_FORMAT, add_text_stream

    assert set(_TEXT_OF_FORMAT) == {"matroska", "webm", "mp4", "mov"}

    class Context:
        name = "ass"

    class Styled:
        codec_context = Context()

    with av.open("unused.mkv", "w", format="matroska") as result:
        convert = add_text_stream(result, Styled(), "matroska")
        assert convert is not None
        line = "0,0,Default,,0,0,0,,{\\i1}Hi,{\\i0} you\\Nthere <b>now</b>"
        assert convert(line.encode()) == b"Hi, you\nthere now"
        Context.name = "hdmv_pgs_subtitle"
        assert add_text_stream(result, Styled(), "matroska") is None


def test_a_text_too_long_for_mp4_is_cut() -> None:
    from mambair_cli.video.subtitles import add_text_stream

    plain = SimpleNamespace(codec_context=SimpleNamespace(name="subrip"))
    with av.open("unused.mp4", "w", format="mp4") as result:
        convert = add_text_stream(result, plain, "mp4")
        assert convert is not None
        data = convert(("é" * 40000).encode())
    assert int.from_bytes(data[:2], "big") == len(data) - 2 == 65534


@pytest.mark.parametrize("target", ["b.mp4", "b.mkv"])
def test_covers_and_chapters_are_copied(target: str, tmp_path: Path) -> None:
    make_clip(tmp_path / "plain.mp4", "mp4", sound=Sound("aac"))
    image = encode_picture(Picture(np.full((8, 8, 3), 200, np.uint8)), "png")
    with av.open(str(tmp_path / "plain.mp4")) as old, av.open(str(tmp_path / "a.mp4"), "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        cover = new.add_mux_stream("png", width=8, height=8)
        cover.disposition = av.stream.Disposition.attached_pic
        chapter = {
            "id": 1,
            "start": 0,
            "end": 700,
            "time_base": Fraction(1, 1000),
            "metadata": {"title": "One"},
        }
        new.set_chapters([chapter])
        for packet in old.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
        packet = av.Packet(image)
        packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1, 1000)
        new.mux(packet)
    assert join(tmp_path, tmp_path / "a.mp4", tmp_path / target) == []
    assert join(tmp_path, tmp_path / "a.mp4", tmp_path / "b.mov") == [
        "stream 3 (picture, png) has no place in mov; it is left out"
    ]
    with av.open(str(tmp_path / target)) as container:
        (chapter,) = container.chapters()
        assert chapter["metadata"]["title"] == "One"
        assert (chapter["end"] - chapter["start"]) * chapter["time_base"] == Fraction(7, 10)
        pictures = [
            each for each in container.streams.video if each.disposition & av.stream.Disposition.attached_pic
        ]
        assert [bytes(next(container.demux(each))) for each in pictures] == [image]
    assert read_packets(tmp_path / target, "audio").data == read_packets(tmp_path / "a.mp4", "audio").data
    check_pictures(tmp_path / target, [3003 * n for n in range(30)], None, Fraction(1, 1000))


@needs_ffmpeg
def test_sound_before_the_start_of_an_edit_list_is_not_heard(tmp_path: Path) -> None:
    """A clip that was cut without encoding begins before its start, which its edit list hides."""
    options = {"preset": "ultrafast", "g": "300", "bf": "0"}
    make_clip(tmp_path / "whole.mp4", "mp4", sound=Sound("aac"), options=options)
    command = ["ffmpeg", "-v", "error", "-ss", "0.5", "-i", str(tmp_path / "whole.mp4"), "-c", "copy"]
    subprocess.run([*command, str(tmp_path / "a.mp4")], check=True)
    with open_clip(tmp_path / "a.mp4") as clip:
        assert [frame.number for frame in clip.frames()] == list(range(15))
    for target, most in (("b.mp4", 0.0), ("b.mkv", 0.1)):
        assert join(tmp_path, tmp_path / "a.mp4", tmp_path / target, 15) == []
        shown = show_streams(tmp_path / target)
        video, audio = (float(stream["start_time"]) for stream in shown["streams"])
        assert 0 <= video - audio <= most
        assert float(shown["format"]["duration"]) == pytest.approx(0.5 + video, abs=0.03)


def test_nothing_is_written_under_the_name_before_the_end(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", "mp4", sound=Sound("aac"))
    segments, facts = make_segments(tmp_path, tmp_path / "a.mp4", tmp_path / "b.mp4")
    segments[-1].write_bytes(segments[-1].read_bytes()[:300])
    with pytest.raises(VideoError, match="delete it and make it again"):
        join_segments(segments, tmp_path / "a.mp4", tmp_path / "b.mp4", facts)
    assert not (tmp_path / "b.mp4").exists()
    assert not list(tmp_path.glob(".mambair*"))


def test_an_existing_file_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", "mp4", times=[0, 3003])
    segments, facts = make_segments(tmp_path, tmp_path / "a.mp4", tmp_path / "b.mp4")
    (tmp_path / "b.mp4").write_text("mine")
    with pytest.raises(ImageError, match="it exists already"):
        join_segments(segments, tmp_path / "a.mp4", tmp_path / "b.mp4", facts)
    assert (tmp_path / "b.mp4").read_text() == "mine"
    join_segments(segments, None, tmp_path / "b.mp4", replace(facts, streams=()), overwrite=True)
    check_pictures(tmp_path / "b.mp4", [0, 3003])


def test_segments_must_follow_one_another(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", "mp4")
    segments, facts = make_segments(tmp_path, tmp_path / "a.mp4", tmp_path / "b.mp4")
    for wrong in ([segments[1], segments[0]], [segments[0], segments[0]], []):
        with pytest.raises(VideoError, match="cannot join"):
            join_segments(wrong, None, tmp_path / "b.mp4", facts)
    assert min(read_times(segments[1]).pts) == 11 * 3003


@needs_ffmpeg
@pytest.mark.parametrize("target", ["b.mp4", "b.mkv", "b.mov"])
def test_the_program_ffprobe_finds_no_fault(target: str, tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", "mp4", sound=Sound("aac", 0.25))
    join(tmp_path, tmp_path / "a.mp4", tmp_path / target)
    shown = show_streams(tmp_path / target, "-count_frames")
    video, audio = shown["streams"]
    assert (video["codec_name"], audio["codec_name"]) == ("h264", "aac")
    assert int(video["nb_read_frames"]) == 30
    assert Fraction(video["r_frame_rate"]) == Fraction(30000, 1001)
    assert float(video["start_time"]) == 0
    assert float(audio["start_time"]) == pytest.approx(0.25 - 1024 / 48000, abs=0.001)
    assert float(shown["format"]["duration"]) == pytest.approx(1.23, abs=0.02)
    assert shown["format"]["tags"]["title"] == "A title"


def test_a_full_disk_is_reported_in_a_line_and_leaves_nothing(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", "mp4", sound=Sound("aac"))
    for target in ("b.mp4", "b.mkv"):
        segments, clip_facts = make_segments(tmp_path, tmp_path / "a.mp4", tmp_path / target)
        with limited_files(4000), pytest.raises(ImageError, match="larger than files may be here") as caught:
            join_segments(segments, tmp_path / "a.mp4", tmp_path / target, clip_facts)
        assert isinstance(caught.value.__cause__, OSError)
        assert not (tmp_path / target).exists()
        assert not list(tmp_path.glob(".mambair*"))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_broken_packet_of_sound_is_left_out_and_reported(tmp_path: Path, suffix: str) -> None:
    source, target = tmp_path / "a.ts", tmp_path / f"b{suffix}"
    make_clip(source, "mpegts", sound=Sound("aac"))
    content = source.read_bytes()
    headers = [found.start() for found in re.finditer(rb"\xff\xf1\x4c", content)]
    middle = headers[len(headers) // 2]
    source.write_bytes(content[: middle + 2] + b"\xff" + content[middle + 3 :])  # no such rate of samples
    before = len(read_packets(source, "audio").data)
    assert join(tmp_path, source, target) == ["2 broken packets of stream 1 (sound) are left out"]
    assert len(read_packets(target, "audio").data) == before - 2  # the parser splits it
    with open_clip(target) as clip:
        assert len(list(clip.frames())) == 30


class Scratched:
    """A container of PyAV that cannot be read any more after ten packets."""

    def __init__(self, path: Path) -> None:
        self._container = av.open(str(path))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def __enter__(self) -> "Scratched":
        return self

    def __exit__(self, *error: object) -> None:
        self._container.close()

    def demux(self, *streams: Any) -> Any:
        for number, packet in enumerate(self._container.demux(*streams)):
            if number == 10:
                raise av.error.OSError(5, "Input/output error")
            yield packet


def test_a_source_that_cannot_be_read_to_its_end_costs_no_pictures(tmp_path: Path, monkeypatch) -> None:
    source, target = tmp_path / "a.mkv", tmp_path / "b.mkv"
    make_clip(source, "matroska", sound=Sound("aac"))
    segments, facts = make_segments(tmp_path, source, target)
    monkeypatch.setattr(joining, "_open_source", Scratched)
    warnings = join_segments(segments, source, target, facts)
    assert warnings == ["sound and the rest cannot be copied to their end: Input/output error"]
    assert len(read_packets(target, "audio").data) == 10
    assert len(read_packets(target).data) == 30


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_second_stream_of_pictures_is_copied(tmp_path: Path, suffix: str) -> None:
    source, target = tmp_path / "in.mkv", tmp_path / f"out{suffix}"
    make_clip(tmp_path / "one.mkv", "matroska", times=UNEVEN)
    with av.open(str(tmp_path / "one.mkv")) as one, av.open(str(source), "w", format="matroska") as two:
        old = one.streams.video[0]
        streams = [two.add_stream_from_template(old) for _ in range(2)]
        for packet in one.demux(old):
            for stream in streams if packet.size else ():
                packet.stream = stream
                two.mux(packet)
    assert read_packets(source, number=1).dts[0] is None  # FFmpeg cannot tell it
    assert join(tmp_path, source, target) == [
        "stream 1 (picture) is copied as it is; the first one is restored"
    ]
    copied, before = read_packets(target, number=1), read_packets(source, number=1)
    assert copied.data == before.data
    assert copied.seconds == before.seconds
