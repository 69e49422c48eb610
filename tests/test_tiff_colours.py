"""Colours that TIFF files tell by numbers: white, primary colours and curves."""

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from pictures import noise, smooth_colours
from PIL import Image, ImageCms
from profiles import ADOBE_RGB

from mambair_cli.images import encode_picture, read_picture

CURVES, WHITE, PRIMARIES = 301, 318, 319
SHORT, LONG, RATIONAL = 3, 4, 5
D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
OF_SRGB = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
OF_ADOBE = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
SAMPLES = np.linspace(0, 1, 256)
SRGB_CURVE = np.where(SAMPLES <= 0.04045, SAMPLES / 12.92, ((SAMPLES + 0.055) / 1.055) ** 2.4)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
Extra = tuple[int, int, int, tuple[int, ...], bool]


def points(tag: int, *values: float) -> Extra:
    fractions = tuple(number for value in values for number in (round(value * 10**6), 10**6))
    return tag, RATIONAL, len(values), fractions, True


def curves(light: np.ndarray, count: int = 1) -> Extra:
    table = tuple(np.rint(light * 65535).astype(int).tolist()) * count
    return CURVES, SHORT, len(table), table, True


def tiff(*pages: list[Extra], pixels: np.ndarray | None = None, order: Any = "<", **options: Any) -> bytes:
    file = io.BytesIO()
    pixels = smooth_colours() if pixels is None else pixels
    options = {"photometric": "rgb" if pixels.ndim == 3 else "minisblack", **options}
    with tifffile.TiffWriter(file, byteorder=order) as writer:
        for extra in pages or ([],):
            writer.write(pixels, extratags=extra, metadata=None, **options)
    return file.getvalue()


def as_srgb(icc: bytes) -> np.ndarray:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    shown = ImageCms.profileToProfile(
        Image.fromarray(smooth_colours()), profile, ImageCms.createProfile("sRGB")
    )
    assert shown is not None
    return np.asarray(shown).astype(int)


def test_primary_colours_become_a_profile_in_which_the_picture_looks_as_meant() -> None:
    power = SAMPLES**2.19921875
    for more in ([], [curves(power)], [curves(power, 3)]):
        for order in ("<", ">"):
            data = tiff([points(WHITE, *D65), points(PRIMARIES, *OF_ADOBE), *more], order=order)
            before = read_picture(data)
            assert (before.warnings, before.pixels.tolist()) == ((), smooth_colours().tolist())
            assert before.icc is not None
            assert np.abs(as_srgb(before.icc) - as_srgb(ADOBE_RGB)).max() <= 1
            assert read_picture(encode_picture(before, "tiff")).icc == before.icc


def test_colours_of_srgb_and_those_with_a_profile_say_nothing() -> None:
    usual = [points(WHITE, *D65), points(PRIMARIES, *OF_SRGB)]
    for tags in ([usual[0]], [usual[1]], usual, [*usual, curves(SRGB_CURVE, 3)], [curves(SAMPLES**2.2)]):
        picture = read_picture(tiff(tags))
        assert (picture.icc, picture.warnings) == (None, ())
    picture = read_picture(tiff([points(PRIMARIES, *OF_ADOBE), curves(SAMPLES)], iccprofile=PROFILE))
    assert (picture.icc, picture.warnings) == (PROFILE, ())


def test_gray_has_a_curve_alone() -> None:
    for tags in ([points(WHITE, *D50), points(PRIMARIES, *OF_ADOBE)], [curves(SRGB_CURVE)]):
        picture = read_picture(tiff(tags, pixels=noise(20, 30)))
        assert (picture.icc, picture.warnings) == (None, ())
    picture = read_picture(tiff([curves(SAMPLES)], pixels=noise(20, 30)))
    assert picture.icc is not None
    assert picture.icc[16:20] == b"GRAY"
    assert picture.warnings == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_colours_count_at_every_depth(dtype: Any) -> None:
    picture = read_picture(tiff([points(PRIMARIES, *OF_ADOBE)], pixels=noise(20, 30, 3, dtype=dtype)))
    assert picture.icc is not None
    if dtype == np.uint16:
        linear = curves(np.linspace(0, 1, 65536))
        picture = read_picture(tiff([linear], pixels=noise(20, 30, 3, dtype=dtype)))
        assert picture.icc is not None
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(picture.icc)))
        assert "sRGB's primaries and gamma 1, from TIFF" in name


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        ([curves(1 - SAMPLES)], "TransferFunction"),
        ([curves(np.minimum(SAMPLES * 2, 1))], "TransferFunction"),
        ([curves(SAMPLES[:100])], "TransferFunction"),
        ([curves(SAMPLES**0.0005)], "TransferFunction"),
        ([points(WHITE, *D50)], "WhitePoint"),
        ([points(WHITE, 0.3, 0), points(PRIMARIES, *OF_ADOBE)], "WhitePoint and PrimaryChromaticities"),
        ([points(PRIMARIES, *(0.3, 0.3) * 3)], "PrimaryChromaticities"),
        ([points(PRIMARIES, *OF_ADOBE[:4])], "PrimaryChromaticities"),
        ([(PRIMARIES, LONG, 6, (1,) * 6, True)], "PrimaryChromaticities"),
        ([(PRIMARIES, RATIONAL, 6, (1, 0) * 6, True)], "PrimaryChromaticities"),
    ],
)
def test_numbers_that_make_no_sense_are_reported(tags: list[Extra], names: str) -> None:
    picture = read_picture(tiff(tags))
    assert picture.icc is None
    assert picture.warnings == (f"left out: {names}, whose numbers make no sense; its colours count as sRGB",)


def test_pages_of_several_colours_are_reported(run: Any, weights: Any) -> None:
    adobe = [points(PRIMARIES, *OF_ADOBE)]
    sentence = "left out: PrimaryChromaticities, whose numbers differ between the pages or make no sense"
    for pages, is_reported in (((adobe, adobe), False), ((adobe, []), True), (([], adobe), True)):
        with open("in.tif", "wb") as file:
            file.write(tiff(*pages))
        command = ("denoise", "in.tif", "-o", "out.tif", "--weights", weights / "same.safetensors")
        code, _, err = run(*command, "--overwrite")
        assert (code, sentence in err) == (0, is_reported)
        with tifffile.TiffFile("out.tif") as file:
            assert all((34675 in page.tags) != is_reported for page in file.pages)  # a profile
