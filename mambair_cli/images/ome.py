"""OME-XML, the description in microscopes' TIFF files: whether it fits its pages, and that of a result.

Only what tells of sizes and of the file itself is changed, where it stands; all other bytes stay:
annotations, instruments, comments, names of namespaces.
"""

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from xml.parsers import expat

_PIXEL_TYPES = {"uint8": "uint8", "uint16": "uint16", "float32": "float"}
_ATTRIBUTE = re.compile(rb"(?<!\s)\s+([^\s=<>\"'/]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_TAG = re.compile(rb"<[^>\"']*(?:(?:\"[^\"]*\"|'[^']*')[^>\"']*)*>")
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_POINT = re.compile(rf"(?<![-+.\w])({_NUMBER}),({_NUMBER})")  # each number is tried once, at its start
_SHAPES = frozenset({"Point", "Line", "Rectangle", "Ellipse", "Polygon", "Polyline", "Label", "Mask"})
_ACROSS = frozenset({"X", "X1", "X2", "Width", "RadiusX"})  # coordinates of shapes, in pixels
_DOWN = frozenset({"Y", "Y1", "Y2", "Height", "RadiusY"})
_ENCODINGS = (None, "iso-8859-1")  # as declared; some programs write µ otherwise than they declare


class Resized(NamedTuple):
    """What becomes of the pages of a file.

    Attributes:
        across: Pixels of the result per pixel of the file, from left to right.
        down: The same from top to bottom.
        width: Width of the result, in pixels.
        height: Height of the result, in pixels.
        samples: Samples per pixel of the result.
        dtype: Type of its samples.
        has_new_dtype: Whether the file has another type.
    """

    across: float
    down: float
    width: int
    height: int
    samples: int
    dtype: str
    has_new_dtype: bool


class UnreadableError(ValueError):
    """A description that is no OME-XML."""


@dataclass
class _Element:
    name: str  # without its namespace
    attributes: dict[str, str]
    start: int
    parent: "_Element | None"
    end: int = 0  # where its end tag begins; that of an empty element is its start tag
    texts: list[str] = field(default_factory=list)  # of identifiers, in pieces

    def number(self, name: str, default: int = 1) -> int:
        """Return an attribute that is an integer.

        Raises:
            UnreadableError: It is none.
        """
        try:
            return int(self.attributes.get(name, default))
        except ValueError as error:
            raise UnreadableError(str(error)) from error


def find_misfit(xml: bytes, width: int, height: int, samples: int, pages: int) -> str | None:
    """Say why a description does not fit the pages of its file; None if it does.

    Args:
        xml: OME-XML.
        width: Width of each page, in pixels.
        height: Height of each page, in pixels.
        samples: Samples per pixel.
        pages: Number of pages.
    """
    try:
        elements = _parse(xml)
        images = _select(elements, "Pixels")
        if _is_part_of_set(elements):
            return "it describes several files"
        sizes = {(each.number("SizeX"), each.number("SizeY")) for each in images}
        if sizes != {(width, height)}:
            found = " and ".join(f"{width}×{height}" for width, height in sorted(sizes))
            return f"it tells of {found or 'no'} pixels, not {width}×{height}"
        if any(each.number("SamplesPerPixel", samples) != samples for each in _select(elements, "Channel")):
            return "it tells of other channels"
        planes = sum(
            each.number("SizeZ") * each.number("SizeT") * max(1, each.number("SizeC") // samples)
            for each in images
        )
        listed = [
            (id(each.parent), each.number("IFD", 0) + each.number("PlaneCount"))
            for each in _select(elements, "TiffData")
            if {"IFD", "PlaneCount"} & set(each.attributes)
        ]
    except UnreadableError:
        return "it cannot be read"
    # A file may have more pages, or fewer planes, if it says for each image which pages are its planes.
    is_listed = {id(each) for each in images} == {image for image, _ in listed}
    if planes != pages and not (is_listed and max(last for _, last in listed) <= pages):
        return f"it tells of {planes} {'page' if planes == 1 else 'pages'}, not {pages}"
    return None


def restate_ome(xml: bytes, result: Resized) -> bytes:
    """Change a description that fits its file so that it describes a result.

    Sizes of images and of their pixels, the type of samples, and regions become those of the result. The
    file's own identifier is removed, since the result is another file.

    Raises:
        UnreadableError: It is no OME-XML.
    """
    elements = _parse(xml)
    edits: list[tuple[int, int, bytes]] = []
    transformed = {id(each.parent) for each in elements if each.name == "Transform"}
    for each in elements:
        tag = _read_tag(xml, each)
        if each.name == "UUID" and each.parent is not None and each.parent.name == "TiffData":
            end = each.end if each.end == each.start else each.end + len(_read_tag(xml, each, each.end))
            edits.append((each.start, max(end, each.start + len(tag)), b""))
            continue
        changes = _change_attributes(each, result, id(each) in transformed)
        changed = _edit_tag(tag, changes)
        if each.name == "Mask" and id(each) not in transformed and changes:  # its bits keep their number
            changed = tag + _make_transform(tag, result)
        if changed != tag:
            edits.append((each.start, each.start + len(tag), changed))
    pieces, at = [], 0
    for start, end, by in edits:
        pieces += [xml[at:start], by]
        at = end
    return b"".join([*pieces, xml[at:]])


def _change_attributes(element: _Element, result: Resized, is_transformed: bool) -> dict[str, str | None]:
    """Return the attributes of an element that change; None for those that go."""
    held = element.attributes
    if element.parent is None:
        return {"UUID": None}
    if element.name == "Pixels":
        changes = _scale(held, {"PhysicalSizeX": 1 / result.across, "PhysicalSizeY": 1 / result.down})
        pixel_type = _PIXEL_TYPES[result.dtype]
        changes |= {"SizeX": str(result.width), "SizeY": str(result.height), "BigEndian": "false"}
        changes |= {"Type": pixel_type, "PixelType": pixel_type}
        return changes | ({"SignificantBits": None} if result.has_new_dtype else {})
    if (result.across, result.down) == (1, 1):
        return {}
    if element.name == "Transform":
        factors = {f"A0{column}": result.across for column in range(3)}
        factors |= {f"A1{column}": result.down for column in range(3)}
        return _scale(held, factors)
    if element.name not in _SHAPES or is_transformed:
        return {}
    factors = dict.fromkeys(_ACROSS, result.across) | dict.fromkeys(_DOWN, result.down)
    changes = _scale(held, factors)
    if "Points" in held:
        changes["Points"] = _POINT.sub(lambda point: _scale_point(point, result), held["Points"])
    return changes


def _scale(held: dict[str, str], factors: dict[str, float]) -> dict[str, str | None]:
    """Return the attributes that are numbers, each multiplied by its factor."""
    changes: dict[str, str | None] = {}
    for name, factor in factors.items():
        if name in held and factor != 1:
            try:
                changes[name] = f"{float(held[name]) * factor:.15g}"
            except ValueError:
                continue
    return changes


def _scale_point(point: re.Match[str], result: Resized) -> str:
    x, y = float(point[1]) * result.across, float(point[2]) * result.down
    return f"{x:.15g},{y:.15g}"


def _make_transform(tag: bytes, result: Resized) -> bytes:
    """Return an element that scales the shape whose start tag is given, with the tag's prefix."""
    prefix, colon, _ = tag[1:].split()[0].rpartition(b":")
    values = f'A00="{result.across:.15g}" A01="0" A02="0" A10="0" A11="{result.down:.15g}" A12="0"'
    return b"<" + prefix + colon + b"Transform " + values.encode() + b"/>"


def _edit_tag(tag: bytes, changes: dict[str, str | None]) -> bytes:
    """Change or remove attributes that a start tag has."""

    def change(found: re.Match[bytes]) -> bytes:
        name = found[1].decode("latin-1")
        if name not in changes:
            return found[0]
        value = changes[name]
        if value is None:
            return b""
        start, end = (place - found.start() for place in found.span(3 if found[2] is None else 2))
        return found[0][:start] + value.encode() + found[0][end:]

    return _ATTRIBUTE.sub(change, tag)


def _is_part_of_set(elements: list[_Element]) -> bool:
    """Tell whether a description names other files, or only the file that has the description."""
    named = {"".join(each.texts).strip() for each in _select(elements, "UUID")}
    own = elements[0].attributes.get("UUID")
    return bool(_select(elements, "BinaryOnly")) or len(named | ({own} if own and named else set())) > 1


def _select(elements: list[_Element], name: str) -> list[_Element]:
    return [each for each in elements if each.name == name]


def _read_tag(xml: bytes, element: _Element, at: int | None = None) -> bytes:
    """Return the start tag of an element, or the tag at an offset."""
    found = _TAG.match(xml, element.start if at is None else at)
    if found is None:
        raise UnreadableError("a tag has no end")
    return found[0]


def _parse(xml: bytes) -> list[_Element]:
    """Return the elements of a document in their order, the root first.

    Raises:
        UnreadableError: It is not well-formed, or its root is not OME.
    """
    reason = ""
    for encoding in _ENCODINGS:
        try:
            elements = _parse_as(xml, encoding)
        except (expat.ExpatError, LookupError, ValueError) as error:
            reason = str(error)
            continue
        if elements and elements[0].name == "OME":
            return elements
        reason = "its root is another"
    raise UnreadableError(reason)


def _parse_as(xml: bytes, encoding: str | None) -> list[_Element]:
    elements: list[_Element] = []
    open_elements: list[_Element] = []
    parser = expat.ParserCreate(encoding, namespace_separator=" ")

    def start(name: str, attributes: dict[str, str]) -> None:
        parent = open_elements[-1] if open_elements else None
        element = _Element(name.rpartition(" ")[2], attributes, parser.CurrentByteIndex, parent)
        elements.append(element)
        open_elements.append(element)

    def end(_: str) -> None:
        open_elements.pop().end = parser.CurrentByteIndex

    def add_text(text: str) -> None:
        if open_elements[-1].name == "UUID":
            open_elements[-1].texts.append(text)

    def refuse(*_: Any) -> None:
        raise ValueError("it has a document type")  # and so may have entities that grow without end

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = add_text, refuse
    parser.Parse(xml, True)
    return elements
