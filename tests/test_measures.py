"""What files tell of the size of their pixels: descriptions of microscopes' files, resolutions, ratios."""

import io
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from pictures import encode, noise
from PIL import Image

from mambair_cli.images import encode_picture, read_picture
from mambair_cli.images.ome import Resized, find_misfit, restate_ome
from mambair_cli.images.tiff_resolution import restate_tiff_resolution, scale_exif_resolution
from mambair_cli.images.xmp import scale_xmp_resolution

STACK = noise(2, 20, 30, dtype=np.uint16)
OME = {"axes": "CYX", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5}
CHANNELS = {"Channel": {"Name": ["DAPI", "GFP"]}}
NAMESPACE = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
X_RESOLUTION, Y_RESOLUTION, UNIT = 282, 283, 296


@pytest.fixture
def run(run: Any, weights: Path) -> Any:
    """Run a command with a small network, which must succeed, and return stderr."""

    def call(command: str, network: str, *arguments: str) -> str:
        code, _, err = run(
            command, *arguments, "--weights", weights / f"{network}.safetensors", "--overwrite"
        )
        assert code == 0, err
        return err

    return call


def read(path: str, caplog: pytest.LogCaptureFixture | None = None) -> tuple[str, np.ndarray, str]:
    """Return axes, samples and description as tifffile reads them, which must find nothing to warn of."""
    with tifffile.TiffFile(path) as file:
        result = file.series[0].axes, file.asarray(), file.pages.first.description
    assert caplog is None or not caplog.records
    return result


def resolutions(path: str) -> list[tuple[float, float, int]]:
    """Return resolution and unit of each page."""
    with tifffile.TiffFile(path) as file:
        tags = [page.tags for page in file.pages if isinstance(page, tifffile.TiffPage)]
    values = [[each.valueof(tag) for tag in (X_RESOLUTION, Y_RESOLUTION, UNIT)] for each in tags]
    return [(x[0] / x[1], y[0] / y[1], int(unit)) for x, y, unit in values]


def pixels_of(description: str) -> dict[str, str]:
    found = ET.fromstring(description).find(f"{NAMESPACE}Image/{NAMESPACE}Pixels")
    assert found is not None
    return found.attrib


LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {},
    "tiles": {"tile": (16, 16), "compression": "zlib"},
    "big": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "big and big-endian": {"bigtiff": True, "byteorder": ">"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("arguments", "size"),
    [(["-s", "2"], (40, 60)), (["-s", "2.5"], (50, 75)), (["--width", "45"], (30, 45)), (None, (20, 30))],
)
def test_ome_has_the_sizes_of_the_result(
    run: Any, layout: str, arguments: list[str] | None, size: tuple[int, int], caplog: Any
) -> None:
    tifffile.imwrite("in.ome.tif", STACK, metadata=OME | CHANNELS, **LAYOUTS[layout])
    if arguments is None:
        run("denoise", "same", "in.ome.tif", "-o", "out.ome.tif")
    else:
        run("upscale", "x4", "in.ome.tif", "-o", "out.ome.tif", *arguments)
    axes, samples, description = read("out.ome.tif", caplog)
    assert (axes, samples.shape, samples.dtype) == ("CYX", (2, *size), np.uint16)
    pixels = pixels_of(description)
    assert (pixels["SizeY"], pixels["SizeX"], pixels["SizeC"]) == (str(size[0]), str(size[1]), "2")
    assert float(pixels["PhysicalSizeX"]) == pytest.approx(0.25 * 30 / size[1])
    assert float(pixels["PhysicalSizeY"]) == pytest.approx(0.5 * 20 / size[0])
    assert pixels["PhysicalSizeXUnit"] == "µm"
    assert "DAPI" in description
    assert "UUID" not in description  # of the file that it was


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_ome_has_the_type_of_the_result(run: Any, dtype: Any) -> None:
    tifffile.imwrite("in.ome.tif", noise(20, 30, dtype=dtype), metadata={"axes": "YX"})
    for depth, name in ((None, None), ("8", "uint8"), ("16", "uint16")):
        run("upscale", "x2", "in.ome.tif", "-o", "out.ome.tif", *(["--depth", depth] if depth else []))
        name = name or {"uint8": "uint8", "uint16": "uint16"}.get(np.dtype(dtype).name, "float")
        assert pixels_of(read("out.ome.tif")[2])["Type"] == name


