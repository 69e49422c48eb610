"""Clips that tests make, and other tools that read them back."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mambair_cli.runs import clip_writers
from mambair_cli.system.priority import kept_priority
from mambair_cli.video import ClipFacts, SegmentWriter, choose_options, open_clip
from mambair_cli.video.colour import settle_tags

av = pytest.importorskip("av", reason="needs the extra video")

WIDTH, HEIGHT = 64, 48
NTSC = Fraction(30000, 1001)
TICKS = Fraction(1, 90000)
FAST = {"h264": "ultrafast", "hevc": "ultrafast", "av1": "10", "vp9": "8"}

needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="needs the programs ffmpeg and ffprobe"
)


def picture(number: int, size: tuple[int, int] = (WIDTH, HEIGHT), alpha: bool = False) -> np.ndarray:
    """Return a smooth picture that differs from number to number, (h, w, 3 or 4) float32 in [0, 1]."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]] / max(size)
    bands = [0.1 + 0.8 * x, 0.1 + 0.8 * y, 0.5 + 0.4 * np.sin(6 * x + number / 3)]
    return np.stack([*bands, x] if alpha else bands, axis=2).astype(np.float32)


def facts(**changes: Any) -> ClipFacts:
    """Return facts of a plain clip: 64x48, 8 bits, 4:2:0, NTSC's rate in ticks of 1/90000 s."""
    plain = ClipFacts(
        container="",
        streams=(),
        codec="",
        width=WIDTH,
        height=HEIGHT,
        pixel_format="yuv420p",
        bits=8,
        chroma=(2, 2),
        siting="left",
        has_alpha=False,
        colour=settle_tags(2, 2, 2, 0, is_rgb=False, size=(WIDTH, HEIGHT)),
        time_base=TICKS,
        frame_rate=NTSC,
    )
    return replace(plain, **changes)


@dataclass(frozen=True)
class Sound:
    """Sound of a clip: its codec, and the second at which it begins."""

    codec: str = "aac"
    start: float = 0.0


def make_clip(
    path: Path,
    format: str,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: Sequence[int] = tuple(3003 * number for number in range(30)),
    options: dict[str, str] | None = None,
    sound: Sound | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    rotation: int = 0,
    **context: Any,
) -> None:
    """Write a clip with PyAV alone, not by the code under test.

    Args:
        path: The file.
        format: FFmpeg's name of the container.
        codec: FFmpeg's encoder.
        pix_fmt: Its pixel format; pictures are converted by FFmpeg.
        times: Times of frames, in 1/90000 s.
        options: Options of the encoder; by default x264's fastest with two B-frames.
        sound: Its sound.
        size: Width and height.
        rotation: Degrees by which players turn it, counter-clockwise.
        context: Attributes of the encoder.
    """
    if options is None:
        options = {"preset": "ultrafast", "bf": "2", "crf": "10"} if codec == "libx264" else {}
    with kept_priority(), av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=NTSC, options=options, time_base=TICKS)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        container.metadata["title"] = "A title"
        voice = container.add_stream(sound.codec, rate=48000) if sound else None
        if voice is not None:
            voice.metadata["language"] = "deu"
        for number, pts in enumerate(times):
            samples = np.rint(picture(number, size, "a" in pix_fmt.removeprefix("yuv")[:2]) * 255)
            has_alpha = samples.shape[2] == 4
            frame = av.VideoFrame.from_ndarray(samples.astype(np.uint8), "rgba" if has_alpha else "rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base, frame.duration = pts, TICKS, 3003
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice is not None and sound is not None:
            _add_sound(container, voice, sound)


def _add_sound(container: Any, voice: Any, sound: Sound) -> None:
    length = 960 if "opus" in sound.codec else 1024
    for start in range(0, 48000 - length, length):
        wave = np.sin(2 * np.pi * 440 * np.arange(start, start + length) / 48000)
        if sound.codec.startswith("pcm"):
            samples = np.rint(np.repeat(wave, 2) * 30000).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        else:
            samples = np.stack([wave, wave]).astype(np.float32)
            if voice.format.is_planar:
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
            else:
                packed = np.ascontiguousarray(samples.T.reshape(1, -1))
                frame = av.AudioFrame.from_ndarray(packed, format="flt", layout="stereo")
        frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
        frame.pts = start + round(sound.start * 48000)
        container.mux(voice.encode(frame))
    container.mux(voice.encode(None))


def make_segments(
    folder: Path, source: Path, target: Path, length: int = 11, **choice: Any
) -> tuple[list[Path], ClipFacts]:
    """Encode the frames of a clip again, unchanged, in segments; return their files and the clip's facts."""
    segments = []
    with open_clip(source) as clip:
        size = (clip.facts.width, clip.facts.height)
        options = choose_options(clip.facts, target, size=size, **choice)
        if options.codec in FAST:
            options = replace(options, preset=FAST[options.codec])
        frames = list(clip.frames())
        for start in range(0, len(frames), length):
            path = folder / f"segment-{start:03}.mkv"
            with SegmentWriter(path, clip.facts, options) as writer:
                for frame in frames[start : start + length]:
                    writer.write(frame.pixels, frame.pts, frame.duration)
            segments.append(path)
        return segments, clip.facts


@dataclass(frozen=True)
class Packets:
    """Packets of one stream as PyAV reads them."""

    time_base: Fraction
    pts: list[int]
    dts: list[int | None]
    durations: list[int]
    data: list[bytes]

    @property
    def seconds(self) -> list[Fraction]:
        return [pts * self.time_base for pts in self.pts]


def read_packets(path: Path, kind: str = "video", number: int = 0) -> Packets:
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[number]
        packets = [packet for packet in container.demux(stream) if packet.size]
        return Packets(
            stream.time_base,
            [packet.pts for packet in packets],
            [packet.dts for packet in packets],
            [packet.duration for packet in packets],
            [bytes(packet) for packet in packets],
        )


def show_streams(path: Path, *more: str) -> dict[str, Any]:
    """Return what the program ffprobe tells of a file, which is another build of FFmpeg than PyAV's."""
    command = ["ffprobe", "-v", "error", "-show_streams", "-show_format", "-show_chapters", *more]
    done = subprocess.run([*command, "-of", "json", str(path)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((first.astype(np.float64) - second) ** 2) + 1e-12))


class StopError(Exception):
    """Stands for what ends a run at any moment."""


@contextmanager
def stopping_after(frames: int) -> Iterator[None]:
    """End the run in the block once it has written so many frames, to a clip or as images."""
    left = iter(range(frames))

    def counted(do: Callable[..., Any]) -> Callable[..., Any]:
        def one(*arguments: Any, **named: Any) -> Any:
            if next(left, None) is None:
                raise StopError
            return do(*arguments, **named)

        return one

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentWriter, "encode", counted(SegmentWriter.encode))
        patch.setattr(clip_writers, "write_frame", counted(clip_writers.write_frame))
        with pytest.raises(StopError):
            yield
