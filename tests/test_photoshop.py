"""What else than IPTC Photoshop stores in JPEG and TIFF files: captions are kept, old thumbnails are not."""

import io
import struct
from typing import Any

import pytest
import tifffile
from metadata import IPTC, exif_block
from pictures import encode, noise

from mambair_cli.images import (
    Writer,
    encode_picture,
    find_losses,
    fit_header,
    open_picture,
    read_picture,
)
from mambair_cli.images.photoshop import read_resources

MARK = b"Photoshop 3.0\0"
THUMBNAIL, RESOLUTION, PATH, WORKING_PATH, CLIPPING = 1036, 1005, 2000, 1025, 2999


def resource(kind: int, content: bytes, name: bytes = b"") -> bytes:
    head = b"8BIM" + struct.pack(">HB", kind, len(name)) + name + bytes(1 - len(name) % 2)
    return head + struct.pack(">I", len(content)) + content + bytes(len(content) % 2)


def jpeg_with(*blocks: bytes, orientation: int = 1) -> bytes:
    data = encode(noise(16, 24, 3), "jpeg", exif=exif_block(orientation))
    segments = (b"\xff\xed" + struct.pack(">H", len(block) + 16) + MARK + block for block in blocks)
    return data[:2] + b"".join(segments) + data[2:]


def kinds_in(iptc: bytes | None) -> list[int]:
    return [each.kind for each in read_resources([(iptc or b"").removeprefix(MARK)])]


def test_the_thumbnail_of_the_picture_as_it_was_is_left_out() -> None:
    old = resource(THUMBNAIL, b"old picture")
    block = old + resource(RESOLUTION, bytes(16)) + IPTC[len(MARK) :] + resource(PATH, bytes(26), b"Path 1")
    picture = read_picture(jpeg_with(block))
    assert kinds_in(picture.metadata.iptc) == [1028, RESOLUTION, PATH]
    result = encode_picture(picture, "jpeg")
    assert b"old picture" not in result
    assert kinds_in(read_picture(result).metadata.iptc) == [1028, RESOLUTION, PATH]
    assert read_picture(jpeg_with(old)).metadata.iptc is None


def test_a_caption_in_a_later_segment_is_kept() -> None:
    first = resource(1060, b"xxx")
    for blocks in (
        (first, IPTC[len(MARK) :]),
        (first[:-1], IPTC[len(MARK) :]),  # without its last byte, which only fills up
        (first[:-1], first[-1:] + IPTC[len(MARK) :]),
        (first + IPTC[len(MARK) :][:15], IPTC[len(MARK) :][15:]),
    ):
        picture = read_picture(jpeg_with(*blocks))
        for format in ("jpeg", "png", "tiff"):
            after = read_picture(encode_picture(picture, format)).metadata.iptc
            assert after is not None
            assert after.startswith(IPTC)


def test_what_is_too_long_for_a_segment_gives_way_to_the_caption() -> None:
    long = resource(PATH, bytes(40_000))
    picture = read_picture(jpeg_with(long, resource(PATH + 1, bytes(40_000)), IPTC[len(MARK) :]))
    assert kinds_in(picture.metadata.iptc) == [1028, PATH]
    assert kinds_in(read_picture(encode_picture(picture, "jpeg")).metadata.iptc) == [1028, PATH]


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", [WORKING_PATH, PATH])
def test_paths_of_a_turned_picture_are_left_out_with_a_word(orientation: int, kind: int) -> None:
    with open_picture(jpeg_with(resource(kind, bytes(26)), orientation=orientation)) as reader:
        assert kinds_in(reader.header.metadata.iptc) == ([kind] if orientation == 1 else [])
        assert reader.warnings == ([] if orientation == 1 else ["its paths of Photoshop are left out"])


def test_paths_that_are_too_long_for_a_segment_are_left_out_with_a_word() -> None:
    blocks = [resource(PATH + number, bytes(40_000)) for number in range(2)]
    with open_picture(jpeg_with(*blocks)) as reader:
        assert kinds_in(reader.header.metadata.iptc) == [PATH]
        assert reader.warnings == ["its paths of Photoshop are left out"]


PATHS_AND_NAME = resource(PATH, bytes(26), b"Path 1") + resource(CLIPPING, b"\x06Path 1" + bytes(7))


