"""Frames of a clip: decoded, converted, and marked, so that they are known when they are decoded again."""

import zlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One frame of a clip.

    Attributes:
        number: Number of the frame, from 0.
        pts: Time at which it is shown, in ticks of the clip.
        duration: How long it is shown, in ticks.
        pixels: (h, w, 3) R'G'B', or (h, w, 4) with straight alpha, float32 in [0, 1].
        concealed: Whether its data was broken, and FFmpeg filled in what is missing.
    """

    number: int
    pts: int
    duration: int
    pixels: np.ndarray
    concealed: bool = False


class DecodedFrame(NamedTuple):
    """A frame that is not converted; see :class:`VideoFrame`.

    Attributes:
        number, pts, duration: The same.
        frame: Frame of PyAV.
        is_corrupt: Whether its data was broken.
    """

    number: int
    pts: int
    duration: int
    frame: Any
    is_corrupt: bool


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


class FrameMark(NamedTuple):
    """What is known of a frame after a survey.

    Attributes:
        pts: Time at which it is shown, in ticks of the clip.
        duration: How long it is shown, in ticks.
        checksum: Checksum of its samples; None for an image, which is the same whenever it is read.
    """

    pts: int
    duration: int
    checksum: int | None = None


def mark_frame(frame: DecodedFrame) -> FrameMark:
    """Return the mark of a frame."""
    return FrameMark(frame.pts, frame.duration, _checksum(frame.frame))


def _checksum(frame: Any) -> int:
    """Return a checksum of the samples of a frame of PyAV.

    The ends of lines hold whatever was in the memory, so they are left out; where samples of several kinds
    share a plane, so is a part of each line.
    """
    result = zlib.crc32(frame.format.name.encode())
    bits = {}
    for component in frame.format.components:
        bits[component.plane] = max(component.bits, bits.get(component.plane, 0))
    for number, plane in enumerate(frame.planes):
        depth = bits.get(number, 8)
        width = plane.width * depth // 8 if depth < 8 else plane.width * ((depth + 7) // 8)
        lines = np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size]
        lines = lines.reshape(plane.height, plane.line_size)[:, :width]
        result = zlib.crc32(np.ascontiguousarray(lines).data, result)
    return result
