"""Refuse the kinds of TIFF files that are not supported, by name."""

from collections.abc import Sequence

from mambair_cli.errors import ImageError
from mambair_cli.images.libvips import LibvipsError, explained
from mambair_cli.images.tiff import (
    Page,
    choose_pages,
    has_gray_planes,
    have_same_profile,
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


def check_pages(data: FileData, pages: Sequence[Page]) -> None:
    """Refuse pages that cannot be read as one picture after another.

    libvips compares their sizes and samples itself.

    Args:
        data: Data of the file.
        pages: Pages that are read, at least one.

    Raises:
        ImageError: Their profiles, orientations or kinds of samples differ.
    """
    remedy = "split it into single images"
    if len({page.extra for page in pages}) > 1:
        what = "differ in size or kind"
    elif len({page.orientation for page in pages}) > 1:
        what = "are rotated differently"
    elif not have_same_profile(data.bytes, pages):
        what, remedy = "differ in their colour profiles", f"convert them to one profile, or {remedy}"
    else:
        return
    raise ImageError(f"cannot read {data.name}: its {len(pages)} pages {what}; {remedy}")
