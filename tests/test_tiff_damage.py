"""TIFF files of which strips or tiles are missing or broken, and those whose tags are odd and do no harm."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import pyvips
import tifffile
from pictures import encode, noise

from mambair_cli.errors import ImageError
from mambair_cli.images import open_picture, read_picture
from mambair_cli.images.source import Source
from mambair_cli.inspection.inspect_image import inspect_image

PIXELS = noise(96, 80, 3)
TILES: dict[str, Any] = {"tile": (32, 32)}
STRIPS: dict[str, Any] = {"rowsperstrip": 32}


def by_tifffile(samples: np.ndarray = PIXELS, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, **{"photometric": "rgb", "metadata": None, **options})
    return file.getvalue()


def by_vips(compression: str) -> bytes:
    image = pyvips.Image.new_from_array(PIXELS)
    return image.tiffsave_buffer(tile=True, tile_width=32, tile_height=32, compression=compression)


def planes(**options: Any) -> bytes:
    return by_tifffile(np.moveaxis(PIXELS, 2, 0).copy(), planarconfig="separate", **STRIPS, **options)


FILES = {
    "strips": by_tifffile(**STRIPS),
    "strips, deflate": by_tifffile(**STRIPS, compression="zlib"),
    "strips, LZW": encode(PIXELS, "tiff", compression="tiff_lzw", tiffinfo={278: 32}),
    "strips, JPEG": encode(PIXELS, "tiff", compression="jpeg", tiffinfo={278: 32}),
    "tiles": by_tifffile(**TILES),
    "tiles, deflate": by_tifffile(**TILES, compression="zlib"),
    "tiles, LZW": by_vips("lzw"),
    "tiles, JPEG": by_vips("jpeg"),
    "planes": planes(),
    "planes, deflate": planes(compression="zlib"),
}


class Blocks(NamedTuple):
    """Strips or tiles of a file: where each begins, its bytes, and where the first offset is stored."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    at: int


def find_blocks(data: bytes, page: int = 0) -> Blocks:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        found = file.pages[page]
        assert isinstance(found, tifffile.TiffPage)
        tag = found.tags[324 if found.is_tiled else 273]
        return Blocks(found.dataoffsets, found.databytecounts, tag.valueoffset)


def miss(data: bytes, number: int, page: int = 0) -> bytes:
    """Return a file in which a block lies behind the end."""
    changed = bytearray(data)
    struct.pack_into("<I", changed, find_blocks(data, page).at + 4 * number, len(data) + 9)
    return bytes(changed)


def clear(data: bytes, number: int, page: int = 0) -> bytes:
    """Return a file in which the bytes of a block are zeros."""
    starts, sizes, _ = find_blocks(data, page)
    start, size = starts[number], sizes[number]
    return data[:start] + bytes(size) + data[start + size :]


def end_early(data: bytes, number: int) -> bytes:
    """Return a file in which the JPEG stream of a block ends in its middle."""
    starts, sizes, _ = find_blocks(data)
    middle = starts[number] + sizes[number] // 2
    return data[:middle] + b"\xff\xd9" + data[middle + 2 :]


DAMAGES: list[tuple[str, Callable[[bytes, int], bytes]]] = [
    *((name, miss) for name in FILES),
    *((name, clear) for name in FILES if "," in name),  # without compression, zeros are black
    *((name, end_early) for name in FILES if "JPEG" in name),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES, ids=[f"{name}, {by.__name__}" for name, by in DAMAGES])
def test_a_block_that_is_lost_is_refused_or_reported_and_the_others_stay(
    name: str, damage: Callable[[bytes, int], bytes]
) -> None:
    whole = FILES[name]
    before = read_picture(whole)
    assert before.warnings == ()
    is_tiled = "tiles" in name
    number = 4 if is_tiled else 1  # both in the middle: rows 33 to 64; of tiles, columns 33 to 64
    data = damage(whole, number)
    with pytest.raises(ImageError, match="--damaged of upscale, denoise and dejpeg restores what is there"):
        read_picture(data)
    after = read_picture(data, damaged=True)
    (warning,) = after.warnings
    if is_tiled:
        assert warning.startswith("damaged in 1 of 9 tiles, within rows 33 to 64 and columns 33 to 64")
    else:
        places = "damaged from about row 32 of 96 on", "damaged in 1 of 3 strips, within rows 33 to 64"
        assert warning.startswith(places)
    differ = (after.pixels != before.pixels).any(axis=2)
    rows, columns = (np.flatnonzero(differ.any(axis=axis)) for axis in (1, 0))
    assert 32 <= rows[0] <= rows[-1] < 64
    assert not is_tiled or 32 <= columns[0] <= columns[-1] < 64


