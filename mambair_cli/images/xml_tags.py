"""Find elements and attributes in XML by the places of their bytes, also where it is not well-formed.

Packets of cameras and programs may be cut short or broken, and what is kept of them stays byte for byte. Each
byte is looked at a fixed number of times: a packet may have a gigabyte.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

_NAME = rb"[\w.-]+:[\w.-]+"
_QUOTED = rb"\"[^\"<]*\"|'[^'<]*'"
# Up to a ">" outside quotes, or where quotes have no end, up to the first one.
_IN_TAG = rb"(?:[^<>\"']*(?:(?:%b)[^<>\"']*)*|[^<>]*)" % _QUOTED
_TAG = re.compile(rb"<(/?)(%b)(?=[\s/>])%b>(\s*)" % (_NAME, _IN_TAG))
# Values are looked at, not passed over: a quote without an end must not hide what follows.
_ATTRIBUTE = re.compile(rb"(?<!\s)\s+(%b)\s*=\s*(?=(\"[^\"]*\"|'[^']*'))" % _NAME)

# Limits keep hostile packets from taking hours, and numbers finite.
NUMBER = rb"[-+]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][-+]?\d{1,2})?(?![\w.])"

Span = tuple[int, int]
"""Where bytes begin and end."""


class Element(NamedTuple):
    """An element.

    Attributes:
        name: Its name, with a prefix.
        start: Where its start tag begins.
        inside: Where its start tag ends.
        end: Where its end tag ends; where it is empty or has no end, as ``inside``.
        behind: Where the white space behind that ends.
        has_end: Whether its end is there.
    """

    name: bytes
    start: int
    inside: int
    end: int
    behind: int
    has_end: bool


class Attribute(NamedTuple):
    """An attribute: its name with a prefix, its value without quotes, and its place with the space before."""

    name: bytes
    value: bytes
    start: int
    end: int


def find_elements(xml: bytes) -> list[Element]:
    """Return all elements whose names have prefixes, in the order of their start tags."""
    elements: list[Element] = []
    unclosed: list[int] = []
    numbers: dict[bytes, list[int]] = {}  # of those that are not closed, by name
    for tag in _TAG.finditer(xml):
        name, end, behind = tag[2], *tag.span(3)
        if not tag[1]:
            is_empty = xml[end - 2 : end] == b"/>"
            if not is_empty:
                unclosed.append(len(elements))
                numbers.setdefault(name, []).append(len(elements))
            elements.append(Element(name, tag.start(), end, end, behind, is_empty))
        elif numbers.get(name):
            while True:  # elements inside that have no end of their own do not count any more
                number = unclosed.pop()
                inner = elements[number]
                numbers[inner.name].pop()
                if inner.name == name:
                    break
            elements[number] = inner._replace(end=end, behind=behind, has_end=True)
    return elements


def find_attributes(xml: bytes) -> Iterator[Attribute]:
    """Yield all attributes whose names have prefixes."""
    for found in _ATTRIBUTE.finditer(xml):
        yield Attribute(found[1], found[2][1:-1], found.start(), found.end(2))


def find_outermost(xml: bytes, names: Collection[bytes]) -> list[Element]:
    """Return the elements of some names, but for those without an end or inside another one of these."""
    if not any(name in xml for name in names):
        return []
    found: list[Element] = []
    for each in find_elements(xml):
        if each.name in names and each.has_end and not (found and each.start < found[-1].end):
            found.append(each)
    return found


def edit_outermost(xml: bytes, names: Collection[bytes], edit: Callable[[bytes], bytes]) -> bytes:
    """Replace each element that :func:`find_outermost` finds by what a function makes of it."""
    pieces, at = [], 0
    for each in find_outermost(xml, names):
        pieces += [xml[at : each.start], edit(xml[each.start : each.end])]
        at = each.end
    return b"".join([*pieces, xml[at:]])


def field_of(name: bytes, value: bytes = NUMBER) -> bytes:
    """Return a pattern for a value that is an attribute or an element; its groups are what is before, and it.

    Args:
        name: Pattern of its name.
        value: Pattern of the value; by default a number.
    """
    return rb"((?:%b)(?:\s*=\s*[\"']|\s*>\s*))(%b)" % (name, value)


def merge(spans: Iterable[Span]) -> list[Span]:
    """Sort spans, and join those that overlap."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def cut(xml: bytes, spans: Iterable[Span]) -> bytes:
    """Remove spans."""
    pieces, at = [], 0
    for start, end in merge(spans):
        pieces.append(xml[at:start])
        at = end
    return b"".join([*pieces, xml[at:]])