def test_ome_that_does_not_fit_is_left_out_with_a_line(run: Any) -> None:
    tifffile.imwrite("in.ome.tif", STACK, metadata=OME)
    description = read("in.ome.tif")[2].encode()
    others = (STACK[0], "tells of 2 pages, not 1"), (STACK[:, :10], "30×20 pixels, not 30×10")
    for samples, why in others:
        tifffile.imwrite("odd.tif", samples, description=description, metadata=None, photometric="minisblack")
        assert why in run("upscale", "x2", "odd.tif", "-o", "out.tif")
        assert read("out.tif")[2] == ""
    assert "left out" not in run("upscale", "x2", "in.ome.tif", "-o", "out.tif")


def test_ome_with_smaller_copies_stays_if_the_pages_keep_their_numbers(run: Any) -> None:
    page = noise(20, 30)
    tifffile.imwrite("plain.ome.tif", page, metadata={"axes": "YX"})
    description = read("plain.ome.tif")[2].encode()
    for copy_first in (False, True):
        with tifffile.TiffWriter("in.tif") as file:
            pages = [(page, 0), (page[::2, ::2], 1)]
            for number, (each, kind) in enumerate(reversed(pages) if copy_first else pages):
                about = description if number == 0 else None
                file.write(each, subfiletype=kind, description=about, metadata=None)
        err = run("upscale", "x2", "in.tif", "-o", "out.tif")
        assert ("pages are left out" in err) == copy_first
        assert ("OME" in read("out.tif")[2]) == (not copy_first)


XML = b"""<?xml version="1.0" encoding="UTF-8"?><!-- kept -->
<o:OME xmlns:o="urn:ome" UUID="urn:uuid:1"><o:Instrument ID="I" SizeX="9"/>
<o:Image ID="a"><o:Description>SizeX="30"</o:Description><o:Pixels
   SizeX = '30' SizeY="20" SizeZ="1" SizeC="1" SizeT="1" Type="uint16" SignificantBits="12" BigEndian="true"
   Note='PhysicalSizeX="7" > 3' PhysicalSizeX="0.3" ><o:TiffData
 IFD="0"><o:UUID FileName="a">urn:uuid:1</o:UUID>
</o:TiffData></o:Pixels></o:Image><o:Image ID="b"><o:Pixels SizeX="30" SizeY="20" SizeZ="1" SizeC="1"
 SizeT="1" Type="uint16" PhysicalSizeX="5"/></o:Image>
<o:StructuredAnnotations><x xmlns="other" SizeX="30">a &amp; b</x></o:StructuredAnnotations>
<o:ROI><o:Rectangle X="1" Y="2" Width="3" Height="4"/><o:Polygon Points="1,2 3.5,-4"/>
<o:Point X="1" Y="2"><o:Transform A00="1" A01="2" A02="3" A10="4" A11="5" A12="6"/></o:Point>
<o:Mask X="1" Y="2" Width="8" Height="8"><o:BinData>AA</o:BinData></o:Mask></o:ROI></o:OME>"""


def test_only_sizes_change_in_ome() -> None:
    twice = Resized(2, 3, 60, 60, 1, "uint8", has_new_dtype=True)
    assert find_misfit(XML, 30, 20, 1, 2) is None
    expected = XML
    for before, after in (
        (b' UUID="urn:uuid:1"', b""),
        (b'<o:UUID FileName="a">urn:uuid:1</o:UUID>', b""),
        (b"SizeX = '30' SizeY", b"SizeX = '60' SizeY"),
        (b'<o:Pixels SizeX="30"', b'<o:Pixels SizeX="60"'),
        (b' SizeY="20"', b' SizeY="60"'),
        (b' SignificantBits="12" BigEndian="true"', b' BigEndian="false"'),
        (b'Type="uint16"', b'Type="uint8"'),
        (b' PhysicalSizeX="0.3"', b' PhysicalSizeX="0.15"'),
        (b' PhysicalSizeX="5"', b' PhysicalSizeX="2.5"'),
        (b'X="1" Y="2" Width="3" Height="4"', b'X="2" Y="6" Width="6" Height="12"'),
        (b'Points="1,2 3.5,-4"', b'Points="2,6 7,-12"'),
        (
            b'A00="1" A01="2" A02="3" A10="4" A11="5" A12="6"',
            b'A00="2" A01="4" A02="6" A10="12" A11="15" A12="18"',
        ),
        (
            b'Height="8">',
            b'Height="8"><o:Transform A00="2" A01="0" A02="0" A10="0" A11="3" A12="0"/>',
        ),
    ):
        expected = expected.replace(before, after)
    assert restate_ome(XML, twice) == expected
    assert find_misfit(expected, 60, 60, 1, 2) is None


