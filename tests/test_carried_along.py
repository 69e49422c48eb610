"""What a file holds except its picture: texts, XMP and EXIF that are kept, and what is named as left out."""

import io
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metadata import exif_block
from pictures import encode, noise
from PIL import Image, PngImagePlugin

from mambair_cli.errors import ImageError, NoRoomError
from mambair_cli.images import Header, encode_picture, find_losses, fit_header, open_picture, read_picture
from mambair_cli.images.photoshop import wrap_iptc
from mambair_cli.images.picture import Metadata, Text
from mambair_cli.images.png_chunks import read_png_facts
from mambair_cli.images.xmp import drop_lost_parts

PIXELS = noise(20, 30, 3)
TEXTS = (
    Text("parameters", "a cat, (soft light:1.2)\nSteps: 20, Seed: 42"),
    Text("Title", "Kätzchen ☂", "de", "Titel"),
    Text("Copyright", "© A. Nobody"),
    Text("Comment", "two\nlines"),
)
COMMENTS = tuple(
    Text("Comment", text.text if text.keyword == "Comment" else f"{text.keyword}: {text.text}")
    for text in TEXTS
)
PARTS = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" {spaces} {attributes}>
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Meadows</rdf:li></rdf:Alt></dc:title>{elements}
</rdf:Description></rdf:RDF></x:xmpmeta>"""
GOOGLE = "http://ns.google.com/photos/1.0"


def saved(format: str, **options: Any) -> bytes:
    return encode(PIXELS, format, **options)


def png_of(texts: tuple[Text, ...] = TEXTS, zipped: bool = False) -> bytes:
    info = PngImagePlugin.PngInfo()
    for text in texts:
        if text.language:
            info.add_itxt(text.keyword, text.text, text.language, text.translated, zip=zipped)
        else:
            info.add_text(text.keyword, text.text, zip=zipped)
    return saved("png", pnginfo=info)


def packet(spaces: str = "", attributes: str = "", elements: str = "") -> bytes:
    return PARTS.format(spaces=spaces, attributes=attributes, elements=elements).encode()


@pytest.fixture
def run(run: Any, weights: Path) -> Any:
    """Run a command that changes nothing; return its events and stderr."""

    def call(*arguments: str) -> tuple[list[dict[str, Any]], str]:
        code, out, err = run("denoise", *arguments, "--weights", weights / "same.safetensors", "--json")
        assert code == 0
        return [json.loads(line) for line in out], err

    return call


# Texts


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "packed"])
def test_texts_of_a_png_stay_in_png(zipped: bool) -> None:
    before = read_picture(png_of(zipped=zipped))
    assert before.metadata.texts == TEXTS
    data = encode_picture(before, "png")
    assert read_picture(data).metadata.texts == TEXTS
    with Image.open(io.BytesIO(data)) as image:  # as another program reads them
        image.load()
        assert {keyword: str(text) for keyword, text in image.info.items()} == {
            text.keyword: text.text for text in TEXTS
        }
        assert (image.info["Title"].lang, image.info["Title"].tkey) == ("de", "Titel")


@pytest.mark.parametrize("has_ratio", [False, True])
@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_texts_exif_and_a_ratio_of_pixels_are_kept_together(format: str, has_ratio: bool) -> None:
    before = read_picture(png_of())
    density = (2.0, 1.0) if has_ratio else None
    metadata = replace(before.metadata, exif=exif_block(), dpi=None, density=density)
    before = replace(before, metadata=metadata)
    after = read_picture(encode_picture(before, format))
    assert after.metadata.texts == (TEXTS if format == "png" else COMMENTS)
    assert after.metadata.exif is not None
    assert b"Camera works" in after.metadata.exif
    assert after.metadata.density == before.metadata.density


def test_texts_behind_the_pixels_are_read_and_broken_ones_are_named() -> None:
    data = png_of()
    plain = saved("png")
    end = plain.index(b"IEND") - 4
    texts = data[33 : data.index(b"IDAT") - 4]
    assert read_picture(plain[:end] + texts + plain[end:]).metadata.texts == TEXTS

    packed = bytearray(png_of((Text("Title", "long " * 100),), zipped=True))
    at = packed.index(b"zTXt") + 4 + len("Title") + 2
    packed[at : at + 4] = bytes(4)
    assert read_png_facts(bytes(packed)).damaged_texts == 1


def test_a_text_that_unpacks_to_gigabytes_is_not_unpacked() -> None:
    bomb = png_of((Text("Comment", "0" * 2**25),), zipped=True)
    facts = read_png_facts(bomb)
    assert (facts.texts, facts.damaged_texts) == ((), 1)


@pytest.mark.parametrize("format", ["jpeg", "gif"])
def test_texts_become_comments_and_comments_stay(format: str) -> None:
    picture = read_picture(png_of())
    data = encode_picture(picture, format)
    assert read_picture(data).metadata.texts == COMMENTS
    with Image.open(io.BytesIO(data)) as image:  # which gives the last one, or all
        assert image.info["comment"].endswith(COMMENTS[-1].text.encode())
    (comment,) = read_picture(saved("jpeg", comment="grüße".encode("latin-1"))).metadata.texts
    assert comment == Text("Comment", "grüße")
    after = encode_picture(read_picture(saved("jpeg", comment="hello")), "png")
    assert read_picture(after).metadata.texts == (Text("Comment", "hello"),)
    after = saved("gif", comment=b"made by hand")
    assert read_picture(after).metadata.texts == (Text("Comment", "made by hand"),)


@pytest.mark.parametrize("format", ["png", "jpeg", "gif", "webp", "tiff", "avif"])
def test_texts_are_kept_or_a_warning_names_them_and_strip_says_nothing(run: Any, format: str) -> None:
    Path("a.png").write_bytes(png_of())
    events, err = run("a.png", "-o", f"out.{format}")
    (done,) = (event for event in events if event["event"] == "done")
    if format in ("png", "jpeg", "gif"):
        assert done["warnings"] == []
        assert read_picture(Path(f"out.{format}")).metadata.texts
    else:
        warning = f"{format} has no room for its texts: parameters, Title, Copyright, Comment; png has"
        assert done["warnings"] == [warning]
        assert f"mambair: warning: a.png: {warning}" in err.splitlines()
        plan, _ = run("a.png", "-o", f"other.{format}", "--dry-run")
        assert plan[1]["warnings"] == [warning]
    events, _ = run("a.png", "-o", f"out.{format}", "--strip", "--overwrite")
    assert events[1]["warnings"] == []
    assert read_picture(Path(f"out.{format}")).metadata.texts == ()


def test_texts_too_long_for_a_comment_are_named(run: Any) -> None:
    fits, long = Text("Comment", "a" * 65533), Text("workflow", "b" * 70000)
    raw = Text("Raw profile type exif", "\nexif\n 4\n00000000\n")
    Path("a.png").write_bytes(png_of((fits, long, raw)))
    events, _ = run("a.png", "-o", "out.jpg")
    assert events[1]["warnings"] == [
        "jpeg has no room for its texts: workflow, Raw profile type exif; png has",
    ]
    assert read_picture(Path("out.jpg")).metadata.texts == (fits,)
    events, _ = run("a.png", "-o", "out.png")
    assert events[1]["warnings"] == []


# XMP


@pytest.mark.parametrize(
    ("spaces", "attributes", "elements", "lost"),
    [
        (
            f'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" xmlns:Container="{GOOGLE}/container/" '
            f'xmlns:Item="{GOOGLE}/container/item/"',
            'hdrgm:Version="1.0"',
            '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item '
            'Item:Semantic="Primary"/></rdf:li><rdf:li><Container:Item Item:Semantic="GainMap" '
            'Item:Length="9"/></rdf:li></rdf:Seq></Container:Directory>',
            ["gain map"],
        ),
        (
            f'xmlns:GCamera="{GOOGLE}/camera/"',
            'GCamera:MotionPhoto="1" GCamera:MotionPhotoPresentationTimestampUs=\'5\' GCamera:MicroVideo="1"',
            "<GCamera:MicroVideoOffset>2860</GCamera:MicroVideoOffset>",
            ["video"],
        ),
        (
            f'xmlns:GDepth="{GOOGLE}/depthmap/" xmlns:xmpNote="http://ns.adobe.com/xmp/note/"',
            'GDepth:Format="RangeInverse" xmpNote:HasExtendedXMP="DC"',
            "<GDepth:Near>1.0</GDepth:Near><GDepth:Data/>",
            ["depth map"],
        ),
        ('xmlns:n="http://ns.adobe.com/xmp/note/"', 'n:HasExtendedXMP="DC"', "", ["extended XMP"]),
        ("", "", "", []),
    ],
    ids=["gain map", "video", "depth map", "extended", "nothing"],
)
def test_xmp_of_what_is_gone_goes_and_the_rest_stays(
    spaces: str, attributes: str, elements: str, lost: list[str]
) -> None:
    after, dropped = drop_lost_parts(packet(spaces, attributes, elements))
    assert dropped == lost
    assert b"".join(after.split()) == b"".join(packet().split())


def test_entries_next_to_those_that_go_stay_as_they_are() -> None:
    spaces = f'xmlns:GCamera="{GOOGLE}/camera/" xmlns:GPano="{GOOGLE}/panorama/"'
    kept = 'GCamera:BurstID="b-1" GPano:ProjectionType="equirectangular"'
    after, dropped = drop_lost_parts(packet(spaces, f'{kept} GCamera:MotionPhoto="1"'))
    assert dropped == ["video"]
    assert after == packet(spaces, kept)


@pytest.mark.parametrize(
    ("trailer", "warning"),
    [
        (bytes(3) + b"\x20ftypisom" + bytes(100), "its video is left out"),
        (b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data\0\0\0\x20ftypisom", "its video is left out"),
        (b"\r\n just bytes", None),
    ],
)
def test_a_video_behind_a_photograph_is_named_once(trailer: bytes, warning: str | None) -> None:
    video = packet(f'xmlns:GCamera="{GOOGLE}/camera/"', 'GCamera:MotionPhoto="1"')
    for options in ({}, {"xmp": video}):
        after = read_picture(saved("jpeg", **options) + trailer)
        warnings = {"its video is left out"} if options else {warning} - {None}
        assert after.warnings == tuple(warnings)
        assert b"MotionPhoto" not in (after.metadata.xmp or b"")


# EXIF


def long_exif(length: int, thumbnail: int = 0) -> bytes:
    """Make a block of a length, whose thumbnail lies at its end."""
    exif = Image.Exif()
    exif.endian = "<"
    exif[0x010F] = "Camera works"
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    pointer = 10 + 12 * int.from_bytes(block[8:10], "little")
    assert block.startswith(b"II")
    at = len(block)
    first = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, length - thumbnail, 0x0202, 4, 1, thumbnail, 0)
    block = block[:pointer] + struct.pack("<I", at if thumbnail else 0) + block[pointer + 4 :] + first
    return block.ljust(length - thumbnail, b"\0") + b"\xff" * thumbnail


@pytest.mark.parametrize("length", [65502, 65503, 65526, 65527])
def test_exif_as_long_as_a_segment_is_written(length: int) -> None:
    block = long_exif(length)
    picture = read_picture(saved("png", exif=block))
    assert picture.metadata.exif == block
    data = encode_picture(picture, "jpeg")
    assert read_picture(data).metadata.exif == block
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif()[0x010F] == "Camera works"


def test_exif_that_is_too_long_loses_its_thumbnail_first() -> None:
    picture = read_picture(saved("png", exif=long_exif(70000, thumbnail=8000)))
    assert picture.metadata.exif is not None
    assert len(picture.metadata.exif) == 62000
    assert read_picture(encode_picture(picture, "jpeg")).metadata.exif == picture.metadata.exif
    with pytest.raises(ImageError, match="jpeg has room for 65527 bytes of EXIF, not 65528"):
        encode_picture(read_picture(saved("png", exif=long_exif(65528))), "jpeg")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_exif_that_cannot_be_read_is_reported_as_left_out(format: str) -> None:
    after = read_picture(saved(format, exif=b"II*\0\xff\xff\xff\x7f"))
    assert (after.metadata.exif, after.warnings) == (None, ("its EXIF cannot be read and is left out",))


def test_a_profile_that_cannot_be_read_is_reported_as_left_out() -> None:
    data = bytearray(saved("png", icc_profile=b"no profile" * 20))
    after = read_picture(bytes(data))
    assert (after.icc, after.warnings) == (None, ("its colour profile cannot be read and is left out",))


# Ends


@pytest.mark.parametrize("format", ["png", "gif"])
def test_a_file_without_the_mark_of_its_end_is_whole_and_gives_a_warning(format: str) -> None:
    frames = [Image.fromarray(np.roll(PIXELS, shift, axis=0)) for shift in (0, 5, 9)]
    file = io.BytesIO()
    options = {"save_all": True, "append_images": frames[1:]} if format == "gif" else {}
    frames[0].save(file, format, **options)
    data = file.getvalue()
    with open_picture(data[: -1 if format == "gif" else -12]) as reader:
        assert reader.warnings == ["the mark of its end is missing"]
        assert reader.header.frames == (3 if format == "gif" else 1)
        reader.read(0, reader.header.height * reader.header.frames)


def test_an_animation_that_breaks_off_is_no_shorter_one() -> None:
    frames = [Image.fromarray(np.roll(PIXELS, shift, axis=0)) for shift in (0, 5, 9)]
    file = io.BytesIO()
    frames[0].save(file, "gif", save_all=True, append_images=frames[1:])
    cut = file.getvalue()[: len(file.getvalue()) * 3 // 4]
    with pytest.raises(ImageError, match=r"it ends within a frame.+--damaged"), open_picture(cut):
        pass
    with open_picture(cut, damaged=True) as reader:
        assert reader.warnings == ["damaged: it ends within a frame"]
        reader.read(0, reader.header.height * reader.header.frames)


def test_metadata_for_which_a_format_has_no_place_is_named() -> None:
    metadata = Metadata(exif=exif_block(), xmp=packet(), iptc=wrap_iptc(b"\x1c\x02\x78\0\x01a"))
    header = Header(8, 8, 3, "uint8", format="jpeg", metadata=metadata)
    result = fit_header(header, "gif", "out.gif")
    [loss] = [each for each in find_losses(header, result, "gif") if "no room" in each]
    assert loss.startswith("gif has no room for its EXIF, IPTC and XMP; png, jpeg, webp, tiff and avif have")
    for format in ("png", "jpeg", "webp", "tiff", "avif"):
        assert find_losses(header, fit_header(header, format, "out"), format) == []
    assert find_losses(header, fit_header(header, "gif", "out.gif", strip=True), "gif", strip=True) == []


def test_iptc_counts_where_exif_has_to_hold_it() -> None:
    caption = b"\x1c\x02\x78" + struct.pack(">H", 20_000) + bytes(20_000)
    iptc = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(caption)) + caption + b"\0"
    metadata = Metadata(exif=long_exif(50_000), iptc=iptc)
    header = Header(8, 8, 3, "uint8", format="jpeg", metadata=metadata)
    with pytest.raises(NoRoomError, match="avif has room for 60000 bytes of EXIF, not 7"):
        fit_header(header, "avif", "out.avif")
    assert fit_header(header, "jpeg", "out.jpg").metadata.iptc == header.metadata.iptc
