"""The formats of files that can be written: a row for each, with what its files can hold.

Who wants to know what a format can do asks its row; ``images.writers`` has the function that writes it.
Nothing heavy is imported here: ``--help`` needs this module.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from mambair_cli.errors import ImageError
from mambair_cli.system.wording import enumerate_names, show

NUMBER = re.compile(r"%0?\d*d")  # in the name of numbered images
DEFAULT_QUALITY = 95
MOST_DPI = 1e9  # a tenth of an atom's width


@dataclass(frozen=True)
class Format:
    """What files of a format can hold, and what they take.

    Attributes:
        title: Its name in texts.
        suffixes: Suffixes of names of files; results get the first.
        dtypes: Types of samples, the deepest last.
        noise: Bytes of a file per byte of its samples, each up to a quality.
        frames_dtype: The type for several frames, if it differs from a single one's.
        colours: Largest number of colours of a frame; None for all.
        gray_noise: Factor of ``noise`` for gray pictures.
        block: Side of the blocks to which pictures are filled up, in pixels.
        is_whole: Whether a file is made as one piece, in memory, and not row by row.
        has_quality: Whether there is a quality, from 1 to 100.
        is_lossless_at_100: Whether nothing is lost at the highest quality.
        has_alpha: Whether there is transparency.
        has_gray: Whether gray pictures stay gray.
        has_profile: Whether there is room for a colour profile; else colours become sRGB.
        has_frames: Whether there is room for several pages or frames.
        times: Durations that a frame can have, in milliseconds; None where there is no room for them.
        has_page_notes: Whether there is room for what pages after the first say of themselves.
        has_masks: Whether there is room for samples that are neither colour nor alpha.
        has_iptc: Whether IPTC has a place of its own; else EXIF holds it.
        has_paths: Whether there is room for the paths of Photoshop.
        texts: How texts are kept: with their keywords, or as comments; None where they are left out.
        resolution: Where a resolution is: in a place of its own; in EXIF alone; among the tags of which EXIF
            is a part, also without a unit. None where it is left out.
        dpi: Smallest and largest number of pixels per inch; where libvips writes it, what that can write.
        most_ratio: Largest number in the ratio of a resolution without a unit; 0: it is left out.
        longest_side: Most pixels a side; None for any number.
        longest_exif: Most bytes of EXIF; None for any number; 0: it is left out.
        longest_xmp: The same for XMP.
        longest_text: The same for a text.
    """

    title: str
    suffixes: tuple[str, ...]
    dtypes: tuple[str, ...]
    noise: tuple[tuple[int, float], ...]
    frames_dtype: str | None = None
    colours: int | None = None
    gray_noise: float = 1
    block: int = 1
    is_whole: bool = False
    has_quality: bool = False
    is_lossless_at_100: bool = False
    has_alpha: bool = True
    has_gray: bool = True
    has_profile: bool = True
    has_frames: bool = False
    times: range | None = None
    has_page_notes: bool = False
    has_masks: bool = False
    has_iptc: bool = False
    has_paths: bool = False
    texts: Literal["keywords", "comments"] | None = None
    resolution: Literal["own", "exif", "tags"] | None = "own"
    dpi: tuple[float, float] = (0, MOST_DPI)
    most_ratio: int = 0
    longest_side: int | None = None
    longest_exif: int | None = None
    longest_xmp: int | None = None
    longest_text: int | None = None


# The noise was measured: white noise, and noise of the least and largest values alone, and a tenth more; the
# files of photographs have a fifth of that.
FORMATS = MappingProxyType(
    {
        "png": Format(
            "PNG",
            (".png",),
            ("uint8", "uint16"),
            noise=((100, 1.015),),
            texts="keywords",
            dpi=(0, 2.5e7),
            most_ratio=2**31 - 1,
        ),
        "jpeg": Format(
            "JPEG",
            (".jpg", ".jpeg", ".jpe", ".jfif"),
            ("uint8",),
            noise=((75, 0.6), (90, 0.85), (95, 1.1), (98, 1.4), (100, 1.8)),
            gray_noise=1.25,  # among colours, two of three samples are stored more coarsely
            block=16,
            has_quality=True,
            has_alpha=False,
            has_iptc=True,
            has_paths=True,
            texts="comments",
            dpi=(0.5, 65535),
            most_ratio=65535,
            longest_side=65500,
            longest_exif=65527,
            longest_xmp=65502,
            longest_text=65533,
        ),
        "webp": Format(
            "WebP",
            (".webp",),
            ("uint8",),
            noise=((75, 0.5), (95, 0.6), (99, 0.65), (100, 1.1)),
            block=16,
            is_whole=True,
            has_quality=True,
            is_lossless_at_100=True,
            has_gray=False,
            has_frames=True,
            times=range(2**24),
            resolution="exif",
            longest_side=16383,
        ),
        "tiff": Format(
            "TIFF",
            (".tif", ".tiff"),
            ("uint8", "uint16", "float32"),
            noise=((100, 1.015),),
            has_frames=True,
            has_page_notes=True,
            has_masks=True,
            has_paths=True,
            resolution="tags",
        ),
        "avif": Format(
            "AVIF",
            (".avif",),
            ("uint8", "uint16"),
            noise=((75, 0.6), (95, 1.0), (99, 1.4), (100, 1.6)),
            frames_dtype="uint8",
            block=16,
            is_whole=True,
            has_quality=True,
            is_lossless_at_100=True,
            has_gray=False,
            has_frames=True,
            times=range(1, 2**31),
            resolution="exif",
            longest_side=65535,
            longest_exif=60000,
            longest_xmp=60000,
        ),
        "gif": Format(
            "GIF",
            (".gif",),
            ("uint8",),
            noise=((100, 0.65),),
            colours=256,
            is_whole=True,
            has_gray=False,
            has_profile=False,
            has_frames=True,
            times=range(0, 10 * 2**16, 10),
            texts="comments",
            resolution=None,
            longest_side=65535,
            longest_exif=0,
            longest_xmp=0,
        ),
    }
)


def find_formats(can: Callable[[Format], object]) -> list[str]:
    """Return the names of the formats that can do something, as a test of their rows tells."""
    return [name for name, row in FORMATS.items() if can(row)]


def name_formats(can: Callable[[Format], object]) -> str:
    """Return the same as words: "jpeg and webp"."""
    return enumerate_names(find_formats(can))


def say_which_have(can: Callable[[Format], object]) -> str:
    """Return the same as the start of a sentence: "tiff has", "jpeg and webp have"."""
    names = find_formats(can)
    return f"{enumerate_names(names)} {'has' if len(names) == 1 else 'have'}"


def find_format(suffix: str) -> str | None:
    """Return the format of a suffix, with its dot; None where it names none that can be written."""
    return next(iter(find_formats(lambda row: suffix.lower() in row.suffixes)), None)


def choose_format(own: str | None) -> str:
    """Return the format of a result for which none was asked: that of its input, or PNG.

    Args:
        own: Format of the input, which may be one that is only read; None where it is unknown.
    """
    return own if own is not None and own in FORMATS else "png"


def format_of(path: Path) -> str:
    """Return the format of a file name.

    Raises:
        ImageError: The suffix names no format that can be written.
    """
    format = find_format(path.suffix)
    if format is not None:
        return format
    from mambair_cli.images.signatures import IMAGE_SUFFIXES  # imported here: it needs NumPy

    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise ImageError(
            f"cannot write {show(path)}: {path.suffix[1:].upper()} is not written; "
            f"{enumerate_names(FORMATS)} can be written, and converted by another program"
        )
    suffix = f"the suffix {show(path.suffix)}" if path.suffix else "a name without a suffix"
    raise ImageError(
        f"cannot write {show(path)}: {suffix} names no known format; "
        f"{enumerate_names(FORMATS)} can be written"
    )


def settle_format(target: Path, format: str | None) -> str:
    """Return the format of a file: that of its name, or the given one where the name has no known suffix.

    Raises:
        ImageError: The name contradicts the given format, or there is neither.
    """
    if format is not None and find_format(target.suffix) is None:
        return format
    asked = format_of(target)
    if format not in (None, asked):
        raise ImageError(f"cannot write {show(target)} as {format}: its name asks for {asked}; change one")
    return asked


def explain_depth(format: str, depth: int) -> str:
    """Say that a format cannot store so many bits per sample, and which can."""
    deep = name_formats(lambda row: f"uint{depth}" in row.dtypes)
    return f"{format} cannot store {depth} bits per sample; {deep} can"
