"""Find the colour profile of a file: an embedded one, or one made from the numbers that it gives."""

import struct
from collections.abc import Sequence
from typing import Any

from mambair_cli.errors import ImageError
from mambair_cli.images.icc_profile import (
    ADOBE_GAMMA,
    ADOBE_RGB,
    GAMMA_RANGE,
    P3,
    SRGB,
    UNREADABLE,
    Primaries,
    is_near_srgb,
    keep_usable_profile,
    make_gray_profile,
    make_profile,
)
from mambair_cli.images.iso_boxes import read_colour_numbers
from mambair_cli.images.libvips import pyvips
from mambair_cli.images.metadata import is_marked_adobe_rgb
from mambair_cli.images.png_chunks import PngFacts
from mambair_cli.images.tiff import Page
from mambair_cli.images.tiff_colours import name_colour_tags, read_tiff_colours
from mambair_cli.images.tiff_directories import MALFORMED
from mambair_cli.images.vips_image import FileData, VipsImage
from mambair_cli.system.wording import enumerate_names

_PROFILE = "icc-profile-data"  # libvips' name
_DISPLAY_P3, _BT2020, _HDR_CURVES = 12, 9, (16, 18)  # H.273's numbers; PQ and HLG
_UNSPECIFIED = 2
_D65, _C = SRGB.white, (0.310, 0.316)
_PRIMARIES = {  # by H.273's numbers, without those of HDR
    1: SRGB,
    2: SRGB,
    4: Primaries(_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: Primaries(_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    **dict.fromkeys((6, 7), Primaries(_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070))),
    8: Primaries(_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    10: Primaries((1 / 3, 1 / 3), (1, 0), (0, 1), (0, 0)),
    11: Primaries((0.314, 0.351), P3.red, P3.green, P3.blue),
    12: P3,
    22: Primaries(_D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
# For H.273's curves; None for those of video and sRGB, which count as one. That of cinema (17) is brighter by
# a constant, which is left out.
_GAMMAS = {**dict.fromkeys((1, 2, 6, 7, 11, 12, 13, 14, 15)), 4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
_CICP_BYTES = 4  # the last one tells the range
_UNIT = 100_000  # PNG stores 1.0 as this number
_SRGB_GAMMA, _NEAR_GAMMA = 45455, 500  # sRGB's gamma in PNG files, and the tolerance


def find_profile(
    data: FileData,
    image: VipsImage,
    facts: PngFacts,
    pages: Sequence[Page],
    bands: int,
    warnings: list[str],
) -> bytes | None:
    """Return the profile of the pixels that libvips will give.

    Args:
        data: Data of the file.
        image: The image.
        facts: Facts about a PNG file.
        pages: The pages of a TIFF file that are read.
        bands: Number of the result's colour bands: 1 or 3.
        warnings: Sentences about the file, to which one is added where a profile is left out.

    Raises:
        ImageError: Its colours are HDR.
    """
    icc, is_cmyk = image.field(_PROFILE), image.head.interpretation == "cmyk"
    usable = keep_usable_profile(icc, 4 if is_cmyk else bands, warnings)
    if is_cmyk:
        return image.show().get(_PROFILE)  # that of sRGB
    if image.format == "png":
        if b"iCCP" in facts.chunks and icc is None:
            warnings.append(UNREADABLE)
        return find_png_profile(facts, usable, bands == 1, data.name, warnings)
    if image.format == "avif":
        return find_avif_profile(data.bytes, usable, bands == 1, data.name, warnings)
    if image.format == "tiff":
        usable = find_tiff_profile(data.bytes, pages, usable, bands == 1, warnings)
    exif = data.bytes if pages else image.field("exif-data")
    at = pages[0].at if pages else None
    if usable is None and bands == 3 and exif and is_marked_adobe_rgb(exif, at):
        return make_profile(ADOBE_RGB, ADOBE_GAMMA, "compatible with Adobe RGB (1998), from EXIF")
    return usable


def find_avif_profile(
    data: Any, icc: bytes | None, is_gray: bool, name: str, warnings: list[str]
) -> bytes | None:
    """Return the profile of an AVIF or HEIC file: the embedded one, or one for its colour numbers.

    Args:
        data: Bytes of the file.
        icc: Its embedded profile, if it can be read.
        is_gray: Whether it is gray.
        name: Name of the file, for errors.
        warnings: Sentences about the file, to which those about numbers without a profile are added.

    Raises:
        ImageError: Its colours are HDR.
    """
    numbers = None if icc else read_colour_numbers(data)
    return icc if numbers is None else _profile_of_numbers(*numbers, is_gray, name, warnings)


def find_png_profile(
    facts: PngFacts, icc: bytes | None, is_gray: bool, name: str, warnings: list[str]
) -> bytes | None:
    """Return the profile of a PNG file, from the first of its chunks cICP, iCCP, sRGB, gAMA and cHRM.

    Args:
        facts: Facts about the file.
        icc: Its embedded profile, if it can be read.
        is_gray: Whether it is gray.
        name: Name of the file, for errors.
        warnings: Sentences about the file, to which those about numbers without a profile are added.

    Raises:
        ImageError: Its colours are HDR.

    Source: PNG specification, third edition, 13.1.
    """
    numbers = facts.chunks.get(b"cICP", b"")
    if len(numbers) >= _CICP_BYTES and not numbers[3]:
        warnings.append("its samples have the narrow range of video, and are read as of the whole range")
    if len(numbers) >= 2 and _UNSPECIFIED not in numbers[:2]:
        return _profile_of_numbers(numbers[0], numbers[1], is_gray, name, warnings)
    if icc or b"sRGB" in facts.chunks:
        return icc
    gamma = _read_gamma(facts.chunks.get(b"gAMA", b""))
    primaries = _read_primaries(facts.chunks.get(b"cHRM", b""))
    try:
        return _profile_of_colours(primaries or SRGB, gamma, is_gray, "PNG")
    except ValueError:  # impossible chromaticities
        return None


def find_exr_profile(numbers: Sequence[float] | None, is_gray: bool, warnings: list[str]) -> bytes | None:
    """Return a profile for the chromaticities of an OpenEXR file, with sRGB's curve; None where it has none.

    Args:
        numbers: x and y of red, green, blue and white; None for those of sRGB.
        is_gray: Whether it is gray.
        warnings: Sentences about the file, to which one is added where they are left out.
    """
    if numbers is None or is_gray:
        return None
    try:
        red, green, blue, white = zip(*[iter(map(float, numbers))] * 2, strict=True)
        return _profile_of_colours(Primaries(white, red, green, blue), None, is_gray, "OpenEXR")
    except (ValueError, TypeError):
        warnings.append("left out: chromaticities, whose numbers make no sense; its colours count as sRGB")
        return None


def find_tiff_profile(
    data: Any, pages: Sequence[Page], icc: bytes | None, is_gray: bool, warnings: list[str]
) -> bytes | None:
    """Return the profile of a TIFF file: the embedded one, or one for the colours that its tags give.

    Args:
        data: Bytes of the file.
        pages: The pages that are read.
        icc: Its embedded profile, if it can be read.
        is_gray: Whether it is gray.
        warnings: Sentences about the file, to which one is added where such tags are left out.
    """
    if icc or not (names := name_colour_tags(pages)):
        return icc
    try:
        primaries, gamma = read_tiff_colours(data, pages, is_gray)
        return _profile_of_colours(primaries, gamma, is_gray, "TIFF")
    except MALFORMED:
        why = "differ between the pages or make no sense" if len(pages) > 1 else "make no sense"
        warnings.append(f"left out: {enumerate_names(names)}, whose numbers {why}; its colours count as sRGB")
        return None


def _profile_of_colours(
    primaries: Primaries, gamma: float | None, is_gray: bool, source: str
) -> bytes | None:
    """Make a profile of numbers; None where they are those of sRGB.

    Args:
        primaries: Primaries of the colours; of no meaning in gray.
        gamma: Power that maps samples to light; None for sRGB's curve.
        is_gray: Whether the picture is gray.
        source: The kind of file that gives them.

    Raises:
        ValueError: No colours can be mixed from these primaries.
    """
    is_usual = gamma is None or abs(_UNIT / gamma - _SRGB_GAMMA) <= _NEAR_GAMMA
    has_usual_colours = is_gray or is_near_srgb(primaries)
    if is_usual and has_usual_colours:
        return None
    if is_gray:
        return (
            None if gamma is None else make_gray_profile(gamma, f"gray of gamma {gamma:.3g}, from {source}")
        )
    curve = "the curve of sRGB" if gamma is None else f"gamma {gamma:.3g}"
    colours = "sRGB's primaries" if has_usual_colours else "primaries"
    return make_profile(
        SRGB if has_usual_colours else primaries, gamma, f"{colours} and {curve}, from {source}"
    )


def _profile_of_numbers(
    primaries: int, transfer: int, is_gray: bool, name: str, warnings: list[str]
) -> bytes | None:
    """Return a profile for numbers of H.273; None for sRGB.

    Source: ITU-T H.273, tables 2 and 3.
    """
    if transfer in _HDR_CURVES or primaries == _BT2020:
        raise ImageError(
            f"cannot read {name}: its colours are HDR (primaries {primaries}, curve {transfer})"
            "; convert it to sRGB or Display P3 first"
        )
    unknown = [f"curve {transfer}"] if transfer not in _GAMMAS else []
    if primaries not in _PRIMARIES and not is_gray:
        unknown.insert(0, f"primaries {primaries}")
    if unknown:
        which = enumerate_names(unknown)
        warnings.append(f"its colours are given by numbers of H.273 that count as those of sRGB: {which}")
    gamma, space = _GAMMAS.get(transfer), _PRIMARIES.get(primaries, SRGB)
    if is_gray:
        return make_gray_profile(gamma, f"gray of gamma {gamma:.3g}, from numbers") if gamma else None
    if gamma is None and primaries == _DISPLAY_P3:
        return pyvips.Operation.call("profile_load", "p3")
    if gamma is None and space is SRGB:
        return None
    curve = "the curve of sRGB" if gamma is None else f"gamma {gamma:.3g}"
    return make_profile(space, gamma, f"primaries {primaries} and {curve}, from numbers")


def _read_gamma(body: bytes) -> float | None:
    """Return the power that maps samples to light; None where the file gives none that makes sense."""
    stored = int.from_bytes(body[:4], "big")
    low, high = GAMMA_RANGE
    return _UNIT / stored if stored and low <= _UNIT / stored <= high else None


def _read_primaries(body: bytes) -> Primaries | None:
    """Return the chromaticities of a file; None where it gives none."""
    if len(body) < 32:
        return None
    numbers = [value / _UNIT for value in struct.unpack_from(">8I", body)]
    white, red, green, blue = zip(numbers[::2], numbers[1::2], strict=True)
    return Primaries(white, red, green, blue)
