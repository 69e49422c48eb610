"""Places that metadata name, such as faces: where the pixels are after turns and enlargement."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pictures import encode
from PIL import Image

from mambair_cli.images import open_picture, read_picture
from mambair_cli.images.measured import move_xmp_measures
from mambair_cli.images.move import Move
from mambair_cli.images.places import move_exif_places, move_xmp_places

WIDTH, HEIGHT = 64, 40
LEFT, TOP, ACROSS, DOWN = 8, 4, 16, 8  # of a subject, in pixels
MIDDLE = (LEFT + ACROSS // 2, TOP + DOWN // 2)
AREA, LOCATION = 0x9214, 0xA214


def stored() -> np.ndarray:
    """Return a dark picture with a bright subject."""
    pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    pixels[TOP : TOP + DOWN, LEFT : LEFT + ACROSS] = 220
    return pixels


def see_subject(pixels: np.ndarray) -> tuple[float, float, float, float]:
    """Return middle, width and height of what is bright, in pixels."""
    rows, columns = np.nonzero(pixels[..., 0] > 128)
    left, right, top, bottom = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def exif_of(orientation: int, area: tuple[int, ...] = (*MIDDLE, ACROSS, DOWN)) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    part = exif.get_ifd(0x8769)
    part[AREA], part[LOCATION] = area, MIDDLE
    return exif.tobytes().removeprefix(b"Exif\0\0")


def read_exif(block: bytes | None) -> tuple[Any, Any]:
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + (block or b""))
    part = exif.get_ifd(0x8769)
    return part.get(AREA), part.get(LOCATION)


def xmp_of(as_attributes: bool, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    x, y, w, h = MIDDLE[0] / WIDTH, MIDDLE[1] / HEIGHT, ACROSS / WIDTH, DOWN / HEIGHT
    if as_attributes:
        dimensions = f'<mwg-rs:AppliedToDimensions stDim:w="{width}" stDim:h="{height}" stDim:unit="pixel"/>'
        area = f'<mwg-rs:Area stArea:x="{x}" stArea:y="{y}" stArea:w="{w}" stArea:h="{h}"/>'
    else:
        dimensions = (
            "<mwg-rs:AppliedToDimensions rdf:parseType='Resource'>"
            f"<stDim:w>{width}</stDim:w><stDim:h>{height}</stDim:h></mwg-rs:AppliedToDimensions>"
        )
        area = (
            "<mwg-rs:Area rdf:parseType='Resource'>"
            f"<stArea:x>{x}</stArea:x><stArea:y>{y}</stArea:y><stArea:w>{w}</stArea:w><stArea:h>{h}</stArea:h>"
            "</mwg-rs:Area>"
        )
    numbers = "".join(f"<rdf:li>{number}</rdf:li>" for number in (*MIDDLE, ACROSS, DOWN))
    rectangle = f'<rdf:li MPReg:Rectangle="{LEFT / WIDTH}, {TOP / HEIGHT}, {w}, {h}" MPReg:Name="Ann"/>'
    subject = f"<exif:SubjectArea><rdf:Seq>{numbers}</rdf:Seq></exif:SubjectArea>"
    return f"<x>{dimensions}{area}{rectangle}{subject}<dc:note>0.25, 0.5</dc:note></x>".encode()


def read_numbers(xmp: bytes | None, *names: str) -> list[float]:
    text = (xmp or b"").decode()
    return [float(re.findall(rf"{name}(?:=\"|>)([^\"<]*)", text)[0]) for name in names]


def check_places(xmp: bytes | None, exif: bytes | None, pixels: np.ndarray) -> None:
    """Hold all that metadata say of the subject to the pixels."""
    seen, (height, width, _) = see_subject(pixels), pixels.shape
    area, location = read_exif(exif)
    assert area == pytest.approx(seen, abs=1)
    assert location == pytest.approx(seen[:2], abs=1)
    shares = np.array(seen) / [width, height, width, height]
    np.testing.assert_allclose(read_numbers(xmp, *(f"stArea:{name}" for name in "xywh")), shares, atol=1e-4)
    assert read_numbers(xmp, "stDim:w", "stDim:h") == [width, height]
    text = (xmp or b"").decode()
    rectangle = [float(part) for part in re.findall(r"Rectangle=\"(.*?)\"", text)[0].split(",")]
    corner = shares[:2] - shares[2:] / 2
    np.testing.assert_allclose(rectangle, [*corner, *shares[2:]], atol=1e-4)
    assert list(map(int, re.findall(r"<rdf:li>(\d+)", text))) == pytest.approx(seen, abs=1)
    assert "<dc:note>0.25, 0.5</dc:note>" in text


@pytest.mark.parametrize("as_attributes", [True, False])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_places_turn_with_the_pixels(orientation: int, as_attributes: bool) -> None:
    data = encode(stored(), "webp", exif=exif_of(orientation), xmp=xmp_of(as_attributes), lossless=True)
    after = read_picture(data)
    check_places(after.metadata.xmp, after.metadata.exif, after.pixels)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_places_grow_with_the_picture(suffix: str, run: Any, weights: Path) -> None:
    data = encode(stored(), "webp", exif=exif_of(6), xmp=xmp_of(True), lossless=True)
    Path("in.webp").write_bytes(data)
    assert run("upscale", "in.webp", "--weights", weights / "x2.safetensors", "-o", f"out.{suffix}")[0] == 0
    after = read_picture(Path(f"out.{suffix}"))
    assert after.pixels.shape == (2 * WIDTH, 2 * HEIGHT, 3)
    check_places(after.metadata.xmp, after.metadata.exif, after.pixels)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_places_on_every_page_turn_with_its_pixels(orientation: int) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        for page in (1, 2):
            xmp = xmp_of(True).replace(b"Ann", b"Ann %d" % page)
            extra = [(0x0112, 3, 1, orientation, True), (700, 1, len(xmp), xmp, True)]
            tiff.write(stored(), photometric="rgb", metadata=None, extratags=extra)
    single = read_picture(encode(stored(), "webp", exif=exif_of(orientation), xmp=xmp_of(True)))
    names = [f"stArea:{name}" for name in "xywh"] + ["stDim:w", "stDim:h"]
    with open_picture(file.getvalue()) as reader:
        pages = reader.header.pages
    assert [f"Ann {page}".encode() in (note.xmp or b"") for page, note in enumerate(pages, 1)] == [True, True]
    for note in pages:
        assert read_numbers(note.xmp, *names) == read_numbers(single.metadata.xmp, *names)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_packets_of_other_encodings_become_utf_8(encoding: str) -> None:
    xmp = f"<?xpacket begin='\ufeff'?>{xmp_of(False).decode()}"
    packets = (xmp.encode(encoding), xmp.encode())
    files = [encode(stored(), "webp", exif=exif_of(6), xmp=each) for each in packets]
    first, second = (read_picture(file).metadata.xmp for file in files)
    assert first == second
    broken = xmp.encode("utf-16-le") + b"\0"
    assert read_picture(encode(stored(), "webp", xmp=broken)).metadata.xmp == broken


def test_regions_that_were_written_for_the_upright_picture_stay() -> None:
    xmp = xmp_of(True, HEIGHT, WIDTH)
    moved = move_xmp_places(xmp, Move(6, (WIDTH, HEIGHT), (HEIGHT, WIDTH)))
    names = [f"stArea:{name}" for name in "xywh"] + ["stDim:w", "stDim:h"]
    assert read_numbers(moved, *names) == read_numbers(xmp, *names)


def test_a_diameter_grows_and_a_place_beyond_what_exif_can_hold_goes() -> None:
    block = exif_of(1, (*MIDDLE, 10))
    grown = move_exif_places(block, Move(1, (WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT)))
    assert read_exif(grown) == ((32, 16, 20), (32, 16))
    assert len(grown) == len(block)
    huge = move_exif_places(block, Move(1, (WIDTH, HEIGHT), (5000 * WIDTH, HEIGHT)))
    assert read_exif(huge) == (None, None)
    assert len(huge) == len(block)


@pytest.mark.parametrize("area", [(1,), (1, 2, 3, 4, 5)])
def test_a_place_that_makes_no_sense_stays(area: tuple[int, ...]) -> None:
    block = exif_of(1, area)
    assert move_exif_places(block, Move(3, (WIDTH, HEIGHT), (WIDTH, HEIGHT))) == block


@pytest.mark.parametrize(
    "xmp",
    [
        b'GPano:FullPanoWidthPixels="1e999"',
        b'<mwg-rs:AppliedToDimensions stDim:w="1e999" stDim:h="3"/>',
        b'MPReg:Rectangle="1e999, 1, 1, 1"',
        b'MPReg:Rectangle="' + b"1" * 10**6 + b'"',  # takes steps by its length, not by the square of that
    ],
    ids=lambda xmp: xmp[:20].decode(),
)
def test_numbers_that_make_no_sense_stay(xmp: bytes) -> None:
    double = Move(1, (WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT))
    assert move_xmp_measures(move_xmp_places(xmp, double), double) == xmp


def test_sizes_of_a_panorama_are_those_of_the_result() -> None:
    xmp = (
        b'<d GPano:FullPanoWidthPixels="200" GPano:FullPanoHeightPixels="100" '
        b'GPano:CroppedAreaImageWidthPixels="64" GPano:CroppedAreaTopPixels="30" '
        b'GPano:InitialHorizontalFOVDegrees="75">'
        b"<GPano:CroppedAreaImageHeightPixels>40</GPano:CroppedAreaImageHeightPixels>"
        b"<GPano:CroppedAreaLeftPixels> 10</GPano:CroppedAreaLeftPixels></d>"
    )
    moved = move_xmp_measures(xmp, Move(1, (64, 40), (256, 160)))
    changed = {
        b'"200"': b'"800"',
        b'"100"': b'"400"',
        b'"64"': b'"256"',
        b'"30"': b'"120"',
        b">40<": b">160<",
    }
    for old, new in {**changed, b"> 10<": b"> 40<"}.items():
        xmp = xmp.replace(old, new)
    assert moved == xmp
