"""Refuse the kinds of TIFF files that are not supported, by name."""

from collections.abc import Sequence

from mambair_cli.errors import ImageError
from mambair_cli.images.description import PageLayout, count_pictures
from mambair_cli.images.libvips import LibvipsError, explained
from mambair_cli.images.metadata import extract_exif, find_description
from mambair_cli.images.tiff import Page, choose_pages, have_same_profile, is_camera_raw, read_pages
from mambair_cli.images.tiff_directories import DESCRIPTION
from mambair_cli.images.tiff_oddities import Oddity, find_oddity, name_compression
from mambair_cli.images.tiff_samples import is_negative
from mambair_cli.images.vips_image import FileData, VipsImage

_NO_COMPRESSION = 1


def check_tiff(data: FileData) -> list[Page]:
    """Return the pages of a TIFF file.

    Raises:
        ImageError: The kind of the file is not supported, or pictures in it would be lost.
    """
    pages = read_pages(data.bytes)
    if is_camera_raw(data.bytes, pages):
        raise ImageError(f"cannot read {data.name}: it is a camera's raw file; develop it to TIFF first")
    _check_inner(data.name, pages)
    chosen = choose_pages(pages).numbers
    oddity = next(filter(None, (find_oddity(pages[number]) for number in chosen)), None)
    if chosen and oddity is None:
        oddity = _find_unread(data, pages[chosen[0]], chosen[0]) or _find_hidden(data, pages)
    if oddity is not None:
        raise ImageError(f"cannot read {data.name}: it is a TIFF file {oddity.what}; {oddity.remedy}")
    return pages


def _check_inner(name: str, pages: Sequence[Page]) -> None:
    """Refuse pictures in SubIFDs: they would be lost."""
    for outer in pages:
        for page in outer.inner:
            if page.is_picture:
                size = f"{page.width}×{page.height}"
                what = f"a further picture of {size} is in a SubIFD"
                if not outer.is_picture or page.area > outer.area:
                    what = f"its picture of {size} is in a SubIFD, and a smaller copy in the page"
                raise ImageError(
                    f"cannot read {name}: {what}; save each picture as a file of its own, "
                    "with a program that reads SubIFDs, such as vips or tifffile"
                )


def _find_unread(data: FileData, page: Page, number: int) -> Oddity | None:
    """Find out whether libvips does not support the compression of a page."""
    compression = name_compression(page)
    if compression is None:
        return None
    try:
        with explained(0, "tiff"):
            VipsImage(data, "tiff", False, {number: page}).head.crop(0, 0, 1, 1).write_to_memory()
    except LibvipsError:
        return compression
    return None


def _find_hidden(data: FileData, pages: Sequence[Page]) -> Oddity | None:
    """Find pictures that have no pages: some programs write the samples of a stack behind its only page.

    The description tells how many they are. It may also be that of another file, so they must have room.
    """
    page = pages[0]
    if len(pages) > 1 or page.compression != _NO_COMPRESSION:
        return None
    exif = extract_exif(data.bytes, page.at)
    texts = [find_description(exif), *(text for tag, text in page.repeated if tag == DESCRIPTION)]
    layout = PageLayout(page.width, page.height, page.samples_per_pixel, 1)
    count = max(count_pictures(text, layout) for text in texts)
    size = page.area * page.samples_per_pixel * page.bits // 8
    if count < 2 or count * size > len(data.bytes):
        return None
    return Oddity(f"of {count} pictures in one page", "save each as a page of its own")


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
    if len({(page.extra, is_negative(page)) for page in pages}) > 1:
        what = "differ in size or kind"
    elif len({page.orientation for page in pages}) > 1:
        what = "are rotated differently"
    elif not have_same_profile(data.bytes, pages):
        what, remedy = "differ in their colour profiles", f"convert them to one profile, or {remedy}"
    else:
        return
    raise ImageError(f"cannot read {data.name}: its {len(pages)} pages {what}; {remedy}")
