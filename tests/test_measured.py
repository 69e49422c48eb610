"""Measures in pixels that metadata tell of a camera: scaled and turned, so that its field of view stays."""

import json
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import encode
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from mambair_cli.images import open_picture, read_picture
from mambair_cli.images.measured import find_unmoved, move_exif_measures, move_xmp_measures
from mambair_cli.images.move import Move
from mambair_cli.images.picture import Metadata
from mambair_cli.images.places import move_xmp_places

WIDTH, HEIGHT = 64, 40
X_RESOLUTION, Y_RESOLUTION, UNIT = 0xA20E, 0xA20F, 0xA210
DOUBLE = Move(1, (WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT))
QUARTER = Move(6, (WIDTH, HEIGHT), (HEIGHT, WIDTH))
LENS = "2018-09-04;3000.5,2900,-6,2.5,-0.2,0.1,-0.001,-0.0002,-0.03"
XMP = (
    "<x exif:FocalPlaneXResolution='8001/4' exif:FocalPlaneYResolution='1000/1' "
    'drone-dji:CalibratedFocalLength="50.5" drone-dji:CalibratedOpticalCenterX="16.0">'
    "<drone-dji:CalibratedOpticalCenterY>10</drone-dji:CalibratedOpticalCenterY>"
    f"<drone-dji:DewarpData>{LENS}</drone-dji:DewarpData></x>"
)
UNMOVED = "in its metadata, measures that do not fit the result: "


def exif_of(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    part = exif.get_ifd(0x8769)
    part[X_RESOLUTION], part[Y_RESOLUTION], part[UNIT] = IFDRational(4001, 2), IFDRational(1000), 2
    part[0x920A] = IFDRational(10)  # focal length
    return exif.tobytes().removeprefix(b"Exif\0\0")


def read_focal_plane(block: bytes | None) -> tuple[float, float, int]:
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + (block or b""))
    part = exif.get_ifd(0x8769)
    return float(part[X_RESOLUTION]), float(part[Y_RESOLUTION]), part[UNIT]


def read_xmp(xmp: bytes | None, name: str) -> str:
    return re.findall(rf"{name}(?:=[\"']|>)([^\"'<]*)", (xmp or b"").decode())[0]


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_the_geometry_of_a_camera_fits_the_result(
    suffix: str, orientation: int, run: Any, weights: Path
) -> None:
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    data = encode(pixels, "webp", exif=exif_of(orientation), xmp=XMP.encode(), lossless=True)
    Path("in.webp").write_bytes(data)
    command = ("upscale", "in.webp", "--weights", weights / "x2.safetensors", "-o", f"out.{suffix}", "--json")
    code, out, _ = run(*command)
    assert code == 0
    (warnings,) = [event["warnings"] for event in map(json.loads, out) if event["event"] == "done"]
    assert not any(sentence.startswith(UNMOVED) for sentence in warnings)
    after = read_picture(Path(f"out.{suffix}"))
    x, y = (4001, 2000) if orientation != 6 else (2000, 4001)
    assert read_focal_plane(after.metadata.exif) == (x, y, 2)
    x, y = ("8001/2", "2000/1") if orientation != 6 else ("2000/1", "8001/2")
    assert read_xmp(after.metadata.xmp, "exif:FocalPlaneXResolution") == x
    assert read_xmp(after.metadata.xmp, "exif:FocalPlaneYResolution") == y
    assert read_xmp(after.metadata.xmp, "drone-dji:CalibratedFocalLength") == "101"
    centre = {1: ("32", "20"), 3: ("96", "60"), 6: ("60", "32")}[orientation]
    names = ("drone-dji:CalibratedOpticalCenterX", "drone-dji:CalibratedOpticalCenterY")
    assert tuple(read_xmp(after.metadata.xmp, name) for name in names) == centre
    lens = {
        1: "6001,5800,-12,5,-0.2,0.1,-0.001,-0.0002,-0.03",
        3: "6001,5800,12,-5,-0.2,0.1,0.001,0.0002,-0.03",
        6: "5800,6001,-5,-12,-0.2,0.1,-0.0002,0.001,-0.03",
    }[orientation]
    lens = f"2018-09-04;{lens}"
    assert read_xmp(after.metadata.xmp, "drone-dji:DewarpData") == lens


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")
@pytest.mark.parametrize("orientation", [1, 6])
def test_exiftool_finds_the_same_field_of_view(orientation: int, run: Any, weights: Path) -> None:
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    Path("in.jpg").write_bytes(encode(pixels, "jpeg", exif=exif_of(orientation)))
    assert run("upscale", "in.jpg", "--weights", weights / "x2.safetensors", "-o", "out.jpg")[0] == 0
    command = ["exiftool", "-n", "-s3", "-FOV", "in.jpg", "out.jpg"]
    before, after = re.findall(r"^\d.*", subprocess.check_output(command, text=True), re.MULTILINE)
    assert float(after) == pytest.approx(float(before), rel=1e-6)


