"""Name the blocks of a file that are neither carried over nor technical: no result has them.

Technical are those that tell how pixels are coded, and those that a camera or a program notes for itself.
"""

import re
import struct
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

from mambair_cli.images.gif_blocks import read_gif_facts
from mambair_cli.images.iso_boxes import read_boxes
from mambair_cli.images.jpeg import SCAN, find_start, read_segments
from mambair_cli.images.png_chunks import read_chunks
from mambair_cli.system.wording import enumerate_names, show

CREDENTIALS = "content credentials (C2PA), which would not be valid for the result"

# What a file calls its blocks, and what users call them.
_IN_WORDS = MappingProxyType(
    {
        "caBX": CREDENTIALS,
        "C2PA": CREDENTIALS,
        "C2PA_GIF": CREDENTIALS,
        "oFFs": "place on the page (oFFs)",
        "pCAL": "what samples measure (pCAL)",
        "sCAL": "size of what is seen (sCAL)",
        "sTER": "stereo layout (sTER)",
        "dSIG": "digital signature (dSIG)",
        "APP1 (FLIR)": "measured temperatures (FLIR)",
        "APP3 (_JPSJPS_)": "stereo layout (JPS)",
        "APP11 (HDR_RI)": "HDR picture (JPEG-HDR)",
        "APP12 (Ducky)": "comment or copyright of Photoshop (Ducky)",
        "ICCRGBG1012": "colour profile",
        "XMP DataXMP": "XMP",
    }
)
_MOST_SHOWN = 6  # of those that have no words

