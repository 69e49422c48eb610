"""Read the largest image of a Windows icon, with Pillow."""

import struct
from io import BytesIO

import numpy as np

from mambair_cli.images.lazy_image import LazyImage

_PNG_SIZE_AT, _BITMAP_SIZE_AT = 16, 4
_MOST_PIXELS = 2**24  # far more than icons have; Pillow decodes them before it checks the size


def read_icon(data: bytes, name: str) -> LazyImage:
    """Read the header of a file.

    Args:
        data: Bytes of the file.
        name: Name of the file, for errors.

    Raises:
        ValueError, struct.error and others: It is corrupt.
    """
    from PIL.IcoImagePlugin import IcoFile  # its ImageFile warns where sizes differ from the directory

    icons = IcoFile(BytesIO(data))
    entries = icons.entry
    largest = max(range(len(entries)), key=lambda index: (entries[index].square, entries[index].color_depth))
    at = entries[largest].offset
    is_png = data[at : at + 4] == b"\x89PNG"
    place = at + (_PNG_SIZE_AT if is_png else _BITMAP_SIZE_AT)
    width, height = struct.unpack_from(">II" if is_png else "<II", data, place)
    if width * height > _MOST_PIXELS:
        raise ValueError(f"its header says {width}×{height} pixels")
    image = icons.frame(largest)
    mode = image.mode if image.mode in ("L", "RGB") else "RGBA"
    count = len(icons.sizes())
    remark = f"the largest of its {count} sizes is read, {image.width}×{image.height}"
    return LazyImage(
        (image.height, image.width, len(mode)),
        "uint8",
        lambda: np.array(image.convert(mode)),
        warnings=(remark,) if count > 1 else (),
    )