def distort(x: float, y: float, k1: float, k2: float, p1: float, p2: float, k3: float) -> tuple[float, float]:
    """Distort a point as OpenCV does."""
    r = x * x + y * y
    factor = 1 + k1 * r + k2 * r**2 + k3 * r**3
    return (
        x * factor + 2 * p1 * x * y + p2 * (r + 2 * x * x),
        y * factor + p1 * (r + 2 * y * y) + 2 * p2 * x * y,
    )


def project(lens: str, x: float, y: float, width: int, height: int) -> tuple[float, float]:
    """Return where a point of the scene lies, as shares of the picture."""
    fx, fy, cx, cy, *terms = map(float, lens.partition(";")[2].split(","))
    x, y = distort(x, y, *terms)
    return (fx * x + cx) / width + 0.5, (fy * y + cy) / height + 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_lens_distorts_the_turned_scene_as_the_scene(orientation: int) -> None:
    after = (2 * HEIGHT, 2 * WIDTH) if orientation >= 5 else (2 * WIDTH, 2 * HEIGHT)
    move = Move(orientation, (WIDTH, HEIGHT), after)
    moved = read_xmp(move_xmp_measures(XMP.encode(), move), "drone-dji:DewarpData")
    turn = move._replace(before=(1, 1), after=(1, 1))
    expected = move.point(*project(LENS, 0.3, -0.2, WIDTH, HEIGHT))
    assert project(moved, *turn.vector(0.3, -0.2), *after) == pytest.approx(expected)


def test_what_cannot_be_converted_is_named() -> None:
    assert find_unmoved(Metadata(exif=exif_of(), xmp=XMP.encode()), DOUBLE) == ()
    lone = b'<x exif:FocalPlaneXResolution="9" drone-dji:DewarpData="gone" Camera:VignettingCenter="3,4"/>'
    moved = move_xmp_measures(lone, DOUBLE)
    assert moved == lone.replace(b'"9"', b'"18"')
    names = ("drone-dji:DewarpData", "Camera:VignettingCenter")
    assert find_unmoved(Metadata(xmp=lone), DOUBLE) == names
    assert move_xmp_measures(lone, QUARTER) == lone
    assert find_unmoved(Metadata(xmp=lone), QUARTER) == ("exif:FocalPlaneXResolution", *names)
    panorama = b'<x GPano:FullPanoWidthPixels="64" GPano:FullPanoHeightPixels="40"/>'
    names = ("GPano:FullPanoWidthPixels", "GPano:FullPanoHeightPixels")
    assert find_unmoved(Metadata(xmp=panorama), QUARTER) == names


@pytest.mark.parametrize(
    ("more", "is_reported"),
    [((), True), (("--strip",), False), (("-o", "out.gif", "--background", "white"), False)],
)
def test_what_does_not_fit_a_turned_and_enlarged_picture_is_reported_once(
    more: tuple[str, ...], is_reported: bool, run: Any, weights: Path
) -> None:
    xmp = b'<x GPano:FullPanoWidthPixels="64" Camera:VignettingCenter="3,4"/>'
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    Path("in.webp").write_bytes(encode(pixels, "webp", exif=exif_of(6), xmp=xmp, lossless=True))
    with open_picture(Path("in.webp")) as reader:
        assert reader.warnings == []  # there is no result that they would not fit
    code, out, _ = run("upscale", "in.webp", "--weights", weights / "x2.safetensors", "--json", *more)
    assert code == 0
    (warnings,) = [event["warnings"] for event in map(json.loads, out) if event["event"] == "done"]
    sentences = [sentence for sentence in warnings if sentence.startswith(UNMOVED)]
    names = "GPano:FullPanoWidthPixels and Camera:VignettingCenter"
    assert sentences == ([UNMOVED + names] if is_reported else [])


