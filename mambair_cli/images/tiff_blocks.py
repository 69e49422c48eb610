"""Find the strips and tiles of a TIFF page that cannot be decoded."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from mambair_cli.images.jpeg import mend
from mambair_cli.images.libvips import LibvipsError, explained, pyvips
from mambair_cli.images.tiff import Page
from mambair_cli.images.tiff_directories import MALFORMED, Buffer, read_directory, read_header

JPEG = 7  # TIFF's number of the compression
_STRIPS, _TILES = (273, 279), (324, 325)  # tags of their offsets, and of their sizes in bytes
_TABLES = 347  # of JPEG, which all blocks share
_END_BYTES = 2  # of a JPEG stream


class TiffBlock(NamedTuple):
    """A strip or tile, in pixels of the pages one below another."""

    left: int
    top: int
    width: int
    height: int


class TiffBlocks(NamedTuple):
    """Strips or tiles of an image.

    Attributes:
        lost: Those that cannot be decoded.
        total: Number of all.
        are_tiles: Whether they are tiles.
    """

    lost: Sequence[TiffBlock]
    total: int
    are_tiles: bool

    def name_lost(self) -> str:
        """Say how many are lost, and where; empty where none is."""
        if not self.lost:
            return ""
        left, top = (min(block[axis] for block in self.lost) for axis in (0, 1))
        right, bottom = (max(block[axis] + block[axis + 2] for block in self.lost) for axis in (0, 1))
        columns = f" and columns {left + 1} to {right}" if self.are_tiles else ""
        name = "tile" if self.are_tiles else "strip"
        count = f"{len(self.lost)} of {self.total} {name}{'s' * (self.total > 1)}"
        return f"{count}, within rows {top + 1} to {bottom}{columns}"


def find_lost_tiles(image: Any, pages: Sequence[Page]) -> TiffBlocks:
    """Decode each tile by itself.

    Args:
        image: Image of libvips that is decoded in any order and fails at each fault; pages one below another.
        pages: Its pages, all of one size.
    """
    region = pyvips.Region.new(image)
    blocks, lost = 0, []
    for number, page in enumerate(pages):
        for block in _lay_out(page, number * page.height):
            blocks += 1
            try:
                with explained(0, "tiff"):
                    region.fetch(*block)
            except LibvipsError:
                lost.append(block)
    return TiffBlocks(lost, blocks, are_tiles=True)


def leave_out_tiles(image: Any, lost: Sequence[TiffBlock], pages: Sequence[Page]) -> Any:
    """Put black in place of tiles, which are then not decoded.

    Args:
        image: Image of libvips that is decoded in any order; pages one below another.
        lost: The tiles.
        pages: Its pages, all of one size.
    """
    if not lost:
        return image
    parts, gone = [], set(lost)
    for number, page in enumerate(pages):
        tiles = []
        for block in _lay_out(page, number * page.height):
            black = pyvips.Image.black(block.width, block.height, bands=image.bands).cast(image.format)
            tiles.append(black if block in gone else image.crop(*block))
        width, height = page.tile or (page.width, page.strip_height)
        across = -(-page.width // width)
        joined = pyvips.Image.arrayjoin(tiles, across=across, hspacing=width, vspacing=height)
        parts.append(joined.crop(0, 0, page.width, page.height))
    return pyvips.Image.arrayjoin(parts, across=1).copy(interpretation=image.interpretation)


def find_lost_jpegs(data: Buffer, pages: Sequence[Page]) -> TiffBlocks:
    """Decode each JPEG stream by itself; libvips tells only of those of which nothing can be decoded.

    Args:
        data: The file.
        pages: Its pages that are read, all of one size and compressed by JPEG.
    """
    count, lost = 0, {}
    for number, page in enumerate(pages):
        places = list(_lay_out(page, number * page.height))
        count += len(places)
        with suppress(*MALFORMED):  # libvips will refuse it
            for index, stream in enumerate(_read_streams(data, page)):  # planes one after another
                if not _is_whole(stream):
                    lost[places[index % len(places)]] = None
    return TiffBlocks(list(lost), count, are_tiles=pages[0].tile is not None)


def _lay_out(page: Page, start: int) -> Iterator[TiffBlock]:
    """Yield the blocks of a page that begins at a row."""
    width, height = page.tile or (page.width, page.strip_height)
    for top in range(0, page.height, height):
        for left in range(0, page.width, width):
            yield TiffBlock(left, start + top, min(width, page.width - left), min(height, page.height - top))


def _read_streams(data: Buffer, page: Page) -> Iterator[bytes]:
    """Yield the JPEG streams of a page, each with the tables that all share."""
    layout, _ = read_header(data)
    offset, size = _TILES if page.tile else _STRIPS
    directory, _ = read_directory(data, layout, page.at, wanted={offset, size, _TABLES})

    def numbers(tag: int) -> list[int]:
        entry = directory[tag]
        return np.frombuffer(entry.value, f"{layout.order}u{len(entry.value) // entry.count}").tolist()

    tables = directory[_TABLES].value[:-_END_BYTES] if _TABLES in directory else b""
    for start, length in zip(numbers(offset), numbers(size), strict=False):
        block = bytes(data[start : start + length])
        yield tables + block[_END_BYTES:] if tables else block


def _is_whole(stream: bytes) -> bool:
    """Tell whether a JPEG stream is decoded without a fault."""
    jpeg = mend(stream)
    with suppress(LibvipsError), explained(0, "jpeg"):
        source = pyvips.Source.new_from_memory(jpeg.data)
        image = pyvips.Operation.call("jpegload_source", source, fail_on="warning", access="sequential")
        image.avg()  # decodes all of it
        return not jpeg.lacks_scans
    return False
