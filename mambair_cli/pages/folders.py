"""Pages that compare the pictures of two or more folders, and an index of them."""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from mambair_cli.errors import MambairError, UsageError
from mambair_cli.images.discovery import find_images
from mambair_cli.pages.comparison import score_pairs, write_comparison
from mambair_cli.pages.document import (
    check_page,
    is_ours,
    is_page_name,
    mark_pictures,
    name_page,
    write_document,
    write_page,
)
from mambair_cli.pages.screen import ScreenPicture, enlarge, tell_pictures, to_address
from mambair_cli.system.files import FileIds
from mambair_cli.system.memory import explaining_memory

PICTURES = "pictures"  # folder of the pages, next to the index
INDEX = "index.html"
THUMBNAIL = 320  # longest side, in pixels


@dataclass(frozen=True)
class PictureSet:
    """Pictures that belong together: one of each folder.

    Attributes:
        name: Path of the first one below its folder.
        files: The pictures.
    """

    name: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class ComparedSet:
    """A set of pictures after its page was written.

    Attributes:
        name: Name of the set.
        page: Its page; None where it failed.
        thumbnails: Addresses of small forms of the first and the last picture.
        psnr: PSNR between these two, in dB, the smaller one enlarged; infinite for equal pictures.
        error: Why there is no page.
        warnings: Sentences about damage, and about what the page does not show.
    """

    name: str
    page: Path | None
    thumbnails: tuple[str, ...] = ()
    psnr: float = math.nan
    error: MambairError | None = None
    warnings: tuple[str, ...] = ()


def match_folders(folders: Sequence[Path]) -> tuple[list[PictureSet], list[Path]]:
    """Find the pictures of several folders that belong together, by their paths below the folders.

    A path counts without its suffix, where that is enough to tell the pictures of a folder apart.

    Returns:
        The sets, and the pictures without partners.

    Raises:
        UsageError: A folder has no pictures, or no picture has partners.
    """
    found = [{path.relative_to(folder): path for path in find_images(folder)} for folder in folders]
    by_stem = [_by_stem(paths) for paths in found]
    sets, matched = [], set()
    for below, path in found[0].items():
        stem = below.with_suffix("")
        files = [path]
        for paths, stems in zip(found[1:], by_stem[1:], strict=True):
            partner = paths.get(below) or (stems.get(stem) if by_stem[0].get(stem) == path else None)
            if partner is not None:
                files.append(partner)
        if len(files) == len(folders):
            sets.append(PictureSet(below.as_posix(), tuple(files)))
            matched.update(files)
    if not sets:
        names = " and ".join(map(str, folders))
        raise UsageError(f"no picture of {names} has the same name in both; name the files alike")
    alone = [path for paths in found for path in paths.values() if path not in matched]
    return sets, alone


def _by_stem(paths: dict[Path, Path]) -> dict[Path, Path]:
    """Return the pictures whose paths without a suffix are their own."""
    stems: dict[Path, list[Path]] = {}
    for below, path in paths.items():
        stems.setdefault(below.with_suffix(""), []).append(path)
    return {stem: of_stem[0] for stem, of_stem in stems.items() if len(of_stem) == 1}


def compare_sets(
    sets: Sequence[tuple[str, Callable[[], list[ScreenPicture]]]],
    output: Path,
    title: str,
    overwrite: bool,
    inputs: FileIds,
    folders: Sequence[Path],
) -> Iterator[ComparedSet]:
    """Write a page for each set of pictures, and at the end an index, the largest difference first.

    Args:
        sets: Name of each set, a path, and what reads its pictures.
        output: Folder of the index; made if need be.
        title: Title of the index.
        overwrite: Whether to replace files that are no pages of ours, and no inputs.
        inputs: Pictures of all sets, by :func:`identify_files`.
        folders: Folders of the pictures, by which the index is known again.

    Yields:
        What became of each set.

    Raises:
        UsageError: The index would replace another file, an input, or the index of other folders, or no
            folder can be there.
        ImageError: The index cannot be written.
    """
    check_page(output / INDEX, overwrite, inputs, folders)
    compared = []
    for name, read in sets:
        page = (output / PICTURES / name).with_name(name_page(Path(name).name))
        back = "../" * (1 + name.count("/")) + INDEX
        try:
            with explaining_memory(name):
                pictures = read()
                document = write_comparison(pictures, name, back)
                ends = pictures[0], pictures[-1]
                thumbnails = tuple(to_address(picture.pixels, THUMBNAIL) for picture in ends)
                difference, warnings = _difference(*ends), tell_pictures(pictures)
                write_page(page, document, overwrite, inputs)
        except MambairError as error:
            compared.append(ComparedSet(name, None, error=error))
        else:
            compared.append(ComparedSet(name, page, thumbnails, difference, warnings=warnings))
        yield compared[-1]
    write_page(output / INDEX, _write_index(compared, output, title, folders), overwrite, inputs)


def list_pages(output: Path) -> set[Path]:
    """Return the pages that the index in a folder names; none where there is no index of ours."""
    try:
        index = (output / INDEX).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return set()
    names = re.findall(f'<li><a href="({PICTURES}/[^"]*)"', index) if is_ours(output / INDEX) else []
    pages = [Path(os.fsdecode(unquote_to_bytes(unescape(name)))) for name in names]
    return {output / page for page in pages if ".." not in page.parts}


def remove_pages(pages: Iterable[Path]) -> None:
    """Remove pages that an index no longer names, and no file that is none."""
    for page in pages:
        if is_page_name(page) and is_ours(page):
            with suppress(OSError):
                page.unlink()


def _difference(first: ScreenPicture, last: ScreenPicture) -> float:
    """Return the PSNR between two pictures, the smaller one enlarged, in dB."""
    height, width = max(first.pixels.shape[:2], last.pixels.shape[:2])
    pictures = [
        picture if picture.pixels.shape[:2] == (height, width) else enlarge(picture, width, height, "")
        for picture in (first, last)
    ]
    score = score_pairs(pictures, with_ssim=False)[0]["psnr"]
    return math.inf if score is None else score


def _write_index(compared: Sequence[ComparedSet], output: Path, title: str, folders: Sequence[Path]) -> str:
    """Write the index of pages, the largest difference first."""
    done = [(each, each.page) for each in compared if each.page is not None]
    items = []
    for each, page in sorted(done, key=lambda pair: pair[0].psnr):
        address = quote(os.fsencode(page.relative_to(output).as_posix()))
        shown = "equal" if math.isinf(each.psnr) else f"{each.psnr:.2f} dB"
        images = "".join(f'<img src="{source}" alt="" loading="lazy">' for source in each.thumbnails)
        items.append(
            f'<li><a href="{escape(address, quote=True)}"><span class="pair">{images}</span>'
            f"<span>{escape(each.name)}</span></a> <span>{shown}</span></li>"
        )
    failed = [f"<li>{escape(each.name)}: {escape(str(each.error))}</li>" for each in compared if each.error]
    count = f"{len(done)} picture{'s' * (len(done) != 1)}"
    body = [
        f"<header {mark_pictures(folders)}><h1>{escape(title)}</h1></header><main>",
        f"<p>{count}, the largest difference first. The number is the PSNR between the first and the last "
        "form of a picture, as they are seen: the lower, the more they differ.</p>",
        f"<ul class=index>{''.join(items)}</ul>",
        f"<h2>Not compared</h2><ul>{''.join(failed)}</ul>" if failed else "",
        "</main>",
    ]
    return write_document(f"{title} - mambair", "\n".join(body), ["viewer.css"], [])
