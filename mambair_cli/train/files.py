"""Read all files to train or to measure on; one line tells which cannot be read, or not whole."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mambair_cli.errors import ImageError
from mambair_cli.images import FirstPage, read_first_page
from mambair_cli.system.files import enumerate_names, show

MOST_NAMES = 10  # in one error

Result = TypeVar("Result")


def read_all(files: Sequence[Path], read: Callable[[Path], Result]) -> list[Result]:
    """Call a function with each file, several at a time, and return what it made of them, in order.

    Args:
        files: The files.
        read: Function that raises an ImageError for a file that cannot be used.

    Raises:
        ImageError: Files cannot be used; all of them are named, or the first ones and the number of others.
    """

    def attempt(file: Path) -> Result | ImageError:
        try:
            return read(file)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        results = list(threads.map(attempt, files))
    failed = {file: x for file, x in zip(files, results, strict=True) if isinstance(x, ImageError)}
    if failed:
        raise _join(failed, len(files)) from next(iter(failed.values()))
    return [x for x in results if not isinstance(x, ImageError)]


def read_page(file: Path, scale: int) -> FirstPage:
    """Read the first page or frame of a file.

    Args:
        file: File of any readable format.
        scale: Pixels for each pixel of the network's input, and side.

    Raises:
        ImageError: It cannot be read, or is too small.
    """
    page = read_first_page(file)
    height, width = page.pixels.shape[:2]
    if min(height, width) < scale:
        raise ImageError(
            f"cannot use {show(file)}: {width}×{height} pixels are less than one of the input; leave it out"
        )
    return page


def explain_left_out(frames: Mapping[Path, int], purpose: str) -> str | None:
    """Say of which files only the first page or frame is used; None if all have one.

    Args:
        frames: Number of pages or frames of each file.
        purpose: Verb for what they are used for, such as "train".
    """
    several = {file: count for file, count in frames.items() if count > 1}
    if not several:
        return None
    first, left = show(next(iter(several))), sum(several.values()) - len(several)
    files = first if len(several) == 1 else f"{len(several)} files, such as {first}"
    others = "another is" if left == 1 else f"{left} others are"
    return (
        f"used only the first page or frame of {files}; {others} left out; "
        f"split them into single images to {purpose} on all"
    )


def _join(failed: dict[Path, ImageError], count: int) -> ImageError:
    """Return one error for all files that failed, of a number of files."""
    names = [show(file) for file in failed]
    first = str(failed[next(iter(failed))])
    if len(failed) == 1:
        return ImageError(first)
    others = [f"{len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    reason = first.split(f"{names[0]}: ", 1)[-1].partition(";")[0]
    return ImageError(
        f"cannot use {len(names)} of {count} images: {enumerate_names([*names[:MOST_NAMES], *others])}; "
        f"leave them out, or try other copies (the first: {reason})"
    )