def test_ome_of_another_kind_of_file_does_not_fit() -> None:
    several = XML.replace(b">urn:uuid:1<", b">urn:uuid:2<")
    companion = XML.replace(b"<o:StructuredAnnotations>", b"<o:BinaryOnly/><o:StructuredAnnotations>")
    colours = XML.replace(b"</o:TiffData>", b'</o:TiffData><o:Channel SamplesPerPixel="3"/>')
    grown = b'<!DOCTYPE x [<!ENTITY a "b">]>' + XML[XML.index(b"<o:OME") :]
    for xml in (several, companion, colours, grown, XML[:-9], b"<OME>", b"", b"OME>"):
        assert find_misfit(xml, 30, 20, 1, 2)
    assert find_misfit(XML, 30, 20, 1, 1)
    latin = XML.replace(b"<x ", b"<x name='\xb5m' ")
    assert find_misfit(latin, 30, 20, 1, 2) is None


@given(st.binary(max_size=20), st.integers(0, len(XML)), st.integers(0, 20))
def test_broken_ome_is_left_out_or_describes_the_result(inserted: bytes, at: int, removed: int) -> None:
    broken = XML[:at] + inserted + XML[at + removed :]
    misfit = find_misfit(broken, 30, 20, 1, 2)
    if misfit is None:
        restated = restate_ome(broken, Resized(2, 3, 60, 60, 1, "uint16", has_new_dtype=False))
        assert find_misfit(restated, 60, 60, 1, 2) is None
    else:
        assert broken != XML
        assert re.fullmatch("it [^\n]+", misfit)


@pytest.mark.parametrize("layout", ["strips", "big-endian"])
def test_image_j_keeps_its_calibration(run: Any, layout: str, caplog: Any) -> None:
    about = {
        "unit": "um",
        "axes": "CYX",
        "spacing": 0.5,
        "min": 10.0,
        "max": 900.0,
        "xorigin": 3,
        "yorigin": 2,
    }
    options = LAYOUTS[layout]
    tifffile.imwrite(
        "in.tif", STACK, imagej=True, resolution=(2, 4), resolutionunit=1, metadata=about, **options
    )
    for arguments, factor in (
        (["denoise", "same"], 1),
        (["upscale", "x2"], 2),
        (["upscale", "x4", "-s", "2.5"], 2.5),
    ):
        run(*arguments[:2], "in.tif", "-o", "out.tif", *arguments[2:])
        axes, samples, description = read("out.tif", caplog)
        assert (axes, samples.shape) == ("CYX", (2, 20 * factor, 30 * factor))
        assert resolutions("out.tif") == [(2 * factor, 4 * factor, 1)] * 2
        assert f"xorigin={3 * factor:g}\nyorigin={2 * factor:g}" in description
        assert all(line in description for line in ("unit=um", "spacing=0.5", "min=10", "max=900"))
    run("upscale", "x2", "in.tif", "-o", "out.tif", "--depth", "8")
    description = read("out.tif", caplog)[2]
    assert "min=" not in description
    assert "max=" not in description


