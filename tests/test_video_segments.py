"""Segments: what is encoded is what was given, at its times, the same to the byte each time."""

import itertools
import os
import sys
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import (
    FAST,
    HEIGHT,
    WIDTH,
    av,
    facts,
    make_clip,
    needs_ffmpeg,
    picture,
    psnr,
    read_packets,
    show_streams,
)
from file_limit import limited_files

from mambair_cli.errors import ImageError, VideoError
from mambair_cli.video import ClipFacts, SegmentWriter, VideoOptions, choose_options, open_clip, probe_clip
from mambair_cli.video.codecs import CODECS
from mambair_cli.video.colour import settle_tags
from mambair_cli.video.encoders import constant_quality
from mambair_cli.video.facts import MasteringDisplay
from mambair_cli.video.segments import SegmentReader, read_times

UNEVEN = [
    90000 + time for time in (0, 3003, 4000, 9000, 9500, 20000, 23003, 26006, 26010, 30000, 33003, 40000)
]
DEEP = {"bits": 10, "pixel_format": "yuv420p10le"}


def fast_options(clip: ClipFacts, target: str, codec: str, quality: int = 90) -> VideoOptions:
    size = (clip.width, clip.height)
    return choose_options(clip, Path(target), size=size, codec=codec, quality=quality, preset=FAST.get(codec))


def write(path: Path, clip: ClipFacts, options: VideoOptions, times: list[int] = UNEVEN) -> None:
    with SegmentWriter(path, clip, options) as writer:
        for number, (pts, after) in enumerate(itertools.pairwise([*times, times[-1] + 3003])):
            pixels = picture(number, (clip.width, clip.height), clip.has_alpha)
            writer.write(pixels, pts, after - pts)


CASES = [
    ("h264", ".mp4", {}, "yuv420p"),
    ("h264", ".mkv", DEEP, "yuv420p10le"),
    ("h264", ".mkv", {"chroma": (1, 1)}, "yuv444p"),
    ("hevc", ".mp4", {}, "yuv420p"),
    ("hevc", ".mov", DEEP, "yuv420p10le"),
    ("hevc", ".mkv", {"bits": 12}, "yuv420p12le"),
    ("av1", ".mp4", {}, "yuv420p"),
    ("av1", ".webm", DEEP, "yuv420p10le"),
    ("vp9", ".webm", {}, "yuv420p"),
    ("vp9", ".webm", {"has_alpha": True}, "yuva420p"),
    ("vp9", ".webm", {"width": 63, "height": 47}, "yuv420p"),
    ("av1", ".mp4", {"width": 65, "height": 67}, "yuv420p"),
    ("h264", ".mp4", {"width": 63, "height": 47}, "yuv444p"),
    ("ffv1", ".mkv", {"width": 63, "height": 47}, "yuv420p"),
    ("ffv1", ".mkv", {"bits": 10, "has_alpha": True}, "yuva420p10le"),
    ("ffv1", ".mkv", {"bits": 16, "colour": settle_tags(0, 1, 13, 2, is_rgb=True, size=(1, 1))}, "gbrp16le"),
    ("ffv1", ".mkv", {"colour": settle_tags(0, 1, 13, 2, is_rgb=True, size=(1, 1))}, "bgr0"),
    ("prores", ".mov", {"bits": 10}, "yuv422p10le"),
    ("prores", ".mov", {"bits": 10, "has_alpha": True}, "yuva444p10le"),
]


