"""Colours of clips: read as the formulas say, and written back as they were."""

import io
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from clips import FAST, av, facts, make_clip, needs_ffmpeg, picture, psnr

from mambair_cli.video import SegmentWriter, choose_options, open_clip
from mambair_cli.video.chroma import SITINGS, enlarge, reduce
from mambair_cli.video.colour import explain_matrix, matrix_to_rgb, settle_tags
from mambair_cli.video.pixels import frame_to_rgb, layout_of, reformat, rgb_to_frame
from mambair_cli.video.siting import _try_frame


class Matrix(NamedTuple):
    """A matrix by its number in H.273, its names in FFmpeg, and its weights of red and blue."""

    number: int
    name: str
    option: str
    red: float
    blue: float


MATRICES = [
    Matrix(6, "smpte170m", "bt601", 0.299, 0.114),
    Matrix(1, "bt709", "bt709", 0.2126, 0.0722),
    Matrix(9, "bt2020nc", "bt2020", 0.2627, 0.0593),
]
RANGES = [(1, "tv"), (2, "pc")]
SIDE = 16  # of a patch, so that its middle is free of its neighbours' chroma
PATCHES = [
    *((0.9, 0.2, 0.2), (0.2, 0.8, 0.3), (0.1, 0.2, 0.9), (0.5, 0.5, 0.5)),
    *((0.95, 0.9, 0.1), (0.3, 0.1, 0.6), (0.05, 0.05, 0.05), (0.97, 0.97, 0.97)),
    *((0.7, 0.45, 0.35), (0.2, 0.6, 0.7), (0.8, 0.1, 0.7), (0.4, 0.7, 0.1)),
]
MIDDLES = (slice(SIDE // 2, None, SIDE), slice(SIDE // 2, None, SIDE))


def patches_as_stored(red: float, blue: float, range: int, bits: int) -> list[np.ndarray]:
    """Return luma and chroma of the patches, 3x4 of them, in stored numbers, by the definition."""
    rgb = np.array(PATCHES).reshape(3, 4, 3).repeat(SIDE, 0).repeat(SIDE, 1)
    y = red * rgb[..., 0] + (1 - red - blue) * rgb[..., 1] + blue * rgb[..., 2]
    cb, cr = (rgb[..., 2] - y) / (2 - 2 * blue), (rgb[..., 0] - y) / (2 - 2 * red)
    if range == 1:
        step = 2 ** (bits - 8)
        planes = [(16 + 219 * y) * step, (128 + 224 * cb) * step, (128 + 224 * cr) * step]
    else:
        white, middle = 2**bits - 1, 2 ** (bits - 1)
        planes = [y * white, cb * white + middle, cr * white + middle]
    return [np.rint(plane) for plane in planes]


def rgb_of_stored(planes: list[np.ndarray], red: float, blue: float, range: int, bits: int) -> np.ndarray:
    """Return what stored luma and chroma mean, by the definition."""
    y, cb, cr = planes
    if range == 1:
        step = 2 ** (bits - 8)
        y, cb, cr = (y / step - 16) / 219, (cb / step - 128) / 224, (cr / step - 128) / 224
    else:
        white, middle = 2**bits - 1, 2 ** (bits - 1)
        y, cb, cr = y / white, (cb - middle) / white, (cr - middle) / white
    r, b = y + (2 - 2 * red) * cr, y + (2 - 2 * blue) * cb
    return np.clip(np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], axis=2), 0, 1)


