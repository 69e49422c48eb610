"""How large the file of a picture may be, known before it is written."""

import numpy as np

from mambair_cli.images import DEFAULT_QUALITY, Header
from mambair_cli.images.formats import FORMATS

# Bytes of a file per byte of its samples, up to a quality. Measured of white noise, and of noise of the least
# and largest values alone, and a tenth more: the files of photographs have a fifth of that.
_SHARES = {
    "jpeg": ((75, 0.6), (90, 0.85), (95, 1.1), (98, 1.4), (100, 1.8)),
    "webp": ((75, 0.5), (95, 0.6), (99, 0.65), (100, 1.1)),
    "avif": ((75, 0.6), (95, 1.0), (99, 1.4), (100, 1.6)),
    "png": ((100, 1.015),),
    "tiff": ((100, 1.015),),
    "gif": ((100, 0.65),),
}
_GRAY_JPEG = 1.25  # times the share: among colours, two of three samples are stored more coarsely
_BLOCK = 16  # pixels: sides are filled up to whole blocks
_FRAMEWORK = 4096  # bytes of marks and tables, with a note of what made the picture
_FRAMEWORK_OF_FRAME = 1024
_COPIES_OF_NOTES = 2  # some formats keep notes as hexadecimal digits, or EXIF twice


def largest_file(header: Header, format: str, quality: int | None = None) -> int:
    """Return the number of bytes that the file of a picture may have at most, were it noise.

    Args:
        header: Header of the file, with its metadata, from ``images.fit_header``.
        format: Format of the file.
        quality: Quality of JPEG, WebP and AVIF, 1 to 100; None for the default.
    """
    quality = DEFAULT_QUALITY if quality is None else quality
    share = next((share for limit, share in _SHARES[format] if quality <= limit), _SHARES[format][-1][1])
    samples = header.samples_per_pixel
    width, height = header.width, header.height
    if not FORMATS[format].has_gray or format == "gif":  # whose palette has colours
        samples = 3 + header.has_alpha
    if format in ("jpeg", "webp", "avif"):
        width, height = (-(-side // _BLOCK) * _BLOCK for side in (width, height))
    if format == "jpeg" and header.bands == 1:
        share *= _GRAY_JPEG
    row = width * samples * np.dtype(header.dtype).itemsize * share + 1  # PNG names the filter of each row
    framework = _FRAMEWORK + _FRAMEWORK_OF_FRAME * header.frames
    return int(row * height * header.frames) + framework + _COPIES_OF_NOTES * _size_of_notes(header)


def _size_of_notes(header: Header) -> int:
    blocks = [header.icc, header.exif, header.xmp, header.iptc]
    blocks += [block for page in header.pages for block in (page.exif, page.xmp)]
    texts = sum(len("".join(text).encode("utf-8", "replace")) + len(text) for text in header.texts)
    return sum(map(len, filter(None, blocks))) + texts
