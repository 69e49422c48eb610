"""Pass an image to libvips row by row.

libvips asks for pixels when it needs them; networks deliver them when they are done. So libvips reads the
image as a TIFF file while it is written: the header is known at once, and the uncompressed samples follow in
the order in which they are read.
"""

import struct
import threading
from collections import deque
from typing import Any

import numpy as np

from mambair_cli.images.libvips import pyvips

_STRIP_BYTES = 2**18
_BYTES_AHEAD = 2**26  # may wait to be read: most pictures fit, and are encoded while others are computed
_WORD, _LONG8 = 3, 16  # TIFF's numbers of the types


class RowStreamClosedError(Exception):
    """libvips has stopped reading."""


class RowStream:
    """An image that one thread writes by rows while libvips reads it in another.

    Args:
        width: Width, in pixels.
        height: Number of rows.
        bands: 1 gray, 3 RGB.
        extra: Number of further samples of a pixel: alpha and masks.
        dtype: uint8, uint16 or float32.
    """

    def __init__(self, width: int, height: int, bands: int, extra: int, dtype: str) -> None:
        self._dtype = np.dtype(dtype).newbyteorder("<")
        line = width * (bands + extra) * self._dtype.itemsize
        self._header = _tiff_header(width, height, bands, extra, self._dtype, line)
        self._end = len(self._header) + line * height
        self._pieces: deque[memoryview] = deque()
        self._waiting = 0  # bytes
        self._moved = threading.Condition()
        self._piece = memoryview(b"")
        self._given = len(self._header)  # bytes that libvips has read, with the header
        self._position = 0
        self._closed = False

    def put(self, rows: np.ndarray) -> None:
        """Add rows, which must not change afterwards; wait where libvips is far behind.

        Raises:
            RowStreamClosedError: libvips has stopped reading.
        """
        data = np.ascontiguousarray(rows, self._dtype).data.cast("B")
        with self._moved:
            self._moved.wait_for(lambda: self._closed or self._waiting < _BYTES_AHEAD)
            if self._closed:
                raise RowStreamClosedError
            self._pieces.append(data)
            self._waiting += len(data)
            self._moved.notify_all()

    def close(self) -> None:
        """End the stream: the writer gets an error, and the reader a truncated image."""
        with self._moved:
            self._closed = True
            self._moved.notify_all()

    def source(self) -> Any:
        """Return the source that libvips reads; its callbacks run in threads of libvips."""
        source = pyvips.SourceCustom()
        source.on_read(self._read)  # pyright: ignore[reportArgumentType] any buffer does
        source.on_seek(self._seek)
        return source

    def _seek(self, offset: int, whence: int) -> int:
        self._position = (0, self._position, self._end)[whence] + offset
        return self._position

    def _read(self, length: int) -> bytes | memoryview | None:
        if self._position < len(self._header):
            data = self._header[self._position : self._position + length]
            self._position += len(data)
            return data
        if self._position != self._given:  # libvips reads strips in order: it never goes back
            return None
        if not self._piece:
            with self._moved:
                self._moved.wait_for(lambda: self._closed or self._pieces)
                if self._closed:
                    return None
                self._piece = self._pieces.popleft()
                self._waiting -= len(self._piece)
                self._moved.notify_all()
        data, self._piece = self._piece[:length], self._piece[length:]
        self._position += len(data)
        self._given = self._position
        return data


def _tiff_header(width: int, height: int, bands: int, extra: int, dtype: np.dtype, line: int) -> bytes:
    """Return the header of a BigTIFF file whose strips of ``dtype`` follow it."""
    count = bands + extra
    rows = max(1, _STRIP_BYTES // line)
    strips = -(-height // rows)
    tags = {
        256: (_LONG8, [width]),
        257: (_LONG8, [height]),
        258: (_WORD, [8 * dtype.itemsize] * count),
        259: (_WORD, [1]),  # no compression
        262: (_WORD, [2 if bands == 3 else 1]),  # RGB, or gray with black at 0
        273: (_LONG8, [0] * strips),
        277: (_WORD, [count]),
        278: (_LONG8, [rows]),
        279: (_LONG8, [line * rows] * (strips - 1) + [line * (height - rows * (strips - 1))]),
        **({338: (_WORD, [2] * extra)} if extra else {}),  # straight alpha, which libvips does not change
        339: (_WORD, [3 if dtype.kind == "f" else 1] * count),
    }
    end = 16 + 8 + 20 * len(tags) + 8
    sizes = [len(values) * (2 if kind == _WORD else 8) for kind, values in tags.values()]
    end += sum(size for size in sizes if size > 8)  # values too long for their entries
    tags[273] = (_LONG8, [end + line * rows * strip for strip in range(strips)])
    head = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(tags))
    outside = b""
    start = 16 + 8 + 20 * len(tags) + 8
    for tag, (kind, values) in tags.items():
        packed = np.array(values, "<u2" if kind == _WORD else "<u8").tobytes()
        if len(packed) > 8:
            outside, packed = outside + packed, struct.pack("<Q", start + len(outside))
        head += struct.pack("<HHQ8s", tag, kind, len(values), packed)
    return head + bytes(8) + outside