@pytest.mark.parametrize(("codec", "suffix", "changes", "pixel_format"), CASES)
def test_frames_come_back_with_their_times(
    codec: str, suffix: str, changes: dict[str, Any], pixel_format: str, tmp_path: Path
) -> None:
    clip = facts(**changes)
    options = fast_options(clip, f"a{suffix}", codec)
    assert options.pixel_format == pixel_format
    write(tmp_path / "a", clip, options)
    times = read_times(tmp_path / "a")
    assert sorted(times.pts) == UNEVEN
    assert (times.first, times.time_base) == (UNEVEN[0], clip.time_base)
    with open_clip(tmp_path / "a") as again:
        frames = list(again.frames())
        tags = again.facts.colour
        # FFmpeg's decoder of ProRes 4444 hands out 12 bits.
        assert again.facts.bits == (12 if pixel_format.startswith("yuva444") else options.layout.bits)
    assert len(frames) == len(UNEVEN)
    assert frames[0].pixels.shape == (clip.height, clip.width, 4 if clip.has_alpha else 3)
    # 35 dB is what little planes of chroma allow; frames in a wrong order have less than 25.
    assert (
        min(
            psnr(each.pixels, picture(each.number, (clip.width, clip.height), clip.has_alpha))
            for each in frames
        )
        > 33
    )
    if pixel_format in ("gbrp16le", "bgr0"):
        white = 255 if pixel_format == "bgr0" else 65535
        np.testing.assert_allclose(frames[3].pixels, picture(3), atol=0.501 / white)
        assert tags.matrix_name == "rgb"
    else:
        assert (tags.matrix, tags.range, "matrix" in tags.assumed) == (6, 1, False)


@pytest.mark.parametrize("codec", list(CODECS))
def test_a_segment_is_the_same_each_time_to_the_byte(codec: str, tmp_path: Path) -> None:
    clip = facts(width=320, height=240)
    suffix = {"ffv1": ".mkv", "prores": ".mov", "vp9": ".webm"}.get(codec, ".mp4")
    options = fast_options(clip, f"a{suffix}", codec)
    for name in ("a", "b"):
        write(tmp_path / name, clip, options)
    first, second = read_packets(tmp_path / "a"), read_packets(tmp_path / "b")
    assert first.data == second.data
    assert first.pts == second.pts


def test_a_segment_begins_with_a_frame_that_needs_no_other(tmp_path: Path) -> None:
    for codec in ("h264", "hevc", "av1", "vp9"):
        clip = facts()
        write(tmp_path / codec, clip, fast_options(clip, "a.mkv", codec))
        with open_clip(tmp_path / codec) as again:
            frames = list(again.frames())
        assert not any(frame.concealed for frame in frames)
        assert len(frames) == len(UNEVEN)


def test_the_shape_of_pixels_and_the_rotation_are_written(tmp_path: Path) -> None:
    matrix = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    clip = facts(pixel_aspect=Fraction(16, 15), display_matrix=matrix, rotation=-90)
    write(tmp_path / "a", clip, fast_options(clip, "a.mkv", "h264"))
    with open_clip(tmp_path / "a") as again:
        assert again.facts.pixel_aspect == Fraction(16, 15)
        assert again.facts.rotation == -90


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_hdr_metadata_is_written(codec: str, tmp_path: Path) -> None:
    def point(x: int, y: int) -> tuple[Fraction, Fraction]:
        return Fraction(x, 50000), Fraction(y, 50000)

    display = MasteringDisplay(
        point(34000, 16000),
        point(13250, 34500),
        point(7500, 3000),
        point(15635, 16450),
        luminance=(Fraction(1, 200), Fraction(1000)),
    )
    colour = settle_tags(9, 9, 16, 1, is_rgb=False, size=(64, 48))
    clip = facts(**DEEP, colour=colour, mastering=display, light_level=(1000, 400))
    write(tmp_path / "a", clip, fast_options(clip, "a.mkv", codec))
    with open_clip(tmp_path / "a") as again:
        assert again.facts.hdr == "HDR10"
        assert again.facts.colour == colour
        assert again.facts.light_level == (1000, 400)
        found = again.facts.mastering
    assert found is not None
    for name in ("red", "green", "blue", "white"):
        got, wanted = getattr(found, name), getattr(display, name)
        assert [float(value) for value in got] == pytest.approx([float(value) for value in wanted], abs=2e-5)
    assert found.luminance is not None
    assert [float(value) for value in found.luminance] == pytest.approx([0.005, 1000], rel=0.02)