def test_image_j_of_other_pages_is_left_out_with_a_line(run: Any) -> None:
    tifffile.imwrite("in.tif", STACK[0], description="ImageJ=1.54\nimages=7\nunit=um", metadata=None)
    assert "ImageJ description does not fit and is left out: it tells of 7" in run(
        "upscale", "x2", "in.tif", "-o", "out.tif"
    )
    assert read("out.tif")[2] == ""


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((20, 30), {}),
        ((2, 20, 30), {}),
        ((2, 3, 20, 30), {"metadata": {"axes": "TZYX"}}),
        ((20, 30, 3), {"photometric": "rgb"}),
        ((2, 20, 30, 3), {"photometric": "rgb"}),
        ((20, 30, 1), {}),
    ],
)
def test_the_shape_that_tifffile_notes_is_that_of_the_result(
    run: Any, shape: tuple[int, ...], options: dict[str, Any], caplog: Any
) -> None:
    options = {"photometric": "minisblack", **options}
    tifffile.imwrite("in.tif", noise(*shape), **options)
    run("upscale", "x2", "in.tif", "-o", "out.tif")
    axes, samples, description = read("out.tif", caplog)
    assert description.startswith('{"shape": [')
    assert samples.shape == tuple({20: 40, 30: 60}.get(length, length) for length in shape)
    assert axes == read("in.tif")[0]


def test_a_shape_in_planes_is_not_kept_for_whole_pixels(run: Any, caplog: Any) -> None:
    planes = noise(3, 20, 30)
    for about, is_reported in (({}, False), ({"axes": "CYX"}, True)):
        tifffile.imwrite("in.tif", planes, photometric="rgb", planarconfig="separate", metadata=about)
        err = run("upscale", "x2", "in.tif", "-o", "out.tif")
        assert ("shape note does not fit" in err) == is_reported
        _, samples, description = read("out.tif", caplog)
        assert (samples.shape, description) == ((40, 60, 3), "")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_a_resolution_without_a_unit_grows_with_the_picture(run: Any, layout: str, dtype: Any) -> None:
    tifffile.imwrite(
        "in.tif", noise(20, 30, dtype=dtype), resolution=(3, 0.75), resolutionunit=1, **LAYOUTS[layout]
    )
    run("denoise", "same", "in.tif", "-o", "out.tif")
    assert resolutions("out.tif") == [(3, 0.75, 1)]
    run("upscale", "x4", "in.tif", "-o", "out.tif", "-s", "2.5")
    assert resolutions("out.tif") == [(7.5, 1.875, 1)]


def test_pixels_per_inch_stay_unless_they_measure_what_is_seen(run: Any) -> None:
    for dpi, after in ((300, 300), (101600, 203200), (3e7, 6e7)):
        tifffile.imwrite("in.tif", STACK[0], resolution=(dpi, dpi), resolutionunit="INCH")
        run("upscale", "x2", "in.tif", "-o", "out.tif")
        assert resolutions("out.tif") == [(after, after, 2)]
    tifffile.imwrite("in.ome.tif", STACK, metadata=OME, resolution=(4000, 4000), resolutionunit="CENTIMETER")
    run("upscale", "x2", "in.ome.tif", "-o", "out.ome.tif")
    assert resolutions("out.ome.tif") == [(20320, 20320, 2)] * 2


def test_one_pixel_per_nothing_stays_and_nothing_is_invented(run: Any) -> None:
    tifffile.imwrite("in.tif", STACK[0])
    assert resolutions("in.tif") == [(1, 1, 1)]
    run("upscale", "x2", "in.tif", "-o", "out.tif")
    assert resolutions("out.tif") == [(1, 1, 1)]
    tifffile.imwrite("in.tif", STACK[0], imagej=True, metadata={"unit": "mm"})
    run("upscale", "x2", "in.tif", "-o", "out.tif")
    assert resolutions("out.tif") == [(2, 2, 1)]  # half a millimetre each


def with_aspect(format: str) -> bytes:
    """Return a file whose pixels are half as wide as they are high, and have no size."""
    pixels = noise(20, 30, 3)
    if format == "png":
        data = encode(pixels, "png", dpi=(200, 100))
        at = data.index(b"pHYs")
        body = b"pHYs" + struct.pack(">IIB", 2, 1, 0)
        return data[:at] + body + struct.pack(">I", zlib.crc32(body)) + data[at + 17 :]
    data = encode(pixels, "jpeg")
    return data[:13] + struct.pack(">BHH", 0, 2, 1) + data[18:]


