"""Fit a picture into a format: the header that its file will have, and what is lost or refused."""

from dataclasses import replace

from mambair_cli.errors import ImageError, NoRoomError
from mambair_cli.images.file_patches import write_comment
from mambair_cli.images.formats import (
    FORMATS,
    NUMBER,
    Format,
    explain_depth,
    find_formats,
    name_formats,
    say_which_have,
)
from mambair_cli.images.measured import describe_unmoved, find_unmoved
from mambair_cli.images.metadata import add_iptc
from mambair_cli.images.move import Move
from mambair_cli.images.photoshop import PATHS, find_iptc_in, find_paths
from mambair_cli.images.picture import Header, Metadata, Text
from mambair_cli.images.places import move_metadata
from mambair_cli.images.resolution import carry_measures, describe_lost_resolution, fit_resolution
from mambair_cli.system.wording import enumerate_names, show

_VISIBLE = 0.02  # change of an animation's duration, as a share of it
_RAW_PROFILE = "Raw profile type "  # start of ImageMagick's texts that hold EXIF and similar data


def fit_header(
    header: Header,
    format: str,
    name: str,
    depth: int | None = None,
    strip: bool = False,
    source: Header | None = None,
) -> Header:
    """Return the header of a picture as a file of a format will have it.

    Samples get the format's largest depth where theirs is larger, and masks that it cannot hold are left out.

    Args:
        header: Header of the result.
        format: Format of the file.
        name: Name of the file, for errors.
        depth: Bits per sample, 8 or 16; None for those of the header.
        strip: Whether to leave out all metadata, and the profile: colours become sRGB.
        source: Header of the picture that the result is made from; None if that is the picture itself.

    Raises:
        ImageError: The format is unknown, or cannot hold the picture's size, depth, frames or metadata.
    """
    if format not in FORMATS:
        raise ImageError(f"cannot write {name}: no such format; {enumerate_names(FORMATS)} can be written")
    row = FORMATS[format]
    dtype = header.dtype if depth is None else f"uint{depth}"
    if dtype not in row.dtypes:
        if depth is not None:
            raise ImageError(f"cannot write {name}: {explain_depth(format, depth)}")
        dtype = row.dtypes[-1]
    if header.frames > 1 and row.frames_dtype is not None:
        dtype = row.frames_dtype
    metadata = Metadata() if strip else header.metadata
    pages = header.pages if row.has_page_notes and not strip else ()
    move = _move_to(source or header, header)
    header = replace(
        header,
        dtype=dtype,
        delays=_fit_times(header.delays, row),
        masks=header.masks if row.has_masks else (),
        metadata=replace(move_metadata(metadata, move), texts=tuple(keep_texts(metadata, format))),
        pages=tuple(move_metadata(page, move) for page in pages),
    )
    header = carry_measures(source or header, header)
    metadata = fit_resolution(header.metadata, format)
    if metadata.iptc and not row.has_iptc:
        metadata = replace(metadata, exif=add_iptc(metadata.exif, metadata.iptc))
    header = replace(header, metadata=metadata)
    _check_room(header, format, name)
    return header


def _fit_times(delays: tuple[int, ...] | None, row: Format) -> tuple[int, ...] | None:
    """Return the durations that a format has for frames."""
    times = row.times
    if delays is None or times is None:
        return None
    nearest = (round(delay / times.step) * times.step for delay in delays)
    return tuple(max(times[0], min(delay, times[-1])) for delay in nearest)


def _move_to(source: Header, result: Header) -> Move:
    return Move(1, (source.width, source.height), (result.width, result.height))


def has_room_for_xmp(format: str, xmp: bytes) -> bool:
    """Tell whether files of a format can hold an XMP packet."""
    longest = FORMATS[format].longest_xmp
    return longest is None or len(xmp) <= longest


def keep_texts(metadata: Metadata, format: str) -> list[Text]:
    """Return the texts of a picture that a format can hold."""
    row = FORMATS[format]
    longest = row.longest_text
    return [
        text
        for text in metadata.texts
        if row.texts
        and (row.texts == "keywords" or not text.keyword.startswith(_RAW_PROFILE))
        and (longest is None or len(write_comment(text)) <= longest)
    ]


