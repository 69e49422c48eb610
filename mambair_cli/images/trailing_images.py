"""Find further images after the first one of a file, as pipes and cameras write them."""

import re
import struct
from typing import Any

from mambair_cli.errors import ImageError
from mambair_cli.images.gif_blocks import read_gif_facts
from mambair_cli.images.iso_boxes import read_boxes
from mambair_cli.images.jpeg import SCAN, find_end, find_start, read_segments
from mambair_cli.images.png_chunks import read_chunks

_BEGINNINGS = (
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|II\*\0|MM\0\*|P[1-7]\s|"
    rb"BM.{8}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"
)
_PICTURE = re.compile(_BEGINNINGS, re.DOTALL)
_BEHIND_GIF = re.compile(rb"\x3b\0{0,8}(?=" + _BEGINNINGS + rb")", re.DOTALL)
_SIGNATURE_BYTES = 32
_JPEG2000_BOX = b"jP  "
_IMAGE_BRAND = re.compile(rb"avi[fs]|hei[cxms]|hev[cxms]|mi[af]1|msf1")
_APP1, _APP2 = 0xE1, 0xE2
# XMP of these namespaces names the images that follow: gain maps, depth maps and the like.
_DEPENDENT = (
    b"http://ns.google.com/photos/",
    b"http://ns.adobe.com/hdr-gain-map/",
    b"http://ns.apple.com/HDRGainMap/",
    b"http://ns.apple.com/depthData/",
)

# Multi-Picture Format: CIPA DC-007, 5.2.3.
_MPF = b"MPF\0"
_ENTRIES, _ENTRY_BYTES = 0xB002, 16
_KIND_BITS = 0xFFFFFF
_FULL_IMAGES = (0x020001, 0x020002, 0x020003)  # panorama, stereo, several angles


def find_trailing_images(data: Any, format: str, name: str) -> list[str]:
    """Look for images behind a file's first one; smaller previews do not count.

    Args:
        data: Bytes, in memory or of a file.
        format: Format of the first image.
        name: Name of the file, for errors.

    Returns:
        Sentences about images that are not read.

    Raises:
        ImageError: There are more images that are not related to the first.
    """
    try:
        if format in ("avif", "heic"):
            types = [box for box in read_boxes(data, 0, len(data)) if box.kind == b"ftyp"]
            if any(_IMAGE_BRAND.match(data[box.start : box.start + 4]) for box in types[1:]):
                raise several_images_error(name)
            return []
        if format == "jpeg":
            return _find_behind_jpeg(data, name)
        if _is_followed(data, format):
            raise several_images_error(name)
    except (struct.error, IndexError):
        pass  # the decoder will refuse it
    return []


def several_images_error(name: str) -> ImageError:
    """Return the error for a file that holds several images."""
    return ImageError(
        f"cannot read {name}: it holds several images, one after another; split it into files first, "
        "as with ffmpeg -f image2pipe -i FILE image%03d.png"
    )


def _is_followed(data: Any, format: str) -> bool:
    """Tell whether another image of any format follows the first."""
    if format == "png":
        end = next((chunk.end + 4 for chunk in read_chunks(data) if chunk.kind == b"IEND"), None)
        return end is not None and _PICTURE.match(data[end : end + _SIGNATURE_BYTES]) is not None
    if format in ("webp", "bmp"):
        (length,) = struct.unpack_from("<I", data, 4 if format == "webp" else 2)
        end = length + length % 2 + 8 if format == "webp" else length
        behind = data[end : end + _SIGNATURE_BYTES] if end > _SIGNATURE_BYTES else b""
        return _PICTURE.match(behind) is not None
    if format == "gif":
        trailer = read_gif_facts(data).trailer
        return trailer is not None and _BEHIND_GIF.match(data, trailer) is not None
    if format == "jpeg2000":
        return sum(box.kind == _JPEG2000_BOX for box in read_boxes(data, 0, len(data))) > 1
    return False


def _find_behind_jpeg(data: Any, name: str) -> list[str]:
    kinds: list[int] | None = None
    is_dependent = False
    for segment in read_segments(data, find_start(data)):
        if segment.kind == SCAN:
            end = find_end(data) if kinds is None and not is_dependent else -1
            if end >= 0 and _PICTURE.match(data[end + 2 : end + 2 + _SIGNATURE_BYTES]):
                raise several_images_error(name)
            break
        body = bytes(data[segment.at : segment.end]) if segment.kind in (_APP1, _APP2) else b""
        if segment.kind == _APP2 and body.startswith(_MPF):
            kinds = _read_mpf(body[len(_MPF) :])
        elif segment.kind == _APP1 and any(space in body for space in _DEPENDENT):
            is_dependent = True
    further = [kind for kind in kinds or [] if kind in _FULL_IMAGES or (kind == 0 and not is_dependent)]
    return [name_read_image(1, len(further) + 1)] if further else []


def _read_mpf(block: bytes) -> list[int]:
    """Return the kinds of the images after the first."""
    order = "<" if block[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", block, 4)
    (number,) = struct.unpack_from(f"{order}H", block, at)
    for entry in range(number):
        tag, _, length, place = struct.unpack_from(f"{order}HHII", block, at + 2 + 12 * entry)
        if tag == _ENTRIES:
            starts = range(place + _ENTRY_BYTES, min(place + length, len(block) - 3), _ENTRY_BYTES)
            return [struct.unpack_from(f"{order}I", block, start)[0] & _KIND_BITS for start in starts]
    return []


def name_read_image(number: int, count: int) -> str:
    """Say which of a file's images is read."""
    return f"only image {number} of {count} in it is read"
