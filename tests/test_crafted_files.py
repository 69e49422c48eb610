"""Crafted files take steps by their length: a small one must not keep a server busy for hours.

No test asserts a time. Each would take many minutes if a step looked at all of the file again.
"""

import io
import struct
import zlib
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from pictures import encode, noise
from PIL import Image

from mambair_cli.checkpoints.load import infer_config
from mambair_cli.errors import CheckpointError, ImageError
from mambair_cli.images import iso_boxes, open_picture, read_picture
from mambair_cli.images.description import PageLayout, fit_description
from mambair_cli.images.jpeg import mend, read_segments
from mambair_cli.images.jpeg_quality import read_jpeg_quality
from mambair_cli.images.measured import find_unmoved, move_xmp_measures
from mambair_cli.images.metadata import change_description
from mambair_cli.images.move import Move
from mambair_cli.images.ome import Resized, find_misfit, restate_ome
from mambair_cli.images.picture import Metadata
from mambair_cli.images.places import move_xmp_places
from mambair_cli.images.png_chunks import read_png_facts, write_chunk
from mambair_cli.images.provenance import add_note, read_note
from mambair_cli.images.tiff import read_pages
from mambair_cli.images.trailing_images import find_trailing_images
from mambair_cli.images.xmp import drop_lost_parts, restate_xmp
from mambair_cli.video.subtitles import add_text_stream

MANY = 5 * 10**4
GAIN_MAP = b'xmlns:p%d="http://ns.adobe.com/hdr-gain-map/1.0/"'
TURN = Move(6, (64, 40), (40, 64))
TWICE = Resized(2, 2, 60, 40, 1, "uint8", has_new_dtype=False)


def saved_progressive() -> bytes:
    return encode(noise(64, 64, 3), "jpeg", progressive=True)


# XMP


@pytest.mark.parametrize(
    "repeated",
    [b"<p0:a>", b"<p0:a b='", b"<p0:a/ ", b" p0:a=", b" p0:a='\"", b"<p0:a><p0:a/>", b"</p0:a>", b"\n"],
    ids=repr,
)
def test_properties_of_lost_parts_without_an_end_stay(repeated: bytes) -> None:
    xmp = b"<x " + GAIN_MAP % 0 + b">" + repeated * MANY
    kept, _ = drop_lost_parts(xmp)
    assert xmp.startswith(kept[:2])
    assert kept.count(b"<p0:a>") == xmp.count(b"<p0:a>")


def test_properties_of_lost_parts_go_however_many_there_are() -> None:
    names = b" ".join(GAIN_MAP % number for number in range(MANY))
    assert drop_lost_parts(b"<x " + names + b"/>") == (b"<x/>", [])
    nested = b"<x " + GAIN_MAP % 0 + b">" + b"<p0:a>" * MANY + b"</p0:a>" * MANY + b"</x>"
    assert drop_lost_parts(nested) == (b"<x></x>", ["gain map"])


def test_thumbnails_without_an_end_stay() -> None:
    xmp = b"<xmp:Thumbnails>" * MANY
    assert restate_xmp(xmp, 3, 2) == xmp
    whole = b"<xmp:Thumbnails><rdf:li>/9j</rdf:li></xmp:Thumbnails>"
    assert restate_xmp(b"<x>" + whole * MANY + b"</x>", 3, 2) == b"<x></x>"


@pytest.mark.parametrize("name", [b"mwg-rs:Area", b"mwg-rs:AppliedToDimensions", b"exif:SubjectArea"])
def test_places_without_an_end_stay(name: bytes) -> None:
    xmp = (b"<%b stArea:x='0.5' " % name) * MANY
    assert move_xmp_places(xmp, TURN) == xmp
    nested = b"<%b>" % name * MANY + b"</%b>" % name * MANY
    assert move_xmp_places(nested, TURN) == nested