def find_losses(header: Header, result: Header, format: str, strip: bool = False) -> list[str]:
    """Say what a file of a format will lose, where that is no reason to refuse the picture.

    Args:
        header: Header of the picture.
        result: Header of the result, from :func:`fit_header`.
        format: Format of the file.
        strip: Whether metadata is left out anyway.
    """
    losses = ["CMYK becomes RGB (sRGB); ink values are not kept"] if header.is_from_cmyk else []
    masks = describe_masks(header.masks)
    is_one = len(header.masks) == 1
    if header.masks and FORMATS[format].has_masks:
        losses.append(f"{masks} kept as {'a mask' if is_one else 'masks'}, not restored{_advise(header)}")
    elif header.masks:
        them = "it" if is_one else "them"
        have = say_which_have(lambda row: row.has_masks)
        losses.append(f"{masks} left out: {format} has no room for {them}; {have}{_advise(header)}")
    if times := _describe_lost_times(header, result, format):
        losses.append(times)
    kept = set(keep_texts(header.metadata, format))
    lost = dict.fromkeys(text.keyword for text in header.metadata.texts if text not in kept)
    if lost and not strip:
        names = ", ".join(show(keyword) for keyword in lost)
        have = say_which_have(lambda row: row.texts == "keywords")
        losses.append(f"{format} has no room for its texts: {names}; {have}")
    if strip:
        return losses
    if missing := _name_missing(header.metadata, format):
        have = say_which_have(lambda row: row.longest_exif != 0)
        losses.append(f"{format} has no room for its {enumerate_names(missing)}; {have}")
    if find_paths(header.metadata.iptc) and not FORMATS[format].has_paths:
        losses.append(f"{format} has no room for its {PATHS}; {say_which_have(lambda row: row.has_paths)}")
    if FORMATS[format].longest_exif != 0:
        unmoved = find_unmoved(result.metadata, _move_to(header, result))
        losses += describe_unmoved([*header.unmoved, *unmoved])
    if resolution := describe_lost_resolution(header, result, format):
        losses.append(resolution)
    if len(set(header.pages)) > 1 and not result.pages:
        have = say_which_have(lambda row: row.has_page_notes)
        losses.append(f"{format} has no room for what pages after the first say of themselves; {have}")
    if header.left_out:
        losses.append(describe_left_out(header))
    return losses


def _describe_lost_times(header: Header, result: Header, format: str) -> str | None:
    """Say how the durations of frames change, where that can be seen."""
    if header.delays is None or header.frames == 1:
        return None
    if result.delays is None:
        have = say_which_have(lambda row: row.times)
        return f"{format} has no room for the times of its frames; {have}"
    before, after = sum(header.delays), sum(result.delays)
    if abs(after - before) <= _VISIBLE * before:
        return None
    loss = f"{format} cannot tell its times exactly: {after} ms in all, not {before}"
    can = find_formats(lambda row: _fit_times(header.delays, row) == header.delays)
    return f"{loss}; {enumerate_names(can)} can" if can else loss


def _name_missing(metadata: Metadata, format: str) -> list[str]:
    """Name the metadata of a picture for which a format has no place."""
    row = FORMATS[format]
    blocks = (
        ("EXIF", metadata.exif, row.longest_exif),
        ("IPTC", find_iptc_in(metadata.iptc), None if row.has_iptc else row.longest_exif),
        ("XMP", metadata.xmp, row.longest_xmp),
    )
    return [kind for kind, block, longest in blocks if block and longest == 0]


def explain_transparency(format: str) -> str:
    """Say that a format has no transparency, and what would work."""
    return (
        f"{format} has no room for transparency; png, webp and tiff keep it, and --background white fills it"
    )


def find_risk(header: Header, format: str, has_background: bool) -> str | None:
    """Say what may refuse a picture, as far as its header tells: whether its pixels are opaque it does not.

    Args:
        header: Header of the picture.
        format: Format of the result.
        has_background: Whether a colour stands for transparent pixels.
    """
    if has_background or not header.has_alpha or FORMATS[format].has_alpha:
        return None
    return f"it fails if a pixel is transparent: {explain_transparency(format)}"


def describe_left_out(header: Header) -> str:
    """Say which metadata no result has."""
    return f"left out: {enumerate_names(header.left_out)}"


def describe_masks(masks: tuple[int, ...]) -> str:
    """Describe the masks of an image for a message."""
    is_unknown = 0 in masks  # GDAL writes so what is neither gray nor of RGB
    if len(masks) == 1:
        kinds = "a saved selection, spot colour or band" if is_unknown else "a saved selection or spot colour"
        return f"extra channel ({kinds})"
    kinds = "saved selections, spot colours or bands" if is_unknown else "saved selections or spot colours"
    return f"{len(masks)} extra channels ({kinds})"


def _advise(header: Header) -> str:
    """Say how the bands of a picture that are of no kind can be restored."""
    if 0 not in header.masks:
        return ""
    colours = ""
    if header.bands == 1 and len(header.masks) > 1:
        colours = "`gdal_translate -co PHOTOMETRIC=RGB in.tif out.tif` makes colours of three bands, and "
    return f"; {colours}`gdal_translate -b N in.tif out.tif` makes a picture of band N"


def _check_room(header: Header, format: str, name: str) -> None:
    """Refuse what the format would cut off."""
    row = FORMATS[format]
    if row.longest_side and max(header.height, header.width) > row.longest_side:
        raise NoRoomError(
            f"cannot write {name}: {format} has room for {row.longest_side} pixels a side, "
            f"not {header.width}×{header.height}; "
            f"{name_formats(lambda other: other.longest_side is None)} hold it"
        )
    if header.frames > 1 and not row.has_frames:
        numbered = "; numbered images are results of clips only" if NUMBER.search(name) else ""
        raise NoRoomError(
            f"cannot write {name}: {format} holds one image, not {header.frames} pages or frames; "
            f"{name_formats(lambda other: other.has_frames)} hold them{numbered}"
        )
    metadata = header.metadata
    blocks = (("EXIF", metadata.exif, row.longest_exif), ("XMP", metadata.xmp, row.longest_xmp))
    for kind, block, longest in blocks:
        if block and longest and len(block) > longest:
            raise NoRoomError(
                f"cannot write {name}: {format} has room for {longest} bytes of {kind}, "
                f"not {len(block)}; {name_formats(lambda other: other.longest_exif is None)} hold it"
            )