@needs_ffmpeg
def test_the_program_ffprobe_reads_colours_and_shape(tmp_path: Path) -> None:
    colour = settle_tags(9, 9, 18, 1, is_rgb=False, size=(64, 48))
    clip = facts(**DEEP, colour=colour, pixel_aspect=Fraction(4, 3))
    write(tmp_path / "a.mkv", clip, fast_options(clip, "a.mkv", "hevc"))
    (stream,) = show_streams(tmp_path / "a.mkv")["streams"]
    assert stream["codec_name"] == "hevc"
    assert stream["pix_fmt"] == "yuv420p10le"
    assert stream["sample_aspect_ratio"] == "4:3"
    names = [stream[key] for key in ("color_range", "color_space", "color_transfer", "color_primaries")]
    assert names == ["tv", "bt2020nc", "arib-std-b67", "bt2020"]


def test_a_segment_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    clip = facts()
    options = fast_options(clip, "a.mp4", "h264")

    def fail() -> None:
        with SegmentWriter(tmp_path / "a", clip, options) as writer:
            writer.write(picture(0), 0, 3003)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(VideoError, match="it has no frames"), SegmentWriter(tmp_path / "a", clip, options):
        pass
    assert list(tmp_path.iterdir()) == []


def test_frames_out_of_order_are_a_bug(tmp_path: Path) -> None:
    clip = facts()
    with SegmentWriter(tmp_path / "a", clip, fast_options(clip, "a.mp4", "h264")) as writer:
        writer.write(picture(0), 10, 1)
        with pytest.raises(ValueError, match="10 is not after 10"):
            writer.write(picture(1), 10, 1)


def test_a_full_disk_is_reported_in_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    clip = facts(width=320, height=240)
    options = fast_options(clip, "a.mkv", "ffv1")
    with (
        limited_files(100_000),
        pytest.raises(ImageError, match="larger than files may be here") as caught,
    ):
        write(tmp_path / "a", clip, options)
    assert isinstance(caught.value.__cause__, OSError)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""  # PyAV prints what its calls from FFmpeg raise


@pytest.mark.parametrize(
    ("changes", "suffix", "codec", "pixel_format"),
    [
        ({}, ".mp4", "h264", "yuv420p"),
        ({}, ".mkv", "h264", "yuv420p"),
        ({}, ".mov", "h264", "yuv420p"),
        ({}, ".webm", "vp9", "yuv420p"),
        (DEEP, ".mp4", "hevc", "yuv420p10le"),
        (DEEP, ".mov", "hevc", "yuv420p10le"),
        (DEEP, ".webm", "av1", "yuv420p10le"),
        ({"bits": 12}, ".mp4", "hevc", "yuv420p12le"),
        ({"has_alpha": True}, ".mov", "prores", "yuva444p10le"),
        ({"has_alpha": True}, ".webm", "vp9", "yuva420p"),
        ({"has_alpha": True, "bits": 10}, ".mkv", "ffv1", "yuva420p10le"),
        ({"chroma": (1, 2)}, ".mp4", "h264", "yuv422p"),
        ({"chroma": (1, 4)}, ".mp4", "h264", "yuv422p"),
    ],
)
def test_the_usual_codec_follows_from_container_bits_and_alpha(
    changes: dict[str, Any], suffix: str, codec: str, pixel_format: str
) -> None:
    options = choose_options(facts(**changes), Path(f"a{suffix}"), size=(64, 48))
    assert (options.codec, options.pixel_format, options.notes) == (codec, pixel_format, ())


@pytest.mark.parametrize("order", ["tt", "bb"])
@pytest.mark.parametrize(("codec", "suffix"), [("h264", ".mp4"), ("ffv1", ".mkv"), ("prores", ".mov")])
def test_frames_of_two_fields_say_which_comes_first(
    order: str, codec: str, suffix: str, tmp_path: Path
) -> None:
    clip = facts(interlaced=True, field_order=order)
    options = fast_options(clip, f"a{suffix}", codec) if codec == "h264" else None
    options = options or choose_options(clip, Path(f"a{suffix}"), size=(64, 48), codec=codec)
    assert options.fields == {"tt": "tff", "bb": "bff"}[order]
    write(tmp_path / "a.mkv", clip, options)
    probed = probe_clip(tmp_path / "a.mkv")
    assert (probed.interlaced, probed.field_order) in ((True, order), (True, "unknown"))  # before PyAV 18
    assert sorted(read_times(tmp_path / "a.mkv").pts) == UNEVEN
    with open_clip(tmp_path / "a.mkv") as clip:
        assert all(psnr(frame.pixels, picture(frame.number)) > 32 for frame in clip.frames())


