"""How large the file of a picture may be, known before it is written."""

import numpy as np

from mambair_cli.images import DEFAULT_QUALITY, Header
from mambair_cli.images.formats import FORMATS

_FRAMEWORK = 4096  # bytes of marks and tables, with a note of what made the picture
_FRAMEWORK_OF_FRAME = 1024
_COPIES_OF_NOTES = 2  # some formats keep notes as hexadecimal digits, or EXIF twice


def largest_file(header: Header, format: str, quality: int | None = None) -> int:
    """Return the number of bytes that the file of a picture may have at most, were it noise.

    Args:
        header: Header of the file, with its metadata, from ``images.fit_header``.
        format: Format of the file.
        quality: Quality, 1 to 100, of formats that have one; None for the default.
    """
    quality = DEFAULT_QUALITY if quality is None else quality
    room = FORMATS[format]
    share = next((share for limit, share in room.noise if quality <= limit), room.noise[-1][1])
    if header.bands == 1:
        share *= room.gray_noise
    samples = header.samples_per_pixel if room.has_gray else 3 + header.has_alpha
    width, height = (-(-side // room.block) * room.block for side in (header.width, header.height))
    row = width * samples * np.dtype(header.dtype).itemsize * share + 1  # PNG names the filter of each row
    framework = _FRAMEWORK + _FRAMEWORK_OF_FRAME * header.frames
    return int(row * height * header.frames) + framework + _COPIES_OF_NOTES * _size_of_notes(header)


def _size_of_notes(header: Header) -> int:
    notes = header.metadata, *header.pages
    blocks = [header.icc, *(block for each in notes for block in (each.exif, each.xmp, each.iptc))]
    texts = [text for each in notes for text in each.texts]
    length = sum(len("".join(text).encode("utf-8", "replace")) + len(text) for text in texts)
    return sum(map(len, filter(None, blocks))) + length