_CHUNKS_OF_PNG = frozenset(
    b"IHDR PLTE IDAT IEND tRNS pHYs iCCP sRGB gAMA cHRM cICP eXIf tEXt zTXt iTXt "  # heeded, or kept
    b"acTL fcTL fdAT bKGD hIST sPLT sBIT tIME mDCV mDCv cLLI cLLi gIFg "
    b"CgBI iDOT orNT vpAg caNv".split()  # of Apple and ImageMagick, which write them into many files
)
_CHUNKS_OF_WEBP = frozenset(
    [b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP ", b"JUNK", b"PAD "]
)
_BLOCKS_OF_GIF = (b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ImageMagick")  # how often it is shown; a gamma

_APP0, _APP15 = 0xE0, 0xEF
# Starts of segments of JPEG files that are read elsewhere, or that cameras and programs note for themselves,
# by the numbers of the segments. Those of APP0 are all of that kind.
_SEGMENTS_OF_JPEG = MappingProxyType(
    {
        1: (b"Exif\0", b"http://ns.adobe.com/x", b"QVCI\0"),
        2: (b"ICC_PROFILE\0", b"MPF\0", b"FPXR\0", b"urn:iso:std:iso:ts:21496:"),
        3: (b"Meta\0", b"META\0"),
        4: (b"SCALADO\0", b"FPXR\0", b"\x1aQualcomm"),
        5: (b"ssuniqueid\0",),
        6: (b"EPPIM\0", b"TDHD", b"GoPro\0"),
        7: (b"PENTAX", b"HUAWEI", b"DJI-DBG\0", b"\x1aQualcomm"),
        8: (b"SPIFF\0",),
        10: (b"AROT\0",),
        13: (b"Photoshop 3.0\0", b"Adobe_Photoshop2.5", b"Adobe_CM\0"),
        14: (b"Adobe",),
        15: (b"Q",),
    }
)
_PREVIEWS = (b"\xff\xd8\xff", b"BGTH")
_JPEG_BOX, _JPEG_BOX_HEAD = b"JP", ">2sHII4s"  # identifier, number, number of the part, length and kind
_PICTURE_INFO = b"[picture info]"  # settings, by cameras from before EXIF
_DUCKY, _DUCKY_TEXTS = b"Ducky", (2, 3)  # of Photoshop's "Save for Web": quality, and comment and copyright
_NAME = re.compile(rb"[!-~][ -~]{1,23}")
_START_BYTES = 128  # of a block, in which it says what it is

_UUIDS = MappingProxyType(
    {
        bytes.fromhex("d8fec3d61b0e483c92975828877ec481"): CREDENTIALS,
        bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): "XMP",
        b"JpgTiffExif->JP2": "EXIF",
        bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"): "georeferencing (GeoJP2)",
    }
)


def find_unread(data: Any, format: str) -> tuple[str, ...]:
    """Name what a file holds except its picture and no result has; content credentials come last.

    Args:
        data: Bytes, in memory or of a file.
        format: Format of the file. For TIFF files :func:`mambair_cli.images.tiff_notes.add_notes` does it.

    Source: PNG specification, third edition, 11.3; C2PA specification 2.2, A.3; ExifTool's documentation of
        the segments of JPEG files.
    """
    kinds = {
        "png": ("PNG chunk", _find_chunks),
        "jpeg": ("JPEG segment", _find_segments),
        "webp": ("WebP chunk", _find_in_webp),
        "gif": ("GIF block", _find_in_gif),
    }
    if format in kinds:
        kind, find = kinds[format]
        found = dict.fromkeys(find(data))
        words = [_IN_WORDS[name] for name in found if name in _IN_WORDS]
        others = [show(name) if name.strip() else "without a name" for name in found if name not in _IN_WORDS]
        if others:
            more = [f"{len(others) - _MOST_SHOWN} more"] if len(others) > _MOST_SHOWN else []
            shown = enumerate_names([*others[:_MOST_SHOWN], *more])
            words.append(f"{kind}{'s' * (len(others) > 1)} {shown}")
    else:
        words = list(_find_boxes(data)) if format in ("avif", "heic", "jpeg2000") else []
    return tuple(sorted(dict.fromkeys(words), key=lambda word: word == CREDENTIALS))


def _find_chunks(data: Any) -> Iterator[str]:
    for kind, *_ in read_chunks(data):
        if kind == b"IEND":
            return
        if kind not in _CHUNKS_OF_PNG:
            yield kind.decode("latin-1")


def _find_in_webp(data: Any) -> Iterator[str]:
    at, end = 12, min(8 + int.from_bytes(data[4:8], "little"), len(data))
    while at + 8 <= end:
        kind = bytes(data[at : at + 4])
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if kind not in _CHUNKS_OF_WEBP:
            yield kind.decode("latin-1")
        at += 8 + length + length % 2


def _find_in_gif(data: Any) -> Iterator[str]:
    for name in read_gif_facts(data).applications:
        if name not in _BLOCKS_OF_GIF:
            yield name.decode("latin-1").rstrip("\0\1 ")


def _find_boxes(data: Any) -> Iterator[str]:
    """Name the boxes of an AVIF, HEIC or JPEG 2000 file that hold metadata."""
    for box in read_boxes(data, 0, len(data)):
        start = bytes(data[box.start : min(box.start + _START_BYTES, box.end)])
        if box.kind == b"uuid" and start[:16] in _UUIDS:
            yield _UUIDS[start[:16]]
        elif box.kind == b"jumb" and b"c2pa" in start:
            yield CREDENTIALS
        elif box.kind == b"xml ":
            yield "XML"


def _find_segments(data: Any) -> Iterator[str]:
    last = None
    for segment in read_segments(data, find_start(data)):
        if segment.kind == SCAN:
            return
        number = segment.kind - _APP0
        if _APP0 < segment.kind <= _APP15:
            start = bytes(data[segment.at : min(segment.at + _START_BYTES, segment.end)])
            name = _name_segment(number, start)
            is_more = name == f"APP{number}" and number == last  # a further part of the one before
            if name and not is_more:
                yield name
        last = number


def _name_segment(number: int, start: bytes) -> str | None:
    """Name an application segment of a JPEG file; None where nobody would miss it."""
    if start.startswith((*_PREVIEWS, *_SEGMENTS_OF_JPEG.get(number, ()))) or _PICTURE_INFO in start.lower():
        return None
    if start.startswith(_DUCKY) and not _has_texts(start):
        return None
    if start.startswith(_JPEG_BOX) and len(start) >= struct.calcsize(_JPEG_BOX_HEAD):
        _, _, part, _, kind = struct.unpack_from(_JPEG_BOX_HEAD, start)
        if part > 1:
            return None
        if kind == b"jumb":
            return "C2PA" if b"c2pa" in start else f"APP{number} (JUMBF)"
    name = _NAME.match(start)
    return f"APP{number} ({name[0].decode().strip()})" if name else f"APP{number}"


def _has_texts(ducky: bytes) -> bool:
    """Tell whether Photoshop's segment of "Save for Web" holds more than a quality."""
    at = len(_DUCKY)
    while at + 4 <= len(ducky):
        tag, length = struct.unpack_from(">HH", ducky, at)
        if tag in _DUCKY_TEXTS:
            return True
        at += 4 + length
    return False
