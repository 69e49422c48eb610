"""Open whatever is a clip: a file, numbered images, or a pipe."""

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from mambair_cli.errors import VideoError
from mambair_cli.video.clip import Clip
from mambair_cli.video.facts import ClipFacts
from mambair_cli.video.frames import RawInput
from mambair_cli.video.numbered import NumberedFrames, is_pattern

DEFAULT_RATE = Fraction(25)


def open_clip(
    source: Path | BinaryIO,
    *,
    rate: Fraction | None = None,
    raw: RawInput | None = None,
    deinterlace: bool = False,
) -> Clip | NumberedFrames:
    """Open a clip; use it in a ``with`` block.

    Args:
        source: A file that FFmpeg reads, a folder of images, a pattern such as ``frames/%06d.png``, or an
            open stream, such as a pipe with YUV4MPEG, Matroska or raw frames.
        rate: Frames a second of images; 25 if None. Other clips tell their own.
        raw: What raw frames do not tell, if the source is a stream of them.
        deinterlace: Whether to make whole frames of fields, by FFmpeg's bwdif: one for each frame.

    Raises:
        VideoError: It is no clip, or the package av is missing.
        ImageError: An image cannot be read.
    """
    if isinstance(source, Path) and (is_pattern(source) or source.is_dir()) and not source.is_file():
        if deinterlace:
            raise VideoError(f"cannot deinterlace {source}: images have no fields; leave --deinterlace out")
        return NumberedFrames(source, rate or DEFAULT_RATE)
    return Clip(source, raw, deinterlace=deinterlace)


def probe_clip(
    source: Path | BinaryIO, *, rate: Fraction | None = None, raw: RawInput | None = None, count: bool = False
) -> ClipFacts:
    """Tell what a clip is; its first frame is decoded.

    Args:
        source: See :func:`open_clip`.
        rate: See :func:`open_clip`.
        raw: See :func:`open_clip`.
        count: Whether to read the whole file, so that the number of frames and their times are known.

    Raises:
        VideoError: It is no clip, or cannot be read.
        ImageError: An image cannot be read.
    """
    with open_clip(source, rate=rate, raw=raw) as clip:
        return clip.count() if count else clip.facts
