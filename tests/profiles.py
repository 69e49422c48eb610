"""Colour profiles made from their definitions: three RGB spaces (a matrix and a curve), and gray."""

import struct

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
D65 = (0.9505, 1.0, 1.0891)
# Source: Bradford's cone responses, ICC specification, annex E.
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def gray_profile(gamma: float) -> bytes:
    """Make a gray profile whose curve is a power."""
    return _profile(b"GRAY", {b"kTRC": _curve(gamma)})


def rgb_profile(
    primaries: tuple[tuple[float, float], ...], white: tuple[float, float, float], gamma: float
) -> bytes:
    """Make an RGB profile from the chromaticities of its primaries, its white point and its power."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    matrix = columns * np.linalg.solve(columns, np.array(white))
    cones = (BRADFORD @ np.array(D50)) / (BRADFORD @ np.array(white))
    adapted = np.linalg.solve(BRADFORD, cones[:, None] * (BRADFORD @ matrix))
    tags = {tag: _xyz(adapted[:, column]) for column, tag in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return _profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma)))


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    description = b"desc" + struct.pack(">II", 0, 5) + b"test\0" + bytes(78)
    tags = {
        b"desc": description,
        b"wtpt": _xyz(D50),
        b"cprt": b"text" + struct.pack(">I", 0) + b"none\0",
        **tags,
    }
    start, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"none", 0x02100000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _fixed(D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _curve(gamma: float) -> bytes:
    return b"curv" + struct.pack(">IIHxx", 0, 1, round(gamma * 256))


def _xyz(values) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(values)


def _fixed(values) -> bytes:
    return struct.pack(">3i", *(round(float(value) * 65536) for value in values))


DISPLAY_P3 = rgb_profile(((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), D65, 2.2)
ADOBE_RGB = rgb_profile(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), D65, 2.19921875)
PROPHOTO = rgb_profile(((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), D50, 1.8)