def test_a_resolution_of_another_type_stays_and_is_named() -> None:
    block = exif_of()
    for tag in (X_RESOLUTION, Y_RESOLUTION):  # signed
        block = block.replace(struct.pack(">HH", tag, 5), struct.pack(">HH", tag, 10))
        block = block.replace(struct.pack("<HH", tag, 5), struct.pack("<HH", tag, 10))
    assert move_exif_measures(block, DOUBLE) == block
    names = ("FocalPlaneXResolution", "FocalPlaneYResolution")
    assert find_unmoved(Metadata(exif=block), DOUBLE) == names
    assert move_exif_measures(b"II*\0", DOUBLE) == b"II*\0"


def test_a_resolution_with_an_undefined_one_is_scaled_and_named_where_it_cannot_be_turned() -> None:
    block = exif_of()
    order = "<" if block[:2] == b"II" else ">"
    block = block.replace(struct.pack(f"{order}2I", 1000, 1), bytes(8))
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + move_exif_measures(block, DOUBLE))
    assert float(exif.get_ifd(0x8769)[X_RESOLUTION]) == 4001
    assert find_unmoved(Metadata(exif=block), DOUBLE) == ()
    assert move_exif_measures(block, QUARTER) == block
    assert find_unmoved(Metadata(exif=block), QUARTER) == ("FocalPlaneXResolution",)


def region(unit: str, shape: str, **numbers: float) -> bytes:
    parts = "".join(f"<Iptc4xmpExt:{name}>{number}</Iptc4xmpExt:{name}>" for name, number in numbers.items())
    return (
        "<Iptc4xmpExt:RegionBoundary rdf:parseType='Resource'>"
        f"<Iptc4xmpExt:rbShape>{shape}</Iptc4xmpExt:rbShape><Iptc4xmpExt:rbUnit>{unit}</Iptc4xmpExt:rbUnit>"
        f"{parts}</Iptc4xmpExt:RegionBoundary>"
    ).encode()


@pytest.mark.parametrize(
    ("shape", "before", "enlarged", "turned"),
    [
        (
            "rectangle",
            {"rbH": 8, "rbW": 16, "rbX": 4, "rbY": 10},
            {"rbH": 16, "rbW": 32, "rbX": 8, "rbY": 20},
            {"rbH": 16, "rbW": 8, "rbX": 22, "rbY": 4},
        ),
        (
            "circle",
            {"rbRx": 3, "rbX": 16, "rbY": 10},
            {"rbRx": 6, "rbX": 32, "rbY": 20},
            {"rbRx": 3, "rbX": 30, "rbY": 16},
        ),
    ],
)
def test_regions_of_iptc_move(
    shape: str, before: dict[str, float], enlarged: dict[str, float], turned: dict[str, float]
) -> None:
    xmp = region("pixel", shape, **before)
    assert move_xmp_places(xmp, DOUBLE) == region("pixel", shape, **enlarged)
    assert move_xmp_places(xmp, QUARTER) == region("pixel", shape, **turned)


def test_regions_of_iptc_in_shares_turn_and_vertices_move() -> None:
    xmp = region("relative", "rectangle", rbX=0.25, rbY=0.5, rbW=0.25, rbH=0.125)
    assert move_xmp_places(xmp, DOUBLE) == xmp
    turned = region("relative", "rectangle", rbX=0.375, rbY=0.25, rbW=0.125, rbH=0.25)
    assert move_xmp_places(xmp, QUARTER) == turned
    circle = region("relative", "circle", rbX=0.25, rbY=0.5, rbRx=0.1)
    assert move_xmp_places(circle, QUARTER) == region("relative", "circle", rbX=0.5, rbY=0.25, rbRx=0.16)
    place = "<rdf:li Iptc4xmpExt:rbX='{}' Iptc4xmpExt:rbY='{}'/>"
    polygon = region("pixel", "polygon").decode()
    before = polygon.replace("</Iptc4xmpExt:R", place.format(1, 2) + place.format(30, 20) + "</Iptc4xmpExt:R")
    after = polygon.replace("</Iptc4xmpExt:R", place.format(38, 1) + place.format(20, 30) + "</Iptc4xmpExt:R")
    assert move_xmp_places(before.encode(), QUARTER) == after.encode()
