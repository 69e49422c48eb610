"""Blocks of files that no result has: those that a user would miss are named, and no others."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from metadata import exif_block
from pictures import encode, noise
from PIL import Image

from mambair_cli.images import open_picture, read_picture
from mambair_cli.images.png_chunks import write_chunk

PIXELS = noise(20, 30, 3)
CREDENTIALS = "content credentials (C2PA), which would not be valid for the result"
MANIFEST = b"jumb\0\0\0\x26jumdc2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71\x03c2pa\0"


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    data = encode(PIXELS, "png")
    return data[:33] + b"".join(write_chunk(*chunk) for chunk in chunks) + data[33:]


def jpeg(*segments: tuple[int, bytes], **options: Any) -> bytes:
    data = encode(PIXELS, "jpeg", **options)
    added = (bytes([0xFF, 0xE0 + kind]) + struct.pack(">H", len(body) + 2) + body for kind, body in segments)
    return data[:20] + b"".join(added) + data[20:]  # behind JFIF


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    added = b"".join(
        kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2) for kind, body in chunks
    )
    data = encode(PIXELS, "webp") + added
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def gif(*blocks: tuple[bytes, bytes]) -> bytes:
    data = encode(PIXELS, "gif")
    start = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    added = (b"!\xff\x0b" + name + bytes([len(body)]) + body + b"\0" for name, body in blocks)
    return data[:start] + b"".join(added) + data[start:]


def boxes(format: str, *added: tuple[bytes, bytes]) -> bytes:
    tail = (struct.pack(">I", len(body) + 8) + kind + body for kind, body in added)
    return encode(PIXELS, format) + b"".join(tail)


def tiff(*tags: tuple[int, bytes]) -> bytes:
    from PIL import TiffImagePlugin

    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, body in tags:
        info.tagtype[tag] = 7
        info[tag] = body
    return encode(PIXELS, "tiff", tiffinfo=info)


def jumbf(part: int = 1, manifest: bytes = MANIFEST) -> bytes:
    return b"JP\0\1" + struct.pack(">II", part, 300) + manifest


UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


@pytest.mark.parametrize(
    "data",
    [
        png((b"caBX", MANIFEST)),
        jpeg((11, jumbf()), (11, jumbf(2, b"jumb, the rest of it"))),
        webp((b"C2PA", MANIFEST)),
        gif((b"C2PA_GIF\1\0\0", MANIFEST)),
        tiff((52545, MANIFEST)),
        boxes("avif", (b"uuid", UUID + b"\0\0\0\0manifest\0" + MANIFEST)),
        boxes("jpeg2000", (b"jumb", MANIFEST)),
    ],
    ids=["png", "jpeg", "webp", "gif", "tiff", "avif", "jpeg2000"],
)
def test_content_credentials_are_named_in_words(data: bytes) -> None:
    assert read_picture(data).warnings == (f"left out: {CREDENTIALS}",)


@pytest.mark.parametrize(
    ("data", "blocks"),
    [
        (png((b"caBX", MANIFEST), (b"prVt", b"own")), f"PNG chunk prVt and {CREDENTIALS}"),
        (png((b"npTc", bytes(32)), (b"prVt", b""), (b"prVt", b"")), "PNG chunks npTc and prVt"),
        (
            png(*((b"pr%cT" % kind, b"") for kind in b"ABCDEFGH")),
            "PNG chunks prAT, prBT, prCT, prDT, prET, prFT and 2 more",
        ),
        (
            png((b"sCAL", b"\x011\0001"), (b"oFFs", bytes(9))),
            "size of what is seen (sCAL) and place on the page (oFFs)",
        ),
        (jpeg((5, b"RMETA\0\0"), (3, bytes(99)), (3, bytes(99))), "JPEG segments APP5 (RMETA) and APP3"),
        (jpeg((1, b"FLIR\0\1\0\0")), "measured temperatures (FLIR)"),
        (jpeg((11, jumbf(manifest=MANIFEST.replace(b"c2pa", b"j360")))), "JPEG segment APP11 (JUMBF)"),
        (jpeg((12, b"Ducky\0\2\0\x06\0\0\0\1\0A\0\0")), "comment or copyright of Photoshop (Ducky)"),
        (webp((b"tHmb", b"1")), "WebP chunk tHmb"),
        (gif((b"XMP DataXMP", b"<x/>"), (b"MGKIPTC0000", b"1")), "XMP and GIF block MGKIPTC0000"),
        (gif((bytes(11), b"1")), "GIF block without a name"),
        (boxes("jpeg2000", (b"uuid", b"JpgTiffExif->JP2" + exif_block())), "EXIF"),
    ],
)
def test_what_a_user_would_miss_is_named(data: bytes, blocks: str) -> None:
    assert read_picture(data).warnings == (f"left out: {blocks}",)


def test_what_cameras_and_programs_note_for_themselves_is_left_out_without_a_word() -> None:
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    described = ((0, b"JFXX\0\x10"), (1, b"Exif\0\0" + exif_block()), (1, xmp))
    of_cameras = ((2, b"FPXR\0\0"), (3, b"Meta\0\0II"), (5, b"ssuniqueid\0"), (6, b"GoPro\0"), (7, b"HUAWEI"))
    preview = ((4, b"\xff\xd8\xff\xdb" + bytes(99)), (4, bytes(99)))
    old = ((12, b"OLYMPUS\0[picture info] Quality=3"), (10, b"AROT\0\0"))
    of_adobe = ((12, b"Ducky\0\1\0\4\0\0\0\x3c\0\0"), (13, b"Adobe_CM\0\2"), (14, b"Adobe\0d\0\0\0\0\0"))
    assert read_picture(jpeg(*described, *of_cameras, *preview, *old, *of_adobe)).warnings == ()
    chunks = ((b"bKGD", bytes(6)), (b"sBIT", b"\5\6\5"), (b"tIME", bytes(7)), (b"iDOT", bytes(28)))
    assert read_picture(png(*chunks, (b"vpAg", bytes(9)), (b"orNT", b"\1"))).warnings == ()
    first, *others = (Image.fromarray(noise(20, 30, 3, seed=seed)) for seed in range(3))
    for format in ("gif", "webp"):
        file = io.BytesIO()
        first.save(file, format, save_all=True, append_images=others, loop=2)
        with open_picture(file.getvalue()) as reader:
            assert reader.header.left_out == ()


def test_the_command_says_so_once_and_strip_says_nothing(run: Any, weights: Path) -> None:
    Path("a.png").write_bytes(png((b"caBX", MANIFEST), (b"prVt", b"own")))
    call = ("denoise", "a.png", "--weights", weights / "same.safetensors", "--json", "--overwrite")
    for options, warnings in (((), [f"left out: PNG chunk prVt and {CREDENTIALS}"]), (("--strip",), [])):
        code, out, err = run(*call, *options)
        (done,) = (event for event in map(json.loads, out) if event["event"] == "done")
        assert (code, done["warnings"]) == (0, warnings)
        assert err.count("C2PA") == len(warnings)
