"""The inputs of a command: options that say which images are taken, and finding these images."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mambair_cli.cli.streams import is_stdin_closed
from mambair_cli.errors import UsageError
from mambair_cli.system.patterns import explain_braces, must_be_expanded

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


def check_names(names: Sequence[str], output: str | None = None, may_lack_output: bool = False) -> None:
    """Refuse addresses in place of files, and inputs that are not there, before anything is done.

    Args:
        names: Names of the inputs, as they were given.
        output: Name of the output, if there is one.
        may_lack_output: Whether the last input may have been meant as the output.

    Raises:
        UsageError: There is such a name.
    """
    refuse_addresses(names, output)
    _check_stdin(*names)
    missing = [name for name in names if name and not _is_there(name)]
    if missing:
        is_output = may_lack_output and len(names) == 2 and missing == [names[1]]
        advice = explain_braces(missing[0]) or "check its name"
        advice = f"did you mean -o {shlex.quote(missing[0])}?" if is_output else advice
        if missing[0].startswith("-"):  # else it would be an option
            advice = "after -- everything is a file name"
        raise UsageError(f"no such file or folder: {missing[0]}; {advice}")


def _check_stdin(*names: str) -> None:
    """Refuse to read a standard input that is closed: it would seem empty."""
    from mambair_cli.images.source import STANDARD_STREAM

    if STANDARD_STREAM in names and is_stdin_closed():
        raise UsageError(f"standard input is closed: {STANDARD_STREAM}; name a file")


def refuse_addresses(names: Sequence[str], output: str | None = None) -> None:
    """Refuse addresses in place of files; for one of this machine say which file it means.

    Args:
        names: Names of the inputs, as they were given.
        output: Name of the output, if there is one.

    Raises:
        UsageError: There is an address.
    """
    for name in (*names, output or ""):
        if "://" in name and not os.path.lexists(name):
            advice = "mount it, and give the folder (docs/cluster.md)"
            if name != output and name.startswith(("http://", "https://")):
                advice = "download it first"
            if (path := _path_of_address(name)) is not None:
                advice = f"write {shlex.quote(path)}"
            raise UsageError(f"no file or folder: {name}; {advice}")


def _path_of_address(address: str) -> str | None:
    """Return the path in an address such as file:///home/me/a%20b.jpg; None for that of another machine."""
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    if scheme.lower() != "file" or host not in ("", "localhost") or not path:
        return None
    from urllib.parse import unquote  # imported here: few names are addresses

    return slash + unquote(path, errors="surrogateescape")


def _is_there(name: str) -> bool:
    """Tell whether an input may exist; for a pattern that the shell has not expanded this is not checked."""
    from mambair_cli.images.source import STANDARD_STREAM

    if name == STANDARD_STREAM or must_be_expanded(name):
        return True
    try:
        os.lstat(name)
    except (FileNotFoundError, NotADirectoryError):
        if "%" not in name:  # most names: nothing is imported for them
            return False
        from mambair_cli.video import find_images, is_pattern

        return is_pattern(Path(name)) and bool(find_images(Path(name)))
    except OSError:  # it cannot be known; reading it will tell why
        return True
    return True


def find_inputs(
    names: Sequence[str], from_file: str | None, null: bool, file_filter: "FileFilter", verb: str
) -> list["Source"]:
    """Find the images that arguments and lists of names mean.

    Args:
        names: Files, folders, patterns, or "-" for standard input.
        from_file: File of further names; None for no such file.
        null: Whether names in that file are separated by NUL bytes.
        file_filter: Filter for the images in folders; it counts what is left out.
        verb: What the command does with images, for an error.

    Raises:
        UsageError: There is no image, or a name means none.
    """
    from mambair_cli.images import discovery

    sources = discovery.find_sources(names, file_filter)
    if from_file is not None:
        _check_stdin(from_file)
        sources += discovery.read_names(from_file, null, file_filter)
    left_out = file_filter.left_out
    if not sources and left_out.clips:
        clip = left_out.clips[0]
        raise UsageError(
            f"nothing to {verb} but clips: {clip}; name each, or give a pattern such as '*{clip.suffix}'"
        )
    if not sources and left_out.special:
        raise UsageError(f"nothing to {verb} but pipes or devices: {left_out.special[0]}; name each")
    if not sources:
        raise UsageError(f"nothing to {verb}: no image is named; give files, folders or --from-file")
    return discovery.take_once(sources, left_out)