@pytest.mark.parametrize("name", ["tiles", "tiles, deflate", "tiles, JPEG"])
def test_tiles_that_are_lost_in_several_places_are_counted(name: str) -> None:
    data = miss(miss(FILES[name], 1), 3)
    (warning,) = read_picture(data, damaged=True).warnings
    assert warning.startswith("damaged in 2 of 9 tiles, within rows 1 to 64 and columns 1 to 64")


def test_tiles_of_a_picture_that_is_turned_are_named_as_they_are_stored() -> None:
    data = by_tifffile(**TILES, extratags=[(274, 3, 1, 6, True)])
    after = read_picture(miss(data, 0), damaged=True)
    (warning,) = after.warnings
    assert "1 of 9 tiles, within rows 1 to 32 and columns 1 to 32, before it was turned upright (" in warning
    np.testing.assert_array_equal(np.rot90(after.pixels)[32:], PIXELS[32:])


@pytest.mark.parametrize("tile", [TILES, STRIPS])
def test_damage_on_a_later_page_is_found(tile: dict[str, Any]) -> None:
    data = by_tifffile(np.stack([PIXELS] * 3), compression="zlib", **tile)
    data = clear(data, 0, page=2)
    with open_picture(data) as reader, pytest.raises(ImageError, match="tiff data is corrupt"):
        reader.read(0, 3 * 96)
    with open_picture(data, damaged=True) as reader:
        reader.read(0, 3 * 96)
        (warning,) = reader.warnings
    assert ("within rows 193 to 224" in warning) == (tile is TILES)


@pytest.mark.parametrize("page", [0, 1])
def test_inspect_finds_damage_in_each_tile(page: int) -> None:
    pixels = np.kron(noise(80, 80, 3), np.ones((16, 16, 1), np.uint8))  # more than the windows that are seen
    whole = by_tifffile(np.stack([pixels, pixels]), compression="zlib", tile=(256, 256))
    for number in (1, 12, 18):
        with pytest.raises(ImageError, match="tiff data is corrupt"):
            inspect_image(Source(None, data=clear(whole, number, page)), 2**30)


# Compressions that libvips does not support


@pytest.mark.parametrize("layout", [TILES, STRIPS], ids=["tiles", "strips"])
def test_compressions_that_are_not_read_are_named_for_each_layout(layout: dict[str, Any]) -> None:
    data = bytearray(by_tifffile(**layout))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        at = file.pages.first.tags[259].valueoffset
    names = {34712: "JPEG 2000", 34887: "LERC", 50002: "JPEG XL", 65000: "method 65000"}
    for number, name in names.items():
        struct.pack_into("<H", data, at, number)
        with pytest.raises(ImageError, match=f"it is a TIFF file compressed by {name}; convert it"):
            read_picture(bytes(data), damaged=True)
    struct.pack_into("<H", data, at, 4)  # CCITT, which is for one bit
    for damaged in (False, True):
        with pytest.raises(ImageError, match="try another copy, or save it as PNG"):
            read_picture(bytes(data), damaged=damaged)


# Tags that are odd


def change_tag(data: bytes, tag: int, field: int, kind: str, value: int) -> bytes:
    """Return a file with another value in a field of a tag's entry."""
    changed = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        struct.pack_into(f"<{kind}", changed, file.pages.first.tags[tag].offset + field, value)
    return bytes(changed)


def unterminated(data: bytes) -> bytes:
    return data.replace(b"some odd words\0", b"some odd words!")


def far_away(data: bytes) -> bytes:
    return change_tag(data, 65000, 8, "I", 2**31 - 1)


def of_no_values(data: bytes) -> bytes:
    return change_tag(data, 65000, 4, "I", 0)


def twice(data: bytes) -> bytes:
    return change_tag(data, 65001, 0, "H", 65000)


def out_of_order(data: bytes) -> bytes:
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    start, end = at + 2, at + 2 + 12 * count
    return data[:start] + data[start + 12 : end] + data[start : start + 12] + data[end:]


@pytest.mark.parametrize("change", [bytes, unterminated, far_away, of_no_values, twice, out_of_order])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("layout", [TILES, STRIPS], ids=["tiles", "strips"])
def test_tags_that_are_odd_and_harmless_refuse_no_file(
    layout: dict[str, Any], compression: str | None, change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    tags = [(65000, 2, 0, "some odd words", True), (65001, 2, 0, "others, as long", True)]
    exif = (34665, 4, 1, 2**31 - 1, True)  # whose directory lies nowhere
    path = tmp_path / "odd.tif"
    path.write_bytes(change(by_tifffile(**layout, compression=compression, extratags=[*tags, exif])))
    np.testing.assert_array_equal(read_picture(path).pixels, PIXELS)
