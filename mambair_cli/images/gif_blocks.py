"""Read the blocks of a GIF file, since libvips does not notice that a file ends within a frame."""

from typing import Any, Literal, NamedTuple

_HEADER_BYTES = 13
_EXTENSION, _FRAME = 0x21, 0x2C
_COMMENT, _APPLICATION = 0xFE, 0xFF
_FRAME_BYTES = 10
_MOST_BLOCKS = 2**20  # read at most


class GifFacts(NamedTuple):
    """What a GIF file holds except its pixels.

    Attributes:
        end: How it ends: "marked" by its trailer, "unmarked" after a block, or "cut" within one.
        trailer: Offset of what ends it, where it is marked.
        comments: Comments in the order of the file.
        applications: Names of the blocks of programs, of 11 bytes, in the order of the file.
    """

    end: Literal["marked", "unmarked", "cut"]
    comments: tuple[bytes, ...] = ()
    applications: tuple[bytes, ...] = ()
    trailer: int | None = None


def read_gif_facts(data: Any) -> GifFacts:
    """Read what a GIF file holds except its pixels.

    Args:
        data: Bytes, in memory or of a file.

    Source: GIF89a specification, appendix B.
    """
    comments: list[bytes] = []
    applications: list[bytes] = []
    end: Literal["marked", "unmarked", "cut"] = "marked"
    trailer: int | None = None
    try:
        at = _HEADER_BYTES + _count_colour_bytes(data[10])
        for _ in range(_MOST_BLOCKS):
            if at == len(data):
                end = "unmarked"
                break
            kind, label = data[at], data[at + 1] if at + 1 < len(data) else 0
            if kind == _EXTENSION:
                at += 2
            elif kind == _FRAME:
                at += _FRAME_BYTES + _count_colour_bytes(data[at + 9]) + 1
            else:  # the trailer, or what decoders take for it
                trailer = at
                break
            if kind == _EXTENSION and label == _APPLICATION:
                applications.append(bytes(data[at + 1 : at + 1 + data[at]]))
            pieces: list[bytes] = []
            while data[at]:
                if kind == _EXTENSION and label == _COMMENT:
                    pieces.append(data[at + 1 : at + 1 + data[at]])
                at += 1 + data[at]
            at += 1
            if pieces:
                comments.append(b"".join(pieces))
    except IndexError:
        end = "cut"
    return GifFacts(end, tuple(comments), tuple(applications), trailer)


def _count_colour_bytes(flags: int) -> int:
    """Return the bytes of the colour table that follows."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
