"""The command that compares pictures in a page for the browser."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mambair_cli.cli.browser import open_page
from mambair_cli.cli.inputs import refuse_addresses
from mambair_cli.cli.options import AsJson, MaxPixels, Quiet, with_options
from mambair_cli.cli.output import print_event, say
from mambair_cli.errors import ImageError, UsageError
from mambair_cli.runs import parameters
from mambair_cli.system.files import identify_files
from mambair_cli.system.geometry import read_region
from mambair_cli.system.wording import as_argument, show, show_count

if TYPE_CHECKING:
    from mambair_cli.pages.folders import ComparedSet
    from mambair_cli.pages.screen import ScreenPicture

PAGE, FOLDER = "compare.html", "compare"  # where no output is named
ReadSet = Callable[[], "list[ScreenPicture]"]


@dataclass(frozen=True)
class CompareOptions:
    """The options of ``compare``."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Page to write; for folders, a folder of pages.",
            show_default=f"{PAGE}, for folders {FOLDER}/",
        ),
    ] = None
    names: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="What to call the pictures, separated by commas.",
            show_default="names of files or folders",
        ),
    ] = None
    region: Annotated[
        str | None,
        typer.Option(metavar="X,Y,W,H", help="Compare a part only; in pixels of the largest picture."),
    ] = None
    open: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace pages that exist.")] = False
    max_pixels: MaxPixels = parameters.MAX_PIXELS.default
    quiet: Quiet = False
    json: AsJson = False


@with_options
def compare(
    pictures: Annotated[
        list[str], typer.Argument(metavar="PICTURE", help="Two to six pictures, or as many folders.")
    ],
    *,
    options: CompareOptions,
) -> None:
    """Write a page that compares pictures, and that any browser shows.

    The page has a slider between two pictures, side by side, flicker, zoom to the pixel, a picture of where
    they differ, PSNR and SSIM. It is one file that needs nothing else. Pictures may differ in size, not in
    shape. Folders become a page for each picture, and an index that begins with the largest difference.

    Example: mambair compare photo.jpg photo_x4.png --open
    """
    from mambair_cli.pages.comparison import check_count

    refuse_addresses(pictures)
    paths = [Path(picture) for picture in pictures]
    for path in paths:
        if not os.path.lexists(path):
            is_behind_dashes = str(path).startswith("-")
            advice = "after -- everything is a file name" if is_behind_dashes else "check its name"
            raise UsageError(f"no such file or folder: {path}; {advice}")
    check_count(len(paths))
    folders = [path for path in paths if path.is_dir()]
    if folders and len(folders) < len(paths):
        raise UsageError("folders are compared with folders, and pictures with pictures; give one kind")
    names = _read_names(options.names, paths)
    if folders:
        index, exit_code = _compare_folders(folders, names, options)
    else:
        index, exit_code = _compare_pictures(paths, names, options), 0
    if options.open:
        open_page(index)
    if exit_code:
        raise typer.Exit(exit_code)


def _read_names(names: str | None, pictures: list[Path]) -> list[str]:
    """Return what the pictures or folders are called: names of files alone, where these differ."""
    if names is not None:
        given = [name.strip() for name in names.split(",")]
        if len(given) != len(pictures) or not all(given):
            raise UsageError(f"--names {names} names {len(given)}, and there are {len(pictures)}; name each")
        return given
    short = [path.name or str(path) for path in pictures]
    names_of = short if len(set(short)) == len(short) else [str(path) for path in pictures]
    seen: Counter[str] = Counter()
    texts = []
    for name in names_of:  # a picture may be given twice
        seen[name] += 1
        texts.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return texts


