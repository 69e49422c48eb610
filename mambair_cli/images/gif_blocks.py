"""Look through the blocks of a GIF file: libvips takes one that ends within a frame for a shorter one."""

from typing import Any, Literal

_HEADER_BYTES = 13
_END, _EXTENSION, _FRAME = 0x3B, 0x21, 0x2C
_FRAME_BYTES = 10
_MOST_BLOCKS = 2**20  # that are looked at


def find_gif_end(data: Any) -> Literal["marked", "unmarked", "cut"]:
    """Tell how a file ends: with its mark, behind a block, or within one.

    Args:
        data: Bytes, or a file that is mapped.

    Source: GIF89a specification, appendix B.
    """
    try:
        at = _HEADER_BYTES + _colours(data[10])
        for _ in range(_MOST_BLOCKS):
            if at == len(data):
                return "unmarked"
            kind = data[at]
            if kind == _EXTENSION:
                at += 2
            elif kind == _FRAME:
                at += _FRAME_BYTES + _colours(data[at + 9]) + 1
            else:  # the mark, or what decoders take for it
                return "marked"
            while data[at]:
                at += 1 + data[at]
            at += 1
    except IndexError:
        return "cut"
    return "marked"


def _colours(flags: int) -> int:
    """Return the bytes of a table of colours."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
