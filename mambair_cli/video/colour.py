"""Colours of clips: luma and chroma as stored, and R'G'B' in [0, 1] as networks see them.

Matrices are those of ITU-T H.273 and its numbers are the names: a number that was read is written again as it
was. R'G'B' keeps the primaries and the transfer of the clip, also PQ and HLG; nothing is converted to light.
"""

from dataclasses import dataclass

import numpy as np

RGB, BT709, UNSPECIFIED, FCC, BT470BG, SMPTE170M, SMPTE240M, YCGCO, BT2020 = 0, 1, 2, 4, 5, 6, 7, 8, 9
LIMITED, FULL = 1, 2
PQ, HLG = 16, 18

MATRIX_NAMES = {
    RGB: "rgb",
    BT709: "bt709",
    FCC: "fcc",
    BT470BG: "bt470bg",
    SMPTE170M: "smpte170m",
    SMPTE240M: "smpte240m",
    YCGCO: "ycgco",
    BT2020: "bt2020nc",
}
# Weights of red and blue in luma; green has the rest.
_WEIGHTS = {
    BT709: (0.2126, 0.0722),
    FCC: (0.30, 0.11),
    BT470BG: (0.299, 0.114),
    SMPTE170M: (0.299, 0.114),
    SMPTE240M: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
}
# Matrices that nothing here computes with.
_OTHER_MATRICES = {
    10: "bt2020c",
    11: "smpte2085",
    12: "chroma-derived-nc",
    13: "chroma-derived-c",
    14: "ictcp",
    15: "ipt-c2",
}
_WIDE_PRIMARIES = 9
_HD_WIDTH, _HD_HEIGHT = 1280, 720
_STRIP_ROWS = 32  # of R'G'B' that are split at a time, for the processor's cache


@dataclass(frozen=True)
class ColourTags:
    """How the samples of a clip stand for colours, in the numbers of ITU-T H.273.

    Attributes:
        matrix: Matrix from luma and chroma to R'G'B'.
        primaries: Primaries; 2 where unknown.
        transfer: Transfer; 2 where unknown.
        range: 1 limited, 2 full.
        assumed: What the clip does not tell and is assumed: "matrix", "range".
    """

    matrix: int
    primaries: int
    transfer: int
    range: int
    assumed: tuple[str, ...] = ()

    @property
    def matrix_name(self) -> str:
        """Name of the matrix, as FFmpeg has it."""
        return MATRIX_NAMES[self.matrix]

    @property
    def hdr(self) -> str | None:
        """Kind of HDR: "PQ", "HLG" or None."""
        return {PQ: "PQ", HLG: "HLG"}.get(self.transfer)


def settle_tags(
    matrix: int, primaries: int, transfer: int, range: int, *, is_rgb: bool, size: tuple[int, int]
) -> ColourTags:
    """Complete what a clip tells of its colours by what players assume.

    Without a matrix that can be computed with, PQ, HLG and wide primaries mean BT.2020, sizes from 1280x720
    BT.709, smaller ones BT.601. Without a range, luma and chroma are limited.

    Args:
        matrix: Number of H.273; 2 where unknown.
        primaries: Number of H.273; 2 where unknown.
        transfer: Number of H.273; 2 where unknown.
        range: 1 limited, 2 full, 0 where unknown.
        is_rgb: Whether the samples are R'G'B'.
        size: Width and height, in pixels.
    """
    if is_rgb:
        return ColourTags(RGB, primaries, transfer, FULL)
    assumed = []
    if matrix != YCGCO and matrix not in _WEIGHTS:
        assumed.append("matrix")
        width, height = size
        if transfer in (PQ, HLG) or primaries == _WIDE_PRIMARIES:
            matrix = BT2020
        else:
            matrix = BT709 if width >= _HD_WIDTH or height >= _HD_HEIGHT else SMPTE170M
    if range not in (LIMITED, FULL):
        assumed.append("range")
        range = LIMITED
    return ColourTags(matrix, primaries, transfer, range, tuple(assumed))


def explain_matrix(found: int, tags: ColourTags) -> str | None:
    """Say which matrix is taken for one that a clip names and that nothing here computes with.

    Args:
        found: Number of H.273 that the clip has.
        tags: Its colours, from :func:`settle_tags`.
    """
    if found not in _OTHER_MATRICES or tags.matrix == RGB:
        return None
    return (
        f"colours by the matrix {_OTHER_MATRICES[found]} cannot be computed; {tags.matrix_name} is taken for "
        "it and written, so that they may change"
    )


def matrix_to_rgb(matrix: int) -> np.ndarray:
    """Return the (3, 3) float64 matrix from luma in [0, 1] and chroma in [-0.5, 0.5] to R'G'B'."""
    if matrix == YCGCO:
        return np.array([[1.0, -1, 1], [1, 1, 0], [1, -1, -1]])
    red, blue = _WEIGHTS[matrix]
    green = 1 - red - blue
    cr, cb = 2 * (1 - red), 2 * (1 - blue)
    return np.array([[1, 0, cr], [1, -cb * blue / green, -cr * red / green], [1, cb, 0]])


def scales(bits: int, range: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return black and the span to white of luma, and the middle and span of chroma, in stored numbers.

    Args:
        bits: Bits of a sample.
        range: 1 limited, 2 full.
    """
    if range == FULL:
        white = 2.0**bits - 1
        return (0, white), (2.0 ** (bits - 1), white)
    step = 2.0 ** (bits - 8)
    return (16 * step, 219 * step), (128 * step, 224 * step)


def join_planes(y: np.ndarray, u: np.ndarray, v: np.ndarray, matrix: int, out: np.ndarray) -> None:
    """Compute R'G'B' from luma and chroma of one size, clipped to [0, 1].

    Args:
        y: Luma (h, w), float32 in [0, 1].
        u: First chroma (h, w), mostly the blue one, float32 in [-0.5, 0.5].
        v: Second chroma, of the same shape.
        matrix: Number of the matrix.
        out: Result (h, w, 3), float32.
    """
    part = np.empty_like(y)
    for band, (_, of_u, of_v) in enumerate(matrix_to_rgb(matrix).astype(np.float32)):
        total = y
        for weight, chroma in ((of_u, u), (of_v, v)):
            if weight:
                np.multiply(chroma, weight, out=part)
                total = total + part
        np.clip(total, 0, 1, out=out[..., band])


def split_planes(rgb: np.ndarray, matrix: int) -> np.ndarray:
    """Split R'G'B' (h, w, 3) into luma in [0, 1] and two chroma planes in [-0.5, 0.5], float32 (3, h, w)."""
    planes = np.empty((3, *rgb.shape[:2]), np.float32)
    of_rgb = np.linalg.inv(matrix_to_rgb(matrix)).astype(np.float32)
    for top in range(0, rgb.shape[0], _STRIP_ROWS):
        strip = rgb[top : top + _STRIP_ROWS]
        bands = [np.ascontiguousarray(strip[..., band]) for band in range(3)]
        for plane, weights in zip(planes[:, top : top + _STRIP_ROWS], of_rgb, strict=True):
            np.multiply(bands[0], weights[0], out=plane)
            for band, weight in zip(bands[1:], weights[1:], strict=True):
                plane += band * weight
    return planes
