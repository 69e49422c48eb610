"""Read image files: row by row, or into pictures.

libvips does most of the decoding. It gets open files, never a file name: in names it would take ``[...]`` for
options, and its cache could return the pixels of a file that has changed since. The loader is chosen here, by
the first bytes; by itself libvips would also render SVG and parse CSV.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from mmap import mmap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mambair_cli.errors import ImageError
from mambair_cli.images import other_decoders
from mambair_cli.images.avif_frames import is_avif_animated
from mambair_cli.images.description import (
    OME,
    PAGES_LEFT_OUT,
    PageLayout,
    explain_misfit,
    fit_description,
    identify_description,
)
from mambair_cli.images.file_bytes import FileBytes, changed_error
from mambair_cli.images.file_profile import find_avif_profile, find_profile, find_tiff_profile
from mambair_cli.images.gif_blocks import GifFacts, read_gif_facts
from mambair_cli.images.icc_profile import keep_usable_profile
from mambair_cli.images.iso_boxes import find_extras
from mambair_cli.images.jpeg import read_comments, read_photoshop_blocks
from mambair_cli.images.libvips import LibvipsError, explained
from mambair_cli.images.metadata import extract_exif, find_iptc
from mambair_cli.images.move import to_upright
from mambair_cli.images.photoshop import PATHS, carry_resources
from mambair_cli.images.picture import (
    BAND_FORMATS,
    COMMENT,
    INTERPRETATIONS,
    Header,
    Metadata,
    Picture,
    Text,
    decode_text,
)
from mambair_cli.images.places import find_orientation, restate_upright
from mambair_cli.images.png_chunks import PngFacts, read_png_facts
from mambair_cli.images.resolution import add_resolution, find_tiff_resolution
from mambair_cli.images.room import describe_left_out, describe_masks
from mambair_cli.images.row_reader import NO_END, Loaded, Reader, corrupt_error, leave_out, wrap
from mambair_cli.images.signatures import identify
from mambair_cli.images.tiff import Page, choose_pages
from mambair_cli.images.tiff_check import check_pages, check_tiff
from mambair_cli.images.tiff_notes import add_notes
from mambair_cli.images.tiff_samples import Samples, is_negative, must_settle, sort_samples
from mambair_cli.images.trailing_images import find_trailing_images
from mambair_cli.images.unread_blocks import find_unread
from mambair_cli.images.vips_image import LOADERS, FileData, VipsImage
from mambair_cli.system.file_errors import explain_unreadable
from mambair_cli.system.wording import show

MAX_PIXELS = 2**30

_DECODED_WHOLE = ("webp", "avif")
_MAPPED = ("webp", "gif")  # by libvips, where it opens the file; one that becomes shorter ends the process
_READ_IN_PARTS = ("png", "tiff")  # of all others the whole file is looked at, or decoded from memory
_ROWS_AT_ONCE = 256


@contextmanager
def open_picture(
    source: Path | bytes | mmap, *, max_pixels: int = MAX_PIXELS, damaged: bool = False
) -> Iterator[Reader]:
    """Open an image file of any readable format, whatever its name says.

    EXIF orientation is applied and CMYK is brought to sRGB through its profile; nothing else is converted.

    Args:
        source: A file, or the bytes of one, which must not change while it is read.
        max_pixels: Most pixels of all frames together; a larger image is refused before it is decoded.
        damaged: Whether to read the rest of a file of which a part is missing.

    Raises:
        ImageError: The file cannot be read, or part of it would be lost or invented.
    """
    if not isinstance(source, Path):
        with closing(_open(FileData("the image", source), max_pixels, damaged)) as reader:
            yield reader
        return
    with ExitStack() as opened:
        try:
            file = opened.enter_context(source.open("rb"))
            status = os.fstat(file.fileno())
            data = None if stat.S_ISREG(status.st_mode) else file.read()  # a pipe can be read once
        except OSError as error:
            raise explain_unreadable(source, error) from error
        if data is None:
            parts = FileData(show(source), FileBytes(file), lambda: _reopen(source, status))
        else:
            parts = FileData("the image", data)
        reader = _open(parts, max_pixels, damaged)
    with closing(reader):
        yield reader


@contextmanager
def _reopen(path: Path, status: os.stat_result) -> Iterator[BinaryIO]:
    """Open a file again, if it has not changed."""
    try:
        with path.open("rb") as file:
            now = os.fstat(file.fileno())
            same = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
            if any(getattr(now, key) != getattr(status, key) for key in same):
                raise changed_error(path)
            yield file
    except OSError as error:
        raise explain_unreadable(path, error) from error


def read_picture(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, damaged: bool = False) -> Picture:
    """Read a whole image file; see :func:`open_picture`.

    Raises:
        ImageError: The file cannot be read, or has more than one page or frame.
    """
    with open_picture(source, max_pixels=max_pixels, damaged=damaged) as reader:
        header = reader.header
        if header.frames > 1:
            name = "the image" if isinstance(source, bytes) else show(source)
            raise ImageError(
                f"cannot read {name}: it holds {header.frames} pages or frames; split it into single images"
            )
        samples = np.empty((header.height, header.width, header.samples_per_pixel), header.dtype)
        for top in range(0, header.height, _ROWS_AT_ONCE):
            bottom = min(top + _ROWS_AT_ONCE, header.height)
            samples[top:bottom] = reader.read(top, bottom)
    left_out = [f"{describe_masks(header.masks)} left out"] if header.masks else []
    left_out += [describe_left_out(header)] if header.left_out else []
    return Picture(
        pixels=np.ascontiguousarray(samples[..., : header.bands]),
        alpha=np.ascontiguousarray(samples[..., header.bands]) if header.has_alpha else None,
        format=header.format,
        icc=header.icc,
        metadata=header.metadata,
        warnings=(*reader.warnings, *left_out),
    )


def _open(data: FileData, max_pixels: int, damaged: bool) -> Reader:
    format = identify(data.bytes, data.name)
    if data.reopen is not None and format not in _READ_IN_PARTS:
        reopen = None if format in _MAPPED else data.reopen
        data = replace(data, bytes=bytes(data.bytes), reopen=reopen)
    remarks = find_trailing_images(data.bytes, format, data.name)
    pages = check_tiff(data) if format == "tiff" else []
    is_float64 = bool(pages) and pages[choose_pages(pages).numbers[0]].is_float64
    if format not in LOADERS or is_float64 or (format == "avif" and is_avif_animated(data.bytes)):
        reader = _open_with_other_decoder(data, format, pages, max_pixels)
    else:
        try:
            with explained(0, format):
                reader = _open_with_vips(data, format, pages, max_pixels, damaged)
        except LibvipsError as error:
            raise corrupt_error(data.name, format, str(error)) from error
    for remark in remarks:
        reader.warn(remark)
    return reader


def _open_with_vips(data: FileData, format: str, pages: list[Page], max_pixels: int, damaged: bool) -> Reader:
    """Read the header of an image that libvips decodes."""
    facts = read_png_facts(data.bytes) if format == "png" else PngFacts()
    if facts.frames > 1:
        raise ImageError(
            f"cannot read {data.name}: it is an animated PNG of {facts.frames} frames; "
            "convert it to WebP first, as with ffmpeg -i FILE -lossless 1 -loop 0 new.webp"
        )
    gif = read_gif_facts(data.bytes) if format == "gif" else GifFacts("marked")
    if gif.end == "cut" and not damaged:
        raise corrupt_error(data.name, format, "it ends within a frame", is_partial=True)
    choice = choose_pages(pages)
    chosen = [pages[number] for number in choice.numbers]
    warnings = [*choice.remarks, *_find_faults(facts, gif)]
    image = VipsImage(data, format, damaged, dict(zip(choice.numbers, chosen, strict=True)))
    if pages and (image.field("n-pages") or 1) > len(pages):
        raise corrupt_error(data.name, format, "its pages cannot be counted")
    _check_size(image.head.width, image.head.height * image.frames, max_pixels, data.name)
    if image.frames > 1:
        if pages:
            check_pages(data, chosen)
        image.take_frames()
    head, (width, height) = image.head, image.size
    bands = _count_colours(head, data.name, has_more=format == "tiff")
    samples = _sort_samples(head, bands, chosen[0] if chosen else None)
    image.samples = samples
    exif = extract_exif(data.bytes, chosen[0].at) if chosen else image.field("exif-data")
    move = to_upright(image.size, find_orientation(exif) if format == "avif" else image.orientation)
    stored = Metadata(exif=exif, xmp=image.field("xmp-data"), texts=_read_texts(data, format, facts, gif))
    metadata, unmoved = restate_upright(stored, move, warnings)
    delays = image.field("delay") if image.frames > 1 else None
    if format == "avif":
        warnings += map(leave_out, find_extras(data.bytes))
    icc = find_profile(data, image, facts, chosen, bands, warnings)
    iptc = _find_iptc(data, format, metadata.exif, move.orientation != 1, warnings)
    header = Header(
        width=width,
        height=height,
        bands=bands,
        dtype={vips: name for name, vips in BAND_FORMATS.items()}[image.show().format],
        has_alpha=samples.has_alpha,
        masks=samples.masks,
        format=format,
        frames=image.frames,
        delays=tuple(delays[: image.frames]) if delays else None,
        loop=image.field("loop") or 0,
        icc=icc,
        metadata=add_resolution(replace(metadata, iptc=iptc), format, data.bytes, facts, move.orientation),
        unmoved=unmoved,
        is_from_cmyk=head.interpretation == "cmyk",
    )
    return Reader(
        _add_measures(header, data, pages, choice.numbers, warnings),
        image.load,
        data.name,
        image.field("bits-per-sample") if format == "avif" and head.format == "ushort" else 16,
        is_whole=format in _DECODED_WHOLE or bool(image.field("interlaced")),
        is_turned=image.orientation > 2,
        warnings=dict.fromkeys(warnings),
    )


def _add_measures(
    header: Header, data: FileData, pages: list[Page], numbers: Sequence[int], warnings: list[str]
) -> Header:
    """Return a header with a description that fits the file, what no result has, and what TIFF pages say.

    Args:
        header: Header of the picture.
        data: Data of the file.
        pages: All pages of a TIFF file; of other formats none.
        numbers: Numbers of those that are read.
        warnings: Sentences about the file, to which one may be added.
    """
    page = pages[numbers[0]] if numbers else None
    samples = page.samples_per_pixel if page else header.samples_per_pixel
    exif, misfit = fit_description(
        header.metadata.exif,
        PageLayout(
            width=header.width,
            height=header.height,
            samples=samples,
            pages=header.frames,
            are_samples_kept=samples == header.samples_per_pixel,
            has_gaps=bool(numbers) and max(numbers) >= len(numbers),
        ),
    )
    warnings += [misfit] if misfit else []
    if page and numbers[0] and identify_description(extract_exif(data.bytes, pages[0].at))[0] == OME:
        warnings.append(explain_misfit(OME, PAGES_LEFT_OUT))  # the first page has it for the whole file
    metadata = replace(header.metadata, exif=exif)
    if page is None:
        return replace(header, metadata=metadata, left_out=find_unread(data.bytes, header.format))
    dpi, density = find_tiff_resolution(page, exif)
    header = replace(header, metadata=replace(metadata, dpi=dpi, density=density))
    return add_notes(header, data.bytes, [pages[number] for number in numbers])


def _sort_samples(head: Any, bands: int, page: Page | None) -> Samples:
    """Return what the samples of a pixel mean, in the order of the file."""
    colours = 4 if head.interpretation == "cmyk" else bands
    if page is None:
        return sort_samples(colours, head.bands - colours, None)
    return sort_samples(colours, head.bands - colours, page.extra, must_settle(page) and is_negative(page))


def _find_iptc(
    data: FileData, format: str, exif: bytes | None, is_turned: bool, warnings: list[str]
) -> bytes | None:
    """Return the IPTC of a file; in JPEG files it stands among Photoshop's resources, elsewhere in EXIF."""
    if format != "jpeg":
        return find_iptc(exif)
    block, lost = carry_resources(read_photoshop_blocks(data.bytes), is_turned)
    warnings += [f"its {PATHS} are left out"] if lost else []
    return block