def write_stored(path: Path, planes: list[np.ndarray], pix_fmt: str, matrix: int, range: int) -> None:
    """Write one frame of stored numbers, without a loss; chroma is subsampled by leaving samples out."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pix_fmt)
    dtype = np.dtype("<u2" if pix_fmt.endswith("le") else "u1")
    for plane, samples in zip(frame.planes, planes, strict=True):
        down, right = height // plane.height, width // plane.width
        lines = np.frombuffer(plane, dtype).reshape(plane.height, -1)
        lines[:, : plane.width] = samples[::down, ::right]
    frame.pts = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, range
        container.mux([*stream.encode(frame), *stream.encode(None)])


def stored_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        dtype = np.dtype("<u2" if frame.format.name.endswith("le") else "u1")
        lines = [np.frombuffer(plane, dtype).reshape(plane.height, -1) for plane in frame.planes]
        return [each[:, : plane.width].astype(int) for each, plane in zip(lines, frame.planes, strict=True)]


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize(("range", "range_name"), RANGES)
@pytest.mark.parametrize("matrix", MATRICES, ids=lambda matrix: matrix.name)
class TestPatches:
    def test_colours_are_those_of_the_formula_and_come_back_as_stored(
        self, matrix: Matrix, range: int, range_name: str, bits: int, tmp_path: Path
    ) -> None:
        planes = patches_as_stored(matrix.red, matrix.blue, range, bits)
        truth = rgb_of_stored(planes, matrix.red, matrix.blue, range, bits)
        suffix = "" if bits == 8 else "10le"
        for chroma in ("444", "422", "420"):
            source, again = tmp_path / f"{chroma}.mkv", tmp_path / f"{chroma}-again.mkv"
            write_stored(source, planes, f"yuv{chroma}p{suffix}", matrix.number, range)
            with open_clip(source) as clip:
                assert (clip.facts.colour.matrix, clip.facts.colour.range) == (matrix.number, range)
                assert clip.facts.colour.matrix_name == matrix.name
                assert (clip.facts.bits, clip.facts.colour.assumed) == (bits, ())
                (frame,) = clip.frames()
                options = choose_options(clip.facts, again, size=(64, 48), codec="ffv1")
                with SegmentWriter(again, clip.facts, options) as writer:
                    writer.write(frame.pixels, frame.pts, frame.duration)
            assert frame.pixels.dtype == np.float32
            np.testing.assert_allclose(frame.pixels[MIDDLES], truth[MIDDLES], atol=2e-6)
            for before, after in zip(stored_of(source), stored_of(again), strict=True):
                middles = slice(4, None, 8) if before.shape[1] < 64 else slice(8, None, 16)
                lines = slice(4, None, 8) if before.shape[0] < 48 else slice(8, None, 16)
                np.testing.assert_array_equal(after[lines, middles], before[lines, middles])
            if chroma == "444":
                np.testing.assert_allclose(frame.pixels, truth, atol=2e-6)

    @needs_ffmpeg
    def test_the_program_ffmpeg_sees_the_same_colours(
        self, matrix: Matrix, range: int, range_name: str, bits: int, tmp_path: Path
    ) -> None:
        planes = patches_as_stored(matrix.red, matrix.blue, range, bits)
        source, again = tmp_path / "a.mkv", tmp_path / "b.mkv"
        write_stored(source, planes, "yuv420p" if bits == 8 else "yuv420p10le", matrix.number, range)
        with open_clip(source) as clip:
            (frame,) = clip.frames()
            options = choose_options(clip.facts, again, size=(64, 48), codec="ffv1")
            with SegmentWriter(again, clip.facts, options) as writer:
                writer.write(frame.pixels, frame.pts, frame.duration)
        for path in (source, again):
            flags = "accurate_rnd+full_chroma_int+full_chroma_inp+bicubic"
            scale = f"scale=in_color_matrix={matrix.option}:in_range={range_name}:flags={flags}"
            command = [
                "ffmpeg",
                "-v",
                "error",
                "-i",
                str(path),
                "-vf",
                f"{scale}:sws_dither=none",
                "-pix_fmt",
                "rgb48le",
            ]
            data = subprocess.run([*command, "-f", "rawvideo", "-"], capture_output=True, check=True).stdout
            seen = np.frombuffer(data, "<u2").reshape(48, 64, 3) / 65535
            # FFmpeg computes with chroma of 8 bits or little more; formulas, above, are the sharper test.
            np.testing.assert_allclose(frame.pixels[MIDDLES], seen[MIDDLES], atol=1.5 / 255)


def test_clips_that_say_nothing_are_taken_as_players_take_them() -> None:
    def settle(size: tuple[int, int], primaries: int = 2, transfer: int = 2) -> tuple[str, int]:
        tags = settle_tags(2, primaries, transfer, 0, is_rgb=False, size=size)
        assert tags.assumed == ("matrix", "range")
        return tags.matrix_name, tags.range

    assert settle((720, 576)) == ("smpte170m", 1)
    assert settle((1280, 720)) == ("bt709", 1)
    assert settle((1920, 1080)) == ("bt709", 1)
    assert settle((3840, 2160), transfer=16) == ("bt2020nc", 1)
    assert settle((3840, 2160), primaries=9) == ("bt2020nc", 1)
    assert settle_tags(2, 1, 13, 1, is_rgb=True, size=(8, 8)).range == 2


@pytest.mark.parametrize("matrix", [1, 4, 5, 6, 7, 8, 9])
def test_every_matrix_leaves_gray_gray_and_white_white(matrix: int) -> None:
    np.testing.assert_allclose(matrix_to_rgb(matrix) @ [0.7, 0, 0], [0.7] * 3, atol=1e-12)
    assert np.linalg.cond(matrix_to_rgb(matrix)) < 10


def test_ten_bits_keep_all_their_levels(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(64, 64 + 864, dtype=float), (16, 1))
    grey = np.full_like(ramp, 512)
    write_stored(tmp_path / "a.mkv", [ramp, grey, grey], "yuv420p10le", 1, 1)
    with open_clip(tmp_path / "a.mkv") as clip:
        (frame,) = clip.frames()
        options = choose_options(clip.facts, tmp_path / "b.mkv", size=(864, 16), codec="ffv1")
        with SegmentWriter(tmp_path / "b.mkv", clip.facts, options) as writer:
            writer.write(frame.pixels, 0, 1)
    assert len(np.unique(frame.pixels[..., 0])) == 864
    np.testing.assert_array_equal(stored_of(tmp_path / "b.mkv")[0], ramp)


@pytest.mark.parametrize("siting", SITINGS)
@pytest.mark.parametrize("factors", [(2, 2), (1, 2), (2, 1), (1, 4), (4, 4)])
def test_chroma_lies_where_its_siting_says(siting: str, factors: tuple[int, int]) -> None:
    down = 0 if siting == "topleft" else (factors[0] - 1) / 2
    right = (factors[1] - 1) / 2 if siting == "centre" else 0
    y, x = np.mgrid[0:12, 0:16].astype(np.float32)
    sparse = y * factors[0] + down + 3 * (x * factors[1] + right)  # a slope, sampled where chroma lies
    # Where there are blocks, the last one is cut off, as in odd sizes.
    height, width = (n * f - (f > 1) for n, f in zip((12, 16), factors, strict=True))
    full_y, full_x = np.mgrid[0:height, 0:width].astype(np.float32)
    slope = full_y + 3 * full_x
    inner = tuple(slice(3 * factor, -3 * factor) for factor in factors)
    large = enlarge(sparse, factors, siting, (height, width))
    assert large.shape == (height, width)
    np.testing.assert_allclose(large[inner], slope[inner], atol=1e-4)
    small = reduce(slope, factors, siting)
    assert small.shape == (12, 16)
    np.testing.assert_allclose(small[3:-3, 3:-3], sparse[3:-3, 3:-3], atol=1e-4)


@pytest.mark.parametrize("siting", SITINGS)
@pytest.mark.parametrize("factors", [(2, 2), (1, 2), (2, 1), (1, 4), (4, 4)])
def test_chroma_that_was_enlarged_is_reduced_to_itself(siting: str, factors: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for size in ((120, 64), (119, 131), (117, 65), (3, 5), (1, 1)):
        small = [-(-side // factor) for side, factor in zip(size, factors, strict=True)]
        plane = random.random(small, np.float32) - np.float32(0.5)
        again = reduce(enlarge(plane, factors, siting, size), factors, siting, inverts=True)
        np.testing.assert_allclose(again, plane, atol=3e-4)  # a twelfth of a step of 8 bits
    flat = np.full((30, 40), 0.25, np.float32)
    np.testing.assert_allclose(reduce(flat, factors, siting, inverts=True), 0.25, atol=1e-6)


def test_chroma_stays_as_sharp_as_it_is(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    soft = [np.kron(random.integers(100, 130, (12, 16)), np.ones((2, 2), np.uint8)) for _ in range(2)]
    stored = [np.full((48, 64), 110), *soft]
    write_stored(
        tmp_path / "0.mkv", [stored[0], *(np.kron(plane, np.ones((2, 2))) for plane in soft)], "yuv420p", 1, 1
    )
    for number in range(3):
        with open_clip(tmp_path / f"{number}.mkv") as clip:
            (frame,) = clip.frames()
            target = tmp_path / f"{number + 1}.mkv"
            options = choose_options(clip.facts, target, size=(64, 48), codec="ffv1")
            with SegmentWriter(target, clip.facts, options) as writer:
                writer.write(frame.pixels, 0, 1)
    for before, after in zip(stored, stored_of(tmp_path / "3.mkv"), strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("name", ["yuv420p", "nv12", "yuyv422", "yuv420p10le"])
@pytest.mark.parametrize("matrix", [0, *range(3, 16)])
def test_frames_of_every_matrix_are_read(name: str, matrix: int) -> None:
    frame = av.VideoFrame.from_ndarray(np.full((50, 64, 3), 90, np.uint8), "rgb24").reformat(format=name)
    frame.colorspace = matrix
    tags = settle_tags(matrix, 2, 2, 1, is_rgb=False, size=(64, 50))
    assert _try_frame(frame) in ("left", "centre", None)
    assert frame.colorspace == matrix
    pixels = frame_to_rgb(reformat(frame, width=64, height=48), tags, "left")
    assert pixels.shape == (48, 64, 3)
    explanation = explain_matrix(matrix, tags)
    assert (explanation is not None) is (matrix >= 10)


def test_a_matrix_that_another_stands_for_is_reported(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mkv", "matroska", times=[0, 3003], colorspace=10, color_primaries=9)
    with open_clip(tmp_path / "a.mkv") as clip:
        assert len(list(clip.frames())) == 2
        assert clip.facts.colour.matrix_name == "bt2020nc"
        (warning,) = clip.warnings
    assert "colours by the matrix bt2020c cannot be computed; bt2020nc is taken for it and written" in warning


@pytest.mark.parametrize(
    ("name", "bits", "alpha"),
    [
        *(("nv12", 8, False), ("p010le", 10, False), ("yuyv422", 8, False), ("yuv411p", 8, False)),
        *(("yuvj420p", 8, False), ("yuv420p12le", 12, False), ("yuv444p16le", 16, False)),
        *(("rgb24", 8, False), ("bgra", 8, True), ("gbrp10le", 10, False), ("gbrap12le", 12, True)),
        *(("rgb48le", 16, False), ("rgba64be", 16, True), ("yuva420p", 8, True), ("yuva444p10le", 10, True)),
        *(("yuv420p10be", 10, False), ("ayuv64le", 16, True), ("x2rgb10le", 10, False)),
    ],
)
def test_layouts_of_every_kind_hold_a_picture(name: str, bits: int, alpha: bool) -> None:
    layout = layout_of(name)
    assert (layout.bits, layout.has_alpha) == (bits, alpha)
    range = 2 if "yuvj" in name else 1
    tags = settle_tags(1, 1, 1, range, is_rgb=layout.is_rgb, size=(64, 48))
    pixels = picture(1, alpha=alpha)
    stored = rgb_to_frame(pixels, layout, tags, "left")
    # To the format itself and back, which FFmpeg does by moving bits only.
    frame = stored if layout.name == name or "yuvj" in name else stored.reformat(format=name)
    back = frame_to_rgb(frame, tags, "left")
    assert back.shape == pixels.shape
    assert psnr(back, pixels) > (58 if bits > 8 and layout.factors == (1, 1) else 40)
    if alpha:
        np.testing.assert_allclose(back[..., 3], pixels[..., 3], atol=0.51 / (2**bits - 1))


def test_samples_outside_the_range_are_clipped() -> None:
    pixels = np.full((4, 4, 3), 1.5, np.float32)
    pixels[:2] = -0.5
    tags = settle_tags(1, 1, 1, 1, is_rgb=False, size=(4, 4))
    frame = rgb_to_frame(pixels, layout_of("yuv420p"), tags, "left")
    luma = np.frombuffer(frame.planes[0], np.uint8).reshape(4, -1)[:, :4]
    assert luma[0, 0] == 16
    assert luma[3, 3] == 235


def test_gray_clips_are_gray(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mkv", "matroska", codec="ffv1", pix_fmt="gray", times=[0])
    with open_clip(tmp_path / "a.mkv") as clip:
        (frame,) = clip.frames()
        options = choose_options(clip.facts, Path("b.mkv"), size=(64, 48), codec="ffv1")
        usual = [choose_options(clip.facts, Path(name), size=(64, 48)) for name in ("b.mkv", "b.webm")]
    assert frame.pixels.shape == (48, 64, 3)
    assert np.ptp(frame.pixels, axis=2).max() == 0
    assert options.pixel_format == "gray"
    assert [each.pixel_format for each in usual] == ["yuv420p", "yuv420p"]  # which every player shows


def test_wide_gamut_and_transfer_are_kept_as_numbers(tmp_path: Path) -> None:
    colour = settle_tags(9, 9, 16, 1, is_rgb=False, size=(64, 48))
    clip_facts = facts(bits=10, pixel_format="yuv420p10le", colour=colour, frame_rate=Fraction(25))
    options = choose_options(clip_facts, Path("a.mkv"), size=(64, 48), preset="ultrafast")
    assert options.codec == "hevc"
    with SegmentWriter(tmp_path / "a.mkv", clip_facts, options) as writer:
        writer.write(np.full((48, 64, 3), 0.5, np.float32), 0, 3600)
    with open_clip(tmp_path / "a.mkv") as clip:
        assert clip.facts.colour == colour
        assert clip.facts.hdr == "HDR10"


@pytest.mark.parametrize("container", ["mkv", "mp4"])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize(("number", "siting"), [(None, "left"), (0, "left"), (1, "centre"), (2, "topleft")])
def test_the_place_of_chroma_is_read_and_the_frame_is_not_changed(
    number: int | None, siting: str, pix_fmt: str, container: str, tmp_path: Path
) -> None:
    params = "" if number is None else f"chromaloc={number}"
    options = {"preset": "ultrafast", "crf": "1", "x264-params": params}
    path = tmp_path / f"a.{container}"
    make_clip(
        path, {"mkv": "matroska"}.get(container, container), pix_fmt=pix_fmt, times=[0], options=options
    )
    stream = io.BytesIO(path.read_bytes())
    with open_clip(path) as clip, open_clip(stream) as pipe:
        assert clip.facts.siting == pipe.facts.siting == siting
        (frame,), (same,) = clip.frames(), pipe.frames()
    np.testing.assert_array_equal(frame.pixels, same.pixels)
    assert psnr(frame.pixels, picture(0)) > 35


@pytest.mark.parametrize("codec", ["ffv1", "libvpx-vp9"])
@pytest.mark.parametrize("size", [(64, 48), (32, 32)])
@pytest.mark.parametrize(("place", "siting"), [(None, "left"), ("center", "centre"), ("topleft", "topleft")])
def test_the_place_that_only_the_container_names_is_taken(
    place: str | None, siting: str, size: tuple[int, int], codec: str, tmp_path: Path
) -> None:
    options = {"chroma_sample_location": place} if place else {}
    make_clip(tmp_path / "a.mkv", "matroska", codec=codec, times=[0], options=options, size=size)
    with open_clip(tmp_path / "a.mkv") as clip:
        assert clip.facts.siting == siting


def test_a_decoder_that_knows_the_place_overrules_the_container(tmp_path: Path) -> None:
    path, options = tmp_path / "a.mkv", {"chroma_sample_location": "topleft"}
    make_clip(path, "matroska", codec="mjpeg", pix_fmt="yuvj420p", times=[0], options=options)
    with open_clip(path) as clip:
        assert clip.facts.siting == "centre"


@pytest.mark.parametrize(("codec", "target"), [("h264", "b.mp4"), ("hevc", "b.mkv"), ("av1", "b.webm")])
def test_chroma_in_the_corner_stays_there(codec: str, target: str, tmp_path: Path) -> None:
    clip_facts = facts(siting="topleft")
    options = choose_options(clip_facts, Path(target), size=(64, 48), codec=codec, preset=FAST[codec])
    with SegmentWriter(tmp_path / "a", clip_facts, options) as writer:
        writer.write(picture(0), 0, 1)
    with open_clip(tmp_path / "a") as clip:
        assert clip.facts.siting == options.siting == "topleft"


@pytest.mark.parametrize(("codec", "target"), [("vp9", "b.webm"), ("ffv1", "b.mkv"), ("av1", "b.mp4")])
def test_chroma_lies_left_where_a_codec_does_not_say(codec: str, target: str, tmp_path: Path) -> None:
    options = choose_options(facts(), Path(target), size=(64, 48), codec=codec, preset=FAST.get(codec))
    with SegmentWriter(tmp_path / "a", facts(), options) as writer:
        writer.write(picture(0), 0, 1)
    with open_clip(tmp_path / "a") as clip:
        assert clip.facts.siting == "left"
