"""Write frames to a pipe: YUV4MPEG, which tells size and rate, or bare samples of R'G'B'."""

from typing import BinaryIO

import numpy as np

from mambair_cli.images import from_float
from mambair_cli.video.colour import FULL, LIMITED, RGB, UNSPECIFIED, settle_tags
from mambair_cli.video.facts import ClipFacts
from mambair_cli.video.pixels import PixelLayout, layout_of, planar_name, rgb_to_frame
from mambair_cli.video.upright import UprightFrames

_CHROMA_NAMES = {(2, 2): "420", (1, 2): "422", (1, 1): "444"}
_SITING_NAMES = {"left": "mpeg2", "centre": "jpeg", "topleft": "paldv"}  # of 4:2:0 in 8 bits only


def layout_for_pipe(facts: ClipFacts) -> PixelLayout:
    """Return the layout of frames of YUV4MPEG for a clip."""
    factors = facts.chroma if facts.chroma in _CHROMA_NAMES and facts.colour.matrix != RGB else (2, 2)
    return layout_of(planar_name("yuv", 8 if facts.bits == 8 else 10, factors, False))


class Yuv4MpegWriter:
    """Writes YUV4MPEG, as other programs read it on standard input.

    It has 8 bits, or 10 where the source has more, and no place for alpha, for times that vary, or for the
    matrix: luma and chroma have the matrix that players assume for the size. Nor does it tell players to
    turn frames, so they are turned.

    Args:
        stream: Stream to write.
        facts: The source: its rate, chroma, range and the shape of its pixels are those of the result. So is
            the place of its chroma, where the header can tell it; else chroma lies left.
    """

    def __init__(self, stream: BinaryIO, facts: ClipFacts) -> None:
        self._stream = stream
        self._facts = facts
        self._upright = UprightFrames(facts)
        self._layout = layout_for_pipe(facts)
        has_place = self._layout.factors == facts.chroma == (2, 2) and self._layout.bits == 8
        self._siting = facts.siting if has_place else "left"
        self._begun = False

    def write(self, pixels: np.ndarray) -> None:
        """Write a frame.

        Args:
            pixels: (h, w, 3 or 4) R'G'B', float32 in [0, 1]; alpha is left out, and the frame turned upright.

        Raises:
            OSError: The reader has ended, or the disk is full.
        """
        facts = self._facts
        is_same = pixels.shape[:2] == (facts.height, facts.width) and self._layout.factors == facts.chroma
        pixels = self._upright.turn(pixels)
        height, width = pixels.shape[:2]
        colour, layout = self._facts.colour, self._layout
        range = FULL if colour.range == FULL and colour.matrix != RGB else LIMITED
        tags = settle_tags(
            UNSPECIFIED, colour.primaries, colour.transfer, range, is_rgb=False, size=(width, height)
        )
        if not self._begun:
            self._stream.write(self._header(width, height, range))
            self._begun = True
        inverts = is_same and not self._upright.is_needed
        frame = rgb_to_frame(pixels[..., :3], layout, tags, self._siting, inverts=inverts)
        self._stream.write(b"FRAME\n")
        for plane in frame.planes:
            lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
            self._stream.write(lines[:, : plane.width * layout.dtype.itemsize].tobytes())

    def _header(self, width: int, height: int, range: int) -> bytes:
        facts, layout = self._facts, self._layout
        rate, aspect = facts.frame_rate, self._upright.turn_aspect(facts.pixel_aspect)
        chroma = _CHROMA_NAMES[layout.factors]
        if layout.bits > 8:
            chroma += f"p{layout.bits}"
        elif layout.factors == (2, 2):
            chroma += _SITING_NAMES[self._siting]
        return (
            f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip "
            f"A{aspect.numerator}:{aspect.denominator} C{chroma} "
            f"XCOLORRANGE={'FULL' if range == FULL else 'LIMITED'}\n"
        ).encode()


def write_raw(stream: BinaryIO, pixels: np.ndarray, bits: int = 8) -> None:
    """Write the samples of a frame, line by line: FFmpeg's rgb24, or rgb48le for 16 bits.

    Args:
        stream: Stream to write.
        pixels: (h, w, 3 or 4) R'G'B', float32 in [0, 1]; alpha is left out.
        bits: 8 or 16.

    Raises:
        OSError: The reader has ended, or the disk is full.
    """
    stream.write(from_float(pixels[..., :3], np.uint8 if bits == 8 else np.dtype("<u2")).tobytes())
