"""What TIFF files say of each of their pages, and what they say that no result has."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from mambair_cli.images.description import identify_description, is_bare_shape
from mambair_cli.images.metadata import (
    DESCRIPTIVE,
    change_description,
    extract_page_notes,
    read_tiff_resources,
)
from mambair_cli.images.move import to_upright
from mambair_cli.images.photoshop import PATHS, add_paths, keep_paths
from mambair_cli.images.picture import Header, Metadata
from mambair_cli.images.places import restate_upright_xmp
from mambair_cli.images.resolution import find_tiff_resolution
from mambair_cli.images.tiff import Page
from mambair_cli.images.tiff_directories import DESCRIPTION, EXIF, GPS, MALFORMED, PHOTOSHOP, XMP, Buffer
from mambair_cli.images.unread_blocks import CREDENTIALS
from mambair_cli.system.wording import enumerate_names

_COLOUR_MAP, _PALETTE = 320, 3  # tag, and meaning of samples that are numbers of its colours
_LAYERS = 37724  # of Photoshop
_CREDENTIALS = 52545  # of C2PA
_OF_IMAGEJ = frozenset({50838, 50839})
_GEOREFERENCES = frozenset({33550, 33920, 33922, 34264, 34735, 34736, 34737, 42112, 42113, 50844})
# Tags that tell how samples are stored, or that are read and written otherwise or made anew: those of TIFF
# 6.0 and its supplements, further directories, XMP, profile, and Photoshop's settings.
_HANDLED = DESCRIPTIVE.union(
    *(range(254, 267), range(273, 285), (288, 289, 292, 293), (296, 297, 301), range(317, 329)),
    *((330, 332, 333, 334, 336), range(338, 344), (347,), range(512, 522), range(529, 533)),
    (559, XMP, EXIF, GPS, PHOTOSHOP, 34675),
)
_TAGS_SHOWN = 6


def add_notes(header: Header, data: Buffer, pages: Sequence[Page]) -> Header:
    """Return the header of a TIFF file with what it says of its pages.

    Args:
        header: Header with what the first page says.
        data: The file.
        pages: The pages that are read.
    """
    metadata = header.metadata
    notes: list[Metadata] = []
    room = len(data)  # values do not overlap: those of a hostile file must not sum up to terabytes
    for number, page in enumerate(pages if len(pages) > 1 else []):
        exif = xmp = None
        with suppress(*MALFORMED):
            exif, xmp = extract_page_notes(data, page.at, number, room)
        room -= len(exif or b"") + len(xmp or b"")
        if exif is not None and identify_description(exif)[0] is not None:
            exif = change_description(exif, None)  # a program's, which tells of the page as it was
        xmp = restate_upright_xmp(xmp, to_upright((header.width, header.height), page.orientation), [])
        dpi, density = find_tiff_resolution(page, metadata.exif)
        notes.append(Metadata(exif=exif, xmp=xmp, dpi=dpi, density=density))
    usual = Metadata(xmp=metadata.xmp, dpi=metadata.dpi, density=metadata.density)
    has_own = any(note != usual for note in notes[1:])
    left_out = list(_find_left_out(pages))
    iptc, lost = _add_paths(metadata.iptc, data, pages)
    if lost:
        left_out.insert(0, PATHS)
    own = tuple(notes) if has_own else ()
    metadata = replace(metadata, iptc=iptc)
    return replace(header, metadata=metadata, pages=own, left_out=tuple(left_out))


def _add_paths(iptc: bytes | None, data: Buffer, pages: Sequence[Page]) -> tuple[bytes | None, bool]:
    """Add the paths of the first page to the block with its IPTC; tell whether paths are left out."""
    paths, *others = (
        keep_paths(read_tiff_resources(data, page.at)) if PHOTOSHOP in page.tags else b"" for page in pages
    )
    lost = any(other and other != paths for other in others)
    added = add_paths(iptc, paths) if paths and pages[0].orientation == 1 else None
    return added or iptc, lost or bool(paths and not added)


def _find_left_out(pages: Sequence[Page]) -> Iterator[str]:
    """Name what the pages say and no result has."""
    lost = frozenset[int]().union(*(page.tags for page in pages)) - _HANDLED
    if any(_COLOUR_MAP in page.tags and page.photometric != _PALETTE for page in pages):
        lost |= {_COLOUR_MAP}  # colours in which programs show gray
    if lost & _GEOREFERENCES:
        yield "georeferencing (GeoTIFF, GDAL)"
    if _LAYERS in lost:
        yield "layers of Photoshop"
    if any({EXIF, GPS} & page.tags for page in pages[1:]):
        yield "EXIF of pages after the first"
    repeated = {tag for page in pages for tag, text in page.repeated if _is_lost(tag, text)}
    if DESCRIPTION in repeated:
        yield "further description"
    if repeated - {DESCRIPTION}:
        yield f"repeated {_name_tags(sorted(repeated - {DESCRIPTION}))}"
    if of_imagej := sorted(lost & _OF_IMAGEJ):
        yield f"ImageJ's own data (ranges shown, labels, overlays; {_name_tags(of_imagej)})"
    others = sorted(lost - _GEOREFERENCES - _OF_IMAGEJ - {_LAYERS, _CREDENTIALS})
    if others:
        yield _name_tags(others)
    if _CREDENTIALS in lost:
        yield CREDENTIALS


def _name_tags(tags: Sequence[int]) -> str:
    """Return the numbers of tags, and the names of those that have one."""
    from tifffile import TIFF

    shown = [f"{tag} ({TIFF.TAGS[tag]})" if tag in TIFF.TAGS else str(tag) for tag in tags[:_TAGS_SHOWN]]
    more = [f"{len(tags) - _TAGS_SHOWN} more"] if len(tags) > _TAGS_SHOWN else []
    return f"tag{'s' * (len(tags) > 1)} {enumerate_names([*shown, *more])}"


def _is_lost(tag: int, value: bytes) -> bool:
    """Tell whether the value of a tag that came before says something that no result has."""
    if tag == DESCRIPTION:
        return not is_bare_shape(value)
    return tag == XMP or tag in DESCRIPTIVE
