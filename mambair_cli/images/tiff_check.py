"""Refuse the kinds of TIFF files that are not supported, by name."""

from mambair_cli.errors import ImageError
from mambair_cli.images.libvips import LibvipsError, explained
from mambair_cli.images.tiff import (
    Page,
    choose_pages,
    has_gray_planes,
    is_camera_raw,
    name_compression,
    read_pages,
)
from mambair_cli.images.vips_image import FileData, VipsImage


def check_tiff(data: FileData) -> list[Page]:
    """Return the pages of a TIFF file.

    Raises:
        ImageError: The kind of the file is not supported.
    """
    if is_camera_raw(data.bytes):
        raise ImageError(f"cannot read {data.name}: it is a camera's raw file; develop it to TIFF first")
    if has_gray_planes(data.bytes):
        raise ImageError(
            f"cannot read {data.name}: gray and alpha are in separate planes; save them interleaved"
        )
    pages = read_pages(data.bytes)
    chosen = choose_pages(pages).numbers
    oddity = pages[chosen[0]].oddity if chosen else None
    if chosen and oddity is None and (compression := name_compression(pages[chosen[0]])) is not None:
        try:
            with explained():
                VipsImage(data, "tiff", False, chosen[:1]).head.crop(0, 0, 1, 1).write_to_memory()
        except LibvipsError:
            oddity = f"compressed by {compression}"
    if oddity is not None:
        raise ImageError(
            f"cannot read {data.name}: it is a TIFF file {oddity}; "
            "convert it to gray or RGB of 8 or 16 bits, uncompressed or by deflate"
        )
    return pages
