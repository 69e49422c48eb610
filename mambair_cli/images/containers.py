"""The formats of files that can be written, and what each has room for."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mambair_cli.errors import ImageError
from mambair_cli.images.files import enumerate_names, show
from mambair_cli.images.picture import Header


@dataclass(frozen=True)
class Container:
    """What a format has room for, and how libvips is to write it."""

    suffixes: tuple[str, ...]
    dtypes: tuple[str, ...]  # deepest last
    options: Mapping[str, Any]
    saver: str
    has_alpha: bool = True
    has_gray: bool = True
    has_profile: bool = True
    has_frames: bool = False
    longest_side: int | None = None  # pixels
    longest_block: int | None = None  # bytes of EXIF or of XMP


CONTAINERS = MappingProxyType(
    {
        # Filters "sub" and "up", between which each line chooses: without any, photographs take three times
        # the room; with more of them, no less, in twice the time. Measured: benchmarks/README.md.
        "png": Container((".png",), ("uint8", "uint16"), {"compression": 4, "filter": 0x30}, "png"),
        "jpeg": Container(
            (".jpg", ".jpeg", ".jpe", ".jfif"),
            ("uint8",),
            {"subsample_mode": "off"},
            "jpeg",
            has_alpha=False,
            longest_side=65500,
            longest_block=65502,
        ),
        # Exact: colours under transparent pixels are kept, too.
        "webp": Container(
            (".webp",),
            ("uint8",),
            {"exact": True, "smart_subsample": True},
            "webp",
            has_gray=False,
            has_frames=True,
            longest_side=16383,
        ),
        "tiff": Container(
            (".tif", ".tiff"),
            ("uint8", "uint16", "float32"),
            {"compression": "deflate", "resunit": "inch"},
            "tiff",
            has_frames=True,
        ),
        "avif": Container(
            (".avif",),
            ("uint8", "uint16"),
            {"compression": "av1", "subsample_mode": "off"},
            "heif",
            has_gray=False,
            longest_side=65535,
            longest_block=60000,
        ),
        "gif": Container(
            (".gif",), ("uint8",), {}, "gif", has_profile=False, has_frames=True, longest_side=65535
        ),
    }
)
WRITABLE_SUFFIXES = MappingProxyType({format: held.suffixes for format, held in CONTAINERS.items()})


def format_of(path: Path) -> str:
    """Name the format that a file name asks for.

    Raises:
        ImageError: The suffix names none that can be written.
    """
    for format, container in CONTAINERS.items():
        if path.suffix.lower() in container.suffixes:
            return format
    suffix = f"the suffix {show(path.suffix)}" if path.suffix else "a name without a suffix"
    raise ImageError(
        f"cannot write {show(path)}: {suffix} asks for no format known here; "
        f"{enumerate_names(CONTAINERS)} can be written"
    )


def settle_format(target: Path, format: str | None) -> str:
    """Name the format that a file is to have: its name's, or another where its name says nothing.

    Raises:
        ImageError: The name says something else, or neither says anything.
    """
    named = any(target.suffix.lower() in suffixes for suffixes in WRITABLE_SUFFIXES.values())
    if format is not None and not named:
        return format
    asked = format_of(target)
    if format not in (None, asked):
        raise ImageError(f"cannot write {show(target)} as {format}: its name asks for {asked}; change one")
    return asked


def fit_header(
    header: Header, format: str, name: str, depth: int | None = None, strip: bool = False
) -> Header:
    """Say how a picture will be in a file of a format.

    Samples deeper than the format holds become its deepest.

    Args:
        header: Of the result.
        format: Of the file.
        name: Of the file, for errors.
        depth: 8 or 16 bits; None for those of the header.
        strip: Whether to leave out all metadata, a profile among them, whose colours become sRGB.

    Raises:
        ImageError: The format is unknown, or has no room for the picture's size, depth, frames or metadata.
    """
    if format not in CONTAINERS:
        raise ImageError(f"cannot write {name}: no such format; {enumerate_names(CONTAINERS)} can be written")
    container = CONTAINERS[format]
    dtype = header.dtype if depth is None else f"uint{depth}"
    if dtype not in container.dtypes:
        if depth is not None:
            deep = [other for other, held in CONTAINERS.items() if dtype in held.dtypes]
            raise ImageError(
                f"cannot write {name}: {format} has no {depth} bits a sample; {enumerate_names(deep)} have"
            )
        dtype = container.dtypes[-1]
    if strip:
        header = replace(header, exif=None, xmp=None, iptc=None, dpi=None)
    _check_room(header, format, container, name)
    return replace(header, dtype=dtype)


def _check_room(header: Header, format: str, container: Container, name: str) -> None:
    """Refuse to write what the format would cut."""
    if container.longest_side and max(header.height, header.width) > container.longest_side:
        raise ImageError(
            f"cannot write {name}: {format} has room for {container.longest_side} pixels a side, "
            f"not {header.width}×{header.height}; png and tiff hold it"
        )
    if header.frames > 1 and not container.has_frames:
        raise ImageError(
            f"cannot write {name}: {format} holds one image, not {header.frames} pages or frames; "
            "webp, tiff and gif hold them"
        )
    for kind, block in (("EXIF", header.exif), ("XMP", header.xmp)):
        if block and container.longest_block and len(block) > container.longest_block:
            raise ImageError(
                f"cannot write {name}: {format} has room for {container.longest_block} bytes of {kind}, "
                f"not {len(block)}; png, webp and tiff hold it"
            )