def test_paths_go_from_jpeg_to_tiff_and_back() -> None:
    picture = read_picture(jpeg_with(IPTC[len(MARK) :] + resource(RESOLUTION, bytes(16)) + PATHS_AND_NAME))
    tiff = encode_picture(picture, "tiff")
    with tifffile.TiffFile(io.BytesIO(tiff)) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        assert bytes(page.tags[34377].value) == PATHS_AND_NAME
    for data in (
        tiff,
        encode_picture(read_picture(tiff), "tiff"),
        encode_picture(read_picture(tiff), "jpeg"),
    ):
        with open_picture(data) as reader:
            assert reader.header.metadata.iptc == IPTC + PATHS_AND_NAME
            assert reader.header.left_out == ()
            assert reader.warnings == []


@pytest.mark.parametrize("format", ["png", "webp", "avif", "gif", "tiff", "jpeg"])
def test_a_format_without_room_for_paths_says_so(format: str) -> None:
    with open_picture(jpeg_with(IPTC[len(MARK) :] + PATHS_AND_NAME)) as reader:
        header = reader.header
    for strip in (False, True):
        losses = find_losses(header, fit_header(header, format, "a", strip=strip), format, strip)
        named = [loss for loss in losses if "paths" in loss]
        has_room = strip or format in ("tiff", "jpeg")
        expected = f"{format} has no room for its paths of Photoshop; jpeg and tiff have"
        assert named == ([] if has_room else [expected])
    without = jpeg_with(IPTC[len(MARK) :] + resource(RESOLUTION, bytes(16)) + resource(CLIPPING, bytes(4)))
    with open_picture(without) as reader:
        header = reader.header
    assert not [loss for loss in find_losses(header, header, format) if "paths" in loss]


def test_paths_alone_are_no_iptc() -> None:
    header = read_picture(jpeg_with(PATHS_AND_NAME)).header
    for format in ("gif", "png"):
        losses = find_losses(header, fit_header(header, format, "a"), format)
        assert not [loss for loss in losses if "IPTC" in loss]


def test_paths_are_stripped() -> None:
    header = read_picture(jpeg_with(PATHS_AND_NAME)).header
    file = io.BytesIO()
    with Writer(file, fit_header(header, "tiff", "a", strip=True), "tiff", None, "a") as writer:
        writer.write(0, noise(16, 24, 3))
        writer.finish()
    assert b"8BIM" not in file.getvalue()


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("other", [b"", resource(PATH, bytes(26)), resource(PATH, bytes(52))])
def test_paths_of_the_first_page_stay(orientation: int, other: bytes) -> None:
    first, file = resource(PATH, bytes(26)), io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for block in (first, other):
            tags: list[Any] = [(34377, 7, len(block), block, True)] if block else []
            tags.append((274, 3, 1, orientation, True))
            writer.write(noise(8, 8, 3), photometric="rgb", metadata=None, extratags=tags)
    with open_picture(file.getvalue()) as reader:
        header = reader.header
        assert kinds_in(header.metadata.iptc) == ([PATH] if orientation == 1 else [])
        is_lost = orientation != 1 or other not in (b"", first)
        assert header.left_out == (("paths of Photoshop",) if is_lost else ())


def test_a_tiff_file_may_have_its_caption_among_resources_alone() -> None:
    block = resource(PATH, bytes(26)) + IPTC[len(MARK) :]
    file = io.BytesIO()
    tags = [(34377, 7, len(block), block, True)]
    tifffile.imwrite(file, noise(8, 8, 3), photometric="rgb", metadata=None, extratags=tags)
    with open_picture(file.getvalue()) as reader:
        assert reader.header.metadata.iptc == IPTC + resource(PATH, bytes(26))
        assert reader.header.left_out == ()
    after = read_picture(encode_picture(read_picture(file.getvalue()), "jpeg")).metadata.iptc
    assert after == IPTC + resource(PATH, bytes(26))


def test_broken_resources_are_left_where_they_end() -> None:
    block = resource(RESOLUTION, bytes(16), b"a name") + IPTC[len(MARK) :]
    for length in range(len(block)):
        assert len(read_resources([block[:length]])) == (length >= len(block) - len(IPTC[len(MARK) :]))
    many = resource(RESOLUTION, b"") * 50_000
    assert len(read_resources([many])) == 50_000