@pytest.mark.parametrize("source", ["png", "jpeg"])
@pytest.mark.parametrize("command", [("denoise", "same"), ("upscale", "x2")])
def test_a_ratio_of_pixels_is_kept_where_a_format_has_room(
    run: Any, source: str, command: tuple[str, str]
) -> None:
    Path("in").write_bytes(with_aspect(source))
    run(*command, "in", "-o", "out.png")
    with Image.open("out.png") as image:
        assert image.info["aspect"] == (2, 1)
    run(*command, "in", "-o", "out.jpg")
    with Image.open("out.jpg") as image:
        assert (image.info["jfif_unit"], image.info["jfif_density"]) == (0, (2, 1))
    run(*command, "in", "-o", "out.tif")
    assert resolutions("out.tif") == [(2, 1, 1)]
    for suffix in ("webp", "avif", "gif"):
        err = run(*command, "in", "-o", f"out.{suffix}")
        assert f"{suffix} has no room for its resolution, 2×1 pixels per unit; tiff has" in err
        assert "room" not in run(*command, "in", "-o", f"out.{suffix}", "--strip")


def test_a_measured_resolution_that_has_no_room_is_reported(run: Any) -> None:
    tifffile.imwrite("in.tif", noise(20, 30), resolution=(50800, 50800), resolutionunit="INCH")
    assert "room" not in run("upscale", "x2", "in.tif", "-o", "out.png")
    assert "room" not in run("denoise", "same", "in.tif", "-o", "out.jpg")
    assert "jpeg has no room for its resolution, 50800×50800" in run(
        "upscale", "x2", "in.tif", "-o", "out.jpg"
    )
    assert "no room" in run("upscale", "x2", "in.tif", "-o", "none.jpg", "--dry-run")
    with Image.open("out.jpg") as image:
        assert image.info["jfif_unit"] == 0


def test_exif_and_xmp_have_a_measured_resolution(run: Any) -> None:
    exif = Image.Exif()
    exif[X_RESOLUTION], exif[Y_RESOLUTION], exif[UNIT] = 20000.0, 20000.0, 2
    xmp = b'<x tiff:XResolution="200000000/10000" tiff:YResolution = "20000/1"/>'
    data = encode(noise(20, 30, 3), "jpeg", exif=exif.tobytes()[6:], dpi=(20000, 20000), xmp=xmp)
    Path("in.jpg").write_bytes(data)
    run("upscale", "x2", "in.jpg", "-o", "out.jpg")
    with Image.open("out.jpg") as image:
        assert image.info["jfif_density"] == (40000, 40000)
        assert image.getexif()[X_RESOLUTION] == image.getexif()[Y_RESOLUTION] == 40000
    wanted = b'<x tiff:XResolution="40000/1" tiff:YResolution = "40000/1"/>'
    assert read_picture(Path("out.jpg")).metadata.xmp == wanted


@given(st.floats(1e-12, 1e12), st.floats(1e-12, 1e12))
def test_every_resolution_has_a_fraction(x: float, y: float) -> None:
    data = encode_picture(read_picture(encode(noise(4, 6, 3), "png")), "tiff")
    for (_, value), number in zip(restate_tiff_resolution(data, [(None, (x, y))])[:2], (x, y), strict=True):
        numerator, denominator = struct.unpack("<2I", value)
        assert denominator
        if 1e-6 < number < 1e9:
            assert numerator / denominator == pytest.approx(number, rel=1e-6)


def test_broken_resolutions_of_exif_stay() -> None:
    assert scale_exif_resolution(b"II*\0", (2, 2)) == b"II*\0"
    assert scale_xmp_resolution(b'tiff:XResolution="1/0"', (2, 2)) == b'tiff:XResolution="2/1"'


@pytest.mark.parametrize("big", [True, False])
def test_results_of_every_size_have_their_resolution(big: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if big:
        monkeypatch.setattr("mambair_cli.images.writers._BIGTIFF_BYTES", 0)
    file = io.BytesIO()
    tifffile.imwrite(file, noise(20, 30), resolution=(0.5, 0.25), resolutionunit=1)
    data = encode_picture(read_picture(file.getvalue()), "tiff")
    assert data[2] == (43 if big else 42)
    assert read_picture(data).metadata.density == (0.5, 0.25)
