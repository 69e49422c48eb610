"""Make ICC profiles from primaries and a curve, and read the name of any profile."""

import io
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mambair_cli.images.samples import encode_srgb

Chromaticity = tuple[float, float]

_D50 = (0.9642, 1.0, 0.8249)  # white of the profile connection space
# Source: Bradford's cone responses, ICC specification, annex E.
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_CURVE_SAMPLES = 4096
_HEADER_BYTES, _ENTRY_BYTES = 128, 12
_SPACES = {1: b"GRAY", 3: b"RGB ", 4: b"CMYK"}  # ICC's names, by the number of colours
_SPACE_NAMES = {b"GRAY": "gray", b"RGB ": "RGB", b"CMYK": "CMYK", b"Lab ": "CIELAB"}

UNREADABLE = "its colour profile cannot be read and is left out"


@dataclass(frozen=True)
class Primaries:
    """The chromaticities, x and y, of white and of the three primary colours."""

    white: Chromaticity
    red: Chromaticity
    green: Chromaticity
    blue: Chromaticity


SRGB = Primaries((0.3127, 0.3290), (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_RGB = Primaries((0.3127, 0.3290), (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
ADOBE_GAMMA = 563 / 256
GAMMA_RANGE = (0.1, 10)  # of what a file may tell
P3 = Primaries((0.3127, 0.3290), (0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
_NEAR_POINT = 0.002


def are_near(points: Iterable[Chromaticity], others: Iterable[Chromaticity]) -> bool:
    """Tell whether chromaticities are the same but for rounding."""
    pairs = zip(points, others, strict=True)
    return all(abs(a - b) <= _NEAR_POINT for one, other in pairs for a, b in zip(one, other, strict=True))


def is_near_srgb(primaries: Primaries) -> bool:
    """Tell whether primaries are those of sRGB."""
    points, of_srgb = ((each.white, each.red, each.green, each.blue) for each in (primaries, SRGB))
    return are_near(points, of_srgb)


def make_profile(primaries: Primaries, gamma: float | None, description: str) -> bytes:
    """Make an RGB profile from primaries and a curve.

    Args:
        primaries: Primaries of the colours.
        gamma: Power that maps samples to light; None for sRGB's curve.
        description: Text that programs show, in ASCII.

    Raises:
        ValueError: No colours can be mixed from these primaries.
    """
    points = (primaries.red, primaries.green, primaries.blue)
    columns = np.array([(x, y, 1 - x - y) for x, y in points]).T  # y may be 0 or less: not all are visible
    white = np.array(_xyz_of(primaries.white))
    try:
        matrix = columns * np.linalg.solve(columns, white)
    except np.linalg.LinAlgError as error:
        raise ValueError("its primaries lie on a line") from error
    cones = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    adapted = np.linalg.solve(_BRADFORD, cones[:, None] * (_BRADFORD @ matrix))
    if not np.isfinite(adapted).all() or np.abs(adapted).max() >= 2**15:
        raise ValueError("its primaries make no sense")
    colorants = (b"rXYZ", b"gXYZ", b"bXYZ")
    tags = {tag: _xyz_tag(adapted[:, column]) for column, tag in enumerate(colorants)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve_tag(gamma))
    return _assemble(b"RGB ", tags, description)


def make_gray_profile(gamma: float, description: str) -> bytes:
    """Make a gray profile with a power as its curve; see :func:`make_profile`."""
    return _assemble(b"GRAY", {b"kTRC": _curve_tag(gamma)}, description)


def describe_profile(icc: bytes) -> str | None:
    """Return the name that a profile gives itself, such as "Display P3"; None where it cannot be read."""
    from PIL import ImageCms

    try:
        name = ImageCms.getProfileDescription(io.BytesIO(icc))
    except ImageCms.PyCMSError:
        return None
    return " ".join("".join(c if c.isprintable() else " " for c in name).split()) or None


def keep_usable_profile(icc: bytes | None, colours: int, warnings: list[str]) -> bytes | None:
    """Return the profile of a file if it can be read and fits the picture; libvips drops others in silence.

    Args:
        icc: The embedded profile; None where there is none.
        colours: Number of colours of a pixel in the file: 1 gray, 3 RGB, 4 CMYK.
        warnings: Sentences about the file, to which one is added where the profile is left out.
    """
    if not icc:
        return None
    if not _is_readable(icc):
        warnings.append(UNREADABLE)
        return None
    space = bytes(icc[16:20])
    if space == _SPACES[colours]:
        return icc
    has, needs = (_SPACE_NAMES.get(each, "other colours") for each in (space, _SPACES[colours]))
    warnings.append(f"its colour profile is for {has}, not for {needs}, and is left out")
    return None


def _is_readable(icc: bytes) -> bool:
    """Tell whether a profile is one, and is not cut short."""
    from PIL import ImageCms

    try:
        ImageCms.ImageCmsProfile(io.BytesIO(icc))
    except (OSError, TypeError):
        return False
    return int.from_bytes(icc[:4], "big") <= len(icc)


def _xyz_of(point: Chromaticity) -> tuple[float, float, float]:
    x, y = point
    if y <= 0:
        raise ValueError("its primaries make no sense")
    return x / y, 1.0, (1 - x - y) / y


def _assemble(space: bytes, tags: dict[bytes, bytes], description: str) -> bytes:
    """Lay out a profile of version 2 for a display."""
    text = description.encode("ascii") + b"\0"
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, len(text)) + text + bytes(78),
        b"cprt": b"text" + bytes(4) + b"No copyright, use freely\0",
        b"wtpt": _xyz_tag(_D50),
        **tags,
    }
    start, table, body = _HEADER_BYTES + 4 + _ENTRY_BYTES * len(tags), b"", b""
    places: dict[bytes, int] = {}  # equal curves are stored once
    for name, data in tags.items():
        if data not in places:
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += struct.pack(">4sII", name, places[data], len(data))
    head = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _fixed(_D50)
    return head.ljust(_HEADER_BYTES, b"\0") + struct.pack(">I", len(tags)) + table + body


def _curve_tag(gamma: float | None) -> bytes:
    """Write a curve: a power in steps of 1/256, or a table."""
    if gamma is not None:
        return b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))
    light = np.linspace(0, 1, 65536)
    samples = np.linspace(0, 1, _CURVE_SAMPLES)
    table = np.interp(samples, encode_srgb(light), light)
    return b"curv" + struct.pack(">II", 0, _CURVE_SAMPLES) + np.rint(table * 65535).astype(">u2").tobytes()


def _xyz_tag(values: "np.ndarray | tuple[float, ...]") -> bytes:
    return b"XYZ " + bytes(4) + _fixed(values)


def _fixed(values: "np.ndarray | tuple[float, ...]") -> bytes:
    return struct.pack(">3i", *(round(float(value) * 65536) for value in values))