def test_fields_are_noted_only_where_they_are_known_and_fit() -> None:
    def fields(size: tuple[int, int], codec: str = "h264", **changes: Any) -> str:
        clip = facts(interlaced=True, width=64, height=size[1], **changes)
        return choose_options(clip, Path("a.mkv"), size=size, codec=codec).fields

    assert fields((64, 48), field_order="tt") == "tff"
    assert fields((64, 48), field_order="tb") == fields((64, 48)) == ""
    assert fields((128, 48), field_order="tt") == ""
    assert fields((64, 46), field_order="tt") == ""  # a field of 4:2:0 would have half a line of chroma
    assert fields((64, 48), "hevc", field_order="tt") == ""


def test_what_is_lost_is_noted() -> None:
    alpha = choose_options(facts(has_alpha=True), Path("a.mp4"), size=(64, 48))
    assert alpha.notes == ("h264 in .mp4 has no transparency; it is left out",)
    odd = choose_options(facts(), Path("a.mp4"), size=(63, 48))
    assert (odd.pixel_format, len(odd.notes)) == ("yuv444p", 1)
    display = MasteringDisplay(None, None, None, None, luminance=(Fraction(0), Fraction(1000)))
    pq = settle_tags(9, 9, 16, 1, is_rgb=False, size=(64, 48))
    graded = facts(**DEEP, colour=pq, mastering=display, dynamic_hdr=("HDR10+", "Dolby Vision"))
    kept = choose_options(graded, Path("a.mp4"), size=(64, 48), codec="hevc")
    stay = "HDR10+ and Dolby Vision metadata is left out; the colours stay"
    assert kept.notes == (stay,)
    lost = choose_options(graded, Path("a.mkv"), size=(64, 48), codec="ffv1")
    assert lost.notes[0] == "ffv1 does not tell the display that an HDR clip was graded on; it is left out"
    deep = choose_options(facts(bits=12), Path("a.mp4"), size=(64, 48), codec="av1")
    assert deep.notes == ("12 bits of a sample become 10 in av1; hevc keeps them",)


@pytest.mark.parametrize(
    ("changes", "target", "codec", "pixel_format", "note"),
    [
        (
            {"bits": 12, "has_alpha": True},
            "a.webm",
            None,
            "yuva420p",
            "12 bits of a sample become 8 in vp9; ffv1 in .mkv keeps them",
        ),
        ({"bits": 12, "has_alpha": True}, "a.mkv", None, "yuva420p16le", None),
        (
            {"bits": 10, "has_alpha": True},
            "a.mkv",
            "vp9",
            "yuva420p",
            "10 bits of a sample become 8 in vp9; ffv1 and prores keep them",
        ),
        (DEEP, "a.webm", "vp9", "yuv420p", "10 bits of a sample become 8 in vp9; av1 keeps them"),
        (
            DEEP,
            "a.mp4",
            "vp9",
            "yuv420p",
            "10 bits of a sample become 8 in vp9; h264, hevc and av1 keep them",
        ),
    ],
)
def test_a_codec_of_fewer_bits_is_used_where_it_must_be(
    changes: dict[str, Any], target: str, codec: str | None, pixel_format: str, note: str | None
) -> None:
    options = choose_options(facts(**changes), Path(target), size=(64, 48), codec=codec)
    assert (options.codec, options.pixel_format) == (codec or options.codec, pixel_format)
    assert options.notes == (() if note is None else (note,))


RGB = {
    "pixel_format": "gbrp",
    "chroma": (1, 1),
    "colour": settle_tags(0, 1, 13, 2, is_rgb=True, size=(64, 48)),
}