def test_measures_with_much_around_them_stay() -> None:
    names = (b"exif:FocalPlaneXResolution", b"drone-dji:DewarpData", b"GPano:FullPanoWidthPixels")
    for name in names:
        for xmp in (
            name * MANY,
            name + b"=" + b" " * MANY,
            name + b'="' + b"1," * MANY,
            name + b'="1;' * MANY,
        ):
            assert move_xmp_measures(xmp, TURN) == xmp
            find_unmoved(Metadata(xmp=xmp), TURN)
    xmp = b"<x Iptc4xmpExt:rbUnit='pixel'><Iptc4xmpExt:RegionBoundary Iptc4xmpExt:rbX='1'" * MANY
    assert move_xmp_places(xmp, TURN) == xmp


def test_a_rectangle_with_much_space_in_it_stays() -> None:
    xmp = b'MPReg:Rectangle="' + b", ".join([b"1" * 30] * 3) + b"," + b" " * MANY + b'"'
    assert move_xmp_places(xmp, TURN) == xmp


@pytest.mark.parametrize(
    "repeated", [b" " * 20, b"<rdf:Description ", b' xmlns:mambair="urn:mambair:1.0:"'], ids=repr
)
def test_a_note_finds_its_place(repeated: bytes) -> None:
    packet = repeated * MANY + b"<rdf:Description" + repeated * MANY + b"</rdf:RDF>"
    assert read_note(add_note(add_note(packet, {"a": 1}), {"a": 2})) == {"a": 2}


def test_broken_packets_keep_what_is_whole() -> None:
    lost = b'<x %b dc:a="1" p0:V="1.0"><p0:Max>1</p0:Max> <dc:t>t</dc:t>' % (GAIN_MAP % 0)
    for begin, end in ((b"", b""), (b"<!-- ", b"</x>"), (b'<y a=b">', b"</y>"), (b"& < > ", b"<dc:u")):
        kept = begin + b'<x dc:a="1"><dc:t>t</dc:t>' + end
        assert drop_lost_parts(begin + lost + end) == (kept, ["gain map"])
    unquoted = b'<x %b a=b" p0:V="1.0"/>' % (GAIN_MAP % 0)
    assert drop_lost_parts(unquoted) == (b'<x a=b"/>', ["gain map"])
    greater = b"<x %b p0:V='1 > 0'><p0:W q='/>'><dc:t/></p0:W></x>" % (GAIN_MAP % 0)
    assert drop_lost_parts(greater) == (b"<x></x>", ["gain map"])


# Descriptions in TIFF files


def test_a_shape_of_many_axes_does_not_fit() -> None:
    shape = b'{"shape": [' + b", ".join([b"1"] * MANY) + b"]}"
    exif = change_description(b"II*\0\x08\0\0\0\0\0\0\0\0\0", shape)
    assert fit_description(exif, PageLayout(1, 1, 1, 1)) == (None, None)


@pytest.mark.parametrize(
    "tag",
    [
        b'Polygon Points="' + b"1" * MANY + b'"',
        b'Polygon Points="' + b"1." * MANY + b'"',
        b"Polygon " + b" " * MANY,
        b'Polygon a="' + b" " * MANY + b'"',
    ],
    ids=["digits", "points", "space", "space in a value"],
)
def test_shapes_of_ome_that_make_no_sense_stay(tag: bytes) -> None:
    xml = b"<OME><ROI><" + tag + b"/></ROI></OME>"
    assert restate_ome(xml, TWICE) == xml


def test_points_of_ome_may_be_many() -> None:
    points, doubled = (b" ".join([pair] * MANY) for pair in (b"1.,+2e1", b"2,40"))
    xml = b'<OME><ROI><Polygon Points="%b"/></ROI></OME>'
    assert restate_ome(xml % points, TWICE) == xml % doubled


def test_an_identifier_of_ome_may_have_many_lines() -> None:
    xml = b"<OME UUID='a'><UUID>" + b"\n" * (60 * MANY) + b"a</UUID></OME>"
    assert find_misfit(xml, 1, 1, 1, 1) == "it tells of no pixels, not 1×1"


# TIFF