def _read_texts(data: FileData, format: str, facts: PngFacts, gif: GifFacts) -> tuple[Text, ...]:
    """Read the texts of a file that are not in EXIF, XMP or IPTC."""
    if format == "png":
        return facts.texts
    comments = read_comments(data.bytes) if format == "jpeg" else gif.comments
    return tuple(Text(COMMENT, decode_text(comment)) for comment in comments if comment)


def _find_faults(facts: PngFacts, gif: GifFacts) -> list[str]:
    """Return faults of a PNG or GIF file that its decoder does not report."""
    faults = [f"{facts.damaged_texts} of its texts cannot be read"] if facts.damaged_texts else []
    if not facts.has_end or gif.end == "unmarked":
        faults.append(NO_END)
    if gif.end == "cut":
        faults.append("damaged: it ends within a frame")
    return faults


def _open_with_other_decoder(data: FileData, format: str, pages: list[Page], max_pixels: int) -> Reader:
    """Read the header of an image that libvips does not decode."""
    try:
        image = other_decoders.read_header(format, bytes(data.bytes), data.name)
    except other_decoders.BrokenImageError as error:
        raise corrupt_error(data.name, format, str(error)) from error
    height, width, count = image.shape
    _check_size(width, height * image.frames, max_pixels, data.name)

    def load(lenient: bool) -> Loaded:
        try:
            return Loaded(wrap(image.load(), bands))
        except other_decoders.BrokenImageError as error:
            raise corrupt_error(data.name, format, str(error)) from error

    bands = image.bands or count - (count % 2 == 0)
    warnings = list(image.warnings)
    move = to_upright((width, height), find_orientation(image.metadata.exif))
    metadata, unmoved = restate_upright(image.metadata, move, warnings)
    metadata = replace(metadata, iptc=find_iptc(metadata.exif))
    icc = keep_usable_profile(image.icc, bands, warnings)
    icc = find_tiff_profile(data.bytes, pages, icc, bands == 1, warnings) if pages else icc
    is_heif = format in ("heic", "avif")
    if is_heif:
        warnings += map(leave_out, find_extras(data.bytes))
    header = Header(
        width=width,
        height=height,
        bands=bands,
        dtype=image.dtype,
        has_alpha=count - len(image.masks) > bands,
        masks=image.masks,
        format=format,
        frames=image.frames,
        delays=image.delays,
        loop=image.loop,
        icc=find_avif_profile(data.bytes, icc, bands == 1, data.name, warnings) if is_heif else icc,
        metadata=add_resolution(metadata, format, data.bytes, orientation=move.orientation),
        unmoved=unmoved,
    )
    header = _add_measures(header, data, pages, choose_pages(pages).numbers, warnings)
    return Reader(header, load, data.name, is_whole=True, warnings=dict.fromkeys(warnings))


