"""Frames of a clip: decoded, converted, and marked, so that they are known when they are decoded again."""

import ctypes
import zlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from mambair_cli.errors import VideoError


class DecodedFrame(NamedTuple):
    """A frame that is not converted.

    Attributes:
        number: Number of the frame, from 0.
        pts: Time at which it is shown, in ticks of the clip.
        duration: How long it is shown, in ticks.
        frame: Frame of PyAV.
        is_corrupt: Whether its data was broken.
    """

    number: int
    pts: int
    duration: int
    frame: Any
    is_corrupt: bool


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One frame of a clip.

    Attributes:
        number, pts, duration: Those of :class:`DecodedFrame`.
        pixels: (h, w, 3) R'G'B', or (h, w, 4) with straight alpha, float32 in [0, 1].
        concealed: Whether its data was broken, and FFmpeg filled in what is missing.
        decoded: The frame as it was decoded; None for images.
    """

    number: int
    pts: int
    duration: int
    pixels: np.ndarray
    concealed: bool = False
    decoded: DecodedFrame | None = None

    @property
    def mark(self) -> "FrameMark | None":
        """Mark by which it is found again; None for images, which have numbers."""
        return None if self.decoded is None else mark_frame(self.decoded)


@dataclass(frozen=True)
class RawInput:
    """What a stream of raw frames does not tell itself.

    Attributes:
        format: "rgb24", or "rgb48le" for 16 bits.
        width, height: Size of a frame, in pixels.
        rate: Frames a second.
    """

    format: str
    width: int
    height: int
    rate: Fraction

    @property
    def bytes(self) -> int:
        """Bytes of a frame."""
        return self.width * self.height * (6 if self.format == "rgb48le" else 3)


class FrameMark(NamedTuple):
    """What is known of a frame after a survey.

    Attributes:
        pts: Time at which it is shown, in ticks of the clip.
        duration: How long it is shown, in ticks.
        checksum: Checksum of its samples; for an image, that of the name, size and time of its file.
        is_repeatable: Whether it has the same samples whenever the clip is decoded from its beginning:
            nothing before it is broken, and the survey has not jumped.
    """

    pts: int
    duration: int
    checksum: int
    is_repeatable: bool = True


def mark_frame(frame: DecodedFrame, is_repeatable: bool = True) -> FrameMark:
    """Return the mark of a frame."""
    return FrameMark(frame.pts, frame.duration, _checksum(frame.frame), is_repeatable)


def has_mark(frame: DecodedFrame, mark: FrameMark) -> bool:
    """Tell whether a frame has the times and the samples of a mark."""
    return mark_frame(frame, mark.is_repeatable) == mark


def changed(name: str) -> VideoError:
    """Return the error for a clip in which marked frames are not found again."""
    return VideoError(f"cannot read {name} again: it has changed; restore it anew")


def plane_bytes(plane: Any, width: int) -> np.ndarray:
    """Return the bytes of a plane in place, (h, width) uint8, from its upper line to its lower one.

    Args:
        plane: Plane of a frame of PyAV, which must outlive the result.
        width: Bytes of a line to return, from its start.
    """
    size, height = plane.line_size, plane.height
    if size >= 0:
        return np.frombuffer(plane, np.uint8)[: height * size].reshape(height, size)[:, :width]
    # The upper line is the last one in memory, and the buffer that PyAV tells begins with it.
    before = -size * (height - 1)
    memory = (ctypes.c_uint8 * (before + width)).from_address(plane.buffer_ptr - before)
    return np.ndarray((height, width), np.uint8, memory, before, (size, 1))


def _checksum(frame: Any) -> int:
    """Return a checksum of a frame of PyAV: its pixel format, all its samples, and its palette.

    It covers every byte that belongs to a pixel, in every plane, whichever way the lines run; not the ends of
    lines, which hold whatever was in the memory.
    """
    format = frame.format
    result = zlib.crc32(format.name.encode())
    planes = [component.plane for component in format.components]
    bits = max(component.bits for component in format.components)
    for number, plane in enumerate(frame.planes):
        if format.has_palette and number == 1:
            result = zlib.crc32(plane, result)
            continue
        if max(planes) == 0:  # several pixels may share chroma, so that lines hold whole groups of them
            group = 64 // format.chroma_width(64)
            width = (-(-plane.width // group) * group * format.padded_bits_per_pixel + 7) // 8
        else:
            width = plane.width * planes.count(number) * ((bits + 7) // 8)
        result = zlib.crc32(np.ascontiguousarray(plane_bytes(plane, width)).data, result)
    return result