@pytest.mark.parametrize(
    ("changes", "target", "codec", "note"),
    [
        (
            RGB,
            "a.mkv",
            None,
            "RGB becomes 4:2:0 in h264, with fewer samples of colour; ffv1 and prores keep them",
        ),
        (RGB, "a.mov", "h264", "RGB becomes 4:2:0 in h264, with fewer samples of colour; prores keeps them"),
        (
            RGB,
            "a.mp4",
            None,
            "RGB becomes 4:2:0 in h264, with fewer samples of colour; ffv1 in .mkv keeps them",
        ),
        (RGB, "a.mkv", "ffv1", None),
        (RGB, "a.mov", "prores", None),
        (
            {"chroma": (1, 1)},
            "a.mp4",
            "av1",
            "4:4:4 becomes 4:2:0 in av1, with fewer samples of colour; h264, hevc and vp9 keep them",
        ),
        ({"chroma": (1, 1)}, "a.mp4", None, None),
        ({"chroma": (1, 4)}, "a.mp4", None, None),
        ({"pixel_format": "gray", "chroma": (1, 1)}, "a.mp4", None, None),
        ({"pixel_format": "monow", "chroma": (1, 1)}, "a.mp4", "av1", None),
        (RGB | {"container": "image2"}, "a.mp4", None, None),
        (RGB | {"container": "rawvideo"}, "a.mp4", None, None),
    ],
)
def test_fewer_samples_of_colour_are_noted(
    changes: dict[str, Any], target: str, codec: str | None, note: str | None
) -> None:
    options = choose_options(facts(**changes), Path(target), size=(64, 48), codec=codec)
    assert options.notes == (() if note is None else (note,))


def test_no_codec_is_named_that_the_container_does_not_hold() -> None:
    by_suffix = {
        suffix: choose_options(facts(), Path(f"a{suffix}"), size=(63, 48)).notes
        for suffix in (".mov", ".mkv")
    }
    odd = "the width or height is odd, so h264 stores 4:4:4, which some players cannot show; "
    assert by_suffix[".mkv"] == (
        f"{odd}--codec av1 stores 4:2:0, as do even sides, such as upscale --width sets",
    )
    assert by_suffix[".mov"] == (f"{odd}4:2:0 needs even sides, such as upscale --width sets",)
    assert choose_options(facts(), Path("a.mkv"), size=(63, 48), codec="av1").pixel_format == "yuv420p"


def test_what_dolby_vision_alone_says_of_colours_is_lost_with_it() -> None:
    clip = facts(**DEEP, dynamic_hdr=("Dolby Vision",))  # nothing else tells its colours
    options = choose_options(clip, Path("a.mp4"), size=(64, 48))
    assert options.notes[0].startswith("Dolby Vision metadata is left out; the colours may change")


@pytest.mark.parametrize(
    ("codec", "target", "size", "words"),
    [
        (
            "hevc",
            "a.mkv",
            (15, 64),
            "hevc takes no frames of 15×64 pixels; h264, av1, vp9, ffv1, prores work",
        ),
        ("hevc", "a.mov", (64, 1), "hevc takes no frames of 64×1 pixels; h264, prores work"),
        ("av1", "a.webm", (3, 5), "av1 takes no frames of 3×5 pixels; vp9 works"),
        ("av1", "a.webm", (64, 8706), "av1 takes no frames of 64×8706 pixels; vp9 works"),
        (None, "a.m4v", (16386, 64), "h264 takes no frames of 16386×64 pixels; hevc works"),
    ],
)
def test_sizes_that_an_encoder_does_not_take_are_refused(
    codec: str | None, target: str, size: tuple[int, int], words: str
) -> None:
    with pytest.raises(VideoError) as caught:
        choose_options(facts(), Path(target), size=size, codec=codec)
    assert words in str(caught.value)


@pytest.mark.parametrize("codec", CODECS)
def test_frames_of_the_least_size_are_encoded(codec: str, tmp_path: Path) -> None:
    side = CODECS[codec].least
    for size in ((side, side), (side, 64), (64, side)):
        for chroma in ((2, 2), (4, 4)):
            clip = facts(width=size[0], height=size[1], chroma=chroma)
            options = choose_options(clip, tmp_path / "a.mkv", size=size, codec=codec)
            options = replace(options, preset=FAST.get(codec, options.preset))
            with SegmentWriter(tmp_path / "a.mkv", clip, options) as writer:
                writer.write(picture(0, size), 0, 3003)
                writer.write(picture(1, size), 3003, 3003)
            assert len(read_times(tmp_path / "a.mkv").pts) == 2