def _check_size(width: int, height: int, max_pixels: int, name: str) -> None:
    """Refuse an image that is too large, by its header, before it fills the memory."""
    if width * height > max_pixels:
        raise ImageError(
            f"cannot read {name}: it has {width}×{height} pixels, more than {max_pixels}; "
            "cut it into parts, or allow more with --max-pixels, which most commands have"
        )


def _count_colours(image: Any, name: str, has_more: bool = False) -> int:
    """Return the number of colour bands that the picture will have: 1 or 3.

    Args:
        image: Image of libvips.
        name: Name of the file, for errors.
        has_more: Whether more samples than alpha may follow the colours.

    Raises:
        ImageError: It is neither gray, RGB nor CMYK, or its samples are of another type.
    """
    if image.format not in BAND_FORMATS.values():
        raise ImageError(
            f"cannot read {name}: its samples are of type {image.format}; "
            "convert them to 8 or 16 bits without a sign, or to 32-bit floats from 0 to 1"
        )
    if image.interpretation == "cmyk" and image.format != "float" and (image.bands == 4 or has_more):
        return 3
    for (bands, _), interpretation in INTERPRETATIONS.items():
        most = image.bands if has_more else bands + 1
        if image.interpretation == interpretation and bands <= image.bands <= most:
            return bands
    raise ImageError(
        f"cannot read {name}: it has {image.bands} bands of kind {image.interpretation}; "
        "convert it to gray or RGB, with or without alpha"
    )
