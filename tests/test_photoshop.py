"""What else than IPTC Photoshop stores in JPEG and TIFF files: captions are kept, old thumbnails are not."""

import io
import struct

import pytest
import tifffile
from metadata import IPTC, exif_block
from pictures import encode, noise

from mambair_cli.images import encode_picture, open_picture, read_picture
from mambair_cli.images.photoshop import read_resources

MARK = b"Photoshop 3.0\0"
THUMBNAIL, RESOLUTION, PATH = 1036, 1005, 2000


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
def test_paths_of_a_turned_picture_are_left_out_with_a_word(orientation: int) -> None:
    with open_picture(jpeg_with(resource(PATH, bytes(26)), orientation=orientation)) as reader:
        assert kinds_in(reader.header.metadata.iptc) == ([PATH] if orientation == 1 else [])
        assert reader.warnings == ([] if orientation == 1 else ["its paths of Photoshop are left out"])


def test_a_tiff_file_may_have_its_caption_among_resources_alone() -> None:
    block = resource(PATH, bytes(26)) + IPTC[len(MARK) :]
    file = io.BytesIO()
    tags = [(34377, 7, len(block), block, True)]
    tifffile.imwrite(file, noise(8, 8, 3), photometric="rgb", metadata=None, extratags=tags)
    with open_picture(file.getvalue()) as reader:
        assert reader.header.metadata.iptc == IPTC
        assert reader.header.left_out == ("paths of Photoshop",)
    assert read_picture(encode_picture(read_picture(file.getvalue()), "jpeg")).metadata.iptc == IPTC


def test_broken_resources_are_left_where_they_end() -> None:
    block = resource(RESOLUTION, bytes(16), b"a name") + IPTC[len(MARK) :]
    for length in range(len(block)):
        assert len(read_resources([block[:length]])) == (length >= len(block) - len(IPTC[len(MARK) :]))
    many = resource(RESOLUTION, b"") * 50_000
    assert len(read_resources([many])) == 50_000
