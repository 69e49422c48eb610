"""A look at a picture in its file."""

from mmap import mmap
from pathlib import Path

import numpy as np

from mambair_cli.images.jpeg_quality import read_jpeg_quality
from mambair_cli.images.picture import Header, ReadRows
from mambair_cli.images.samples import to_float
from mambair_cli.images.stretch import Stretch
from mambair_cli.inspection.look import Look, look_at
from mambair_cli.inspection.need import Need, find_need


def look_at_rows(header: Header, read: ReadRows, stretch: Stretch | None = None) -> Look | None:
    """Look at a picture that is read row after row; of several frames, at the first one.

    Args:
        header: Header of the picture.
        read: Reads rows from one to another; called from the top down.
        stretch: How the picture is stretched before it is restored; None if it is not.

    Returns:
        The estimates; None for a picture that is too small to tell, or of which too little can be seen.

    Raises:
        ImageError: The rows cannot be read.
    """
    held: dict[tuple[int, int], np.ndarray] = {}  # rows that were read last

    def read_window(rows: slice, columns: slice) -> np.ndarray:
        place = rows.start, rows.stop
        if place not in held:
            held.clear()
            held[place] = read(*place)
        return to_float(held[place][:, columns, : header.bands + header.has_alpha])

    return look_at(header.height, header.width, read_window, stretch)


def find_need_of(
    source: Path | bytes | mmap, header: Header, read: ReadRows, stretch: Stretch | None = None
) -> Need:
    """Tell what a picture in a file needs.

    Args:
        source: The file, or its bytes.
        header: Header of the picture.
        read: Reads rows, as for :func:`look_at_rows`.
        stretch: How the picture is stretched before it is restored; None if it is not.

    Raises:
        ImageError: The rows cannot be read.
    """
    return find_need(look_at_rows(header, read, stretch), read_jpeg_quality(source))