def chain_of(number: int, kind: int = 0xFFFF) -> bytes:
    """Return a TIFF file whose directories overlap: each has as many entries as can be."""
    entries = 4096
    length = 12 * entries
    file = bytearray(b"II*\0\x08\0\0\0" + b"\0\x10" * (length // 2 + 2 * number + 8))
    for index in range(number):
        at = 8 + 4 * index
        following = at + 4 if index < number - 1 else 0
        struct.pack_into("<I", file, at + 2 + length, following)
    return bytes(file)


def test_directories_that_overlap_are_not_all_read() -> None:
    file = chain_of(20_000)
    assert 0 < len(read_pages(file)) < 100
    with pytest.raises(ImageError):
        read_picture(file)


def test_subifds_that_overlap_are_not_all_read() -> None:
    count = 1024
    entry = struct.pack("<HHII", 330, 4, count, 26)
    offsets = struct.pack(f"<{count}I", *(26 + 4 * count + 2 * index for index in range(count)))
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + bytes(4) + offsets
    pages = read_pages(head + b"\0\x10" * (12 * 4096))
    assert [page.lost + len(page.inner) < 100 for page in pages] == [True]


def test_repeated_values_that_overlap_are_not_all_kept() -> None:
    count = 4096
    entries = struct.pack("<HHII", 270, 2, 4096, 8) * count
    file = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(4)
    (page,) = read_pages(file)
    assert len(page.repeated) == count - 1
    assert sum(len(text) for _, text in page.repeated) <= len(file)


def test_pages_may_share_values_and_be_small() -> None:
    file = io.BytesIO()
    pages = [Image.fromarray(noise(1, 1, 3, seed=seed)) for seed in range(500)]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    with open_picture(file.getvalue()) as reader:
        assert reader.header.frames == 500


def test_long_xmp_of_png_is_read_and_no_broken_text() -> None:
    whole = encode(noise(4, 4, 3), "png")
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + b" " * 2**24 + b"</x:xmpmeta>"
    for is_packed, body in ((0, packet), (1, zlib.compress(packet))):
        head = b"XML:com.adobe.xmp\0" + bytes([is_packed, 0, 0, 0])
        picture = read_picture(whole[:33] + write_chunk(b"iTXt", head + body) + whole[33:])
        assert picture.metadata.xmp == packet
        assert picture.warnings == ()
    broken = whole[:33] + write_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0broken") + whole[33:]
    assert read_picture(broken).warnings == ("1 of its texts cannot be read",)


# Other formats


def test_a_jpeg_file_filled_with_0xff_is_read() -> None:
    whole = saved_progressive()
    cut = whole[: len(whole) // 2]
    filled = cut + b"\xff" * (40 * MANY)
    assert list(read_segments(filled)) == list(read_segments(cut))
    (*_, last) = read_segments(filled + b"\xd9")
    assert (last.kind, last.end - last.start) == (0xD9, 40 * MANY + 1)
    before = whole[:2] + b"\xff" * (40 * MANY) + whole[3:]
    np.testing.assert_array_equal(read_picture(before).pixels, read_picture(whole).pixels)


def test_a_jpeg_file_of_many_scans_without_an_end_is_mended() -> None:
    whole = saved_progressive()
    scan = b"\xff\xda\0\x08\1\1\0\0\0\0"
    mended = mend(whole[:-2] + scan * (2 * MANY))
    assert (mended.has_end, mended.data[-12:]) == (False, scan + whole[-2:])


def test_of_a_jpeg_file_of_many_segments_the_first_are_read() -> None:
    whole = encode(noise(16, 16, 3), "jpeg", quality=40)
    segment = b"\xff\xe1\0\x0cExif\0\0abcd"
    assert read_jpeg_quality(whole[:2] + segment * (MANY // 10) + whole[2:]) == 40
    for repeated in (segment, b"\xff\x01"):
        assert len(list(read_segments(whole[:2] + repeated * (4 * MANY) + whole[2:]))) < MANY


def test_comments_of_a_gif_file_that_look_like_images_are_none() -> None:
    whole = encode(noise(8, 8), "gif")
    comment = b"!\xfe\x08;GIF89a\0\0"
    crafted = whole[:-1] + comment * MANY + whole[-1:]
    assert find_trailing_images(crafted, "gif", "a.gif") == []
    with pytest.raises(ImageError, match="several images"):
        find_trailing_images(crafted + bytes(8) + whole, "gif", "a.gif")
    assert find_trailing_images(crafted + bytes(9) + whole, "gif", "a.gif") == []


def test_texts_of_a_png_file_do_not_unpack_to_gigabytes_together() -> None:
    whole = encode(noise(8, 8))
    packed = write_chunk(b"zTXt", b"Title\0\0" + zlib.compress(bytes(2**22), 9))
    facts = read_png_facts(whole[:33] + packed * 1000 + whole[33:])
    assert sum(len(text.text) for text in facts.texts) <= 2**26
    assert (facts.texts[0].text, len(facts.texts) + facts.damaged_texts) == ("\0" * 2**22, 1000)


@pytest.mark.parametrize("start", [b"P5 ", b"P5 1 ", b"P5 1 1 ", b"P5\n#"], ids=repr)
@pytest.mark.parametrize("repeated", [b"1", b" ", b"# \n", b"1 # \n"], ids=repr)
def test_the_header_of_a_netpbm_file_is_looked_at_once(start: bytes, repeated: bytes) -> None:
    with pytest.raises(ImageError):
        read_picture(start + repeated * MANY)
    assert read_picture(b"P5\n#a\n 1#b\n#c\r1\t255\n7").pixels.tolist() == [[[55]]]


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def test_parts_of_an_image_that_are_named_again_and_again_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[iso_boxes.Box] = []
    monkeypatch.setattr(iso_boxes, "_numbers_of", lambda data, box: looked_at.append(box) or iter(()))
    count, many = 65_000, 255
    properties = box(b"ipco", box(b"colr", b"prof") * 100)
    associations = struct.pack(">II", 0, 1) + struct.pack(">HB", 2, many) + bytes([1]) * many
    parts = struct.pack(">HH", 1, count) + struct.pack(">H", 2) * count
    inside = box(b"pitm", struct.pack(">IH", 0, 1)) + box(b"iprp", properties + box(b"ipma", associations))
    references = box(b"iref", bytes(4) + box(b"dimg", parts))
    assert iso_boxes.read_colour_numbers(box(b"meta", bytes(4) + inside + references)) is None
    assert len(looked_at) == many


# What is no image


@pytest.mark.parametrize("repeated", ["<", "{\\", "<{\\"])
def test_subtitles_that_begin_tags_without_an_end_stay(repeated: str) -> None:
    stream, result = Mock(), Mock()
    stream.codec_context.name = "subrip"
    convert = add_text_stream(result, stream, "webm")
    assert convert is not None
    text = repeated * (20 * MANY)
    assert convert(f"<b>1 {{\\an8}}> 0</b> {text}".encode()) == f"1 > 0 {text}".encode()


def test_a_checkpoint_of_many_layers_is_refused() -> None:
    block = "layers.0.residual_group.blocks.0.self_attention"
    shapes = {
        "conv_first.weight": (8, 3, 3, 3),
        f"{block}.A_logs": (8, 4),
        f"{block}.x_proj_weight": (4, 8, 16),
    }
    with pytest.raises(CheckpointError):
        infer_config(shapes | {f"layers.{number}.x": (1,) for number in range(MANY)})


# Readers


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells which files are open")
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_a_reader_that_an_error_ends_frees_its_decoder(format: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(encode(noise(300, 200, 3), format))

    def count_open() -> int:
        links = (link for link in Path("/proc/self/fd").iterdir() if link.exists())
        return sum(link.resolve() == path.resolve() for link in links)

    def fail() -> None:
        with open_picture(path) as reader:
            counts.append(count_open())
            reader.read(0, 8)
            counts.append(count_open())
            raise ZeroDivisionError

    counts: list[int] = []
    with pytest.raises(ZeroDivisionError) as raised:
        fail()
    assert raised.value.__traceback__ is not None  # and keeps the reader
    assert count_open() == counts[0] < counts[1]
