"""Update XMP packets: sizes, and properties of parts that a result does not have."""

import re
from fractions import Fraction
from typing import NamedTuple

_NAME = rb"[\w.-]+"
_VALUE = rb"\"[^\"]*\"|'[^']*'"
_SEMANTIC = re.compile(rb"Semantic(?:\s*=\s*[\"']|\s*>\s*)(\w+)")


class _LostProperty(NamedTuple):
    """Properties of a part that a result does not have: their namespace and names, and the part if known."""

    namespace: bytes
    names: bytes = _NAME
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
_WHAT_ITEMS_ARE = {b"GainMap": GAIN_MAP, b"MotionPhoto": VIDEO, b"Depth": DEPTH_MAP, b"DepthMap": DEPTH_MAP}


def restate_xmp(xmp: bytes, width: int, height: int) -> bytes:
    """Change an XMP packet so that it describes an upright picture of a size, without thumbnails."""
    values = {
        rb"tiff:Orientation": 1,
        rb"tiff:ImageWidth|exif:PixelXDimension": width,
        rb"tiff:ImageLength|exif:PixelYDimension": height,
    }
    for names, value in values.items():  # as attributes, and as elements
        pattern = rb"((?:%b)(?:\s*=\s*[\"']|\s*>\s*))\d+" % names
        xmp = re.sub(pattern, rb"\g<1>%d" % value, xmp)
    return re.sub(rb"<(xmp|xap):Thumbnails\b.*?</\1:Thumbnails>", b"", xmp, flags=re.DOTALL)


def scale_xmp_resolution(xmp: bytes, factors: tuple[float, float]) -> bytes:
    """Multiply the resolution in a packet by factors, across and down."""
    for name, factor in zip((b"XResolution", b"YResolution"), factors, strict=True):

        def scale(found: re.Match[bytes], factor: float = factor) -> bytes:
            scaled = Fraction(int(found[2]) * factor / max(int(found[3]), 1)).limit_denominator(10**6)
            return found[1] + b"%d/%d" % (scaled.numerator, scaled.denominator)

        xmp = re.sub(rb"(tiff:%b(?:\s*=\s*[\"']|\s*>\s*))(\d{1,10})/(\d{1,10})" % name, scale, xmp)
    return xmp


def drop_lost_parts(xmp: bytes) -> tuple[bytes, list[str]]:
    """Remove the properties of pictures, videos and sound that a file holds besides its main picture.

    Returns:
        The packet, otherwise unchanged, and the names of these parts.
    """
    lost: dict[str, None] = {}
    for entry in _LOST:
        declaration = rb"xmlns:(%b)\s*=\s*([\"'])%b\2" % (_NAME, entry.namespace)
        for prefix in dict.fromkeys(found[1] for found in re.finditer(declaration, xmp)):
            names = rb"%b:(%b)" % (re.escape(prefix), entry.names)
            element = rb"<%b(?=[\s/>])[^>]*?(?:/>|>(.*?)</%b:\1\s*>)\s*" % (names, re.escape(prefix))
            attribute = rb"\s+%b\s*=\s*(?:%b)" % (names, _VALUE)
            found = [*re.finditer(element, xmp, re.DOTALL), *re.finditer(attribute, xmp)]
            if found and entry.what:
                lost[entry.what] = None
            for part in found:
                kinds = (_WHAT_ITEMS_ARE.get(kind) for kind in _SEMANTIC.findall(part[0]))
                lost.update(dict.fromkeys(kind for kind in kinds if kind))
            xmp = re.sub(element, b"", xmp, flags=re.DOTALL)
            xmp = re.sub(attribute, b"", xmp)
            if not re.search(rb"[<\s/]%b:" % re.escape(prefix), xmp):
                declared = rb"\s+xmlns:%b\s*=\s*(?:%b)" % (re.escape(prefix), _VALUE)
                xmp = re.sub(declared, b"", xmp)
    if len(lost) > 1:  # extended XMP then holds a part that is named already
        lost.pop(_EXTENDED, None)
    return xmp, list(lost)
