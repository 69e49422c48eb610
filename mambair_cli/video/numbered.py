"""Clips that are numbered images: ``frames/%06d.png``, or a folder of them."""

import re
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np

from mambair_cli.errors import ImageError, VideoError
from mambair_cli.images import READABLE_SUFFIXES, Picture, from_float, read_picture, to_float, write_picture
from mambair_cli.images.formats import NUMBER
from mambair_cli.system.files import is_special
from mambair_cli.system.wording import show
from mambair_cli.video.codecs import CONTAINERS
from mambair_cli.video.colour import FULL, RGB, ColourTags
from mambair_cli.video.facts import ClipFacts, StreamFacts
from mambair_cli.video.frames import FrameMark, VideoFrame, changed

_BT709_PRIMARIES, _SRGB_TRANSFER = 1, 13


def is_pattern(path: Path) -> bool:
    """Tell whether a path stands for numbered images: ``frames/%06d.png`` does, ``50%day.mp4`` does not."""
    return len(NUMBER.findall(path.name)) == 1 and path.suffix.lower() not in CONTAINERS


def name_frame(pattern: Path, number: int) -> Path:
    """Return the name of a frame's file; names begin with 1 as those of FFmpeg, numbers of frames with 0."""
    return pattern.with_name(NUMBER.sub(lambda part: part.group() % (number + 1), pattern.name))


def write_frame(
    pattern: Path,
    number: int,
    pixels: np.ndarray,
    *,
    bits: int = 8,
    quality: int | None = None,
    overwrite: bool = False,
    temporary: Path | None = None,
) -> Path:
    """Write a frame to an image file, and return its name.

    Args:
        pattern: Such as ``frames/%06d.png``; the suffix names the format.
        number: Number of the frame, from 0.
        pixels: (h, w, 3 or 4) R'G'B' with or without straight alpha, float32 in [0, 1].
        bits: Bits of a sample in the clip; more than 8 become 16 where the format has them.
        quality: Quality, 1 to 100, of formats that have one; None for that of images.
        overwrite: Whether to replace an existing file.
        temporary: Its name while it is written, on the same disk; None for one next to it.

    Raises:
        ImageError: The file cannot be written.
    """
    samples = from_float(pixels, np.uint8 if bits == 8 else np.uint16)
    alpha = np.ascontiguousarray(samples[..., 3]) if samples.shape[2] == 4 else None
    target = name_frame(pattern, number)
    picture = Picture(np.ascontiguousarray(samples[..., :3]), alpha)
    write_picture(picture, target, overwrite=overwrite, quality=quality, temporary=temporary)
    return target