@pytest.mark.parametrize(
    ("target", "choice", "words"),
    [
        ("a.avi", {}, "a clip cannot be written as .avi; .mp4, .m4v, .mov, .mkv, .webm work"),
        ("a.webm", {"codec": "h264"}, "no place for the codec h264; vp9, av1 work"),
        ("a.mp4", {"quality": 0}, "the quality is 0; 1 to 100 works"),
        ("a.mkv", {"codec": "ffv1", "preset": "fast"}, "ffv1 has no presets; leave it out"),
    ],
)
def test_impossible_wishes_are_refused_in_a_line(target: str, choice: dict[str, Any], words: str) -> None:
    with pytest.raises(VideoError) as caught:
        choose_options(facts(**DEEP), Path(target), size=(64, 48), **choice)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_preset_that_no_encoder_knows_is_refused_in_a_line(tmp_path: Path) -> None:
    options = replace(fast_options(facts(), "a.mp4", "h264"), preset="warp")
    with pytest.raises(VideoError, match="another codec, preset or container may work"):
        write(tmp_path / "a", facts(), options)


def test_quality_rises_with_its_number() -> None:
    assert [constant_quality("h264", each) for each in (25, 50, 75, 85, 95, 100)] == [41, 30, 18, 12, 5, 1]
    assert [constant_quality("hevc", each) for each in (25, 50, 75, 85, 95, 100)] == [43, 32, 20, 14, 7, 3]
    assert [constant_quality("av1", each) for each in (25, 50, 75, 85, 95, 100)] == [51, 37, 22, 15, 7, 1]
    for codec in CODECS:
        numbers = [constant_quality(codec, each) for each in range(1, 101)]
        assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
def test_short_segments_are_whole(codec: str, tmp_path: Path) -> None:
    clip = facts()
    options = fast_options(clip, "a.mkv", codec)
    for length in (1, 2, 3, 4):
        write(tmp_path / "a", clip, options, UNEVEN[:length])
        assert sorted(read_times(tmp_path / "a").pts) == UNEVEN[:length]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the open files of a process")
@pytest.mark.parametrize("tags", [{}, {"MAMBAIR_TIME_BASE": "soon", "MAMBAIR_FIRST_PTS": "0"}])
def test_a_clip_that_is_no_segment_is_closed_again(tags: dict[str, str], tmp_path: Path) -> None:
    make_clip(tmp_path / "plain.mkv", "matroska", times=[0, 3003])
    with av.open(str(tmp_path / "plain.mkv")) as plain, av.open(str(tmp_path / "a.mkv"), "w") as made:
        made.metadata.update(tags)
        stream = made.add_stream_from_template(plain.streams.video[0])
        for packet in plain.demux(video=0):
            if packet.size:
                packet.stream = stream
                made.mux(packet)
    with pytest.raises(VideoError, match=r"cannot read the segment .*: it is no segment") as caught:
        SegmentReader(tmp_path / "a.mkv")
    opened = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]
    assert caught.value is not None  # its traceback keeps what was not closed
    assert str((tmp_path / "a.mkv").resolve()) not in opened


def test_a_segment_that_is_given_up_is_closed(tmp_path: Path) -> None:
    options = choose_options(facts(), tmp_path / "a.mkv", size=(WIDTH, HEIGHT), codec="ffv1")
    writer, closed = SegmentWriter(tmp_path / "a.mkv", facts(), options), []
    with suppress(KeyError), writer:
        writer.write(picture(0), 0, 3003)
        container = writer._container

        class Watched:
            def close(self) -> None:
                closed.append(True)
                container.close()

        writer._container = Watched()
        raise KeyError
    assert closed == [True]
    assert list(tmp_path.iterdir()) == []
