"""Tell the kinds of TIFF files that are not read, and name them."""

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


def look_at_tiff(data: FileData) -> list[Page]:
    """Read what a TIFF file says of its pages.

    Raises:
        ImageError: It is of a kind that is not read.
    """
    if is_camera_raw(data.bytes):
        raise ImageError(f"cannot read {data.name}: it is a camera's raw file; develop it to TIFF first")
    if has_gray_planes(data.bytes):
        raise ImageError(
            f"cannot read {data.name}: gray and alpha lie in planes of their own; save it with them together"
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