class NumberedFrames:
    """Numbered images as a clip; the parts of :class:`mambair_cli.video.clip.Clip`.

    Colours are taken as they are stored, without the images' profiles.

    Args:
        path: A folder, or a pattern such as ``frames/%06d.png``.
        rate: Frames a second.

    Attributes:
        facts: What the clip is.
        warnings: Sentences about what was damaged, which grow while frames are read.

    Raises:
        VideoError: There are no such images.
        ImageError: The first one cannot be read.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.warnings: list[str] = []
        self._name = show(path)
        self._files = find_images(path)
        if not self._files:
            raise VideoError(f"cannot read {show(path)}: there are no such images; check the name")
        numbers = [number for number, _ in self._files]
        missing = numbers[-1] - numbers[0] + 1 - len(numbers)
        self._is_timed = is_pattern(path) and not path.is_dir()
        if self._is_timed and missing:
            many = "1 number is" if missing == 1 else f"{missing} numbers are"
            self.warnings.append(f"{many} missing in {show(path)}; the images before last longer")
        self._first_number = numbers[0]
        first = read_picture(self._files[0][1])
        height, width = first.pixels.shape[:2]
        self.facts = ClipFacts(
            container="image2",
            streams=(StreamFacts(0, "video", first.format),),
            codec=first.format,
            width=width,
            height=height,
            pixel_format="gbrap" if first.alpha is not None else "gbrp",
            bits=8 if first.pixels.dtype == np.uint8 else 16,
            chroma=(1, 1),
            siting="left",
            has_alpha=first.alpha is not None,
            colour=ColourTags(RGB, _BT709_PRIMARIES, _SRGB_TRANSFER, FULL),
            time_base=1 / rate,
            frame_rate=rate,
            frames=len(numbers),
            frames_exact=True,
            variable=self._is_timed and missing > 0,
            duration=(numbers[-1] - numbers[0] + 1 if self._is_timed else len(numbers)) / rate,
        )

    def __enter__(self) -> "NumberedFrames":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing; files are open only while they are read."""

    @property
    def paths(self) -> list[Path]:
        """The images, in their order."""
        return [path for _, path in self._files]

    def count(self) -> ClipFacts:
        """Return what the clip is; its frames are counted already."""
        return self.facts

    def first_frames(self) -> Iterator[VideoFrame]:
        """Yield frames to look at."""
        return self.frames()

    def frames(self, start: int = 0, mark: FrameMark | None = None) -> Generator[VideoFrame]:
        """Yield frames in the order of their numbers; an image that cannot be read is the one before again.

        Args:
            start: Number of the first frame.
            mark: Ignored; images are found by their numbers.

        Raises:
            VideoError: There is no such frame, or an image has another size than the first.
        """
        if start >= len(self._files):
            raise VideoError(f"cannot read frame {start}: there are {len(self._files)} images; start before")
        before = None
        for number, pts, duration in self._timed(start):
            path = self._files[number][1]
            pixels, concealed = self._read(path), False
            if pixels is None:
                # After a jump the one before is not there yet.
                earlier = (self._read(self._files[each][1]) for each in range(number - 1, -1, -1))
                pixels = before if before is not None else next(p for p in earlier if p is not None)
                concealed = True
            before = pixels
            yield VideoFrame(number, pts, duration, pixels, concealed)

    def survey(
        self, start: int = 0, mark: FrameMark | None = None, is_over: Callable[[], bool] | None = None
    ) -> Generator[FrameMark]:
        """Yield a mark of each frame; no image is read, only the size and time of its file.

        Args:
            start: Number of the first frame.
            mark: Ignored; images are found by their numbers.
            is_over: Asked before each image; ends the survey if true.
        """
        for number, pts, duration in self._timed(start):
            if is_over is not None and is_over():
                return
            yield FrameMark(pts, duration, _stamp(self._files[number][1]))

    def marked_frames(self, start: int, marks: Sequence[FrameMark]) -> Generator[VideoFrame]:
        """Yield the frames that a survey has marked.

        Args:
            start: Number of the first frame.
            marks: Marks of that frame and of those after it.

        Raises:
            VideoError: One of the images is gone or was replaced, another has come before or between them,
                or one has another size than the first.
        """
        if start + len(marks) > len(self._files):
            raise changed(self._name)
        # Each image is looked at before it is read, and not earlier.
        shown = self.frames(start)
        for mark, (number, pts, duration) in zip(marks, self._timed(start), strict=False):
            if mark != FrameMark(pts, duration, _stamp(self._files[number][1])):
                raise changed(self._name)
            yield next(shown)

    def frame_at(self, time: Fraction) -> VideoFrame:
        """Return the frame that is shown at a time, in seconds since the first one."""
        ticks = int(max(Fraction(0), time) / self.facts.time_base)
        number = max(number for number, pts in enumerate(self._times()) if pts <= ticks)
        return next(self.frames(number))

    def time_of(self, frame: VideoFrame) -> Fraction:
        """Return when a frame is shown, in seconds since the first one."""
        return frame.pts * self.facts.time_base

    def _times(self) -> list[int]:
        if not self._is_timed:
            return list(range(len(self._files)))
        return [number - self._first_number for number, _ in self._files]

    def _timed(self, start: int) -> Iterator[tuple[int, int, int]]:
        """Yield numbers of frames, when they are shown, and how long, in ticks."""
        times = self._times()
        for number, (pts, after) in enumerate(pairwise([*times, times[-1] + 1][start:]), start):
            yield number, pts, after - pts

    def _read(self, path: Path) -> np.ndarray | None:
        try:
            picture = read_picture(path, damaged=True)
        except ImageError as error:
            self._warn(f"{error}; the image before is shown again")
            return None
        for sentence in picture.warnings:
            self._warn(f"{show(path)}: {sentence}")
        self._note_losses(picture)
        samples = to_float(picture.samples)
        size = (self.facts.height, self.facts.width)
        if samples.shape[:2] != size:
            raise VideoError(
                f"cannot read {show(path)}: it has {samples.shape[1]}×{samples.shape[0]} pixels, "
                f"and the first image of the clip {size[1]}×{size[0]}; all must have the same size"
            )
        bands = 1 if picture.pixels.shape[2] == 1 else 3
        parts = [np.broadcast_to(samples[..., :bands], (*size, 3))]
        if self.facts.has_alpha:
            opaque = np.ones((*size, 1), np.float32)
            parts.append(samples[..., bands:] if picture.alpha is not None else opaque)
        return np.ascontiguousarray(np.concatenate(parts, axis=2))

    def _note_losses(self, picture: Picture) -> None:
        """Warn where an image holds more than the first one, by which the result is chosen."""
        if picture.alpha is not None and not self.facts.has_alpha:
            self._warn(
                f"images of {self._name} are transparent, and the first is not; transparency is left out, "
                "unless the first one has it, too"
            )
        bits = 8 if picture.pixels.dtype == np.uint8 else 16
        if bits > self.facts.bits:
            self._warn(
                f"images of {self._name} have {bits} bits of a sample, and the first {self.facts.bits}; so "
                "has the result, unless the first one has as many"
            )

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def find_images(path: Path) -> list[tuple[int, Path]]:
    """List images with their numbers, in their order; in a folder by name, with numbers as numbers.

    Pipes and devices are left out: reading them may wait for ever.
    """
    if not is_pattern(path) or path.is_dir():
        if not path.is_dir():
            return []
        shown = [each for each in path.iterdir() if not each.name.startswith(".")]
        found = [each for each in shown if each.suffix.lower() in READABLE_SUFFIXES]
        return list(enumerate(sorted((each for each in found if not is_special(each)), key=_natural)))
    if not path.parent.is_dir():
        return []
    before, after = (re.escape(part) for part in NUMBER.split(path.name))
    width = re.search(r"%0(\d+)d", path.name)
    digits = rf"\d{{{width.group(1)},}}" if width else r"\d+"
    name = re.compile(f"{before}({digits}){after}")
    matches = ((name.fullmatch(each.name), each) for each in path.parent.iterdir())
    return sorted((int(match.group(1)), each) for match, each in matches if match and not is_special(each))


def _stamp(path: Path) -> int:
    """Return a checksum of the name, size and time of a file; one that is not there has a stamp, too."""
    try:
        status = path.stat()
    except OSError:
        return zlib.crc32(repr((path.name, None)).encode())
    return zlib.crc32(repr((path.name, status.st_size, status.st_mtime_ns)).encode())


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path.name)]
