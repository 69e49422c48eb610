"""Feed libvips an image row after row.

libvips asks for pixels when it wants them; networks hand them over when they have them. So an image goes to
libvips as a TIFF file that is read while it comes into being: its header is known at once, and its samples,
uncompressed, follow in the order in which they are read.
"""

import struct
import threading
from collections import deque
from typing import Any

import numpy as np
import pyvips

_STRIP_BYTES = 2**18
_BYTES_AHEAD = 2**26  # that may wait to be read: most pictures are handed over whole, and encoded behind
_WORD, _LONG8 = 3, 16  # TIFF's numbers of the types


class FeedClosedError(Exception):
    """Nobody reads any more."""


class Feed:
    """An image that is written on one side, by rows, and read on the other, by libvips in another thread.

    Args:
        width: In pixels.
        height: Rows that will come.
        bands: 1 gray, 3 RGB.
        extra: Further samples of a pixel, the first of them alpha or none.
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
        self._given = len(self._header)  # bytes that were handed to libvips, header included
        self._position = 0
        self._closed = False

    def put(self, rows: np.ndarray) -> None:
        """Add rows, which are the feed's from now on, waiting for libvips where it lags far behind.

        Raises:
            FeedClosedError: libvips has ended.
        """
        data = np.ascontiguousarray(rows, self._dtype).data.cast("B")
        with self._moved:
            self._moved.wait_for(lambda: self._closed or self._waiting < _BYTES_AHEAD)
            if self._closed:
                raise FeedClosedError
            self._pieces.append(data)
            self._waiting += len(data)
            self._moved.notify_all()

    def close(self) -> None:
        """End: whoever writes gets an error, and whoever reads, an image that is cut short."""
        with self._moved:
            self._closed = True
            self._moved.notify_all()

    def source(self) -> Any:
        """Return what libvips reads; its callbacks run in libvips' threads."""
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
        if self._position != self._given:  # at the end, or back: neither happens with strips in order
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
    """Lay out a BigTIFF file whose strips follow its header, its samples of ``dtype``."""
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
        **({338: (_WORD, [2] * extra)} if extra else {}),  # alpha, not premultiplied: nothing is made of it
        339: (_WORD, [3 if dtype.kind == "f" else 1] * count),
    }
    end = 16 + 8 + 20 * len(tags) + 8
    sizes = [len(values) * (2 if kind == _WORD else 8) for kind, values in tags.values()]
    end += sum(size for size in sizes if size > 8)  # values that have no room in their entries
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
