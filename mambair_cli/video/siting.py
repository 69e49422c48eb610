"""Find where the chroma samples of frames lie, which PyAV does not tell but FFmpeg knows."""

import io
import re
from typing import Any

import numpy as np

from mambair_cli.video.ffmpeg import import_av
from mambair_cli.video.pixels import layout_of, plane_samples, reformat

_STEP = 8  # between neighbouring chroma samples of the slopes
_CHROMA_SAMPLE = 8  # of those slopes, and so the luma sample 16; frames must be a little larger
_LEAST_SIDE = 48
_TELL_CENTRE = ("h264", "hevc", "mjpeg", "mpeg1video")  # with others, FFmpeg means that it does not know
# What is usual where nothing tells it.
_OF_CODEC = {"mjpeg": "centre", "mpeg1video": "centre", "dvvideo": "topleft"}
# What FFmpeg writes into headers: YUV4MPEG's tag, and Matroska's numbers, across and down.
_YUV4MPEG = "yuv4mpegpipe"
_OF_TAG = {b"420jpeg": "centre", b"420mpeg2": "left", b"420paldv": "topleft"}
_OF_NUMBERS = {b"\1\2": "left", b"\2\2": "centre", b"\1\1": "topleft"}
_TAG = re.compile(rb" C(\w+)")
_NUMBERS = re.compile(rb"\x55\xb7\x81(.)\x55\xb8\x81(.)", re.DOTALL)


def find_siting(stream: Any, frame: Any) -> str:
    """Return the place of chroma samples: "left", "centre" or "topleft".

    What the decoder tells of the frame counts first, then what the container tells, then what is usual for
    the codec.

    Args:
        stream: Stream of PyAV.
        frame: Its first frame, as it was decoded.
    """
    codec = stream.codec_context.name
    found = None if stream.container.format.name == _YUV4MPEG else _try_frame(frame)
    if found == "centre" and codec not in _TELL_CENTRE:
        found = None
    return found or _ask_container(stream) or _OF_CODEC.get(codec, "left")


def _ask_container(stream: Any) -> str | None:
    """Return the place that the container tells; None if it does not.

    FFmpeg knows it, and writes it into the header of a file to which such a stream is to be copied.
    """
    av = import_av()
    is_yuv4mpeg = stream.container.format.name == _YUV4MPEG
    header = io.BytesIO()
    try:
        with av.open(header, "w", format=_YUV4MPEG if is_yuv4mpeg else "matroska") as container:
            container.add_stream_from_template(stream, opaque=True)
            container.start_encoding()
    except (av.FFmpegError, ValueError):  # no place for such a stream, as for YUV4MPEG of 10 bits
        return None
    if is_yuv4mpeg:
        tag = _TAG.search(header.getvalue())
        return _OF_TAG.get(tag[1]) if tag else None
    numbers = _NUMBERS.search(header.getvalue())
    return _OF_NUMBERS.get(numbers[1] + numbers[2]) if numbers else None


def _try_frame(frame: Any) -> str | None:
    """Return the place by which FFmpeg enlarges a frame's chroma; "centre" also where it does not know it.

    The frame gets two slopes for chroma, which tell the place once they are enlarged; then it gets its own
    samples again. None where that cannot be done.
    """
    layout = layout_of(frame.format.name)
    is_planar = frame.format.name.replace("yuvj", "yuv") == layout.name
    is_subsampled = layout.factors in ((2, 2), (1, 2))
    if not (is_planar and is_subsampled and min(frame.width, frame.height) >= _LEAST_SIDE):
        return None
    frame.make_writable()
    planes = [plane_samples(plane, layout.dtype) for plane in frame.planes[1:3]]
    before = [plane.copy() for plane in planes]
    highest = (2 * _CHROMA_SAMPLE) * _STEP
    across, down = (np.minimum(np.arange(length) * _STEP, highest) for length in planes[0].shape[::-1])
    planes[0][...], planes[1][...] = across, down[:, None]
    large = reformat(frame, format=frame.format.name.replace("420", "444").replace("422", "444"))
    at, expected = 2 * _CHROMA_SAMPLE, _CHROMA_SAMPLE * _STEP
    is_left = plane_samples(large.planes[1], layout.dtype)[at, at] == expected
    is_top = layout.factors[0] == 2 and plane_samples(large.planes[2], layout.dtype)[at, at] == expected
    for plane, samples in zip(planes, before, strict=True):
        plane[...] = samples
    if not is_left:
        return "centre"
    return "topleft" if is_top else "left"
