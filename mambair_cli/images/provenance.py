"""What made a picture, noted in its file: a property of its XMP packet."""

import json
import re
from typing import Any
from xml.sax.saxutils import quoteattr, unescape

from mambair_cli.images.xml_tags import cut, find_attributes, find_elements

NAMESPACE = "urn:mambair:1.0:"
_DESCRIPTION, _MADE = b"rdf:Description", b"mambair:made"
_VALUE = rb"(\"[^\"]*\"|'[^']*')"
_NOTE = re.compile(rb"\b%b=%b" % (_MADE, _VALUE))
_OWN = re.compile(  # an element that has nothing but a note
    rb"<%b\s+rdf:about=\"\"\s+xmlns:mambair=\"%b\"\s+%b=%b\s*/>"
    % (_DESCRIPTION, NAMESPACE.encode(), _MADE, _VALUE)
)
_RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
_END = b"</rdf:RDF>"
_EMPTY = (
    "<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>\n"
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {_RDF}></rdf:RDF></x:xmpmeta>\n'
    "<?xpacket end='r'?>"
).encode()


def add_note(xmp: bytes | None, note: dict[str, Any]) -> bytes:
    """Write what made a picture into its XMP packet, in the place of an earlier note.

    Args:
        xmp: The packet; None where there is none. One that is no XMP of RDF is replaced.
        note: What made it: anything that JSON has.
    """
    packet = xmp if xmp is not None and _END in xmp else _EMPTY
    packet = _drop_notes(packet)
    text = quoteattr(json.dumps(note, ensure_ascii=True))
    made = f'<rdf:Description rdf:about="" xmlns:mambair="{NAMESPACE}" mambair:made={text}/>'.encode()
    place = packet.rindex(_END)
    return packet[:place] + made + packet[place:]


def read_note(xmp: bytes | None) -> dict[str, Any] | None:
    """Return what made a picture, from its XMP packet; None where nothing is noted."""
    found = _NOTE.search(xmp or b"")
    if found is None:
        return None
    text = unescape(found[1][1:-1].decode("utf-8", "replace"), {"&quot;": '"', "&apos;": "'"})
    try:
        note = json.loads(text)
    except ValueError:
        return None
    return note if isinstance(note, dict) else None


def _drop_notes(xmp: bytes) -> bytes:
    """Remove earlier notes; of elements in which other programs have put more, the rest stays."""
    if _MADE not in xmp:
        return xmp
    spans = [(each.start, each.end) for each in find_attributes(xmp) if each.name == _MADE]
    for each in find_elements(xmp):
        start = each.start
        if each.name == _DESCRIPTION and _OWN.fullmatch(xmp, start, each.end):
            while xmp[start - 1 : start].isspace():
                start -= 1
            spans.append((start, each.end))
        elif each.name == _MADE and each.has_end:
            spans.append((start, each.behind))
    return cut(xmp, spans)
