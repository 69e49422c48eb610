"""Read TIFF files of 64-bit floats, which libvips does not read, as 32-bit floats."""

import logging
from io import BytesIO
from typing import Any

import numpy as np

from mambair_cli.errors import ImageError
from mambair_cli.images.lazy_image import LazyImage
from mambair_cli.images.metadata import extract_exif
from mambair_cli.images.picture import Metadata
from mambair_cli.images.row_reader import wrap
from mambair_cli.images.tiff import PROFILE, choose_pages, read_pages
from mambair_cli.images.tiff_directories import ORIENTATION, XMP
from mambair_cli.images.tiff_samples import settle_samples, sort_samples

_NO_COMPRESSION, _DEFLATE = 1, (8, 32946)
_WHITE_IS_ZERO = 0
_COLOURS = {_WHITE_IS_ZERO: 1, 1: 1, 2: 3}  # by TIFF's photometric interpretation: gray, gray, RGB

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # without a handler it prints to stderr


def read_float64_tiff(data: bytes, name: str) -> LazyImage:
    """Read the header of a file.

    Args:
        data: Bytes of the file.
        name: Name of the file, for errors.

    Raises:
        ImageError: Its compression is not supported, or it has several pages.
        ValueError: It is corrupt.
    """
    try:
        return _read_header(data, name)
    except (TypeError, AttributeError) as error:  # tags of types that tifffile does not expect
        raise ValueError(str(error)) from error


def _read_header(data: bytes, name: str) -> LazyImage:
    import tifffile

    pages = read_pages(data)
    choice = choose_pages(pages)
    with tifffile.TiffFile(BytesIO(data)) as file:
        page = file.pages[choice.numbers[0]]
        assert isinstance(page, tifffile.TiffPage)
        if (oddity := _find_oddity(page, len(choice.numbers))) is not None:
            raise ImageError(
                f"cannot read {name}: it is a TIFF file of 64-bit floats and {oddity}; "
                "convert it to 32-bit floats first"
            )
        colours = _COLOURS[int(page.photometric)]
        extra = tuple(int(kind) for kind in page.extrasamples) or None
        is_negative = int(page.photometric) == _WHITE_IS_ZERO
        samples = sort_samples(colours, page.samplesperpixel - colours, extra, is_negative)
        orientation = page.tags.valueof(ORIENTATION, 1)
        icc, xmp = page.tags.valueof(PROFILE), page.tags.valueof(XMP)
        height, width = int(page.imagelength), int(page.imagewidth)
    turned = (width, height) if orientation >= 5 else (height, width)

    def load() -> np.ndarray:
        with tifffile.TiffFile(BytesIO(data)) as file:
            page = file.pages[choice.numbers[0]]
            try:
                image = page.asarray()
            except (TypeError, AttributeError) as error:
                raise ValueError(str(error)) from error
            if int(page.planarconfig) == 2 and image.ndim == 3:
                image = np.moveaxis(image, 0, 2)
        with np.errstate(over="ignore"):  # reported later as out of range
            image = image.reshape(height, width, -1).astype(np.float32)
        image = settle_samples(wrap(image, colours), samples).numpy().reshape(height, width, -1)
        return _turn_upright(image, orientation)

    return LazyImage(
        (*turned, len(samples.order)),
        "float32",
        load,
        bands=colours,
        masks=samples.masks,
        icc=icc,
        metadata=Metadata(exif=extract_exif(data, pages[choice.numbers[0]].at), xmp=xmp),
        warnings=choice.remarks,
    )


def _find_oddity(page: Any, pages: int) -> str | None:
    """Say why a file is not supported; None where it is."""
    import tifffile

    predictor = int(page.predictor)
    if pages > 1:
        return f"has {pages} pages"
    if int(page.compression) not in (_NO_COMPRESSION, *_DEFLATE) or predictor != 1:
        how = tifffile.COMPRESSION(page.compression).name
        return f"is compressed by {how}" + (f" with predictor {predictor}" if predictor != 1 else "")
    if int(page.photometric) not in _COLOURS:
        return f"is of kind {tifffile.PHOTOMETRIC(page.photometric).name}"
    return None


def _turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation, 1 to 8."""
    if orientation in (3, 4, 6, 7):
        image = image[::-1]
    if orientation in (2, 3, 7, 8):
        image = image[:, ::-1]
    return image.swapaxes(0, 1) if orientation >= 5 else image
