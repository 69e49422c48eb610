"""The formats of files that can be written, and what each has room for."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mambair_cli.errors import ImageError
from mambair_cli.images.file_patches import write_comment
from mambair_cli.images.picture import Header, Text
from mambair_cli.system.files import enumerate_names, show

_RAW_PROFILE = "Raw profile type "  # of ImageMagick's texts, which hold EXIF and the like


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
    has_masks: bool = False
    frames_dtype: str | None = None  # of several frames, where that is not as of one
    longest_side: int | None = None  # pixels
    longest_exif: int | None = None  # bytes, as of the next
    longest_xmp: int | None = None
    has_texts: bool = False
    longest_text: int | None = None  # bytes


CONTAINERS = MappingProxyType(
    {
        # Filters "sub" and "up", between which each line chooses: without any, photographs take three times
        # the room; with more of them, no less, in twice the time. Measured: benchmarks/README.md.
        "png": Container(
            (".png",), ("uint8", "uint16"), {"compression": 4, "filter": 0x30}, "png", has_texts=True
        ),
        "jpeg": Container(
            (".jpg", ".jpeg", ".jpe", ".jfif"),
            ("uint8",),
            {"subsample_mode": "off"},
            "jpeg",
            has_alpha=False,
            longest_side=65500,
            longest_exif=65527,
            longest_xmp=65502,
            has_texts=True,
            longest_text=65533,
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
            has_masks=True,
        ),
        "avif": Container(
            (".avif",),
            ("uint8", "uint16"),
            {"compression": "av1", "subsample_mode": "off"},
            "heif",
            has_gray=False,
            has_frames=True,
            frames_dtype="uint8",
            longest_side=65535,
            longest_exif=60000,
            longest_xmp=60000,
        ),
        "gif": Container(
            (".gif",),
            ("uint8",),
            {},
            "gif",
            has_profile=False,
            has_frames=True,
            longest_side=65535,
            has_texts=True,
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

    Samples deeper than the format holds become its deepest, and masks that it does not hold are left out.

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
    if header.frames > 1 and container.frames_dtype is not None:
        dtype = container.frames_dtype
    if strip:
        header = replace(header, exif=None, xmp=None, iptc=None, dpi=None, texts=())
    _check_room(header, format, container, name)
    masks = header.masks if container.has_masks else ()
    return replace(header, dtype=dtype, masks=masks, texts=tuple(keep_texts(header, format)))


def keep_texts(header: Header, format: str) -> list[Text]:
    """Return those of a picture's texts that a format has room for."""
    container = CONTAINERS[format]
    longest = container.longest_text
    return [
        text
        for text in header.texts
        if container.has_texts
        and (format == "png" or not text.keyword.startswith(_RAW_PROFILE))
        and (longest is None or len(write_comment(text)) <= longest)
    ]


def find_losses(header: Header, format: str, strip: bool = False) -> list[str]:
    """Say what of a picture a format has no room for, where that is no reason to refuse it.

    Args:
        header: Of the picture.
        format: Of the file.
        strip: Whether metadata is not wanted.
    """
    losses = []
    masks = describe_masks(header.masks)
    is_one = len(header.masks) == 1
    if header.masks and CONTAINERS[format].has_masks:
        losses.append(f"{masks} kept as {'a mask' if is_one else 'masks'}, not restored")
    elif header.masks:
        losses.append(f"{masks} left out: {format} has no room for {'it' if is_one else 'them'}; tiff has")
    kept = keep_texts(header, format)
    lost = dict.fromkeys(text.keyword for text in header.texts if text not in kept)
    if lost and not strip:
        names = ", ".join(show(keyword) for keyword in lost)
        losses.append(f"{format} has no room for its texts: {names}; png has")
    return losses


def describe_masks(masks: tuple[int, ...]) -> str:
    """Name the masks of an image."""
    if len(masks) == 1:
        return "extra channel (a saved selection or spot colour)"
    return f"{len(masks)} extra channels (saved selections or spot colours)"


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
            "webp, tiff, avif and gif hold them"
        )
    blocks = (("EXIF", header.exif, container.longest_exif), ("XMP", header.xmp, container.longest_xmp))
    for kind, block, longest in blocks:
        if block and longest and len(block) > longest:
            raise ImageError(
                f"cannot write {name}: {format} has room for {longest} bytes of {kind}, "
                f"not {len(block)}; png, webp and tiff hold it"
            )
