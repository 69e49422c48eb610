"""Find where the chroma samples of frames lie, which PyAV does not tell but FFmpeg knows."""

from typing import Any

import numpy as np

from mambair_cli.video.pixels import layout_of, plane_samples

_STEP = 8  # between neighbouring chroma samples of the slopes
_CHROMA_SAMPLE = 8  # of those slopes, and so the luma sample 16; frames must be a little larger
_LEAST_SIDE = 48
# What the frames of these codecs have where the test cannot be made.
_TELL_CENTRE = ("h264", "hevc", "mjpeg", "mpeg1video")  # with others, FFmpeg means that it does not know
_OF_CODEC = {"mjpeg": "centre", "mpeg1video": "centre", "dvvideo": "topleft"}


def find_siting(frame: Any, codec: str) -> str:
    """Return the place of chroma samples: "left", "centre" or "topleft".

    FFmpeg enlarges chroma by where the frame says that it lies. So the frame gets two slopes for chroma,
    which tell the place once they are enlarged; then it gets its own samples again.

    Args:
        frame: Frame of PyAV, as it was decoded.
        codec: FFmpeg's name of the codec.
    """
    layout = layout_of(frame.format.name)
    usual = _OF_CODEC.get(codec, "left")
    is_planar = frame.format.name.replace("yuvj", "yuv") == layout.name
    is_subsampled = layout.factors in ((2, 2), (1, 2))
    if not (is_planar and is_subsampled and min(frame.width, frame.height) >= _LEAST_SIDE):
        return usual
    frame.make_writable()
    planes = [plane_samples(plane, layout.dtype) for plane in frame.planes[1:3]]
    before = [plane.copy() for plane in planes]
    highest = (2 * _CHROMA_SAMPLE) * _STEP
    across, down = (np.minimum(np.arange(length) * _STEP, highest) for length in planes[0].shape[::-1])
    planes[0][...], planes[1][...] = across, down[:, None]
    large = frame.reformat(format=frame.format.name.replace("420", "444").replace("422", "444"))
    at, expected = 2 * _CHROMA_SAMPLE, _CHROMA_SAMPLE * _STEP
    is_left = plane_samples(large.planes[1], layout.dtype)[at, at] == expected
    is_top = layout.factors[0] == 2 and plane_samples(large.planes[2], layout.dtype)[at, at] == expected
    for plane, samples in zip(planes, before, strict=True):
        plane[...] = samples
    if not is_left:
        return "centre" if codec in _TELL_CENTRE else usual
    return "topleft" if is_top else "left"
