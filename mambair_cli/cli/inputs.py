"""The inputs of a command: options that say which images are taken, and finding these images."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mambair_cli.errors import UsageError

if TYPE_CHECKING:
    from mambair_cli.images.discovery import FileFilter
    from mambair_cli.images.source import Source

Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT", help="Images, folders or patterns; - for standard input."),
]
FromFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Read names of images from a file, one per line; - for standard input."
    ),
]
Null = Annotated[
    bool,
    typer.Option("--null", help="Names in --from-file are separated by NUL bytes (find -print0)."),
]
Include = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Only files that match, e.g. '*.jpg'."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Skip files and folders that match."),
]


def check_null(null: bool, from_file: str | None) -> None:
    """Refuse --null without --from-file.

    Raises:
        UsageError: It has no effect.
    """
    if null and from_file is None:
        raise UsageError("--null has no effect without --from-file; give both, or leave it out")


def check_addresses(names: Sequence[str], output: str | None = None) -> None:
    """Refuse addresses in place of files.

    Args:
        names: Names of the inputs.
        output: Name of the output, if there is one.

    Raises:
        UsageError: One of them is an address.
    """
    for name in (*names, output or ""):
        if "://" in name and not os.path.lexists(name):
            is_download = name != output and name.startswith(("http://", "https://"))
            advice = "download it first" if is_download else "mount it, and give the folder (docs/cluster.md)"
            raise UsageError(f"no file or folder: {name}; {advice}")


def find_inputs(
    names: Sequence[str], from_file: str | None, null: bool, file_filter: "FileFilter", verb: str
) -> list["Source"]:
    """Find the images that arguments and lists of names mean.

    Args:
        names: Files, folders, patterns, or "-" for standard input.
        from_file: File of further names; None for no such file.
        null: Whether names in that file are separated by NUL bytes.
        file_filter: Filter for the images in folders; it is told what is left out.
        verb: What the command does with images, for an error.

    Raises:
        UsageError: There is no image, or a name means none.
    """
    from mambair_cli.images import discovery

    sources = discovery.find_sources(names, file_filter)
    if from_file is not None:
        sources += discovery.read_names(from_file, null, file_filter)
    if not sources:
        raise UsageError(f"nothing to {verb}: no image is named; give files, folders or --from-file")
    return discovery.take_once(sources, file_filter.left_out)
