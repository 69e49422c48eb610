"""Frames of FFmpeg to arrays of R'G'B' and back, without a loss of bits on the way."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mambair_cli.video.chroma import enlarge, reduce
from mambair_cli.video.colour import (
    FULL,
    LIMITED,
    RGB,
    UNSPECIFIED,
    ColourTags,
    join_planes,
    scales,
    settle_tags,
    split_planes,
)
from mambair_cli.video.ffmpeg import import_av
from mambair_cli.video.frames import plane_bytes

_PACKED_RGB = ("bgr0", "bgra")


@dataclass(frozen=True)
class PixelLayout:
    """How samples lie in frames of one pixel format.

    Attributes:
        name: FFmpeg's name of a planar format, little-endian, or "bgr0" or "bgra".
        bits: Bits of a sample.
        is_rgb: Whether the samples are R'G'B'.
        is_gray: Whether there is luma only.
        has_alpha: Whether there is alpha.
        factors: Luma samples for each chroma sample, vertically and horizontally.
    """

    name: str
    bits: int
    is_rgb: bool
    is_gray: bool
    has_alpha: bool
    factors: tuple[int, int]

    @property
    def dtype(self) -> np.dtype:
        """Type of a sample in memory."""
        return np.dtype("u1" if self.bits == 8 else "<u2")


def layout_of(name: str) -> PixelLayout:
    """Return the layout that frames of a pixel format are brought to; no bit of a sample is lost.

    Args:
        name: FFmpeg's name of any pixel format.
    """
    format = import_av().VideoFormat(name, 64, 64)
    components = format.components
    is_rgb = format.is_rgb or format.has_palette or format.is_bayer or name in ("xyz12le", "xyz12be")
    has_alpha = format.has_palette or any(component.is_alpha for component in components)
    is_gray = not is_rgb and len(components) - has_alpha == 1
    bits = max(component.bits for component in components)
    if name in _PACKED_RGB:
        return PixelLayout(name, 8, True, False, name == "bgra", (1, 1))
    bits = next(each for each in (8, 9, 10, 12, 14, 16) if bits <= each or each == 16)
    if is_gray and has_alpha:  # luma with alpha has no planar form that all parts of FFmpeg know
        return PixelLayout("gbrap16le", 16, True, False, True, (1, 1))
    factors = (1, 1)
    if is_rgb:
        bits = 16 if has_alpha and bits == 9 else bits
    elif not is_gray:
        factors = (64 // format.chroma_height(64), 64 // format.chroma_width(64))
        bits = 16 if has_alpha and bits == 14 else bits
    kind = "rgb" if is_rgb else "gray" if is_gray else "yuv"
    planar = planar_name(kind, bits, factors, has_alpha)
    return PixelLayout(planar, bits, is_rgb, is_gray, has_alpha, factors)


def planar_name(kind: str, bits: int, factors: tuple[int, int], has_alpha: bool) -> str:
    """Return FFmpeg's name of a planar pixel format, little-endian.

    Args:
        kind: "rgb", "gray" or "yuv".
        bits: Bits of a sample.
        factors: Luma samples for each chroma sample, vertically and horizontally.
        has_alpha: Whether there is alpha; not with gray.
    """
    alpha = "a" if has_alpha else ""
    stem = {"rgb": f"gbr{alpha}p", "gray": "gray"}.get(kind) or f"yuv{alpha}{_SUBSAMPLINGS[factors]}p"
    return stem if bits == 8 else f"{stem}{bits}le"


_SUBSAMPLINGS = {(1, 1): "444", (1, 2): "422", (2, 2): "420", (2, 1): "440", (1, 4): "411", (4, 4): "410"}
# The order of planes: FFmpeg has green first.
_RGB_PLANES = (2, 0, 1)


def frame_to_rgb(frame: Any, tags: ColourTags, siting: str) -> np.ndarray:
    """Convert a frame to R'G'B'.

    Args:
        frame: Frame of PyAV.
        tags: Its colours.
        siting: Place of chroma samples, see :func:`mambair_cli.video.chroma.place`.

    Returns:
        (h, w, 3), or (h, w, 4) with straight alpha, float32 in [0, 1].
    """
    layout = layout_of(frame.format.name)
    if layout.name in _PACKED_RGB:
        return _unpack(frame, layout)
    # The older names with a j have the planes of those without; they only add that the range is full.
    if frame.format.name.replace("yuvj", "yuv") != layout.name:
        frame = reformat(frame, format=layout.name)
    planes = [plane_samples(plane, layout.dtype) for plane in frame.planes]
    size = planes[0].shape
    out = np.empty((*size, 4 if layout.has_alpha else 3), np.float32)
    white = np.float32(2**layout.bits - 1)
    if layout.is_rgb:
        for band, plane in enumerate(_RGB_PLANES):
            np.divide(planes[plane], white, out=out[..., band], dtype=np.float32)
    else:
        (black, span), (middle, reach) = scales(layout.bits, tags.range)
        y = _scaled(planes[0], black, span)
        if layout.is_gray:
            np.clip(y[..., None], 0, 1, out=out[..., :3])
        else:
            u, v = (
                enlarge(_scaled(plane, middle, reach), layout.factors, siting, size) for plane in planes[1:3]
            )
            join_planes(y, u, v, tags.matrix, out[..., :3])
    if layout.has_alpha:
        np.divide(planes[3], white, out=out[..., 3], dtype=np.float32)
    return out


def reformat(frame: Any, **how: Any) -> Any:
    """Return a frame in another format or size, of the same colours.

    FFmpeg's converter refuses frames of some matrices, also where it needs none; so it sees none.

    Args:
        frame: Frame of PyAV.
        how: Arguments of its method of that name.
    """
    tags = frame.colorspace, frame.color_primaries, frame.color_trc
    frame.colorspace = frame.color_primaries = frame.color_trc = UNSPECIFIED
    try:
        return frame.reformat(**how)
    finally:
        frame.colorspace, frame.color_primaries, frame.color_trc = tags


def rgb_to_frame(
    pixels: np.ndarray, layout: PixelLayout, tags: ColourTags, siting: str, *, inverts: bool = False
) -> Any:
    """Convert R'G'B' to a frame; each sample is rounded to the nearest number, without dithering.

    Args:
        pixels: (h, w, 3 or 4), float32; values outside [0, 1] are clipped. Alpha is left out if the layout
            has none, and opaque where the pixels have none.
        layout: Layout of the frame.
        tags: Colours of the frame.
        siting: Place of chroma samples.
        inverts: Whether the pixels come from a frame of the same layout and size, whose chroma is to stay as
            sharp as it was; see :func:`mambair_cli.video.chroma.reduce`.

    Returns:
        Frame of PyAV, without times.
    """
    height, width = pixels.shape[:2]
    frame = import_av().VideoFrame(width, height, layout.name)
    pixels = np.clip(pixels, 0, 1)
    frame.colorspace, frame.color_range = tags.matrix, tags.range
    frame.color_primaries, frame.color_trc = tags.primaries, tags.transfer
    white = 2**layout.bits - 1
    if layout.name in _PACKED_RGB:
        _pack(pixels, layout, frame)
        return frame
    targets = [plane_samples(plane, layout.dtype) for plane in frame.planes]
    if layout.is_rgb:
        for band, plane in enumerate(_RGB_PLANES):
            targets[plane][...] = np.rint(pixels[..., band] * np.float32(white))
    else:
        (black, span), (middle, reach) = scales(layout.bits, tags.range)
        y, u, v = split_planes(pixels, tags.matrix)
        _store(y, black, span, white, targets[0])
        if not layout.is_gray:
            for target, chroma in zip(targets[1:3], (u, v), strict=True):
                small = reduce(chroma, layout.factors, siting, inverts=inverts)
                _store(small, middle, reach, white, target)
    if layout.has_alpha:
        targets[3][...] = np.rint(pixels[..., 3] * np.float32(white)) if pixels.shape[2] == 4 else white
    return frame


def _scaled(plane: np.ndarray, zero: float, span: float) -> np.ndarray:
    result = plane.astype(np.float32)
    result -= np.float32(zero)
    result *= np.float32(1 / span)
    return result


def _store(plane: np.ndarray, zero: float, span: float, white: int, target: np.ndarray) -> None:
    plane = plane * np.float32(span)
    plane += np.float32(zero)
    np.rint(plane, out=plane)
    target[...] = np.clip(plane, 0, white, out=plane)


def plane_samples(plane: Any, dtype: np.dtype) -> np.ndarray:
    """Return the samples of a plane (h, w) in place, without the padding of its lines."""
    return plane_bytes(plane, plane.width * dtype.itemsize).view(dtype)


def _unpack(frame: Any, layout: PixelLayout) -> np.ndarray:
    plane = frame.planes[0]
    bands = [2, 1, 0, 3] if layout.has_alpha else [2, 1, 0]
    pixels = plane_bytes(plane, 4 * plane.width).reshape(plane.height, plane.width, 4)[..., bands]
    return np.divide(pixels, 255, dtype=np.float32)


def _pack(pixels: np.ndarray, layout: PixelLayout, frame: Any) -> None:
    plane = frame.planes[0]
    samples = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    target = samples[:, : 4 * plane.width].reshape(plane.height, plane.width, 4)
    stored = np.rint(pixels * np.float32(255))
    target[..., :3] = stored[..., 2::-1]
    if layout.has_alpha and stored.shape[2] == 4:
        target[..., 3] = stored[..., 3]
    else:
        target[..., 3] = 255


def tags_for_layout(tags: ColourTags, layout: PixelLayout, size: tuple[int, int]) -> ColourTags:
    """Return the colours of frames that change between R'G'B' and luma with chroma, or stay what they are.

    Args:
        tags: Colours of the source.
        layout: Layout of the result.
        size: Width and height of the result.
    """
    if layout.is_rgb:
        return ColourTags(RGB, tags.primaries, tags.transfer, FULL)
    if tags.matrix != RGB:
        return tags
    return settle_tags(UNSPECIFIED, tags.primaries, tags.transfer, LIMITED, is_rgb=False, size=size)
