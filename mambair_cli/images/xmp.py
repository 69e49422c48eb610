"""Update XMP packets: sizes, and properties of parts that a result does not have."""

import re
from fractions import Fraction
from typing import NamedTuple

from mambair_cli.images.xml_tags import (
    Span,
    cut,
    edit_outermost,
    field_of,
    find_attributes,
    find_elements,
    merge,
)

_ANY_NAME = rb"[\w.-]+"
_SEMANTIC = re.compile(field_of(b"Semantic", rb"\w+"))


class _LostProperty(NamedTuple):
    """Properties of a part that a result does not have: their namespace and names, and the part if known."""

    namespace: bytes
    names: bytes = _ANY_NAME
    what: str | None = None


_EXTENDED = "extended XMP"
GAIN_MAP, VIDEO, DEPTH_MAP = "gain map", "video", "depth map"

_LOST = (
    _LostProperty(rb"http://ns\.adobe\.com/hdr-gain-map/1\.0/", what=GAIN_MAP),
    _LostProperty(rb"http://ns\.apple\.com/HDRGainMap/1\.0/", what=GAIN_MAP),
    _LostProperty(rb"http://ns\.google\.com/photos/1\.0/camera/", rb"(?:MotionPhoto|MicroVideo)\w*", VIDEO),
    _LostProperty(rb"http://ns\.google\.com/photos/1\.0/depthmap/", what=DEPTH_MAP),
    _LostProperty(rb"http://ns\.google\.com/photos/dd/1\.0/\w+/", what=DEPTH_MAP),
    _LostProperty(rb"http://ns\.apple\.com/depthData/1\.0/", what=DEPTH_MAP),
    _LostProperty(rb"http://ns\.google\.com/photos/1\.0/focus/"),
    _LostProperty(rb"http://ns\.apple\.com/pixeldatainfo/1\.0/"),
    _LostProperty(rb"http://ns\.google\.com/photos/1\.0/image/", what="picture before it was edited"),
    _LostProperty(rb"http://ns\.google\.com/photos/1\.0/audio/", what="sound"),
    _LostProperty(rb"http://ns\.google\.com/photos/1\.0/container/"),
    _LostProperty(rb"http://ns\.google\.com/photos/1\.0/container/item/"),
    _LostProperty(rb"http://ns\.adobe\.com/xmp/note/", rb"HasExtendedXMP", _EXTENDED),
)
# By the first bytes: a byte order mark, or the "<" of the first tag; those of four bytes come first.
_ENCODINGS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"<\0\0\0": "utf-32-le",
    b"\0\0\0<": "utf-32-be",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"<\0": "utf-16-le",
    b"\0<": "utf-16-be",
}
_THUMBNAILS = (b"xmp:Thumbnails", b"xap:Thumbnails")
_PREFIX = re.compile(rb"(?<=[<\s/])(%b):" % _ANY_NAME)
_DECLARATION = b"xmlns:"
_WHAT_ITEMS_ARE = {b"GainMap": GAIN_MAP, b"MotionPhoto": VIDEO, b"Depth": DEPTH_MAP, b"DepthMap": DEPTH_MAP}


def to_utf8(xmp: bytes) -> bytes:
    """Return a packet in UTF-8, the only encoding for which files of images have room; a broken one stays."""
    encoding = next((name for mark, name in _ENCODINGS.items() if xmp.startswith(mark)), None)
    if encoding is None:
        return xmp
    try:
        return xmp.decode(encoding).encode()
    except UnicodeDecodeError:
        return xmp


def restate_xmp(xmp: bytes, width: int, height: int) -> bytes:
    """Change an XMP packet so that it describes an upright picture of a size, without thumbnails."""
    values = {
        rb"tiff:Orientation": 1,
        rb"tiff:ImageWidth|exif:PixelXDimension": width,
        rb"tiff:ImageLength|exif:PixelYDimension": height,
    }
    for names, value in values.items():  # as attributes, and as elements
        xmp = re.sub(field_of(names, rb"\d+"), rb"\g<1>%d" % value, xmp)
    return edit_outermost(xmp, _THUMBNAILS, lambda _: b"")


def scale_xmp_resolution(xmp: bytes, factors: tuple[float, float]) -> bytes:
    """Multiply the resolution in a packet by factors, across and down."""
    for name, factor in zip((b"XResolution", b"YResolution"), factors, strict=True):

        def scale(found: re.Match[bytes], factor: float = factor) -> bytes:
            scaled = Fraction(int(found[3]) * factor / max(int(found[4]), 1)).limit_denominator(10**6)
            return found[1] + b"%d/%d" % (scaled.numerator, scaled.denominator)

        xmp = re.sub(field_of(b"tiff:" + name, rb"(\d{1,10})/(\d{1,10})"), scale, xmp)
    return xmp


def drop_lost_parts(xmp: bytes) -> tuple[bytes, list[str]]:
    """Remove the properties of pictures, videos and sound that a file holds except its main picture.

    Returns:
        The packet, otherwise unchanged, and the names of these parts.
    """
    declared = _find_lost(xmp)
    if not declared:
        return xmp, []
    properties = [(each.name, each.start, each.end) for each in find_attributes(xmp)]
    properties += [(each.name, each.start, each.behind) for each in find_elements(xmp) if each.has_end]
    spans: list[Span] = []
    named: set[str | None] = set()
    for name, start, end in properties:
        prefix, _, local = name.partition(b":")
        for entry in declared.get(prefix, ()):
            if re.fullmatch(entry.names, local):
                spans.append((start, end))
                named.add(entry.what)
    spans = merge(spans)
    lost = dict.fromkeys(entry.what for entry in _LOST if entry.what and entry.what in named)
    kinds = (found[2] for start, end in spans for found in _SEMANTIC.finditer(xmp, start, end))
    lost |= dict.fromkeys(_WHAT_ITEMS_ARE[kind] for kind in kinds if kind in _WHAT_ITEMS_ARE)
    if len(lost) > 1:  # extended XMP then holds a part that is named already
        lost.pop(_EXTENDED, None)
    xmp = cut(xmp, spans)
    unused = declared.keys() - set(_PREFIX.findall(xmp))
    declarations = (each for each in find_attributes(xmp) if each.name.startswith(_DECLARATION))
    unneeded = (each for each in declarations if each.name[len(_DECLARATION) :] in unused)
    return cut(xmp, ((each.start, each.end) for each in unneeded)), list(lost)


def _find_lost(xmp: bytes) -> dict[bytes, list[_LostProperty]]:
    """Find the prefixes that a packet declares for properties of lost parts."""
    declared: dict[bytes, list[_LostProperty]] = {}
    for each in find_attributes(xmp):
        if each.name.startswith(_DECLARATION):
            for entry in _LOST:
                if re.fullmatch(entry.namespace, each.value):
                    entries = declared.setdefault(each.name[len(_DECLARATION) :], [])
                    entries += [entry] if entry not in entries else []
    return declared
