"""Turn image files into arrays and back: depth, alpha, colour, metadata, atomic writes; knows no torch."""

from mambair_cli.images.decoding import MAX_PIXELS, READABLE_SUFFIXES, read_picture
from mambair_cli.images.encoding import (
    DEFAULT_QUALITY,
    WRITABLE_SUFFIXES,
    encode_picture,
    format_of,
    write_picture,
)
from mambair_cli.images.files import open_atomic
from mambair_cli.images.picture import Picture
from mambair_cli.images.samples import from_float, join_luma, split_luma, to_float

__all__ = [
    "DEFAULT_QUALITY",
    "MAX_PIXELS",
    "READABLE_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "Picture",
    "encode_picture",
    "format_of",
    "from_float",
    "join_luma",
    "open_atomic",
    "read_picture",
    "split_luma",
    "to_float",
    "write_picture",
]