def _compare_pictures(files: list[Path], names: list[str], options: CompareOptions) -> Path:
    """Write a page that compares some pictures; return its path."""
    from mambair_cli.pages.comparison import write_comparison
    from mambair_cli.pages.document import check_page, write_page
    from mambair_cli.pages.screen import tell_pictures

    output = options.output or Path(PAGE)
    if output.is_dir():
        output = output / PAGE
    read = _reader(files, names, options)
    inputs = identify_files(files)
    check_page(output, options.overwrite, inputs, pictures=files)
    shown = read()
    write_page(output, write_comparison(shown, files=files), options.overwrite, inputs)
    warnings = tell_pictures(shown)
    for sentence in () if options.quiet else warnings:
        say(f"warning: {sentence}")
    if options.json:
        print_event("compared", input=as_argument(files[0]), page=as_argument(output), warnings=warnings)
    else:
        print(as_argument(output))
    return output


def _compare_folders(folders: list[Path], names: list[str], options: CompareOptions) -> tuple[Path, int]:
    """Write a page for each picture of some folders, and an index; return its path and the exit code."""
    from mambair_cli.pages.document import is_page_name
    from mambair_cli.pages.folders import INDEX, compare_sets, list_pages, match_folders, remove_pages

    output = options.output or Path(FOLDER)
    if is_page_name(output) and not output.is_dir():
        raise UsageError(f"folders become a folder of pages, and -o {output} names a page; name a folder")
    sets, alone = match_folders(folders)
    if alone and not options.quiet:
        others = f" and {show_count(len(alone) - 1, 'other')}" if len(alone) > 1 else ""
        say(f"without a partner: {alone[0]}{others}")
    for path in alone if options.json else ():
        print_event("left_out", why="no_partner", count=1, example=str(path), kinds={})
    readers = [(each.name, _reader(list(each.files), names, options)) for each in sets]
    exit_code = 0
    title = " and ".join(names)
    inputs = identify_files(file for each in sets for file in each.files)
    before = list_pages(output)
    for compared in compare_sets(readers, output, title, options.overwrite, inputs, folders):
        report_set(compared, options.json, options.quiet)
        if compared.error is not None:
            exit_code = max(exit_code, compared.error.exit_code)
    index = output / INDEX
    remove_pages(before - list_pages(output))
    if options.json:
        print_event("index", page=as_argument(index))
    else:
        print(as_argument(index))
    return index, exit_code


def report_set(compared: "ComparedSet", as_json: bool, quiet: bool) -> None:
    """Print the page of a set of pictures, or why there is none."""
    for sentence in () if quiet else compared.warnings:
        say(f"warning: {compared.name}: {sentence}")
    if compared.error is not None:
        say(f"error: {compared.name}: {compared.error}")
        if as_json:
            from mambair_cli.runs.outcomes import describe_error

            print_event("page_failed", input=compared.name, **describe_error(compared.error))
    elif compared.page is not None:
        page = as_argument(compared.page)
        if as_json:
            print_event("compared", input=compared.name, page=page, warnings=compared.warnings)
        else:
            print(page, flush=True)


def _reader(files: list[Path], names: list[str], options: CompareOptions) -> ReadSet:
    """Return what reads the pictures of a page."""
    region = None if options.region is None else read_region(options.region, "--region")

    def read() -> "list[ScreenPicture]":
        from mambair_cli.pages.screen import show_region

        read = [
            _read_picture(file, name, options.max_pixels, whole=region is not None)
            for file, name in zip(files, names, strict=True)
        ]
        return read if region is None else show_region(read, region)

    return read


def _read_picture(file: Path, name: str, max_pixels: int, whole: bool) -> "ScreenPicture":
    """Read a picture; say what works for a clip."""
    from mambair_cli.images.signatures import ClipFoundError
    from mambair_cli.pages.screen import read_for_screen

    try:
        return read_for_screen(file, name, max_pixels, whole)
    except ClipFoundError as error:
        raise ImageError(
            f"cannot compare {show(file)}: it is a clip, and pictures are compared; --preview --at 10 of "
            "upscale, denoise and dejpeg shows its frame at 10 seconds before and after, and numbered images "
            "can be compared"
        ) from error
