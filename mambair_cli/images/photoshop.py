"""Read the resources that Photoshop puts into JPEG and TIFF files: IPTC, paths, thumbnails and settings.

Source: Adobe Photoshop File Formats Specification, "Image Resources Section".
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple

MARK = b"Photoshop 3.0\0"  # begins each block of a JPEG file
_SIGNATURE = b"8BIM"
_IPTC, _THUMBNAILS = 0x0404, (1033, 1036)
_PATHS = frozenset([1025, *range(2000, 2999)])  # the one that is being drawn, and those that have names
_CLIPPING = 2999  # name of the path along which the picture is cut out
_LEAST = 12  # bytes of a resource
_LONGEST = 65533 - len(MARK)  # bytes of a block of a JPEG file
PATHS = "paths of Photoshop"


class Resource(NamedTuple):
    """A resource: its number, its content, and all of its bytes."""

    kind: int
    content: bytes
    whole: bytes


def read_resources(blocks: Iterable[bytes]) -> list[Resource]:
    """Read the resources in blocks, without their marks; one may go on in the next block.

    Args:
        blocks: Bytes of the blocks. What is malformed ends them.
    """
    resources = []
    data, at = bytearray(), 0
    for block in blocks:
        data += block
        at += data.startswith(b"\0" + _SIGNATURE, at)  # ends the resource before
        while (resource := _read_resource(data, at)) is not None:
            resources.append(resource)
            at += len(resource.whole)
    return resources


def _read_resource(data: bytearray, at: int) -> Resource | None:
    """Read the resource at an offset; None where it is not whole."""
    if not data.startswith(_SIGNATURE, at) or len(data) < at + _LEAST:
        return None
    start = at + 6 + (data[at + 6] // 2 + 1) * 2  # past a name, whose length comes first, to an even offset
    length = int.from_bytes(data[start : start + 4], "big")
    end = start + 4 + length
    if end > len(data):
        return None
    (kind,) = struct.unpack_from(">H", data, at + 4)
    return Resource(kind, bytes(data[start + 4 : end]), bytes(data[at : end + length % 2]))


def carry_resources(blocks: Iterable[bytes], is_turned: bool) -> tuple[bytes | None, bool]:
    """Choose the resources that a result may have: none that shows the picture as it was, IPTC first.

    Args:
        blocks: Bytes of the blocks in a JPEG file, without their marks.
        is_turned: Whether the picture is turned upright, which its paths are not.

    Returns:
        A block with a mark, None for none; and whether paths are left out.
    """
    resources = read_resources(blocks)
    left_out = {*_THUMBNAILS, *(_PATHS if is_turned else ())}
    kept = [each for each in resources if each.kind not in left_out]
    block = b""
    for each in sorted(kept, key=lambda each: each.kind != _IPTC):
        whole = each.whole + bytes(len(each.whole) % 2)
        if each.kind == _IPTC or len(block) + len(whole) <= _LONGEST:
            block += whole
        else:
            left_out.add(each.kind)
    return MARK + block if block else None, any(each.kind in _PATHS & left_out for each in resources)


def find_paths(block: bytes | None) -> bytes:
    """Return the paths in a block with a mark, and which of them cuts the picture out; empty for none."""
    return keep_paths(read_resources([block.removeprefix(MARK)])) if block else b""


def find_iptc_in(block: bytes | None) -> bytes | None:
    """Return the IPTC in a block with a mark; None where there is none."""
    return find_iptc_records(read_resources([block.removeprefix(MARK)])) if block else None


def keep_paths(resources: Iterable[Resource]) -> bytes:
    """Return the same of resources."""
    kept = [each for each in resources if each.kind in _PATHS or each.kind == _CLIPPING]
    if all(each.kind == _CLIPPING for each in kept):
        return b""
    return b"".join(each.whole + bytes(len(each.whole) % 2) for each in kept)


def add_paths(block: bytes | None, paths: bytes) -> bytes | None:
    """Add paths to a block with a mark; None where it has no room for them."""
    added = (block or MARK) + paths
    return added if len(added) <= _LONGEST + len(MARK) else None


def find_iptc_records(resources: Iterable[Resource]) -> bytes | None:
    """Return the IPTC among resources; None where there is none."""
    return next((each.content for each in resources if each.kind == _IPTC), None)


def wrap_iptc(records: bytes) -> bytes:
    """Return a block of a JPEG file with IPTC alone."""
    head = MARK + _SIGNATURE + struct.pack(">HHI", _IPTC, 0, len(records))
    return head + records + bytes(len(records) % 2)
